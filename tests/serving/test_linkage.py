"""Can two days of one visitor be told to be one's, without consent? An attacker with everything that is stored tries.

The attacker is a model that is taught with visitors it knows, and asked about others: given a session of one day and a
session of the next, are they one visitor's? It sees every column of the handed-on sessions, the pseudonyms' bits, the
live record's event ids, and the log of decisions. What people do on two days may be alike whoever looks (a favourite
category, the same device); so visitors here do something else each day, drawn anew: whatever links them then is ours.
`python -m tests.serving.test_linkage` tells what behaviour alone gives away in the simulated shop.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from features.compiler import compile_fold
from serving.decisions import named
from serving.handover import ROW
from serving.pseudonyms import DAY_MS
from serving.sessions import history_of
from simulation.crowd import _wire
from simulation.shop import Simulated, simulate
from tests.serving.in_process import open_engine, post

START = 20_000 * DAY_MS
SWEEP_MS = 30 * 60_000
Visit = pd.DataFrame


def first_and_second_visits(drawn: Simulated, count: int) -> tuple[list[Visit], list[Visit]]:
    """Of visitors who came twice; each on a day of its own, at the hours at which they came."""
    events = drawn.events.assign(
        number=drawn.truth["visitor_number"].to_numpy(), visit=drawn.truth["session_number"].to_numpy()
    )
    visits: dict[tuple[int, int], Visit] = dict(
        iter(events[events["visit"] <= 2].groupby(["number", "visit"], sort=True))
    )
    twice = [number for number, visit in visits if visit == 2][:count]
    return [visits[number, 1] for number in twice], [visits[number, 2] for number in twice]


def day_of(visits: Sequence[Visit], day: int, consent: Sequence[str]) -> pd.DataFrame:
    """The events of one day in the order of their times: when, and as they go over the wire."""
    rows = []
    for person, visit in enumerate(visits):
        first = int(visit["time"].iloc[0])
        # visits that begin late would go on into the next day
        begin = START + day * DAY_MS + first % DAY_MS * 20 // 24
        for place, row in enumerate(visit.itertuples(index=False)):
            event = _wire(row, lambda value: f"{value & 0xFFFFFFFFFFFFFFFF:016x}" if value else "")
            at_ms = begin + int(row.time) - first
            rows.append((at_ms, {**event, "visitor": f"person-{person}", "id": f"{day}-{person}-{place}",
                                 "time": at_ms, "consent": list(consent)}))  # fmt: skip
    return pd.DataFrame(rows, columns=["at", "event"]).sort_values("at", kind="stable")


async def stored(trained: Path, folder: Path, days: Sequence[pd.DataFrame], people: int) -> list[pd.DataFrame]:
    """What is stored of each day, a row for each person, in their order; only a test knows the order."""
    engine = open_engine(trained, folder, "store.url=memory:", "decisions.sample=1", "decisions.kept_days=100000",
                         f'decisions.folder="{folder}/decisions"')  # fmt: skip
    who: list[dict[int, int]] = []
    for number, day in enumerate(days):
        swept = START + number * DAY_MS
        for begin in range(0, len(day), 500):
            part = day.iloc[begin : begin + 500]
            now = int(part["at"].iloc[-1])
            await post(engine, [part["event"].tolist()], now)
            if now > swept + SWEEP_MS:
                await engine.upkeep.sweep(now)
                await engine.upkeep.log_decisions(now)
                swept = now
        pseudonym = engine.pseudonyms.at(START + number * DAY_MS)
        linked = "link" in day["event"].iloc[0]["consent"]
        who.append({pseudonym(f"person-{person}", linked): person for person in range(people)})
        await engine.upkeep.sweep(START + (number + 1) * DAY_MS + DAY_MS // 24)
    await engine.upkeep.hand_over(START + 3 * DAY_MS)
    await engine.close()
    rows = pd.concat([pq.ParquetFile(path).read().to_pandas() for path in folder.glob("closed/day=*/*.parquet")])
    lines = [pd.read_json(path, lines=True, dtype={"visitor": str}) for path in (folder / "decisions").glob("*.jsonl")]
    decisions = _decisions(pd.concat(lines))
    found = []
    for number, people_of in enumerate(who):
        begin = START + number * DAY_MS
        mine = rows[(rows["started_at"] >= begin) & (rows["started_at"] < begin + DAY_MS)]
        mine = mine.assign(person=mine["visitor"].map(people_of)).dropna(subset=["person"])
        mine = mine.drop_duplicates("person").set_index("person").sort_index()
        mine["hour_ms"] = mine["started_at"] - begin
        mine["name"] = mine["visitor"].map(named)
        assert not mine["assignments"].map(len).any()  # there are no experiments
        mine = mine.join(decisions, on="name").drop(columns=["name", "record", "started_at", "ended_at", "assignments"])
        found.append(mine)
    both = found[0].index.intersection(found[1].index)
    return [one.loc[both] for one in found]


def _decisions(lines: pd.DataFrame) -> pd.DataFrame:
    """Of each pseudonym the mean scores, and how many lines there are."""
    scores = pd.DataFrame(lines["scores"].tolist(), index=lines["visitor"]).add_prefix("score_")
    grouped = scores.groupby(level=0)
    return grouped.mean().join(grouped.size().rename("lines"))


def auc(days: Sequence[pd.DataFrame], without: Collection[str] = (), seed: int = 0) -> float:
    """How well the attacker tells pairs of one person from pairs of two: 0.5 is guessing, 1 is certainty."""
    one, two = (day.drop(columns=[name for name in without if name in day]) for day in days)
    random = np.random.default_rng(seed)
    people = random.permutation(len(one))
    half = len(people) // 2

    def pairs(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        others = np.roll(chosen, random.integers(1, len(chosen)))
        left = np.concatenate([chosen, chosen])
        right = np.concatenate([chosen, others])
        return _compared(one.iloc[left], two.iloc[right]), np.repeat([1, 0], len(chosen))

    attacker = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.05, random_state=seed)
    attacker.fit(*pairs(people[:half]))
    rows, answer = pairs(people[half:])
    return float(roc_auc_score(answer, attacker.predict_proba(rows)[:, 1]))


def _compared(one: pd.DataFrame, two: pd.DataFrame) -> np.ndarray:
    """What a pair tells: of every column the difference, whether it is the same, and both; bits of the pseudonyms."""
    a, b = (frame.drop(columns="visitor").to_numpy(np.float64) for frame in (one, two))
    bits = one["visitor"].to_numpy() ^ two["visitor"].to_numpy()
    shared = np.array([[64 - int(value & 0xFFFFFFFFFFFFFFFF).bit_count(), value == 0] for value in bits.tolist()])
    with np.errstate(invalid="ignore"):
        told = np.hstack([np.abs(a - b), a == b, a, b, shared])
    return np.nan_to_num(told, nan=-1).astype(np.float32)


def fixed_keys(folder: Path, *, rotate: bool = True) -> Path:
    """The same pseudonyms in every run; rotate: another key for each day."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pseudonym.key").write_bytes(b"p" * 32)
    for day in range(-1, 3):
        (folder / f"day-{START // DAY_MS + day}.key").write_bytes(b"%032d" % (day if rotate else 0))
    return folder


def two_days(
    trained: Path, folder: Path, count: int, *, consent: Sequence[str], same_taste: bool, rotate: bool = True
) -> list[pd.DataFrame]:
    """What is stored. same_taste: whether a person is the same one on both days, and not only of the same name."""
    one, two = first_and_second_visits(simulate(visitors=count * 4, days=14, seed=3), count)
    if not same_taste:
        np.random.default_rng(1).shuffle(two)
    days = [day_of(visits, day, consent) for day, visits in enumerate((one, two))]
    return asyncio.run(stored(trained, fixed_keys(folder, rotate=rotate), days, len(one)))


@pytest.mark.slow
def test_two_days_of_a_visitor_are_two_visitors_without_consent(trained: Path, tmp_path: Path) -> None:
    found = auc(two_days(trained, tmp_path / "alone", 4_000, consent=["measure"], same_taste=False))
    assert found <= 0.52, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("consent", "rotate"), [(["measure", "link"], True), (["measure"], False)], ids=["with consent", "one key"]
)
def test_the_attacker_finds_what_is_there(trained: Path, tmp_path: Path, consent: list[str], rotate: bool) -> None:
    """With consent to link, or without if the day's key stayed: otherwise the test above would show nothing but a weak
    attacker, or a small one: here are fewer people than there.
    """
    days = two_days(trained, tmp_path / "linked", 600, consent=consent, same_taste=False, rotate=rotate)
    assert auc(days) > 0.95
    # what links them is the pseudonym, of rows and of lines of the log, and what is counted over linked visits
    days[1] = days[1].assign(visitor=np.random.default_rng(2).permutation(days[1]["visitor"].to_numpy()))
    logged = [name for name in days[0] if name == "lines" or name.startswith("score_")]
    history = [f"{row}{name}" for name in history_of(compile_fold()) for row in ("", ROW)]
    assert auc(days, without=[*history, *logged]) < 0.6


def main() -> None:
    """Tell what behaviour alone gives away: the same people, with their devices and favourites."""
    trained = Path(sys.argv[1])
    for same_taste in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            days = two_days(trained, Path(folder), 4_000, consent=["measure"], same_taste=same_taste)
        print("the same tastes" if same_taste else "tastes drawn anew")
        whole = days[0].drop(columns="visitor").select_dtypes("int64")
        hashes = [name for name in whole if whole[name].max() > 2**50]
        for what, without in (
            ("everything", []), ("without hashes", hashes), ("without hashes and device", [*hashes, "device_kind"])
        ):  # fmt: skip
            print(f"  {what}: AUC {auc(days, without):.3f}", flush=True)
        print(f"  hashes: {', '.join(hashes)}", flush=True)


if __name__ == "__main__":
    main()

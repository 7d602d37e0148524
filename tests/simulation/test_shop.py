"""The simulated shop: reproducible, in the form of the event, with a truth that its own outcomes confirm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from features.events import PURCHASE, check_events, hash64
from simulation.chain import BOT
from simulation.crowd import visits_of_shop
from simulation.shop import Simulated, simulate


@pytest.fixture(scope="module")
def drawn() -> Simulated:
    return simulate(events=400_000, seed=11)


@pytest.fixture(scope="module")
def outcomes(drawn: Simulated) -> pd.DataFrame:
    """Per event, in order of session and time: what happened, beside the truth."""
    table = pd.concat([drawn.events, drawn.truth], axis=1)
    key = ["visitor_number", "session_number"]
    table = table.sort_values([*key, "time"], kind="stable").reset_index(drop=True)
    grouped = table.groupby(key, sort=False)
    bought = table["name"] == PURCHASE
    so_far = bought.groupby([table[k] for k in key]).cumsum()
    total = bought.groupby([table[k] for k in key]).transform("sum")
    interactive = grouped["interactive"].transform("sum")
    span = grouped["time"].transform("max") - grouped["time"].transform("min")
    return table.assign(
        prefix=grouped.cumcount() + 1,
        converted_later=total > so_far,
        was_last=grouped.cumcount(ascending=False) == 0,
        bounced=(interactive <= 1) & (span < 10_000) & (total == 0),
    )


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, two, other = simulate(events=5_000, seed=3), simulate(events=5_000, seed=3), simulate(events=5_000, seed=4)
    pd.testing.assert_frame_equal(one.events, two.events)
    pd.testing.assert_frame_equal(one.truth, two.truth)
    assert not one.events["time"].equals(other.events["time"][: len(one.events)])


def test_events_are_canonical(drawn: Simulated) -> None:
    pd.testing.assert_frame_equal(check_events(drawn.events), drawn.events)
    assert drawn.events["time"].is_monotonic_increasing
    assert drawn.events["id"].is_unique
    assert len(drawn.events) == len(drawn.truth) == pytest.approx(400_000, rel=0.01)


def test_it_looks_like_a_shop(outcomes: pd.DataFrame) -> None:
    first = outcomes[outcomes["prefix"] == 1]
    assert 0.30 < first["bounced"].mean() < 0.45
    assert 0.03 < first["converted_later"].mean() < 0.08
    assert 5 < len(outcomes) / len(first) < 8
    assert 0.1 < (first["session_number"] > 1).mean() < 0.6  # returning visitors
    bots = outcomes["kind"] == BOT
    assert 0.01 < bots[outcomes["prefix"] == 1].mean() < 0.1
    assert not (bots & (outcomes["name"] == PURCHASE)).any()
    hours = pd.to_datetime(first["time"], unit="ms").dt.hour.value_counts()
    assert hours.max() > 5 * hours.min()  # nights are quiet
    days = pd.to_datetime(first["time"], unit="ms").dt.day_of_week.value_counts()
    assert days[6] > days[2]  # Sundays are not


def test_no_session_is_cut_by_the_timeout(outcomes: pd.DataFrame) -> None:
    gaps = outcomes["time"].diff()[outcomes["prefix"] > 1]
    assert gaps.min() >= 0
    assert gaps.max() < 30 * 60_000
    starts = outcomes[outcomes["prefix"] == 1]
    ends = outcomes[outcomes["was_last"]]
    returning = starts["session_number"].to_numpy()[1:] > 1
    away = (starts["time"].to_numpy()[1:] - ends["time"].to_numpy()[:-1])[returning]
    assert away.min() > 30 * 60_000


HAPPENED = {"exit": "was_last", "conversion": "converted_later", "bounce": "bounced"}
# a bounce is open for one interactive event, so at most for a few passive ones after it
CASES = [(truth, prefix) for truth in ("exit", "conversion") for prefix in (1, 2, 3, 5, 10)] + [
    ("bounce", 1),
    ("bounce", 2),
]


@pytest.mark.parametrize(("truth", "prefix"), CASES)
def test_the_truth_is_what_happens(outcomes: pd.DataFrame, truth: str, prefix: int) -> None:
    """Within the truth's own bins, outcomes come as often as it says, to four standard errors."""
    rows = outcomes[(outcomes["prefix"] == prefix) & outcomes[truth].notna()]
    assert len(rows) > 500
    for part in np.array_split(np.argsort(rows[truth].to_numpy(), kind="stable"), 4):
        expected = rows[truth].to_numpy()[part]
        error = np.sqrt((expected * (1 - expected)).sum()) / len(part)
        assert abs(rows[HAPPENED[truth]].to_numpy()[part].mean() - expected.mean()) <= 4 * error + 1e-4


def test_the_truth_of_bounce_is_told_while_it_is_open(outcomes: pd.DataFrame) -> None:
    assert outcomes["bounce"][outcomes["prefix"] == 1].notna().all()
    decided = outcomes["bounce"].isna()
    assert not outcomes["bounced"][decided].any()


def test_the_crowd_sends_what_the_history_holds() -> None:
    drawn = simulate(visitors=50, seed=5)
    visits = visits_of_shop(drawn)
    assert len(visits) == drawn.truth["visitor_number"].nunique()
    hashes = set(drawn.events["item"]) | set(drawn.events["page"]) | set(drawn.events["category"])
    for visit in visits:
        assert len(visit.events) == len(visit.offsets) == len(visit.truth)
        assert visit.offsets[0] == 0 and visit.offsets == sorted(visit.offsets)
        for event in visit.events:
            for field in ("item", "page", "category"):
                assert hash64(event.get(field, "")) in hashes | {0}


def test_sizes_are_asked_for_in_one_way() -> None:
    with pytest.raises(ValueError, match="either events= or visitors="):
        simulate()
    with pytest.raises(ValueError, match="days=0.5; expected at least 1"):
        simulate(events=1000, days=0.5)

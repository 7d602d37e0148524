"""`lotse inspect`: a log in, what is in it and whether it is enough to train from; every count is exact."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from features.cli import build_app
from features.errors import EventError
from features.events import ADD_TO_CART, DEVICES, PAGE_VIEW, PURCHASE, VIEW_ITEM, Event
from features.pseudonyms import Pseudonymiser
from features.settings import SettingsError
from features.shop import ShopSettings
from features.sources import Notes, open_source, read_chunks
from simulation.shop import simulate
from tests.sessions import START, table
from tests.shared import SHARED, TAOBAO
from tests.workspace import lotse, workspace
from training.config import load_training
from training.inspection import Inspection, inspect

KEY = Pseudonymiser(b"0123456789abcdef")
TRIVAGO = SHARED / "data" / "trivago" / "sessions.parquet"
NOW = 1_790_000_000_000


def look_into(source: str, path: Path, *training: str, chunk_rows: int = 250_000, **overrides: Any) -> Inspection:
    reader, reading = open_source(source, path, ShopSettings(), KEY, chunk_rows=chunk_rows, overrides=overrides)
    return inspect(read_chunks(reader, reading), reading.notes, load_training(overrides=training), NOW)


def look_at(events: list[Event], *, chunk: int = 100, now_ms: int = NOW) -> Inspection:
    chunks = [table(events[start : start + chunk]) for start in range(0, len(events), chunk)]
    return inspect(chunks, Notes(rows=len(events)), load_training(), now_ms)


def test_the_marketplace_has_its_published_numbers() -> None:
    whole = look_into("taobao", TAOBAO, start=None, end=None)
    assert (whole.rows, whole.events, whole.visitors, whole.sessions) == (45_183, 45_183, 413, 7_283)
    assert round(whole.single_share, 3) == 0.303
    assert (round(whole.conversion_rate, 3), whole.goal) == (0.092, "purchase")
    assert whole.names == {"view_item": 40_600, "add_to_cart": 2_347, "add_to_wishlist": 1_382, "purchase": 854}
    assert (whole.first, whole.linked_share) == ("2017-11-23T10:19:37.000Z", 1.0)
    assert whole.steps_back == 412  # one at the end of each user but the last
    assert whole.missing == {"bounce": [], "conversion": [], "exit": []}
    assert whole.enough
    inside = look_into("taobao", TAOBAO)
    assert (inside.rows, inside.events, inside.skipped) == (45_183, 45_163, {"outside start and end": 20})
    assert (inside.sessions, inside.first, inside.last) == (
        7_269,
        "2017-11-24T16:00:17.000Z",
        "2017-12-03T15:59:23.000Z",
    )


def test_hotel_searches_are_full_of_ties_and_unfit_for_a_bounce_head() -> None:
    found = look_into("trivago", TRIVAGO, "labels.goal=generate_lead")
    assert (found.events, found.visitors, found.session_most) == (100_003, 6_593, 683)
    neighbours = found.events - found.visitors
    assert round(found.same_second_share * neighbours / found.events, 2) == 0.58  # as published, of all events
    assert found.same_ms_share == found.same_second_share  # times are in seconds
    assert (found.goal, round(found.conversion_rate, 2)) == ("generate_lead", 0.94)
    raw = pd.read_parquet(TRIVAGO, columns=["timestamp"])["timestamp"].diff()
    assert (found.steps_back, found.largest_step_back_ms) == ((raw < 0).sum(), -raw.min() * 1000)
    assert look_into("trivago", TRIVAGO).conversion_rate == 0  # nobody purchases there


def test_the_simulated_shop_is_counted_as_a_slow_count_counts_it(tmp_path: Path) -> None:
    drawn = simulate(events=30_000, seed=5)
    drawn.events.to_parquet(tmp_path / "shop.parquet")
    found = look_into("lotse", tmp_path / "shop.parquet")
    events = drawn.events.reset_index(drop=True).join(
        drawn.truth[["visitor_number", "session_number"]].reset_index(drop=True)
    )
    by_session = events.groupby(["visitor_number", "session_number"])
    sizes = by_session.size()
    bought = by_session["name"].apply(lambda names: (names == PURCHASE).any())
    short = by_session["time"].apply(lambda time: time.max() - time.min() < 10_000)
    bounced = short & (by_session["interactive"].sum() <= 1) & ~bought
    open_at_end = by_session["time"].max() + 1_800_000 > events["time"].max()
    assert (found.events, found.visitors, found.sessions) == (len(events), events["visitor"].nunique(), len(sizes))
    assert found.conversion_rate == bought.mean()
    assert found.bounce_rate == bounced.mean()
    assert found.single_share == (sizes == 1).mean()
    assert found.open_sessions == open_at_end.sum()
    spread = (found.session_median, found.session_p99, found.session_most)
    assert spread == (sizes.median(), sizes.quantile(0.99), sizes.max())
    assert found.linked_share == (events["consent"] & 2 > 0).mean()
    device = by_session["device"].apply(lambda devices: (devices == DEVICES.index("bot")).any())
    assert found.declared_bots == device.sum() > 0


@pytest.mark.parametrize("chunk_rows", [1, 7, 1000])
def test_chunks_change_nothing(tmp_path: Path, chunk_rows: int) -> None:
    rows = pd.read_parquet(TAOBAO).head(300)
    rows.to_parquet(tmp_path / "log.parquet")
    small = look_into("taobao", tmp_path / "log.parquet", chunk_rows=chunk_rows)
    assert asdict(small) == asdict(look_into("taobao", tmp_path / "log.parquet"))
    assert small.steps_back == (rows["timestamp"].diff() < 0).sum() > 0


def test_repeats_ties_and_late_events_are_told_apart() -> None:
    events = [
        Event(visitor=1, time=START, name=PAGE_VIEW, id=5),
        Event(visitor=1, time=START, name=PAGE_VIEW, id=5),  # delivered twice: the same id, the same row
        Event(visitor=2, time=START + 10, name=PAGE_VIEW, page=7),
        Event(visitor=2, time=START + 10, name=PAGE_VIEW, page=8),  # a tie, but another page
        Event(visitor=2, time=START + 10, name=PAGE_VIEW, page=7),  # the same row again, without an id
        Event(visitor=2, time=START + 900, name=PAGE_VIEW, page=7),
        Event(visitor=3, time=START + 5_000, name=PAGE_VIEW, session=1),
        Event(visitor=3, time=START + 9_000, name=PAGE_VIEW, session=2),
        Event(visitor=3, time=START + 8_000, name=PAGE_VIEW, session=1),  # late: session 2 had begun
    ]
    for chunk in (1, 2, 100):
        found = look_at(events, chunk=chunk)
        assert (found.events, found.repeated_ids, found.identical_rows, found.late_events) == (9, 1, 2, 1)
        # neighbours: one pair of visitor 1, three of visitor 2, two of visitor 3
        assert (found.same_ms_share, found.same_second_share) == (3 / 6, 4 / 6)
        assert (found.steps_back, found.largest_step_back_ms) == (1, 1_000)
        assert (found.visitors, found.sessions, found.session_most) == (3, 4, 4)


def test_bots_are_those_that_say_so_and_those_that_act_so() -> None:
    def visit(visitor: int, gaps_ms: list[int], device: str = "desktop") -> list[Event]:
        times = START + np.cumsum([0, *gaps_ms])
        return [Event(visitor=visitor, time=int(t), name=VIEW_ITEM, device=DEVICES.index(device)) for t in times]

    machine, person = [200] * 9, [4_000, 31_000, 900, 12_000, 70_000, 5_500]
    found = look_at([*visit(1, machine), *visit(2, machine, "bot"), *visit(3, person), *visit(4, [60_000], "bot")])
    assert (found.sessions, found.declared_bots, found.likely_bots) == (4, 2, 1)


def test_events_after_now_and_events_without_consent_are_shares_of_all() -> None:
    events = [Event(visitor=1, time=START + n * 1000, name=PAGE_VIEW, consent=3 if n < 1 else 1) for n in range(4)]
    found = look_at(events, now_ms=START + 1_000)
    assert (found.future_share, found.linked_share) == (0.5, 0.25)


def test_what_is_missing_is_said_slice_by_slice() -> None:
    def visit(visitor: int, start: int, buys: bool) -> list[Event]:
        names = [VIEW_ITEM, ADD_TO_CART, PURCHASE if buys else VIEW_ITEM]
        return [Event(visitor=visitor, time=start + 5_000 * n, name=name) for n, name in enumerate(names)]

    events = [e for v in range(4_000) for e in visit(v, START + v * 600_000, buys=1000 <= v < 1020)]
    found = look_at(events, chunk=5_000)
    assert found.missing["exit"] == []
    assert found.enough
    assert found.missing["conversion"] == [
        "head 'conversion': the test has 0 sessions where the answer is yes, at least 5 are needed; use a longer "
        "history, another event as goal, or leave the head out with --set 'heads.train=[...]'"
    ]
    few = look_at(events[:30])
    assert not few.enough
    for reasons in few.missing.values():
        span, past, test = reasons
        assert "the log spans 0.1 days, at least 1.0 are needed; use a longer history" in span
        assert "the past has" in past
        assert "the test has" in test
        assert "sessions, at least 50 are needed" in past


def test_nothing_is_looked_at_without_a_fault() -> None:
    found = inspect([], Notes(), load_training(), NOW)
    assert (found.events, found.sessions, found.first, found.enough) == (0, 0, None, False)
    json.dumps(asdict(found), allow_nan=False)


HEAD = (
    "visitor_id,session_id,event_id,time,event,path,product_id,category,price,quantity,value,currency,channel,device\n"
)
ROWS = (
    "jane,s1,e1,2026-01-05T10:00:00Z,pageview,/,,,,,,,SEO,phone\n"
    "jane,s1,e2,2026-01-05T10:00:01Z,kaufen,/p,,,,,,,pigeon,phone\n"
    "jane,s1,e3,yesterday,pageview,/,,,,,,,SEO,phone\n"
    "jane,s1,e4,2026-01-05T10:00:03Z,kaufen,/p,,,,,,,SEO,phone\n"
)


def test_the_verb_reads_what_training_would_stop_at(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "work")
    (folder / "log.csv").write_text(HEAD + ROWS)
    done = lotse(folder, "inspect", "csv", "log.csv", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["source"], found["rows"], found["events"], found["enough"]) == ("csv", 4, 3, False)
    assert found["skipped"] == {"time: no time": 1}
    assert found["unmapped"] == {"kaufen": 2, "channel pigeon": 1}
    assert found["names"] == {"custom": 2, "page_view": 1}
    assert found["missing"]["exit"][0].startswith("head 'exit': the log spans 0.0 days, at least 1.0 are needed")
    shown = " ".join(lotse(folder, "inspect", "csv", "log.csv").stdout.split())
    for words in (
        "training stops at a row",
        "[sources.csv.events]",
        "[sources.csv.channels]",
        "of all sessions; the goal",
    ):
        assert words in shown, shown
    assert "head 'exit': the past has 0 sessions, at least 50 are needed" in shown


def test_an_empty_file_is_not_enough_and_no_error(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "work")
    (folder / "empty.csv").write_text("")
    (folder / "configs" / "shop.toml").write_text('[sources.mine]\nreader = "taobao"\npath = "empty.csv"\n')
    done = lotse(folder, "inspect", "mine")  # the path is the section's own
    assert done.returncode == 0, done.stderr
    assert "not enough to train: the log gives no events" in done.stdout
    assert "train from it" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["taobao"], "where is the log of 'taobao'?"),
        (["taobao", "none.csv"], "no file at none.csv"),
        (["piwik", "none.csv"], "unknown source 'piwik'; there are: access_log"),
        (["taobao", "none.csv", "--set", "labels.gaol=search"], "unknown key 'labels.gaol'"),
    ],
)
def test_the_verb_says_what_it_cannot_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(workspace(tmp_path / "work"))
    with pytest.raises((EventError, SettingsError), match=re.escape(message)):
        CliRunner().invoke(build_app(), ["inspect", *arguments], catch_exceptions=False)

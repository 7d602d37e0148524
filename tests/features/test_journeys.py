"""Journeys: counts over kept aggregates are those of the raw events, agree with each other, live and from a history."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.events import COLUMNS, Event
from features.journeys.endings import endings
from features.journeys.funnels import Funnel, reached
from features.journeys.paths import PLACES, Picture, backward, forward, walk
from features.journeys.sessions import Sessions, of_events, of_history
from features.shop import load_shop
from features.sources import read_events
from features.steps import KEPT_STEPS, STEPS
from simulation.shop import simulate
from tests import journeys as naive
from tests.sessions import START, histories, table
from tests.shared import SHARED, TAOBAO

FUNNELS = [
    Funnel(steps, mode, entry)
    for steps in (("item", "cart add", "purchase"), ("search", "item", "cart"), ("item",), ("content", "list", "item"))
    for mode in ("strict", "loose")
    for entry in (False, True)
]
LOGS = {
    "simulated": None,
    "taobao": TAOBAO,
    "retailrocket": SHARED / "data" / "retailrocket_sample",
    "trivago": SHARED / "data" / "trivago",
}


def counted(picture: Picture) -> list[Counter[tuple[str, str]]]:
    counts = picture.counts()
    return [
        Counter({(PLACES[a], PLACES[b]): int(of[a, b]) for a, b in np.argwhere(of).tolist()}) for of in counts
    ]  # fmt: skip


def assert_equal_to_raw_events(sessions: Sessions, visits: list[naive.Visit]) -> None:
    """Every path, funnel and ending; of sessions that are longer than what is kept, as far as is claimed of them."""
    paths = [visit.path for visit in visits]
    assert len(sessions) == len(paths)
    way = walk(sessions)
    kept = [path[:KEPT_STEPS] for path in paths]
    assert sorted("|".join(path) for path in kept) == sorted(
        "|".join(STEPS[step] for step in line[:size])
        for line, size in zip(way.steps, way.length, strict=True)
    )  # fmt: skip
    assert way.cut.sum() == sum(len(path) > KEPT_STEPS for path in paths)
    for begin in ((), ("item",), ("item", "cart add")):
        assert counted(forward(way, begin, 8)) == naive.moves_of(paths, begin, 8)
    for goal in (("purchase",), ("cart add",), ("item", "lead")):
        assert counted(backward(way, goal, 8)) == naive.moves_to(kept, goal, 8)
    for funnel in FUNNELS:
        found = reached(way, funnel, sessions["steps_seen_bits"])
        true = np.array([naive.came(path, funnel.steps, funnel.mode, funnel.entry) for path in paths])
        counts, steps = [int((true >= n).sum()) for n in range(1, len(funnel.steps) + 1)], len(funnel.steps)
        least, open_ = found.counts(steps), found.undecided(steps)
        for count, low, more in zip(counts, least, open_, strict=True):
            assert low <= count <= low + more
        if not way.cut.any():
            assert not open_.any()
    ends = endings(sessions)
    assert {STEPS[n]: int(count) for n, count in enumerate(ends.ended) if count} == Counter(
        path[-1] for path in paths if path
    )
    assert {STEPS[n]: int(count) for n, count in enumerate(ends.seen) if count} == Counter(
        step for path in paths for step in set(path)
    )


@given(histories(visitors=3, most=60))
def test_random_histories(events: list[Event]) -> None:
    visits = naive.visits_of(events)
    sessions = of_events(table(events))
    assert_equal_to_raw_events(sessions, visits)
    seconds = sorted(((sessions["last_at"] - sessions["started_at"]) / 1000).tolist())
    assert seconds == sorted(visit.seconds for visit in visits)


@given(st.lists(st.sampled_from([1, 2, 4, 5, 7, 13, 17]), min_size=90, max_size=130))
def test_a_session_that_is_longer_than_what_is_kept(names: list[int]) -> None:
    events = [Event(visitor=1, time=START + 1000 * n, name=name) for n, name in enumerate(names)]
    assert_equal_to_raw_events(of_events(table(events)), naive.visits_of(events))


@pytest.mark.parametrize("log", LOGS)
def test_logs(log: str) -> None:
    where = LOGS[log]
    events = read_events(log, where, load_shop()) if where else simulate(events=60_000, seed=2).events
    sessions = of_history([events[:7_000], events[7_000:]], keep_open=True)
    raw = [Event(*line) for line in events[list(COLUMNS)].itertuples(index=False)]
    assert_equal_to_raw_events(sessions, naive.visits_of(raw))

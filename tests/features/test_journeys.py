"""Journeys: counts over kept aggregates are those of the raw events, agree with each other, live and from a history."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import COLUMNS, EVENT_NAMES, Event
from features.journeys.cohorts import cohorts, differences
from features.journeys.dwell import dwell
from features.journeys.endings import endings
from features.journeys.funnels import Funnel, reached
from features.journeys.paths import PLACES, Picture, backward, forward, walk
from features.journeys.report import Asked, journeys, usual
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


@settings(max_examples=40)
@given(histories(visitors=3, most=60))
def test_random_histories(events: list[Event]) -> None:
    visits = naive.visits_of(events)
    sessions = of_events(table(events))
    assert_equal_to_raw_events(sessions, visits)
    seconds = sorted(((sessions["last_at"] - sessions["started_at"]) / 1000).tolist())
    assert seconds == sorted(visit.seconds for visit in visits)


@settings(max_examples=25)
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


@pytest.fixture(scope="module")
def shop() -> Sessions:
    return of_history([simulate(events=60_000, seed=2).events])


def test_funnels_paths_and_endings_agree(shop: Sessions) -> None:
    way, bits = walk(shop), shop["steps_seen_bits"]
    steps = ("item", "cart add", "checkout")
    ahead = counted(forward(way, steps[:1], 6))
    funnel = reached(way, Funnel(steps, "strict", entry=True), bits).counts(3)
    # what a path shows is what its clicked steps count as a funnel
    assert funnel[0] == sum(ahead[0].values())
    assert funnel[1] == ahead[0]["item", "cart add"]
    assert funnel[2] == ahead[1]["cart add", "checkout"] > 10
    further = counted(forward(way, steps, 3))
    assert sum(further[0].values()) == funnel[2]
    assert (
        further[2]["checkout", "payment"]
        == reached(way, Funnel((*steps, "payment"), "strict", entry=True), bits).counts(4)[3]
    )
    # whoever reached the goal is in the path back from it
    for goal in ("purchase", "cart add"):
        back = backward(way, (goal,), 6)
        assert back.chosen.sum() == reached(way, Funnel((goal,)), bits).counts(1)[0]
    # what goes in comes out, or ends: and all that ends is where sessions ended
    every = forward(way, (), KEPT_STEPS)
    counts = every.counts()
    for before, after in pairwise(counts):
        assert (before[:, : len(STEPS)].sum(axis=0) == after.sum(axis=1)[: len(STEPS)]).all()
    ended, cut = counts[:, :, PLACES.index("end")].sum(axis=0), counts[:, :, PLACES.index("not kept")].sum()
    ends = endings(shop)
    assert cut == way.cut.sum()
    assert ended.sum() + cut == ends.ended.sum() == len(shop) - (way.length == 0).sum()
    whole = shop.where(~way.cut)
    assert (
        endings(whole).ended.tolist()
        == forward(walk(whole), (), KEPT_STEPS).counts()[:, : len(STEPS), PLACES.index("end")].sum(axis=0).tolist()
    )


def test_a_segment_is_a_part(shop: Sessions) -> None:
    found = journeys(shop, Asked(funnels=(Funnel(("item", "cart add", "purchase")),), least_visitors=1))
    (funnel,) = found["funnels"]
    for dimension, parts in funnel["segments"].items():
        total = np.sum(list(parts.values()), axis=0)
        assert total.tolist() == funnel["reached"], dimension
    assert sum(line["ended"] for line in found["endings"]["steps"]) == found["sessions"]
    assert sum(line["sessions"] for line in found["returning"]["visits"]) == found["sessions"]


def test_steps_that_are_not_looked_at_are_as_if_they_had_never_been(shop: Sessions) -> None:
    events = simulate(events=20_000, seed=4).events
    without = events[~events["name"].isin([EVENT_NAMES.index("search"), EVENT_NAMES.index("view_item_list")])]
    # one visit a visitor, so that a dropped event moves no session's border
    every, fewer = (of_events(some, timeout_seconds=10**7) for some in (events, without))
    left_out, never = walk(every, ("search", "list")), walk(fewer)
    known = (left_out.length > 0) & ~left_out.cut
    told, expected = (
        Counter(bytes(line) for line in steps)
        for steps in (left_out.steps[known], never.steps[(never.length > 0) & (never.length < KEPT_STEPS)])
    )
    assert told and not told - expected


def test_dwell_is_the_time_until_another_page_is_opened() -> None:
    events = [
        Event(visitor=1, time=START, name=EVENT_NAMES.index("view_item")),
        Event(visitor=1, time=START + 4_000, name=EVENT_NAMES.index("add_to_cart")),
        Event(visitor=1, time=START + 7_000, name=EVENT_NAMES.index("begin_checkout")),
        Event(visitor=1, time=START + 9_000, name=EVENT_NAMES.index("add_payment_info")),
        Event(visitor=2, time=START, name=EVENT_NAMES.index("view_item")),
    ]
    found = {one.kind: one for one in dwell(of_events(table(events)))}
    item, checkout = found["item"], found["checkout"]
    assert sorted(item.seconds.tolist()) == [0.0, 7.0] and item.opened.all()
    assert item.quantiles(item.opened & item.ended) == (0.0, 0.0, 0.0)
    assert checkout.quantiles(checkout.opened)[0] == 2.0 and checkout.ended.sum() == 1


def test_dwell_stays_at_the_most_that_it_can_hold() -> None:
    days = [Event(visitor=1, session=5, time=START + 20 * day * 86_400_000, name=4) for day in range(3)]
    (item,) = (one for one in dwell(of_events(table(days), timeout_seconds=2_000_000)) if one.kind == "item")
    assert item.seconds.tolist() == [(2**31 - 1) / 1000]


def test_effects_are_found_where_there_are_some() -> None:
    random, events = np.random.default_rng(1), []
    for visitor in range(1, 2_001):
        # phones leave at once twice as often; channels make no difference
        device = int(random.integers(1, 3))
        stays = random.random() < (0.5 if device == 1 else 0.25)
        name = EVENT_NAMES.index("view_item")
        own = Event(visitor=visitor, time=START, name=name, device=device, channel=int(random.integers(1, 3)))
        times = random.integers(0, 10_000, int(random.integers(1, 4)))
        events += [own._replace(time=START + int(later)) for later in sorted(times)]
        events += [own._replace(time=START + 400_000)] if stays else []
    sessions = of_events(table(events))
    brief, long = cohorts(sessions)
    traits = {trait.name: trait for trait in differences(sessions, walk(sessions), brief, long)}
    desktop, organic = traits["device: desktop"], traits["channel: direct"]
    counts = [((sessions["device_kind"] == 1) & side).sum() / side.sum() for side in (long, brief)]
    assert desktop.effect == pytest.approx(counts[0] - counts[1])
    assert desktop.low > 0.1 and desktop.h > 0.3
    assert organic.low < 0 < organic.high
    events_of = [sessions["events"][side][:, None] for side in (long, brief)]
    more, equal = events_of[0] > events_of[1].T, events_of[0] == events_of[1].T
    assert traits["events"].effect == pytest.approx((more + 0.5 * equal).mean())
    assert 0.7 < traits["events"].low < traits["events"].effect < traits["events"].high


def numbers(told: object) -> list[int]:
    if isinstance(told, dict):
        return [n for key, one in told.items() if key not in NO_COUNTS for n in numbers(one)]
    if isinstance(told, list):
        return [n for one in told for n in numbers(one)]
    return [told] if isinstance(told, int) and not isinstance(told, bool) else []


NO_COUNTS = {"place", "least_visitors", "kept_steps", "open", "without_path", "excess"}


@pytest.mark.parametrize(("log", "k"), [("simulated", 50), ("simulated", 10), ("trivago", 50)])
def test_no_small_group_is_told(log: str, k: int) -> None:
    where = LOGS[log]
    events = read_events(log, where, load_shop()) if where else simulate(events=60_000, seed=2).events
    sessions = of_history([events])
    asked = usual(sessions, Asked(begin=("item",), least_visitors=k))
    told = journeys(sessions, asked)
    assert numbers(told) and min(n for n in numbers(told) if n) >= k
    # nor by taking what is told away from each other
    entries = journeys(sessions, replace(asked, begin=()))["entries"]
    assert len(entries) > 2 and next(one for one in entries if one["begin"] == ["item"]) == told["forward"]
    ahead = [(part, ("from", "to")) for part in (told["forward"], *entries)]
    for part, sides in (*ahead, (told["backward"], ("to", "from"))):
        assert part["moves"] and min(naive.worked_out(part, *sides), default=k) >= k
    for funnel in told["funnels"]:
        assert min(naive.left_over(funnel)) >= k
    everybody = journeys(sessions, replace(asked, least_visitors=len(sessions) + 1))
    assert everybody["sessions"] is None and numbers(everybody) == []


def test_a_visitor_with_many_visits_is_no_group() -> None:
    name = EVENT_NAMES.index("view_item")
    events = [Event(visitor=7, time=START + 10**7 * n, name=name) for n in range(60)]
    events += [Event(visitor=n, time=START, name=EVENT_NAMES.index("search")) for n in range(100, 300)]
    told = journeys(of_events(table(events)), Asked())
    assert told["sessions"] == 260
    assert [line["step"] for line in told["endings"]["steps"]] == ["search"]
    assert {one["step"] for one in told["forward"]["steps"]} <= {"rare", "end"}

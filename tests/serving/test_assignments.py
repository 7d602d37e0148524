"""What experiments assign stays with the session, ends with it, and is handed on with it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from features.events import hash64
from features.experiments import FORCED, VISITOR
from serving.engine import Engine
from serving.experiments.assignments import MOST, Assignment, pack, unpack
from serving.requests import Answer
from serving.sessions import Assigning, key_of
from tests.serving.in_process import open_engine, post

NOW = 1_770_000_000_000
HOUR = 3_600_000
ONE = Assignment(hash64("one"), NOW, 0.5, 3.0, 0.75, 0.25, 0.5, 2, 1, 1)
LASTING = Assignment(hash64("lasting"), NOW, 0.25, 3.0, 0.75, 0.25, 0.5, 2, 3, 2, VISITOR | FORCED)
LINKED = {"consent": ["measure", "link"]}


@pytest.fixture(params=["memory:", "embedded"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """One with a store of its own."""
    url = request.param if ":" in request.param else f"embedded:{tmp_path}/live"
    return open_engine(None, tmp_path, f"store.url={url}", "store.size_gib=0.05")


async def send(engine: Engine, at: int, *names: str, **more: Any) -> Answer:
    """Events of one visitor in one request; the last answer."""
    events = [{"visitor": "anna", "name": name, "time": at + place, **more} for place, name in enumerate(names)]
    ((*_, last),) = await post(engine, [events], at)
    return last


async def assign(engine: Engine, answer: Answer, *more: Assignment) -> list[Assignment] | None:
    """What is assigned to the session afterwards."""
    visitor, started_at = engine.looks.opened(answer.session)
    visit = Assigning([engine.sessions], key_of(visitor), started_at, more)
    await engine.outage.ask(partial(engine.store.apply, [visit]))
    return None if visit.assigned is None else unpack(visit.assigned)


async def assigned(engine: Engine, answer: Answer) -> list[Assignment]:
    """What the record has."""
    visitor, _ = engine.looks.opened(answer.session)
    value = await engine.outage.ask(lambda: engine.store.read(key_of(visitor)))
    assert value is not None
    return unpack(engine.sessions.assigned(value))


def closed(engine: Engine) -> list[dict[str, Any]]:
    """Sessions that were handed on, the earliest first."""
    rows = [row for path in engine.closed._files() for row in pq.ParquetFile(path).read().to_pylist()]
    return sorted(rows, key=lambda row: row["started_at"])


def test_it_stays_while_events_come(engine: Engine) -> None:
    async def run() -> None:
        first = await send(engine, NOW, "page_view")
        assert await assign(engine, first, ONE) == [ONE]
        assert await assign(engine, first, ONE._replace(arm=0, exposed_at=NOW + 9)) == [ONE]
        for number in range(3):
            answer = await send(engine, NOW + 1000 * number, "view_item", "search")
            assert await assigned(engine, answer) == [ONE]
        # more than seven at once: their ids stand behind it
        answer = await send(engine, NOW + 9000, *["view_item"] * 12)
        assert answer.events == 19 and await assigned(engine, answer) == [ONE]
        assert await assign(engine, answer, LASTING, ONE) == [ONE, LASTING]
        looked, view = await engine.looks.look(answer.session, NOW + 10_000)
        assert looked.events == 19 and view.events == 19

    asyncio.run(run())


def test_a_session_is_handed_on_with_it(engine: Engine) -> None:
    async def run() -> None:
        first = await send(engine, NOW, "page_view", "view_item")
        await assign(engine, first, ONE, LASTING)
        await engine.upkeep.sweep(NOW + HOUR)
        await engine.upkeep.hand_over(NOW + HOUR)
        (row,) = closed(engine)
        assert [Assignment(**one) for one in row["assignments"]] == [ONE, LASTING]
        assert row["events"] == 2 and row["consent"] == 1

    asyncio.run(run())


def test_what_ends_with_an_event_and_what_lasts(engine: Engine) -> None:
    async def run() -> None:
        first = await send(engine, NOW, "page_view", **LINKED)
        await assign(engine, first, ONE, LASTING)
        # its session ends because the next one begins, before anybody has looked
        second = await send(engine, NOW + HOUR, "page_view", "search", **LINKED)
        assert second.events == 2 and await assigned(engine, second) == [LASTING]
        # and now somebody has looked
        await engine.upkeep.sweep(NOW + 2 * HOUR)
        third = await send(engine, NOW + 3 * HOUR, "page_view", **LINKED)
        assert third.events == 1 and await assigned(engine, third) == [LASTING]
        await engine.upkeep.sweep(NOW + 5 * HOUR)
        await engine.upkeep.hand_over(NOW + 5 * HOUR)
        told = [[Assignment(**one) for one in row["assignments"]] for row in closed(engine)]
        assert told == [[ONE, LASTING], [LASTING], [LASTING]]

    asyncio.run(run())


def test_two_sessions_of_one_request(engine: Engine) -> None:
    async def run() -> None:
        first = await send(engine, NOW, "page_view", **LINKED)
        await assign(engine, first, ONE, LASTING)
        events = [{"visitor": "anna", "name": "page_view", "time": NOW + hours * HOUR, **LINKED} for hours in (1, 2, 3)]
        await post(engine, [events], NOW + 3 * HOUR)
        await engine.upkeep.sweep(NOW + 5 * HOUR)
        await engine.upkeep.hand_over(NOW + 5 * HOUR)
        told = [[Assignment(**one) for one in row["assignments"]] for row in closed(engine)]
        assert told == [[ONE, LASTING], [LASTING], [LASTING], [LASTING]]

    asyncio.run(run())


def test_consent_that_is_given_or_withdrawn(engine: Engine) -> None:
    async def run() -> None:
        first = await send(engine, NOW, "page_view")
        await assign(engine, first, ONE)
        given = await send(engine, NOW + 1000, "page_view", **LINKED)
        assert given.events == 2 and await assigned(engine, given) == [ONE]
        await assign(engine, given, LASTING)
        withdrawn = await send(engine, NOW + 2000, "page_view")
        assert withdrawn.events == 3
        # it goes on as it was for this session, and for no other one
        assert await assigned(engine, withdrawn) == [ONE, LASTING._replace(flags=FORCED)]
        later = await send(engine, NOW + HOUR, "page_view")
        assert later.events == 1 and await assigned(engine, later) == []

    asyncio.run(run())


def test_another_session_is_not_meant(engine: Engine) -> None:
    async def run() -> None:
        first = await send(engine, NOW, "page_view")
        await send(engine, NOW + HOUR, "page_view")
        assert await assign(engine, first, ONE) is None

    asyncio.run(run())


def test_no_more_than_there_is_room_for(engine: Engine) -> None:
    async def run() -> None:
        first = await send(engine, NOW, "page_view")
        many = [ONE._replace(experiment=number) for number in range(1, MOST + 9)]
        assert await assign(engine, first, *many) == many[:MOST]
        again = await send(engine, NOW + 1, "page_view")
        assert await assigned(engine, again) == many[:MOST]

    asyncio.run(run())


def test_scores_that_there_are_none_of() -> None:
    (found,) = unpack(pack([ONE._replace(exit=float("nan"))]))
    assert found.exit != found.exit

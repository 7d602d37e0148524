"""Consent to link, given and withdrawn, with every store: what is linked, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.events import CONSENT_LINK
from features.generate import layout_of
from features.sessions import HEADER_CONSENT, HEADER_VISITOR
from serving.collect.carts import Carts, Product, cart_key
from serving.engine import Engine
from serving.held import held_by
from serving.pseudonyms import DAY_MS
from serving.sessions import STATE_BYTES, history_of, key_of, word_of
from tests.serving.every_store import EVERY, settings_of
from tests.serving.in_process import open_engine, post

START = 20_000 * DAY_MS + 9 * 3_600_000
MINUTE = 60_000
LINKED = {"consent": ["measure", "link"]}
ALONE = {"consent": ["measure"]}
VIEW = {"visitor": "jane", "name": "page_view", "page": "/"}
BUY = {"visitor": "jane", "name": "purchase", "value": 20.0}


@pytest.fixture(params=EVERY)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """One with each store in turn."""
    store = settings_of(request.param, tmp_path, request)
    asked = store.model_dump(include={"url", "prefix", "timeout_seconds", "durability", "size_gib"})
    overrides = [f"store.{key}={value!r}" if isinstance(value, float) else f'store.{key}="{value}"'
                 for key, value in asked.items()]  # fmt: skip
    with asyncio.Runner() as runner:

        async def opened() -> Engine:
            return open_engine(None, tmp_path, *overrides)

        found = runner.run(opened())
        found.runner = runner  # type: ignore[attr-defined]
        yield found
        runner.run(found.close())


def run(engine: Engine, work: Any) -> Any:
    return engine.runner.run(work)  # type: ignore[attr-defined]


async def done(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def send(engine: Engine, at_ms: int, *events: dict[str, Any]) -> list[tuple[str, int]]:
    """Status and number in its session of each event of a request."""
    (answers,) = await post(engine, [events], at_ms)
    return [(answer.status, answer.events) for answer in answers]


def keys(engine: Engine, at_ms: int) -> tuple[bytes, bytes]:
    """The lasting key and the day's."""
    pseudonym = engine.pseudonyms.at(at_ms)
    return key_of(pseudonym("jane", True)), key_of(pseudonym("jane", False))


async def records(engine: Engine, at_ms: int) -> tuple[bytes | None, bytes | None]:
    """What lies under both."""
    lasting, today = keys(engine, at_ms)
    return await done(engine.store.read(lasting)), await done(engine.store.read(today))


def values(engine: Engine, record: bytes) -> dict[str, float]:
    """The fields of a record."""
    fold = engine.fold
    places = layout_of(fold.catalogue.fields.values()).places
    view = memoryview(record)[STATE_BYTES:]
    return {name: np.frombuffer(view, dtype, 1, offset)[0].item() for name, (dtype, offset) in places.items()}


async def two_linked_visits(engine: Engine) -> int:
    """A visit that is over and handed on, and one that runs; returns when its latest event came."""
    assert await send(engine, START, {**VIEW, **LINKED}, {**BUY, **LINKED}) == [("started", 1), ("folded", 2)]
    later = START + 120 * MINUTE
    await engine.upkeep.sweep(later)
    assert await engine.upkeep.hand_over(later) == 1
    assert await send(engine, later, {**VIEW, **LINKED}) == [("started", 1)]
    return later


async def check_nothing_linked(engine: Engine, at_ms: int) -> None:
    lasting, today = keys(engine, at_ms)
    linked, record = await records(engine, at_ms)
    assert linked is None and record is not None
    assert not word_of(record, HEADER_CONSENT) & CONSENT_LINK
    assert key_of(word_of(record, HEADER_VISITOR)) == today
    assert lasting not in record
    fresh = values(engine, bytes(STATE_BYTES) + engine.fold.new_record().tobytes())
    found = values(engine, record)
    # it knows of this visit, and of no earlier one
    assert found["previous_visit_at"] == fresh["previous_visit_at"] == 0
    assert found["cart_units_before"] == 0 and found["visitor_purchases"] == 0
    # neither does the schedule
    assert lasting not in [entry.key for entry in await done(engine.store.due(at_ms + 400 * DAY_MS, 1_000))]


def test_withdrawal_erases_and_the_session_goes_on(engine: Engine) -> None:
    async def test() -> None:
        later = await two_linked_visits(engine)
        record, _ = await records(engine, later)
        assert record is not None
        before = values(engine, record)
        assert (before["visitor_visits"], before["visitor_purchases"]) == (2, 1)
        assert before["previous_visit_at"] == START
        assert await send(engine, later + MINUTE, {**VIEW, **ALONE}) == [("folded", 2)]
        await check_nothing_linked(engine, later + MINUTE)
        _, record = await records(engine, later + MINUTE)
        assert record is not None and values(engine, record)["visitor_visits"] == 0
        # and it ends as one session of a visitor whom nobody knows again
        over = later + 60 * MINUTE
        assert await engine.upkeep.sweep(over) == 1
        assert await engine.upkeep.hand_over(over) == 1
        assert await done(engine.store.count()) == 0
        rows = [
            row
            for path in Path(engine.settings.store.closed).rglob("*.parquet")
            for row in pq.read_table(path).to_pylist()
        ]
        assert sorted(row["events"] for row in rows) == [2, 2]
        lasting, _ = keys(engine, over)
        assert key_of(rows[0]["visitor"]) != lasting != key_of(rows[1]["visitor"])
        assert rows[0]["visitor"] != rows[1]["visitor"]
        assert not any(row["consent"] & CONSENT_LINK for row in rows)
        told = [row for row in rows if any(row[name] is not None for name in history_of(engine.fold))]
        assert len(told) == 1  # of the visit that was handed on before nothing is told of others
        assert told[0]["previous_visit_at"] == 0 and told[0]["visitor_purchases"] == 0

    run(engine, test())


async def put_in_cart(engine: Engine) -> None:
    """A tracker tells jane's cart, while visits may be linked."""
    carts = Carts(engine.store, engine.outage.ask, engine.keys_of, engine.looks.look_at, 30 * MINUTE)
    now = time.time_ns() // 1_000_000
    changed = await carts.exchange("jane", "", [Product(1, 2, 5.0, 1.0)], now, now, linked=True, ordered=False)
    assert len(changed.products) == 1


async def carts_left(engine: Engine, at_ms: int) -> list[bool]:
    """Whether there is a cart under the lasting key, and under the day's."""
    return [await done(engine.store.read(cart_key(key))) is not None for key in keys(engine, at_ms)]


def test_withdrawal_erases_the_cart(engine: Engine) -> None:
    async def test() -> None:
        later = await two_linked_visits(engine)
        await put_in_cart(engine)
        assert await carts_left(engine, later) == [True, False]
        assert await send(engine, later + MINUTE, {**VIEW, **LINKED}) == [("folded", 2)]
        assert await carts_left(engine, later) == [True, False]
        assert await send(engine, later + 2 * MINUTE, {**VIEW, **ALONE}) == [("folded", 3)]
        assert await carts_left(engine, later) == [False, False]
        # also where the lasting record was not looked for, because the day's was known
        await put_in_cart(engine)
        again = later + 60 * MINUTE
        assert await send(engine, again, {**VIEW, **ALONE}) == [("started", 1)]
        assert await carts_left(engine, later) == [False, False]
        noted = {path.name for path in Path(engine.settings.store.closed).glob(".unlink-*")}
        assert noted == {f".unlink-{engine.pseudonyms.at(later)('jane', True) % 2**64:016x}"}

    run(engine, test())


def test_erasure_erases_the_cart(engine: Engine) -> None:
    async def test() -> None:
        later = await two_linked_visits(engine)
        await put_in_cart(engine)
        visitor = engine.pseudonyms.at(later)("jane", True)
        erased = await held_by(engine).erase([visitor])
        assert (erased["records"], erased["handed_on"]) == (1, 1)
        assert await carts_left(engine, later) == [False, False]
        assert await done(engine.store.count()) == 0

    run(engine, test())


def test_withdrawal_between_visits_and_over_midnight(engine: Engine) -> None:
    async def test() -> None:
        later = await two_linked_visits(engine)
        over = later + 60 * MINUTE
        await engine.upkeep.sweep(over)
        await engine.upkeep.hand_over(over)
        linked, _ = await records(engine, over)
        assert linked is not None  # kept for a later visit
        assert await send(engine, over, {**VIEW, **ALONE}) == [("started", 1)]
        await check_nothing_linked(engine, over)
        # given again, nothing is known of what was before
        assert await send(engine, over + MINUTE, {**VIEW, **LINKED}) == [("folded", 2)]
        linked, today = await records(engine, over + MINUTE)
        assert linked is not None and today is None
        assert key_of(word_of(linked, HEADER_VISITOR)) == keys(engine, over)[0]
        assert values(engine, linked)["visitor_purchases"] == 0
        midnight = (over // DAY_MS + 1) * DAY_MS
        assert await send(engine, midnight - MINUTE, {**VIEW, **LINKED}) == [("started", 1)]
        assert await send(engine, midnight + MINUTE, {**VIEW, **ALONE}) == [("folded", 2)]
        await check_nothing_linked(engine, midnight + MINUTE)

    run(engine, test())


def test_consent_changes_within_a_request(engine: Engine) -> None:
    async def test() -> None:
        await two_linked_visits(engine)
        at_ms = START + 300 * MINUTE
        await engine.upkeep.sweep(at_ms)
        answers = await send(engine, at_ms, {**VIEW, **LINKED}, {**VIEW, **ALONE})
        assert answers == [("started", 1), ("folded", 2)]
        await check_nothing_linked(engine, at_ms)
        # another visitor, whom nobody has seen, the other way round
        john = {**VIEW, "visitor": "john"}
        assert await send(engine, at_ms, {**john, **ALONE}, {**john, **LINKED}) == [("started", 1), ("folded", 2)]

    run(engine, test())


def test_whoever_withdrew_last_has_no_lasting_record(engine: Engine) -> None:
    """Whatever came before, in whatever order."""

    async def test() -> None:
        drawn = random.Random(5)
        at_ms = START
        for _ in range(60):
            at_ms += drawn.choice([1_000, 5 * MINUTE, 29 * MINUTE, 31 * MINUTE, 12 * 60 * MINUTE])
            if drawn.random() < 0.5:
                await engine.upkeep.sweep(at_ms)
            consents = [drawn.choice([LINKED, ALONE]) for _ in range(drawn.choice([1, 1, 2]))]
            await send(engine, at_ms, *({**VIEW, **consent} for consent in consents))
            linked, today = await records(engine, at_ms)
            if consents == [ALONE]:
                assert linked is None and today is not None
            elif consents == [LINKED]:
                assert linked is not None and word_of(linked, HEADER_CONSENT) & CONSENT_LINK

    run(engine, test())


def test_a_linked_visitor_is_forgotten_thirteen_months_after_the_first_visit(tmp_path: Path) -> None:
    async def test() -> None:
        engine = open_engine(None, tmp_path, "store.url=memory:", "session.max_age_hours=24")
        at_ms = START
        while at_ms < START + 390 * DAY_MS:
            await send(engine, at_ms, {**VIEW, **LINKED})
            await engine.upkeep.sweep(at_ms + 31 * MINUTE)
            linked, _ = await records(engine, at_ms)
            assert linked is not None
            at_ms += 30 * DAY_MS
        await engine.upkeep.sweep(START + 390 * DAY_MS + 31 * MINUTE)
        linked, _ = await records(engine, at_ms)
        assert linked is None
        await engine.close()

    asyncio.run(test())

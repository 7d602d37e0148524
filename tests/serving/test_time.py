"""Retried, doubled, reordered, late and future events, clocks that are off, midnight: equal to an obvious reference.

The reference keeps a dictionary of sessions and takes one event after the other. What the engine does besides (turns of
several requests, one record a visit, a store, writes that fail and are tried again, a sweep that closes sessions) must
not be seen in any answer, nor in what is handed on.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import itertools
import json
import math
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.definitions import CATALOGUE
from features.events import CONSENT_LINK
from serving.engine import Engine
from serving.replay import replay
from serving.requests import Answer
from serving.sessions import key_of
from serving.stores import Advance, Store, StoreError, Visit, one_by_one
from serving.tails import WRITES
from tests import naive
from tests.serving.in_process import WireEvent, open_engine, post

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
TIMEOUT = 30 * MINUTE
START = 20_600 * DAY + 22 * HOUR  # two hours before midnight
NEVER = START + 500 * DAY
EXAMPLES = itertools.count()


@dataclass
class Turn:
    """What comes at the same time: requests of (visitor, event as sent); none for a look at what is over.

    failures: of the writes that are tried for it, one after the other; the next one succeeds.
    """

    received: int
    requests: list[list[dict[str, Any]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@st.composite
def visits(draw: st.DrawFn) -> list[Turn]:
    """Turns of a few visitors with good and bad clocks, whose events come at once, late, again and in another order."""
    names = ["jane", "john"][: draw(st.integers(1, 2))]
    skews = {name: draw(st.sampled_from([0, 0, -4 * SECOND, HOUR, -7 * DAY])) for name in names}
    told = {name: draw(st.booleans()) for name in names}
    linked_from = {name: draw(st.sampled_from([0, 2, 99])) for name in names}
    received, sent, turns = START, [], []
    for number in range(draw(st.integers(1, 8))):
        received += draw(
            st.one_of(st.integers(0, 5 * SECOND), st.integers(0, HOUR), st.sampled_from([TIMEOUT, TIMEOUT + 1, DAY]))
        )
        turn = Turn(received, failures=draw(st.lists(st.sampled_from(["not done", "answer lost"]), max_size=3)))
        turns.append(turn)
        for _ in range(draw(st.integers(0, 2))):
            request: list[dict[str, Any]] = []
            for _ in range(draw(st.integers(1, 4))):
                if sent and draw(st.integers(0, 3)) == 0:
                    # again: by a retry with its own time of sending, or the same bytes
                    event = dict(draw(st.sampled_from(sent)))
                    if "sent_at" in event and draw(st.booleans()):
                        event["sent_at"] = received + skews[event["visitor"]]
                else:
                    name = draw(st.sampled_from(names))
                    ago = draw(
                        st.sampled_from([0, 0, 1, SECOND, 5 * MINUTE, TIMEOUT, 40 * MINUTE, 3 * HOUR, 30 * HOUR])
                    )
                    event = {
                        "visitor": name,
                        "name": draw(st.sampled_from(["page_view", "view_item", "add_to_cart", "purchase", "scroll"])),
                        "item": draw(st.sampled_from(["", "shoes", "hat"])),
                        "price": draw(st.sampled_from([0, 19.5])),
                    }
                    if draw(st.integers(0, 3)):
                        event["id"] = f"{name}-{len(sent)}"
                    if draw(st.integers(0, 5)) == 0:
                        event["session"] = draw(st.sampled_from(["one", "other"]))
                    if draw(st.integers(0, 4)):
                        event["time"] = received - ago + skews[name]
                    if told[name]:
                        event["sent_at"] = received + skews[name] - draw(st.sampled_from([0, 0, 50]))
                    sent.append(event)
                event["consent"] = ["measure", "link"] if number >= linked_from[event["visitor"]] else ["measure"]
                request.append(event)
            turn.requests.append(request)
    return turns


@dataclass
class Record:
    """What is known under one pseudonym, when something came for it last, and whether its session was handed on."""

    session: naive.Session
    arrived: int
    handed_on: bool = False


class Reference:
    """The rules of docs/durability.md, "Time and duplicates", one event at a time.

    A pseudonym is ("link", visitor) with consent to link, and (day, visitor) without.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.records: dict[tuple[object, str], Record] = {}
        self.closed: list[tuple[tuple[object, str], naive.Session]] = []

    def take(self, wire: WireEvent, received: int) -> tuple[tuple[object, str], str, Record]:
        """Pseudonym, status and record after one event."""
        # what an event says besides its time is tested in test_intake.py
        event = self.engine.reader.intake.event(json.dumps(wire).encode(), received, lambda raw, linked: 1)
        event = event._replace(time=self.believed(wire, received))
        who, linked, today = wire["visitor"], "link" in wire["consent"], received // DAY
        key = ("link", who) if linked else (today, who)
        record = self.records.get(key)
        if record is None:
            record = self.records[key] = self.continued(who, today, linked, event.time) or Record(
                naive.Session(CATALOGUE), received
            )
        session = record.session
        record.arrived = received
        before = copy.deepcopy(session)
        if record.handed_on:
            session.last_at = -NEVER  # so that the session does not go on, whatever the event's time
        status = session.fold(event, TIMEOUT)
        if status == "started":
            if before.events and not record.handed_on:
                self.closed.append((key, before))
            record.handed_on = False
        else:
            session.last_at = before.last_at if record.handed_on else session.last_at
        return key, status, record

    @staticmethod
    def believed(wire: WireEvent, received: int) -> int:
        """The client's time by our clock, within the last 24 hours."""
        if "time" not in wire:
            return received
        clock_is_off_by = received - wire["sent_at"] if "sent_at" in wire else 0
        time: int = wire["time"] + clock_is_off_by
        return sorted([received - DAY, time, received])[1]

    def continued(self, who: str, today: int, linked: bool, time: int) -> Record | None:
        """The open session of another pseudonym of the visitor: yesterday's, or today's before consent."""
        for day in (today - 1, today) if linked else (today - 1,):
            record = self.records.get((day, who))
            if record and not record.handed_on and time - record.session.last_at <= TIMEOUT:
                return self.records.pop((day, who))
        return None

    def sweep(self, now: int) -> None:
        """Nothing came for a timeout: the session is over; who may not be linked is forgotten."""
        for key, record in list(self.records.items()):
            if now - record.arrived >= TIMEOUT and not record.handed_on:
                record.handed_on = True
                self.closed.append((key, copy.deepcopy(record.session)))
                if not record.session.consent & CONSENT_LINK:
                    del self.records[key]

    def scores(self, session: naive.Session) -> dict[str, float]:
        """Of each head that can be asked, what its model says of features worked out the slow way."""
        found = {}
        for name, head in self.engine.scorer.heads.items():
            session.tables = head.tables
            row = session.read(session.last_at)
            decided = head.about.decided
            if decided and any(row[feature] >= least for feature, least in decided.when):
                found[name] = decided.value
            elif not any(math.isnan(row[feature]) for feature in head.about.needs):
                found[name] = float(
                    head.scores(np.array([[row[feature] for feature in head.about.features]], np.float32))[0]
                )
        return found


class Unreliable:
    """A store behind a line that breaks: before it has a write, or before its answer is back."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.waits = store.waits  # whatever a quick disk thinks meanwhile: its writes may be done and fail here
        self.failures: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def apply(
        self, visits: Sequence[Visit], advance: Advance = one_by_one, *, alone: bool = False
    ) -> Awaitable[None] | None:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "not done":
            raise StoreError(failure)
        done = self.store.apply(visits, advance, alone=alone)
        if inspect.isawaitable(done):
            return self._later(done, failure)
        if failure:
            raise StoreError(failure)
        return None

    @staticmethod
    async def _later(done: Awaitable[None], failure: str) -> None:
        await done
        if failure:
            raise StoreError(failure)


@pytest.fixture(scope="module", params=["memory", "process", "disk"])
def engine(request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("time")
    store = 'store.url="memory:"' if request.param == "memory" else f'store.durability="{request.param}"'
    opened = open_engine(trained, folder, "store.size_gib=0.1", "store.failures=1000000", store)
    opened.store = Unreliable(opened.store)
    yield opened
    asyncio.run(opened.close())


@given(turns=visits())
@settings(max_examples=max(5, settings.default.max_examples // 5))
def test_every_answer_and_every_session_is_what_the_reference_says(engine: Engine, turns: list[Turn]) -> None:
    reference = Reference(engine)
    pseudonyms: dict[tuple[object, str], int] = {}
    example = next(EXAMPLES)  # visitors of its own
    for event in itertools.chain(*(request for turn in turns for request in turn.requests)):
        event["visitor"] += f"-{example}"

    line = engine.store
    assert isinstance(line, Unreliable)

    def check(answer: Answer, wire: WireEvent, received: int, *, failed: bool) -> None:
        key, status, record = reference.take(wire, received)
        visitor, started_at = engine.tokens.open(answer.session)
        assert pseudonyms.setdefault(key, visitor) == visitor
        assert answer.reason == ("store_unreachable" if failed else "")
        if failed:
            return  # it knows its own request's events only; what comes after it tells what became of them
        session = record.session
        assert (answer.status, answer.events, started_at) == (status, session.events, session.started_at)
        assert answer.scores == reference.scores(session)

    async def run() -> list[dict[str, Any]]:
        await engine.upkeep.sweep(NEVER)  # what an example that failed left
        await handed_on(engine)
        for turn in turns:
            line.failures = turn.failures if any(turn.requests) else []
            if line.failures and not engine.store.waits:
                line.failures[0] = "not done"  # what such a store has done at first it tells at once
            failed = bool(line.failures)
            answers = await post(engine, turn.requests, turn.received)
            for request, answered in zip(turn.requests, answers, strict=True):
                for wire, answer in zip(request, answered, strict=True):
                    check(answer, wire, turn.received, failed=failed)
            while engine.metrics.buffered_events:
                await replay(engine)
            if not turn.requests:
                await engine.upkeep.sweep(turn.received)
                reference.sweep(turn.received)
        await engine.upkeep.sweep(NEVER)
        reference.sweep(NEVER)
        await engine.upkeep.count()
        assert engine.metrics.records == 0
        return await handed_on(engine)

    found = asyncio.run(run())
    assert len(set(pseudonyms.values())) == len(pseudonyms)
    expected = [
        {
            "visitor": int.from_bytes(key_of(pseudonyms[key]), "little", signed=True),
            "started_at": session.started_at, "ended_at": session.last_at, "events": session.events,
            "consent": session.consent, **session.values,
        }
        for key, session in reference.closed
    ]  # fmt: skip
    known = expected[0].keys() if expected else ()
    assert in_order({name: line[name] for name in known} for line in found) == in_order(expected)


async def handed_on(engine: Engine) -> list[dict[str, Any]]:
    """The lines of all sessions that wait to be handed on."""
    lines: list[dict[str, Any]] = []
    while True:
        claimed = engine.store.claim(1_000, NEVER, 1)
        batch = claimed if claimed is None or isinstance(claimed, tuple) else await claimed
        if batch is None:
            return lines
        lines += engine.sink.table(batch.sessions).to_pylist()
        settled = engine.store.settle(batch.name)
        if settled is not None:
            await settled


def in_order(lines: Any) -> list[dict[str, Any]]:
    return sorted(lines, key=lambda line: sorted(line.items()))


def test_an_id_is_remembered_until_seven_others_came(engine: Engine) -> None:
    """The memory for ids is part of the record and bounded; what is repeated later counts again."""

    def event(number: int) -> WireEvent:
        return {"visitor": f"jane-{id(engine)}", "name": "page_view", "id": str(number)}

    async def statuses(*numbers: int) -> list[tuple[str, int]]:
        ((*answers,),) = await post(engine, [[event(number) for number in numbers]], START)
        return [(answer.status, answer.events) for answer in answers]

    assert asyncio.run(statuses(0, 1, 2, 3, 4, 5, 6)) == [("started", 1), *(("folded", n) for n in range(2, 8))]
    assert asyncio.run(statuses(0, 6, 3)) == [("duplicate", 7)] * 3
    assert asyncio.run(statuses(7, 1, 0)) == [("folded", 8), ("duplicate", 8), ("folded", 9)]


def test_a_record_goes_on_with_and_without_writes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a release that named no writes is like one that `process` has kept."""
    monkeypatch.setattr("serving.stores.group_commit._QUICK_SECONDS", -1.0)  # a quick disk's writes are not in doubt

    async def run() -> None:
        for number, durability in enumerate(["process", "disk", "disk", "process", "disk"]):
            engine = open_engine(trained, tmp_path, f'store.durability="{durability}"', "store.size_gib=0.1")
            for again in range(10 if number == 2 else 1):
                ((answer,),) = await post(engine, [[{"visitor": "jane", "name": "page_view"}]], START + again)
                assert answer.status == ("folded" if number else "started")
            visitor, _ = engine.tokens.open(answer.session)
            value = engine.store.read(key_of(visitor))
            assert isinstance(value, bytes)
            writes = len(value) - len(engine.sessions.empty)
            assert writes == 8 * [0, 1, WRITES, WRITES, WRITES][number]
            looked, _ = await engine.looks.look(answer.session, START)
            assert looked.events == answer.events == [1, 2, 12, 13, 14][number]
            assert engine.metrics.retired_records == 0
            await engine.close()

    asyncio.run(run())

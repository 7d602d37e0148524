"""What every store must do, the same for all of them: `store` is each in turn."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving.settings import StoreSettings
from serving.stores import Batch, Change, Closed, Entry, Moved, Store, Value, open_store
from tests.serving.every_store import EVERY, settings_of

pytestmark = pytest.mark.anyio
KEYS = [number.to_bytes(8, "big") for number in range(1, 40)]


async def done(result: Any) -> Any:
    """What a store's method gives, at once or later."""
    return await result if inspect.isawaitable(result) else result


class Append:
    """A visit that appends bytes to a record."""

    def __init__(
        self,
        key: bytes,
        text: bytes,
        due_ms: int | None = None,
        entry: Entry | None = None,
        others: Sequence[bytes] = (),
        close: bytes | None = None,
        forget: bool = False,
    ) -> None:
        self.key, self.text, self.entry, self.asked = key, text, entry, 0
        self._due, self._others, self._close, self._forget = due_ms, others, close, forget
        self.found: bytes | None = None

    def others(self) -> Sequence[bytes]:
        return self._others

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        self.asked += 1
        moved = None
        self.found = None if value is None else bytes(value)
        if value is None and others:
            key, value = others[0]
            moved = Moved(key, bytes(value), 50)
        before = b"" if value is None else bytes(value)
        closed = [Closed(self._close, before)] if self._close else []
        return Change(None if self._forget else before + self.text, self._due, moved, closed)


class Nothing(Append):
    """A visit that finds that there is nothing to do."""

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        super().advance(value, others)
        return None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=EVERY)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(settings_of(request.param, tmp_path, request))
    yield opened
    await done(opened.close())


async def test_what_was_written_is_read(store: Store) -> None:
    await done(store.apply([Append(KEYS[0], b"a"), Append(KEYS[1], b"x")]))
    again = Append(KEYS[0], b"b")
    await done(store.apply([again]))
    assert again.found == b"a"
    assert await done(store.read(KEYS[0])) == b"ab"
    assert await done(store.read(KEYS[1])) == b"x"
    assert await done(store.read(KEYS[2])) is None
    assert await done(store.read_many([KEYS[1], KEYS[2], KEYS[0]])) == [b"x", None, b"ab"]
    assert await done(store.read_many([])) == []
    assert await done(store.apply([])) is None


async def test_a_record_is_forgotten(store: Store) -> None:
    await done(store.apply([Append(KEYS[0], b"a", due_ms=5)]))
    await done(store.apply([Append(KEYS[0], b"", forget=True, entry=Entry(5, KEYS[0]))]))
    assert await done(store.read(KEYS[0])) is None
    assert await done(store.due(100, 10)) == []
    assert await done(store.count()) == 0
    await done(store.apply([Append(KEYS[0], b"z")]))
    assert await done(store.read(KEYS[0])) == b"z"


async def test_a_record_goes_on_under_another_key(store: Store) -> None:
    await done(store.apply([Append(KEYS[0], b"a", due_ms=50)]))
    await done(store.apply([Append(KEYS[1], b"b", due_ms=60, others=[KEYS[2], KEYS[0]])]))
    assert await done(store.read(KEYS[1])) == b"ab"
    assert await done(store.read(KEYS[0])) is None
    assert await done(store.due(100, 10)) == [Entry(60, KEYS[1])]
    # what is there under the own key needs no other
    await done(store.apply([Append(KEYS[0], b"new", due_ms=70)]))
    await done(store.apply([Append(KEYS[1], b"c", others=[KEYS[0]])]))
    assert await done(store.read(KEYS[1])) == b"abc"
    assert await done(store.read(KEYS[0])) == b"new"


async def test_the_schedule_tells_what_is_due_in_order(store: Store) -> None:
    for number in (3, 1, 2):
        await done(store.apply([Append(KEYS[number], b"a", due_ms=number * 10)]))
    assert sorted(await done(store.due(9, 10))) == []
    assert sorted(await done(store.due(20, 10))) == [Entry(10, KEYS[1]), Entry(20, KEYS[2])]
    assert len(await done(store.due(100, 2))) == 2
    # looked at, and to be looked at again
    await done(store.apply([Append(KEYS[1], b"b", due_ms=90, entry=Entry(10, KEYS[1]))]))
    assert await done(store.due(20, 10)) == [Entry(20, KEYS[2])]
    # looked at, and nothing to do
    await done(store.apply([Nothing(KEYS[2], b"", entry=Entry(20, KEYS[2]))]))
    assert sorted(await done(store.due(100, 10))) == [Entry(30, KEYS[3]), Entry(90, KEYS[1])]
    assert await done(store.read(KEYS[2])) == b"a"


async def test_a_closed_session_is_handed_on_once(store: Store) -> None:
    for number in range(6):
        key = KEYS[number]
        await done(store.apply([Append(key, b"session %d" % number)]))
        await done(store.apply([Append(key, b"", close=key + b"%08d" % number, forget=True)]))
    seen: list[Closed] = []
    while (batch := await done(store.claim(4, 1_000, 500))) is not None:
        assert 0 < len(batch.sessions) <= 4
        seen += batch.sessions
        await done(store.settle(batch.name))
        await done(store.settle(batch.name))  # again is nothing
    assert sorted(seen) == [Closed(KEYS[n] + b"%08d" % n, b"session %d" % n) for n in range(6)]


async def test_a_batch_whose_claimer_died_is_claimed_again_as_it_was(store: Store) -> None:
    await done(store.apply([Append(KEYS[0], b"a", close=KEYS[0] + b"00000001"), Append(KEYS[1], b"b")]))
    first = await done(store.claim(10, 1_000, 500))
    assert first.sessions == [Closed(KEYS[0] + b"00000001", b"")]
    assert await done(store.claim(10, 1_499, 500)) is None  # somebody is at it
    second: Batch = await done(store.claim(10, 1_501, 500))
    assert second == first
    assert await done(store.claim(10, 1_900, 500)) is None
    await done(store.settle(second.name))
    assert await done(store.claim(10, 9_000, 500)) is None


async def test_sessions_of_a_record_are_found_and_forgotten(store: Store) -> None:
    """Those of others stay; claimed ones go, too."""
    for number in range(4):
        key = KEYS[number % 2]
        await done(store.apply([Append(key, b"", close=key + b"%016d" % number)]))
        if number == 1:
            claimed = await done(store.claim(10, 1_000, 500))
            while len(claimed.sessions) < 2 and (more := await done(store.claim(10, 1_000, 500))):
                claimed = Batch(more.name, [*claimed.sessions, *more.sessions])
    own, other = [sorted(name for name, _ in await done(store.waiting(key))) for key in KEYS[:2]]
    assert own == [KEYS[0] + b"%016d" % number for number in (0, 2)]
    assert other == [KEYS[1] + b"%016d" % number for number in (1, 3)]
    assert not await done(store.waiting(KEYS[2]))
    await done(store.drop(KEYS[0]))
    await done(store.drop(KEYS[0]))
    assert not await done(store.waiting(KEYS[0]))
    found = []
    while batch := await done(store.claim(10, 2_000, 500)):
        found += [name for name, _ in batch.sessions]
        await done(store.settle(batch.name))
    assert sorted(found) == other


async def test_one_visit_goes_on_with_what_another_leaves_in_the_same_turn(store: Store) -> None:
    both = [Append(KEYS[0], b"a", due_ms=50), Append(KEYS[1], b"b", due_ms=60, others=[KEYS[0]])]
    await done(store.apply(both))
    assert (await done(store.read(KEYS[0])), await done(store.read(KEYS[1]))) == (None, b"ab")


async def test_a_visit_that_fails_changes_nothing(store: Store) -> None:
    class Bad(Append):
        def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
            raise RuntimeError("bad")

    await done(store.apply([Append(KEYS[0], b"a")]))
    with pytest.raises(RuntimeError):
        await done(store.apply([Bad(KEYS[0], b"b")]))
    assert await done(store.read(KEYS[0])) == b"a"


async def test_visits_at_the_same_time_lose_nothing(store: Store) -> None:
    await asyncio.gather(*(done(store.apply([Append(KEYS[0], b"%02d" % number)])) for number in range(20)))
    found = await done(store.read(KEYS[0]))
    assert sorted(found[i : i + 2] for i in range(0, 40, 2)) == [b"%02d" % number for number in range(20)]


def _work(settings: StoreSettings, worker: int, rounds: int, kill: bool) -> None:
    """Append the worker's letter to every record in turn; killed in the middle of a write."""

    class Last(Append):
        def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
            os.kill(os.getpid(), signal.SIGKILL)
            return None

    async def run() -> None:
        opened = open_store(settings)
        for number in range(rounds):
            await done(opened.apply([Append(KEYS[number % 3], b"%d" % worker)]))
        if kill:
            await done(opened.apply([Last(KEYS[0], b"!")]))

    asyncio.run(run())


SHARED = [kind for kind in EVERY if kind not in ("memory", "embedded encrypted")]


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreSettings]:
    yield settings_of(request.param, tmp_path, request)


def test_workers_share_it_and_one_that_is_killed_leaves_no_trace(shared: StoreSettings) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(shared, number, 300, number == 1)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, -9, 0]

    async def read() -> list[bytes]:
        opened = open_store(shared)
        found = [await done(opened.read(key)) for key in KEYS[:3]]
        await done(opened.close())
        return found

    for record in asyncio.run(read()):
        assert len(record) == 300
        assert all(record.count(b"%d" % worker) == 100 for worker in range(3))

"""The embedded store: LMDB, a file on this machine that several worker processes share.

Two levels of durability, which differ in how the file is opened:

`process`: the file is written through a shared map and never synced. A commit is in the operating system's cache, where
the end of every process leaves it (kill -9); a power cut may leave anything, also a file that cannot be used. The first
worker after a start of the machine looks through the file and puts a damaged one aside. Writing through the map takes
2.6 us a read-modify-write, by system calls 8.5 us. A full disk is noticed before (`serving.stores.room`).

`disk`: LMDB's own order, data synced before the page that names them, which holds at a power cut at any moment. Who
waits is committed together, in a thread, with two syncs for all; meanwhile the next ones gather.

Writers queue behind one lock, freed if its holder dies.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import Struct
from typing import Any, Final, TypeVar

import lmdb

from serving.settings import StoreSettings
from serving.stores import Advance, Batch, Change, Closed, Entry, Found, StoreError, Visit, one_by_one
from serving.stores.restart import damaged_files_put_aside
from serving.stores.room import MOVED_BYTES, VISIT_BYTES, Room, lock_with_blocks, with_reserve

# what is read first of the schedule is what is due first: LMDB orders by bytes
_MOMENT: Final = Struct(">Q")
_NAME_BYTES: Final = 32  # of a batch, hexadecimal
Result = TypeVar("Result")
_Apply = tuple[Sequence[Visit], Advance]


class EmbeddedStore:
    """Session records in LMDB.

    Tables: records by key; the schedule, keyed by moment and key; closed sessions by name; claimed ones by batch and
    name; batches, with the moment at which their lease is over.
    """

    def __init__(self, place: str, settings: StoreSettings) -> None:
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk, size = settings.durability == "disk", int(settings.size_gib * 2**30)
        with damaged_files_put_aside(folder):
            lock_with_blocks(folder)
            self._env = lmdb.open(
                str(folder),
                map_size=with_reserve(size),
                sync=disk,
                metasync=disk,
                writemap=not disk,
                map_async=not disk,
                readahead=False,  # records are small and far apart
                max_readers=512,
                max_dbs=8,
            )
            try:
                self._room = Room(self._env, size, None if disk else folder / "data.mdb")
            except StoreError:
                self._env.close()
                raise
            self._records, self._schedule, self._closed, self._claimed, self._batches = (
                self._env.open_db(name) for name in (b"records", b"schedule", b"closed", b"claimed", b"batches")
            )
        self._tables = self._records, self._schedule, self._closed, self._claimed, self._batches
        # a reader that was killed would keep every page it could see from being used again
        self._env.reader_check()
        self.waits = disk
        self._groups = _GroupCommit(self._commit) if disk else None

    def apply(self, visits: Sequence[Visit], advance: Advance = one_by_one) -> Awaitable[None] | None:
        """Advance visits, all in one transaction."""
        if self._groups:
            return self._groups.add((visits, advance)) if visits else None
        self._commit([(visits, advance)])
        return None

    def _commit(self, group: Sequence[_Apply]) -> None:
        try:
            with self._env.begin(write=True, buffers=True, db=self._records) as transaction:
                for visits, advance in group:
                    if visits:
                        scheduled = visits[0].entry is not None
                        self._room.need(len(visits) * VISIT_BYTES, transaction, self._tables, refused=not scheduled)
                    self._apply(transaction, visits, advance)
        except lmdb.Error as error:
            raise StoreError(f"the embedded store: {error}") from error

    def _apply(self, transaction: Any, visits: Sequence[Visit], advance: Advance) -> None:
        found = [self._find(transaction, visit) for visit in visits]
        keys = {visit.key for visit in visits}
        if any(key in keys for one in found for key, _ in one.others):
            # one goes on with the record of another: one after the other
            for visit in visits:
                (change,) = advance([self._find(transaction, visit)])
                self._put(transaction, visit, change)
        else:
            for visit, change in zip(visits, advance(found), strict=True):
                self._put(transaction, visit, change)

    def _find(self, transaction: Any, visit: Visit) -> Found:
        value = transaction.get(visit.key)
        if value is not None:
            return Found(visit, value, ())
        return Found(
            visit, None, [(key, found) for key in visit.others() if (found := transaction.get(key)) is not None]
        )

    def _put(self, transaction: Any, visit: Visit, change: Change | None) -> None:
        if visit.entry is not None:
            transaction.delete(_MOMENT.pack(visit.entry.due_ms) + visit.entry.key, db=self._schedule)
        if change is None:
            return
        value, due_ms, moved, closed_sessions = change
        if closed_sessions:
            for name, closed in closed_sessions:
                transaction.put(name, closed, db=self._closed)
        if moved:
            transaction.delete(moved.key)
        if value is None:
            transaction.delete(visit.key)
        else:
            transaction.put(visit.key, value)
        if due_ms is not None:
            transaction.put(_MOMENT.pack(due_ms) + visit.key, b"", db=self._schedule)

    def read(self, key: bytes) -> bytes | None:
        """One record."""
        with self._env.begin(db=self._records) as transaction:
            found: bytes | None = transaction.get(key)
            return found

    def due(self, now_ms: int, limit: int) -> Sequence[Entry]:
        """The earliest."""
        found: list[Entry] = []
        with self._env.begin(db=self._schedule) as transaction, transaction.cursor() as cursor:
            for key in cursor.iternext(keys=True, values=False):
                (due_ms,) = _MOMENT.unpack_from(key)
                if due_ms > now_ms or len(found) == limit:
                    break
                found.append(Entry(due_ms, key[_MOMENT.size :]))
        return found

    def claim(self, limit: int, now_ms: int, lease_ms: int) -> Awaitable[Batch | None] | Batch | None:
        """A batch."""
        self._env.reader_check()
        with self._env.begin() as transaction:  # mostly there is nothing: do not queue behind the writers for it
            if not any(transaction.stat(table)["entries"] for table in (self._closed, self._batches)):
                return None
        return self._in_turn(lambda: self._claim(limit, now_ms, lease_ms))

    def _claim(self, limit: int, now_ms: int, lease_ms: int) -> Batch | None:
        with self._env.begin(write=True) as transaction:
            with transaction.cursor(self._batches) as cursor:
                for name, until in cursor:
                    if _MOMENT.unpack(until)[0] <= now_ms:
                        transaction.put(name, _MOMENT.pack(now_ms + lease_ms), db=self._batches)
                        return Batch(name.decode(), self._of_batch(transaction, name))
            with transaction.cursor(self._closed) as cursor:
                taken = [Closed(*pair) for pair, _ in zip(cursor, range(limit), strict=False)]
            if not taken:
                return None
            self._room.need(len(taken) * MOVED_BYTES, transaction, self._tables, refused=False)
            batch = uuid.uuid4().hex
            for name, value in taken:
                transaction.delete(name, db=self._closed)
                transaction.put(batch.encode() + name, value, db=self._claimed)
            transaction.put(batch.encode(), _MOMENT.pack(now_ms + lease_ms), db=self._batches)
            return Batch(batch, taken)

    def _of_batch(self, transaction: Any, batch: bytes) -> list[Closed]:
        found = []
        with transaction.cursor(self._claimed) as cursor:
            if cursor.set_range(batch):
                for name, value in cursor:
                    if name[:_NAME_BYTES] != batch:
                        break
                    found.append(Closed(name[_NAME_BYTES:], value))
        return found

    def settle(self, name: str) -> Awaitable[None] | None:
        """Forget a batch."""
        return self._in_turn(lambda: self._settle(name.encode()))

    def _settle(self, batch: bytes) -> None:
        with self._env.begin(write=True) as transaction:
            sessions = self._of_batch(transaction, batch)
            self._room.need(len(sessions) * MOVED_BYTES, transaction, self._tables, refused=False)
            for session, _ in sessions:
                transaction.delete(batch + session, db=self._claimed)
            transaction.delete(batch, db=self._batches)

    def _in_turn(self, work: Callable[[], Result]) -> Awaitable[Result] | Result:
        """Work that commits: after the group that commits now, where that takes time."""
        return self._groups.run(lambda: _told(work)) if self._groups else _told(work)

    def count(self) -> int:
        """How many records there are."""
        with self._env.begin() as transaction:
            entries: int = transaction.stat(self._records)["entries"]
            return entries

    def close(self) -> None:
        """Close the file."""
        if self._groups:
            self._groups.close()
        else:
            self._env.sync(True)  # an orderly end and then a power cut: nothing is lost
        self._env.close()
        self._room.close()


def _told(work: Callable[[], Result]) -> Result:
    try:
        return work()
    except lmdb.Error as error:
        raise StoreError(f"the embedded store: {error}") from error


class _GroupCommit:
    """One commit at a time, in a thread; everybody who came while another one ran is in the next."""

    def __init__(self, commit: Callable[[Sequence[_Apply]], None]) -> None:
        self._commit = commit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._waiting: list[tuple[_Apply, asyncio.Future[None]]] = []
        self._running = False

    def add(self, work: _Apply) -> asyncio.Future[None]:
        """Done when the visits are on the disk."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((work, future))
        if not self._running:
            self._running = True
            loop.call_soon(self._begin)
        return future

    def run(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Other work of the same thread."""
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _begin(self) -> None:
        group, self._waiting = self._waiting, []
        done = self.run(lambda: self._together([work for work, _ in group]))
        done.add_done_callback(lambda done: self._tell(group, done.result()))

    def _together(self, group: Sequence[_Apply]) -> list[Exception | None]:
        """Commit all; each on its own if that fails, so that one that cannot be kept is nobody else's problem."""
        try:
            self._commit(group)
        except Exception as error:
            if len(group) == 1:
                return [error]
            return [problem for work in group for problem in self._together([work])]
        return [None] * len(group)

    def _tell(self, group: Sequence[tuple[_Apply, asyncio.Future[None]]], problems: Sequence[Exception | None]) -> None:
        if self._waiting:
            self._begin()
        else:
            self._running = False
        for (_, future), problem in zip(group, problems, strict=True):
            if not future.cancelled():
                future.set_exception(problem) if problem else future.set_result(None)

    def close(self) -> None:
        """Wait for the thread."""
        self._thread.shutdown()

"""The embedded store: LMDB, a file on this machine that several worker processes share.

The file is written through a shared map: a commit is in the operating system's cache, not yet on the disk. What was
acknowledged survives the end of every process (kill -9), a power cut may cost the last seconds. With
`durability = "disk"` a commit is acknowledged after a sync that all share who wait for one. Writing through the map
takes 2.6 us a read-modify-write, by system calls 8.5 us. Writers queue behind one lock, freed if its holder dies.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import Struct
from typing import Any, Final

import lmdb

from serving.settings import StoreSettings
from serving.stores import Advance, Batch, Change, Closed, Entry, Found, StoreError, Visit, one_by_one

# what is read first of the schedule is what is due first: LMDB orders by bytes
_MOMENT: Final = Struct(">Q")
_NAME_BYTES: Final = 32  # of a batch, hexadecimal


class EmbeddedStore:
    """Session records in LMDB.

    Tables: records by key; the schedule, keyed by moment and key; closed sessions by name; claimed ones by batch and
    name; batches, with the moment at which their lease is over.
    """

    def __init__(self, place: str, settings: StoreSettings) -> None:
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._env = lmdb.open(
            str(folder),
            map_size=int(settings.size_gib * 2**30),
            sync=False,
            metasync=False,
            writemap=True,
            map_async=True,
            readahead=False,  # records are small and far apart
            max_readers=512,
            max_dbs=8,
        )
        self._records, self._schedule, self._closed, self._claimed, self._batches = (
            self._env.open_db(name) for name in (b"records", b"schedule", b"closed", b"claimed", b"batches")
        )
        self._syncing = _SharedSync(self._env) if settings.durability == "disk" else None

    def apply(self, visits: Sequence[Visit], advance: Advance = one_by_one) -> Awaitable[None] | None:
        """Advance visits, all in one transaction."""
        try:
            with self._env.begin(write=True, buffers=True, db=self._records) as transaction:
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
        except lmdb.Error as error:
            raise StoreError(f"the embedded store: {error}") from error
        return self._syncing.wait() if self._syncing else None

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

    def claim(self, limit: int, now_ms: int, lease_ms: int) -> Batch | None:
        """A batch."""
        with self._env.begin() as transaction:  # mostly there is nothing: do not queue behind the writers for it
            if not any(transaction.stat(table)["entries"] for table in (self._closed, self._batches)):
                return None
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

    def settle(self, name: str) -> None:
        """Forget a batch."""
        batch = name.encode()
        with self._env.begin(write=True) as transaction:
            for session, _ in self._of_batch(transaction, batch):
                transaction.delete(batch + session, db=self._claimed)
            transaction.delete(batch, db=self._batches)

    def count(self) -> int:
        """How many records there are."""
        with self._env.begin() as transaction:
            entries: int = transaction.stat(self._records)["entries"]
            return entries

    def close(self) -> None:
        """Close the file."""
        if self._syncing:
            self._syncing.close()
        self._env.close()


class _SharedSync:
    """One sync at a time, in a thread; everybody who committed before it began is told when it is done."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._waiting: list[asyncio.Future[None]] = []
        self._running = False

    def wait(self) -> asyncio.Future[None]:
        """Done when what is committed now is on the disk."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._begin)
        return future

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        done = asyncio.get_running_loop().run_in_executor(self._thread, self._env.sync, True)
        done.add_done_callback(lambda synced: self._tell(waiting, synced))

    def _tell(self, waiting: list[asyncio.Future[None]], synced: asyncio.Future[None]) -> None:
        error = synced.exception()
        for future in waiting:
            if not future.cancelled():
                future.set_exception(StoreError(f"sync failed: {error}")) if error else future.set_result(None)
        if self._waiting:
            self._begin()
        else:
            self._running = False

    def close(self) -> None:
        """Wait for the thread."""
        self._thread.shutdown()

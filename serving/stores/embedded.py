"""The embedded store: LMDB, a file on this machine that several worker processes share.

The file is written through a shared map and never synced. A commit is in the operating system's cache, where the end
of every process leaves it (kill -9): the level `process`. Writing through the map takes 2.6 us a read-modify-write, by
system calls 8.5 us. A full disk is noticed before (`serving.stores.room`). A power cut may leave anything of the file,
also nothing that can be used: the first worker after a start of the machine looks through it and puts a damaged one
aside.

The level `disk` adds a journal that is synced before anything is acknowledged (`serving.stores.journal`), from which
the file is made anew after a start of the machine.

On a memory file system the file keeps the disk's write-back out of the answers (`serving.stores.place`).

Writers queue behind one lock, freed if its holder dies.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Any, Final, TypeVar

import lmdb

from serving.settings import StoreSettings
from serving.stores import Advance, Batch, Change, Closed, Entry, Found, StoreError, Visit, one_by_one
from serving.stores.checkpoints import Limits
from serving.stores.group_commit import GroupCommit
from serving.stores.journal import Journal, is_journaled
from serving.stores.place import FILE, StorePlace
from serving.stores.room import MOVED_BYTES, VISIT_BYTES, Room, lock_with_blocks, with_reserve

# what is read first of the schedule is what is due first: LMDB orders by bytes
_MOMENT: Final = Struct(">Q")
_NAME_BYTES: Final = 32  # of a batch, hexadecimal
Result = TypeVar("Result")
_Apply = tuple[Sequence[Visit], Advance]
_new: Final = tuple.__new__  # half of what a NamedTuple's own takes
# Tables, and what is in them.
HELD: Final = {
    "records": "the current session of each visitor, by pseudonym, with consent what is known of earlier ones; "
    "requests sent again",
    "schedule": "when which record is to be looked at",
    "closed": "sessions that are over and wait to be handed on",
    "claimed": "sessions that a worker is handing on",
    "batches": "which worker's these are, and until when",
    "about": "with which key the store is encrypted",
    "journal": "where the journal of `durability = disk` is",
}
_TABLES: Final = b"records", b"schedule", b"closed", b"claimed", b"batches", b"about"


class EmbeddedStore:
    """Session records in LMDB.

    Tables: records by key; the schedule, keyed by moment and key; closed sessions by name; claimed ones by batch and
    name; batches, with the moment at which their lease is over; what is said about the others.
    """

    def __init__(self, place: str, settings: StoreSettings, limits: Limits | None = None) -> None:
        self._place = StorePlace(Path(place), settings.memory_folder)
        folder, live = self._place.folder, self._place.live
        on_disk = settings.durability == "disk"
        size = int(settings.size_gib * 2**30)
        with self._place.opening():
            lock_with_blocks(live)
            self._env = lmdb.open(
                str(live),
                map_size=with_reserve(size),
                sync=False,
                metasync=False,
                writemap=True,
                map_async=True,
                readahead=False,  # records are small and far apart
                max_readers=512,
                max_dbs=8,
            )
            with ExitStack() as opened:
                opened.callback(self._env.close)
                self._room = Room(self._env, size, live / FILE)
                opened.callback(self._room.close)
                self._tables = [self._env.open_db(name) for name in _TABLES]
                self._journal = self._open_journal(folder, limits or Limits(), wanted=on_disk)
                opened.pop_all()
        self._records, self._schedule, self._closed, self._claimed, self._batches, self._about = self._tables
        self._write: Callable[..., Any] = (
            self._journal.begin if self._journal else partial(self._env.begin, write=True, db=self._records)
        )
        if self._place.has_copy:
            if self._journal:
                self._place.forget_copy()
            else:
                self._write = partial(self._first_write, self._write)
        self._groups = GroupCommit(self._commit, self._journal.sync) if self._journal else None
        # a reader that was killed would keep every page it could see from being used again
        self._env.reader_check()

    def _open_journal(self, folder: Path, limits: Limits, *, wanted: bool) -> Journal | None:
        if not wanted and not is_journaled(folder):
            return None
        journal = Journal(self._env, folder, self._tables, self._room, limits)
        if wanted:
            return journal
        self._env.sync(True)
        journal.close(remove=True)
        return None

    def _first_write(self, write: Callable[..., Any], **options: bool) -> Any:
        self._place.forget_copy()
        self._write = write
        return write(**options)

    @property
    def waits(self) -> bool:
        """Whether a sync takes so long that the loop had better go on."""
        return self._groups is not None and not self._groups.is_quick

    def apply(
        self, visits: Sequence[Visit], advance: Advance = one_by_one, *, alone: bool = False
    ) -> Awaitable[None] | None:
        """Advance visits, all in one transaction; with a journal, together with those of the same turn of the loop."""
        if not visits:
            return None
        if self._groups and not alone:
            return self._groups.add((visits, advance))
        self._commit([(visits, advance)])
        if self._groups:
            self._groups.sync()
        return None

    def _commit(self, group: Sequence[_Apply]) -> None:
        try:
            with self._write(buffers=True) as transaction:
                for visits, advance in group:
                    scheduled = visits[0].entry is not None
                    self._room.need(len(visits) * VISIT_BYTES, transaction, self._tables, refused=not scheduled)
                    self._apply(transaction, visits, advance)
        except lmdb.Error as error:
            raise StoreError(f"the embedded store: {error}") from error

    def _apply(self, transaction: Any, visits: Sequence[Visit], advance: Advance) -> None:
        get, keys = transaction.get, [visit.key for visit in visits]
        values = [get(key) for key in keys]
        asked = {
            visit: others
            for visit, value in zip(visits, values, strict=True)
            if value is None and (others := visit.others())
        }
        here = set(keys) if len(keys) > 1 and asked else set()
        if here and not all(map(here.isdisjoint, asked.values())):
            # one may go on with the record of another: one after the other
            for visit in visits:
                value = get(visit.key)
                (change,) = advance([Found(visit, value, _found(get, visit.others()) if value is None else ())])
                self._put(transaction, visit, change)
            return
        found = [
            _new(Found, (visit, value, _found(get, asked[visit]) if asked and visit in asked else ()))
            for visit, value in zip(visits, values, strict=True)
        ]
        put, none = transaction.put, b""
        for visit, change in zip(visits, advance(found), strict=True):
            if change is None or change[2] or change[3] or visit.entry is not None or change[0] is None:
                self._put(transaction, visit, change)
                continue
            # as `_put` does, for what is done all the time
            put(visit.key, change[0])
            if change[1] is not None:
                put(_MOMENT.pack(change[1]) + visit.key, none, db=self._schedule)

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
            transaction.delete(_MOMENT.pack(moved.due_ms) + moved.key, db=self._schedule)
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

    def read_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Some records, all as of the same moment."""
        with self._env.begin(db=self._records) as transaction:
            return [transaction.get(key) for key in keys]

    def waiting(self, key: bytes) -> Sequence[Closed]:
        """Sessions of a record."""
        with self._env.begin() as transaction:
            names = self._names(transaction, key)
            return [
                Closed(name[_NAME_BYTES if table is self._claimed else 0 :], transaction.get(name, b"", db=table))
                for table, name in names
            ]

    def drop(self, key: bytes) -> Awaitable[None] | None:
        """Forget them."""
        return self._acknowledged(lambda: self._drop(key))

    def _drop(self, key: bytes) -> None:
        with self._write() as transaction:
            names = self._names(transaction, key)
            self._room.need(len(names) * MOVED_BYTES, transaction, self._tables, refused=False)
            for table, name in names:
                transaction.delete(name, db=table)

    def _names(self, transaction: Any, key: bytes) -> list[tuple[Any, bytes]]:
        """Where a record's sessions lie; claimed ones have the names of their batches before their own."""
        found = []
        with transaction.cursor(self._closed) as cursor:
            if cursor.set_range(key):
                for name in cursor.iternext(keys=True, values=False):
                    if not name.startswith(key):
                        break
                    found.append((self._closed, name))
        with transaction.cursor(self._claimed) as cursor:
            names = cursor.iternext(keys=True, values=False)
            found += [(self._claimed, name) for name in names if name.startswith(key, _NAME_BYTES)]
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
        if self._journal:
            self._journal.look_at_the_clock()
        with self._env.begin() as transaction:  # mostly there is nothing: do not queue behind the writers for it
            if not any(transaction.stat(table)["entries"] for table in (self._closed, self._batches)):
                return None
        return self._acknowledged(lambda: self._claim(limit, now_ms, lease_ms))

    def _claim(self, limit: int, now_ms: int, lease_ms: int) -> Batch | None:
        with self._write() as transaction:
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
        return self._acknowledged(lambda: self._settle(name.encode()))

    def _settle(self, batch: bytes) -> None:
        with self._write() as transaction:
            sessions = self._of_batch(transaction, batch)
            self._room.need(len(sessions) * MOVED_BYTES, transaction, self._tables, refused=False)
            for session, _ in sessions:
                transaction.delete(batch + session, db=self._claimed)
            transaction.delete(batch, db=self._batches)

    def _acknowledged(self, work: Callable[[], Result]) -> Awaitable[Result] | Result:
        """What work that commits gives: after a sync, where there is a journal."""
        try:
            result = work()
        except lmdb.Error as error:
            raise StoreError(f"the embedded store: {error}") from error
        return _after(self._groups.synced(), result) if self._groups else result

    def count(self) -> int:
        """How many records there are."""
        with self._env.begin() as transaction:
            entries: int = transaction.stat(self._records)["entries"]
            return entries

    def close(self) -> None:
        """Close the file."""
        if self._journal and self._groups:
            self._groups.close()
            self._journal.close()
        self._env.sync(True)  # an orderly end and then a power cut: nothing is lost
        self._place.leave(self._env, copied=self._journal is None)
        self._env.close()
        self._room.close()


def _found(get: Callable[[bytes], bytes | None], keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The records that lie under some keys."""
    return [(key, found) for key in keys if (found := get(key)) is not None]


async def _after(synced: Awaitable[None], result: Result) -> Result:
    await synced
    return result

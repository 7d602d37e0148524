"""The journal of an embedded store: what makes `durability = "disk"` cheap.

LMDB's file is not synced. Every write transaction appends what it does to a journal while it holds LMDB's lock, and is
acknowledged after an fdatasync of that: one write in one place, shared by all who wait. All workers write the same
journal, in the order of their transactions, because one may build on another's that is not synced yet; a sync covers
everything before.

Where the journal is stands in a table of LMDB and changes in the same transaction: an entry whose writer was killed
before it committed is overwritten by the next one.

The journal is a chain of segments, files that are filled with zeros ahead of use and used again: to sync blocks that were
written before takes two thirds of the time. Whoever moves on to the next segment syncs the one before. A checkpoint in
a thread of one worker makes older segments free, once the journal is as large as what lives in the store, and at least
64 MB; or after five minutes, when the files are removed: what was erased does not stay.

After a start of the machine LMDB's file is made anew from the checkpoint and the journal (`serving.stores.restart`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from serving.stores import StoreError, Value
from serving.stores.checkpoint import STATE, State, read_checkpoint, start_of, write_checkpoint
from serving.stores.operations import Operations, next_entry, operations
from serving.stores.room import MOVED_BYTES, Room
from serving.syncing import sync

logger = logging.getLogger("lotse.stores")

CHECKPOINT: Final = "checkpoint"
_NEW: Final = "checkpoint.new"
_LOCK: Final = "checkpoint.lock"
_SEGMENT: Final = "journal-"
_STATE: Final = b"state"
_AGAIN_SECONDS: Final = 5.0  # after a checkpoint that another worker is at, or that failed
_RESTORED: Final = 256  # operations in one transaction


class Limits(NamedTuple):
    """How large files become, and when a checkpoint is made."""

    segment_bytes: int = 16 * 2**20
    step_bytes: int = 2**20
    checkpoint_bytes: int = 64 * 2**20
    checkpoint_seconds: float = 300


def is_journaled(folder: Path) -> bool:
    """Whether what counts is the checkpoint and the journal, not LMDB's file."""
    return (folder / CHECKPOINT).exists()


class _Segment:
    """A file of the journal, open; made if it is not there."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.descriptor = os.open(_path(folder, number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.descriptor).st_size

    def grow(self, upto_bytes: int) -> None:
        """Have blocks, all of them written."""
        self.size = os.fstat(self.descriptor).st_size  # another worker may have done it
        while self.size < upto_bytes:
            self.size += os.pwrite(self.descriptor, bytes(upto_bytes - self.size), self.size)

    def __del__(self) -> None:  # the thread that syncs may be the last to need it
        with suppress(AttributeError):
            os.close(self.descriptor)


class Journaled:
    """A write transaction of LMDB that is journaled before it is committed; used like LMDB's own."""

    __slots__ = ("_done", "_journal", "_transaction", "cursor", "get", "stat")

    def __init__(self, journal: Journal, transaction: Any) -> None:
        self._journal, self._transaction, self._done = journal, transaction, Operations()
        self.get, self.cursor, self.stat = transaction.get, transaction.cursor, transaction.stat

    def put(self, key: bytes, value: Value, db: Any = None) -> None:
        """Put a value, by default of the first table."""
        tables = self._journal.tables
        self._transaction.put(key, value, db=db or tables[0])
        self._done.put(self._journal.numbers[db] if db else 0, key, value)

    def delete(self, key: bytes, db: Any = None) -> None:
        """Delete a value, by default of the first table."""
        tables = self._journal.tables
        if self._transaction.delete(key, db=db or tables[0]):
            self._done.delete(self._journal.numbers[db] if db else 0, key)

    def __enter__(self) -> Journaled:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                if self._done:
                    self._journal.append(self._transaction, self._done)
                self._transaction.commit()
        finally:
            self._transaction.abort()  # does nothing after a commit


class Journal:
    """The journal of one store, as one of its workers writes it.

    tables: all of the store; their order is part of the format. Opened while no other worker opens the store.

    Raises
    ------
    StoreError
        The disk is full, or the checkpoint is damaged.
    """

    def __init__(self, env: Any, folder: Path, tables: Sequence[Any], room: Room, limits: Limits) -> None:
        self.tables, self.numbers = tables, {table: number for number, table in enumerate(tables)}
        self._env, self._folder, self._room, self._limits = env, folder, room, limits
        self._table = env.open_db(b"journal")
        self._segment: _Segment | None = None
        self._state = (0,) * len(State._fields)
        self._failed, self._next_try, self._ending = 0, 0.0, False
        self._checkpointing: threading.Thread | None = None
        try:
            self._open()
        except OSError as error:
            raise StoreError(f"the embedded store's journal: {error}") from error

    def _open(self) -> None:
        start, state = start_of(self._folder / CHECKPOINT), self._read_state()
        if start is not None and state is None:
            self._restore(start)
        elif (
            start is None
            or state is None
            or start.life != state.life
            or start.sequence > state.sequence
            or not _path(self._folder, state.segment).exists()
        ):
            if start is not None:
                logger.warning("the journal in %s is not of the file beside it, which is believed", self._folder)
            self._begin(state)

    def _read_state(self) -> State | None:
        with self._env.begin() as transaction:
            found = transaction.get(_STATE, db=self._table)
        return None if found is None else State(*STATE.unpack(found))

    # Transactions

    def begin(self, **options: Any) -> Journaled:
        """A write transaction.

        Raises
        ------
        StoreError
            A sync failed, and there is no checkpoint yet of what it may have lost.
        """
        transaction = self._env.begin(write=True, **options)
        try:
            self._state = state = STATE.unpack(transaction.get(_STATE, db=self._table))
            if self._segment is None or self._segment.number != state[0]:
                self._segment = _Segment(self._folder, state[0])
            if max(state[8], self._failed) > state[6]:
                self._refuse(transaction)
        except OSError as error:
            transaction.abort()
            raise StoreError(f"the embedded store's journal: {error}") from error
        except BaseException:
            transaction.abort()
            raise
        return Journaled(self, transaction)

    def append(self, transaction: Any, done: Operations) -> None:
        """Write an entry, in a transaction that is committed next.

        Raises
        ------
        StoreError
            The disk is full.
        """
        segment, offset, sequence, chain, written, due, *others = self._state
        sequence += 1
        data, chain, _ = done.entry(sequence, chain)
        size = len(data)
        try:
            file = self._segment
            assert file is not None
            if offset + size > file.size:
                file, offset = self._make_room(file, offset, size)
            if os.pwrite(file.descriptor, data, offset) != size:
                raise OSError("the disk is full")
        except OSError as error:
            self.checkpoint_soon()  # which may make room
            raise StoreError(f"the embedded store's journal: {error}") from error
        written += size
        self._state = state = (file.number, offset + size, sequence, chain, written, due, *others)
        transaction.put(_STATE, STATE.pack(*state), db=self._table)
        if written >= due:
            self.checkpoint_soon()

    def _make_room(self, file: _Segment, offset: int, size: int) -> tuple[_Segment, int]:
        if offset and offset + size > self._limits.segment_bytes:
            file, offset = self._following(file), 0
        step = self._limits.step_bytes
        file.grow(-(-(offset + size) // step) * step)
        self._segment = file
        return file, offset

    def _following(self, file: _Segment) -> _Segment:
        """The next segment, with LMDB's lock held: what is in the one before is on the disk, and so is the name."""
        self._sync_file(file)
        following = _Segment(self._folder, file.number + 1)
        sync(self._folder)
        return following

    def sync(self) -> None:
        """Have on the disk what this worker has seen of the journal.

        Raises
        ------
        StoreError
            The disk failed; nothing is acknowledged any more until there is a checkpoint.
        """
        file = self._segment
        assert file is not None
        try:
            self._sync_file(file)
        except OSError as error:
            raise StoreError(f"the embedded store's journal: {error}") from error

    def _sync_file(self, file: _Segment) -> None:
        try:
            os.fdatasync(file.descriptor)
        except OSError:
            # the operating system has forgotten that it did not write them: another sync would say nothing
            self._failed = self._state[2]
            raise

    def _refuse(self, transaction: Any) -> None:
        """Nothing more before a checkpoint: what a sync failed for may not be on the disk."""
        state = State(*self._state)
        if self._failed > state.failed:  # the other workers are to know
            transaction.put(_STATE, STATE.pack(*state._replace(failed=self._failed)), db=self._table)
            transaction.commit()
        self.checkpoint_soon()
        raise StoreError("the embedded store's journal could not be synced; a checkpoint is made")

    # Checkpoints

    def look_at_the_clock(self) -> None:
        """Make a checkpoint if the latest is too old."""
        state = self._read_state()
        if state is not None and state.sequence > state.checkpointed:
            age = time.time() - state.checkpoint_seconds
            if not 0 <= age < self._limits.checkpoint_seconds:
                self.checkpoint_soon(erase=True)

    def checkpoint_soon(self, *, erase: bool = False) -> None:
        """Make one in a thread, unless one is made or was tried just now."""
        now = time.monotonic()
        if now >= self._next_try and not (self._checkpointing and self._checkpointing.is_alive()):
            self._next_try = now + _AGAIN_SECONDS
            self._checkpointing = threading.Thread(target=self._try_checkpoint, args=(erase,), daemon=True)
            self._checkpointing.start()

    def _try_checkpoint(self, erase: bool) -> None:
        try:
            with _locked(self._folder / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB):
                self._checkpoint(erase=erase)
        except BlockingIOError:
            return  # another worker is at it
        except (OSError, StoreError, lmdb.Error) as error:
            if not self._ending:
                logger.warning("no checkpoint of the embedded store: %s", error)
        else:
            self._next_try = 0.0

    def _checkpoint(self, *, erase: bool) -> None:
        new = self._folder / _NEW
        try:
            start = self._move_on()
            size = write_checkpoint(new, self._env, self.tables, start, lambda: not self._ending)
            state = self._read_state()
            assert state is not None
            # it may hold anything that was done so far, so all of that has to be on the disk before it counts
            sync(_path(self._folder, state.segment))
            state = self._read_state()
            assert state is not None
            if max(state.failed, self._failed) > start.sequence:
                raise StoreError("the journal could not be synced meanwhile")
            new.replace(self._folder / CHECKPOINT)
            sync(self._folder)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self._free(start, size, erase=erase)

    def _move_on(self) -> State:
        """Begin a segment, so that those before need not be kept."""
        state = self._read_state()
        assert state is not None
        self._sync_file(_Segment(self._folder, state.segment))  # most of it before the others have to wait
        with self._env.begin(write=True) as transaction:
            state = State(*STATE.unpack(transaction.get(_STATE, db=self._table)))
            following = self._following(_Segment(self._folder, state.segment))
            start = state._replace(segment=following.number, offset=0, checkpoint_seconds=int(time.time()))
            transaction.put(_STATE, STATE.pack(*start), db=self._table)
        return start

    def _free(self, start: State, size: int, *, erase: bool) -> None:
        """Have the segments before a checkpoint used again, or removed; nobody moves on meanwhile."""
        with self._env.begin(write=True) as transaction:
            state = State(*STATE.unpack(transaction.get(_STATE, db=self._table)))
            due = start.written + max(self._limits.checkpoint_bytes, size)
            state = state._replace(due=due, checkpointed=start.sequence)
            transaction.put(_STATE, STATE.pack(*state), db=self._table)
            numbers = _segments(self._folder)
            last = max(numbers)
            for number in numbers:
                if erase and not start.segment <= number <= state.segment:
                    _path(self._folder, number).unlink()
                elif number < start.segment:
                    last += 1
                    _path(self._folder, number).rename(_path(self._folder, last))

    # Opening and closing

    def _begin(self, before: State | None) -> None:
        """A journal of what is in the file, whatever lies beside it."""
        number = max([*_segments(self._folder), before.segment if before else 0])
        life, chain = secrets.randbits(64), secrets.randbits(64)
        with self._env.begin(write=True) as transaction:
            state = State(number, 0, 1, chain, 0, self._limits.checkpoint_bytes, 0, 0, 0, life)
            transaction.put(_STATE, STATE.pack(*state), db=self._table)
        with _locked(self._folder / _LOCK, fcntl.LOCK_EX):
            self._checkpoint(erase=True)

    def _restore(self, start: State) -> None:
        """Put what the checkpoint and the journal hold into a file that is empty."""
        begin, state, entries = time.perf_counter(), start, 0
        self._do(read_checkpoint(self._folder / CHECKPOINT))
        for data, state in self._entries(start):
            self._do(operations(data))
            entries += 1
        size = (self._folder / CHECKPOINT).stat().st_size
        due = start.written + max(self._limits.checkpoint_bytes, size)
        with self._env.begin(write=True) as transaction:
            state = state._replace(due=due, checkpointed=start.sequence, failed=0)
            transaction.put(_STATE, STATE.pack(*state), db=self._table)
        # what follows now differs from what may have been written after the last entry that is whole
        with self.begin() as journaled:
            journaled.put(b"restored", secrets.token_bytes(16), db=self.tables[-1])
        logger.info(
            "restored from a checkpoint and %d entries of the journal in %.1f s", entries, time.perf_counter() - begin
        )

    def _entries(self, state: State) -> Iterator[tuple[memoryview, State]]:
        """The operations of each entry, and where the journal is after it."""
        for number in _segments(self._folder):
            if number < state.segment:
                continue
            # one may be empty, because a checkpoint was begun there and not finished; in a free one nothing follows
            content = memoryview(_path(self._folder, number).read_bytes())
            offset = state.offset if number == state.segment else 0
            while entry := next_entry(content, offset, state.sequence + 1, state.chain):
                written = state.written + entry.end - offset
                offset = entry.end
                state = state._replace(
                    segment=number, offset=offset, sequence=state.sequence + 1, chain=entry.checksum, written=written
                )
                yield entry.data, state

    def _do(self, wanted: Iterator[tuple[int, memoryview, memoryview | None]]) -> None:
        """Operations, some in one transaction: nobody else has the file."""
        while some := [one for one, _ in zip(wanted, range(_RESTORED), strict=False)]:
            with self._env.begin(write=True) as transaction:
                self._room.need(len(some) * MOVED_BYTES, transaction, self.tables, refused=False)
                for table, key, value in some:
                    if value is None:
                        transaction.delete(key, db=self.tables[table])
                    else:
                        transaction.put(key, value, db=self.tables[table])

    def close(self, *, remove: bool = False) -> None:
        """End the thread; remove: LMDB's file is what counts from now on, and on the disk."""
        self._ending = True
        if self._checkpointing:
            self._checkpointing.join()
        self._segment = None
        if remove:
            (self._folder / CHECKPOINT).unlink(missing_ok=True)
            sync(self._folder)  # before the segments: without them it would be wrong
            for number in _segments(self._folder):
                _path(self._folder, number).unlink()
            with self._env.begin(write=True) as transaction:
                transaction.delete(_STATE, db=self._table)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{_SEGMENT}{number:08d}"


def _segments(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix(_SEGMENT)) for path in folder.glob(f"{_SEGMENT}*"))


class _locked:
    """A file's lock, held by one process; freed if its holder dies."""

    def __init__(self, path: Path, how: int) -> None:
        self._file = path.open("w")
        try:
            fcntl.flock(self._file, how)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._file.close()

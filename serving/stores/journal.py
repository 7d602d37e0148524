"""The journal of an embedded store: what makes `durability = "disk"` cheap.

LMDB's file is not synced. Every write transaction appends what it does to a journal while it holds LMDB's lock, and is
acknowledged after an fdatasync of that: one write in one place, shared by all who wait. All workers write the same
journal, in the order of their transactions, because one may build on another's that is not synced yet; a sync covers
everything before. Whoever moves on to the next segment syncs the one before.

Where the journal is stands in a table of LMDB and changes in the same transaction: an entry whose writer was killed
before it committed is overwritten by the next one.

After a start of the machine LMDB's file is removed (`serving.stores.restart`), and made anew from the latest checkpoint
and the journal since.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from serving.stores import StoreError, Value
from serving.stores.checkpoint import read_checkpoint, start_of
from serving.stores.checkpoints import CHECKPOINT, Checkpoints, Limits
from serving.stores.operations import Operations, operations
from serving.stores.position import Position, Positions
from serving.stores.room import MOVED_BYTES, Room
from serving.stores.segments import Segment, Segments
from serving.syncing import sync

logger = logging.getLogger("lotse.stores")

_RESTORED: Final = 256  # operations in one transaction
_NOT_SYNCED: Final = "the embedded store's journal could not be synced; a checkpoint is made"


def is_journaled(folder: Path) -> bool:
    """Whether what counts is the checkpoint and the journal, not LMDB's file."""
    return (folder / CHECKPOINT).exists()


class Journaled:
    """A write transaction of LMDB that is journaled before it is committed; used like LMDB's own."""

    __slots__ = ("_done", "_journal", "_note", "_put", "_transaction", "cursor", "get", "stat")

    def __init__(self, journal: Journal, transaction: Any) -> None:
        self._journal, self._transaction, self._done = journal, transaction, Operations()
        self._put, self._note = transaction.put, self._done.put
        self.get, self.cursor, self.stat = transaction.get, transaction.cursor, transaction.stat

    def put(self, key: bytes, value: Value, db: Any = None) -> None:
        """Put a value, by default of the first table."""
        if db is None:  # as for every event
            self._put(key, value)
            self._note(0, key, value)
        else:
            self._put(key, value, db=db)
            self._note(self._journal.numbers[db], key, value)

    def delete(self, key: bytes, db: Any = None) -> None:
        """Delete a value, by default of the first table."""
        number = 0 if db is None else self._journal.numbers[db]
        if self._transaction.delete(key, db=self._journal.tables[number]):
            self._done.delete(number, key)

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
        self._positions, self._segments = Positions(env), Segments(folder)
        self._checkpoints = Checkpoints(env, folder, tables, self._positions, self._segments, limits)
        self.look_at_the_clock = self._checkpoints.look_at_the_clock
        self._segment: Segment | None = None
        self._position: Position
        try:
            self._open()
        except OSError as error:
            raise _failed(error) from error

    def _open(self) -> None:
        start, position = start_of(self._folder / CHECKPOINT), self._positions.read()
        if start is None:
            self._begin(position)
        elif position is None:
            self._restore(start)
        elif (
            start.life != position.life
            or start.sequence > position.sequence
            or not self._segments.path(position.segment).exists()
        ):
            logger.warning("the journal in %s is not of the file beside it, which is believed", self._folder)
            self._begin(position)

    def begin(self, *, buffers: bool = False) -> Journaled:
        """A write transaction; buffers: as of LMDB's own.

        Raises
        ------
        StoreError
            A sync failed, and there is no checkpoint yet of what it may have lost.
        """
        transaction = self._env.begin(write=True, buffers=buffers, db=self.tables[0])
        try:
            self._position = position = self._positions.find(transaction)
            self._segments.latest = position.sequence
            if self._segment is None or self._segment.number != position.segment:
                self._segment = self._segments.open(position.segment)
            if self._segments.failed > position.checkpointed or position.failed > position.checkpointed:
                self._refuse(transaction)
        except OSError as error:
            transaction.abort()
            raise _failed(error) from error
        except BaseException:
            transaction.abort()
            raise
        return Journaled(self, transaction)

    def _refuse(self, transaction: Any) -> None:
        if self._segments.failed > self._position.failed:  # the other workers are to know
            self._positions.put(transaction, self._position._replace(failed=self._segments.failed))
            transaction.commit()
        self._checkpoints.make_soon()
        raise StoreError(_NOT_SYNCED)

    def append(self, transaction: Any, done: Operations) -> None:
        """Write an entry, in a transaction that is committed next.

        Raises
        ------
        StoreError
            The disk is full.
        """
        position = self._position
        sequence = position.sequence + 1
        data, chain = done.entry(sequence, position.chain)
        size, offset = len(data), position.offset
        try:
            file = self._segment
            assert file is not None
            if offset + size > file.size:
                file, offset = self._with_room(file, offset, size)
            if os.pwrite(file.descriptor, data, offset) != size:
                raise OSError("the disk is full")
        except OSError as error:
            self._checkpoints.make_soon()  # which may make room
            raise _failed(error) from error
        written = position.written + size
        self._positions.put(transaction, Position(file.number, offset + size, sequence, chain, written, *position[5:]))
        self._segments.latest = sequence
        if written >= position.due:
            self._checkpoints.make_soon()

    def _with_room(self, file: Segment, offset: int, size: int) -> tuple[Segment, int]:
        if offset and offset + size > self._limits.segment_bytes:
            file, offset = self._segments.following(file), 0
        step = self._limits.step_bytes
        file.grow(-(-(offset + size) // step) * step)
        self._segment = file
        return file, offset

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
            self._segments.sync(file)
        except OSError as error:
            raise _failed(error) from error
        # this one has succeeded, but says nothing of what an earlier one has not written
        if self._segments.failed > self._position.checkpointed:
            raise StoreError(_NOT_SYNCED)

    def _begin(self, before: Position | None) -> None:
        """A journal of what is in the file, whatever lies beside it."""
        segment = 1 + max([*self._segments.numbers(), before.segment if before else 0])
        life, chain = secrets.randbits(64), secrets.randbits(64)
        with self._env.begin(write=True) as transaction:
            self._positions.put(transaction, Position(segment, 0, 1, chain, 0, 0, 0, 0, 0, 0, life))
        self._checkpoints.make()

    def _restore(self, start: Position) -> None:
        """Put what the checkpoint and the journal hold into a file that is empty."""
        begin, position = time.perf_counter(), start
        self._do(read_checkpoint(self._folder / CHECKPOINT))
        for entry, after in self._segments.entries(start):
            self._do(operations(entry))
            position = after
        size = (self._folder / CHECKPOINT).stat().st_size
        due = start.written + max(self._limits.checkpoint_bytes, size)
        with self._env.begin(write=True) as transaction:
            self._positions.put(transaction, position._replace(due=due, checkpointed=start.sequence, failed=0, spare=1))
        # what follows now differs from what may have been written after the last entry that is whole
        with self.begin() as journaled:
            journaled.put(b"restored", secrets.token_bytes(16), db=self.tables[-1])
        logger.info(
            "live sessions are restored: a checkpoint of %d bytes and %d entries of the journal, %.1f s",
            size, position.sequence - start.sequence, time.perf_counter() - begin,
        )  # fmt: skip

    def _do(self, wanted: Iterator[tuple[int, memoryview, memoryview | None]]) -> None:
        """Operations, some in one transaction: nobody else has the file."""
        while some := list(islice(wanted, _RESTORED)):
            with self._env.begin(write=True) as transaction:
                self._room.need(len(some) * MOVED_BYTES, transaction, self.tables, refused=False)
                for table, key, value in some:
                    if value is None:
                        transaction.delete(key, db=self.tables[table])
                    else:
                        transaction.put(key, value, db=self.tables[table])

    def close(self, *, remove: bool = False) -> None:
        """End the thread; remove: LMDB's file, which is on the disk, is what counts from now on."""
        self._checkpoints.close()
        self._segment = None
        if remove:
            (self._folder / CHECKPOINT).unlink(missing_ok=True)
            sync(self._folder)  # before the segments: without them it would be wrong
            self._segments.remove()
            self._positions.forget()


def _failed(error: OSError) -> StoreError:
    return StoreError(f"the embedded store's journal: {error}")

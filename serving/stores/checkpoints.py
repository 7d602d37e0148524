"""When checkpoints of an embedded store are made: by one worker, in a thread, while everybody goes on.

A checkpoint makes older segments of the journal free. One is due when the journal since the latest one is as large as
that, and at least 64 MB: what is written for checkpoints is no more than what is written anyway. The segments are used
again. Five minutes after the latest one it is due, too, if anything was written; then they are removed: what was erased
does not stay.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from serving.stores import StoreError
from serving.stores.checkpoint import write_checkpoint
from serving.stores.position import Position, Positions
from serving.stores.segments import Segments
from serving.syncing import sync

logger = logging.getLogger("lotse.stores")

CHECKPOINT: Final = "checkpoint"
_NEW: Final = "checkpoint.new"
_LOCK: Final = "checkpoint.lock"
_AGAIN_SECONDS: Final = 5.0  # after one that failed, or that another worker is at


class Limits(NamedTuple):
    """How large the journal's files become, and when a checkpoint is due."""

    segment_bytes: int = 16 * 2**20
    step_bytes: int = 2**20
    checkpoint_bytes: int = 64 * 2**20
    checkpoint_seconds: float = 300
    again_seconds: float = _AGAIN_SECONDS


class Checkpoints:
    """Makes them for one worker."""

    def __init__(
        self, env: Any, folder: Path, tables: Sequence[Any], positions: Positions, segments: Segments, limits: Limits
    ) -> None:
        self._env, self._folder, self._tables = env, folder, tables
        self._positions, self._segments, self._limits = positions, segments, limits
        self._thread: threading.Thread | None = None
        self._next_try, self._ending = 0.0, False

    def look_at_the_clock(self) -> None:
        """Make one if the latest is too old."""
        position = self._positions.read()
        if position is not None and (position.sequence > position.checkpointed or position.spare):
            age = time.time() - position.checkpoint_seconds
            if not 0 <= age < self._limits.checkpoint_seconds:
                self.make_soon(erase=True)

    def make_soon(self, *, erase: bool = False) -> None:
        """Make one in a thread, unless one is made or was tried just now."""
        now = time.monotonic()
        if now >= self._next_try and not (self._thread and self._thread.is_alive()):
            self._next_try = now + self._limits.again_seconds
            self._thread = threading.Thread(target=self._try, args=(erase,), name="checkpoint", daemon=True)
            self._thread.start()

    def _try(self, erase: bool) -> None:
        try:
            with _locked(self._folder / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB):
                self._make(erase=erase)
        except BlockingIOError:
            return
        except (OSError, StoreError, lmdb.Error) as error:
            if not self._ending:
                logger.warning("no checkpoint of the embedded store: %s", error)
        else:
            self._next_try = 0.0

    def make(self) -> None:
        """Make one now; earlier segments are removed."""
        with _locked(self._folder / _LOCK, fcntl.LOCK_EX):
            self._make(erase=True)

    def _make(self, *, erase: bool) -> None:
        new = self._folder / _NEW
        try:
            start = self._move_on(erase=erase)
            size = write_checkpoint(new, self._env, self._tables, start, lambda: not self._ending)
            # it may hold anything that was done so far: all of that has to be on the disk before it counts
            end = self._positions.read()
            assert end is not None
            self._segments.sync(self._segments.open(end.segment))
            end = self._positions.read()
            assert end is not None
            if max(end.failed, self._segments.failed) > start.sequence:
                raise StoreError("the journal could not be synced meanwhile")
            new.replace(self._folder / CHECKPOINT)
            sync(self._folder)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self._free(start, size, erase=erase)

    def _move_on(self, *, erase: bool) -> Position:
        """Begin a segment, so that those before need not be kept; erase: one that was not used before."""
        began = int(time.time())
        position = self._positions.read()
        assert position is not None
        self._segments.sync(self._segments.open(position.segment))  # most of it before the others have to wait
        with self._env.begin(write=True) as transaction:
            position = self._positions.find(transaction)
            if erase:
                for number in self._segments.numbers():
                    if number > position.segment:
                        self._segments.path(number).unlink()
            if not position.offset:  # one was begun for a checkpoint that failed
                if erase:
                    os.truncate(self._segments.path(position.segment), 0)
            else:
                following = self._segments.following(self._segments.open(position.segment))
                position = position._replace(segment=following.number, offset=0)
                self._positions.put(transaction, position)
        return position._replace(checkpoint_seconds=began)

    def _free(self, start: Position, size: int, *, erase: bool) -> None:
        """Have the segments before a checkpoint used again, or removed; nobody moves on meanwhile."""
        segments = self._segments
        with self._env.begin(write=True) as transaction:
            position = self._positions.find(transaction)
            due = start.written + max(self._limits.checkpoint_bytes, size)
            position = position._replace(
                due=due,
                checkpointed=start.sequence,
                checkpoint_seconds=start.checkpoint_seconds,
                spare=not erase,
            )
            self._positions.put(transaction, position)
            numbers = segments.numbers()
            last = numbers[-1]
            for number in numbers:
                if erase and not start.segment <= number <= position.segment:
                    segments.path(number).unlink()
                elif number < start.segment:
                    last += 1
                    segments.path(number).rename(segments.path(last))

    def close(self) -> None:
        """Give up the one that is being made."""
        self._ending = True
        if self._thread:
            self._thread.join()


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """A file's lock, held by one process; freed if its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, how)
        yield

"""A spool: events that wait on this machine's disk until the store is back.

In: turns, as pseudonymous events and keys, never a raw id. Out: the same, in the order in which they came. Each worker
has a spool of its own while it needs one: a folder with an LMDB file and a lock that ends with its holder, so another
worker sees which spools are nobody's any more and takes them over. What is acknowledged survives what the store's level
of durability says. Values are encrypted where the embedded store's are.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import IO, Any, Final

import lmdb
import msgspec

from features.events import COLUMNS, Event
from serving.memory import EVENT
from serving.stores import StoreError
from serving.stores.encryption import Seal
from serving.stores.restart import damaged_files_put_aside
from serving.stores.room import lock_with_blocks

logger = logging.getLogger("lotse.outages")

_NUMBER: Final = Struct(">Q")
_COLUMNS: Final = b"columns"
# LMDB writes pages anew instead of changing them, also for deleting, and long values lie in whole pages.
_SLACK: Final = 2
_SLACK_BYTES: Final = 16 * 2**20


class SpooledVisit(msgspec.Struct, array_like=True, frozen=True):
    """One visitor's events of a turn, packed one after the other.

    others: keys under which the record may lie, veiled (`RotatingPseudonyms.veiled`).
    token: of the write, by which the record tells whether it was done.
    """

    events: bytes
    others: list[bytes]
    token: bytes = b""


class SpooledTurn(msgspec.Struct, array_like=True, frozen=True):
    """What came at the same time.

    unlinked: lasting keys of visitors under which all is to be erased, veiled with the first of them, which is none.
    """

    received_ms: int
    visits: list[SpooledVisit]
    unlinked: list[bytes] = []


class Spool:
    """One spool, of this worker or taken over.

    Attributes
    ----------
    turns, events: that are in it, those that are being written too.
    """

    def __init__(self, folder: Path, lock: IO[str], *, limit_bytes: int, sync: bool, seal: Seal | None) -> None:
        self.folder, self.turns, self.events = folder, 0, 0
        self._lock, self._limit, self._seal, self._bytes = lock, limit_bytes, seal, 0
        with damaged_files_put_aside(folder):
            lock_with_blocks(folder)
            self._env = lmdb.open(
                str(folder), map_size=_SLACK * limit_bytes + _SLACK_BYTES, sync=sync, metasync=sync, max_dbs=2
            )
            self._turns, about = self._env.open_db(b"turns"), self._env.open_db(b"about")
        try:
            self._read(about)
        except BaseException:
            self._env.close()
            raise

    def _read(self, about: Any) -> None:
        """What is in it."""
        now = {name: column.dtype for name, column in COLUMNS.items()}
        with self._env.begin(write=True) as transaction:
            found = transaction.get(_COLUMNS, db=about)
            columns = now if found is None else msgspec.json.decode(found, type=dict[str, str])
            if found is None:
                transaction.put(_COLUMNS, msgspec.json.encode(now), db=about)
            self._next = 0
            with transaction.cursor(self._turns) as cursor:
                for key, value in cursor:
                    self._next = _NUMBER.unpack(key)[0] + 1
                    self._bytes += len(value)
                    self.turns += 1
                    self.events += _count(self._opened(key, value), columns)
        # a release that has other columns left it: what it did not know has its default
        self._struct, self._names = _struct(columns), list(columns)

    def add(self, turn: SpooledTurn) -> Addition:
        """Make room for a turn; it is kept once the addition is written.

        Raises
        ------
        StoreError
            The spool is full.
        """
        key = _NUMBER.pack(self._next)
        content = msgspec.msgpack.encode(turn)
        value = content if self._seal is None else self._seal.close(content, key)
        if self._bytes + len(value) > self._limit:
            raise StoreError(f"{self._bytes} bytes wait for the store; no more than {self._limit} may")
        events = sum(len(visit.events) for visit in turn.visits) // EVENT.size
        self._next += 1
        self.turns += 1
        self.events += events
        self._bytes += len(value)
        return Addition(self, key, value, events)

    def write(self, key: bytes, value: bytes) -> None:
        """Keep a turn.

        Raises
        ------
        StoreError
            The disk does not take it.
        """
        with self._changing() as transaction:
            transaction.put(key, value)

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        """A transaction that writes turns."""
        try:
            with self._env.begin(write=True, db=self._turns) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise StoreError(f"the spool: {error}") from error

    def first(self, events: int, within_ms: int) -> dict[bytes, SpooledTurn]:
        """The turns that came first, by key: of different visitors, within a time, about so many events."""
        turns: dict[bytes, SpooledTurn] = {}
        first_ms = 0
        visitors: set[int] = set()
        with self._env.begin(db=self._turns) as transaction, transaction.cursor() as cursor:
            for key, value in cursor:
                turn = msgspec.msgpack.decode(self._opened(key, value), type=SpooledTurn)
                theirs = {self.events_of(visit)[0].visitor for visit in turn.visits}
                first_ms = first_ms or turn.received_ms
                late = turn.received_ms - first_ms > within_ms
                if turns and (events <= 0 or late or not visitors.isdisjoint(theirs)):
                    break
                turns[key] = turn
                visitors |= theirs
                events -= _count_visits(turn, self._struct)
        return turns

    def events_of(self, visit: SpooledVisit) -> list[Event]:
        """The events of a visit."""
        known = Event._fields
        if self._names == list(known):
            return [Event._make(values) for values in self._struct.iter_unpack(visit.events)]
        return [
            Event(**{name: value for name, value in zip(self._names, values, strict=True) if name in known})
            for values in self._struct.iter_unpack(visit.events)
        ]

    def of(self, visitors: Collection[int]) -> list[Event]:
        """The events of some visitors."""
        with self._env.begin(db=self._turns) as transaction, transaction.cursor() as cursor:
            turns = [msgspec.msgpack.decode(self._opened(*pair), type=SpooledTurn) for pair in cursor]
        events = [self.events_of(visit) for turn in turns for visit in turn.visits]
        return [event for theirs in events if theirs[0].visitor in visitors for event in theirs]

    def erase(self, visitors: Collection[int]) -> int:
        """Take some visitors' events out of the turns, which stay in their order; returns how many.

        Raises
        ------
        StoreError
            The disk does not take it.
        """
        count = 0
        with self._changing() as transaction, transaction.cursor() as cursor:
            for key, value in list(cursor):
                turn = msgspec.msgpack.decode(self._opened(key, value), type=SpooledTurn)
                kept = [visit for visit in turn.visits if self.events_of(visit)[0].visitor not in visitors]
                if len(kept) < len(turn.visits):
                    left = msgspec.structs.replace(turn, visits=kept)
                    content = msgspec.msgpack.encode(left)
                    transaction.put(key, content if self._seal is None else self._seal.close(content, key))
                    count += _count_visits(turn, self._struct) - _count_visits(left, self._struct)
        return count

    def drop(self, turns: Mapping[bytes, SpooledTurn]) -> int:
        """Forget turns that the store has; returns how many events they hold.

        Raises
        ------
        StoreError
            The disk does not take it.
        """
        with self._changing() as transaction:
            size = sum(len(transaction.pop(key) or b"") for key in turns)
        events = sum(_count_visits(turn, self._struct) for turn in turns.values())
        self._bytes -= size
        self.turns -= len(turns)
        self.events -= events
        return events

    def withdraw(self, size: int, events: int) -> None:
        """An addition was not written."""
        self._bytes -= size
        self.turns -= 1
        self.events -= events

    def close(self) -> None:
        """Let go of it: an empty one is deleted, another one is anybody's."""
        self._env.close()
        if not self.turns:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def leave(self) -> None:
        """Let go of another worker's."""
        self._env.close()
        self._lock.close()

    def _opened(self, key: bytes, value: bytes) -> bytes:
        return value if self._seal is None else self._seal.open(value, key)


class Addition:
    """A turn on its way into a spool."""

    def __init__(self, spool: Spool, key: bytes, value: bytes, events: int) -> None:
        self._spool, self._key, self._value, self._events = spool, key, value, events

    def write(self) -> None:
        """Keep it; may be done in another thread.

        Raises
        ------
        StoreError
            The disk does not take it.
        """
        self._spool.write(self._key, self._value)

    def withdraw(self) -> None:
        """It could not be written."""
        self._spool.withdraw(len(self._value), self._events)


def new_spool(parent: Path, *, limit_bytes: int, sync: bool, seal: Seal | None) -> Spool:
    """A spool of this worker's own.

    Raises
    ------
    StoreError
        The disk does not take it.
    """
    name = uuid.uuid4().hex
    # locked before it has its name: nobody takes it for an orphan
    beside, folder = parent / f".{name}", parent / name
    try:
        beside.mkdir(parents=True, mode=0o700)
        lock = (beside / "owner").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            beside.rename(folder)
            return Spool(folder, lock, limit_bytes=limit_bytes, sync=sync, seal=seal)
        except BaseException:
            lock.close()
            raise
    except (OSError, lmdb.Error, StoreError) as error:
        for left in (beside, folder):
            shutil.rmtree(left, ignore_errors=True)
        raise StoreError(f"the spool: {error}") from error


def orphans(parent: Path, *, limit_bytes: int, sync: bool, seal: Seal | None) -> Iterator[Spool]:
    """Take over the spools of workers that have ended, the oldest first."""
    if not parent.is_dir():
        return
    for folder in sorted(parent.iterdir(), key=_made):
        if folder.name.startswith("."):
            continue
        try:
            lock = (folder / "owner").open("r+")
        except OSError:
            continue  # it is gone
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock.fileno()), (folder / "owner").stat()):
                raise FileNotFoundError(folder)
            spool = Spool(folder, lock, limit_bytes=limit_bytes, sync=sync, seal=seal)
        except BlockingIOError:
            lock.close()  # its worker lives
        except (OSError, lmdb.Error, StoreError) as error:
            lock.close()
            logger.error(
                "the events buffered in %s cannot be read (%s); the folder is left as it is", folder.name, error
            )
        else:
            yield spool


def of_others(
    parent: Path, ours: Collection[str], *, limit_bytes: int, sync: bool, seal: Seal | None
) -> Iterator[Spool]:
    """Look into the spools that are not this process's, by the names of its folders: their workers go on with them.

    No file of LMDB may be open twice in a process.
    """
    if not parent.is_dir():
        return
    for folder in sorted(parent.iterdir(), key=_made):
        if folder.name.startswith(".") or folder.name in ours:
            continue
        try:
            lock = (folder / "owner").open("r+")
            spool = Spool(folder, lock, limit_bytes=limit_bytes, sync=sync, seal=seal)
        except (OSError, lmdb.Error):
            continue  # it was empty and is gone
        try:
            yield spool
        finally:
            spool.leave()


def _made(folder: Path) -> float:
    try:
        return folder.stat().st_ctime
    except OSError:
        return 0


def _struct(columns: dict[str, str]) -> Struct:
    return Struct("<" + "".join("d" if dtype.startswith("f") else "q" for dtype in columns.values()))


def _count(content: bytes, columns: dict[str, str]) -> int:
    return _count_visits(msgspec.msgpack.decode(content, type=SpooledTurn), _struct(columns))


def _count_visits(turn: SpooledTurn, struct: Struct) -> int:
    return sum(len(visit.events) for visit in turn.visits) // struct.size

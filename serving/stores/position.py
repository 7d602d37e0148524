"""Where an embedded store's journal is: noted in the store itself, in the transaction that moves it."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final, NamedTuple

_KEY: Final = b"position"


class Position(NamedTuple):
    """Where the journal is.

    segment, offset: the place of the next entry.
    sequence: of the latest entry; chain: its checksum.
    written: bytes of all entries; due: the same when the next checkpoint is due.
    checkpointed: sequence up to which the latest checkpoint holds everything.
    checkpoint_seconds: when that was begun, Unix time.
    failed: sequence of the latest entry that a sync failed for.
    spare: whether segments were to be used again after the latest checkpoint, with what they held.
    life: drawn when the journal was begun.
    """

    segment: int
    offset: int
    sequence: int
    chain: int
    written: int
    due: int
    checkpointed: int
    checkpoint_seconds: int
    failed: int
    spare: int
    life: int

    def packed(self) -> bytes:
        """As it is stored."""
        return POSITION.pack(*self)


POSITION: Final = Struct("<11Q")


class Positions:
    """The table of LMDB that has it."""

    def __init__(self, env: Any) -> None:
        self._env, self._table = env, env.open_db(b"journal")

    def read(self) -> Position | None:
        """Where it is now; None if the file has no journal."""
        with self._env.begin() as transaction:
            found = transaction.get(_KEY, db=self._table)
        return None if found is None else Position(*POSITION.unpack(found))

    def find(self, transaction: Any) -> Position:
        """The same in a transaction, of a file that has one."""
        return Position._make(POSITION.unpack(transaction.get(_KEY, db=self._table)))

    def put(self, transaction: Any, position: Position) -> None:
        """Note another one."""
        transaction.put(_KEY, POSITION.pack(*position), db=self._table)

    def forget(self) -> None:
        """The file has no journal any more."""
        with self._env.begin(write=True) as transaction:
            transaction.delete(_KEY, db=self._table)

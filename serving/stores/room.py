"""Room for an embedded store's file: on the disk, and within the size that it may grow to.

A page that the disk has no block for ends the process that writes it through a map (SIGBUS): no error can be caught. So
blocks are asked for ahead of use, in steps, which fails like any write; and nothing is written that has no blocks.

LMDB writes pages anew, so it takes room to forget, too. Events are refused once what lives in the file takes the size
that is configured; the map is larger by a reserve, in which sessions that are over are closed, handed on and forgotten.

Several workers write the same file. Each asks while it holds the writers' lock, and then writes up to a share without
asking again; what is asked for covers the shares of 16 workers. What a transaction takes is estimated from above.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from serving.stores import StoreError

PAGE_BYTES: Final = 4096
VISIT_BYTES: Final = 8 * PAGE_BYTES
MOVED_BYTES: Final = 2 * PAGE_BYTES
_TRANSACTION_BYTES: Final = 24 * PAGE_BYTES
_SHARE_BYTES: Final = 2**20
_WORKERS: Final = 16
_LOCK_BYTES: Final = 64 * 2**10  # a thousand readers
_LEAST_RESERVE_BYTES: Final = 32 * 2**20


def with_reserve(size_bytes: int) -> int:
    """How large the map is, for a store of that size."""
    return size_bytes + max(size_bytes // 16, _LEAST_RESERVE_BYTES)


def lock_with_blocks(folder: Path) -> None:
    """Have the blocks of the file in which LMDB notes its readers, which is mapped, too: before it is opened.

    Raises
    ------
    StoreError
        The disk is full.
    """
    try:
        file = os.open(folder / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(file, 0, _LOCK_BYTES)
        finally:
            os.close(file)
    except OSError as error:
        raise StoreError(f"no room on the disk: {error}") from error


class Room:
    """Room in one file, which is written through a map."""

    def __init__(self, env: Any, size_bytes: int, file: Path) -> None:
        self._env, self._size, self._most = env, size_bytes, with_reserve(size_bytes)
        self._file = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        self._there = self._left = 0
        try:
            self._allocate(self._taken() + _TRANSACTION_BYTES)
        except StoreError:
            self.close()
            raise

    def need(self, more_bytes: int, transaction: Any, tables: Sequence[Any], *, refused: bool = True) -> None:
        """Have room for a transaction that has begun to write; refused: unless it belongs to the housekeeping.

        Raises
        ------
        StoreError
            The disk is full, or the file is as large as it may be.
        """
        more_bytes += _TRANSACTION_BYTES
        self._left -= more_bytes
        if self._left >= 0:
            return
        taken = self._taken()
        if taken >= self._size and refused and _living(transaction, tables) >= self._size:
            raise StoreError(f"the embedded store: full, {self._size} bytes; raise store.size_gib")
        self._allocate(taken + more_bytes)
        # near the end every transaction asks
        self._left = _SHARE_BYTES if taken + _WORKERS * _SHARE_BYTES < self._size else 0

    def _taken(self) -> int:
        taken: int = (self._env.info()["last_pgno"] + 1) * PAGE_BYTES
        return taken

    def _allocate(self, upto_bytes: int) -> None:
        wanted = min(upto_bytes + _WORKERS * _SHARE_BYTES, self._most)
        if wanted <= self._there:
            return
        # a step further, so that this is seldom; from the beginning at first: what has blocks keeps them
        for upto in (min(wanted + _WORKERS * _SHARE_BYTES, self._most), wanted):
            try:
                os.posix_fallocate(self._file, self._there, upto - self._there)
            except OSError as error:
                problem = error
            else:
                self._there = upto
                return
        raise StoreError(f"the embedded store: no room on the disk: {problem}") from problem

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def _living(transaction: Any, tables: Sequence[Any]) -> int:
    """Bytes of the pages that tables have now; the others are used again."""
    stats = [transaction.stat(table) for table in tables]
    return PAGE_BYTES * sum(one["branch_pages"] + one["leaf_pages"] + one["overflow_pages"] for one in stats)

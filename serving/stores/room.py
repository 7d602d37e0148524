"""Room on the disk for a file that is written through a map.

A page that the disk has no block for ends the process that writes it (SIGBUS): no error can be caught. So blocks are
asked for ahead of use, in steps, which fails like any write; and nothing is written that has no blocks.

Several workers write the same file. Each asks while it holds the writers' lock, and then writes up to a share without
asking again; what is asked for covers the shares of 16 workers. A transaction writes pages anew, so its need is
estimated from above: the trees' paths, and eight pages for each visit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from serving.stores import StoreError

PAGE_BYTES: Final = 4096
VISIT_BYTES: Final = 8 * PAGE_BYTES
MOVED_BYTES: Final = 2 * PAGE_BYTES
_TRANSACTION_BYTES: Final = 24 * PAGE_BYTES
_SHARE_BYTES: Final = 2**20
_WORKERS: Final = 16


class Room:
    """Blocks of one file; `taken`: how many bytes an open LMDB environment says that it uses."""

    def __init__(self, env: Any, file: Path, most_bytes: int) -> None:
        self._env, self._most = env, most_bytes
        self._file = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        self._there = 0
        self._left = 0
        try:
            self.need(0)
        except StoreError:
            self.close()
            raise

    def need(self, more_bytes: int) -> None:
        """Have room for a transaction, while the writers' lock is held.

        Raises
        ------
        StoreError
            The disk is full.
        """
        more_bytes += _TRANSACTION_BYTES
        self._left -= more_bytes
        if self._left < 0:
            self._ask(more_bytes)

    def _ask(self, more_bytes: int) -> None:
        self._left = 0
        info = self._env.info()
        used = (info["last_pgno"] + 1) * PAGE_BYTES
        wanted = min(used + more_bytes + _WORKERS * _SHARE_BYTES, self._most)
        if wanted > self._there:
            # a step further, so that this is seldom; from the beginning at first: what has blocks keeps them
            step = min(wanted + _WORKERS * _SHARE_BYTES, self._most)
            for upto in (step, wanted):
                try:
                    os.posix_fallocate(self._file, self._there, upto - self._there)
                except OSError as error:
                    problem = error
                else:
                    self._there = upto
                    break
            else:
                raise StoreError(f"the embedded store: no room on the disk: {problem}") from problem
        self._left = _SHARE_BYTES

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

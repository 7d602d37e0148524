"""Group commit: what comes in one turn of the event loop is committed together, and all who wait share a sync.

The commit is made in the loop's thread at the end of the turn; it takes microseconds. The sync is made in another one,
while the loop goes on; who comes meanwhile shares the next. To commit each at once and begin a sync with the first is
slower (30 us of the loop's time a write instead of 15): the two threads then take Python's lock from each other.

Where syncs take no longer than to hand them to that thread and back (a tenth of a millisecond on a good disk), the loop
does them itself, and what comes meanwhile waits in its sockets to be the next turn. One that takes long puts the thread
back to work.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

# On average; the latest sync counts for so much of it.
_QUICK_SECONDS: Final = 0.0005
_WEIGHT: Final = 0.1

Work = TypeVar("Work")
_Waiting = list[asyncio.Future[None]]


class GroupCommit(Generic[Work]):
    """Futures that are done when work is committed and on the disk.

    commit: does all of some work or nothing; what it or the sync raises is raised where the work is waited for.
    sync: has everything committed so far on the disk.

    Attributes
    ----------
    is_quick: whether the loop waits for syncs itself.
    """

    def __init__(self, commit: Callable[[Sequence[Work]], None], sync: Callable[[], None]) -> None:
        self._commit, self._sync = commit, sync
        self.is_quick = False
        self._seconds = 2 * _QUICK_SECONDS
        self._turn: list[tuple[Work, asyncio.Future[None]]] = []
        self._waiting: _Waiting = []
        self._running = False
        self._wake = SimpleQueue[bool]()
        self._thread: threading.Thread | None = None

    def add(self, work: Work) -> asyncio.Future[None]:
        """Commit it in this turn; done after the sync."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._turn:
            loop.call_soon(self._end_of_turn)
        self._turn.append((work, future))
        return future

    def sync(self) -> None:
        """Have everything committed so far on the disk, now."""
        begin = time.perf_counter()
        self._sync()
        self._seconds += _WEIGHT * (time.perf_counter() - begin - self._seconds)
        self.is_quick = self._seconds < _QUICK_SECONDS

    def _problem(self) -> Exception | None:
        """What came in the way of a sync."""
        try:
            self.sync()
        except Exception as error:
            return error
        return None

    def synced(self) -> asyncio.Future[None]:
        """Done when what is committed is on the disk."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wait([future])
        return future

    def _end_of_turn(self) -> None:
        turn, self._turn = self._turn, []
        self._wait(self._committed(turn))

    def _committed(self, turn: Sequence[tuple[Work, asyncio.Future[None]]]) -> _Waiting:
        """Commit all; each on its own if that fails, so that one that cannot be kept is nobody else's problem."""
        try:
            self._commit([work for work, _ in turn])
        except Exception as error:
            if len(turn) > 1:
                return [future for one in turn for future in self._committed([one])]
            _tell([future for _, future in turn], error)
            return []
        return [future for _, future in turn]

    def _wait(self, futures: _Waiting) -> None:
        if self.is_quick and not self._running:
            _tell(futures, self._problem())
            return
        self._waiting += futures
        if self._waiting and not self._running:
            self._running = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="sync", daemon=True)
                self._thread.start()
            self._wake.put(True)

    def _work(self) -> None:
        while self._wake.get():
            while self._waiting:
                # taken first, then synced: what it waits for was written before it was added
                group, self._waiting = self._waiting, []
                problem = self._problem()
                with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                    group[0].get_loop().call_soon_threadsafe(_tell, group, problem)
            self._running = False
            if self._waiting:  # added just before that, by somebody who did not wake the thread
                self._wake.put(True)

    def close(self) -> None:
        """Have what is committed synced, and end the thread."""
        if self._thread is not None:
            self._wake.put(False)
            self._thread.join()


def _tell(futures: _Waiting, problem: Exception | None) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(problem) if problem else future.set_result(None)

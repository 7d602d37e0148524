"""Group commit: what comes in one turn of the event loop is committed together, and all who wait share a sync.

The commit is made in the loop's thread at the end of the turn; it takes microseconds. The sync is made in another one,
while the loop goes on; who comes meanwhile shares the next. To commit each at once and begin a sync with the first is
slower (30 us of the loop's time a write instead of 15): the two threads then take Python's lock from each other.

Where syncs take no longer than the two threads take from each other (a tenth of a millisecond on a good disk, and a
third of the requests a second), the loop does them itself, and what comes meanwhile waits in its sockets to be the next
turn. Where most of the latest take long, the thread does, and the loop tries one itself again after a while: what the
thread sees of a sync's time holds its wait for Python's lock, which is longer than a good disk's sync.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from statistics import median_low
from typing import Final, Generic, TypeVar

# What most of the latest syncs take: a good disk has one of a tenth of a second now and then, which the loop has waited
# for already when it knows.
_QUICK_SECONDS: Final = 0.001
_LATEST: Final = 5
# Of a slow disk, times the latest sync that the loop has tried: it spends a twentieth of its time on that at most.
_BETWEEN_TRIES: Final = 20

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
        self._latest, self._next_try = deque[float](maxlen=_LATEST), 0.0
        self._turn: list[tuple[Work, asyncio.Future[None]]] = []
        self._waiting: _Waiting = []
        self._taking = threading.Lock()
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
        """Have everything committed so far on the disk, now, in the thread of the loop."""
        begin = time.perf_counter()
        try:
            self._sync()
        finally:
            now = time.perf_counter()
            latest = now - begin
            self._next_try = now + _BETWEEN_TRIES * latest
            if not self.is_quick:  # of a disk that was slow, the latest alone counts
                self._latest.clear()
            self._latest.append(latest)
            self.is_quick = median_low(self._latest) < _QUICK_SECONDS

    @property
    def _is_here(self) -> bool:
        """Whether the next sync is the loop's own."""
        return self.is_quick or time.perf_counter() >= self._next_try

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
        with self._taking:
            self._waiting += futures
        if self._waiting and not self._running:
            if self._is_here:
                self._sync_here()
                return
            self._running = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="sync", daemon=True)
                self._thread.start()
            self._wake.put(True)

    def _taken(self) -> _Waiting:
        """Those who wait, before a sync: what they wait for was written before they were added."""
        with self._taking:
            group, self._waiting = self._waiting, []
        return group

    def _sync_here(self) -> None:
        group = self._taken()
        _tell(group, _problem(self.sync))

    def _work(self) -> None:
        while self._wake.get():
            while self._waiting and not self._is_here:
                group = self._taken()
                problem = _problem(self._sync)
                with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                    group[0].get_loop().call_soon_threadsafe(_tell, group, problem)
            self._running = False
            if waiting := self._waiting:  # the loop's turn; or added just before that, by somebody who woke nobody
                with suppress(RuntimeError):
                    waiting[0].get_loop().call_soon_threadsafe(self._wait, [])

    def close(self) -> None:
        """Have what is committed synced, and end the thread."""
        if self._thread is not None:
            self._wake.put(False)
            self._thread.join()
        if self._waiting:  # the thread has left them to a loop that is over
            with suppress(RuntimeError):
                self._sync_here()


def _problem(sync: Callable[[], None]) -> Exception | None:
    """What came in the way of a sync."""
    try:
        sync()
    except Exception as error:
        return error
    return None


def _tell(futures: _Waiting, problem: Exception | None) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(problem) if problem else future.set_result(None)

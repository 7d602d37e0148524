"""Group commit's second half: one sync for everybody who waits, in a thread.

Who comes while a sync runs waits for the next one: what the running one covers is not known. The event loop goes on
meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from serving.stores import StoreError


class GroupSync:
    """Futures that are done when what was written before is on the disk.

    sync: has everything written so far on the disk, or raises StoreError.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._waiting: list[asyncio.Future[None]] = []
        self._running = self._ending = False
        self._wake = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def wait(self) -> asyncio.Future[None]:
        """Done after a sync that begins from now on."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        if not self._running:
            self._running = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="sync", daemon=True)
                self._thread.start()
            self._wake.release()
        return future

    def _work(self) -> None:
        while not self._ending:
            self._wake.acquire()
            while self._waiting:
                # taken first, then synced: what it waits for was written before it was added
                group, self._waiting = self._waiting, []
                problem = None
                try:
                    self._sync()
                except StoreError as error:
                    problem = error
                with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                    group[0].get_loop().call_soon_threadsafe(_tell, group, problem)
            self._running = False
            if self._waiting:  # added between the two lines above
                self._running = True
                self._wake.release()

    def close(self) -> None:
        """Have what waits synced, and end the thread."""
        if self._thread is not None:
            self._ending = True
            self._wake.release()
            self._thread.join()


def _tell(group: Sequence[asyncio.Future[None]], problem: StoreError | None) -> None:
    for future in group:
        if not future.done():
            future.set_exception(problem) if problem else future.set_result(None)

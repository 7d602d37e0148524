"""Group commit's second half: one sync for everybody who waits, in a thread.

Who comes while a sync runs waits for the next one: what the running one covers is not known. The event loop goes on
meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue


class GroupSync:
    """Futures that are done when what was written before is on the disk.

    sync: has everything written so far on the disk; what it raises is raised where somebody waits.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._waiting: list[asyncio.Future[None]] = []
        self._running = False
        self._wake = SimpleQueue[bool]()
        self._thread: threading.Thread | None = None

    def wait(self) -> asyncio.Future[None]:
        """Done after a sync that begins from now on."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if not self._running:
            self._running = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="sync", daemon=True)
                self._thread.start()
            self._wake.put(True)
        return future

    def _work(self) -> None:
        while self._wake.get():
            while self._waiting:
                # taken first, then synced: what it waits for was written before it was added
                group, self._waiting = self._waiting, []
                problem = None
                try:
                    self._sync()
                except Exception as error:
                    problem = error
                with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                    group[0].get_loop().call_soon_threadsafe(_tell, group, problem)
            self._running = False
            if self._waiting:  # added just before that, by somebody who did not wake the thread
                self._wake.put(True)

    def close(self) -> None:
        """Have what waits synced, and end the thread."""
        if self._thread is not None:
            self._wake.put(False)
            self._thread.join()


def _tell(group: Sequence[asyncio.Future[None]], problem: Exception | None) -> None:
    for future in group:
        if not future.done():
            future.set_exception(problem) if problem else future.set_result(None)

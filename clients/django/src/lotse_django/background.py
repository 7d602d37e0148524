"""An event loop in a thread of its own, for views that are synchronous and for those that are not.

A deadline over everything (names, connecting, each byte of an answer) can be kept by nobody who waits inside a socket's
call. Here a request runs in the loop, and who waits for it waits for a lock, which ends when it is told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")


class Background:
    """A running loop; a process that was forked from this one has to make another."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="lotse", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run it, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Any, *arguments: object) -> None:
        """Call a function in the loop."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def stop(self) -> None:
        """End the thread, when nothing runs any more."""
        self.call(self._loop.stop)
        self._thread.join(timeout=1)
        if not self._thread.is_alive():
            self._loop.close()

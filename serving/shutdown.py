"""An orderly end: told to stop, a worker first says so to load balancers and clients, and answers meanwhile."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


def drain_on(
    loop: asyncio.AbstractEventLoop, seconds: float, begin: Callable[[], None], *signals: signal.Signals
) -> None:
    """At a signal call `begin`, and the handler so far `seconds` later; at once if the signal comes again."""
    begun = False

    def chained(before: Any) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            nonlocal begun
            if begun or not callable(before):
                loop.call_soon_threadsafe(begin)
                if callable(before):
                    before(number, frame)
                return
            begun = True

            def first() -> None:
                begin()
                loop.call_later(seconds, before, number, None)

            loop.call_soon_threadsafe(first)

        return handle

    for number in signals:
        signal.signal(number, chained(signal.getsignal(number)))

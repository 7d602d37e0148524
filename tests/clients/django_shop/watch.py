"""Before everything else: how long a page took in this process, and what it knew, told to the test."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from threading import Thread
from typing import Any, Final

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

_TICK_SECONDS: Final = 0.005


class Lateness:
    """How late this process's threads, or its loop, are, for want of a processor: nothing in it could be faster."""

    def __init__(self) -> None:
        self._ticks: deque[tuple[float, float]] = deque(maxlen=4_000)

    def run(self) -> None:
        """Measure, in a thread."""
        while True:
            begin = time.perf_counter()
            time.sleep(_TICK_SECONDS)
            self._note(begin)

    async def run_async(self) -> None:
        """Measure, in the loop that answers pages."""
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(_TICK_SECONDS)
            self._note(begin)

    def _note(self, begin: float) -> None:
        now = time.perf_counter()
        self._ticks.append((now, now - begin - _TICK_SECONDS))

    def since(self, begin: float) -> float:
        """The seconds that were lost since then."""
        ticks = list(self._ticks)
        running = time.perf_counter() - ticks[-1][0] - _TICK_SECONDS if ticks else 0.0
        return sum(late for at, late in ticks if at >= begin) + max(running, 0.0)


@sync_and_async_middleware
def WatchMiddleware(get_response: Any) -> Any:  # noqa: N802  (Django's middleware are called so)
    lateness = Lateness()
    measured: list[Any] = []  # nothing before gunicorn has forked

    def noted(request: HttpRequest, response: HttpResponse, begin: float) -> HttpResponse:
        took_ms = (time.perf_counter() - begin) * 1000
        response["X-Late-Ms"] = f"{lateness.since(begin) * 1000:.3f}"
        response["X-Took-Ms"] = f"{took_ms:.3f}"
        if (lotse := getattr(request, "lotse", None)) is not None:
            known = {"reason": lotse.reason, "visitor": lotse.visitor, "scores": dict(lotse.scores)}
            known |= {"flags": dict(lotse.flags), "session": lotse.session, "consent": sorted(lotse.consent)}
            response["X-Known"] = json.dumps(known)
        return response

    if iscoroutinefunction(get_response):

        async def middleware_async(request: HttpRequest) -> HttpResponse:
            if not measured:
                measured.append(asyncio.create_task(lateness.run_async()))
            begin = time.perf_counter()
            return noted(request, await get_response(request), begin)

        return middleware_async

    def middleware(request: HttpRequest) -> HttpResponse:
        if not measured:
            measured.append(Thread(target=lateness.run, daemon=True))
            measured[0].start()
        begin = time.perf_counter()
        return noted(request, get_response(request), begin)

    return middleware

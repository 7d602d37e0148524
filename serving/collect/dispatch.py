"""From a tracker's request to its events and its own kind of answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from features.events import hash64
from serving.collect import Collected, Endpoint, Hit, Refused, Tools, trackers
from serving.collect.cors import TrackerCors
from serving.collect.visitors import Anonymous
from serving.consent import Consent
from serving.http.call import Call, Handler, Reply
from serving.requests import Request

if TYPE_CHECKING:
    from serving.engine import Engine
    from serving.http.events import Events

_PATHS: Final = 10_000
_NO_CONTENT: Final = 204

# What the application has to know of a path: label, rest of the path, handlers by method.
Route = tuple[str, str, dict[str, Handler]]


class Collector:
    """The trackers' endpoints of one service."""

    def __init__(self, events: Events, engine: Engine) -> None:
        settings = engine.settings
        self._events, self._engine, self._cors = events, engine, TrackerCors(settings.cors)
        consent = Consent(settings.privacy, settings.session.consent)
        anonymous = Anonymous(engine.of_day)
        self._trackers = trackers(
            settings.collect,
            lambda name: Tools(engine.shop, settings.collect.options.get(name, {}), consent, anonymous, engine.look_at),
        )
        self._routes: dict[int, Route | None] = {}

    def tracker(self, path: str) -> Route | None:
        """The route of a path, None if it is no tracker's.

        Paths come again and again, and who invents some does not fill the memory. They may tell a person, so they are
        remembered by their hashes.
        """
        number = hash64(path)
        if number not in self._routes:
            if len(self._routes) >= _PATHS:
                self._routes.clear()
            self._routes[number] = self._tracker(path)
        return self._routes[number]

    def _tracker(self, path: str) -> Route | None:
        for name, tracker in self._trackers.items():
            endpoint = tracker.endpoint(path)
            if endpoint is not None:

                async def handle(call: Call, name: str = name, endpoint: Endpoint = endpoint) -> Reply:
                    return await self._handle(call, name, endpoint)

                async def preflight(call: Call, endpoint: Endpoint = endpoint) -> Reply:
                    headers = self._cors.preflight(dict(call.scope["headers"]), endpoint.methods)
                    return Reply(b"text/plain", b"", _NO_CONTENT, headers, cors=True)

                return name, "", {"OPTIONS": preflight, **dict.fromkeys(endpoint.methods, handle)}
        return None

    async def _handle(self, call: Call, name: str, endpoint: Endpoint) -> Reply:
        hit = await self._hit(call)
        collected = Collected()
        try:
            collected = endpoint.read(hit)
            request = Request(b"")
            request.wires = collected.events
            if collected.events:
                await self._taken(request)
                call.admission.brought(len(request.events))
            collected.dropped += request.dropped
            answers = request.answer if isinstance(request.answer, list) else []
            reply = endpoint.answer(hit, collected, answers)
            if isinstance(reply, Awaitable):
                reply = await reply
        except Refused as refused:
            collected.dropped.append(refused.reason)
            reply = refused.reply
        for reason in collected.dropped:
            self._engine.metrics.dropped[name, reason] += 1
        return reply._replace(headers=(*reply.headers, *self._cors.headers(hit.headers)), cors=True)

    async def _hit(self, call: Call) -> Hit:
        scope = call.scope
        headers = dict(scope["headers"])
        return Hit(
            scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, await call.body(),
            time.time_ns() // 1_000_000, call.admission.address(scope, headers),
        )  # fmt: skip

    async def _taken(self, request: Request) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered() -> None:
            if future.cancelled():
                return
            if request.problem is not None:
                future.set_exception(request.problem)
            else:
                future.set_result(None)

        self._events.take(self._engine, request, answered)
        await future


def open_collector(events: Events, engine: Engine) -> Collector | None:
    """The collector of a service, None if it understands no tracker."""
    return Collector(events, engine) if engine.settings.collect.trackers else None

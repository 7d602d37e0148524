"""From a tracker's request to its events and its own kind of answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from serving.collect import Collected, Endpoint, Hit, Refused, Tools, trackers
from serving.collect.carts import Carts
from serving.collect.cors import TrackerCors
from serving.collect.visitors import Anonymous
from serving.http.bodies import Receive
from serving.http.call import Call, Handler, Reply
from serving.requests import Request

if TYPE_CHECKING:
    from serving.collect.forward import Forwarder
    from serving.engine import Engine
    from serving.http.events import Events
    from serving.keys import Keys

_PATHS: Final = 10_000
_NO_CONTENT: Final = 204

# What the application has to know of a path: label, rest of the path, handlers by method.
Route = tuple[str, str, dict[str, Handler]]


class Collector:
    """The trackers' endpoints of one service."""

    def __init__(self, events: Events, engine: Engine, keys: Keys) -> None:
        settings = engine.settings
        self._events, self._engine, self._cors = events, engine, TrackerCors(settings.cors)
        consent = self._consent = engine.consent
        anonymous = Anonymous(engine.of_day)
        timeout_ms = round(settings.session.timeout_minutes * 60_000)
        carts = Carts(engine.store, engine.outage.ask, engine.keys_of, engine.look_at, timeout_ms)

        def is_secret(text: str) -> bool:
            key = keys.find(text.encode())
            return key is not None and key.kind == "secret"

        def tools(name: str) -> Tools:
            options = settings.collect.options.get(name, {})
            sent_back = partial(engine.metrics.sent_back, name)
            return Tools(
                engine.shop, options, consent, anonymous, engine.look_at, carts, engine.end, engine.join, is_secret,
                sent_back,
            )  # fmt: skip

        self._trackers = trackers(settings.collect, tools)
        self._forwarders = _forwarders(engine)
        self._routes: dict[int, Route | None] = {}

    def tracker(self, path: str) -> Route | None:
        """The route of a path, None if it is no tracker's.

        Paths come again and again. They are remembered by a hash, because some hold a visitor's id (Tealium).
        """
        place = hash(path)
        try:
            return self._routes[place]
        except KeyError:
            if len(self._routes) >= _PATHS:  # who invents some does not fill the memory
                self._routes.clear()
            found = self._routes[place] = self._tracker(path)
            return found

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
        forwarder = self._forwarders.get(name)
        parts: list[bytes] = []
        encoded = forwarder is not None and b"content-encoding" in call.headers
        if encoded:
            call.receive = _noted(call.receive, parts)
        hit = await self._hit(call)
        reply: Reply | None = None
        try:
            found = endpoint.read(hit)
            collected = await found if isinstance(found, Awaitable) else found
        except Refused as refused:
            collected, reply = Collected(dropped=[refused.reason]), refused.reply
        try:
            if reply is None:
                reply = await self._answer(call, hit, collected, endpoint)
        finally:
            # behind the answer, so that it does not wait; and also where a fault of ours leaves the client without one
            if forwarder is not None and (hit.body or collected.events or collected.dropped):
                objected = self._consent.objects(hit.headers) or _objected(collected)
                forwarder.put(call.scope, hit, b"".join(parts) if encoded else hit.body, objected=objected)
        for reason in collected.dropped:
            self._engine.metrics.dropped[name, reason] += 1
        return reply._replace(headers=(*reply.headers, *self._cors.headers(hit.headers)), cors=True)

    async def _answer(self, call: Call, hit: Hit, collected: Collected, endpoint: Endpoint) -> Reply:
        """Fold what was read, and answer as the tracker's own server would."""
        request = Request(b"")
        request.wires = collected.events
        if collected.events:
            await self._events.taken(self._engine, request)
            call.admission.brought(len(request.events))
        collected.dropped += request.dropped
        answers = request.answer if isinstance(request.answer, list) else []
        try:
            reply = endpoint.answer(hit, collected, answers)
            return await reply if isinstance(reply, Awaitable) else reply
        except Refused as refused:
            collected.dropped.append(refused.reason)
            return refused.reply

    async def close(self, seconds: float) -> None:
        """Pass on to original collectors what waits for it, for so long."""
        await asyncio.gather(*(forwarder.close(seconds) for forwarder in self._forwarders.values()))

    async def _hit(self, call: Call) -> Hit:
        scope = call.scope
        headers = dict(scope["headers"])
        return Hit(
            scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, await call.body(),
            time.time_ns() // 1_000_000, call.admission.address(scope, headers),
        )  # fmt: skip


def _objected(collected: Collected) -> bool:
    """Whether a request tells that its visitor does not want to be measured."""
    told = [event.consent for event in collected.events]
    return collected.objected or (
        bool(told) and all(consent is not None and "measure" not in consent for consent in told)
    )


def _forwarders(engine: Engine) -> dict[str, Forwarder]:
    settings = engine.settings
    if not settings.collect.forward:
        return {}
    from serving.collect.forward import forwarders  # noqa: PLC0415  (its client is loaded where it is needed)

    return forwarders(settings.collect.forward, settings.forward, engine.metrics)


def _noted(receive: Receive, parts: list[bytes]) -> Receive:
    """Keeps the body's parts as they come, before they are decompressed."""

    async def noted() -> dict[str, Any]:
        message = await receive()
        parts.append(message.get("body", b""))
        return message

    return noted


def open_collector(events: Events, engine: Engine, keys: Keys) -> Collector | None:
    """The collector of a service, None if it understands no tracker."""
    return Collector(events, engine, keys) if engine.settings.collect.trackers else None

"""From a tracker's request to its events and its own kind of answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from serving.collect import TOO_MANY, Collected, Endpoint, Hit, Refused, Tools, trackers
from serving.collect.carts import Carts
from serving.collect.cors import TrackerCors
from serving.collect.visitors import Anonymous
from serving.http.bodies import Receive
from serving.http.call import Call, Handler, Reply, Scope
from serving.reading import TooManyError
from serving.requests import Request

if TYPE_CHECKING:
    from serving.collect.forward import Forwarder
    from serving.engine import Engine
    from serving.gate import Admission
    from serving.http.events import Events
    from serving.keys import Keys

_PATHS: Final = 10_000
_NO_CONTENT: Final = 204


class Tracked(NamedTuple):
    """A path of a tracker's. route: what the application has to know of it, a label, the rest of the path, handlers by
    method.
    """

    tracker: str
    endpoint: Endpoint
    route: tuple[str, str, dict[str, Handler]]


class Work:
    """A tracker's request on its way; body: as it came; replied: told the reply, or what kept us from one."""

    __slots__ = ("admission", "body", "collected", "endpoint", "hit", "replied", "request", "scope", "tracker")

    def __init__(
        self,
        tracked: Tracked,
        hit: Hit,
        scope: Scope,
        admission: Admission,
        replied: Callable[[Reply | Exception], None],
        body: bytes | None = None,
    ) -> None:
        self.tracker, self.endpoint, self.hit, self.scope = tracked.tracker, tracked.endpoint, hit, scope
        self.admission, self.replied, self.body = admission, replied, hit.body if body is None else body
        self.request, self.collected = Request(b""), Collected()


class Collector:
    """The trackers' endpoints of one service."""

    def __init__(self, events: Events, engine: Engine, keys: Keys) -> None:
        settings = engine.settings
        self._events, self._engine, self._cors = events, engine, TrackerCors(settings.cors)
        consent = self._consent = engine.consent
        anonymous = Anonymous(engine.of_day)
        timeout_ms = round(settings.session.timeout_minutes * 60_000)
        carts = Carts(engine.store, engine.outage.ask, engine.keys_of, engine.looks.look_at, timeout_ms)

        def is_secret(text: str) -> bool:
            key = keys.find(text.encode())
            return key is not None and key.kind == "secret"

        def tools(name: str) -> Tools:
            options = settings.collect.options.get(name, {})
            sent_back = partial(engine.metrics.sent_back, name)
            identifies = engine.outbound is not None and name in engine.outbound.trackers
            return Tools(
                engine.shop, options, consent, anonymous, engine.looks.look_at, carts, engine.end, engine.join,
                is_secret, sent_back, identifies,
            )  # fmt: skip

        self.trackers = trackers(settings.collect, tools)
        self._forwarders = _forwarders(engine)
        self._paths: dict[int, Tracked | None] = {}
        self._waiting: set[asyncio.Task[None]] = set()

    def tracked(self, path: str) -> Tracked | None:
        """Whose a path is, None if it is no tracker's.

        Paths come again and again. They are remembered by a hash, because some hold a visitor's id (Tealium).
        """
        place = hash(path)
        try:
            return self._paths[place]
        except KeyError:
            if len(self._paths) >= _PATHS:  # who invents some does not fill the memory
                self._paths.clear()
            found = self._paths[place] = self._tracked(path)
            return found

    def _tracked(self, path: str) -> Tracked | None:
        for name, tracker in self.trackers.items():
            endpoint = tracker.endpoint(path)
            if endpoint is not None:
                handlers: dict[str, Handler] = {"OPTIONS": partial(self._preflight, endpoint)}
                tracked = Tracked(name, endpoint, (name, "", handlers))
                handlers.update(dict.fromkeys(endpoint.methods, partial(self._handle, tracked)))
                return tracked
        return None

    def readable(self, reply: Reply, headers: Mapping[bytes, bytes]) -> Reply:
        """A reply that the tracker's page may read; headers: the request's."""
        return reply._replace(headers=(*reply.headers, *self._cors.headers(headers)), cors=True)

    async def _preflight(self, endpoint: Endpoint, call: Call) -> Reply:
        headers = self._cors.preflight(dict(call.scope["headers"]), endpoint.methods)
        return Reply(b"text/plain", b"", _NO_CONTENT, headers, cors=True)

    async def _handle(self, tracked: Tracked, call: Call) -> Reply:
        """The usual way: the body is waited for, then what came of it."""
        parts: list[bytes] = []
        encoded = tracked.tracker in self._forwarders and b"content-encoding" in call.headers
        if encoded:
            call.receive = _noted(call.receive, parts)
        body, scope = await call.body(), call.scope
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def replied(outcome: Reply | Exception) -> None:
            if future.done():  # nobody waits any more
                return
            if isinstance(outcome, Reply):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

        hit = hit_of(scope, dict(scope["headers"]), body, call.admission)
        self.take(Work(tracked, hit, scope, call.admission, replied, b"".join(parts) if encoded else None))
        return await future

    def take(self, work: Work) -> None:
        """Read a request, fold its events, and have it answered as the tracker's own server would.

        Without a task unless the adapter waits for something: see `serving.lane`.
        """
        try:
            found = work.endpoint.read(work.hit)
        except Exception as error:
            return self._end(work, error)
        return self._fold(work, found) if isinstance(found, Collected) else self._later(work, found, self._fold)

    def _fold(self, work: Work, collected: Collected) -> None:
        work.collected, work.request.wires = collected, collected.events
        if self._engine.outbound is not None:
            work.request.tracker, work.request.whos = work.tracker, collected.whos
        if collected.unlinked:
            work.request.unlinked = self._engine.lasting_keys(collected.unlinked)
        if collected.events or work.request.unlinked:
            self._events.take(self._engine, work.request, partial(self._answer, work))
        else:
            self._answer(work)

    def _answer(self, work: Work) -> None:
        request, collected, endpoint = work.request, work.collected, work.endpoint
        if isinstance(request.problem, TooManyError) and endpoint.too_many is not None:
            collected.dropped += [TOO_MANY] * len(collected.events)
            return self._end(work, endpoint.too_many(work.hit, collected))
        if request.problem is not None:
            return self._end(work, request.problem)
        work.admission.brought(len(request.events))
        collected.dropped += request.dropped
        try:
            answers = request.answer if isinstance(request.answer, list) else []
            found = endpoint.answer(work.hit, collected, answers)
        except Exception as error:
            return self._end(work, error)
        return self._end(work, found) if isinstance(found, Reply) else self._later(work, found, self._end)

    def _later(self, work: Work, found: Awaitable[Any], then: Callable[[Work, Any], None]) -> None:
        """Go on when something is known."""

        async def wait() -> None:
            try:
                result = await found
            except Exception as error:
                self._end(work, error)
            else:
                then(work, result)

        task = asyncio.ensure_future(wait())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def _end(self, work: Work, outcome: Reply | Exception) -> None:
        try:
            outcome = self._ended(work, outcome)
        except Exception as error:  # others wait behind it
            outcome = error
        work.replied(outcome)

    def _ended(self, work: Work, outcome: Reply | Exception) -> Reply | Exception:
        """Count, pass on, and have pages read the reply."""
        collected, hit = work.collected, work.hit
        if isinstance(outcome, Refused):
            collected.dropped.append(outcome.reason)
            outcome = outcome.reply
        forwarder = self._forwarders.get(work.tracker)
        # also where a fault of ours leaves the client without an answer
        if forwarder is not None and (hit.body or collected.events or collected.dropped):
            objected = self._consent.objects(hit.headers) or _objected(collected)
            forwarder.put(work.scope, hit, work.body, objected=objected)
        if not isinstance(outcome, Reply):
            return outcome
        for reason in collected.dropped:
            self._engine.metrics.dropped[work.tracker, reason] += 1
        return self.readable(outcome, hit.headers)

    async def close(self, seconds: float) -> None:
        """Pass on to original collectors what waits for it, for so long."""
        await asyncio.gather(*(forwarder.close(seconds) for forwarder in self._forwarders.values()))


def hit_of(scope: Scope, headers: dict[bytes, bytes], body: bytes, admission: Admission) -> Hit:
    """A request that has come, as adapters look at it; scope: ASGI's."""
    return Hit(
        scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, body,
        time.time_ns() // 1_000_000, admission.address(scope, headers),
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

"""The HTTP side: one bare ASGI application under BentoML; routing and request objects cost more than a score.

A request is looked at once: a single pass over its headers keeps those that concern us, a table finds what answers its
path and method, and each concern is a file in `serving.http`. There is no stack of middleware.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from serving.access import INSIGHT, guarded
from serving.bulk import ARROW, NDJSON, Bulk
from serving.collect.dispatch import Collector, Tracked, open_collector
from serving.console.live import LIVE, Live
from serving.console.shell import FILE, PAGE, Shell
from serving.explain import explain
from serving.gate import open_gate
from serving.http import experiments, growthbook, ofrep, ofrep_stream, pushes, visitors
from serving.http.bodies import Receive
from serving.http.call import Call, Handler, Reply, Scope, Send
from serving.http.cors import Cors
from serving.http.events import JSON, Events, encode
from serving.http.query import switch
from serving.http.request_ids import accepted, maker
from serving.insight import PATH as JOURNEYS
from serving.insight import Journeys
from serving.insight_models import PATH as MODELS
from serving.insight_models import Models
from serving.problems import CONTENT_TYPE, Problem
from serving.refresh import refresh
from serving.stores import StoreError
from serving.stream import Streams

if TYPE_CHECKING:
    from serving.engine import Engine
    from serving.gate import Gate
    from serving.logs import RequestLog
    from serving.telemetry import Tracing

logger = logging.getLogger("lotse.app")

_METRICS: Final = b"text/plain; version=0.0.4; charset=utf-8"
_SESSIONS: Final = "/v1/sessions/"
_TOKEN: Final = "/v1/sessions/{token}"
# Paths that end with something of the caller's.
_ENDING: Final = (ofrep.FLAG, ofrep_stream.STREAM, growthbook.EVAL, growthbook.FEATURES, pushes.VERSION, FILE)
_LABELS: Final = {route.partition("{")[0]: route for route in _ENDING}
_NOTHING: Final[Mapping[bytes, bytes]] = MappingProxyType({})
NO_CONTENT: Final = 204
_CACHE_CONTROL: Final = b"cache-control"
_NOT_KEPT: Final = (_CACHE_CONTROL, b"no-store")
# Request headers that concern more than one path. Others are looked for where they are needed.
_CONCERNS: Final = frozenset((b"content-encoding", b"dnt", b"idempotency-key", b"sec-gpc", b"x-request-id"))


class App:
    """Dispatches by path and method."""

    def __init__(self) -> None:
        self.streams = Streams()
        self.gate: Gate | None = None
        self.draining = False
        self.log: RequestLog | None = None
        self.tracing: Tracing | None = None
        self.collector: Collector | None = None
        self._engine: Engine | None = None
        self.cors: Cors | None = None
        self._concerns = _CONCERNS
        self.new_id = maker()
        self._bulk = Bulk()
        self.journeys = Journeys()
        self.models = Models()
        self.live, shell = Live(), Shell()
        self.streams.also.append(self.live.end)
        self.events = Events(self.streams)
        self.routes: dict[str, dict[str, Handler]] = {
            "/v1/events": {"POST": self.events.post},
            _TOKEN: {"GET": _session},
            f"{_TOKEN}/events": {"GET": self.streams.listen},
            "/v1/score": {"POST": self._score},
            "/v1/features": {"GET": _features},
            "/v1/models/refresh": {"POST": _refresh},
            JOURNEYS: {"GET": self.journeys.get},
            MODELS: {"GET": self.models.get},
            LIVE: {"GET": self.live.get},
            PAGE: {"GET": shell.page},
            FILE: {"GET": shell.file},
            "/v1/openapi.json": {"GET": _document},
            "/metrics": {"GET": _metrics},
            **{path: dict(methods) for path, methods in (visitors.ROUTES | pushes.ROUTES).items()},
            experiments.STATE: {"GET": experiments.state},
            ofrep.FLAGS: {"POST": ofrep.many},
            ofrep.FLAG: {"POST": ofrep.one},
            ofrep_stream.STREAM: {"GET": ofrep_stream.listening(self.streams)},
            growthbook.EVAL: {"POST": growthbook.evaluate},
            growthbook.FEATURES: {"GET": growthbook.features},
        }
        for path, methods in self.routes.items():
            if path.startswith(INSIGHT):
                methods.update({method: guarded(handler) for method, handler in methods.items()})
            if "GET" in methods:
                methods["HEAD"] = methods["GET"]

    @property
    def engine(self) -> Engine | None:
        """Set when the service starts; until then every request is answered with 503."""
        return self._engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        self._engine = engine
        self.gate = open_gate(engine.settings)
        if engine.settings.cors.origins:
            self.cors = Cors(engine.settings.cors)
            self._concerns = _CONCERNS | {b"origin"}
        self.collector = open_collector(self.events, engine, self.gate.keys)
        self.gate.collects = lambda path: self.tracked(path) is not None
        if engine.settings.server.noop:
            self.routes |= {path: {"POST": _noop} for path in ("/v1/noop", "/noop")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        concerns, headers = self._concerns, _NOTHING
        for name, value in scope["headers"]:
            if name in concerns:
                headers = {**headers, name: value}
        request_id = headers.get(b"x-request-id", b"") if headers else b""
        if not request_id or not accepted(request_id):
            request_id = self.new_id()
        reply = await self._answer(scope, receive, headers, request_id)
        out, body = self.headers(reply, request_id, headers.get(b"origin", b"")), reply.body
        if not isinstance(body, bytes):
            await _stream(out, body, reply.status, scope, receive, send)
            return
        await send({"type": "http.response.start", "status": reply.status, "headers": out})
        await send({"type": "http.response.body", "body": body})

    def headers(self, reply: Reply, request_id: bytes, origin: bytes) -> list[tuple[bytes, bytes]]:
        """Those of an answer."""
        content_type, body, status, more, cors = reply
        out = [(b"x-request-id", request_id), *more]
        if not more or more[0][0] != _CACHE_CONTROL:
            out.append(_NOT_KEPT)
        if status != NO_CONTENT:
            out.append((b"content-type", content_type))
            if isinstance(body, bytes):
                out.append((b"content-length", b"%d" % len(body)))
        if self.draining:
            out.append((b"connection", b"close"))
        if self.cors is not None and not cors:
            out += self.cors.headers(origin)
        return out

    async def _answer(self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes], request_id: bytes) -> Reply:
        """The answer to a request, counted; whatever is wrong is a problem."""
        path, method, engine = scope["path"], scope["method"], self._engine
        begin = time.perf_counter()
        label, rest, methods = path, "", self.routes.get(path)
        if methods is None:
            label, rest, methods = self._found(path)
        span = self.tracing.begin(label, scope) if self.tracing is not None else None
        try:
            if engine is None or self.gate is None:
                raise Problem(503, "the service is starting", retry_after_seconds=1)
            admission = self.gate.admit(scope)
            handler = methods.get(method)
            if handler is not None:
                reply = await handler(Call(engine, scope, receive, headers, rest, admission))
            else:
                reply = self._unhandled(methods, method, headers.get(b"origin", b""))
        except Exception as error:
            reply = self.failed(error, label, request_id, dict(scope["headers"]))
        if self.tracing is not None:
            self.tracing.end(span, reply.status)
        self.answered(label, method, reply.status, begin)
        return reply

    def failed(self, error: Exception, label: str, request_id: bytes, headers: Mapping[bytes, bytes]) -> Reply:
        """What a request is answered with instead; label: its path's, headers: its own, all of them."""
        if isinstance(error, Problem):
            problem = error
        elif isinstance(error, StoreError):
            assert self._engine is not None
            self._engine.metrics.store_errors[label] += 1
            logger.error("the store failed while answering %s", label, exc_info=error)
            problem = Problem(503, "the store does not answer", retry_after_seconds=1)
        else:
            # where it was and of what kind: its message may hold a value of the request
            place = "".join(traceback.format_tb(error.__traceback__))
            logger.error("an error of ours while answering %s: %s\n%s", label, type(error).__name__, place)
            problem = Problem(500, "an error of ours; the service's log tells more")
        # where it was raised, the request is; and who has the error may be there: that cycle would outlive the answer
        error.__traceback__ = error.__context__ = error.__cause__ = None
        reply = Reply(CONTENT_TYPE, problem.body(request_id), problem.status, tuple(problem.headers))
        if self.collector is not None and label in self.collector.trackers:
            # or the page would see an error of the network, and not when to try again
            return self.collector.readable(reply, headers)
        return reply

    def answered(self, label: str, method: str, status: int, begin: float) -> None:
        """Note that a request was answered which came at `begin`, of `time.perf_counter`."""
        if self._engine is not None:
            self._engine.metrics.requests[label, status] += 1
        if self.log is not None:
            self.log.note(label, method, status, time.perf_counter() - begin)

    def _found(self, path: str) -> tuple[str, str, dict[str, Handler]]:
        """Label, token and handlers of a path with a token in it; no handlers where nothing is."""
        if path.startswith(_SESSIONS):
            token, slash, tail = path[len(_SESSIONS) :].partition("/")
            label = f"{_TOKEN}{slash}{tail}"
            if label in self.routes:
                return label, token, self.routes[label]
        for prefix, route in _LABELS.items():
            if path.startswith(prefix):
                return route, path[len(prefix) :], self.routes[route]
        tracked = self.tracked(path)
        return ("other", "", {}) if tracked is None else tracked.route

    def tracked(self, path: str) -> Tracked | None:
        """Whose tracker's a path is, None if it is none's."""
        if self.collector is None or path in self.routes or path.startswith(_SESSIONS):
            return None
        return self.collector.tracked(path)

    def _unhandled(self, methods: Mapping[str, Handler], method: str, origin: bytes) -> Reply:
        """The answer to what is no request of a known method at a known path.

        Raises
        ------
        Problem
            404, 405.
        """
        if not methods:
            raise Problem(404, "unknown path; the API is described at /v1/openapi.json")
        allow = (b"allow", ", ".join((*methods, "OPTIONS")).encode())
        if method == "OPTIONS":
            preflight = self.cors.preflight(origin, allow[1]) if self.cors is not None else ()
            return Reply(b"text/plain", b"", NO_CONTENT, (allow, *preflight))
        raise Problem(405, f"{method[:16]} is not allowed here; use {next(iter(methods))}", headers=[allow])

    async def _score(self, call: Call) -> Reply:
        """Score feature vectors: some as JSON, many as NDJSON or Arrow."""
        call.query()
        kind = call.header(b"content-type").decode("latin-1").partition(";")[0].strip().lower()
        if kind in (NDJSON, ARROW):
            return await self._bulk.post(call, kind)
        engine, body = call.engine, await call.body()
        try:
            content = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(400, f"the body is not JSON: {error}") from None
        rows = content.get("rows") if isinstance(content, dict) else None
        scorer = engine.scorer
        # a thousand rows take long enough for an event to wait for
        scores = await asyncio.to_thread(engine.score_rows, rows)
        return Reply(JSON, encode({"scores": scores, "models": scorer.versions, "reasons": scorer.reasons}))


async def _session(call: Call) -> Reply:
    """A session as of now."""
    explained = switch(call.query("explain"), "explain")
    answer, view = await call.engine.looks.look(call.rest, explained=explained)
    if explained:
        most = call.engine.settings.server.explain_features
        answer.explanations = await asyncio.to_thread(explain, view.asked, most)
    return Reply(JSON, encode(answer))


async def _features(call: Call) -> Reply:
    return Reply(JSON, encode(call.engine.describe()))


async def _document(call: Call) -> Reply:
    from serving.openapi import document  # noqa: PLC0415  (asked for once in a while)

    return Reply(JSON, encode(document(call.engine)))


async def _refresh(call: Call) -> Reply:
    return Reply(JSON, refresh(call.engine.watcher.cache, call.scope["headers"], await call.body()))


async def _metrics(call: Call) -> Reply:
    await call.engine.upkeep.count()
    return Reply(_METRICS, call.engine.metrics.text())


async def _noop(call: Call) -> Reply:
    await call.body()
    return Reply(JSON, b'{"session":"","status":"noop"}')


async def _stream(
    headers: list[tuple[bytes, bytes]],
    parts: AsyncIterator[bytes],
    status: int,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Send parts as they come, until there are no more or nobody is there."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    gone = asyncio.ensure_future(_gone(receive))
    try:
        while scope["method"] != "HEAD":
            part = asyncio.ensure_future(anext(parts, None))
            await asyncio.wait((part, gone), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                part.cancel()
                await asyncio.gather(part, return_exceptions=True)
                return
            found = part.result()
            if found is None:
                break
            await send({"type": "http.response.body", "body": found, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()
        await parts.aclose()  # type: ignore[attr-defined]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

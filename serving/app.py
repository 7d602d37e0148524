"""The HTTP side: one bare ASGI application under BentoML; routing and request objects cost more than a score."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving.problems import CONTENT_TYPE, Problem
from serving.refresh import refresh
from serving.requests import Request

if TYPE_CHECKING:
    from serving.engine import Engine

logger = logging.getLogger("lotse.app")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON: Final = b"application/json"
_METRICS: Final = b"text/plain; version=0.0.4; charset=utf-8"
_SESSIONS: Final = "/v1/sessions/"
_METHODS: Final = {
    "/v1/events": "POST",
    "/v1/score": "POST",
    "/v1/models/refresh": "POST",
    "/v1/features": "GET",
    "/v1/openapi.json": "GET",
    "/metrics": "GET",
}


class App:
    """Dispatches by path. The engine is set when the service starts."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self._encode = msgspec.json.Encoder().encode
        self._waiting: list[tuple[Request, asyncio.Future[bytes]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or self.engine is None:
            return
        engine, path, method = self.engine, scope["path"], scope["method"]
        label = path if path in _METHODS else _SESSIONS if path.startswith(_SESSIONS) else "other"
        headers: list[tuple[bytes, bytes]] = []
        try:
            status, content_type, body = 200, *await self._answer(engine, path, method, scope, receive)
        except Problem as problem:
            status, content_type, body, headers = problem.status, CONTENT_TYPE, problem.body(), problem.headers
        except Exception:
            # the traceback names code only: no value of the request is logged
            logger.exception("an error of ours while answering %s", label)
            status, content_type = 500, CONTENT_TYPE
            body = b'{"type":"about:blank","title":"An error of ours","status":500}'
        engine.metrics.requests[label, status] += 1
        length = str(len(body)).encode()
        headers += [(b"content-type", content_type), (b"content-length", length), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, engine: Engine, path: str, method: str, scope: Scope, receive: Receive
    ) -> tuple[bytes, bytes]:
        if path == "/v1/events" and method == "POST":
            return _JSON, await self._taken(await self._body(engine, scope, receive))
        if path == "/v1/noop" and engine.settings.server.noop:
            await self._body(engine, scope, receive)
            return _JSON, b'{"session":"","status":"noop"}'
        allowed = "GET" if path.startswith(_SESSIONS) else _METHODS.get(path)
        if allowed is None:
            raise Problem(404, "unknown path; the API is described at /v1/openapi.json")
        if method != allowed:
            detail = f"{method[:16]} is not allowed here; use {allowed}"
            raise Problem(405, detail, headers=[(b"allow", allowed.encode())])
        if path.startswith(_SESSIONS):
            return _JSON, self._encode(await engine.look(path[len(_SESSIONS) :]))
        if path == "/v1/score":
            return _JSON, self._encode(self._score(engine, await self._body(engine, scope, receive)))
        if path == "/v1/models/refresh":
            return _JSON, refresh(engine.watcher.cache, scope["headers"], await self._body(engine, scope, receive))
        if path == "/metrics":
            await engine.count()
            return _METRICS, engine.metrics.text()
        if path == "/v1/openapi.json":
            from serving.openapi import document  # noqa: PLC0415  (asked for once in a while)

            return _JSON, self._encode(document(engine))
        return _JSON, self._encode(engine.describe())

    def _taken(self, body: bytes) -> asyncio.Future[bytes]:
        """The answer to come for a body of events.

        Requests that are ready at the same time are folded and scored one after the other at the end of the loop's
        turn: code and trees stay in the processor's caches, which under load halves what an event costs.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._take_waiting)
        self._waiting.append((Request(body), future))
        return future

    def _take_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        engine = self.engine
        assert engine is not None
        begin = time.perf_counter()
        later = engine.take([request for request, _ in waiting])
        if later is None:
            self._tell(engine, waiting, begin)
        else:
            task = asyncio.ensure_future(self._tell_later(engine, later, waiting, begin))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _tell_later(
        self, engine: Engine, later: Awaitable[None], waiting: list[tuple[Request, asyncio.Future[bytes]]], begin: float
    ) -> None:
        await later
        self._tell(engine, waiting, begin)

    def _tell(self, engine: Engine, waiting: list[tuple[Request, asyncio.Future[bytes]]], begin: float) -> None:
        took = time.perf_counter() - begin
        for request, future in waiting:
            engine.metrics.latency.add(took)
            if future.cancelled():
                continue
            if request.problem is not None:
                future.set_exception(request.problem)
            else:
                answer = request.answer
                future.set_result(self._encode({"results": answer} if isinstance(answer, list) else answer))

    def _score(self, engine: Engine, body: bytes) -> dict[str, Any]:
        try:
            content = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(400, f"the body is not JSON: {error}") from None
        rows = content.get("rows") if isinstance(content, dict) else None
        return {"scores": engine.score_rows(rows), "models": engine.scorer.versions, "reasons": engine.scorer.reasons}

    @staticmethod
    async def _body(engine: Engine, scope: Scope, receive: Receive) -> bytes:
        """The body, refused as soon as it is known to be too long."""
        limit = engine.settings.server.body_limit_bytes
        too_long = Problem(
            413, f"the body is longer than {limit:,} bytes; send less at once", headers=[(b"connection", b"close")]
        )
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > limit:
                raise too_long
            if name == b"content-encoding" and value != b"identity":
                raise Problem(415, "compressed bodies are not supported; send plain JSON")
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                # half an event is none; nobody reads this answer, but uvicorn waits for one before it can stop
                raise Problem(400, "the connection ended before the body did")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise too_long
            more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

"""The short way of events: a plain `POST /v1/events`, or a tracker's request, that came whole goes to the engine and
back by function calls.

What ASGI takes for a request (a task, an event, messages, a future) costs more than to fold and to score it. So a
request without an encoding, an idempotency key and the like that lies in the buffer with all of its body is handed over
right here; every other one goes the usual way, as does `/v1/events` with a query that is rarely sent. Both ways
meet in `App`, `Events` and `Collector`, and answer alike.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving.collect.dispatch import Work, hit_of
from serving.http.bodies import too_long
from serving.http.call import Reply
from serving.http.events import JSON, SCORES, Wanted, encoded, wanted_by
from serving.http.request_ids import accepted
from serving.problems import Problem
from serving.requests import Request

if TYPE_CHECKING:
    from serving.app import App
    from serving.collect.dispatch import Tracked
    from serving.connections import Connection
    from serving.gate import Admission

PATH: Final = "/v1/events"
URL: Final = PATH.encode()
# Whoever sends these wants something that the usual way knows.
_SPECIAL: Final = frozenset((b"content-encoding", b"expect", b"idempotency-key", b"transfer-encoding"))


class Whole:
    """A request that is to come whole, with what uvicorn's protocol and our watch look at of a request.

    Attributes
    ----------
    body, more_body: what came of it, and whether there is more; keep_alive: whether the connection lives on.
    disconnected, response_started, response_complete: as of uvicorn's cycles.
    """

    __slots__ = (
        "_admission", "_app", "_begin", "_connection", "_headers", "_label", "_request", "_request_id",
        "_span", "_tracked", "_wanted", "body", "disconnected", "keep_alive", "more_body", "response_complete",
        "response_started", "scope",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        headers: dict[bytes, bytes],
        app: App,
        tracked: Tracked | None = None,
        wanted: Wanted = SCORES,
    ) -> None:
        self._wanted = wanted
        self._connection, self._headers, self._app = connection, headers, app
        self._tracked, self._label = tracked, PATH if tracked is None else tracked.tracker
        self._admission: Admission | None = None
        self.scope: dict[str, Any] = connection.scope  # type: ignore[assignment]
        self.body = b""
        self.more_body = self.keep_alive = True
        self.disconnected = self.response_started = self.response_complete = False

    @property
    def message_event(self) -> Whole:
        """What uvicorn tells that something came."""
        return self

    def set(self) -> None:
        """Nobody waits for it."""

    def take(self) -> None:
        """All of it is here."""
        app, headers = self._app, self._headers
        self._begin = time.perf_counter()
        self._request = Request(self.body, scored=self._wanted.scored, flags=self._wanted.flags)
        given = headers.get(b"x-request-id", b"")
        self._request_id = given if given and accepted(given) else app.new_id()
        if app.tracing is not None:
            self._span = app.tracing.begin(self._label, self.scope)
        try:
            engine = app.engine
            if engine is None or app.gate is None:
                raise Problem(503, "the service is starting", retry_after_seconds=1)
            self._admission = app.gate.admit(self.scope, headers)
            if len(self.body) > engine.settings.server.body_limit_bytes:
                raise too_long(engine.settings.server.body_limit_bytes)
            if self._tracked is not None and app.collector is not None:
                hit = hit_of(self.scope, headers, self.body, self._admission)
                app.collector.take(Work(self._tracked, hit, self.scope, self._admission, self._replied))
                return
            self._request.objected = engine.consent.objects(headers)
            app.events.take(engine, self._request, self._answered)
        except Exception as error:
            self._replied(error)

    def _answered(self) -> None:
        request = self._request
        if request.many and self._admission is not None:
            self._admission.brought(len(request.events))
        self._replied(request.problem or Reply(JSON, encoded(request.answer)))

    def _replied(self, outcome: Reply | Exception) -> None:
        app, connection = self._app, self._connection
        # the connection has this until its next request, and no cycle is to hold the one that was answered
        del self._connection, self._request
        self.body = b""
        reply = outcome
        if not isinstance(reply, Reply):
            reply = app.failed(reply, self._label, self._request_id, self._headers)
        assert isinstance(reply.body, bytes)
        if app.tracing is not None:
            app.tracing.end(self._span, reply.status)
        app.answered(self._label, self.scope["method"], reply.status, self._begin)
        self.response_complete = True
        if self.disconnected:
            return
        headers = app.headers(reply, self._request_id, self._headers.get(b"origin", b""))
        closing = not self.keep_alive or (b"connection", b"close") in headers
        lines = [b"%b: %b\r\n" % header for header in (*connection.server_state.default_headers, *headers)]
        if not self.keep_alive and (b"connection", b"close") not in headers:
            lines.append(b"connection: close\r\n")
        connection.transport.write(b"".join((STATUS_LINE[reply.status], *lines, b"\r\n", reply.body)))
        if closing:
            connection.transport.close()
        connection.on_response_complete()


def whole(connection: Connection, app: App) -> Whole | None:
    """The request whose headers a connection has just read, if it may go the short way."""
    cycle = connection.cycle
    if (
        (cycle is not None and not cycle.response_complete)  # it waits behind another one
        or connection.flow.write_paused
        or connection.limit_concurrency is not None
    ):
        return None
    parser, scope = connection.parser, connection.scope
    headers = dict(connection.headers)
    if not (
        parser.get_http_version() == "1.1"
        and parser.should_keep_alive()
        and not parser.should_upgrade()
        and _SPECIAL.isdisjoint(headers)
    ):
        return None
    url, method = connection.url, parser.get_method().decode()
    raw_path, _, query = url.partition(b"?")
    if raw_path == URL and app.engine is not None:
        wanted = wanted_by(app.engine, query)
        if wanted is None or method != "POST":
            return None
        scope |= {"method": method, "path": PATH, "raw_path": URL, "query_string": query}
        return Whole(connection, headers, app, wanted=wanted)
    if not raw_path.startswith(b"/") or not raw_path.isascii() or b"%" in raw_path or b"#" in url:
        return None
    path = raw_path.decode()
    tracked = app.tracked(path)
    if tracked is None or method not in tracked.endpoint.methods:
        return None
    scope |= {"method": method, "path": path, "raw_path": raw_path, "query_string": query}
    return Whole(connection, headers, app, tracked)

"""Connections: how many there may be, and how long a client may take with what it began.

BentoML starts uvicorn itself and passes on no limit and no timeout but keep-alive's; uvicorn has none for headers,
bodies and slow readers. So its protocol is extended: nothing is added to a request, but every connection is looked at
once a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.lane import Whole, whole
from serving.problems import CONTENT_TYPE, Problem

if TYPE_CHECKING:
    from serving.accepting import Shares
    from serving.app import App
    from serving.settings import LimitSettings

logger = logging.getLogger("lotse.connections")

# Java's clients wish for HTTP/2 with their requests. Nobody has to grant that, but the parser would take the body for
# the other protocol. The text in its place is as long, so no length that was told is a wrong one, wherever it stood.
_WISH: Final = b"\r\nUpgrade: h2c\r\n"
_DECLINED: Final = b"\r\nX-Upgrade: h\r\n"


class Watch:
    """The connections of one worker.

    Attributes
    ----------
    connections: those that are open; cut, refused: how many were, because of slowness and of their number.
    shares: where other workers see how many there are.
    """

    def __init__(self, limits: LimitSettings, workers: int) -> None:
        self._limits, self._most = limits, max(1, limits.connections // workers)
        self.connections: set[Connection] = set()
        self.cut = self.refused = 0
        self.shares: Shares | None = None
        self._since: dict[Connection, tuple[object, float]] = {}

    def enter(self, connection: Connection) -> bool:
        """Note a new connection; False if there are too many."""
        if len(self.connections) >= self._most:
            self.refused += 1
            return False
        self.connections.add(connection)
        self._tell()
        return True

    def leave(self, connection: Connection) -> None:
        """Forget it."""
        self.connections.discard(connection)
        self._tell()

    def _tell(self) -> None:
        if self.shares is not None:
            self.shares.tell(len(self.connections))

    async def run(self, every_seconds: float = 1) -> None:
        """Look after the connections for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every_seconds)
            self.look(loop.time())
            if self.shares is not None:
                self.shares.look()

    def look(self, now: float) -> None:
        """Cut those whose client has been at the same thing for too long."""
        since: dict[Connection, tuple[object, float]] = {}
        for connection in list(self.connections):
            what, limit_seconds = self._waits_for(connection)
            if what is None:
                continue
            before, begun = self._since.get(connection, (None, now))
            if before is not what:
                begun = now
            since[connection] = (what, begun)
            if now - begun >= limit_seconds:
                self.cut += 1
                connection.cut()
        self._since = since

    def _waits_for(self, connection: Connection) -> tuple[object | None, float]:
        """What is to come from the client, and how long it may take; None if nothing is."""
        limits, cycle, scope = self._limits, connection.cycle, connection.scope
        if connection.flow.write_paused:
            return connection.flow, limits.read_seconds
        if connection.pipeline:
            return None, 0  # an earlier request is being answered
        if cycle is None:
            return scope or connection, limits.header_seconds
        if cycle.scope is scope and cycle.more_body:
            # even if it was refused before all of it came
            return cycle, limits.body_seconds + (
                0 if cycle.response_complete else _length(cycle) / limits.body_bytes_per_second
            )
        if cycle.scope is not scope and cycle.response_complete:
            return scope, limits.header_seconds
        return None, 0  # it is being answered, or idle: that is for uvicorn's keep-alive timeout


def _length(cycle: Any) -> int:
    """How long the body is said to be; 0 where that is not said."""
    length = dict(cycle.scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


class Connection(HttpToolsProtocol):
    """One connection; what the class has is set by `install`."""

    watch: Watch
    front: Callable[[Any], Any]
    ours: App | None
    cycle: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.app = self.front(self.app)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        if not self.watch.enter(self):
            problem = Problem(503, "too many connections; try again soon", headers=[(b"retry-after", b"1")])
            self._say(problem)

    def connection_lost(self, exc: Exception | None) -> None:
        """It went."""
        self.watch.leave(self)
        super().connection_lost(exc)
        # requests whose turn will not come hold the connection, and so themselves
        self.cycle = None
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Something came."""
        if _WISH in data:
            data = data.replace(_WISH, _DECLINED)
        super().data_received(data)
        begun = self.cycle
        if type(begun) is Whole and begun.more_body and not self.transport.is_closing():
            # the rest comes later: the usual way waits for it
            self.cycle = None
            super().on_headers_complete()
            self.cycle.body += begun.body
            self.cycle.message_event.set()

    def on_headers_complete(self) -> None:
        """A request begins."""
        begun = whole(self, self.ours) if self.ours is not None else None
        if begun is None:
            super().on_headers_complete()
        else:
            self.cycle = begun

    def on_message_complete(self) -> None:
        """All of its body is here."""
        super().on_message_complete()
        if type(self.cycle) is Whole and not self.cycle.response_complete:
            self.cycle.take()

    def shutdown(self) -> None:
        """The service stops: close what is idle. A client that does not answer a TLS farewell is not waited for."""
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(1, self.transport.abort)

    def cut(self) -> None:
        """End what takes too long: with an answer where none has begun."""
        cycle = self.cycle
        if self.flow.write_paused:
            self.transport.abort()  # what is buffered would never be read
        elif self.scope is None or (cycle is not None and cycle.scope is self.scope and cycle.response_started):
            self.transport.close()
        else:
            self._say(Problem(408, "the request did not come in time; send it again, faster"))

    def _say(self, problem: Problem) -> None:
        body = problem.body()
        head = [STATUS_LINE[problem.status], b"content-type: ", CONTENT_TYPE, b"\r\nconnection: close\r\n"]
        for name, value in problem.headers:
            head += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*head, b"content-length: %d\r\n\r\n" % len(body), body]))
        self.transport.close()


def install(watch: Watch, front: Callable[[Any], Any], ours: App | None = None) -> None:
    """Let uvicorn use this protocol.

    front: asked for the application to serve, given uvicorn's own; ours: takes events directly (`serving.lane`).
    """
    own: Any = type("Connection", (Connection,), {"watch": watch, "front": staticmethod(front), "ours": ours})
    uvicorn.config.HTTP_PROTOCOLS["auto"] = own  # a name or the class itself

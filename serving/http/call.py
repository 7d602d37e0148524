"""One request on its way through the handlers, and what it is answered with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from serving.http.bodies import Receive, read
from serving.http.query import parse

if TYPE_CHECKING:
    from serving.engine import Engine
    from serving.gate import Admission

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Reply(NamedTuple):
    """An answer: a whole body, or parts to come; cors: whether its headers say already which pages may read it."""

    content_type: bytes
    body: bytes | AsyncIterator[bytes]
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    cors: bool = False


class Call:
    """One request.

    Attributes
    ----------
    headers: by lower-case name those that came and concern more than one path; see `header` for others.
    rest: what of the path comes behind the route's, such as a session's token.
    admission: what the request was let in with, to be told how many events it brought.
    """

    __slots__ = ("admission", "engine", "headers", "receive", "rest", "scope")

    def __init__(
        self,
        engine: Engine,
        scope: Scope,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        rest: str,
        admission: Admission,
    ) -> None:
        self.admission = admission
        self.engine, self.scope, self.receive, self.headers, self.rest = engine, scope, receive, headers, rest

    async def body(self) -> bytes:
        """The whole body, decompressed.

        Raises
        ------
        Problem
            400, 413 or 415: it cannot be read, is too long, or is compressed in a way that we do not know.
        """
        return await read(self.receive, self.scope, self.headers, self.engine.settings.server.body_limit_bytes)

    def header(self, name: bytes) -> bytes:
        """The value of any request header, empty if it did not come."""
        return next((value for found, value in self.scope["headers"] if found == name), b"")

    def query(self, *known: str) -> dict[str, list[str]]:
        """The parameters of the query string, which must be among the known.

        Raises
        ------
        Problem
            422: there is another one.
        """
        return parse(self.scope["query_string"], known)


Handler = Callable[[Call], Awaitable[Reply]]

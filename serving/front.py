"""What stands in front of every request: ours go straight to our application, the rest through the gate to BentoML's.

BentoML's own routes (its clients' typed methods, health, documents) read whole bodies without a limit, so a body must
say how long it is. Ours need none of BentoML's layers, which cost more than a score.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from serving.problems import CONTENT_TYPE, Problem

if TYPE_CHECKING:
    from serving.app import App

_NO_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OURS: Final = ("/v1/", "/ofrep/", "/api/eval/", "/api/features/", "/console")
# What proxies say of a client's address: uvicorn remembers 4,096 of them, and BentoML needs none.
_FORWARDED: Final = b"x-forwarded-for"


class Front:
    """Dispatches between our application and BentoML's."""

    def __init__(self, ours: App, theirs: Callable[..., Awaitable[None]], body_limit_bytes: int) -> None:
        self._ours, self._theirs, self._limit = ours, theirs, body_limit_bytes

    def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        """One request, or the lifespan."""
        if scope["type"] == "http":
            path = scope["path"]
            return (
                self._ours(scope, receive, send)
                if path.startswith(_OURS) or path == "/metrics" or self._ours.tracked(path) is not None
                else self._guarded(scope, receive, send)
            )
        return self._theirs(scope, receive, send)

    async def _guarded(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            if self._ours.gate is not None:
                self._ours.gate.admit(scope)
            self._check_length(scope)
        except Problem as problem:
            body = problem.body()
            headers = [*problem.headers, (b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": problem.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        headers = [header for header in scope["headers"] if header[0] != _FORWARDED]
        await self._theirs({**scope, "headers": headers}, receive, send)

    def _check_length(self, scope: dict[str, Any]) -> None:
        if scope["method"] in _NO_BODY:
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        close = [(b"connection", b"close")]
        if not length.isdigit() or b"transfer-encoding" in headers:
            raise Problem(411, "say how long the body is (content-length)", headers=close)
        if int(length) > self._limit:
            raise Problem(413, f"the body is longer than {self._limit:,} bytes; send less at once", headers=close)

"""Errors as application/problem+json (RFC 9457): what was found, what is expected, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

CONTENT_TYPE: Final = b"application/problem+json"

_TITLES: Final = {
    400: "The request cannot be read",
    401: "The key or the session token is not ours",
    403: "The key does not open this",
    404: "There is nothing here",
    405: "The method is not allowed here",
    408: "The request took too long to come",
    411: "The length is missing",
    413: "The body is too large",
    415: "The content type is not supported",
    422: "The content breaks the contract",
    429: "Too many at once",
    503: "Not ready",
}


class Problem(Exception):  # noqa: N818  (the name of the standard)
    """A request that is refused; `extra` becomes members of the problem document."""

    def __init__(self, status: int, detail: str, *, headers: Sequence[tuple[bytes, bytes]] = (), **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = list(headers)
        self.document = {"type": "about:blank", "title": _TITLES[status], "status": status, "detail": detail, **extra}

    def body(self) -> bytes:
        """The document as JSON."""
        return msgspec.json.encode(self.document)

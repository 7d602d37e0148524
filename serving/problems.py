"""Errors as application/problem+json (RFC 9457): what was found, what is expected, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

CONTENT_TYPE: Final = b"application/problem+json"

TITLES: Final = {
    400: "The request cannot be read",
    401: "The key or the session token is not ours",
    403: "That is not allowed with this key",
    404: "There is nothing here",
    405: "The method is not allowed here",
    408: "The request took too long to come",
    409: "The same is being done already",
    411: "The length is missing",
    412: "It was changed meanwhile",
    413: "The body is too large",
    415: "The content type is not supported",
    422: "The content breaks the contract",
    429: "Too much at once",
    500: "An error of ours",
    503: "Not ready",
}


class Problem(Exception):  # noqa: N818  (the name of the standard)
    """A request that is refused; `extra` becomes members of the problem document.

    retry_after_seconds: when it is worth asking again, where that is so.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        retry_after_seconds: int | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = list(headers)
        if retry_after_seconds is not None:
            self.headers.append((b"retry-after", str(retry_after_seconds).encode()))
        self.document = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": detail, **extra}

    def body(self, request_id: bytes = b"") -> bytes:
        """The document as JSON, with the id of the request that it is about."""
        return msgspec.json.encode({**self.document, "request_id": request_id.decode()})

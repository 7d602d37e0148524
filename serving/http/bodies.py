"""Bodies as they come, chunk by chunk: decompressed, and refused as soon as they are known to be too long.

The limit is one of the decompressed size, and holds while it is decompressed: a bomb is never inflated in full.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Protocol

import brotli

from serving.problems import Problem

Receive = Callable[[], Awaitable[dict[str, Any]]]

ENCODINGS: Final = ("gzip", "br", "deflate")
# What is decompressed at once.
_PIECE: Final = 65_536


class _Decompressor(Protocol):
    """Compressed chunks in, pieces out, none longer than `_PIECE` or so."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What the chunk gives."""

    def ended(self) -> bool:
        """Whether the compressed data is whole."""


class _Zlib:
    """gzip, and deflate in both of the forms that clients send."""

    def __init__(self, encoding: str) -> None:
        # 47: with a header of gzip or of zlib
        self._inflate: Any = zlib.decompressobj(47)
        self._may_be_raw = encoding == "deflate"

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Pieces; several gzip members behind each other are one body."""
        piece = b""
        while chunk or len(piece) == _PIECE:  # a full piece may have left something inside
            if chunk and self._inflate.eof:
                self._inflate = zlib.decompressobj(31)
            try:
                piece = self._inflate.decompress(chunk, _PIECE)
            except zlib.error:
                if not self._may_be_raw:
                    raise
                # deflate without the header of zlib: against the standard, and common
                self._inflate = zlib.decompressobj(-15)
                piece = self._inflate.decompress(chunk, _PIECE)
            self._may_be_raw = False
            chunk = self._inflate.unconsumed_tail or self._inflate.unused_data
            yield piece

    def ended(self) -> bool:
        """Whether the last member is whole."""
        eof: bool = self._inflate.eof
        return eof


class _Brotli:
    def __init__(self) -> None:
        self._inflate = brotli.Decompressor()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Pieces."""
        piece = self._inflate.process(chunk, output_buffer_limit=_PIECE)
        while piece:
            yield piece
            if self._inflate.is_finished():
                return
            piece = self._inflate.process(b"", output_buffer_limit=_PIECE)

    def ended(self) -> bool:
        """Whether the stream is whole."""
        finished: bool = self._inflate.is_finished()
        return finished


async def read(receive: Receive, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """The whole body.

    Raises
    ------
    Problem
        As of `chunks`.
    """
    if b"content-encoding" not in headers:
        message = await receive()
        # nearly every body comes at once and plain
        if not message.get("more_body", False) and message["type"] == "http.request":
            body: bytes = message.get("body", b"")
            if len(body) > limit:
                raise too_long(limit)
            return body
        return b"".join([part async for part in _limited(_plain(receive, message), scope, limit)])
    return b"".join([part async for part in chunks(receive, scope, headers, limit)])


async def chunks(
    receive: Receive, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], limit: int
) -> AsyncIterator[bytes]:
    """The body in parts, decompressed.

    Raises
    ------
    Problem
        400: compressed data is damaged, or the client went away; 413: longer than `limit` bytes; 415: an encoding that
        we do not know.
    """
    encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    parts = _limited(_plain(receive, await receive()), scope, limit)
    if encoding not in ("", "identity"):
        parts = _limited(_decompressed(parts, encoding), {"headers": ()}, limit)
    async for part in parts:
        yield part


async def _plain(receive: Receive, message: dict[str, Any]) -> AsyncIterator[bytes]:
    """What comes, beginning with a message that came already."""
    while True:
        if message["type"] == "http.disconnect":
            # half an event is none; nobody reads this answer, but uvicorn waits for one before it can stop
            raise Problem(400, "the connection ended before the body did")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
        message = await receive()


async def _limited(parts: AsyncIterator[bytes], scope: Mapping[str, Any], limit: int) -> AsyncIterator[bytes]:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise too_long(limit)
    size = 0
    async for part in parts:
        size += len(part)
        if size > limit:
            raise too_long(limit)
        yield part


async def _decompressed(parts: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    if encoding not in ENCODINGS:
        raise Problem(
            415,
            f"bodies compressed by {encoding[:40]!r} are not read; send {', '.join(ENCODINGS)}, or plain",
            headers=[(b"accept-encoding", ", ".join(ENCODINGS).encode())],
        )
    inflate: _Decompressor = _Brotli() if encoding == "br" else _Zlib(encoding)
    try:
        async for part in parts:
            for piece in inflate.feed(part) if part else ():
                yield piece
    except (zlib.error, brotli.error):
        raise Problem(400, f"the body is not what its content-encoding says: {encoding}") from None
    if not inflate.ended():
        raise Problem(400, f"the body ends in the middle of its {encoding} data")


def too_long(limit: int) -> Problem:
    """What a body of more bytes is refused with."""
    return Problem(
        413, f"the body is longer than {limit:,} bytes; send less at once", headers=[(b"connection", b"close")]
    )

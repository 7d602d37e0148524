"""CORS: which pages of other origins may read our answers. An origin that is not listed gets no header of it."""

from __future__ import annotations

from typing import Final

from serving.settings import CorsSettings

Header = tuple[bytes, bytes]

# What a page may send along, and what it may read.
_REQUEST_HEADERS: Final = (
    b"authorization, content-encoding, content-type, idempotency-key, if-none-match, last-event-id, x-api-key, "
    b"x-request-id"
)
_EXPOSED: Final = b"etag, idempotency-replayed, retry-after, x-request-id"


class Cors:
    """The headers by origin, made once."""

    def __init__(self, settings: CorsSettings) -> None:
        self._any = "*" in settings.origins
        self._origins = frozenset(origin.encode() for origin in settings.origins)
        self._max_age = (b"access-control-max-age", str(settings.max_age_seconds).encode())
        # an answer depends on its origin, also where there is none
        self._stranger: list[Header] = [] if self._any else [(b"vary", b"origin")]
        self._listed = [*self._stranger, (b"access-control-expose-headers", _EXPOSED)]
        if settings.credentials:
            self._listed.append((b"access-control-allow-credentials", b"true"))

    def headers(self, origin: bytes) -> list[Header]:
        """For every answer; origin: empty where the request has none."""
        if self._any:
            return [(b"access-control-allow-origin", b"*"), *self._listed]
        if origin in self._origins:
            return [(b"access-control-allow-origin", origin), *self._listed]
        return self._stranger

    def preflight(self, origin: bytes, methods: bytes) -> list[Header]:
        """For the question that a browser asks before it sends what a page wants; methods: that are answered there."""
        if not self._any and origin not in self._origins:
            return []
        return [
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", _REQUEST_HEADERS),
            self._max_age,
        ]

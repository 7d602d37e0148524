"""CORS of trackers: their clients send credentials and read answers from any page of the shop's.

An answer to a tracker holds nothing that its client did not send or that is not its own (a pixel, an identity, its own
scores), so every origin may read it unless `cors.origins` lists which may.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from serving.settings import CorsSettings

Headers = tuple[tuple[bytes, bytes], ...]

_EXPOSED: Final = b"ETag, Retry-After, X-Region, X-Request-ID, x-plausible-dropped"
_ALLOWED: Final = b"authorization, content-type, if-none-match, sp-anonymous, x-api-key, x-retry-count"


class TrackerCors:
    """Headers by the request's."""

    def __init__(self, settings: CorsSettings) -> None:
        self._origins = frozenset(origin.encode() for origin in settings.origins)
        self._any = not settings.origins or "*" in settings.origins
        self._max_age = str(settings.max_age_seconds).encode()

    def headers(self, headers: Mapping[bytes, bytes]) -> Headers:
        """For every answer."""
        origin = headers.get(b"origin", b"")
        if not origin or not (self._any or origin in self._origins):
            return ((b"vary", b"origin"),)
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"origin"),
        )

    def preflight(self, headers: Mapping[bytes, bytes], methods: tuple[str, ...]) -> Headers:
        """For the question before the request; methods: that are answered there."""
        found = self.headers(headers)
        if len(found) == 1:
            return found
        return (
            *found,
            (b"access-control-allow-methods", ", ".join((*methods, "OPTIONS")).encode()),
            # what is asked for is listed back: clients bring headers of their own (Snowplow)
            (b"access-control-allow-headers", headers.get(b"access-control-request-headers", _ALLOWED)),
            (b"access-control-max-age", self._max_age),
        )

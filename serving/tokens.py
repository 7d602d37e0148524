"""Session tokens: signed, so that knowing or guessing an id gives access to nothing.

32 bytes, base64url: visitor pseudonym (8), start of the session (8), keyed BLAKE2b over both (16).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from binascii import b2a_base64
from collections.abc import Callable
from functools import lru_cache

_MAC_BYTES = 16
_BODY = struct.Struct("<qq")
_CHARACTERS = 43  # of 32 bytes, without the "=" at the end
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
# Sessions whose tokens a worker remembers: most events are not the first of their session.
_REMEMBERED = 50_000


class BadTokenError(ValueError):
    """A token that was not signed with our key."""


class Tokens:
    """Signs and opens session tokens.

    Attributes
    ----------
    sign: (visitor, started_at) to the token of that session; the latest are remembered, to sign takes ten times as
    long.

    >>> tokens = Tokens(b"k" * 32)
    >>> tokens.open(tokens.sign(5, 1_700_000_000_000))
    (5, 1700000000000)
    """

    def __init__(self, key: bytes) -> None:
        self._hash = hashlib.blake2b(digest_size=_MAC_BYTES, key=key[:64], person=b"lotse-token")
        self.sign: Callable[[int, int], str] = lru_cache(_REMEMBERED)(self._signed)

    def _signed(self, visitor: int, started_at: int) -> str:
        """The token of one session."""
        body = _BODY.pack(visitor, started_at)
        # base64.urlsafe_b64encode takes a microsecond more
        return b2a_base64(body + self._mac(body), newline=False)[:_CHARACTERS].translate(_URL_SAFE).decode()

    def open(self, token: str) -> tuple[int, int]:
        """(visitor, started_at) of a token.

        Raises
        ------
        BadTokenError
            The token is not ours.
        """
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise BadTokenError("not a token") from None
        body, mac = raw[:16], raw[16:]
        if len(raw) != 16 + _MAC_BYTES or not hmac.compare_digest(mac, self._mac(body)):
            raise BadTokenError("wrong signature")
        visitor, started_at = _BODY.unpack(body)
        return visitor, started_at

    def _mac(self, body: bytes) -> bytes:
        state = self._hash.copy()
        state.update(body)
        return state.digest()

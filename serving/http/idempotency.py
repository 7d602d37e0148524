"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a request that is sent again has its effect once.

A key is claimed in the store before its events are folded, with a digest of the request, and settled afterwards; so all
workers know it, and it survives them. A worker that died in between leaves a claim that others may take over after
`LEASE_MS`; that its events were folded is seen by the tokens of its writes, which are made from the key. What is kept
for a key is 144 bytes, not the answer: a replay is answered with the sessions as they are then.

A key's record lies beside those of the visitors and looks to the sweeper like one that was handed on, so every store
forgets it when it is due without knowing of keys.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from struct import Struct
from typing import Final

from features.sessions import HEADER_WORDS
from serving.problems import Problem
from serving.sessions import STATE_BYTES
from serving.stores import KEY_BYTES, Change, Entry, Value

LEASE_MS: Final = 10_000
# A visitor's record has a digest of fields, then the visitor, in the words where this has nothing and a digest.
_RECORD: Final = Struct("<qqq16sq")
_PADDING: Final = bytes(STATE_BYTES + 8 * HEADER_WORDS - _RECORD.size)
_SETTLED: Final = 0
# An item of structured fields is quoted; most clients leave the quotes out.
_KEY: Final = re.compile(r'"?([\x21\x23-\x7e]{1,255})"?')


class Claim:
    """Take a key for a request.

    Attributes
    ----------
    outcome: NEW, the events are to be folded; or how it stands with another request of the same key.
    """

    NEW: Final = "new"
    RUNNING: Final = "running"
    DONE: Final = "done"
    OTHER: Final = "other"

    def __init__(self, name: str, request: bytes, now_ms: int, kept_ms: int) -> None:
        self.key = _digest(name.encode(), KEY_BYTES)
        self.entry: Entry | None = None
        self.outcome = self.NEW
        self._digest = _digest(request, 16)
        self._now, self._due = now_ms, now_ms + kept_ms

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Write down the claim, if nobody has one."""
        del others
        self.outcome = self.NEW
        until = self._now + LEASE_MS
        if value is None:
            return Change(_pack(self._due, self._now, self._digest, until), self._due)
        state, received, _, digest, held_until = _RECORD.unpack_from(value)
        if self._now >= state >> 1:  # it is about to be swept
            return Change(_pack(self._due, self._now, self._digest, until), self._due)
        if digest != self._digest:
            self.outcome = self.OTHER
        elif held_until == _SETTLED:
            self.outcome = self.DONE
        elif held_until > self._now:
            self.outcome = self.RUNNING
        else:
            return Change(_pack(state >> 1, received, digest, until))
        return None


class Settlement:
    """The events of a claimed key are folded; or, if they are not, the key is free again."""

    def __init__(self, claim: Claim, *, folded: bool) -> None:
        self.key = claim.key
        self.entry: Entry | None = None
        self._folded = folded

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Note it at the claim."""
        del others
        if value is None:
            return None
        state, received, _, digest, _ = _RECORD.unpack_from(value)
        return Change(_pack(state >> 1, received, digest, _SETTLED) if self._folded else None)


def name_of(header: bytes) -> str:
    """The key that a header names.

    Raises
    ------
    Problem
        400: it is not one to 255 visible ASCII characters.

    >>> name_of(b'"8e03978e-40d5-43dd"'), name_of(b"8e03978e-40d5-43dd")
    ('8e03978e-40d5-43dd', '8e03978e-40d5-43dd')
    """
    found = _KEY.fullmatch(header.decode("latin-1"))
    if found is None:
        raise Problem(400, 'the Idempotency-Key must be 1 to 255 visible ASCII characters, such as "8e03978e-40d5"')
    return found[1]


def _pack(due_ms: int, received_ms: int, digest: bytes, until_ms: int) -> bytes:
    return _RECORD.pack(due_ms << 1 | 1, received_ms, 0, digest, until_ms) + _PADDING


def _digest(content: bytes, size: int) -> bytes:
    return hashlib.blake2b(content, digest_size=size, person=b"lotse-once").digest()

"""What a store keeps behind a visitor's record: tokens of the latest writes, and ids of events that came in batches.

A write is named by a token of 8 bytes where it may be tried again although it was done; the newest comes first. What a
store keeps at once and for certain is written without one, and most values end with the record.

The record itself remembers a few ids of events. Where more came together, as from trackers that collect events and send
them again until they are answered, their ids follow the places of all tokens, those that are not taken being zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

_WRITE_BYTES: Final = 8
# A write that failed is tried again by the worker that has its events; others may write so often in between.
WRITES: Final = 8
TOKENS_BYTES: Final = WRITES * _WRITE_BYTES
# As many as a request may hold by default.
BATCH_IDS: Final = 1_000
_ID: Final = Struct("<q")


def write_token(write: int, number: int) -> bytes:
    """The token of one visit out of those that are written together.

    >>> write_token(2**64 - 1, 1)
    b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'
    """
    return ((write + number) % 2**64).to_bytes(_WRITE_BYTES, "little")


def with_write(tail: bytes, token: bytes) -> bytes:
    """A tail after one more write; none is added for one without a token."""
    return (token + tail[:TOKENS_BYTES])[:TOKENS_BYTES] + tail[TOKENS_BYTES:]


def has_write(tail: bytes, token: bytes) -> bool:
    """Whether a write is one of these."""
    places = range(0, min(len(tail), TOKENS_BYTES), _WRITE_BYTES)
    return token in (tail[place : place + _WRITE_BYTES] for place in places)


def with_ids(tail: bytes, ids: Sequence[int]) -> bytes:
    """A tail after more events of a batch, the latest last; of all ids the latest are kept.

    >>> sorted(ids_of(with_ids(with_ids(b"", [1, 2]), [3])))
    [1, 2, 3]
    """
    packed = b"".join(_ID.pack(each) for each in reversed(ids))
    return tail[:TOKENS_BYTES].ljust(TOKENS_BYTES, b"\0") + (packed + tail[TOKENS_BYTES:])[: BATCH_IDS * _ID.size]


def has_ids(tail: bytes) -> bool:
    """Whether there are ids of events that came in batches."""
    return len(tail) > TOKENS_BYTES


def ids_of(tail: bytes) -> set[int]:
    """Ids of events that came in batches."""
    return {identity for (identity,) in _ID.iter_unpack(tail[TOKENS_BYTES:])}

"""What a value of the store is, and the visits that end one; events come by `serving.turn`.

A value of a store is a state of two words, the record, perhaps a row that was drawn (`serving.drawn`), what experiments
have assigned (of both the record's consent word tells), and perhaps a tail (`serving.tails`). The state: when it is to
be looked at and whether its session was handed on (`due_ms * 2 + handed_on`), and when its latest event arrived. A
session is over for good when nothing has arrived for a timeout: a queue of old events that is sent late is folded like
any other, and is not cut by the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

import numpy as np
from xxhash import xxh3_64_digest

from features.compiler import Fold
from features.events import CONSENT_LINK
from features.generate import layout_of
from features.sessions import (
    HEADER_CONSENT,
    HEADER_RECENT,
    HEADER_STARTED_AT,
    HEADER_VISITOR,
    HEADER_WORDS,
    RECENT_IDS,
)
from serving.drawn import DRAWN, HEAD_BYTES, Drawing
from serving.experiments.assignments import ASSIGNMENT_BYTES, Assignment, for_later, merged
from serving.stores import Change, Closed, Entry, Moved, Value
from serving.tails import TOKENS_BYTES, ids_of

STATE_BYTES: Final = 16
# Beside the bits of CONSENTS, in records only: the visitor objects to automated decisions, and how many assignments
# there are. Events tell nothing of either.
OBJECTS: Final = 8
_ASSIGNED_SHIFT: Final = 8
ASSIGNED: Final = 15 << _ASSIGNED_SHIFT
KEPT: Final = OBJECTS | ASSIGNED | DRAWN
STATE: Final = Struct("<qq")
_WORD: Final = Struct("<q")
_MOMENT: Final = Struct(">Q")
# An objection of a visitor who is not linked lasts as long as the day's pseudonym may be met again.
_OBJECTION_MS: Final = 48 * 3_600_000


class Sessions:
    """What a value looks like with one fold's records, and one buffer for looking at one.

    Attributes
    ----------
    value: state and record, bytes; record: uint8 (record_bytes,) and header: int64 (16,), views of it.
    empty: a value without events, and without writes.
    drawing: how a row of each session is drawn, None where none is kept; mark: DRAWN or 0, in every consent word.
    """

    def __init__(self, fold: Fold, timeout_ms: int, linked_ms: int, silences_ms: tuple[int, ...] | None = None) -> None:
        """silences_ms: the checkpoints of silence at which there are rows; None where no rows are kept."""
        self.fold, self.timeout_ms, self.linked_ms = fold, timeout_ms, linked_ms
        self.drawing = None if silences_ms is None else Drawing.of(fold, silences_ms, timeout_ms)
        self.mark = DRAWN if self.drawing else 0
        buffer = np.zeros(STATE_BYTES + fold.record_bytes, np.uint8)
        self.value = memoryview(buffer.data)
        self.record = buffer[STATE_BYTES:]
        self.header = self.record[: 8 * HEADER_WORDS].view(np.int64)
        empty = bytearray(bytes(STATE_BYTES) + fold.new_record().tobytes())
        _WORD.pack_into(empty, STATE_BYTES + 8 * HEADER_CONSENT, self.mark)
        self.empty = bytes(empty) + bytes(self.drawing.row_bytes if self.drawing else 0)
        self._digest = self.empty[STATE_BYTES : STATE_BYTES + 8]
        places = layout_of(fold.catalogue.fields.values()).places
        self._first_at = places["visitor_first_at"][1] if "visitor_first_at" in places else None
        self._history = [
            (STATE_BYTES + offset, STATE_BYTES + offset + np.dtype(dtype).itemsize)
            for name, (dtype, offset) in places.items()
            if name in history_of(fold)
        ]
        if self.drawing:
            # the same fields of the row that was drawn
            further = fold.record_bytes - 8 * HEADER_WORDS + HEAD_BYTES
            self._history += [(begin + further, end + further) for begin, end in self._history]

    def fits(self, value: Value) -> bool:
        """Whether a record was folded with these fields, and has a drawn row behind it or none, as here."""
        return (
            len(value) >= len(self.empty)
            and value[STATE_BYTES : STATE_BYTES + 8] == self._digest
            and word_of(value, HEADER_CONSENT) & DRAWN == self.mark
        )

    def unlinked(self, value: Value, visitor: int) -> bytes:
        """A value that fits, without assignments and what it knows of earlier visits, as another pseudonym's."""
        out = bytearray(value[: len(self.empty)])
        for begin, end in self._history:
            out[begin:end] = self.empty[begin:end]
        consent = word_of(value, HEADER_CONSENT) & ~CONSENT_LINK & ~ASSIGNED
        for place, word in ((HEADER_VISITOR, visitor), (HEADER_CONSENT, consent)):
            _WORD.pack_into(out, STATE_BYTES + 8 * place, word)
        if self.drawing:
            self.drawing.unlink(out)
        return bytes(out)

    def forgotten_ms(self, value: Value, received_ms: int) -> int:
        """When a linked visitor's record is to be forgotten: neither the latest visit nor the first is longer ago."""
        begin = received_ms
        if self._first_at is not None:
            (first_at,) = _WORD.unpack_from(value, STATE_BYTES + self._first_at)
            begin = min(first_at, begin) if first_at > 0 else begin
        return begin + self.linked_ms

    def assigned(self, value: Value) -> bytes:
        """What experiments have assigned to a value that fits."""
        return self.behind(value)[0]

    def with_assigned(self, value: Value, assigned: bytes) -> bytes:
        """A value that fits with other assignments."""
        out = bytearray(value[: len(self.empty)])
        consent = word_of(value, HEADER_CONSENT) & ~ASSIGNED
        consent |= len(assigned) // ASSIGNMENT_BYTES << _ASSIGNED_SHIFT
        _WORD.pack_into(out, STATE_BYTES + 8 * HEADER_CONSENT, consent)
        return bytes(out) + assigned + self.tail(value)

    def drawn(self, value: Value) -> bytes:
        """The row that was drawn of a value that fits, nothing where none is kept yet."""
        if self.drawing is None or not word_of(value, self.drawing.at - STATE_BYTES // 8):
            return b""
        return bytes(value[len(self.empty) - self.drawing.row_bytes : len(self.empty)])

    def tail(self, value: Value) -> bytes:
        """What follows the record in a value that fits."""
        return self.behind(value)[1]

    def behind(self, value: Value) -> tuple[bytes, bytes]:
        """What experiments have assigned to a value that fits, and its tail."""
        width = len(self.empty)
        at = width + ASSIGNMENT_BYTES * assignments_of(value)
        return bytes(value[width:at]), bytes(value[at:])

    def without_ids(self, value: Value) -> Value:
        """A value that fits without ids of batches, and without the row that was drawn: its session is over."""
        kept = value[: len(self.empty) + ASSIGNMENT_BYTES * assignments_of(value) + TOKENS_BYTES]
        if self.drawing is None:
            return kept
        size, width = self.drawing.row_bytes, len(self.empty)
        return bytes(kept[: width - size]) + bytes(size) + bytes(kept[width:])


class Expiry:
    """A record that is due to be looked at: its session may be over, its visitor forgotten."""

    __slots__ = ("_due_ms", "_now", "_sessions", "entry", "forgotten", "key")

    def __init__(self, sessions: Sequence[Sessions], entry: Entry, now_ms: int) -> None:
        """Begin one; sessions: of each fold that records may have been folded with, the newest first."""
        self.entry: Entry | None = entry
        self._due_ms, self.key = entry
        self.forgotten = False
        self._sessions, self._now = sessions, now_ms

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Close the session, forget the visitor, or look again later."""
        del others
        self.forgotten = False
        if value is None:
            return None
        state, received = STATE.unpack_from(value)
        if state >> 1 != self._due_ms:
            return None  # another entry of the schedule is the record's
        handed_on = state & 1
        # no fold may know it any more: then nothing can go on with it, and it only has to be handed on
        own = next((one for one in self._sessions if one.fits(value)), None)
        over_ms, closed = received + (own or self._sessions[0]).timeout_ms, []
        if not handed_on and self._now >= over_ms:
            handed_on, closed = 1, [Closed(name_of(self.key, value), bytes(value))]
            if own and (assigned := own.assigned(value)):
                value = own.with_assigned(value, for_later(assigned))
        due_ms = over_ms
        if handed_on:
            value = own.without_ids(value) if own else value
            consent = word_of(value, HEADER_CONSENT)
            due_ms = own.forgotten_ms(value, received) if own and consent & CONSENT_LINK else 0
            if own and consent & OBJECTS and self._now >= due_ms:
                value, due_ms = blank(own, self.key, consent), received + _OBJECTION_MS
            if self._now >= due_ms:
                self.forgotten = True
                return Change(None, None, None, closed)
        return Change(STATE.pack(due_ms << 1 | handed_on, received) + value[STATE.size :], due_ms, None, closed)


class Ending:
    """A session is over before its timeout, because its tracker says so."""

    __slots__ = ("_event", "_sessions", "entry", "key")

    def __init__(self, sessions: Sequence[Sessions], key: bytes, event: int) -> None:
        """Begin one; sessions: of each fold; event: of the session that follows, which is not to be ended itself."""
        self.key = key
        self.entry: Entry | None = None
        self._sessions, self._event = sessions, event

    def others(self) -> Sequence[bytes]:
        """None: each of the visitor's records is ended by itself."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Close the session; the visitor is forgotten when that is due."""
        del others
        own = None if value is None else next((one for one in self._sessions if one.fits(value)), None)
        if value is None or own is None or is_handed_on(value):
            return None
        recent = [word_of(value, HEADER_RECENT + place) for place in range(RECENT_IDS)]
        if self._event and (self._event in recent or self._event in ids_of(own.tail(value))):
            return None
        state, received = STATE.unpack_from(value)
        closed = [Closed(name_of(self.key, value), bytes(value))]
        return Change(STATE.pack(state | 1, received) + value[STATE.size :], None, None, closed)


class Joining:
    """A session goes on under another key, because its visitor has another id now."""

    __slots__ = ("_others", "_sessions", "entry", "key")

    def __init__(self, sessions: Sequence[Sessions], key: bytes, others: Sequence[bytes]) -> None:
        """Begin one; sessions: of each fold; others: keys under which the session may lie."""
        self.key = key
        self.entry: Entry | None = None
        self._sessions, self._others = sessions, others

    def others(self) -> Sequence[bytes]:
        """The keys under which the session may lie."""
        return self._others

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Take the session over, unless the visitor has one."""
        if value is not None:
            return None
        for key, other in others:
            if not is_handed_on(other) and any(one.fits(other) for one in self._sessions):
                found = bytes(other)
                return Change(found, STATE.unpack_from(found)[0] >> 1, Moved(key, found))
        return None


class Erasure:
    """Forget a record and its entry of the schedule without handing anything on."""

    __slots__ = ("entry", "found", "key")

    def __init__(self, key: bytes) -> None:
        self.key, self.found = key, False
        # as for what the schedule asks: a full store does not refuse it, and what lies there is not guessed
        self.entry: Entry | None = Entry(0, key)

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Nothing is left."""
        del others
        self.found = value is not None
        if value is None:
            self.entry = None  # nothing is written then
            return None
        self.entry = Entry(STATE.unpack_from(value)[0] >> 1, self.key)
        return Change(None)


class Assigning:
    """Note in a session's record what experiments have assigned to it; what was assigned before stays."""

    __slots__ = ("_sessions", "assigned", "consent", "entry", "key", "more", "started_at")

    def __init__(
        self, sessions: Sequence[Sessions], key: bytes, started_at: int, more: Sequence[Assignment], consent: int = 0
    ) -> None:
        """Begin one; sessions: of each fold; started_at: of the session, ms: no other one's is meant; consent: bits.

        Afterwards `assigned` holds what is assigned now, as it lies in the store; None if the session is over.
        """
        self.key = key
        self.entry: Entry | None = None
        self.assigned: bytes | None = None
        self._sessions, self.started_at, self.more, self.consent = sessions, started_at, more, consent

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Add what is new."""
        del others
        self.assigned = None
        if value is None or is_handed_on(value) or word_of(value, HEADER_STARTED_AT) != self.started_at:
            return None
        own = next((one for one in self._sessions if one.fits(value)), None)
        if own is None:
            return None
        before = own.assigned(value)
        self.assigned = merged(before, self.more)
        return None if self.assigned == before else Change(own.with_assigned(value, self.assigned))


class Objection:
    """Note in a record that its visitor objects to automated decisions, or no longer does."""

    __slots__ = ("_objects", "entry", "found", "key")

    def __init__(self, key: bytes, *, objects: bool) -> None:
        self.key, self._objects, self.found = key, objects, False
        self.entry: Entry | None = None

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Change the bit, and nothing else."""
        del others
        self.found = value is not None
        if value is None:
            return None
        consent = word_of(value, HEADER_CONSENT) & ~OBJECTS | (OBJECTS if self._objects else 0)
        out = bytearray(value)
        _WORD.pack_into(out, STATE_BYTES + 8 * HEADER_CONSENT, consent)
        return Change(bytes(out))


def blank(sessions: Sessions, key: bytes, consent: int) -> bytes:
    """A value that knows nothing but that its visitor objects to automated decisions, if they do."""
    out = bytearray(sessions.empty)
    for place, word in ((HEADER_VISITOR, visitor_of(key)), (HEADER_CONSENT, consent & OBJECTS | sessions.mark)):
        _WORD.pack_into(out, STATE_BYTES + 8 * place, word)
    return bytes(out)


def history_of(fold: Fold) -> frozenset[str]:
    """The fields that know of earlier visits: those that outlive a session, and those that read them.

    A field that reads them but outlives nothing (the time of the visit before) tells as much.
    """
    fields = fold.catalogue.fields
    found = {name for name, field in fields.items() if field.scope == "visitor"}
    while more := {
        name for name, field in fields.items() if name not in found and not found.isdisjoint(field.inputs.values())
    }:
        found |= more
    return frozenset(found)


def objects(value: Value) -> bool:
    """Whether the visitor of a record objects to automated decisions."""
    return bool(word_of(value, HEADER_CONSENT) & OBJECTS)


def key_of(visitor: int) -> bytes:
    """The key of a visitor's record."""
    return _WORD.pack(visitor)


def visitor_of(key: bytes) -> int:
    """The visitor whose record has this key."""
    return int.from_bytes(key, "little", signed=True)


def is_handed_on(value: Value) -> bool:
    """Whether the value's session is over and was handed on; what is left knows a linked visitor again."""
    return bool(value[0] & 1)


def name_of(key: bytes, value: Value) -> bytes:
    """The name of a value's session, unlike that of every other: key, start and a digest of the value, 24 bytes.

    Two sessions of a visitor may start at the same time: named ones, or by events whose times were clamped.
    """
    return key + _MOMENT.pack(word_of(value, HEADER_STARTED_AT)) + xxh3_64_digest(value)


def assignments_of(value: Value) -> int:
    """How many assignments a value has."""
    return (word_of(value, HEADER_CONSENT) & ASSIGNED) >> _ASSIGNED_SHIFT


def word_of(value: Value, place: int) -> int:
    word: int = _WORD.unpack_from(value, STATE_BYTES + 8 * place)[0]
    return word

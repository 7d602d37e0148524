"""Visits: what the service does with one visitor's record, whatever store it lies in.

A value of a store is a state of two words and the record: when it is to be looked at and whether its session was handed
on (`due_ms * 2 + handed_on`), and when its latest event arrived. A session is over for good when nothing has arrived
for a timeout: a queue of old events that is sent late is folded like any other, and is not cut by the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from features.compiler import Fold
from features.events import CONSENT_LINK, Event
from features.sessions import (
    HEADER_CONSENT,
    HEADER_EVENTS,
    HEADER_LAST_AT,
    HEADER_STARTED_AT,
    HEADER_WORDS,
    STARTED,
)
from serving.scorer import Reading, Scorer, Sheet
from serving.stores import Change, Closed, Entry, Moved, Value

if TYPE_CHECKING:
    from serving.lineup import Turn

STATE_BYTES: Final = 16
_STATE: Final = Struct("<qq")
_WORD: Final = Struct("<q")
_STARTED_TO_EVENTS: Final = Struct("<qqq")  # three neighbours of the header
_MOMENT: Final = Struct(">Q")


class Folded(NamedTuple):
    """What became of one event: start of its session (ms UTC), status of `features.sessions`, events so far."""

    started_at: int
    status: int
    events: int


class Sessions:
    """One buffer in which records are folded, one at a time.

    Attributes
    ----------
    value: state and record, bytes to be written; record: uint8 (record_bytes,) and header: int64 (16,), views of it.
    """

    def __init__(self, fold: Fold, timeout_ms: int, linked_ms: int) -> None:
        self.fold, self.timeout_ms, self.linked_ms = fold, timeout_ms, linked_ms
        buffer = np.zeros(STATE_BYTES + fold.record_bytes, np.uint8)
        self.value = memoryview(buffer.data)
        self.record = buffer[STATE_BYTES:]
        self.header = self.record[: 8 * HEADER_WORDS].view(np.int64)
        self._empty = bytes(STATE_BYTES) + fold.new_record().tobytes()
        self._digest = self._empty[STATE_BYTES : STATE_BYTES + 8]

    def fits(self, value: Value) -> bool:
        """Whether a record was folded with these fields."""
        return len(value) == len(self._empty) and value[STATE_BYTES : STATE_BYTES + 8] == self._digest

    def clear(self) -> None:
        """An empty record."""
        self.value[:] = self._empty


class EventVisit:
    """Events of one visitor, in the order in which they came.

    Attributes
    ----------
    events, readings: the events, and for each where the features right after it go; places: of them on their sheet.
    scorer, sheet: who scores the visitor, and where; turn: who says where it is folded, where there is a choice.
    folded: what became of each; retired: records of other fields that were put away.
    """

    __slots__ = (
        "_received",
        "_sessions",
        "entry",
        "events",
        "folded",
        "key",
        "others",
        "places",
        "readings",
        "retired",
        "scorer",
        "sheet",
        "turn",
    )

    def __init__(self, sessions: Sessions, key: bytes, others: Callable[[], Sequence[bytes]], received_ms: int) -> None:
        self.key, self.others = key, others
        self.entry: Entry | None = None
        self.events: list[Event] = []
        self.readings: list[Sequence[Reading]] = []
        self.places: list[int] = []
        self.folded: list[Folded] = []
        self.retired = 0
        self.scorer: Scorer
        self.sheet: Sheet
        self.turn: Turn | None = None
        self._sessions, self._received = sessions, received_ms

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change:
        """Fold every event."""
        if self.turn is not None:
            records = [] if value is None else [value]
            self._sessions = self.turn.home(self, [*records, *(other for _, other in others)])
        sessions, folded = self._sessions, []
        buffer, header, record = sessions.value, sessions.header, sessions.record
        closed: list[Closed] = []
        moved = self._load(value, others, closed)
        state, _ = _STATE.unpack_from(buffer)
        due_ms, handed_on = state >> 1, state & 1
        advance, read, timeout_ms = sessions.fold.advance, sessions.fold.read, sessions.timeout_ms
        for event, readings in zip(self.events, self.readings, strict=True):
            if handed_on and event.time - header[HEADER_LAST_AT] <= timeout_ms:
                # it was on its way for a timeout: what is handed on does not go on
                header[HEADER_LAST_AT] = event.time - timeout_ms - 1
            before = bytes(buffer) if header[HEADER_EVENTS] and not handed_on else None
            tables, row = readings[0]
            status = advance(record, row, timeout_ms, tables, *event)
            for tables, row in readings[1:]:
                read(record, int(header[HEADER_LAST_AT]), row, tables)
            if status == STARTED:
                if before:
                    closed.append(Closed(name_of(self.key, before), before))
                handed_on = 0
            started_at, _, count = _STARTED_TO_EVENTS.unpack_from(buffer, STATE_BYTES + 8 * HEADER_STARTED_AT)
            folded.append(Folded(started_at, status, count))
        self.folded = folded
        # a linked visitor's record may be due in a year only
        over_ms = self._received + timeout_ms
        scheduled = 0 < due_ms <= over_ms
        due_ms = due_ms if scheduled else over_ms
        _STATE.pack_into(buffer, 0, due_ms << 1 | handed_on, self._received)
        return Change(buffer, None if scheduled else due_ms, moved, closed)

    def _load(self, value: Value | None, others: Sequence[tuple[bytes, Value]], closed: list[Closed]) -> Moved | None:
        """Bring the visitor's record into the buffer, or an empty one; returns the key that it was moved from."""
        sessions = self._sessions
        self.retired = 0
        if value is not None:
            if sessions.fits(value):
                sessions.value[:] = value
                return None
            self.retired = 1
            if not is_handed_on(value):
                closed.append(Closed(name_of(self.key, value), bytes(value)))
        for key, other in others:
            if sessions.fits(other) and not is_handed_on(other):
                sessions.value[:] = other
                if self.events[0].time - sessions.header[HEADER_LAST_AT] <= sessions.timeout_ms:
                    # the open session goes on under today's pseudonym
                    state, _ = _STATE.unpack_from(other)
                    left = _STATE.pack(state, self._received) + other[_STATE.size :]
                    _STATE.pack_into(sessions.value, 0, 0, self._received)
                    return Moved(key, left)
        sessions.clear()
        return None


class Expiry:
    """A record that is due to be looked at: its session may be over, its visitor forgotten."""

    __slots__ = ("_due_ms", "_now", "_sessions", "entry", "forgotten", "key")

    def __init__(self, sessions: Sessions, entry: Entry, now_ms: int) -> None:
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
        state, received = _STATE.unpack_from(value)
        if state >> 1 != self._due_ms:
            return None  # another entry of the schedule is the record's
        handed_on = state & 1
        over_ms, closed = received + self._sessions.timeout_ms, []
        if not handed_on and self._now >= over_ms:
            handed_on, closed = 1, [Closed(name_of(self.key, value), bytes(value))]
        due_ms = over_ms
        if handed_on:
            linked = word_of(value, HEADER_CONSENT) & CONSENT_LINK and self._sessions.fits(value)
            due_ms = received + self._sessions.linked_ms if linked else 0
            if self._now >= due_ms:
                self.forgotten = True
                return Change(None, None, None, closed)
        return Change(_STATE.pack(due_ms << 1 | handed_on, received) + value[_STATE.size :], due_ms, None, closed)


class Erasure:
    """Forget a record without handing anything on."""

    __slots__ = ("entry", "found", "key")

    def __init__(self, key: bytes) -> None:
        self.key, self.found = key, False
        self.entry: Entry | None = None

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Nothing is left."""
        del others
        self.found = value is not None
        return Change(None) if self.found else None


def key_of(visitor: int) -> bytes:
    """The key of a visitor's record."""
    return visitor.to_bytes(8, "little", signed=True)


def is_handed_on(value: Value) -> bool:
    """Whether the value's session is over and was handed on; what is left knows a linked visitor again."""
    return bool(value[0] & 1)


def name_of(key: bytes, value: Value) -> bytes:
    """The name of a value's session, unlike that of every other: key and start, 16 bytes."""
    return key + _MOMENT.pack(word_of(value, HEADER_STARTED_AT))


def word_of(value: Value, place: int) -> int:
    """A word of the header of a value's record, see `features.sessions`."""
    word: int = _WORD.unpack_from(value, STATE_BYTES + 8 * place)[0]
    return word

"""A turn: the events that came at the same time, folded into their visitors' records together.

Events of one visitor are a visit. The store brings the visits' records in, one call of compiled code folds every event
in the order of its coming and describes the session right after it, and the store takes the records back. What most
visits need is done for all of them at once; a record of other fields, or under another key, is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

import numpy as np
from numba import njit

from features.events import COLUMNS, CONSENT_LINK, Event
from features.sessions import HEADER_DIGEST, HEADER_LAST_AT
from serving.scorer import Sheet
from serving.sessions import STATE, STATE_BYTES, Sessions, is_handed_on, name_of
from serving.stores import Change, Closed, Entry, Found, Moved, Value

_EVENT: Final = Struct("<" + "".join("d" if column.dtype.startswith("f") else "q" for column in COLUMNS.values()))
_TIME: Final = list(COLUMNS).index("time")
_WORD: Final = Struct("<q")
_LAST_AT: Final = STATE_BYTES + 8 * HEADER_LAST_AT
_DIGEST: Final = STATE_BYTES // 8 + HEADER_DIGEST
_NOT_CLOSED: Final[list[Closed]] = []

# The keys under which a visitor (raw id, may visits be linked) may have an open session that began under another one.
Earlier = Callable[[str, bool], Sequence[bytes]]


class EventVisit:
    """Events of one visitor, in the order in which they came.

    Attributes
    ----------
    number: of the visit in its turn; events: places of its events there.
    """

    __slots__ = ("_earlier", "_linked", "_raw", "entry", "events", "key", "number")
    entry: Entry | None

    def __init__(self, number: int, key: bytes, raw: str, linked: bool, earlier: Earlier) -> None:
        self.number, self.key, self.entry = number, key, None
        self.events: list[int] = []
        self._raw, self._linked, self._earlier = raw, linked, earlier

    def others(self) -> Sequence[bytes]:
        """Keys of the visitor before midnight, and before consent."""
        return self._earlier(self._raw, self._linked)

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Events are advanced by their turn."""
        raise NotImplementedError("hand Turn.advance to the store")


class _Memory:
    """Arrays for some events and as many visits; kept from turn to turn."""

    def __init__(self, sessions: Sessions, size: int) -> None:
        value_bytes = len(sessions.empty)
        self.packed = bytearray(size * _EVENT.size)
        self.events = np.frombuffer(self.packed, np.int64).reshape(size, -1)
        self.numbers = np.frombuffer(self.packed, np.float64).reshape(size, -1)
        self.records = np.zeros((size, value_bytes), np.uint8)
        self.words = self.records.view(np.int64)
        self.values = memoryview(self.records.reshape(-1).data)
        self.before = np.empty((size, value_bytes), np.uint8)
        self.closed, self.ended = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        self.due = np.zeros(size, np.int64)
        self.statuses, self.starts, self.counts = (np.zeros(size, np.int64) for _ in range(3))
        self.all = np.arange(size)


class Turn:
    """One turn; used again for others once everything was answered.

    Attributes
    ----------
    sessions: what its records look like; size: most events it can take; visits: of this turn, by visitor.
    statuses, starts, counts: of each event what became of it, when its session began (ms), its number there.
    retired: records of other fields that were put away.
    """

    def __init__(self, sessions: Sessions, size: int, earlier: Earlier) -> None:
        self.size = size
        self.visits: dict[int, EventVisit] = {}
        self.statuses: list[int] = []
        self.starts: list[int] = []
        self.counts: list[int] = []
        self.retired = 0
        self.sessions, self._memory, self._earlier = sessions, _Memory(sessions, size), earlier
        self._of: list[int] = []
        self._sheet: Sheet | None = None
        self._received = 0

    def __len__(self) -> int:
        return len(self._of)

    def begin(self, sheet: Sheet | None, received_ms: int) -> None:
        """Forget the turn before; sheet: where the sessions are described, None if nobody asks."""
        self.visits.clear()
        self._of.clear()
        self._sheet, self._received, self.retired = sheet, received_ms, 0

    def add(self, events: Sequence[Event], raws: Sequence[str]) -> None:
        """Take more events; raws: the ids of their visitors as the tracker gave them."""
        visits, of, packed = self.visits, self._of, self._memory.packed
        for event, raw in zip(events, raws, strict=True):
            visitor = event.visitor
            visit = visits.get(visitor)
            if visit is None:
                key = visitor.to_bytes(8, "little", signed=True)
                linked = event.consent & CONSENT_LINK != 0
                visit = visits[visitor] = EventVisit(len(visits), key, raw, linked, self._earlier)
            place = len(of)
            _EVENT.pack_into(packed, place * _EVENT.size, *event)
            of.append(visit.number)
            visit.events.append(place)

    def advance(self, found: Sequence[Found]) -> list[Change | None]:
        """Fold the events of some visits; asked again for those whose records were changed meanwhile."""
        sessions, memory = self.sessions, self._memory
        values, empty = memory.values, sessions.empty
        width = len(empty)
        self.retired = 0
        odd: list[Found] = []
        numbers = memory.all[: len(self.visits)]
        which = memory.all[: len(self._of)]
        if len(found) < len(self.visits):
            numbers = np.array([visit.number for visit, _, _ in found])  # type: ignore[attr-defined]
            which = np.array(sorted(place for visit, _, _ in found for place in visit.events))  # type: ignore[attr-defined]
        for one in found:
            visit, value, others = one
            at = visit.number * width  # type: ignore[attr-defined]
            if value is not None and len(value) == width:
                values[at : at + width] = value
            else:
                values[at : at + width] = empty
                if value is not None or others:
                    odd.append(one)
        if _opened(memory.words, numbers, sessions.fold.field_digest, memory.due, memory.closed):
            odd += [one for one in found if one.value is not None and not sessions.fits(one.value) and one not in odd]
        special = {one.visit.number: self._special(one) for one in odd}  # type: ignore[attr-defined]
        sheet = self._sheet
        assert sheet is not None
        sessions.fold.advance_many(
            which, np.array(self._of), memory.events, memory.numbers, memory.records, STATE_BYTES, memory.closed,
            sessions.timeout_ms, sheet.tables, sheet.tables_at, sheet.rows,
            memory.statuses, memory.starts, memory.counts, memory.before, memory.ended,
        )  # fmt: skip
        over_ms = self._received + sessions.timeout_ms
        ended = _finished(
            memory.words, numbers, which, self._received, over_ms, memory.due, memory.closed, memory.ended
        )
        due = memory.due[: len(self.visits)].tolist()
        changes: list[Change | None] = []
        for visit, _, _ in found:
            number = visit.number  # type: ignore[attr-defined]
            moved, closed = special[number] if special and number in special else (None, _NOT_CLOSED)
            if ended:
                closed = closed + self._ended(visit)  # type: ignore[arg-type]
            at = number * width
            changes.append(Change(values[at : at + width], due[number] or None, moved, closed))
        return changes

    def _special(self, found: Found) -> tuple[Moved | None, list[Closed]]:
        """Look at a record of other fields, which is put away, and at those under other keys: one may go on."""
        sessions, memory = self.sessions, self._memory
        visit, value, others = found
        assert isinstance(visit, EventVisit)
        closed: list[Closed] = []
        width = len(sessions.empty)
        at = visit.number * width
        memory.values[at : at + width] = sessions.empty
        memory.due[visit.number], memory.closed[visit.number] = 0, False
        if value is not None:
            self.retired += 1
            if not is_handed_on(value):
                closed.append(Closed(name_of(visit.key, value), bytes(value)))
        for key, other in others:
            if sessions.fits(other) and not is_handed_on(other):
                first = memory.events[visit.events[0], _TIME]
                if first - _WORD.unpack_from(other, _LAST_AT)[0] <= sessions.timeout_ms:
                    # the open session goes on under today's pseudonym
                    state, _ = STATE.unpack_from(other)
                    memory.values[at : at + width] = other
                    return Moved(key, STATE.pack(state, self._received) + other[STATE_BYTES:]), closed
        return None, closed

    def _ended(self, visit: EventVisit) -> list[Closed]:
        """The sessions that the visit's events ended."""
        memory = self._memory
        found = [memory.before[place].tobytes() for place in visit.events if memory.ended[place]]
        return [Closed(name_of(visit.key, before), before) for before in found]

    def score(self) -> Sheet:
        """Score every event, and have what became of it ready; returns the sheet with the scores."""
        count, memory, sheet = len(self._of), self._memory, self._sheet
        assert sheet is not None
        sheet.score(count)
        self.statuses = memory.statuses[:count].tolist()
        self.starts = memory.starts[:count].tolist()
        self.counts = memory.counts[:count].tolist()
        return sheet


@njit(cache=True)
def _opened(
    words: np.ndarray, numbers: np.ndarray, digest: int, due: np.ndarray, closed: np.ndarray
) -> int:  # pragma: no cover
    """Take the state of some values apart; returns how many were folded with other fields."""
    others = 0
    for number in numbers:
        due[number] = words[number, 0] >> 1
        closed[number] = words[number, 0] & 1
        others += words[number, _DIGEST] != digest
    return others


@njit(cache=True)
def _finished(
    words: np.ndarray,
    numbers: np.ndarray,
    which: np.ndarray,
    received: int,
    over_ms: int,
    due: np.ndarray,
    closed: np.ndarray,
    ended: np.ndarray,
) -> bool:  # pragma: no cover
    """Put the states of some values together; leaves in `due` when each is to be looked at, 0 if that is scheduled
    already, and returns whether any session ended."""
    for number in numbers:
        # a linked visitor's record may be due in a year only
        scheduled = 0 < due[number] <= over_ms
        if not scheduled:
            due[number] = over_ms
        words[number, 0] = due[number] << 1 | closed[number]
        words[number, 1] = received
        if scheduled:
            due[number] = 0
    return bool(ended[which].any())

"""A turn: the events that came at the same time, folded into their visitors' records together.

Events of one visitor are a visit. The store brings the visits' records in, one call of compiled code folds every event
in the order of its coming and describes the session right after it, and the store takes the records back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

import numpy as np

from features.events import COLUMNS, Event
from features.sessions import HEADER_LAST_AT
from serving.scorer import Scores, Sheet
from serving.sessions import STATE, STATE_BYTES, Sessions, is_handed_on, name_of
from serving.stores import Change, Closed, Entry, Found, Moved, Value

_EVENT: Final = Struct("<" + "".join("d" if column.dtype.startswith("f") else "q" for column in COLUMNS.values()))
_WORD: Final = Struct("<q")
_LAST_AT: Final = STATE_BYTES + 8 * HEADER_LAST_AT


class EventVisit:
    """Events of one visitor, in the order in which they came.

    Attributes
    ----------
    number: of the visit in its turn; events: places of its events there, visitor: whose they are.
    retired: records of other fields that were put away.
    """

    __slots__ = ("closed", "due_ms", "entry", "events", "key", "moved", "number", "others", "retired", "visitor")

    def __init__(self, number: int, visitor: int, key: bytes, others: Callable[[], Sequence[bytes]]) -> None:
        self.number, self.visitor, self.key, self.others = number, visitor, key, others
        self.entry: Entry | None = None
        self.events: list[int] = []
        self.retired = 0
        self.due_ms = 0
        self.moved: Moved | None = None
        self.closed: list[Closed] = []

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Events are advanced by their turn."""
        raise NotImplementedError("hand `Turn.advance` to the store")


class _Memory:
    """Arrays for some events and as many visits; kept from turn to turn."""

    def __init__(self, sessions: Sessions, size: int) -> None:
        value_bytes = len(sessions.empty)
        self.size = size
        self.packed = bytearray(size * _EVENT.size)
        self.events = np.frombuffer(self.packed, np.int64).reshape(size, -1)
        self.numbers = np.frombuffer(self.packed, np.float64).reshape(size, -1)
        self.records = np.zeros((size, value_bytes), np.uint8)
        self.before = np.empty((size, value_bytes), np.uint8)
        self.values = memoryview(self.records.reshape(-1).data)
        self.closed = np.zeros(size, np.bool_)
        self.ended = np.zeros(size, np.bool_)
        self.statuses, self.starts, self.counts = (np.zeros(size, np.int64) for _ in range(3))
        self.all = np.arange(size)


class Turn:
    """One turn; used again for others once everything was answered.

    Attributes
    ----------
    visits: of this turn, by visitor; statuses, starts, counts: of each event what became of it, when its session began
    (ms), its number there.
    """

    def __init__(self, sessions: Sessions, size: int) -> None:
        self._sessions, self._memory = sessions, _Memory(sessions, size)
        self.visits: dict[int, EventVisit] = {}
        self._of: list[int] = []
        self._sheet: Sheet | None = None
        self._received = 0
        self.statuses: list[int] = []
        self.starts: list[int] = []
        self.counts: list[int] = []

    @property
    def size(self) -> int:
        """Most events it can take."""
        return self._memory.size

    def __len__(self) -> int:
        return len(self._of)

    def begin(self, sheet: Sheet, received_ms: int) -> None:
        """Forget the turn before; sheet: where the sessions are described."""
        self.visits.clear()
        self._of.clear()
        self._sheet, self._received = sheet, received_ms

    def add(self, event: Event, others: Callable[[], Sequence[bytes]]) -> EventVisit:
        """Take one more event; others: keys under which its visitor may have been known, should it be unknown."""
        visitor = event.visitor
        visit = self.visits.get(visitor)
        if visit is None:
            key = visitor.to_bytes(8, "little", signed=True)
            visit = self.visits[visitor] = EventVisit(len(self.visits), visitor, key, others)
        place = len(self._of)
        _EVENT.pack_into(self._memory.packed, place * _EVENT.size, *event)
        self._of.append(visit.number)
        visit.events.append(place)
        return visit

    def advance(self, found: Sequence[Found]) -> list[Change | None]:
        """Fold the events of some visits; asked again for those whose records were changed meanwhile."""
        sessions, memory, sheet = self._sessions, self._memory, self._sheet
        assert sheet is not None
        for visit, value, others in found:
            assert isinstance(visit, EventVisit)
            self._load(visit, value, others)
        which = memory.all[: len(self._of)]
        if len(found) < len(self.visits):
            which = np.array(sorted(place for one in found for place in one.visit.events))  # type: ignore[attr-defined]
        sessions.fold.advance_many(
            which, np.array(self._of), memory.events, memory.numbers, memory.records, STATE_BYTES, memory.closed,
            sessions.timeout_ms, sheet.tables, sheet.tables_at, sheet.rows,
            memory.statuses, memory.starts, memory.counts, memory.before, memory.ended,
        )  # fmt: skip
        ended = memory.ended[which].any()
        return [self._change(one.visit, ended) for one in found]  # type: ignore[arg-type]

    def _load(self, visit: EventVisit, value: Value | None, others: Sequence[tuple[bytes, Value]]) -> None:
        """Bring the visitor's record into its place, or an empty one."""
        sessions, memory = self._sessions, self._memory
        width = len(sessions.empty)
        at = visit.number * width
        visit.retired, visit.due_ms, visit.moved = 0, 0, None
        if visit.closed:
            visit.closed = []
        if value is not None:
            if sessions.fits(value):
                memory.values[at : at + width] = value
                state = _WORD.unpack_from(value)[0]
                visit.due_ms, memory.closed[visit.number] = state >> 1, state & 1
                return
            visit.retired = 1
            if not is_handed_on(value):
                visit.closed.append(Closed(name_of(visit.key, value), bytes(value)))
        memory.closed[visit.number] = False
        for key, other in others:
            if sessions.fits(other) and not is_handed_on(other):
                first = memory.events[visit.events[0], _TIME]
                if first - _WORD.unpack_from(other, _LAST_AT)[0] <= sessions.timeout_ms:
                    # the open session goes on under today's pseudonym
                    state, _ = STATE.unpack_from(other)
                    visit.moved = Moved(key, STATE.pack(state, self._received) + other[STATE_BYTES:])
                    memory.values[at : at + width] = other
                    return
        memory.values[at : at + width] = sessions.empty

    def _change(self, visit: EventVisit, ended: bool) -> Change:
        memory, sessions = self._memory, self._sessions
        if ended:
            for place in visit.events:
                if memory.ended[place]:
                    before = memory.before[place].tobytes()
                    visit.closed.append(Closed(name_of(visit.key, before), before))
        # a linked visitor's record may be due in a year only
        over_ms = self._received + sessions.timeout_ms
        scheduled = 0 < visit.due_ms <= over_ms
        due_ms = visit.due_ms if scheduled else over_ms
        width = len(sessions.empty)
        at = visit.number * width
        STATE.pack_into(memory.values, at, due_ms << 1 | int(memory.closed[visit.number]), self._received)
        return Change(memory.values[at : at + width], None if scheduled else due_ms, visit.moved, visit.closed)

    def end(self) -> Sheet:
        """Let go of the sheet and of what the visits know."""
        sheet, self._sheet = self._sheet, None
        assert sheet is not None
        self.visits.clear()
        return sheet

    def score(self) -> None:
        """Score every event, and have what became of it ready."""
        count, memory = len(self._of), self._memory
        assert self._sheet is not None
        self._sheet.score(count)
        self.statuses = memory.statuses[:count].tolist()
        self.starts = memory.starts[:count].tolist()
        self.counts = memory.counts[:count].tolist()

    def scores(self, place: int) -> Scores:
        """What is said of the session right after an event."""
        assert self._sheet is not None
        return self._sheet.scores(place)


_TIME: Final = list(COLUMNS).index("time")

"""A group: visits that one fold folds and one scorer scores, together.

The store brings the visits' records in, one call of compiled code folds every event in the order of its coming and
describes the session right after it, and the store takes the records back. What most visits need is done for all of
them at once; a record of other fields, or under another key, is looked at by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from features.events import COLUMNS, CONSENT_LINK, Event
from features.sessions import (
    DUPLICATE,
    HEADER_CONSENT,
    HEADER_DUPLICATES,
    HEADER_EVENTS,
    HEADER_LAST_AT,
    HEADER_STARTED_AT,
    HEADER_VISITOR,
    RECENT_IDS,
    STARTED,
)
from serving.experiments.assignments import for_later, of_session_only
from serving.memory import EVENT, EVENT_CONSENT, Memories
from serving.scorer import Scorer, Sheet
from serving.sessions import (
    KEPT,
    OBJECTS,
    STATE,
    STATE_BYTES,
    Sessions,
    is_handed_on,
    name_of,
    visitor_of,
    word_of,
)
from serving.stores import Change, Closed, Entry, Found, Moved, Value
from serving.tails import has_ids, has_write, ids_of, with_ids, with_write

TIME: Final = list(COLUMNS).index("time")
_ID: Final = list(COLUMNS).index("id")
_VISITOR: Final = STATE_BYTES // 8 + HEADER_VISITOR
_NOT_CLOSED: Final[list[Closed]] = []
_pack, _EVENT_BYTES = EVENT.pack_into, EVENT.size
_new: Final = tuple.__new__  # half of what a NamedTuple's own takes

# The keys under which a visitor (raw id, may visits be linked, now in ms) may have a session that began under another.
Earlier = Callable[[str, bool, int], Sequence[bytes]]


class EventVisit:
    """Events of one visitor, in the order in which they came.

    Attributes
    ----------
    group: where they are folded; number: of the visit there; events: places of its events there.
    token: of the write that folds them, by which the record knows that it was done; b"" where it cannot be in doubt.
    homes: number and events in groups that it was in before.
    assigned: what experiments have assigned to its session, as it lies in the store.
    """

    __slots__ = ("_earlier", "assigned", "entry", "events", "group", "homes", "key", "number", "token")
    entry: Entry | None

    def __init__(self, group: Group, key: bytes, earlier: tuple[Earlier, str, bool, int], token: bytes) -> None:
        self.group, self.number, self.key, self.token, self.entry = group, group.visits, key, token, None
        self.events: list[int] = []
        self.assigned = b""
        self.homes: dict[Group, tuple[int, list[int]]] | None = None
        self._earlier = earlier
        group.visits += 1

    def others(self) -> Sequence[bytes]:
        """Keys of the visitor before midnight, before consent was given, and before it was withdrawn."""
        earlier, raw, linked, now_ms = self._earlier
        return earlier(raw, linked, now_ms)

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """Events are advanced by their turn."""
        raise NotImplementedError("hand Turn.advance to the store")


class Group:
    """Visits of one turn.

    Attributes
    ----------
    visits: how many; of: the number of each event's visit; partial: whether some went to another group.
    statuses, starts, counts: of each event what became of it, when its session began (ms), its number there.
    retired: records of other fields that were put away.
    withdrawn: lasting pseudonyms of visitors who took back their consent to link; doubtful: visits without that consent
    that began a session in a record that was there, so that nobody looked for a lasting one.
    objecting: by number, which visits are of visitors who object to automated decisions; empty if none is.
    """

    def __init__(self, sessions: Sessions, memories: Memories, scorer: Scorer, events: int, received_ms: int) -> None:
        self.sessions, self.scorer = sessions, scorer
        self.visits, self.retired, self.partial = 0, 0, False
        self.of: list[int] = []
        self.withdrawn: list[int] = []
        self.doubtful: list[EventVisit] = []
        self.objecting: list[int] = []
        self.statuses: list[int] = []
        self.starts: list[int] = []
        self.counts: list[int] = []
        self.memory = memories.take(events)
        self.memory.objects[:] = 0  # of visits that were done before, nobody looks at the record
        self._memories, self._received, self._packed = memories, received_ms, self.memory.packed
        self._unscheduled: list[EventVisit] = []
        # by visit, where its value does not end with the record
        self._assigned: dict[EventVisit, bytes] = {}
        self._tails: dict[object, bytes] = {}
        self.sheet: Sheet = scorer.sheet(events)

    def add(self, visit: EventVisit, event: Event) -> None:
        """One more event of a visit."""
        of = self.of
        place = len(of)
        _pack(self._packed, place * _EVENT_BYTES, *event)
        of.append(visit.number)
        visit.events.append(place)

    def move_in(self, visit: EventVisit) -> None:
        """Take a visit over from another group."""
        left, places = visit.group, visit.events
        homes = visit.homes = visit.homes or {}
        homes[left] = visit.number, places
        left.partial = True
        visit.group = self
        if self in homes:
            visit.number, visit.events = homes[self]
            return
        visit.number, visit.events = self.visits, []
        self.visits += 1
        for place in places:
            at, to = place * EVENT.size, len(self.of) * EVENT.size
            self.memory.packed[to : to + EVENT.size] = left.memory.packed[at : at + EVENT.size]
            visit.events.append(len(self.of))
            self.of.append(visit.number)

    def advance(self, found: Sequence[Found]) -> list[Change | None]:
        """Fold the events of some visits; asked again for those whose records were changed meanwhile."""
        sessions, memory, sheet = self.sessions, self.memory, self.sheet
        values, width = memory.values, len(sessions.empty)
        odd, done = self._taken_in(found)
        numbers, which = memory.all[: self.visits], memory.all[: len(self.of)]
        some = self.partial or done or len(found) < self.visits
        if some:
            numbers = np.array([one.visit.number for one in found if one.visit not in done], np.int64)  # type: ignore[attr-defined]
        if memory.open(numbers, sessions.fold.field_digest):
            odd += [one for one in found if one.value is not None and not sessions.fits(one.value) and one not in odd]
        special = {one.visit: self._special(one) for one in odd if one.visit not in done}
        # where nobody has sent many, the fold itself knows what came before
        many = len(self.of) - self.visits >= RECENT_IDS or any(map(has_ids, self._tails.values()))
        repeated = self._repeated(found, done) if many else ()
        if some or repeated:
            left = (place for one in found if one.visit not in done for place in one.visit.events)  # type: ignore[attr-defined]
            which = np.array(sorted(set(left).difference(repeated)), np.int64)
        of = np.array(self.of)
        for part in self._rounds(which) if sessions.drawing else (which,):
            memory.draw_before(part, of)
            sessions.fold.advance_many(
                part, of, memory.events, memory.numbers, memory.records, STATE_BYTES, memory.closed,
                sessions.timeout_ms, sheet.tables, sheet.tables_at, sheet.rows,
                memory.statuses, memory.starts, memory.counts, memory.before, memory.ended,
            )  # fmt: skip
            memory.draw_after(part, of)
        for place in repeated:
            self._recall(place)
        ended, unscheduled, again = memory.finish(numbers, which, of, self._received, sessions.timeout_ms)
        if unscheduled or again:
            self._note(found, done)
        due = memory.due[: self.visits].tolist()
        changes: list[Change | None] = []
        if not (ended or special or done):
            # of those that were found, not of all: some stores ask about one after the other
            visits: list[int] = [one.visit.number for one in found]  # type: ignore[attr-defined]
            changes += [
                _new(Change, (values[width * each : width * each + width], due[each] or None, None, _NOT_CLOSED))
                for each in visits
            ]
            return self._with_tails(found, changes) if self._tails or self._assigned else changes
        for visit, _, _ in found:
            if visit in done:
                changes.append(None)
                continue
            number = visit.number  # type: ignore[attr-defined]
            moved, closed = special.get(visit, (None, _NOT_CLOSED))
            if ended:
                closed = closed + self._ended(visit)  # type: ignore[arg-type]
            at = number * width
            changes.append(Change(values[at : at + width], due[number] or None, moved, closed))
        return self._with_tails(found, changes) if self._tails or self._assigned else changes

    def _rounds(self, which: np.ndarray) -> Sequence[np.ndarray]:
        """The events, each visit's one after the other: rows are drawn from the records between them."""
        if len(self.of) == self.visits:
            return (which,)
        rounds: list[list[int]] = []
        seen: Counter[int] = Counter()
        for place in which.tolist():
            number = self.of[place]
            if seen[number] == len(rounds):
                rounds.append([])
            rounds[seen[number]].append(place)
            seen[number] += 1
        return [np.array(one, np.int64) for one in rounds]

    def _taken_in(self, found: Sequence[Found]) -> tuple[list[Found], list[EventVisit]]:
        """Have the records in memory; returns what is to be looked at by itself, and visits that were done before."""
        values, empty = self.memory.values, self.sessions.empty
        width = len(empty)
        self.retired = 0
        self._tails.clear()
        if self._assigned:
            # asked again; what others of the turn have stays, whom a store asks about one after the other
            for visit, _, _ in found:
                if self._assigned.pop(visit, None):  # type: ignore[call-overload]
                    visit.assigned = b""  # type: ignore[attr-defined]
        while self._unscheduled:
            self._unscheduled.pop().entry = None
        odd: list[Found] = []
        done: list[EventVisit] = []
        for one in found:
            visit, value, others = one
            at = visit.number * width  # type: ignore[attr-defined]
            if value is not None and len(value) == width:
                values[at : at + width] = value
            else:
                values[at : at + width] = empty
                if (value is not None or others) and not self._has_tail(one):
                    odd.append(one)
            if visit.token and self._was_done(one):  # type: ignore[attr-defined]
                done.append(visit)  # type: ignore[arg-type]
        return odd, done

    def _note(self, found: Sequence[Found], done: Sequence[EventVisit]) -> None:
        """Have no entry of the schedule outlive its record (that of a linked visitor lies in a year), and somebody look
        for lasting records where nobody did.
        """
        memory = self.memory
        for visit, _, _ in found:
            assert isinstance(visit, EventVisit)
            if visit in done:
                continue
            if memory.left[visit.number]:
                visit.entry = Entry(int(memory.left[visit.number]), visit.key)
                self._unscheduled.append(visit)
            if memory.known[visit.number] < 0:
                self.doubtful.append(visit)

    def _has_tail(self, found: Found) -> bool:
        """Take a record in that is ours and has a tail; False for any other."""
        visit, value, _ = found
        if value is None or not self.sessions.fits(value):
            return False
        assert isinstance(visit, EventVisit)
        width = len(self.sessions.empty)
        at = visit.number * width
        self.memory.values[at : at + width] = value[:width]
        assigned, tail = self.sessions.behind(value)
        if assigned:
            self._assigned[visit] = assigned
        if tail:
            self._tails[visit] = tail
        return True

    def _with_tails(self, found: Sequence[Found], changes: Sequence[Change | None]) -> list[Change | None]:
        """The changes with what stands behind the records: assignments that still hold, and tails."""
        out: list[Change | None] = []
        for (visit, _, _), change in zip(found, changes, strict=True):
            assert isinstance(visit, EventVisit)
            assigned, tail = self._assigned.get(visit, b""), self._tails.get(visit, b"")
            if change is None or change.value is None or not (assigned or tail):
                out.append(change)
                continue
            value = change.value
            if assigned:
                if any(self.memory.statuses[place] == STARTED for place in visit.events):
                    assigned = for_later(assigned)
                visit.assigned = assigned
                value = self.sessions.with_assigned(value, assigned)
            out.append(_new(Change, (bytes(value) + tail, *change[1:])))
        return out

    def _was_done(self, found: Found) -> bool:
        """Whether a visit's events are in a record already, by the visit's token: then they are answered from it."""
        visit, sessions, memory = found.visit, self.sessions, self.memory
        assert isinstance(visit, EventVisit)
        for value in (found.value, *(other for _, other in found.others)):
            if value is not None and sessions.fits(value) and has_write(sessions.tail(value), visit.token):
                # not the buffer of `sessions`: a store may be at this in a thread of its own
                record = np.frombuffer(value[STATE_BYTES : len(sessions.empty)], np.uint8).copy()
                memory.objects[visit.number] = word_of(value, HEADER_CONSENT) & KEPT
                for place in visit.events:
                    self.sheet.read(sessions.fold, record, word_of(value, HEADER_LAST_AT), place)
                    memory.statuses[place] = DUPLICATE
                    memory.starts[place] = word_of(value, HEADER_STARTED_AT)
                    memory.counts[place] = word_of(value, HEADER_EVENTS)
                return True
        self._tails[visit] = with_write(self._tails.get(visit, b""), visit.token)
        return False

    def _repeated(self, found: Sequence[Found], done: Sequence[EventVisit]) -> list[int]:
        """Places of events that came before, in a batch that is known or in their own; notes new batches."""
        repeated: list[int] = []
        for visit, _, _ in found:
            assert isinstance(visit, EventVisit)
            tail = self._tails.get(visit, b"")
            if len(visit.events) <= RECENT_IDS and not has_ids(tail):
                continue
            ids = [(place, identity) for place in visit.events if (identity := int(self.memory.events[place, _ID]))]
            known, new = ids_of(tail), list[int]()
            if visit in done or not (known or len(ids) > RECENT_IDS):
                continue
            for place, identity in ids:
                if identity in known:
                    repeated.append(place)
                else:
                    known.add(identity)
                    new.append(identity)
            if new and len(ids) > RECENT_IDS:
                self._tails[visit] = with_ids(tail, new)
        return repeated

    def _recall(self, place: int) -> None:
        """Answer an event that is not folded, as the fold answers duplicates."""
        memory, number = self.memory, self.of[place]
        words = memory.words[number, STATE_BYTES // 8 :]
        words[HEADER_DUPLICATES] += 1
        self.sheet.read(self.sessions.fold, memory.records[number, STATE_BYTES:], int(words[HEADER_LAST_AT]), place)
        memory.statuses[place], memory.ended[place] = DUPLICATE, False
        memory.starts[place], memory.counts[place] = words[HEADER_STARTED_AT], words[HEADER_EVENTS]

    def _special(self, found: Found) -> tuple[Moved | None, list[Closed]]:
        """Look at a record of other fields, which is put away, and at those under other keys: one may go on.

        A visitor who comes without consent to link and has a lasting record has withdrawn it: the record is forgotten,
        and a session that runs goes on without what it knew of earlier ones.
        """
        sessions, memory = self.sessions, self.memory
        visit, value, others = found
        assert isinstance(visit, EventVisit)
        closed: list[Closed] = []
        width = len(sessions.empty)
        at = visit.number * width
        memory.values[at : at + width] = sessions.empty
        memory.due[visit.number], memory.closed[visit.number] = 0, False
        # what the value's other bits tell is not true of this record
        memory.objects[visit.number] = memory.objects[visit.number] & OBJECTS | sessions.mark
        if value is not None:
            self.retired += 1
            self._objects(visit, value)
            if not is_handed_on(value):
                closed.append(Closed(name_of(visit.key, value), bytes(value)))
        first = memory.events[visit.events[0]]
        unlinked, visitor = not first[EVENT_CONSENT] & CONSENT_LINK, visitor_of(visit.key)
        # what was withdrawn first: it must not stay
        for key, other in sorted(others, key=lambda each: not _is_linked(each[1])):
            withdrawn = unlinked and _is_linked(other)
            fits = sessions.fits(other)
            runs = fits and not is_handed_on(other)
            runs = runs and first[TIME] - word_of(other, HEADER_LAST_AT) <= sessions.timeout_ms
            if withdrawn:
                self.withdrawn.append(visitor_of(key))
            if runs or withdrawn or is_handed_on(other):
                self._objects(visit, other)
            if not runs and not withdrawn:
                continue
            state, _ = STATE.unpack_from(other)
            left = sessions.unlinked(other, visitor) if withdrawn and fits else other
            if runs:
                # the open session goes on under the pseudonym that holds now, and says nothing of the other one
                memory.values[at : at + width] = left[:width]
                memory.words[visit.number, _VISITOR] = visitor
                self._tails[visit] = with_write(sessions.tail(other), visit.token)
                if assigned := sessions.assigned(other):
                    self._assigned[visit] = of_session_only(assigned) if withdrawn else assigned
            return Moved(key, STATE.pack(state, self._received) + left[STATE_BYTES:], state >> 1), closed
        return None, closed

    def _objects(self, visit: EventVisit, value: Value) -> None:
        """An objection to automated decisions goes along to another record of the visitor."""
        self.memory.objects[visit.number] |= word_of(value, HEADER_CONSENT) & OBJECTS

    def _ended(self, visit: EventVisit) -> list[Closed]:
        """The sessions that the visit's events ended."""
        memory = self.memory
        found = [memory.before[place].tobytes() for place in visit.events if memory.ended[place]]
        assigned = self._assigned.get(visit)
        if assigned and found:
            # only the first one can have been in an experiment for itself
            first, *rest = found
            found = [self.sessions.with_assigned(first, assigned)]
            found += [self.sessions.with_assigned(before, for_later(assigned)) for before in rest]
        return [Closed(name_of(visit.key, before), before) for before in found]

    def finish(self, *, scored: bool) -> None:
        """Have what became of every event ready, and its scores if they are asked for."""
        count, memory = len(self.of), self.memory
        if scored:
            self.sheet.score(count)
        self.statuses = memory.statuses[:count].tolist()
        self.starts = memory.starts[:count].tolist()
        self.counts = memory.counts[:count].tolist()
        objecting = memory.objects[: self.visits] & OBJECTS
        self.objecting = objecting.tolist() if objecting.any() else []

    def close(self) -> None:
        """Everything was answered: the memory is for others."""
        self.scorer.give_back(self.sheet)
        self._memories.give_back(self.memory)
        # visits know their group: a circle would keep visitors' ids until the garbage collector comes
        for kept in (self._assigned, self._tails, self._unscheduled, self.doubtful):
            kept.clear()


def _is_linked(value: Value) -> bool:
    return bool(word_of(value, HEADER_CONSENT) & CONSENT_LINK)


def warm_up(sessions: Sessions, memories: Memories, scorer: Scorer) -> None:
    """Compile, or load, what the first request would otherwise wait for."""
    group = Group(sessions, memories, scorer, 1, 1_700_000_000_000)
    visit = EventVisit(group, bytes(8), (lambda raw, linked, now_ms: (), "", False, 0), b"")
    group.add(visit, Event(visitor=1, time=1_700_000_000_000))
    group.advance([Found(visit, None, ())])
    group.sheet.read(sessions.fold, sessions.fold.new_record(), 1_700_000_001_000)
    group.finish(scored=True)
    group.close()
    scorer.tally()  # nobody was scored

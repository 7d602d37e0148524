"""The arrays in which a group folds: events, records and what became of them, and the compiled loops over them."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

import numpy as np
from numba import njit

from features.events import COLUMNS, CONSENT_LINK
from features.sessions import HEADER_CONSENT, HEADER_DIGEST, HEADER_EVENTS, STARTED
from serving.drawn import DRAWN, Candidates
from serving.scorer import size_for
from serving.sessions import KEPT, STATE_BYTES, Sessions

EVENT: Final = Struct("<" + "".join("d" if column.dtype.startswith("f") else "q" for column in COLUMNS.values()))
EVENT_CONSENT: Final = list(COLUMNS).index("consent")
_DIGEST: Final = STATE_BYTES // 8 + HEADER_DIGEST
_CONSENT: Final = STATE_BYTES // 8 + HEADER_CONSENT
_EVENTS: Final = STATE_BYTES // 8 + HEADER_EVENTS


class End(NamedTuple):
    """What there is to look at by itself: ended: sessions ended; unscheduled: entries of the schedule are left;
    again: a record that was known has begun another session without consent to link.
    """

    ended: bool
    unscheduled: bool
    again: bool


class Memory:
    """Arrays for some events and as many visits; kept from turn to turn."""

    def __init__(self, sessions: Sessions, size: int) -> None:
        self.size, value_bytes = size, len(sessions.empty)
        self.packed = bytearray(size * EVENT.size)
        self.events = np.frombuffer(self.packed, np.int64).reshape(size, -1)
        self.numbers = np.frombuffer(self.packed, np.float64).reshape(size, -1)
        self.records = np.zeros((size, value_bytes), np.uint8)
        self.words = self.records.view(np.int64)
        self.values = memoryview(self.records.reshape(-1).data)
        self.before = np.empty((size, value_bytes), np.uint8)
        self.closed, self.ended = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        self.due, self.left, self.objects, self.known = (np.zeros(size, np.int64) for _ in range(4))
        self.statuses, self.starts, self.counts = (np.zeros(size, np.int64) for _ in range(3))
        self.all = np.arange(size)
        self._drawing, self._mark = sessions.drawing, sessions.mark
        self._candidates = Candidates(size, value_bytes // 8) if sessions.drawing else None

    def open(self, numbers: np.ndarray, digest: int) -> int:
        """Take the state of some values apart; returns how many were folded with other fields."""
        return int(_opened(self.words, numbers, digest, self._mark, self.due, self.closed, self.objects, self.known))

    def draw_before(self, which: np.ndarray, of: np.ndarray) -> None:
        """Draw rows from the silences before some events, at most one of each visit."""
        if self._candidates and self._drawing:
            self._candidates.before(which, of, self.events, self.words, self.closed, self._drawing)

    def draw_after(self, which: np.ndarray, of: np.ndarray) -> None:
        """Draw rows from the moments right after them, and keep what was drawn."""
        if self._candidates and self._drawing:
            self._candidates.after(which, of, self.statuses, self.words, self._drawing)

    def finish(self, numbers: np.ndarray, which: np.ndarray, of: np.ndarray, received_ms: int, timeout_ms: int) -> End:
        """Put the states of some values together; which, of: places of the events that were folded, and the number of
        each event's visit. An event tells consent, but takes back no objection.

        Leaves in `due` when each value is to be looked at, 0 if that is scheduled already, and in `left` when it would
        have been otherwise; in `known` -1 where a record that was known has begun another session without consent to
        link.
        """
        return End(
            *_finished(
                self.words, numbers, which, received_ms, received_ms + timeout_ms, self.due, self.closed, self.ended,
                self.objects, self.left, of, self.events, self.statuses, self.known,
            )
        )  # fmt: skip


class Memories:
    """Memory that nobody uses, by size."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._free: dict[int, list[Memory]] = {}

    def take(self, events: int) -> Memory:
        """Room for so many events."""
        size = size_for(events)
        free = self._free.get(size)
        return free.pop() if free else Memory(self._sessions, size)

    def give_back(self, memory: Memory) -> None:
        """It is not needed any more."""
        self._free.setdefault(memory.size, []).append(memory)


@njit(cache=True)
def _opened(
    words: np.ndarray,
    numbers: np.ndarray,
    digest: int,
    mark: int,
    due: np.ndarray,
    closed: np.ndarray,
    objects: np.ndarray,
    known: np.ndarray,
) -> int:  # pragma: no cover
    others = 0
    for number in numbers:
        due[number] = words[number, 0] >> 1
        closed[number] = words[number, 0] & 1
        objects[number] = words[number, _CONSENT] & KEPT
        known[number] = words[number, _EVENTS] > 0 or closed[number]
        others += words[number, _DIGEST] != digest or words[number, _CONSENT] & DRAWN != mark
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
    objects: np.ndarray,
    left: np.ndarray,
    of: np.ndarray,
    events: np.ndarray,
    statuses: np.ndarray,
    known: np.ndarray,
) -> tuple[bool, bool, bool]:  # pragma: no cover
    unscheduled = again = False
    for place in which:
        if known[of[place]] and statuses[place] == STARTED and not events[place, EVENT_CONSENT] & CONSENT_LINK:
            known[of[place]] = -1
            again = True
    for number in numbers:
        # a linked visitor's record may be due in a year only
        scheduled = 0 < due[number] <= over_ms
        left[number] = 0
        if not scheduled:
            left[number] = due[number]
            unscheduled |= due[number] > 0
            due[number] = over_ms
        words[number, 0] = due[number] << 1 | closed[number]
        words[number, _CONSENT] |= objects[number]
        # events that waited for the store may come after later ones
        words[number, 1] = max(words[number, 1], received)
        if scheduled:
            due[number] = 0
    return bool(ended[which].any()), unscheduled, again

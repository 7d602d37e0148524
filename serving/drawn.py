"""A row of each running session, drawn at random and kept behind its record until it is known what becomes of it.

A model learns from a row after each event and at each checkpoint of silence. No events are stored to make them of
afterwards, so one row is kept of each session, drawn from all its rows so far: the n-th of N with the probability
1 / (n (1 + 1/2 + ... + 1/N)), as many of each doubling of a session's age. It takes the place of the one kept with
probability (1/n) / (1 + ... + 1/n), told by a hash of session and n (a reservoir of size one with weights: Chao, "A
general purpose unequal probability sampling plan", 1982). Were all rows as likely, those that scores are acted on would
be missing of the sessions that matter: of a purchase after sixty rows the second would be kept once in sixty.

What is kept is the record as it was then, not its features: these are read by the fold when they are needed, with
whatever tables a model has learned.

Out: the columns `row/...` of handed-on sessions; `row/number` and `row/of` tell n and N. The silence after a session's
last event is known when it is over, so the last draws are made then (`Drawing.last`).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numba import njit

from features.compiler import Fold
from features.events import COLUMNS, CONSENT_LINK, CONSENTS
from features.sessions import (
    FOLDED,
    HEADER_CONSENT,
    HEADER_EVENTS,
    HEADER_LAST_AT,
    HEADER_STARTED_AT,
    HEADER_VISITOR,
    HEADER_WORDS,
    STARTED,
)

# A bit of a record's consent word: a row that was drawn follows the record.
DRAWN: Final = 1 << 12
_STATE: Final = 2  # words before the record
_TIME: Final = list(COLUMNS).index("time")
_CONSENTS: Final = sum(CONSENTS.values())
_EVENTS, _LAST_AT, _CONSENT = (_STATE + word for word in (HEADER_EVENTS, HEADER_LAST_AT, HEADER_CONSENT))
_STARTED_AT, _VISITOR = _STATE + HEADER_STARTED_AT, _STATE + HEADER_VISITOR
_FIELDS: Final = _STATE + HEADER_WORDS

# Words in front of the kept fields: of how many rows this is one, and which, from 1; the session's latest event then,
# ms UTC, its number of events and its consent; the silence after it, ms; when the next row came, ms UTC, or 0.
HEAD: Final = ("of", "number", "last_at", "events", "consent", "idle_ms", "until")
_OF, _NUMBER, _AT, _PREFIX, _GIVEN, _IDLE, _UNTIL = range(len(HEAD))
_HEAD: Final = len(HEAD)
HEAD_BYTES: Final = 8 * _HEAD
_EULER: Final = 0.5772156649015329
_SUMMED: Final = 100  # below, the series would be too rough


class Drawing(NamedTuple):
    """How rows of one fold's sessions are drawn.

    silences_ms: int64, rising, the checkpoints within a timeout; at: the word of a value at which the kept row begins.
    """

    silences_ms: np.ndarray
    timeout_ms: int
    at: int

    @classmethod
    def of(cls, fold: Fold, silences_ms: tuple[int, ...], timeout_ms: int) -> Drawing:
        """For records of this fold."""
        within = sorted({silence for silence in silences_ms if 0 < silence < timeout_ms})
        return cls(np.array(within, np.int64), timeout_ms, _STATE + fold.record_bytes // 8)

    @property
    def row_bytes(self) -> int:
        """What a kept row takes."""
        return 8 * (_HEAD + self.at - _FIELDS)

    def unlink(self, value: bytearray) -> None:
        """Have the kept row not linked with other visits any more, as far as its consent tells."""
        given = np.frombuffer(value, np.int64, 1, 8 * (self.at + _GIVEN))
        given &= ~CONSENT_LINK

    def last(self, value: bytes | memoryview) -> bytes:
        """The kept row of a session that is over, the silence after its last event drawn from, too."""
        line = np.frombuffer(value, np.int64, self.at + self.row_bytes // 8).copy()
        _last(line, self.silences_ms, self.timeout_ms, self.at)
        return line[self.at :].tobytes()


class Candidates:
    """Rows of silence that end with the events of a round, each to be kept if its event goes on with the session."""

    def __init__(self, size: int, words: int) -> None:
        self._before = np.empty((size, words), np.int64)
        self._found = np.zeros((size, 4), np.int64)

    def before(
        self, which: np.ndarray, of: np.ndarray, events: np.ndarray, words: np.ndarray, closed: np.ndarray,
        drawing: Drawing,
    ) -> None:  # fmt: skip
        """Draw from the silences before some events, at most one of each visit.

        which, of, events, closed: as of `Fold.advance_many`; words: int64 (visits, words), the values.
        """
        _draw_before(which, of, events, words, closed, drawing.silences_ms, drawing.at, self._before, self._found)

    def after(
        self, which: np.ndarray, of: np.ndarray, statuses: np.ndarray, words: np.ndarray, drawing: Drawing
    ) -> None:
        """Keep what was drawn where the event was folded, and draw from the rows right after the events."""
        _draw_after(which, of, statuses, words, drawing.at, self._before, self._found)


@njit(cache=True, nogil=True)
def _drawn(line: np.ndarray, number: int) -> bool:  # pragma: no cover
    """Whether the session's n-th row is kept instead of those before: by 64 mixed bits (splitmix64)."""
    z = np.uint64(line[_STARTED_AT]) ^ (np.uint64(line[_VISITOR]) * np.uint64(0x9E3779B97F4A7C15))
    z += np.uint64(number) * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) / 2**53 * (number * _harmonic(number)) < 1.0


@njit(cache=True, nogil=True)
def _harmonic(number: int) -> float:  # pragma: no cover
    """1 + 1/2 + ... + 1/n, to 1e-10."""
    if number < _SUMMED:
        total = 0.0
        for each in range(1, number + 1):
            total += 1.0 / each
        return total
    return math.log(number) + _EULER + 1 / (2 * number) - 1 / (12 * number**2)


@njit(cache=True, nogil=True)
def _keep(line: np.ndarray, source: np.ndarray, number: int, idle_ms: int, at: int) -> None:  # pragma: no cover
    """Keep the record that another line, or the same, has now, as the session's n-th row."""
    line[at + _NUMBER], line[at + _AT], line[at + _PREFIX] = number, source[_LAST_AT], source[_EVENTS]
    line[at + _GIVEN], line[at + _IDLE] = source[_CONSENT] & _CONSENTS, idle_ms
    for word in range(_FIELDS, at):
        line[at + _HEAD + word - _FIELDS] = source[word]


@njit(cache=True, nogil=True)
def _draw_before(
    which: np.ndarray, of: np.ndarray, events: np.ndarray, words: np.ndarray, closed: np.ndarray,
    silences: np.ndarray, at: int, before: np.ndarray, found: np.ndarray,
) -> None:  # pragma: no cover  # fmt: skip
    for place in which:
        visit = of[place]
        line = words[visit]
        rows, until, chosen, number = line[at + _OF], line[at + _UNTIL], -1, 0
        if not closed[visit] and line[_EVENTS] > 0:
            gap = events[place, _TIME] - line[_LAST_AT]
            for silence in silences:
                if silence >= gap:
                    break
                rows += 1
                if until == 0:
                    until = line[_LAST_AT] + silence
                if _drawn(line, rows):
                    chosen, number, until = silence, rows, 0
            if chosen >= 0:
                before[visit] = line
        found[visit, 0], found[visit, 1], found[visit, 2], found[visit, 3] = rows, until, chosen, number


@njit(cache=True, nogil=True)
def _draw_after(
    which: np.ndarray, of: np.ndarray, statuses: np.ndarray, words: np.ndarray, at: int, before: np.ndarray,
    found: np.ndarray,
) -> None:  # pragma: no cover  # fmt: skip
    for place in which:
        visit, status = of[place], statuses[place]
        if status < FOLDED:
            continue
        line = words[visit]
        line[_CONSENT] |= DRAWN  # the event has told its own consent
        rows, until = 0, 0
        if status != STARTED:
            rows, until = found[visit, 0], found[visit, 1]
            if found[visit, 2] >= 0:
                _keep(line, before[visit], found[visit, 3], found[visit, 2], at)
        rows += 1
        if until == 0:
            until = line[_LAST_AT]
        if _drawn(line, rows):
            _keep(line, line, rows, 0, at)
            until = 0
        line[at + _OF], line[at + _UNTIL] = rows, until


@njit(cache=True, nogil=True)
def _last(line: np.ndarray, silences: np.ndarray, timeout_ms: int, at: int) -> None:  # pragma: no cover
    rows, until = line[at + _OF], line[at + _UNTIL]
    for silence in silences:
        rows += 1
        if until == 0:
            until = line[_LAST_AT] + silence
        if _drawn(line, rows):
            _keep(line, line, rows, silence, at)
            until = 0
    line[at + _OF] = rows
    line[at + _UNTIL] = until if until else line[_LAST_AT] + timeout_ms

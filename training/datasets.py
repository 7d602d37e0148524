"""Splitting rows into fit, early, calibration and test: by time, whole sessions, no visitor on two sides.

The test lies after `test_from` of the log's time and a gap of one timeout; fit is all the time before; early stopping
and calibration take the later part of it (`late_from`). A visitor seen in the time of one slice alone is in that slice;
one seen in several (the end of the time before the test always belongs to three) goes to one of them by a hash of the
pseudonym, in the configured shares, and their sessions elsewhere are dropped. So on a log of loyal users each slice has
its own users, while on a log of one-time visitors next to nothing is lost, and returning visitors stay in every slice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from features.batch import Rows
from features.partition import mixed
from features.settings import SettingsError
from training.config import SplitSettings
from training.heads import Head
from training.labels import Outcomes

SLICES: Final = ("fit", "early", "calibration", "test")


@dataclass(frozen=True)
class Slice:
    """The rows of one head in one slice.

    matrix: float32 (n, F); answer: u1 (n,); prefix: int32 (n,); idle_ms, session, visitor, now: int64 (n,).
    """

    name: str
    matrix: np.ndarray
    answer: np.ndarray
    prefix: np.ndarray
    idle_ms: np.ndarray
    session: np.ndarray
    visitor: np.ndarray
    now: np.ndarray

    @property
    def sessions(self) -> int:
        """Number of sessions with at least one row."""
        return len(np.unique(self.session))

    @property
    def positive_sessions(self) -> int:
        """Number of sessions with at least one row whose answer is yes."""
        return len(np.unique(self.session[self.answer == 1]))

    def digest(self) -> str:
        """16 hex digits over rows and answers."""
        state = hashlib.sha256(self.matrix.tobytes())
        state.update(self.answer.tobytes())
        return state.hexdigest()[:16]


def assign_sessions(events: pd.DataFrame, settings: SplitSettings, timeout_ms: int) -> np.ndarray:
    """The slice of each session: int8 (sessions,), a position in SLICES, or -1 where it is dropped.

    events: sorted, with `session_index`, `visitor` and `time`.
    """
    if not len(events):
        return np.zeros(0, np.int8)
    grouped = events.groupby("session_index", sort=True)
    start, end = grouped["time"].min().to_numpy(), grouped["time"].max().to_numpy()
    visitor = grouped["visitor"].first().to_numpy()
    first, span = start.min(), end.max() - start.min()
    border = test_border(events, settings)
    late = first + settings.test_from * settings.late_from * span
    eligible = np.column_stack(
        [end < border, (start >= late) & (end < border), (start >= late) & (end < border), start >= border + timeout_ms]
    )
    _, number = np.unique(visitor, return_inverse=True)
    seen = np.zeros((number.max() + 1, len(SLICES)), bool)
    for place in range(len(SLICES)):
        seen[:, place] = np.bincount(number, eligible[:, place], minlength=len(seen)) > 0
    shares = np.array([settings.fit, settings.early, settings.calibration, settings.test]) * seen
    total = shares.sum(axis=1, keepdims=True)
    uniform = np.zeros(len(seen))
    uniform[number] = _uniform(visitor)
    cumulative = np.cumsum(shares, axis=1) / np.maximum(total, 1e-12)
    chosen = np.minimum((uniform[:, None] >= cumulative).sum(axis=1), len(SLICES) - 1)
    own = chosen[number]
    allowed = eligible[np.arange(len(own)), own]
    return np.where(allowed, own, -1).astype(np.int8)


def test_border(events: pd.DataFrame, settings: SplitSettings) -> float:
    """The moment, ms UTC, before which everything lies that a model may learn from."""
    first, last = events["time"].min(), events["time"].max()
    return float(first + settings.test_from * (last - first))


def _uniform(visitor: np.ndarray) -> np.ndarray:
    """A number in [0, 1) from each pseudonym, the same in every run."""
    return (mixed(visitor) >> np.uint64(11)).astype(np.float64) / 2**53


def slices_of(rows: Rows, outcome: Outcomes, assigned: np.ndarray, head: Head) -> dict[str, Slice]:
    """The rows of one head, slice by slice; censored sessions and decided outcomes give none."""
    usable = head.asked(outcome) & ~outcome.censored
    answer = head.answer(outcome)
    side = assigned[outcome.session] if len(assigned) else np.zeros(0, np.int8)
    event = rows.event
    visitor = rows.events["visitor"].to_numpy()
    found = {}
    for place, name in enumerate(SLICES):
        chosen = np.flatnonzero(usable[event] & (side[event] == place))
        at = event[chosen]
        found[name] = Slice(
            name=name,
            matrix=rows.matrix[chosen],
            answer=answer[at].astype(np.uint8),
            prefix=rows.prefix[chosen],
            idle_ms=rows.idle_ms[chosen],
            session=outcome.session[at],
            visitor=visitor[at],
            now=rows.now[chosen],
        )
    return found


def check_enough(head: Head, slices: dict[str, Slice], settings: SplitSettings) -> None:
    """Refuse to train on what cannot carry a model.

    Raises
    ------
    SettingsError
        A slice has too few sessions, too few of them positive, or only positive ones: says which and what to do.
    """
    for shortage in shortages(head, slices, settings):
        raise SettingsError(shortage)


def shortages(head: Head, slices: dict[str, Slice], settings: SplitSettings) -> Iterator[str]:
    """Why the slices cannot carry a model: for each that cannot, what is missing and what to do."""
    for name, part in slices.items():
        positives = part.positive_sessions
        if part.sessions < settings.min_sessions:
            yield (
                f"head {head.name!r}: the slice {name!r} has {part.sessions} sessions, at least "
                f"{settings.min_sessions} are needed; use a longer history or change [split]"
            )
        elif positives < settings.min_positives:
            yield (
                f"head {head.name!r}: the slice {name!r} has {positives} sessions where the answer is yes, at least "
                f"{settings.min_positives} are needed; use a longer history, another [labels] goal, or leave "
                "the head out with --set 'heads.train=[...]'"
            )
        elif part.answer.all():
            yield (
                f"head {head.name!r}: every answer in the slice {name!r} is yes; there is nothing to learn. Was the "
                "log selected by this outcome?"
            )

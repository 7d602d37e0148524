"""Splitting rows into the past, which is learned from, and the test: by time, whole sessions, no visitor on both sides.

The test lies after `test_from` of the log's time and a gap of one timeout. Which side a visitor is on is told by a hash
of the pseudonym, in the configured shares; their sessions on the other side of the border are dropped. To drop only
what visitors seen on both sides have there would keep more, and make both sides poorer in returning visitors than the
shop is: scores were off by 0.03 on average then, where visits are not linked. There are no weights and no resampling of
classes: the scores must be probabilities. A log too large to make rows of is thinned by whole visitors, drawn uniformly
(`draw_visitors`), which leaves every rate as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd

from features.partition import mixed
from features.settings import SettingsError
from training.config import SplitSettings
from training.heads import Head
from training.labels import DAY_MS, Moments, SessionOutcomes

SIDES: Final = ("past", "test")
# Numbers that are mixed into a pseudonym, so that being drawn, tested and folded do not depend on each other.
_DRAWN, _SIDE, FOLDED = 1, 2, 3


@dataclass(frozen=True)
class Slice:
    """The rows of one head in one part of the log. n rows, F features.

    Attributes
    ----------
    names: the F features; matrix: float32 (n, F), NaN is missing.
    answer: float32 (n,), 0 or 1, or an amount.
    prefix: int32 (n,), events of the session so far; idle_ms: int64 (n,), 0 right after an event, else the silence.
    session, visitor: int64 (n,).
    started: int64 (n,), ms UTC, when the session began; now: the moment the row describes; until: when another row
        describes the session, or it is over; known_at: when the answer is known.
    every_row: whether each session has all its rows, or one that was drawn and may stand here several times.
    """

    name: str
    names: tuple[str, ...]
    matrix: np.ndarray
    answer: np.ndarray
    prefix: np.ndarray
    idle_ms: np.ndarray
    session: np.ndarray
    visitor: np.ndarray
    started: np.ndarray
    now: np.ndarray
    until: np.ndarray
    known_at: np.ndarray
    every_row: bool = True

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def sessions(self) -> int:
        """Number of sessions with at least one row."""
        return len(np.unique(self.session))

    @property
    def positive_sessions(self) -> int:
        """Number of sessions with at least one row whose answer is yes, or more than nothing."""
        return len(np.unique(self.session[self.answer > 0]))

    def column(self, feature: str) -> np.ndarray:
        """The values of one feature, float32 (n,)."""
        return self.matrix[:, self.names.index(feature)]

    def take(self, chosen: np.ndarray) -> Slice:
        """Some of the rows, by mask or by position."""
        arrays = {
            name: value[chosen] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }  # fmt: skip
        return replace(self, **arrays)

    def distinct(self, rows: np.ndarray | None = None) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The rows without repetitions, and how much each counts, 1 on average: for fits whose penalties count rows.

        rows: positions, all if None; they come back as they are, with None, where no row stands here several times.
        """
        if self.every_row:
            return rows, None
        places = np.arange(len(self)) if rows is None else rows
        _, first, counts = np.unique(self.session[places], return_index=True, return_counts=True)
        return places[first], counts / max(counts.mean(), 1.0)

    def thinned(self, most: int) -> Slice:
        """Every k-th visitor with all their rows, so that about `most` rows are left; itself if it has no more."""
        return self if len(self) <= most else self.take(self.thinned_positions(most))

    def thinned_positions(self, most: int) -> np.ndarray:
        """The positions of those rows, int64."""
        _, number = np.unique(self.visitor, return_inverse=True)
        return np.flatnonzero(number % max(-(-len(self) // most), 1) == 0)

    def digest(self) -> str:
        """16 hex digits over rows and answers."""
        state = hashlib.sha256(np.ascontiguousarray(self.matrix).data)
        state.update(self.answer.tobytes())
        return state.hexdigest()[:16]


def draw_visitors(events: pd.DataFrame, border_ms: float, most: int, seed: int) -> pd.DataFrame:
    """Whole visitors, drawn uniformly by a hash, so that neither side of the border has many more than `most` events.

    The log itself where it is no longer than that.
    """
    share = _drawn_share(events, border_ms, most)
    return events if share >= 1 else events[uniform(events["visitor"].to_numpy(), _DRAWN, seed) < share]


def draw_others(
    events: pd.DataFrame, border_ms: float, most: int, split: SplitSettings, more: int, gap_ms: int
) -> pd.DataFrame:
    """Of visitors that `draw_visitors` left out and that are not tested, about `more` events before the border, and
    those of the `gap_ms` after it, by which sessions are known that go on over it."""
    time = events["time"].to_numpy()
    share = _drawn_share(events, border_ms, most)
    if share >= 1:
        return events.iloc[:0]
    untested = split.past / (split.past + split.test)
    last = share + more / max(int((time < border_ms).sum()) * untested, 1)
    visitor = events["visitor"].to_numpy()
    number = uniform(visitor, _DRAWN, split.seed)
    return events[(number >= share) & (number < last) & (time < border_ms + gap_ms) & ~is_tested(visitor, split)]


def _drawn_share(events: pd.DataFrame, border_ms: float, most: int) -> float:
    before = int((events["time"].to_numpy() < border_ms).sum())
    return most / max(before, len(events) - before, 1)


def split_border(events: pd.DataFrame, settings: SplitSettings) -> float:
    """The moment, ms UTC, before which everything lies that a model may learn from."""
    first, last = events["time"].min(), events["time"].max()
    return float(first + settings.test_from * (last - first))


def assign_sessions(
    events: pd.DataFrame,
    settings: SplitSettings,
    timeout_ms: int,
    border_ms: float,
    until_ms: float = np.inf,
    from_ms: float = -np.inf,
) -> np.ndarray:
    """The side of each session: int8 (sessions,), a position in SIDES, or -1 where it is dropped.

    events: sorted, with `session_index`, `visitor` and `time`; border_ms: where the test begins; until_ms: where it
    ends; from_ms: where the past begins.
    """
    if not len(events):
        return np.zeros(0, np.int8)
    grouped = events.groupby("session_index", sort=True)
    start, end = grouped["time"].min().to_numpy(), grouped["time"].max().to_numpy()
    visitor = grouped["visitor"].first().to_numpy()
    return assign_spans((start, end, visitor), settings, timeout_ms, border_ms, until_ms, from_ms)


def assign_spans(
    spans: tuple[np.ndarray, np.ndarray, np.ndarray],
    settings: SplitSettings,
    timeout_ms: int,
    border_ms: float,
    until_ms: float = np.inf,
    from_ms: float = -np.inf,
) -> np.ndarray:
    """The same, of sessions whose first and last event, ms UTC, and visitor are known: int64 (sessions,) each."""
    start, end, visitor = spans
    eligible = np.column_stack(
        [(start >= from_ms) & (end < border_ms), (start >= border_ms + timeout_ms) & (start < until_ms)]
    )
    own = is_tested(visitor, settings).astype(np.intp)
    allowed = eligible[np.arange(len(own)), own]
    return np.where(allowed, own, -1).astype(np.int8)


def is_tested(visitor: np.ndarray, settings: SplitSettings) -> np.ndarray:
    """Whether a visitor's later sessions are tested on, and nothing of them is learned from: bool (n,)."""
    return uniform(visitor, _SIDE, settings.seed) < settings.test / (settings.past + settings.test)


def uniform(visitor: np.ndarray, purpose: int, seed: int) -> np.ndarray:
    """A number in [0, 1) from each pseudonym, the same in every run: int64 (n,) -> float64 (n,)."""
    salt = mixed(np.array([purpose + (seed << 8)]))
    return (mixed((mixed(visitor) ^ salt).view(np.int64)) >> np.uint64(11)).astype(np.float64) / 2**53


def slices_of(
    rows: Moments, outcome: SessionOutcomes, assigned: np.ndarray, head: Head, border_ms: float
) -> dict[str, Slice]:
    """The rows of one head on each side; decided outcomes give none, nor do those not known when the log ends.

    In the past those are left out, too, that are known only after the border: nobody could have learned from them.
    """
    known_at = outcome.ended + head.horizon_ms
    usable = head.asked(outcome) & ~outcome.censored(head.horizon_ms)
    answer = head.answer(outcome).astype(np.float32)
    side = assigned[outcome.session] if len(assigned) else np.zeros(0, np.int8)
    # a session that ended just before the border is over within a timeout, the gap
    in_time = known_at < border_ms + outcome.timeout_ms
    visitor = rows.events["visitor"].to_numpy()
    until = outcome.until(rows)
    found = {}
    for place, name in enumerate(SIDES):
        wanted = usable & (side == place)
        if name == "past":
            wanted &= in_time
        chosen = np.flatnonzero(wanted[rows.event])
        at = rows.event[chosen]
        found[name] = Slice(
            name=name,
            names=rows.names,
            matrix=rows.matrix[chosen],
            answer=answer[at],
            prefix=rows.prefix[chosen],
            idle_ms=rows.idle_ms[chosen],
            session=outcome.session[at],
            visitor=visitor[at],
            started=outcome.started[at],
            now=rows.now[chosen],
            until=until[chosen],
            known_at=known_at[at],
            every_row=outcome.every_row,
        )
    return found


def check_enough(head: Head, slices: dict[str, Slice], events: pd.DataFrame, settings: SplitSettings) -> None:
    """Refuse to train on what cannot carry a model.

    Raises
    ------
    SettingsError
        The log is too short, or a side has too few sessions, too few of them positive, or only positive ones: says
        all that is missing and what to do.
    """
    missing = list(shortages(head, slices, events, settings))
    if missing:
        raise SettingsError("; ".join(missing))


def shortages(head: Head, slices: dict[str, Slice], events: pd.DataFrame, settings: SplitSettings) -> Iterator[str]:
    """Why the log cannot carry a model: for each thing that is missing, what it is and what to do."""
    time = events["time"]
    days = float(time.max() - time.min()) / DAY_MS if len(time) else 0.0
    needed = max(settings.min_days, head.horizon_ms / DAY_MS / min(settings.test_from, 1 - settings.test_from))
    if days < needed:
        yield (
            f"head {head.name!r}: the log spans {days:.1f} days, at least {needed:.1f} are needed; use a longer history"
        )
    for name, part in slices.items():
        positives = part.positive_sessions
        if part.sessions < settings.min_sessions:
            yield (
                f"head {head.name!r}: the {name} has {part.sessions} sessions, at least "
                f"{settings.min_sessions} are needed; use a longer history or change [split]"
            )
        elif positives < settings.min_positives:
            yield (
                f"head {head.name!r}: the {name} has {positives} sessions where the answer is yes, at least "
                f"{settings.min_positives} are needed; use a longer history, another event as goal, or leave "
                "the head out with --set 'heads.train=[...]'"
            )
        elif head.task == "binary" and part.answer.all():
            yield (
                f"head {head.name!r}: every answer in the {name} is yes; there is nothing to learn. Was the "
                "log selected by this outcome?"
            )

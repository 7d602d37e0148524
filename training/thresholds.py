"""What acting on scores from a threshold on would reach, and how often it would be right: the console's what-if.

In: rows of one head (`training.datasets.Slice`) and their scores. Out: a `WhatIf` with a table for each moment at which
one may act: right after the n-th event, or at the first event whose score reaches the threshold. A session is acted on
once, so it counts once in every line. The last needs all rows of a session, and is left out where one was drawn; a
drawn row counts as often as it stands in the slice, so all counts are then estimates.

Nothing is told of few: between two thresholds, and above the highest, lie sessions of at least 50 visitors. Errors are
counted over visitors, because the sessions of a visitor are nearly one observation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from training.config import EvaluationSettings
from training.datasets import Slice
from training.evaluation import bin_ends
from training.histogram import drawn
from training.segments import LEAST_VISITORS

FILE: Final = "thresholds.json"
# Lines of a table, at most.
_LINES: Final = 100
_FORMAT: Final = 1


@dataclass(frozen=True)
class Moment:
    """A table of one moment. L lines, by falling threshold, the last of which reaches every session.

    Attributes
    ----------
    moment: `prefix_n`, right after the n-th event, or `any`, at the first event whose score reaches the threshold.
    base: sessions whose question was open after their first event, of which shares are told.
    asked: sessions with a score at that moment; visitors: whose these are.
    threshold: (L,); sessions: (L,), those that are acted on; answers: (L,), how many of them turned out yes from there
        on, or what they brought.
    reach_error, precision_error, caught_error: (L,), standard errors of sessions / base, answers / sessions and
        answers / base.
    """

    moment: str
    base: int
    asked: int
    visitors: int
    threshold: tuple[float, ...]
    sessions: tuple[int, ...]
    answers: tuple[float, ...]
    reach_error: tuple[float, ...]
    precision_error: tuple[float, ...]
    caught_error: tuple[float, ...]


@dataclass(frozen=True)
class WhatIf:
    """The tables of one head.

    Attributes
    ----------
    task: "binary" or "value"; rows, sessions, visitors: of the slice; first, last: the rows' moments, ms UTC.
    every_row: whether sessions have all their rows; with drawn ones counts are estimates.
    """

    task: str
    rows: int
    sessions: int
    visitors: int
    first: int
    last: int
    every_row: bool
    moments: tuple[Moment, ...]

    def as_json(self) -> dict[str, Any]:
        """The content of thresholds.json."""
        return {"format": _FORMAT, "least_visitors": LEAST_VISITORS, **asdict(self)}

    def text(self) -> str:
        """The text of thresholds.json."""
        return json.dumps(self.as_json())


def what_if(part: Slice, score: np.ndarray, settings: EvaluationSettings, task: str = "binary") -> WhatIf:
    """Count rows whose answer is known; score: float64 (n,). Of more than 250,000 rows, those of visitors drawn."""
    chosen = drawn(part.visitor)
    part, score = part.take(chosen), np.asarray(score, np.float64)[chosen]
    return WhatIf(
        task=task,
        rows=len(part),
        sessions=part.sessions,
        visitors=len(np.unique(part.visitor)),
        first=int(part.now.min()) if len(part) else 0,
        last=int(part.now.max()) if len(part) else 0,
        every_row=part.every_row,
        moments=tuple(_moments(part, score, settings)),
    )


def _moments(part: Slice, score: np.ndarray, settings: EvaluationSettings) -> Iterator[Moment]:
    right_after = part.idle_ms == 0
    part, score = part.take(right_after), score[right_after]
    _, number = np.unique(part.visitor, return_inverse=True)
    first = part.prefix == 1
    base = np.bincount(number[first], minlength=int(number.max(initial=-1)) + 1)
    if part.every_row:
        yield from _table("any", part, score, number, base)
    for prefix in settings.prefixes:
        rows = np.flatnonzero(part.prefix == prefix)
        yield from _table(f"prefix_{prefix}", part.take(rows), score[rows], number[rows], base)


def _table(moment: str, part: Slice, score: np.ndarray, number: np.ndarray, base: np.ndarray) -> Iterator[Moment]:
    """None where all of it is of too few visitors; number: int64 (n,), whose each row is; base: int64 (visitors,)."""
    if moment == "any":
        order = np.lexsort((part.prefix, part.session))
        session, score, number, answer = part.session[order], score[order], number[order], part.answer[order]
        highest = _highest(session, score)
    else:
        # a row a session, which may stand here several times and then counts so often
        session, answer, highest = np.arange(len(part)), part.answer, np.arange(len(part))
    cuts = _cuts(score[highest], number[highest])
    visitors = len(np.unique(number))
    if not len(cuts) or not base.sum():
        return
    lines = [_line(at, session, score, number, answer.astype(np.float64), base) for at in cuts]
    sessions, answers, reach, precision, caught = (tuple(column) for column in zip(*lines, strict=True))
    yield Moment(
        moment=moment,
        base=int(base.sum()),
        asked=len(highest),
        visitors=visitors,
        threshold=tuple(cuts.tolist()),
        sessions=sessions,
        answers=answers,
        reach_error=reach,
        precision_error=precision,
        caught_error=caught,
    )


def _highest(session: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The place of each session's highest score; rows of a session lie side by side."""
    order = np.lexsort((score, session))
    return order[np.append(session[order][1:] != session[order][:-1], True)[: len(order)]]


def _cuts(score: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Thresholds, falling, between which lie about equally many sessions, and those of enough visitors.

    score: float64 (n,), the highest of each session; number: whose session it is.
    """
    order = np.argsort(score, kind="stable")
    rising = score[order]
    starts = np.append(0, bin_ends(rising, _LINES)[:-1])[::-1] if len(rising) else np.zeros(0, np.int64)
    found: list[int] = []
    end = len(rising)
    for start in starts.tolist():
        if len(np.unique(number[order[start:end]])) >= LEAST_VISITORS:
            found.append(start)
            end = start
    if found and end > 0:
        found[-1] = 0  # the few that are left are told with those above them
    return rising[found]


def _line(
    at: float, session: np.ndarray, score: np.ndarray, number: np.ndarray, answer: np.ndarray, base: np.ndarray
) -> tuple[int, float, float, float, float]:
    """Sessions, answers and the errors of reach, precision and what is caught, of one threshold."""
    rows = np.flatnonzero(score >= at)
    rows = rows[np.append(True, session[rows][1:] != session[rows][:-1])[: len(rows)]]
    size = len(base)
    of_visitor = np.bincount(number[rows], minlength=size).astype(np.float64)
    caught = np.bincount(number[rows], answer[rows], minlength=size)
    sessions, answers, whole = len(rows), float(caught.sum()), float(base.sum())
    return (
        sessions,
        answers,
        _ratio_error(of_visitor, base, sessions / whole),
        _ratio_error(caught, of_visitor, answers / max(sessions, 1)),
        _ratio_error(caught, base, answers / whole),
    )


def _ratio_error(above: np.ndarray, below: np.ndarray, ratio: float) -> float:
    """Standard error of a ratio of sums over visitors (Cochran 1977, section 9): float (visitors,) each."""
    visitors = np.count_nonzero(below)
    residual = above - ratio * below
    return float(np.sqrt((residual**2).sum() * visitors / max(visitors - 1, 1)) / max(float(below.sum()), 1.0))

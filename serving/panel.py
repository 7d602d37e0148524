"""Heads that read the same rows, scored together by compiled code: probabilities, expected amounts, or effects.

What was decided already (a session that has bought converts) is not what the model says, and what cannot be asked
(whether a visitor returns, where visits may not be linked) has no score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numba import njit

from serving.forest import Forest, margins, plant

if TYPE_CHECKING:
    from serving.heads import Head

SIGMOID: Final = 0
EXPONENTIAL: Final = 1
IDENTITY: Final = 2
LINKS: Final = {"sigmoid_by_age": SIGMOID, "exp_by_age": EXPONENTIAL, "identity_by_age": IDENTITY}
# Where the age of a session stands in a feature vector.
AGE: Final = ("events", "idle_seconds")

# What a score is.
MODEL: Final = 0
DECIDED: Final = 1
NOT_ASKED: Final = 2

_NOWHERE: Final = -1


class Rules(NamedTuple):
    """What makes a score of a margin; a line a head, filled up where heads differ in how much they have.

    ages int64 (H, 2): places of the features that are a session's age; link int64 (H,): of `LINKS`.
    older_events (H, E), older_idle (H, I): where ages begin but the first, infinity where there is none.
    slopes, intercepts (H, E + 1, I + 1): of an age.
    knots (H, K), starts, values, rises (H, K + 1): the calibration's curve in pieces.
    when int64 (H, W), least float64 (H, W): the answer is decided if a feature is at least that; decided (H,): to what.
    needs int64 (H, N): features that must not be missing. Places of -1 are none.
    """

    ages: np.ndarray
    link: np.ndarray
    older_events: np.ndarray
    older_idle: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray
    knots: np.ndarray
    starts: np.ndarray
    values: np.ndarray
    rises: np.ndarray
    when: np.ndarray
    least: np.ndarray
    decided: np.ndarray
    needs: np.ndarray


class Panel:
    """Some heads, scored together.

    Attributes
    ----------
    heads: how many there are.
    tally: int64 (H, 11), how many scores lay up to 0.1, 0.2, ... 1.0, and beyond; total: float64 (H,), their sum. Kept
    here because to count them one by one takes longer than to make them.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        self.heads = len(heads)
        self._forest: Forest = plant([head.trees for head in heads])
        self._rules = _rules(heads)
        self.tally = np.zeros((self.heads, 11), np.int64)
        self.total = np.zeros(self.heads)

    def score(self, rows: np.ndarray, count: int, scores: np.ndarray, states: np.ndarray) -> None:
        """Score the first of some rows, float32 (n, F), into scores float64 (H, n) and states uint8 (H, n); the score
        of what cannot be asked is NaN."""
        _score(self._forest, self._rules, rows, count, scores, states)
        _count(scores, count, self.tally, self.total)

    def said(self, rows: np.ndarray) -> np.ndarray:
        """What the models say of float32 (n, F), decided or not, NaN where they cannot be asked: float64 (H, n)."""
        scores = np.empty((self.heads, len(rows)))
        undecided = self._rules._replace(when=np.full_like(self._rules.when, _NOWHERE))
        states = np.empty(scores.shape, np.uint8)
        _score(self._forest, undecided, np.ascontiguousarray(rows, np.float32), len(rows), scores, states)
        return scores


def _rules(heads: Sequence[Head]) -> Rules:
    places = [{name: place for place, name in enumerate(head.about.features)} for head in heads]
    calibrations = [head.about.calibration for head in heads]
    starts, values, rises = zip(*(calibration.pieces() for calibration in calibrations), strict=True)
    when = [
        [(place[name], least) for name, least in head.about.decided.when if name in place] if head.about.decided else []
        for head, place in zip(heads, places, strict=True)
    ]
    needs = [[place[name] for name in head.about.needs] for head, place in zip(heads, places, strict=True)]
    return Rules(
        ages=np.array([[place[name] for name in AGE] for place in places]),
        link=np.array([LINKS[calibration.kind] for calibration in calibrations], np.int64),
        older_events=_lines([calibration.events[1:] for calibration in calibrations], np.inf),
        older_idle=_lines([calibration.idle_seconds[1:] for calibration in calibrations], np.inf),
        slopes=_grids([calibration.slope for calibration in calibrations]),
        intercepts=_grids([calibration.intercept for calibration in calibrations]),
        knots=_lines([calibration.knots for calibration in calibrations], np.inf),
        starts=_lines(starts, 0.0),
        values=_lines(values, 0.0),
        rises=_lines(rises, 0.0),
        when=_lines([[place for place, _ in line] for line in when], _NOWHERE).astype(np.int64),
        least=_lines([[least for _, least in line] for line in when], 0.0),
        decided=np.array([head.about.decided.value if head.about.decided else 0.0 for head in heads], float),
        needs=_lines(needs, _NOWHERE).astype(np.int64),
    )


def _lines(lines: Sequence[Sequence[float]], filling: float) -> np.ndarray:
    """Lines of different lengths as float64 (lines, longest)."""
    filled = np.full((len(lines), max(map(len, lines))), filling)
    for line, values in zip(filled, lines, strict=True):
        line[: len(values)] = values
    return filled


def _grids(grids: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """Grids of different shapes as float64 (grids, most lines, longest line)."""
    filled = np.zeros((len(grids), max(map(len, grids)), max(len(grid[0]) for grid in grids)))
    for space, grid in zip(filled, grids, strict=True):
        space[: len(grid), : len(grid[0])] = grid
    return filled


@njit(cache=True)
def _passed(bounds: np.ndarray, value: float) -> int:  # pragma: no cover
    """How many of some rising bounds a value has reached: `bisect_right`."""
    passed = 0
    for bound in bounds:
        if not value >= bound:
            break
        passed += 1
    return passed


@njit(cache=True, nogil=True, error_model="numpy")
def _score(forest, rules, rows, count, scores, states):  # type: ignore[no-untyped-def]  # pragma: no cover
    margins(forest, rows, count, scores)
    for head in range(len(rules.ages)):
        for row in range(count):
            values = rows[row]
            state = MODEL
            for place in rules.needs[head]:
                if place >= 0 and np.isnan(values[place]):
                    state = NOT_ASKED
            for number in range(rules.when.shape[1]):
                place = rules.when[head, number]
                if place >= 0 and values[place] >= rules.least[head, number]:
                    state = DECIDED
            states[head, row] = state
            if state == NOT_ASKED:
                scores[head, row] = np.nan
                continue
            if state == DECIDED:
                scores[head, row] = rules.decided[head]
                continue
            margin = scores[head, row]
            events = _passed(rules.older_events[head], values[rules.ages[head, 0]])
            idle = _passed(rules.older_idle[head], values[rules.ages[head, 1]])
            piece = _passed(rules.knots[head], margin)
            curve = rules.rises[head, piece] * (margin - rules.starts[head, piece]) + rules.values[head, piece]
            linear = rules.slopes[head, events, idle] * margin + rules.intercepts[head, events, idle] + curve
            link = rules.link[head]
            if link == SIGMOID:
                scores[head, row] = 1.0 / (1.0 + math.exp(-linear))
            else:
                scores[head, row] = math.exp(linear) if link == EXPONENTIAL else linear


@njit(cache=True, nogil=True)
def _count(scores: np.ndarray, count: int, tally: np.ndarray, total: np.ndarray) -> None:  # pragma: no cover
    for head in range(len(scores)):
        for row in range(count):
            score = scores[head, row]
            if not np.isnan(score):
                tally[head, min(max(math.ceil(score * 10) - 1, 0), 10)] += 1
                total[head] += score

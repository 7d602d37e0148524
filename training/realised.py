"""What became of a window's sessions beside what their scores promised.

In: the rows of one head, their scores and the histogram of the model. Out: a `Realised`, its errors counted over
visitors. Answers that are not known yet are NaN and stay out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from training.config import DriftSettings
from training.datasets import Slice
from training.histogram import Histogram, bin_of, standard_error

# Standard errors beyond which a difference is not chance (two-sided 1 in 370).
_SURE: Final = 3.0
# Standard errors on either side of a 95 % interval.
INTERVAL: Final = 1.96
# Nothing is told of fewer rows: it would be chance, or about somebody.
_LEAST_ROWS: Final = 50
# Session ages told apart: from so many events on, right after an event.
_AGES: Final = (1, 2, 3, 5, 10)


@dataclass(frozen=True)
class Group:
    """Rows of similar scores or of one session age: mean score, mean answer, its standard error over visitors."""

    name: str
    rows: int
    visitors: int
    mean_score: float
    mean_answer: float
    error: float


@dataclass(frozen=True)
class Realised:
    """What became of the window's rows, where it is known.

    Attributes
    ----------
    mean_answer: with its standard error; change: of the mean answer since the histogram, with its standard error.
    ratio: what happened over what the scores promised, with its standard error; ratio_alarm: how far from 1 counts: no
        less than chance may bring, in the window and when the model was tested.
    calibration: expected calibration error over the histogram's score bins, of amounts as a share of their mean;
        calibration_noise: what a calibrated model has on average at this size; calibration_alarm: from where on it
        counts, as the ratio's, and never for amounts.
    by_score, by_age: the groups it consists of, small ones left out.
    """

    rows: int
    sessions: int
    mean_score: float
    mean_answer: float
    mean_answer_error: float
    change: float
    change_error: float
    ratio: float
    ratio_error: float
    ratio_alarm: float
    calibration: float
    calibration_noise: float
    calibration_alarm: float
    by_score: tuple[Group, ...]
    by_age: tuple[Group, ...]

    @property
    def off(self) -> bool:
        """Whether the scores no longer say what happens."""
        return self.calibration >= self.calibration_alarm or abs(self.ratio - 1) >= self.ratio_alarm


def realised(histogram: Histogram, later: Slice, score: np.ndarray, settings: DriftSettings) -> Realised | None:
    """What became of the rows beside their scores, float64 (n,); None where fewer than `min_rows` answers are known."""
    known = ~np.isnan(later.answer)
    if known.sum() < settings.min_rows:
        return None
    part, score = later.take(known), score[known]
    answer = part.answer.astype(np.float64)
    _, visitor = np.unique(part.visitor, return_inverse=True)
    mean_score, mean_answer = float(score.mean()), float(answer.mean())
    promised = max(mean_score, 1e-12)
    by_score = _by_score(histogram, score, answer, visitor)
    scale = max(mean_answer, 1e-12) if histogram.task == "value" else 1.0
    weights = np.array([one.rows for one in by_score]) / len(part)
    gaps = np.array([abs(one.mean_answer - one.mean_score) for one in by_score]) / scale
    errors = np.array([one.error for one in by_score]) / scale
    # of a normal deviation the mean size is sqrt(2 / pi) of its standard error
    noise = float(weights @ errors) * np.sqrt(2 / np.pi)
    # and its deviation, if the bins go wrong together, as they do where one visitor's rows are in several
    deviation = float(weights @ errors) * np.sqrt(1 - 2 / np.pi)
    # when the model was tested, the scores were known to hold no more surely than `gap_error`
    above = max(settings.ece, _SURE * float(np.hypot(deviation, histogram.gap_error)))
    ratio_error = standard_error(answer - score - (mean_answer - mean_score), visitor) / promised
    mean_error = standard_error(answer - mean_answer, visitor)
    return Realised(
        rows=len(part),
        sessions=part.sessions,
        mean_score=mean_score,
        mean_answer=mean_answer,
        mean_answer_error=mean_error,
        change=mean_answer - histogram.mean_answer,
        change_error=float(np.hypot(mean_error, histogram.mean_answer_error)),
        ratio=mean_answer / promised,
        ratio_error=ratio_error,
        ratio_alarm=max(settings.ratio, _SURE * float(np.hypot(ratio_error, histogram.gap_error / promised))),
        calibration=float(weights @ gaps),
        calibration_noise=float(noise),
        calibration_alarm=float(noise + above) if histogram.task == "binary" else float("inf"),
        by_score=tuple(one for one in by_score if one.rows >= _LEAST_ROWS),
        by_age=tuple(one for one in _by_age(part, score, answer, visitor) if one.rows >= _LEAST_ROWS),
    )


def _by_score(histogram: Histogram, score: np.ndarray, answer: np.ndarray, visitor: np.ndarray) -> list[Group]:
    place = bin_of(score, histogram.score.edges)
    ends = [-np.inf, *histogram.score.edges, np.inf]
    groups = [
        _group(f"{ends[number]:.3g} to {ends[number + 1]:.3g}", place == number, score, answer, visitor)
        for number in range(len(ends) - 1)
    ]
    return [one for one in groups if one.rows]


def _by_age(part: Slice, score: np.ndarray, answer: np.ndarray, visitor: np.ndarray) -> list[Group]:
    right_after = part.idle_ms == 0
    ends = [*_AGES[1:], np.inf]
    groups = []
    for least, end in zip(_AGES, ends, strict=True):
        name = f"events {least} on" if np.isinf(end) else f"events {least}-{end - 1}"
        name = f"event {least}" if end == least + 1 else name
        groups.append(_group(name, right_after & (part.prefix >= least) & (part.prefix < end), score, answer, visitor))
    groups.append(_group("silent", ~right_after, score, answer, visitor))
    return groups


def _group(name: str, chosen: np.ndarray, score: np.ndarray, answer: np.ndarray, visitor: np.ndarray) -> Group:
    rows = int(chosen.sum())
    if not rows:
        return Group(name, 0, 0, float("nan"), float("nan"), float("nan"))
    residual = answer[chosen] - score[chosen]
    error = standard_error(residual - residual.mean(), visitor[chosen])
    visitors = len(np.unique(visitor[chosen]))
    return Group(name, rows, visitors, float(score[chosen].mean()), float(answer[chosen].mean()), error)

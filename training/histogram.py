"""What a model's rows looked like: of every feature and of the scores, how many rows lie in which bin.

In: the rows of one head (`training.datasets.Slice`) and their scores. Out: a `Histogram`, small enough to travel with
the model as JSON, to which `training.drift` holds a later window. A missing value has a bin of its own. Rows of a
visitor resemble each other, so beside each share stands its sampling variance over visitors, not over rows: from it
follows what chance alone does to a comparison.

It is made of the test's rows, which the model has not seen and which are read with the tables it carries. The past's
are not: they were read with the tables of earlier windows, and beside them a shop that never changed had a PSI of 4.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from features.definitions import CATALOGUE
from training.datasets import Slice, uniform

FEATURE_BINS: Final = 10
SCORE_BINS: Final = 20
# A number of no more values than this gets a bin for each.
_FEW_VALUES: Final = 12
# More rows do not make the shares noticeably surer, and 120 features of them would take a minute.
MOST_ROWS: Final = 250_000
_FORMAT: Final = 1
_DRAWN: Final = 4  # mixed into pseudonyms, so that who is drawn does not depend on who is tested


@dataclass(frozen=True)
class Distribution:
    """How the values of one number are spread. b bins and one for missing values.

    Attributes
    ----------
    edges: the b - 1 upper ends, increasing, as float32: bin i holds edges[i-1] < value <= edges[i], the last bin all
        above. The first bin lies below the smallest value and is empty where the edges come from.
    shares: of the rows, by bin, b + 1 of them, missing values last; together 1.
    variances: of the shares, over visitors.
    ordered: whether a larger value means more; codes are not.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    variances: tuple[float, ...]
    ordered: bool

    @property
    def missing(self) -> float:
        """The share of missing values."""
        return self.shares[-1]


@dataclass(frozen=True)
class ScoreBin:
    """Rows of similar scores: how many, their mean score and what became of them on average."""

    rows: int
    mean_score: float
    mean_answer: float


@dataclass(frozen=True)
class Histogram:
    """The rows of one head that a later window is compared with.

    Attributes
    ----------
    task: "binary" or "value"; rows, sessions, visitors: how many; first, last: the rows' moments, ms UTC.
    features: by name; score: of the scores; score_bins: one for each bin of `score` but that of missing values.
    mean_answer: the base rate, or the mean amount; mean_answer_error: its standard error over visitors.
    mean_score: what the scores promise; gap_error: standard error of mean answer less mean score: how surely the scores
        were known to hold when the model was new.
    """

    task: str
    rows: int
    sessions: int
    visitors: int
    first: int
    last: int
    features: dict[str, Distribution]
    score: Distribution
    score_bins: tuple[ScoreBin, ...]
    mean_answer: float
    mean_answer_error: float
    mean_score: float
    gap_error: float

    @classmethod
    def of(cls, part: Slice, score: np.ndarray, task: str = "binary") -> Histogram:
        """Count rows and scores, float64 (n,); of more than 250,000 rows those of visitors drawn by a hash.

        Raises
        ------
        ValueError
            There are no rows.
        """
        if not len(part):
            raise ValueError("a histogram of no rows; expected at least one")
        chosen = drawn(part.visitor)
        part, score = part.take(chosen), np.asarray(score, np.float64)[chosen]
        _, visitor = np.unique(part.visitor, return_inverse=True)
        codes = code_features()
        features = {}
        for place, name in enumerate(part.names):
            column = part.matrix[:, place]
            edges = edges_of(column, FEATURE_BINS, codes=name in codes)
            features[name] = spread(column, edges, visitor, ordered=name not in codes)
        spread_score = spread(score, edges_of(score, SCORE_BINS), visitor)
        answer = part.answer.astype(np.float64)
        gap = answer - score
        return cls(
            task=task,
            rows=len(part),
            sessions=part.sessions,
            visitors=int(visitor.max()) + 1,
            first=int(part.now.min()),
            last=int(part.now.max()),
            features=features,
            score=spread_score,
            score_bins=tuple(score_bins(score, part.answer, spread_score.edges)),
            mean_answer=float(answer.mean()),
            mean_answer_error=standard_error(answer - answer.mean(), visitor),
            mean_score=float(score.mean()),
            gap_error=standard_error(gap - gap.mean(), visitor),
        )

    def as_json(self) -> str:
        """The text of histogram.json."""
        return json.dumps({"format": _FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Histogram:
        """The histogram that `as_json` wrote.

        Raises
        ------
        ValueError
            Not such a text, or of another format.
        """
        tree = json.loads(text)
        if not isinstance(tree, dict) or tree.pop("format", None) != _FORMAT:
            raise ValueError(f"no histogram of format {_FORMAT}")
        tree["features"] = {name: _distribution(one) for name, one in tree["features"].items()}
        tree["score"] = _distribution(tree["score"])
        tree["score_bins"] = tuple(ScoreBin(**one) for one in tree["score_bins"])
        return cls(**tree)


def drawn(visitor: np.ndarray, most: int = MOST_ROWS) -> np.ndarray:
    """Which rows to count: all, or those of visitors drawn until about `most` are left. int64 (n,) -> bool (n,)."""
    if len(visitor) <= most:
        return np.ones(len(visitor), bool)
    return uniform(visitor, _DRAWN, 0) < most / len(visitor)


def code_features() -> frozenset[str]:
    """Features whose values are names in disguise (event, channel, device, page kind)."""
    return frozenset(name for name, feature in CATALOGUE.features.items() if feature.unit.endswith("code"))


def edges_of(values: np.ndarray, bins: int, *, codes: bool = False) -> tuple[float, ...]:
    """Upper ends of bins, without that of the last: quantiles, or each value of few; see `Distribution`.

    Codes get every whole number up to the largest, so that a code not seen here has a place of its own.

    >>> edges_of(np.array([2.0, 2.0, 4.0, np.nan]), 10)
    (1.999998, 2.0, 4.0)
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return ()
    distinct = np.unique(known)
    if codes:
        ends = np.arange(distinct[-1] + 1)
    elif len(distinct) <= _FEW_VALUES:
        ends = distinct
    else:
        ends = np.unique(np.quantile(known, np.arange(1, bins) / bins, method="inverted_cdf"))
    lowest = min(distinct[0], ends[0])
    below = lowest - max(abs(lowest) * 1e-6, 1e-6)
    # as short as float32 can be written: the edges travel as text
    return tuple(float(str(end)) for end in np.unique(np.append(below, ends).astype(np.float32)))


def bin_of(values: np.ndarray, edges: Iterable[float]) -> np.ndarray:
    """The bin of each value, missing ones in the last: float (n,) -> int64 (n,)."""
    ends = np.asarray(tuple(edges), np.float32)
    values = np.asarray(values, np.float32)
    return np.where(np.isnan(values), len(ends) + 1, np.searchsorted(ends, values))


def spread(values: np.ndarray, edges: tuple[float, ...], visitor: np.ndarray, *, ordered: bool = True) -> Distribution:
    """How values, float (n,), are spread over bins; visitor: int64 (n,), whose each is, numbered from 0.

    Variance of a share over visitors (the ratio estimator for clusters, Cochran 1977, section 9): the sum over visitors
    of (their rows in the bin - share * their rows)^2 / n^2, times v / (v - 1) for v visitors.
    """
    place, size = bin_of(values, edges), len(edges) + 2
    of_visitor = np.bincount(visitor * size + place, minlength=(int(visitor.max()) + 1) * size).reshape(-1, size)
    rows, visitors = len(values), len(of_visitor)
    shares = of_visitor.sum(axis=0) / rows
    residual = of_visitor - of_visitor.sum(axis=1, keepdims=True) * shares
    variances = (residual**2).sum(axis=0) / rows**2 * visitors / max(visitors - 1, 1)
    return Distribution(edges, tuple(shares.tolist()), tuple(variances.tolist()), ordered)


def score_bins(score: np.ndarray, answer: np.ndarray, edges: tuple[float, ...]) -> list[ScoreBin]:
    """Mean score and mean answer of each bin, 0 where it is empty. score, answer: float (n,)."""
    place, size = bin_of(score, edges), len(edges) + 1
    rows = np.bincount(place, minlength=size)[:size]
    least = np.maximum(rows, 1)
    scores = np.bincount(place, score, minlength=size)[:size] / least
    answers = np.bincount(place, answer, minlength=size)[:size] / least
    return [ScoreBin(*line) for line in zip(rows.tolist(), scores.tolist(), answers.tolist(), strict=True)]


def standard_error(residual: np.ndarray, visitor: np.ndarray) -> float:
    """Of the mean of residuals, float (n,), whose sums differ from visitor to visitor; visitor: int64 (n,) from 0."""
    if not len(residual):
        return float("nan")
    sums = np.bincount(visitor, residual)
    visitors = np.count_nonzero(np.bincount(visitor))
    return float(np.sqrt((sums**2).sum() * visitors / max(visitors - 1, 1)) / len(residual))


def _distribution(tree: dict[str, Any]) -> Distribution:
    return Distribution(tuple(tree["edges"]), tuple(tree["shares"]), tuple(tree["variances"]), tree["ordered"])

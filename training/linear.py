"""The linear model that the trees start from, and how it is written as trees itself.

Small logs carry a straight line long before they carry a tree, and trees that start from the line's score never lose to
it. Each feature is cut into bins by its quantiles; of each bin its mean value and its mean logarithm (with sign) are
terms of a ridge-penalised regression, and so is being missing. What a feature adds to the score is then a step function
of it alone, which is a tree: the linear model and the boosted trees are one LightGBM model, scored by one call.
Missing values have a step of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, TweedieRegressor

from training.config import LinearSettings
from training.datasets import Slice
from training.heads import Head
from training.losses import TWEEDIE_POWER

# Some hundred weights need no more rows.
MOST_ROWS: Final = 50_000
# A standardised term goes no further than this: a linear model would believe the far ends of long tails.
_FURTHEST: Final = 6.0


@dataclass(frozen=True)
class Step:
    """What one feature adds: float64 values[i] up to edges[i], values[-2] above all edges, values[-1] if missing.

    counts: float64, rows of the fit in each of them, at least 1.
    """

    feature: int
    edges: np.ndarray
    values: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class LinearModel:
    """An additive score: intercept and a step function of each feature that matters."""

    intercept: float
    steps: tuple[Step, ...]

    def margin(self, matrix: np.ndarray) -> np.ndarray:
        """Raw scores. float32 (n, F) -> float64 (n,)."""
        total = np.full(len(matrix), self.intercept)
        for step in self.steps:
            total += step.values[_bins(matrix[:, step.feature], step.edges)]
        return total


def constant_model(answer: np.ndarray, head: Head) -> LinearModel:
    """The mean answer for every row."""
    return LinearModel(_link(float(answer.mean()), head.task), ())


def fit_linear(
    part: Slice, head: Head, settings: LinearSettings, inverse_penalties: Sequence[float]
) -> list[LinearModel]:
    """A model for each penalty (scikit-learn's C), on the same rows."""
    whole, (rows, times) = part, part.distinct()
    if rows is None or times is None:
        part = part.thinned(MOST_ROWS)
    else:
        part = part.take(rows)
        kept = part.thinned_positions(MOST_ROWS)
        part, times = part.take(kept), times[kept]
    with ThreadPoolExecutor(2) as pool:
        edges = list(pool.map(lambda column: _edges(column, settings.bins), part.matrix.T))
        bins = list(pool.map(_bins, part.matrix.T, edges))
    terms: list[tuple[int, np.ndarray]] = []
    for feature, (cut, code) in enumerate(zip(edges, bins, strict=True)):
        terms += [(feature, term) for term in _terms(part.matrix[:, feature], code, len(cut) + 1)]
    if not terms:
        return [constant_model(whole.answer, head) for _ in inverse_penalties]
    design = np.empty((len(part), len(terms)), np.float32)
    for place, (feature, term) in enumerate(terms):
        design[:, place] = term[bins[feature]]
    found = []
    for inverse_penalty in inverse_penalties:
        intercept, weights = _regress(design, part.answer, times, head, inverse_penalty)
        values: dict[int, np.ndarray] = {}
        for weight, (feature, term) in zip(weights, terms, strict=True):
            values[feature] = values.get(feature, 0.0) + weight * term
        steps = []
        for feature, value in values.items():
            counts = np.bincount(bins[feature], minlength=len(value)).astype(np.float64)
            rising = head.monotone.get(part.names[feature], 0)
            steps.append(
                Step(feature, edges[feature], _monotone(value, counts, rising), np.maximum(counts, 1.0))
            )  # fmt: skip
        found.append(LinearModel(intercept, tuple(steps)))
    return found


def _edges(column: np.ndarray, bins: int) -> np.ndarray:
    known = column[~np.isnan(column)].astype(np.float64)
    distinct = np.unique(known)
    if len(distinct) <= bins:
        return (distinct[1:] + distinct[:-1]) / 2
    return np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1]))


def _bins(column: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each value, as a tree's `value <= edge` tells it; the last one is that of missing values."""
    return np.where(np.isnan(column), len(edges) + 1, np.searchsorted(edges, column, "left")).astype(np.int16)


def _terms(column: np.ndarray, code: np.ndarray, known: int) -> list[np.ndarray]:
    """Standardised values by bin, those of missing values last: mean, mean logarithm, whether missing."""
    counts = np.bincount(code, minlength=known + 1).astype(np.float64)
    value = np.nan_to_num(column.astype(np.float64))
    terms = []
    for shape in (value, np.sign(value) * np.log1p(np.abs(value))):
        mean = np.bincount(code, shape, minlength=known + 1) / np.maximum(counts, 1)
        mean[known] = np.average(mean[:known], weights=counts[:known]) if counts[:known].any() else 0.0
        terms.append(mean)
    missing = np.zeros(known + 1)
    missing[known] = 1.0
    terms.append(missing)
    found = []
    for term in terms:
        centred = term - np.average(term, weights=counts)
        spread = np.sqrt(np.average(centred**2, weights=counts))
        if spread > 1e-9 * max(np.abs(term).max(), 1.0):
            found.append(np.clip(centred / spread, -_FURTHEST, _FURTHEST))
    return found


def _regress(
    design: np.ndarray, answer: np.ndarray, times: np.ndarray | None, head: Head, inverse_penalty: float
) -> tuple[float, np.ndarray]:
    if head.task == "binary":
        model = LogisticRegression(C=inverse_penalty, solver="newton-cholesky", tol=1e-3)
        model.fit(design, answer, times)
        return float(model.intercept_[0]), model.coef_[0]
    # in units of the mean, so that a penalty means the same in every currency
    mean = float(answer.mean()) or 1.0
    tweedie = TweedieRegressor(
        power=TWEEDIE_POWER, link="log", alpha=1.0 / (inverse_penalty * len(answer)), solver="newton-cholesky", tol=1e-3
    ).fit(design, answer / mean, times)
    return float(tweedie.intercept_) + float(np.log(mean)), tweedie.coef_


def _link(mean: float, task: str) -> float:
    mean = max(mean, 1e-9)
    return float(np.log(mean / max(1.0 - mean, 1e-9))) if task == "binary" else float(np.log(mean))


def _monotone(values: np.ndarray, counts: np.ndarray, rising: int) -> np.ndarray:
    """The nearest steps that only rise (1) or only fall (-1); missing values keep theirs."""
    if not rising or len(values) <= 2:
        return values
    known = slice(0, len(values) - 1)
    fitted = IsotonicRegression(increasing=rising > 0).fit_transform(
        np.arange(len(values) - 1), values[known], sample_weight=np.maximum(counts[known], 1e-9)
    )
    return np.append(fitted, values[-1])


def tree_texts(model: LinearModel) -> list[str]:
    """The model as trees of LightGBM's text format, without their numbers; the first one carries the intercept."""
    steps = model.steps or (Step(0, np.zeros(0), np.zeros(2), np.ones(2)),)
    constants = [model.intercept, *(0.0 for _ in steps[1:])]
    return [_tree(step, constant) for step, constant in zip(steps, constants, strict=True)]


# decision_type: missing values are NaN (8) and go to the right
_MISSING_RIGHT: Final = 8
_HIGHEST: Final = 1.7976931348623157e308


def _tree(step: Step, constant: float) -> str:
    """A balanced search tree over the edges below a root that sends missing values to a leaf of their own.

    Inner nodes are numbered as they are made; a child below zero is the leaf ~child.
    """
    thresholds: list[float] = [_HIGHEST]
    left, right, counts = [0], [~(len(step.values) - 1)], [step.counts.sum()]

    def grow(first: int, last: int) -> int:
        """The node of the leaves `first` to `last`."""
        if first == last:
            return ~first
        node, middle = len(thresholds), (first + last) // 2
        thresholds.append(step.edges[middle])
        counts.append(step.counts[first : last + 1].sum())
        left.append(0)
        right.append(0)
        left[node] = grow(first, middle)
        right[node] = grow(middle + 1, last)
        return node

    left[0] = grow(0, len(step.values) - 2)
    nodes = len(thresholds)
    lines: dict[str, list[Any]] = {
        "num_leaves": [nodes + 1],
        "num_cat": [0],
        "split_feature": [step.feature] * nodes,
        "split_gain": [0] * nodes,
        "threshold": [repr(float(threshold)) for threshold in thresholds],
        "decision_type": [_MISSING_RIGHT] * nodes,
        "left_child": left,
        "right_child": right,
        "leaf_value": [repr(float(value) + constant) for value in step.values],
        "leaf_weight": [int(count) for count in step.counts],
        "leaf_count": [int(count) for count in step.counts],
        "internal_value": [0] * nodes,
        "internal_weight": [int(count) for count in counts],
        "internal_count": [int(count) for count in counts],
        "is_linear": [0],
        "shrinkage": [1],
    }
    return "\n".join(f"{key}={' '.join(map(str, values))}" for key, values in lines.items()) + "\n\n\n"

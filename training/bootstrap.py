"""Resamples of whole visitors, and ranking metrics of all of them in one pass over rows sorted by score.

Rows of one visitor belong together, so intervals come from drawing visitors with replacement, as many as there are
(Field & Welsh 2007, cluster bootstrap). A row counts as often as its visitor is drawn: weights instead of copies. The
rows are sorted once; then every resample is a lane of the same pass. Lane 0 is the sample itself, each visitor once, so
an estimate and its resamples come from the same code. What is undefined in a resample (no positive, say) is NaN there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit

# Division as numpy's, which a compiler can do for several lanes at once; Python's own has to look out for zeros.
_COMPILED: Final = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True)
class Resamples:
    """How often each visitor is drawn. V visitors, L lanes.

    number: int32 (n,), the visitor of each row; weights: u1 (V, L), ones in lane 0.
    """

    number: np.ndarray
    weights: np.ndarray

    def narrowed(self, lanes: int) -> Resamples:
        """The sample and the first `lanes` resamples of it."""
        if lanes + 1 >= self.weights.shape[1]:
            return self
        return Resamples(self.number, np.ascontiguousarray(self.weights[:, : lanes + 1]))

    def take(self, rows: np.ndarray) -> Resamples:
        """The same draws, of some rows."""
        return Resamples(self.number[rows], self.weights)


@dataclass(frozen=True)
class Ranked:
    """n rows by falling score, those of equal score side by side as one of G groups.

    order: int64 (n,), positions; starts: int64 (G + 1,), where each group begins, and n; score: float64 (G,).
    """

    order: np.ndarray
    starts: np.ndarray
    score: np.ndarray


def resample_visitors(visitor: np.ndarray, resamples: int, seed: int = 0) -> Resamples:
    """Draw as many visitors as there are, `resamples` times. visitor: (n,), any numbers.

    >>> drawn = resample_visitors(np.array([7, 7, 9]), 3)
    >>> drawn.number, drawn.weights.sum(axis=0)
    (array([0, 0, 1], dtype=int32), array([2, 2, 2, 2], dtype=uint64))
    """
    known, number = np.unique(visitor, return_inverse=True)
    weights = np.ones((len(known), 1 + resamples), np.uint8)
    random = np.random.default_rng(seed)
    for lane in range(1, 1 + resamples):
        drawn = random.integers(0, max(len(known), 1), len(known))
        # nobody is drawn 256 times: the probability is below 1e-500
        weights[:, lane] = np.bincount(drawn, minlength=len(known))
    return Resamples(number.astype(np.int32), weights)


def ranked(score: np.ndarray, order: np.ndarray | None = None) -> Ranked:
    """Rows by falling score. score: float64 (n,); order: positions in that order, where they are known already.

    >>> ranked(np.array([0.1, 0.3, 0.1])).starts
    array([0, 1, 3])
    """
    if order is None:
        order = np.argsort(-score, kind="stable")
    falling = score[order]
    begins = np.flatnonzero(np.concatenate([[True], falling[1:] != falling[:-1]])[: len(falling)])
    return Ranked(order, np.append(begins, len(falling)), falling[begins])


def weighted_sums(columns: Sequence[np.ndarray], drawn: Resamples) -> np.ndarray:
    """The sum of each column in each lane: k columns (n,) -> float64 (k, L)."""
    visitors, lanes = drawn.weights.shape
    by_visitor = np.array([np.bincount(drawn.number, column, minlength=visitors) for column in columns])
    found = np.zeros((len(columns), lanes))
    _add_visitors(by_visitor.reshape(len(columns), visitors), drawn.weights, found)
    return found


def captured(amount: np.ndarray, ranks: Ranked, drawn: Resamples, shares: Sequence[float]) -> np.ndarray:
    """How much of `amount` lies in the share of rows with the highest scores: float64 (shares, L).

    Of rows with the same score at the border each counts alike, as it would on average in random order.
    """
    (rows,) = weighted_sums([np.ones(len(amount))], drawn)
    found = np.zeros((len(shares), len(rows)))
    targets = np.multiply.outer(np.asarray(shares, np.float64), rows)
    falling = amount[ranks.order].astype(np.float64)
    _capture(drawn.number[ranks.order], falling, ranks.starts, drawn.weights, targets, found)
    return found


@dataclass(frozen=True)
class Ranking:
    """Metrics of scores of a yes-or-no question in each lane, float64 (L,)."""

    auc: np.ndarray
    pr_auc: np.ndarray
    ece: np.ndarray


def binary_ranking(answer: np.ndarray, ranks: Ranked, bin_ends: np.ndarray, drawn: Resamples) -> Ranking:
    """AUC, average precision and expected calibration error of every lane; all as scikit-learn's with weights.

    answer: 0 or 1, (n,); bin_ends: int64, places in falling order where a calibration bin ends, n the last of them.
    """
    lanes = drawn.weights.shape[1]
    if not len(answer):
        nothing = np.full(lanes, np.nan)
        return Ranking(nothing, nothing, nothing)
    ends_bin = np.isin(ranks.starts[1:], bin_ends)
    yes = answer[ranks.order] > 0
    found = _rank(drawn.number[ranks.order], yes, ranks.starts, ranks.score, ends_bin, drawn.weights)
    above, precision, gaps, positives, rows = found
    with np.errstate(invalid="ignore", divide="ignore"):
        return Ranking(above / (positives * (rows - positives)), precision / positives, gaps / rows)


def spearman(amount: np.ndarray, ranks: Ranked, drawn: Resamples) -> np.ndarray:
    """Rank correlation of score and amount in every lane, float64 (L,), ties at their mean rank."""
    if not len(amount):
        return np.full(drawn.weights.shape[1], np.nan)
    by_amount = ranked(amount)
    places = _mean_ranks(drawn.number[by_amount.order], by_amount.starts, drawn.weights)
    # the amounts that most rows share need no look-up: only what differs from their rank is added row by row
    group = np.empty(len(amount), np.int32)
    group[by_amount.order] = np.repeat(np.arange(len(by_amount.score)), np.diff(by_amount.starts))
    common = int(np.argmax(np.diff(by_amount.starts)))
    order = ranks.order
    (rows,) = weighted_sums([np.ones(len(amount))], drawn)
    return _correlation(drawn.number[order], group[order], common, ranks.starts, by_amount.starts,
                        drawn.number[by_amount.order], places, rows, drawn.weights)  # fmt: skip


def interval(lanes: np.ndarray, confidence: float, *, centred: bool = False) -> tuple[float, float]:
    """Percentile interval (Efron 1979) of the resamples, lanes 1 and up; NaN where there are none that are defined.

    centred: move it so that the resamples' median is the estimate. For a statistic that noise can only raise, such as
    the calibration error: a resample carries the sample's noise and its own, so its own percentiles lie too high.

    >>> interval(np.array([0.5, 0.25, 0.5, 0.75]), 0.5)
    (0.375, 0.625)
    """
    defined = lanes[1:][~np.isnan(lanes[1:])]
    if not len(defined) or np.isnan(lanes[0]):
        return float("nan"), float("nan")
    low, middle, high = np.quantile(defined, [(1 - confidence) / 2, 0.5, (1 + confidence) / 2])
    if centred:
        return float(lanes[0] + low - middle), float(lanes[0] + high - middle)
    return float(low), float(high)


@njit(**_COMPILED)
def _add_visitors(by_visitor: Any, weights: Any, found: Any) -> None:
    for column in range(by_visitor.shape[0]):
        total = found[column]
        for visitor in range(by_visitor.shape[1]):
            value = by_visitor[column, visitor]
            if value != 0.0:
                drawn = weights[visitor]
                for lane in range(total.shape[0]):
                    total[lane] += value * drawn[lane]


@njit(**_COMPILED)
def _capture(visitor: Any, amount: Any, starts: Any, weights: Any, targets: Any, found: Any) -> None:
    lanes = weights.shape[1]
    seen, here, worth, most = np.zeros(lanes), np.zeros(lanes), np.zeros(lanes), np.zeros(lanes)
    for share in range(targets.shape[0]):
        most = np.maximum(most, targets[share])
    for group in range(starts.shape[0] - 1):
        here[:] = 0.0
        worth[:] = 0.0
        for row in range(starts[group], starts[group + 1]):
            drawn = weights[visitor[row]]
            value = amount[row]
            for lane in range(lanes):
                here[lane] += drawn[lane]
            if value != 0.0:
                for lane in range(lanes):
                    worth[lane] += value * drawn[lane]
        for share in range(targets.shape[0]):
            target, total = targets[share], found[share]
            for lane in range(lanes):
                taken = min(max(target[lane] - seen[lane], 0.0), here[lane])
                total[lane] += worth[lane] * (taken / max(here[lane], 1.0))
        for lane in range(lanes):
            seen[lane] += here[lane]
        # looking costs as much as a group
        if group % 64 == 63 and (seen >= most).all():
            return


@njit(**_COMPILED)
def _rank(visitor: Any, yes: Any, starts: Any, score: Any, ends_bin: Any, weights: Any) -> Any:
    """Pairs in the right order, sum of precisions, sum of the bins' gaps, positives, rows: float64 (L,) each."""
    lanes = weights.shape[1]
    pairs, precision, gaps = np.zeros(lanes), np.zeros(lanes), np.zeros(lanes)
    positives, rows, expected, earlier = np.zeros(lanes), np.zeros(lanes), np.zeros(lanes), np.zeros(lanes)
    here, hits = np.zeros(lanes), np.zeros(lanes)
    for group in range(starts.shape[0] - 1):
        here[:] = 0.0
        hits[:] = 0.0
        hit = False
        for row in range(starts[group], starts[group + 1]):
            drawn = weights[visitor[row]]
            for lane in range(lanes):
                here[lane] += drawn[lane]
            if yes[row]:
                hit = True
                for lane in range(lanes):
                    hits[lane] += drawn[lane]
        value = score[group]
        for lane in range(lanes):
            # a negative row is below every positive one seen before, and half of those it ties with
            pairs[lane] += (here[lane] - hits[lane]) * (positives[lane] + 0.5 * hits[lane])
            rows[lane] += here[lane]
            expected[lane] += value * here[lane]
        if hit:
            for lane in range(lanes):
                positives[lane] += hits[lane]
                precision[lane] += hits[lane] * (positives[lane] / max(rows[lane], 1.0))
        if ends_bin[group]:
            for lane in range(lanes):
                gaps[lane] += abs(positives[lane] - earlier[lane] - expected[lane])
                earlier[lane] = positives[lane]
                expected[lane] = 0.0
    return pairs, precision, gaps, positives, rows


@njit(**_COMPILED)
def _mean_ranks(visitor: Any, starts: Any, weights: Any) -> Any:
    """The mean rank of each group in each lane, float32 (G, L): half ranks are exact up to 8 million rows."""
    lanes = weights.shape[1]
    seen, here = np.zeros(lanes), np.zeros(lanes)
    found = np.zeros((starts.shape[0] - 1, lanes), np.float32)
    for group in range(starts.shape[0] - 1):
        here[:] = 0.0
        for row in range(starts[group], starts[group + 1]):
            drawn = weights[visitor[row]]
            for lane in range(lanes):
                here[lane] += drawn[lane]
        for lane in range(lanes):
            found[group, lane] = seen[lane] + 0.5 * (here[lane] + 1.0)
            seen[lane] += here[lane]
    return found


@njit(**_COMPILED)
def _correlation(
    visitor: Any, amount: Any, common: int, starts: Any, amount_starts: Any, amount_visitor: Any, places: Any,
    rows: Any, weights: Any,
) -> Any:  # fmt: skip
    """Pearson's correlation of the two ranks, from sums over centred ranks."""
    lanes = weights.shape[1]
    product, spread, other = np.zeros(lanes), np.zeros(lanes), np.zeros(lanes)
    seen, here, shifted = np.zeros(lanes), np.zeros(lanes), np.zeros(lanes)
    middle = 0.5 * (rows + 1.0)
    usual = places[common]
    for group in range(starts.shape[0] - 1):
        here[:] = 0.0
        shifted[:] = 0.0
        for row in range(starts[group], starts[group + 1]):
            drawn = weights[visitor[row]]
            for lane in range(lanes):
                here[lane] += drawn[lane]
            if amount[row] != common:
                place = places[amount[row]]
                for lane in range(lanes):
                    shifted[lane] += drawn[lane] * (place[lane] - usual[lane])
        for lane in range(lanes):
            rank = seen[lane] + 0.5 * (here[lane] + 1.0) - middle[lane]
            # sum of rank * (rank of the amount - usual): what is usual cancels, because centred ranks add up to nothing
            product[lane] += rank * shifted[lane]
            spread[lane] += here[lane] * rank * rank
            seen[lane] += here[lane]
    for group in range(amount_starts.shape[0] - 1):
        here[:] = 0.0
        for row in range(amount_starts[group], amount_starts[group + 1]):
            drawn = weights[amount_visitor[row]]
            for lane in range(lanes):
                here[lane] += drawn[lane]
        for lane in range(lanes):
            rank = places[group, lane] - middle[lane]
            other[lane] += here[lane] * rank * rank
    found = np.full(lanes, np.nan)
    for lane in range(lanes):
        if spread[lane] > 0.0 and other[lane] > 0.0:
            found[lane] = product[lane] / np.sqrt(spread[lane] * other[lane])
    return found

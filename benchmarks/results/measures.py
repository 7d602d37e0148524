"""How well scores order and estimate, at session ages, with intervals over resampled visitors.

In: the rows of a test and scores of several models. Out: for each model the PR-AUC over the base rate, averaged over
prefixes, the AUC, and what its scores are worth as estimates. The same visitors are drawn for every model, so the ratio
of two models is far surer than either. A score may be NaN where a model has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from sklearn.metrics import log_loss

from training.bootstrap import binary_ranking, captured, ranked, resample_visitors, weighted_sums
from training.bootstrap import interval as percentile_interval
from training.datasets import Slice
from training.evaluation import expected_calibration_error
from training.heads import Task

RESAMPLES: Final = 500
CONFIDENCE: Final = 0.95
# A prefix with fewer rows of either answer says too little to be averaged with the others.
LEAST_ROWS: Final = 15
NO_BINS: Final = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Measured:
    """One model on one test.

    lift, auc: float64 (1 + resamples,), the value on the test, then on each resample; estimates: by name, see
    `as_probability` and `as_amount`.
    """

    lift: np.ndarray
    auc: np.ndarray
    estimates: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """All models on the test of one head.

    prefixes: those that were averaged; rows, sessions, visitors: right after events; base_rate: of these rows.
    """

    prefixes: tuple[int, ...]
    rows: int
    sessions: int
    visitors: int
    base_rate: float
    models: dict[str, Measured]

    def ratio(self, over: str, model: str = "Lotse") -> np.ndarray:
        """Lift of `model` over that of another, float64 (1 + resamples,)."""
        return self.models[model].lift / self.models[over].lift


def compare(
    test: Slice,
    scores: Mapping[str, np.ndarray],
    prefixes: Sequence[int],
    bins: int,
    task: Task = "binary",
    resamples: int = RESAMPLES,
) -> Comparison:
    """Measure all models on the same rows and the same resamples; scores: float64 (n,) by model.

    Amounts are ordered against whether there was any.
    """
    after, positive = test.idle_ms == 0, test.answer > 0
    events = np.flatnonzero(after)
    ages = {prefix: np.flatnonzero(after & (test.prefix == prefix)) for prefix in prefixes}
    averaged = {prefix: rows for prefix, rows in ages.items() if _enough(positive[rows])}
    drawn = resample_visitors(test.visitor, resamples)
    models = {}
    for model, score in scores.items():
        lifts = []
        for rows in averaged.values():
            yes, draws = positive[rows].astype(np.float64), drawn.take(rows)
            positives, size = weighted_sums([yes, np.ones(len(rows))], draws)
            with np.errstate(invalid="ignore", divide="ignore"):
                lifts.append(binary_ranking(yes, ranked(score[rows]), NO_BINS, draws).pr_auc * size / positives)
        whole = binary_ranking(positive[events], ranked(score[events]), NO_BINS, drawn.take(events))
        models[model] = Measured(
            lift=np.mean(lifts, axis=0) if lifts else np.full(1 + resamples, np.nan),
            auc=whole.auc,
            estimates=as_amount(test, score) if task == "value" else as_probability(test, score, bins),
        )
    return Comparison(
        prefixes=tuple(averaged),
        rows=len(events),
        sessions=len(np.unique(test.session[events])),
        visitors=len(np.unique(test.visitor[events])),
        base_rate=float(positive[events].mean()),
        models=models,
    )


def as_probability(test: Slice, score: np.ndarray, bins: int) -> dict[str, float]:
    """Log loss and calibration error right after events, and log loss at the idle checkpoints."""
    after, positive = test.idle_ms == 0, test.answer > 0
    return {
        "log loss": _log_loss(positive[after], score[after]),
        "ECE": expected_calibration_error(positive[after].astype(np.float64), score[after], bins),
        "log loss, idle": _log_loss(positive[~after], score[~after]),
    }


def as_amount(test: Slice, score: np.ndarray) -> dict[str, float]:
    """Right after events: revenue of the tenth of the rows with the highest scores as a share of all, the squared error
    saved beside always the mean, and the sum of scores over the sum of amounts."""
    after = test.idle_ms == 0
    amount, expected = test.answer[after].astype(np.float64), score[after]
    ((top,),) = captured(amount, ranked(expected), resample_visitors(test.visitor[after], 0), (0.1,))
    return {
        "revenue in the top 10 %": float(top / amount.sum()),
        "R²": float(1 - ((amount - expected) ** 2).mean() / amount.var()),
        "sum / true": float(expected.sum() / amount.sum()),
    }


def interval(values: np.ndarray, *, centred: bool = False) -> tuple[float, float]:
    """Percentile interval over the resamples; values: the estimate, then the resamples; centred: on the estimate."""
    return percentile_interval(values, CONFIDENCE, centred=centred)


def _enough(positive: np.ndarray) -> bool:
    yes = int(positive.sum())
    return min(yes, len(positive) - yes) >= LEAST_ROWS


def _log_loss(positive: np.ndarray, score: np.ndarray) -> float:
    if not len(score) or np.isnan(score).any():
        return float("nan")
    return float(log_loss(positive, np.clip(score, 1e-12, 1 - 1e-12), labels=[False, True]))

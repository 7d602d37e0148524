"""How good the scores are, by session age, beside the base rate and logistic regression on the same rows.

Metrics: AUC, PR-AUC (average precision), log loss, Brier score and ECE (expected calibration error over bins of equal
size). A slice with one class has no AUC: it is NaN, and said so, not left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from training.datasets import Slice

COLUMNS = ("age", "model", "rows", "sessions", "base_rate", "auc", "pr_auc", "log_loss", "brier", "ece")


def expected_calibration_error(target: np.ndarray, score: np.ndarray, bins: int) -> float:
    """Mean distance between score and target over `bins` bins of equally many rows (Naeini et al. 2015, equal mass).

    target: outcomes 0/1 or, where they are known, true probabilities; score: float64; both (n,).

    >>> expected_calibration_error(np.array([0, 1, 0, 1]), np.array([0.5, 0.5, 0.5, 0.5]), 2)
    0.0
    """
    if not len(score):
        return float("nan")
    order = np.argsort(score, kind="stable")
    total = 0.0
    # rows of equal score stay in one bin, or the order among them would decide
    edges = np.searchsorted(score[order], np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1])), "right")
    for part in np.split(order, np.unique(edges)):
        if len(part):
            total += abs(float(target[part].mean() - score[part].mean())) * len(part)
    return total / len(score)


def metrics(answer: np.ndarray, score: np.ndarray, bins: int) -> dict[str, float]:
    """All metrics of one set of rows. answer: u1 (n,); score: float64 (n,)."""
    both = 0 < answer.sum() < len(answer)
    if not len(answer):
        return dict.fromkeys(COLUMNS[4:], float("nan"))
    clipped = np.clip(score, 1e-12, 1 - 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is missing is reported as NaN below
        return {
            "base_rate": float(answer.mean()),
            "auc": float(roc_auc_score(answer, score)) if both else float("nan"),
            "pr_auc": float(average_precision_score(answer, score)) if answer.any() else float("nan"),
            "log_loss": float(log_loss(answer, clipped, labels=[0, 1])),
            "brier": float(brier_score_loss(answer, score)),
            "ece": expected_calibration_error(answer, score, bins),
        }


def evaluate(part: Slice, scores: Mapping[str, np.ndarray], prefixes: Sequence[int], bins: int) -> pd.DataFrame:
    """One line for each age and model.

    Ages: `prefix_n` (right after the n-th event), `events` (right after any event), `idle` (at the idle checkpoints),
    `all` (every row). Columns: see COLUMNS.
    """
    right_after = part.idle_ms == 0
    ages = {f"prefix_{n}": right_after & (part.prefix == n) for n in prefixes}
    ages |= {"events": right_after, "idle": ~right_after, "all": np.ones(len(part.answer), bool)}
    lines = []
    for age, chosen in ages.items():
        for model, score in scores.items():
            lines.append(
                {
                    "age": age,
                    "model": model,
                    "rows": int(chosen.sum()),
                    "sessions": len(np.unique(part.session[chosen])),
                    **metrics(part.answer[chosen], score[chosen], bins),
                }
            )
    return pd.DataFrame(lines, columns=list(COLUMNS))

"""All that is known of one head on its test: what its pictures, its page and its card are made of.

In: a model, the test and the scores of the model and of what stands beside it. Out: `Findings`; and what models and
session ages are called and coloured wherever they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from training.config import EvaluationSettings
from training.curves import earliness, ranking_curves, reliability_curves, scores_by_age
from training.datasets import Slice
from training.document import BLUE, GREY
from training.evaluation import evaluate
from training.explain import Explanation, explain
from training.heads import Head
from training.model import HeadModel

_COLOURS: Final = {"lotse": BLUE, "logistic": "#d9822b", "pages": "#7b6fb0", "base_rate": GREY}
# For estimators of the user's own, in turn.
_MORE_COLOURS: Final = ("#3a7d44", "#a8577e", "#8c6d31", "#4f9da6", "#5b5f97")
_LABELS: Final = {
    "lotse": "Lotse",
    "logistic": "logistic regression",
    "pages": "pages so far",
    "base_rate": "base rate",
}
_AGES: Final = {"events": "right after an event", "idle": "during silence", "all": "all rows"}
METRICS: Final = {
    "auc": "AUC",
    "pr_auc": "PR-AUC",
    "pr_auc_ratio": "PR-AUC / base rate",
    "log_loss": "log loss",
    "brier": "Brier",
    "ece": "ECE",
    "ece_noise": "ECE by chance",
    "mean": "mean",
    "predicted": "predicted",
    "ratio": "predicted / observed",
    "mae": "MAE",
    "rmse": "RMSE",
    "d2": "D²",
    "spearman": "Spearman",
}


@dataclass(frozen=True)
class Findings:
    """One head on its test.

    Attributes
    ----------
    task: "binary" or "value"; part: the test. The model itself is "lotse" wherever models are named.
    table: see `training.evaluation.evaluate`.
    reliability, ranking, by_age, early: see `reliability_curves`, `ranking_curves` (of every model), `scores_by_age`
        and `earliness` in `training.curves`.
    """

    head: str
    question: str
    task: str
    part: Slice
    table: pd.DataFrame
    reliability: dict[str, pd.DataFrame]
    ranking: dict[str, pd.DataFrame]
    by_age: pd.DataFrame
    early: pd.DataFrame
    explanation: Explanation
    settings: EvaluationSettings


def find(
    head: Head, model: HeadModel, part: Slice, scores: Mapping[str, np.ndarray], settings: EvaluationSettings
) -> Findings:
    """Measure and explain a model. scores: float64 (n,) by model, those of `model` itself as "lotse"."""
    ours = scores["lotse"]
    return Findings(
        head=head.name,
        question=head.question,
        task=head.task,
        part=part,
        table=evaluate(part, scores, settings, head.task),
        reliability=reliability_curves(part, ours, settings),
        ranking=ranking_curves(part, scores),
        by_age=scores_by_age(part, ours),
        early=earliness(part, ours, settings),
        explanation=explain(model, part, ours),
        settings=settings,
    )


def colours(models: Iterable[str]) -> dict[str, str]:
    """A colour for each model, the same in every picture.

    >>> colours(["lotse", "forest"])
    {'lotse': '#0b6e99', 'forest': '#3a7d44'}
    """
    models = list(models)
    others = [model for model in models if model not in _COLOURS]
    own = {model: _MORE_COLOURS[place % len(_MORE_COLOURS)] for place, model in enumerate(others)}
    return {model: _COLOURS.get(model) or own[model] for model in models}


def model_label(model: str) -> str:
    """What a model is called in pictures and tables."""
    return _LABELS.get(model, model)


def metric_label(metric: str) -> str:
    """What a metric is called.

    >>> metric_label("log_loss"), metric_label("lift_10")
    ('log loss', 'lift at 10 %')
    """
    return METRICS.get(metric) or metric.replace("lift_", "lift at ") + " %"


def answer_labels(task: str) -> tuple[str, str]:
    """What rows with and without a positive answer are called.

    >>> answer_labels("binary")
    ('turned out yes', 'turned out no')
    """
    return ("turned out yes", "turned out no") if task == "binary" else ("with an amount", "without")


def age_label(age: str) -> str:
    """What a session age or a segment is called.

    >>> age_label("prefix_1"), age_label("seconds_30"), age_label("device=mobile")
    ('after event 1', 'after 30 s', 'device: mobile')
    """
    kind, _, number = age.partition("_")
    if number:
        return f"after event {number}" if kind == "prefix" else f"after {number} s"
    return _AGES.get(age, age.replace("=", ": "))

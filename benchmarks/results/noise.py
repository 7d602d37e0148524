"""How much of a difference is chance: the same log split in other ways, and with fewer visitors to learn from.

Which visitors are tested is drawn anew in each split (`split.seed`). Between splits the test's visitors and the models
change; the spread of a figure over them is the error bar that an interval within one test cannot show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.results import rivals
from benchmarks.results.logs import Log, scores_of
from benchmarks.results.measures import compare
from benchmarks.results.rivals import Learner
from training.config import TrainingSettings
from training.datasets import Slice, uniform
from training.heads import Head, heads_of
from training.pipeline import prepare

SPLITS: Final = 4
SHARES: Final = (0.5,)
# A number of its own beside those of `training.datasets`, so that a share is drawn independently of folds and sides.
_LEARNED: Final = 17
ASKED: Final[dict[str, Learner]] = {
    "Lotse": rivals.lotse,
    "logistic regression": rivals.logistic,
    "CatBoost": rivals.catboost,
}


@dataclass(frozen=True)
class Spread:
    """One figure's values over the splits, float64 (splits,) by model."""

    lift: dict[str, np.ndarray]
    auc: dict[str, np.ndarray]


def over_splits(log: Log, head: str, splits: int = SPLITS) -> Spread:
    """Lift and AUC of each learner in each split; of Lotse with shares of the past's visitors, too."""
    history = log.read()
    lift: dict[str, list[float]] = {}
    auc: dict[str, list[float]] = {}
    for seed in range(1, splits + 1):
        settings = log.settings(f"split.seed={seed}")
        asked = heads_of(settings)[head]
        slices = prepare(history.events, settings).slices(asked)
        scores = scores_of(ASKED | _with_fewer(), slices, asked, settings, f"{log.name}, split {seed},")
        evaluation = settings.evaluation
        found = compare(slices["test"], scores, evaluation.prefixes, evaluation.bins, asked.task, resamples=0)
        for name, measured in found.models.items():
            lift.setdefault(name, []).append(float(measured.lift[0]))
            auc.setdefault(name, []).append(float(measured.auc[0]))
    return Spread(
        {name: np.array(values) for name, values in lift.items()},
        {name: np.array(values) for name, values in auc.items()},
    )


def _with_fewer() -> dict[str, Learner]:
    def of_share(share: float) -> Learner:
        def learn(past: Slice, test: Slice, head: Head, settings: TrainingSettings) -> np.ndarray:
            chosen = uniform(past.visitor, _LEARNED, settings.split.seed) < share
            return rivals.lotse(past.take(chosen), test, head, settings)

        return learn

    return {f"Lotse, {share:.0%} of the visitors": of_share(share) for share in SHARES}

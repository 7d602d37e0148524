"""Fitting one head: a linear model, trees on top of it, calibrated by session age, regularised by the inner folds."""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm as lgb
import numpy as np

from training.boosting import Tick, merged
from training.calibration import AGE_FEATURES, Calibration, fit_calibration
from training.config import TrainingSettings
from training.datasets import Slice
from training.heads import Head
from training.inner import ENOUGH_TO_CALIBRATE, CrossFit, cross_fit, fit_recipe, out_of_fold
from training.linear import LinearModel


@dataclass(frozen=True)
class HeadModel:
    """A fitted head.

    Attributes
    ----------
    head, task: its name, and "binary" or "value"; names: the F features.
    booster: LightGBM model whose first trees are the linear model; calibration: from its margin to the score.
    base_rate: mean answer of the past; inner: what the inner folds said; linear: where the trees start, of a model
        that was fitted here.
    """

    head: str
    task: str
    names: tuple[str, ...]
    booster: lgb.Booster
    calibration: Calibration
    base_rate: float
    inner: CrossFit
    linear: LinearModel | None = None

    def margin(self, matrix: np.ndarray) -> np.ndarray:
        """Raw scores: float32 (n, F) -> float64 (n,)."""
        if not len(matrix):
            return np.zeros(0)
        return np.asarray(self.booster.predict(matrix, raw_score=True))

    def score(self, matrix: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, or expected amounts: float32 (n, F) -> float64 (n,)."""
        events, idle_seconds = (matrix[:, self.names.index(name)] for name in AGE_FEATURES)
        return self.calibration(self.margin(matrix), events, idle_seconds)


def fit_head(
    past: Slice, head: Head, settings: TrainingSettings, tick: Tick | None = None, others: Slice | None = None
) -> HeadModel:
    """Fit on the past; `tick` is called with (hundredths done, 100).

    others: rows of other visitors, whom nothing is learned of, to calibrate by; where they are too few, rows of the
    past are scored by models of its other visitors.
    """
    chosen = cross_fit(past, head, settings, _part(tick, 0, 40))
    linear, booster = fit_recipe(past, head, settings, chosen, _part(tick, 40, 70))
    whole = merged(linear, booster, chosen.rounds)
    if others is not None and len(others) >= ENOUGH_TO_CALIBRATE:
        rows, margin = others, np.asarray(whole.predict(others.matrix, raw_score=True))
    else:
        places, margin = out_of_fold(past, head, settings, chosen, _part(tick, 70, 99))
        rows = past.take(places)
    calibration = fit_calibration(margin, rows, head.task, settings.calibration)
    if tick:
        tick(100, 100)
    return HeadModel(head.name, head.task, past.names, whole, calibration, float(past.answer.mean()), chosen, linear)


def _part(tick: Tick | None, first: int, last: int) -> Tick | None:
    """Progress of a part as hundredths of the whole."""
    if tick is None:
        return None
    return lambda done, most: tick(first + (last - first) * done // max(most, 1), 100)

"""Fitting one head: LightGBM with early stopping on log loss, calibrated on a slice of its own, baselines beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from training.calibration import Sigmoid, fit_sigmoid
from training.config import CalibrationSettings, LightgbmSettings
from training.datasets import Slice

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class HeadModel:
    """A fitted head: a booster whose margin the sigmoid turns into a probability."""

    booster: lgb.Booster
    calibration: Sigmoid
    base_rate: float

    def score(self, matrix: np.ndarray) -> np.ndarray:
        """Calibrated probabilities. float32 (n, F) -> float64 (n,)."""
        if not len(matrix):
            return np.zeros(0)
        return self.calibration(np.asarray(self.booster.predict(matrix, raw_score=True)))


def fit_head(
    slices: dict[str, Slice],
    names: Sequence[str],
    settings: LightgbmSettings,
    calibration: CalibrationSettings,
    tick: Tick | None = None,
) -> HeadModel:
    """Fit on "fit", stop by "early", calibrate on "calibration". `tick` is called with (trees, most trees)."""
    fit, early, held_out = slices["fit"], slices["early"], slices["calibration"]
    parameters = {
        **settings.model_dump(exclude={"num_boost_round", "early_stopping_rounds"}),
        "objective": "binary",
        "metric": "binary_logloss",
        "bagging_freq": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    data = lgb.Dataset(fit.matrix, fit.answer, feature_name=list(names), params=parameters, free_raw_data=True)
    watch = lgb.Dataset(early.matrix, early.answer, reference=data)
    callbacks = [lgb.early_stopping(settings.early_stopping_rounds, verbose=False)]
    if tick:
        callbacks.append(lambda env: tick(env.iteration + 1, settings.num_boost_round))
    booster = lgb.train(
        parameters, data, settings.num_boost_round, valid_sets=[watch], valid_names=["early"], callbacks=callbacks
    )
    # keep only the trees up to the best one: what is stored is what scores
    booster = lgb.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))
    margin = np.asarray(booster.predict(held_out.matrix, raw_score=True))
    sigmoid = fit_sigmoid(
        margin, held_out.answer, positive_sessions=held_out.positive_sessions, least=calibration.min_positives
    )
    return HeadModel(booster, sigmoid, float(fit.answer.mean()))


def fit_logistic(fit: Slice) -> Pipeline:
    """Logistic regression on the same rows: missing values imputed and marked, features standardised."""
    model = make_pipeline(
        SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler(), LogisticRegression(max_iter=300)
    )
    return model.fit(fit.matrix, fit.answer)

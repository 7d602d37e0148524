"""Whom something persuades: the effect of an arm on each unit, learned from an experiment that is over.

In: units with their features at the trigger, the assigned arm, its propensity and the outcome. Out: one LightGBM model
of the effect, in the outcome's unit, that is scored like every other head.

Three steps. (1) One model of the outcome by features, arm and their products (an S-learner), fitted in folds of
visitors; the difference of its answers for both arms is a first guess of the effect, smooth, but as wrong as the model.
(2) A DR-learner (Kennedy, "Towards optimal doubly robust estimation of heterogeneous causal effects", 2023) sets it
right: pseudo-outcomes, the guess corrected by what was observed over the logged propensity, have the effect as their
mean whatever the model is worth, because the propensity is known, also where an allocation was adaptive. Regressed on
the guess they say how far it can be believed, and trees on what remains find what it has missed. (3) All of it is
written as one LightGBM model by fitting its answers, which have no noise: what is served is as plain as every other
head.

Trees on pseudo-outcomes alone, tried first, are as good where the effect is easy to see and find nothing where it is
not: on Hillstrom's men's e-mail Qini was 0.004 beside an S-learner's 0.015 (`benchmarks/uplift.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from sklearn.model_selection import GroupKFold

from training.calibration import Calibration

_FOLDS: Final = 5
_MOST_ROUNDS: Final = 200
_OUTCOME_ROUNDS: Final = 100
_WRITTEN_ROUNDS: Final = 150
# Standard deviation of the prior of how far the first guess can be believed.
_SLOPE_DEVIATION: Final = 0.5


@dataclass(frozen=True)
class Units:
    """Units of one experiment. n units, F features.

    Attributes
    ----------
    names: the F features; matrix: float32 (n, F), NaN is missing.
    treated, control: bool (n,): was given the arm in question, was given the control; neither: another arm.
    propensity: float64 (n,), of the arm that was given; outcome: float64 (n,), known.
    visitor: int64 (n,), whose units are never parted.

    Raises
    ------
    ValueError
        Propensities outside (0, 1], or outcomes that are not known.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    treated: np.ndarray
    control: np.ndarray
    propensity: np.ndarray
    outcome: np.ndarray
    visitor: np.ndarray

    def __post_init__(self) -> None:
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            raise ValueError("a propensity outside (0, 1]; every unit needs the probability its arm was assigned with")
        if np.isnan(self.outcome).any():
            raise ValueError("an outcome is missing; leave units out whose outcome is not known yet")

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def binary(self) -> bool:
        """Whether outcomes are yes or no."""
        return bool(np.isin(self.outcome, (0.0, 1.0)).all())

    @property
    def sign_weight(self) -> np.ndarray:
        """1 / propensity of treated units, -1 / propensity of the control's, 0 of others, float64 (n,)."""
        return (self.treated.astype(float) - self.control.astype(float)) / self.propensity

    def take(self, chosen: np.ndarray) -> Units:
        """Some of the units, by mask or by position."""
        return replace(
            self, **{name: value[chosen] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        )


@dataclass(frozen=True)
class UpliftModel:
    """A fitted uplift: like a `training.model.HeadModel`, as far as the registry looks.

    average: mean effect with its standard error over visitors; slope: how far the outcome model's guess of who differs
    is believed, 0 to about 1; rounds: trees that correct it, 0 where that would not help on other visitors.
    """

    names: tuple[str, ...]
    booster: lgb.Booster
    average: float
    error: float
    slope: float
    rounds: int
    head: str = "uplift"
    task: str = "uplift"

    @property
    def calibration(self) -> Calibration:
        """None: the target's mean is the effect already."""
        return Calibration.identity("uplift")

    @property
    def base_rate(self) -> float:
        """What is answered where the model cannot be asked."""
        return self.average

    def score(self, matrix: np.ndarray) -> np.ndarray:
        """The effect on each unit, in the outcome's unit: float32 (n, F) -> float64 (n,)."""
        if not len(matrix):
            return np.zeros(0)
        return np.asarray(self.booster.predict(matrix, raw_score=True))


def fit_uplift(units: Units, seed: int = 7, threads: int = 1) -> UpliftModel:
    """Learn whom the arm persuades."""
    guess = _guess(units, seed, threads)
    target = guess.corrected(units)
    average = float(target.mean())
    error = float(np.sqrt((_by_visitor(target - average, units.visitor) ** 2).sum())) / len(units)
    slope = _slope(guess.effect, target, units.visitor)
    missed = target - average - slope * (guess.effect - guess.effect.mean())
    parameters = _correction_parameters(len(units), seed, threads)
    rounds = _rounds(units, missed, parameters)
    answer = average + slope * (guess.of_all(units.matrix) - guess.effect.mean())
    if rounds:
        data = lgb.Dataset(units.matrix, missed, params=parameters)
        answer += lgb.train(parameters, data, rounds).predict(units.matrix)
    return UpliftModel(units.names, _as_one(units, answer, seed, threads), average, error, slope, rounds)


@dataclass(frozen=True)
class _Guess:
    """Outcomes expected by models of other visitors' units, float64 (n,) with the arm and with the control, and these
    models, one a fold."""

    treated: np.ndarray
    control: np.ndarray
    models: list[lgb.Booster]

    @property
    def effect(self) -> np.ndarray:
        return self.treated - self.control

    def corrected(self, units: Units) -> np.ndarray:
        """Pseudo-outcomes."""
        own = np.where(units.treated, self.treated, self.control)
        return np.asarray(self.effect + units.sign_weight * (units.outcome - own))

    def of_all(self, matrix: np.ndarray) -> np.ndarray:
        """The effect by the mean of all models."""
        asked = [_with_arm(matrix, np.full(len(matrix), arm)) for arm in (True, False)]
        return np.mean([model.predict(asked[0]) - model.predict(asked[1]) for model in self.models], axis=0)


def pseudo_outcomes(units: Units, seed: int = 7, threads: int = 1) -> np.ndarray:
    """For each unit a number whose expectation, given its features, is the effect on it, float64 (n,)."""
    return _guess(units, seed, threads).corrected(units)


def _guess(units: Units, seed: int, threads: int) -> _Guess:
    answers, models = np.empty((2, len(units))), []
    parameters = _outcome_parameters(units, seed, threads)
    compared = units.treated | units.control
    known = _with_arm(units.matrix, units.treated)
    for learned, held in GroupKFold(_FOLDS).split(units.matrix, groups=units.visitor):
        rows = learned[compared[learned]]
        data = lgb.Dataset(known[rows], units.outcome[rows], params=parameters)
        model = lgb.train(parameters, data, _OUTCOME_ROUNDS)
        for place, arm in enumerate((True, False)):
            answers[place, held] = model.predict(_with_arm(units.matrix[held], np.full(len(held), arm)))
        models.append(model)
    return _Guess(answers[0], answers[1], models)


def _with_arm(matrix: np.ndarray, treated: np.ndarray) -> np.ndarray:
    """Features, arm, and the features of treated units once more: float32 (n, 2 F + 1)."""
    return np.hstack([matrix, treated[:, None], np.where(treated[:, None], matrix, 0)]).astype(np.float32)


def _slope(guess: np.ndarray, target: np.ndarray, visitor: np.ndarray) -> float:
    """The slope of pseudo-outcomes over the guess (the best linear predictor of Chernozhukov et al. 2018), held to 1 by
    a normal prior, and never below 0."""
    centred = guess - guess.mean()
    told = float((centred**2).sum())
    if told < 1e-12:
        return 0.0
    found = float(centred @ target) / told
    rest = target - target.mean() - found * centred
    variance = float((_by_visitor(centred * rest, visitor) ** 2).sum()) / told**2
    weights = 1 / max(variance, 1e-12), 1 / _SLOPE_DEVIATION**2
    return max((weights[0] * found + weights[1]) / sum(weights), 0.0)


def _as_one(units: Units, answer: np.ndarray, seed: int, threads: int) -> lgb.Booster:
    """One model that answers the same: noise is not learned here, only shape."""
    parameters = {
        "objective": "regression",
        "learning_rate": 0.1,
        "num_leaves": 31,
        "min_data_in_leaf": 10,
        "max_bin": 255,
        "seed": seed,
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    data = lgb.Dataset(units.matrix, answer, feature_name=list(units.names), params=parameters)
    return lgb.train(parameters, data, _WRITTEN_ROUNDS)


def _rounds(units: Units, target: np.ndarray, parameters: dict[str, Any]) -> int:
    """How many trees tell other visitors' effects best; 0 if none tell more than the average."""
    losses, none = np.zeros(_MOST_ROUNDS), 0.0
    for learned, held in GroupKFold(_FOLDS).split(units.matrix, groups=units.visitor):
        data = lgb.Dataset(units.matrix[learned], target[learned], params=parameters)
        watch = lgb.Dataset(units.matrix[held], target[held], reference=data)
        curve: dict[str, Any] = {}
        lgb.train(parameters, data, _MOST_ROUNDS, valid_sets=[watch], callbacks=[lgb.record_evaluation(curve)])
        losses += len(held) * np.array(curve["valid_0"]["l2"])
        none += float(((target[held] - target[learned].mean()) ** 2).sum())
    best = int(losses.argmin())
    return best + 1 if losses[best] < none else 0


def _correction_parameters(units: int, seed: int, threads: int) -> dict[str, Any]:
    """Small trees of large leaves: the target's noise is a hundred times its signal."""
    return {
        "objective": "regression",
        "metric": "l2",
        "learning_rate": 0.03,
        "num_leaves": 4,
        "min_data_in_leaf": max(units // 100, 20),
        "lambda_l2": units / 100,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.5,
        "bagging_freq": 1,
        "max_bin": 63,
        "seed": seed,
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _outcome_parameters(units: Units, seed: int, threads: int) -> dict[str, Any]:
    return {
        "objective": "binary" if units.binary else "regression",
        "learning_rate": 0.05,
        "num_leaves": 8,
        "min_data_in_leaf": 100,
        "lambda_l2": 20.0,
        "feature_fraction": 0.5,
        "max_bin": 63,
        "seed": seed,
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _by_visitor(values: np.ndarray, visitor: np.ndarray) -> np.ndarray:
    _, number = np.unique(visitor, return_inverse=True)
    return np.bincount(number, values)

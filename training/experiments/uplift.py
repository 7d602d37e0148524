"""Whom something persuades: the effect of an arm on each unit, learned from an experiment that is over.

In: units with their features at the trigger, the assigned arm, its propensity and the outcome. Out: one LightGBM model
of the effect, in the outcome's unit, that is scored like every other head.

A DR-learner (Kennedy, "Towards optimal doubly robust estimation of heterogeneous causal effects", 2023): outcomes are
modelled by arm on other visitors' units, corrected by what was observed over the logged propensity, and the difference
is regressed on the features. Because the propensity is known, also where an allocation was adaptive, the regression's
target has the effect as its mean whatever the outcome models are worth. It ends in one plain model; a T-learner would
need two per score, an X-learner four and a propensity besides (`benchmarks/uplift.py` has both beside it, by
scikit-uplift and EconML, which know no logged propensities and no visitors with several units).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from sklearn.model_selection import GroupKFold

from training.calibration import Calibration

_FOLDS: Final = 5
_MOST_ROUNDS: Final = 400


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

    average: mean effect with its standard error over visitors; rounds: trees of least loss, 0 where features tell
    nothing about the effect: then everybody has the average one.
    """

    names: tuple[str, ...]
    booster: lgb.Booster
    average: float
    error: float
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
    target = pseudo_outcomes(units, seed, threads)
    average = float(target.mean())
    sums = _by_visitor(target - average, units.visitor)
    error = float(np.sqrt((sums**2).sum())) / len(units)
    parameters = _effect_parameters(len(units), seed, threads)
    rounds = _rounds(units, target, parameters)
    # without trees a model of one leaf: the average effect
    booster = lgb.train(
        parameters if rounds else {**parameters, "min_data_in_leaf": len(units)},
        lgb.Dataset(units.matrix, target, feature_name=list(units.names), params=parameters),
        max(rounds, 1),
    )
    return UpliftModel(units.names, booster, average, error, rounds)


def pseudo_outcomes(units: Units, seed: int = 7, threads: int = 1) -> np.ndarray:
    """For each unit a number whose expectation, given its features, is the effect on it, float64 (n,)."""
    expected = {arm: np.empty(len(units)) for arm in ("treated", "control")}
    parameters = _outcome_parameters(units, seed, threads)
    for learned, held in GroupKFold(_FOLDS).split(units.matrix, groups=units.visitor):
        for arm, found in expected.items():
            rows = learned[getattr(units, arm)[learned]]
            data = lgb.Dataset(units.matrix[rows], units.outcome[rows], params=parameters)
            found[held] = lgb.train(parameters, data, 100).predict(units.matrix[held])
    own = np.where(units.treated, expected["treated"], expected["control"])
    return np.asarray(expected["treated"] - expected["control"] + units.sign_weight * (units.outcome - own))


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


def _effect_parameters(units: int, seed: int, threads: int) -> dict[str, Any]:
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

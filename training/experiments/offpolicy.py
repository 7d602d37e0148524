"""What another policy would have brought, estimated from the log of the one that ran.

In: units with the arm that was assigned, its propensity and the outcome, and what probability the other policy would
have given each arm. Out: an estimate of the mean outcome under the other policy, with an interval over clusters that is
corrected for skewness.

- `ips`: inverse propensity scoring (Horvitz and Thompson 1952): unbiased, wide where policies differ much.
- `snips`: self-normalised (Hajek 1971; Swaminathan and Joachims, NeurIPS 2015): a ratio, biased by O(1/n), narrower.
- `direct`: a model of the outcome alone: narrow, and as wrong as the model. Its interval knows nothing of that; it is
  here to be compared with, not to be believed.
- `doubly_robust`: the model, corrected by IPS of its residuals (Robins 1994; Dudik et al., ICML 2011): unbiased
  because propensities are logged, narrower the better the model. The one to use.

Written here because Open Bandit Pipeline, the library for this, has had no release since 2023 and cannot be installed
beside our lock (0.5.7 wants torch 1.12, which there is not for Python 3.11); `benchmarks/offpolicy.py` runs both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.stats import t as student

from features.allocation import Table

# Below so many units nothing is told of a group.
SMALLEST: Final = 50
_FOLDS: Final = 5
_FEW_ARMS: Final = 10
COVARIATES: Final = ("bounce", "conversion", "exit", "age_events", "age_seconds")


@dataclass(frozen=True)
class Estimate:
    """A mean outcome per unit under a policy.

    Attributes
    ----------
    value, low, high: with its interval; error: standard error over clusters.
    units: that were used; effective: how many of the policy's own units would tell as much, by Kish's formula.
    heaviest: the largest share of all weight that one unit has; above 0.05 or so the interval cannot be relied on.
    """

    estimator: str
    value: float
    low: float
    high: float
    error: float
    units: int
    effective: float
    heaviest: float


@dataclass(frozen=True)
class Logged:
    """Units of a log. n units, A arms.

    Attributes
    ----------
    arm: int64 (n,), which was assigned; propensity: float64 (n,), its probability then.
    outcome: float64 (n,), known; target: float64 (n, A), probabilities of the other policy.
    cluster: int64 (n,), units that belong together, such as a visitor's.

    Raises
    ------
    ValueError
        Propensities outside (0, 1], probabilities that do not sum to 1, outcomes that are not known.
    """

    arm: np.ndarray
    propensity: np.ndarray
    outcome: np.ndarray
    target: np.ndarray
    cluster: np.ndarray

    def __post_init__(self) -> None:
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            raise ValueError("a propensity outside (0, 1]; every unit needs the probability its arm was assigned with")
        if np.isnan(self.outcome).any():
            raise ValueError("an outcome is missing; leave units out whose outcome is not known yet")
        if not np.allclose(self.target.sum(axis=1), 1, atol=1e-3):
            raise ValueError("the other policy's probabilities of the arms do not sum to 1")

    def __len__(self) -> int:
        return len(self.arm)

    @property
    def weight(self) -> np.ndarray:
        """How much more often the other policy would have assigned what was assigned, float64 (n,)."""
        return np.asarray(self.target[np.arange(len(self)), self.arm] / self.propensity)

    def take(self, chosen: np.ndarray) -> Logged:
        """Some of the units."""
        return replace(self, **{name: value[chosen] for name, value in vars(self).items()})


def ips(logged: Logged, confidence: float = 0.95) -> Estimate:
    """Inverse propensity scoring."""
    part = logged.weight * logged.outcome
    return _estimate("IPS", logged, float(part.mean()), part - part.mean(), confidence)


def snips(logged: Logged, confidence: float = 0.95) -> Estimate:
    """Self-normalised inverse propensity scoring."""
    weight = logged.weight
    mean = max(float(weight.mean()), 1e-12)
    value = float((weight * logged.outcome).mean()) / mean
    return _estimate("SNIPS", logged, value, weight * (logged.outcome - value) / mean, confidence)


def direct(logged: Logged, expected: np.ndarray, confidence: float = 0.95) -> Estimate:
    """The model alone; expected: float64 (n, A), outcome of each unit under each arm, from a model that has not seen
    the unit (`cross_fitted`)."""
    part = (logged.target * expected).sum(axis=1)
    return _estimate("DM", logged, float(part.mean()), part - part.mean(), confidence)


def doubly_robust(logged: Logged, expected: np.ndarray, confidence: float = 0.95) -> Estimate:
    """The model and inverse propensity scoring of what it missed; expected as of `direct`."""
    missed = logged.outcome - expected[np.arange(len(logged)), logged.arm]
    part = (logged.target * expected).sum(axis=1) + logged.weight * missed
    return _estimate("DR", logged, float(part.mean()), part - part.mean(), confidence)


def cross_fitted(
    logged: Logged, covariates: np.ndarray, model: Callable[[bool], Any] | None = None, folds: int = _FOLDS
) -> np.ndarray:
    """The expected outcome of each unit under each arm, float64 (n, A), by models of the other clusters' units.

    covariates: float64 (n, F), may be missing; model: makes a scikit-learn estimator, of a probability if its argument
    says that outcomes are yes or no. By default a penalised linear model of covariates and arm, and of their products
    where there are few arms.
    """
    from sklearn.model_selection import GroupKFold  # noqa: PLC0415

    binary = bool(np.isin(logged.outcome, (0.0, 1.0)).all())
    make = model or _linear
    arms = logged.target.shape[1]
    expected = np.empty((len(logged), arms))
    known = _design(covariates, np.eye(arms)[logged.arm])
    for learned, held in GroupKFold(folds).split(known, groups=logged.cluster):
        if len(np.unique(logged.outcome[learned])) < 2:
            expected[held] = logged.outcome[learned].mean()
            continue
        fitted = make(binary).fit(known[learned], logged.outcome[learned])
        for arm in range(arms):
            asked = _design(covariates[held], np.tile(np.eye(arms)[arm], (len(held), 1)))
            expected[held, arm] = fitted.predict_proba(asked)[:, 1] if binary else fitted.predict(asked)
    return expected


def policy_value(
    units: pd.DataFrame, arms: Sequence[str], goal: str, table: Table, score: str | None, confidence: float = 0.95
) -> pd.DataFrame:
    """What an allocation would have brought for an experiment's units: a line an estimator, and one of what was.

    units: the table of units of one experiment (`features.experiments`); table: the allocation's probabilities, by the
    column `score` if it has bins. Held units are assigned by the fixed shares, as the allocation would.

    Raises
    ------
    ValueError
        Fewer than 50 units whose outcome is known.
    """
    known = units[units[goal].notna() & ~units["forced"].astype(bool)]
    if len(known) < SMALLEST:
        raise ValueError(f"{len(known)} units with a known {goal!r}; an estimate needs {SMALLEST}")
    scores = known[score].to_numpy(float) if score else np.full(len(known), np.nan)
    held = known["holdback"].to_numpy(bool)
    target = np.array(
        [
            table.of(None if np.isnan(one) else one, held=bool(is_held))
            for one, is_held in zip(scores, held, strict=True)
        ]
    )
    logged = Logged(
        arm=pd.Index(arms).get_indexer(pd.Index(known["arm"])).astype(np.int64),
        propensity=known["propensity"].to_numpy(float),
        outcome=known[goal].to_numpy(float),
        target=target,
        cluster=known["visitor"].to_numpy(np.int64),
    )
    covariates = known[[name for name in COVARIATES if name in known]].to_numpy(float)
    expected = cross_fitted(logged, covariates)
    itself, mean = replace(logged, target=_as_it_was(logged)), float(logged.outcome.mean())
    found = [
        _estimate("logged", itself, mean, logged.outcome - mean, confidence),
        ips(logged, confidence),
        snips(logged, confidence),
        doubly_robust(logged, expected, confidence),
    ]  # fmt: skip
    return pd.DataFrame([vars(one) for one in found])


def _as_it_was(logged: Logged) -> np.ndarray:
    """A policy under which every weight is 1."""
    arms = logged.target.shape[1]
    rest = (1 - logged.propensity) / max(arms - 1, 1)
    target = np.tile(rest[:, None], (1, arms))
    target[np.arange(len(logged)), logged.arm] = logged.propensity
    return target


def _estimate(name: str, logged: Logged, value: float, influence: np.ndarray, confidence: float) -> Estimate:
    """With the interval of a mean over clusters; influence: float64 (n,), each unit's part in the deviation."""
    _, number = np.unique(logged.cluster, return_inverse=True)
    sums = np.bincount(number, influence)
    clusters = len(sums)
    error = float(np.sqrt((sums**2).sum() * clusters / max(clusters - 1, 1)) / len(logged))
    weight = logged.weight
    effective = float(weight.sum() ** 2 / max((weight**2).sum(), 1e-300))
    sure = float(student.ppf(0.5 + confidence / 2, max(clusters - 1, 1)))
    spread, skew = error * np.sqrt(clusters), _skewness(sums)
    heaviest = float(weight.max() / max(weight.sum(), 1e-300))
    # no mean lies beyond what one outcome can be
    low, high = (value - spread * _deviation(bound, skew, clusters) for bound in (sure, -sure))
    low = max(low, 0.0) if logged.outcome.min() >= 0 else low
    high = min(high, 1.0) if np.isin(logged.outcome, (0.0, 1.0)).all() else high
    return Estimate(name, value, low, high, error, len(logged), effective, heaviest)


def _skewness(sums: np.ndarray) -> float:
    centred = sums - sums.mean()
    return float((centred**3).mean() / max((centred**2).mean() ** 1.5, 1e-300))


def _deviation(bound: float, skew: float, clusters: int) -> float:
    """How far the mean is from the truth at a bound of Student's t, in standard deviations of a cluster.

    Corrected for skewness by Hall's cubic transformation ("On the removal of skewness by transformation", 1992):
    few clicks, each of much weight, make means skewed, and a symmetric interval too low.
    """
    plain = bound / np.sqrt(clusters)
    if abs(skew) < 1e-6:
        return float(plain)
    return float(3 / skew * (np.cbrt(1 + skew * (plain - skew / (6 * clusters))) - 1))


def _design(covariates: np.ndarray, arm: np.ndarray) -> np.ndarray:
    """Covariates and arm, float64 (n, F) and one-hot (n, A), side by side, with their products up to 10 arms."""
    products = [covariates * arm[:, [place]] for place in range(arm.shape[1])] if arm.shape[1] <= _FEW_ARMS else []
    return np.hstack([covariates, arm, *products])


def _linear(binary: bool) -> Any:
    from sklearn.impute import SimpleImputer  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression, Ridge  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    last = LogisticRegression(C=0.1, max_iter=1000) if binary else Ridge(10.0)
    imputer = SimpleImputer(strategy="constant", fill_value=0.0, add_indicator=True, keep_empty_features=True)
    return make_pipeline(imputer, StandardScaler(), last)

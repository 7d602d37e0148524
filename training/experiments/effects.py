"""What an arm changes: means of all arms by weighted regression within each phase, and the phases combined.

Within a phase each arm has a linear regression of the outcome on the scores at the trigger (CUPED with a slope an arm,
as Lin, 2013), weighted by one over the propensity; its value at the mean scores is the arm's mean. statsmodels fits it,
with errors that need no equal variances, clustered by visitor where visitors have several units. Phases are combined by
weights that follow from how many units they have and not from what came out, so nothing an allocation does to the mix
of arms over time can pass for an effect. A unit whose outcome is not known is left out of that goal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import statsmodels.api as sm
from scipy.stats import kurtosis
from statsmodels.stats.meta_analysis import combine_effects

from features.experiments import LEAST_UNITS, Goal
from training.experiments.table import Units

Array = npt.NDArray[np.float64]
# Units (of a normal outcome) as which the variance of all arms counts beside an arm's own: of a rare outcome a small
# arm has seen too little to know its variance. With 0, always-valid intervals of an arm of 5 % and a rate of 0.5 % were
# wrong in 40 % of A/A tests; with 10 to 100 in at most 3 %.
_PRIOR_UNITS: Final = 30.0


@dataclass(frozen=True)
class ArmMeans:
    """The arms of one phase.

    units: [arms], of known outcome; effective: [arms], equally weighted ones that would tell as much.
    mean: [arms], adjusted; covariance: [arms, arms] of the means.
    """

    units: npt.NDArray[np.int64]
    effective: Array
    mean: Array
    covariance: Array


@dataclass(frozen=True)
class Effect:
    """An arm beside the control.

    Attributes
    ----------
    goal, arm: names; units, control_units: of known outcome, in the phases that count.
    mean, control_mean: adjusted, of the same phases in the same weights; covariance: [2, 2] of (control_mean, mean).
    effective_units: units of a balanced test of two arms that would tell as much; the time of always-valid intervals.
    phases: how many count; differ_p: whether the effect differs between them (Cochran's Q), NaN with one.
    narrowed: share of the difference's variance that the scores take away; NaN without scores.
    """

    goal: Goal
    arm: str
    units: int
    control_units: int
    mean: float
    control_mean: float
    covariance: Array
    effective_units: float
    phases: int
    differ_p: float
    narrowed: float

    @property
    def difference(self) -> float:
        """Mean minus the control's."""
        return self.mean - self.control_mean

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        (control, both), (_, own) = self.covariance.tolist()
        return math.sqrt(max(control + own - 2 * both, 0.0))

    @property
    def z(self) -> float:
        """Difference over its standard error; 0 where all units came out alike."""
        return self.difference / self.error if self.error > 0 else 0.0

    @property
    def lift(self) -> float:
        """Difference over the control's mean; NaN where that is 0."""
        return self.difference / self.control_mean if self.control_mean else float("nan")

    @property
    def lift_error(self) -> float:
        """Standard error of the lift (delta method)."""
        if not self.control_mean:
            return float("nan")
        gradient = np.array([-self.mean / self.control_mean, 1.0]) / self.control_mean
        return math.sqrt(max(float(gradient @ self.covariance @ gradient), 0.0))

    @property
    def log_ratio(self) -> tuple[float, float]:
        """Logarithm of mean over control's mean, which is nearer to normal than the lift, and its standard error; NaN
        unless both are above 0."""
        if min(self.mean, self.control_mean) <= 0:
            return float("nan"), float("nan")
        return math.log(self.mean / self.control_mean), self.lift_error * self.control_mean / self.mean

    def difference_interval(self, critical: float) -> tuple[float, float]:
        """Of so many standard errors on either side."""
        return self.difference - critical * self.error, self.difference + critical * self.error

    def lift_interval(self, critical: float) -> tuple[float, float]:
        """Fieller's interval: the lifts that a test with this critical value does not rule out.

        It leaves out 0 exactly if that of the difference does. Without bounds while the control's mean is not told from
        0.
        """
        (a, b), (_, d) = self.covariance
        control, own, square = self.control_mean, self.mean, critical**2
        lead = control**2 - square * a
        half = control * own - square * b
        rest = own**2 - square * d
        if lead <= 0 or control < 0:
            return -np.inf, np.inf
        root = np.sqrt(max(half**2 - lead * rest, 0.0))
        return float((half - root) / lead - 1), float((half + root) / lead - 1)


def arm_means(
    outcome: Array, arm: npt.NDArray[np.int64], arms: int, weight: Array, scores: Array, visitor: npt.NDArray[np.int64]
) -> ArmMeans | None:
    """Means of the arms of one phase; None if one of them has no more units than the regression has terms.

    outcome, weight: [units], weight one over the propensity; scores: [units, scores], none missing; visitor: [units].
    """
    units = np.bincount(arm, minlength=arms)
    if units.min() <= scores.shape[1] + 2:
        return None
    centred = scores - np.average(scores, axis=0, weights=weight)
    dummies = (arm[:, None] == np.arange(arms)).astype(float)
    design = np.hstack([dummies, *(dummies * score[:, None] for score in centred.T)])
    clusters = len(np.unique(visitor))
    clustered = clusters < len(outcome)
    kind, groups = ("cluster", {"groups": visitor}) if clustered else ("HC1", None)
    fit = sm.WLS(outcome, design, weights=weight).fit(cov_type=kind, cov_kwds=groups)
    slopes = fit.params[arms:].reshape(-1, arms)
    # the mean scores are themselves an estimate, the same for all arms: it matters where their slopes differ
    spread = (centred.T * weight) @ centred / weight.sum() / clusters
    covariance = fit.cov_params()[:arms, :arms] + slopes.T @ spread @ slopes
    effective = np.bincount(arm, weight, arms) ** 2 / np.bincount(arm, weight**2, arms)
    residual = outcome - design @ fit.params
    covariance += np.diag(_less_sure(residual, arm, weight, arms) / effective)
    return ArmMeans(units, effective, fit.params[:arms], covariance)


def _less_sure(residual: Array, arm: npt.NDArray[np.int64], weight: Array, arms: int) -> Array:
    """What to add to each arm's variance of one unit: the way to that of all arms, as far as its own is not known.

    It takes as many more units to know a variance as the kurtosis is higher: of a rate of 1 %, a hundred times as many.
    """
    squares = residual**2
    own = np.bincount(arm, weight**2 * squares, arms) / np.bincount(arm, weight**2, arms)
    known = np.bincount(arm, minlength=arms) / max(kurtosis(residual, fisher=False) if squares.any() else 1.0, 1.0)
    return _PRIOR_UNITS / (known + _PRIOR_UNITS) * (squares.mean() - own)


def effects(units: Units, goal: Goal, *, adjust: bool = True, least: int = LEAST_UNITS) -> list[Effect | None]:
    """Every arm but the first beside it; None where no phase has `least` units of known outcome in both.

    adjust: by the scores at the trigger, where there are some.
    """
    found = _phases(units, goal, units.scored if adjust else ())
    bare = _phases(units, goal, ()) if adjust and units.scored else None
    compared: list[Effect | None] = []
    for arm in range(1, len(units.definition.arms)):
        effect = _combine(goal, units.definition.arms[arm], arm, found, least)
        if effect is not None and bare is not None:
            without = _combine(goal, effect.arm, arm, bare, least)
            if without is not None and without.error > 0:
                effect = Effect(**{**vars(effect), "narrowed": 1 - effect.error**2 / without.error**2})
        compared.append(effect)
    return compared


def _phases(units: Units, goal: Goal, scored: tuple[str, ...]) -> list[tuple[list[int], ArmMeans]]:
    """Of each phase the arms that are in it, and their means."""
    frame = units.frame
    outcome = frame[goal.column].to_numpy()
    known = ~np.isnan(outcome)
    found = []
    for phase in np.unique(frame["phase"]):
        rows = known & (frame["phase"] == phase).to_numpy()
        counts = np.bincount(units.arm[rows], minlength=len(units.definition.arms))
        there = [place for place, count in enumerate(counts) if count > len(scored) + 2]
        rows &= np.isin(units.arm, there)
        if len(there) < 2:
            continue
        part = frame[rows]
        means = arm_means(
            outcome[rows], np.searchsorted(there, units.arm[rows]), len(there), 1 / part["propensity"].to_numpy(),
            _scores(part[list(scored)].to_numpy()), part["visitor"].to_numpy(),
        )  # fmt: skip
        if means is not None:
            found.append((there, means))
    return found


def _scores(values: Array) -> Array:
    """What the scores say, in directions that are not correlated; what is missing is as the mean is."""
    if not values.shape[1]:
        return values
    told = ~np.isnan(values).all(axis=0)
    values = values[:, told]
    values = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0))[:, spread > 1e-9] / spread[spread > 1e-9]
    # scores that say the same (of one model, or one minus the other) would leave the slopes undefined
    lengths, directions = np.linalg.eigh(values.T @ values / max(len(values), 1))
    return values @ directions[:, lengths > 1e-6]


def _combine(goal: Goal, name: str, arm: int, found: list[tuple[list[int], ArmMeans]], least: int) -> Effect | None:
    """Phases weighted by the units of a balanced test that would tell as much: it maximises what is known."""
    parts = []
    for there, means in found:
        if 0 not in there or arm not in there:
            continue
        both = [there.index(0), there.index(arm)]
        if means.units[both].min() >= least:
            balanced = 4 / (1 / means.effective[both]).sum()
            parts.append((balanced, means.units[both], means.mean[both], means.covariance[np.ix_(both, both)]))
    if not parts:
        return None
    balanced, counts, mean, covariance = (np.array(column) for column in zip(*parts, strict=True))
    share = balanced / balanced.sum()
    differ_p = float("nan")
    variance = covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1]
    if len(parts) > 1 and (variance > 0).all():
        differ_p = float(combine_effects(mean[:, 1] - mean[:, 0], variance).test_homogeneity().pvalue)
    control_units, own_units = (int(count) for count in counts.sum(axis=0))
    control_mean, own_mean = (float(value) for value in share @ mean)
    return Effect(
        goal, name, own_units, control_units, own_mean, control_mean, np.tensordot(share**2, covariance, 1),
        float(balanced.sum()), len(parts), differ_p, float("nan"),
    )  # fmt: skip

"""An arm beside the control: the difference, the lift, and the phases of an experiment combined.

Phases are combined by weights that follow from how many units they have and not from what came out, so nothing an
allocation does to the mix of arms over time can pass for an effect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.experiments import Goal
from features.judging.means import ArmMeans, Array


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


def combine(
    goal: Goal, name: str, arm: int, found: Sequence[tuple[Sequence[int], ArmMeans]], least: int
) -> Effect | None:
    """Arm number `arm` beside the control, phases weighted by the units of a balanced test that would tell as much: it
    maximises what is known.

    found: of each phase the arms that are in it, and their means. None where no phase has `least` units in both.
    """
    parts = []
    for there, means in found:
        if 0 not in there or arm not in there:
            continue
        both = [list(there).index(0), list(there).index(arm)]
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
        from statsmodels.stats.meta_analysis import combine_effects  # noqa: PLC0415  (a service judges one phase)

        differ_p = float(combine_effects(mean[:, 1] - mean[:, 0], variance).test_homogeneity().pvalue)
    control_units, own_units = (int(count) for count in counts.sum(axis=0))
    control_mean, own_mean = (float(value) for value in share @ mean)
    return Effect(
        goal, name, own_units, control_units, own_mean, control_mean, np.tensordot(share**2, covariance, 1),
        float(balanced.sum()), len(parts), differ_p, float("nan"),
    )  # fmt: skip

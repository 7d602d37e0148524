"""Means of arms from sums over units, each unit weighted by one over the propensity with which it got its arm.

The sums add up, over files and over machines, and are as large for ten units as for ten million. They hold all that
the means, their errors and how far these can be trusted take, so that what is counted as sessions close is judged as a
table of units is. Errors need no equal variances, and are clustered: units of one visitor are in one cluster. A cluster
may hold several visitors, who are independent of each other; some hundred clusters are enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
# Units (of a normal outcome) as which the variance of all arms counts beside an arm's own: of a rare outcome a small
# arm has seen too little to know its variance. With 0, always-valid intervals of an arm of 5 % and a rate of 0.5 % were
# wrong in 40 % of A/A tests; with 10 to 100 in at most 3 %.
PRIOR_UNITS: Final = 30.0
# Columns of `Moments.by_arm`: units, sums of w^2, w^2 y, w^2 y^2 and of the outcome's powers (w: weight, y: outcome).
_N, _W2, _W2Y, _W2Y2, _Y, _Y2, _Y3, _Y4 = range(8)


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
class Moments:
    """Sums over units.

    Attributes
    ----------
    by_arm: [arms, 8]; by_cluster: [arms, clusters, 2], sums of w and w y.

    >>> outcome, arm = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]), np.array([0, 0, 0, 1, 1, 1])
    >>> both = Moments.of(outcome, arm, 2, np.full(6, 2.0), np.arange(6), 6)
    >>> half, rest = slice(0, 4), slice(4, 6)
    >>> parts = [Moments.of(outcome[p], arm[p], 2, np.full(6, 2.0)[p], np.arange(6)[p], 6) for p in (half, rest)]
    >>> np.array_equal((parts[0] + parts[1]).means().mean, both.means().mean)
    True
    """

    by_arm: Array
    by_cluster: Array

    @classmethod
    def of(
        cls, outcome: Array, arm: npt.NDArray[np.int64], arms: int, weight: Array, cluster: npt.NDArray[np.int64],
        clusters: int,
    ) -> Moments:  # fmt: skip
        """Sums over some units, all arguments [units]; a unit whose outcome is NaN is left out.

        weight: one over the propensity; cluster: 0 to clusters - 1.
        """
        known = ~np.isnan(outcome)
        y, arm, weight, cluster = outcome[known], arm[known], weight[known], cluster[known]
        squared = weight**2
        columns = (np.ones(len(y)), squared, squared * y, squared * y**2, y, y**2, y**3, y**4)
        by_arm: Array = np.column_stack([np.bincount(arm, column, arms) for column in columns]).astype(float)
        place = arm * clusters + cluster
        size = arms * clusters
        sums = np.stack([np.bincount(place, column, size) for column in (weight, weight * y)], axis=-1)
        return cls(by_arm, sums.astype(float).reshape(arms, clusters, 2))

    @classmethod
    def nothing(cls, arms: int, clusters: int) -> Moments:
        """Of no units."""
        return cls(np.zeros((arms, 8)), np.zeros((arms, clusters, 2)))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.by_arm + other.by_arm, self.by_cluster + other.by_cluster)

    def __sub__(self, other: Moments) -> Moments:
        """Without units that were counted before and are erased now."""
        return Moments(self.by_arm - other.by_arm, self.by_cluster - other.by_cluster)

    @property
    def units(self) -> npt.NDArray[np.int64]:
        """Of known outcome, [arms]."""
        return np.rint(self.by_arm[:, _N]).astype(np.int64)

    def of_arms(self, there: list[int]) -> Moments:
        """Of some arms only."""
        return Moments(self.by_arm[there], self.by_cluster[there])

    def means(self) -> ArmMeans | None:
        """The arms' means; None if one of them has no more units than it takes to know a spread.

        A ratio of weighted sums (Hajek), and the sandwich of the regression on the arms that it is the same as.
        """
        units, arms = self.units, len(self.by_arm)
        if units.min() <= 2:
            return None
        # a weight is at least 1, and what subtracting leaves of one that is gone is far less
        n, clusters = int(units.sum()), int(np.count_nonzero(self.by_cluster[..., 0].sum(axis=0) > 0.5))
        weights = self.by_cluster[..., 0].sum(axis=1)
        mean = self.by_cluster[..., 1].sum(axis=1) / weights
        scores = (self.by_cluster[..., 1] - mean[:, None] * self.by_cluster[..., 0]) / weights[:, None]
        # as statsmodels corrects for few units and few clusters
        clustered = clusters < n
        correction = clusters / (clusters - 1) * (n - 1) / (n - arms) if clustered and clusters > 1 else n / (n - arms)
        covariance = correction * scores @ scores.T
        squared = self.by_arm[:, _W2]
        effective = weights**2 / squared
        own = (self.by_arm[:, _W2Y2] - 2 * mean * self.by_arm[:, _W2Y]) / squared + mean**2
        square, kurtosis = self._residuals(mean)
        covariance += np.diag(less_sure(units, np.maximum(own, 0.0), square, kurtosis) / effective)
        return ArmMeans(units, effective, mean, covariance)

    def _residuals(self, mean: Array) -> tuple[float, float]:
        """Mean square and kurtosis of all outcomes less their arm's mean."""
        n, y, y2, y3, y4 = (self.by_arm[:, column] for column in (_N, _Y, _Y2, _Y3, _Y4))
        m = mean
        powers = (
            y - m * n,
            y2 - 2 * m * y + m**2 * n,
            y3 - 3 * m * y2 + 3 * m**2 * y - m**3 * n,
            y4 - 4 * m * y3 + 6 * m**2 * y2 - 4 * m**3 * y + m**4 * n,
        )
        first, second, third, fourth = (float(one.sum()) / float(n.sum()) for one in powers)
        variance = second - first**2
        if variance <= 0:
            return max(second, 0.0), 1.0
        central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        return second, min(max(central / variance**2, 1.0), float(n.sum()))


def less_sure(units: npt.NDArray[np.int64], own: Array, overall: float, kurtosis: float) -> Array:
    """What to add to each arm's variance of one unit: the way to that of all arms, as far as its own is not known.

    units, own: [arms], units and mean squares of their residuals; overall, kurtosis: of all residuals. It takes as many
    more units to know a variance as the kurtosis is higher: of a rate of 1 %, a hundred times as many.
    """
    known = units / max(kurtosis, 1.0)
    return np.asarray(PRIOR_UNITS / (known + PRIOR_UNITS) * (overall - own))

"""Sample ratio mismatch: whether as many units came into each arm as were assigned there.

If not, units were lost or doubled in one arm (a redirect, a crash, a bot filter, a slow variant), those that are left
are not comparable, and no effect can be trusted. Checked within each phase, the holdback apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, chisquare

from features.experiments import LEAST_UNITS
from features.judging.ratio import ALARM, expected_shares, sequential_p
from training.experiments.table import Units


@dataclass(frozen=True)
class Ratio:
    """One phase, in the holdback or not; with other arms closed, another one.

    units: of each arm; expected: by the shares, or by the logged propensities where they differ from unit to unit.
    closed: how many arms were given no longer.
    p: chi-square at this look; always_valid_p: holds at all looks together, NaN where propensities differ.
    """

    phase: int
    holdback: bool
    units: tuple[int, ...]
    expected: tuple[float, ...]
    p: float
    always_valid_p: float
    closed: int = 0

    @property
    def alarm(self) -> bool:
        """Whether the ratio is wrong: p < 0.001."""
        return self.p < ALARM

    @property
    def small(self) -> bool:
        """Whether an arm has so few units that they must not be told."""
        return min(sorted(self.units)[self.closed :], default=0) < LEAST_UNITS


def sample_ratios(units: Units) -> list[Ratio]:
    """Every phase, its holdback apart, and apart what was assigned while arms were closed; those of fewer than 50 units
    are left out."""
    frame, shares = units.frame, np.asarray(units.definition.shares)
    propensity, found = frame["propensity"].to_numpy(), []
    columns = frame[["phase", "closed", "holdback"]].astype("int64").to_numpy()
    for phase, closed, holdback in np.unique(columns, axis=0).tolist():
        here = (columns == (phase, closed, holdback)).all(axis=1)
        if here.sum() >= LEAST_UNITS:
            found.append(_ratio(phase, bool(holdback), closed, units.arm[here], propensity[here], shares))
    return found


def _ratio(
    phase: int, holdback: bool, closed: int, arm: npt.NDArray[np.int64], propensity: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
) -> Ratio:  # fmt: skip
    counts = np.bincount(arm, minlength=len(shares))
    given = counts > 0 if 0 < (counts == 0).sum() <= closed else np.ones(len(shares), bool)
    each = [propensity[arm == place] for place in np.flatnonzero(given)]
    expected, units = np.zeros(len(shares)), tuple(map(int, counts))
    size = len(arm)
    if all(not len(one) or np.ptp(one) < 1e-9 for one in each):
        logged = expected_shares([one[0] if len(one) else np.nan for one in each], shares[given])
        expected[given] = logged * size
        p = chisquare(counts[given], logged * size).pvalue if len(each) > 1 else 1.0
        always = sequential_p(counts[given], logged)
        return Ratio(phase, holdback, units, tuple(map(float, expected)), float(p), always, closed)
    # each arm's units, each counted as one over its propensity, are all units on average
    total = np.array([(1 / one).sum() for one in each])
    variance = np.array([((1 - one) / one**2).sum() for one in each])
    z = (total - size) / np.sqrt(np.maximum(variance, 1e-12))
    # of the arms any but one are free: Bonferroni over them
    p = min(1.0, float(chi2.sf(np.max(z**2), 1)) * max(len(each) - 1, 1))
    expected[given] = counts[given] * size / np.maximum(total, 1e-12)
    return Ratio(phase, holdback, units, tuple(map(float, expected)), p, float("nan"), closed)

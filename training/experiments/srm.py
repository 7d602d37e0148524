"""Sample ratio mismatch: whether as many units came into each arm as were assigned there.

If not, units were lost or doubled in one arm (a redirect, a crash, a bot filter, a slow variant), those that are left
are not comparable, and no effect can be trusted. Checked within each phase, the holdback apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, chisquare, dirichlet_multinomial, multinomial

from features.experiments import LEAST_UNITS
from training.experiments.table import Units

ALARM: Final = 0.001
# How many units the expected shares count for in the test that holds at every look. With 10,000 it finds a loss of 1 %
# in a tenth fewer units, but large losses late. ssrm has this test, but needs NumPy 1.
_PRIOR_UNITS: Final = 1_000.0


@dataclass(frozen=True)
class Ratio:
    """One phase, in the holdback or not.

    units: of each arm; expected: by the shares, or by the logged propensities where they differ from unit to unit.
    p: chi-square at this look; always_valid_p: holds at all looks together, NaN where propensities differ.
    """

    phase: int
    holdback: bool
    units: tuple[int, ...]
    expected: tuple[float, ...]
    p: float
    always_valid_p: float

    @property
    def alarm(self) -> bool:
        """Whether the ratio is wrong: p < 0.001."""
        return self.p < ALARM

    @property
    def small(self) -> bool:
        """Whether an arm has so few units that they must not be told."""
        return min(self.units) < LEAST_UNITS


def sample_ratios(units: Units) -> list[Ratio]:
    """Every phase, its holdback apart; those of fewer than 50 units are left out."""
    frame, shares = units.frame, np.asarray(units.definition.shares)
    found = []
    for phase in np.unique(frame["phase"]):
        for holdback in (False, True):
            here = ((frame["phase"] == phase) & (frame["holdback"] == holdback)).to_numpy()
            if here.sum() >= LEAST_UNITS:
                propensity = frame["propensity"].to_numpy()[here]
                found.append(_ratio(int(phase), holdback, units.arm[here], propensity, shares))
    return found


def _ratio(
    phase: int, holdback: bool, arm: npt.NDArray[np.int64], propensity: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
) -> Ratio:  # fmt: skip
    counts = np.bincount(arm, minlength=len(shares))
    each = [propensity[arm == place] for place in range(len(shares))]
    if all(not len(one) or np.ptp(one) < 1e-9 for one in each):
        expected = _expected_shares([one[0] if len(one) else np.nan for one in each], shares)
        p = chisquare(counts, expected * counts.sum()).pvalue
        return Ratio(phase, holdback, tuple(map(int, counts)), tuple(expected * counts.sum()), float(p),
                     sequential_p(counts, expected))  # fmt: skip
    # each arm's units, each counted as one over its propensity, are all units on average
    size = len(arm)
    total = np.array([(1 / one).sum() for one in each])
    variance = np.array([((1 - one) / one**2).sum() for one in each])
    z = (total - size) / np.sqrt(np.maximum(variance, 1e-12))
    # of the arms any but one are free: Bonferroni over them
    p = min(1.0, float(chi2.sf(np.max(z**2), 1)) * max(len(shares) - 1, 1))
    expected = counts * size / np.maximum(total, 1e-12)
    return Ratio(phase, holdback, tuple(map(int, counts)), tuple(map(float, expected)), p, float("nan"))


def _expected_shares(logged: list[float], shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The logged propensities of the arms; an arm without a unit has what they leave, split as the shares say."""
    known = np.array(logged)
    missing = np.isnan(known)
    if missing.any():
        left = max(1 - np.nansum(known), 0.0)
        known = np.where(missing, left * shares / shares[missing].sum(), known)
        known = np.maximum(known, 1e-12)
    result: npt.NDArray[np.float64] = known / known.sum()
    return result


def sequential_p(counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> float:
    """A p-value that holds at all looks (Lindon and Malek, 2022): a Dirichlet around the shares against the shares.

    >>> sequential_p(np.array([500, 500]), np.array([0.5, 0.5]))
    1.0
    >>> sequential_p(np.array([8_200, 7_400]), np.array([0.5, 0.5])) < 1e-6
    True
    """
    size = int(counts.sum())
    log_e = dirichlet_multinomial.logpmf(counts, _PRIOR_UNITS * shares, size) - multinomial.logpmf(counts, size, shares)
    return float(min(1.0, np.exp(-log_e)))

"""Whether as many units came into each arm as were assigned there, at every look.

In: counts, and the probabilities with which units were assigned. `training.experiments.srm` asks a table of units the
same at one look.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import dirichlet_multinomial, multinomial

from features.judging.sequential import always_valid_p

ALARM: Final = 0.001
# How many units the expected shares count for in the test that holds at every look. With 10,000 it finds a loss of 1 %
# in a tenth fewer units, but large losses late. ssrm has this test, but needs NumPy 1.
_PRIOR_UNITS: Final = 1_000.0


def expected_shares(logged: list[float], shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
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
    return float(min(1.0, np.exp(-_log_evidence(counts, shares))))


def p_of_strata(counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], *, fixed: bool) -> float:
    """A p-value that holds at all looks, of units that were assigned by other probabilities in each stratum.

    counts, shares: [strata, arms]; fixed: probabilities do not follow what is seen, so there are few different ones:
    the evidence of each adds up. Else how far counts are from what was expected, over all strata, is held to the
    normal mixture boundary; of more than two arms, the farthest one's (Bonferroni).

    >>> half = np.full((2, 2), 0.5)
    >>> p_of_strata(np.array([[500, 490], [510, 500]]), half, fixed=True)
    1.0
    >>> p_of_strata(np.array([[5_000, 4_000], [4_100, 3_700]]), half, fixed=False) < ALARM
    True
    """
    if fixed:
        alike, place = np.unique(shares.round(5), axis=0, return_inverse=True)
        total = [counts[place.ravel() == number].sum(axis=0) for number in range(len(alike))]
        evidence = sum(_log_evidence(count, share) for count, share in zip(total, alike, strict=True))
        return float(min(1.0, np.exp(-evidence)))
    units = counts.sum(axis=1, keepdims=True)
    away, variance = (counts - units * shares).sum(axis=0), (units * shares * (1 - shares)).sum(axis=0)
    open_ = variance > 0
    if not open_.any():
        return 1.0
    z = away[open_] / np.sqrt(variance[open_])
    # a unit of a balanced test of two arms has the variance 1/4
    p = always_valid_p(z, 4 * variance[open_], _PRIOR_UNITS, ALARM).min()
    return float(min(1.0, p * (len(z) if len(z) > 2 else 1)))


def _log_evidence(counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> float:
    """Against the shares, of which an arm that is not given has none."""
    given = shares > 0
    counts, shares = counts[given], shares[given] / shares[given].sum()
    size = int(counts.sum())
    if len(counts) < 2 or not size:
        return 0.0
    free = dirichlet_multinomial.logpmf(counts, _PRIOR_UNITS * shares, size)
    return float(free - multinomial.logpmf(counts, size, shares))

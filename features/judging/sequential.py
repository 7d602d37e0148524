"""Intervals that hold at every look: the normal mixture boundary, in the units of an experiment.

An interval of fixed level is wrong more often than it says if somebody stops as soon as it shows what was hoped for.
These hold at all looks together, after every unit if need be. They are asymptotic confidence sequences (Waudby-Smith,
Arbour, Sinha, Kennedy and Ramdas, 2024) with the boundaries of Howard, Ramdas, McAuliffe and Sekhon (2021). confseq has
these boundaries, too, but does not build under Python 3.11; `benchmarks/experiments.py` holds ours to it.

Time is counted in units of a balanced test of two arms: `units` units there tell as much as this experiment does.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from scipy.stats import norm

# So that nothing seen is no division by zero.
_FEWEST: Final = 1e-9


def mixture_variance(planned_units: float, alpha: float) -> float:
    """The mixture's parameter (rho) with which the boundary at `alpha` is lowest at `planned_units` (Howard et al.,
    3.5)."""
    spent = 2 * math.log(1 / alpha)
    return planned_units / (spent + math.log1p(spent))


def critical_value(units: Any, planned_units: float, alpha: float) -> Any:
    """Standard errors on either side of the estimate that an interval at `units` takes to hold at all looks.

    1.96 is that of a single look.

    >>> [round(float(critical_value(units, 10_000, 0.05)), 2) for units in (100, 1_000, 10_000, 100_000)]
    [9.08, 3.86, 3.04, 3.24]
    """
    rho = mixture_variance(planned_units, alpha)
    units = np.maximum(np.asarray(units, float), _FEWEST)
    return np.sqrt((units + rho) / units * np.log((units + rho) / (rho * alpha**2)))


def one_sided_critical_value(units: Any, planned_units: float, alpha: float) -> Any:
    """The same for a bound on one side only (Howard et al., eq. 3.7: a closed form just above the exact one).

    >>> [round(float(one_sided_critical_value(units, 10_000, 0.05)), 2) for units in (1_000, 10_000)]
    [3.68, 2.78]
    """
    rho = mixture_variance(planned_units, min(2 * alpha, 0.5))
    units = np.maximum(np.asarray(units, float), _FEWEST)
    grown = (units + rho) / rho
    return np.sqrt(2 * (units + rho) / units * np.log(np.sqrt(grown) / (2 * alpha) + 1))


def always_valid_p(z: Any, units: Any, planned_units: float, alpha: float) -> Any:
    """The p-value that belongs to `critical_value`: below `alpha` exactly if the interval leaves out zero.

    z: estimate over its standard error. `alpha` only tunes; whoever stops by any level is right at that level.

    >>> round(float(always_valid_p(critical_value(5_000, 10_000, 0.05), 5_000, 10_000, 0.05)), 6)
    0.05
    """
    rho = mixture_variance(planned_units, alpha)
    units = np.maximum(np.asarray(units, float), _FEWEST)
    log_e = 0.5 * np.log(rho / (units + rho)) + np.square(z) * units / (2 * (units + rho))
    return np.minimum(1.0, np.exp(-log_e))


def fixed_p(z: Any) -> Any:
    """Two-sided p-value of a single look."""
    return 2 * norm.sf(np.abs(z))

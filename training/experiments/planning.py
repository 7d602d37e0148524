"""How long an experiment must run, from what units did before it.

In: a table of earlier units (of an experiment before, or any log with an outcome and a moment a unit). Out: `Plan`:
units and days for lifts that are asked for, and the least lift that so many weeks find, by a single planned look and by
looking all the time. Power is statsmodels'; what looking all the time costs is counted on simulated paths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.stats import norm
from statsmodels.stats.power import NormalIndPower

from features.errors import EventError
from features.experiments import LEAST_UNITS, SCORES
from features.judging.sequential import critical_value

WEEKS: Final = (1, 2, 3, 4, 6, 8)
LIFTS: Final = (0.01, 0.02, 0.05, 0.1, 0.2)
_DAY_MS: Final = 86_400_000
# Paths, and their length and step in fixed horizons.
_PATHS, _LONGEST, _STEP = 10_000, 6.0, 0.01


@dataclass(frozen=True)
class Baseline:
    """What units of before say of a goal.

    mean, sd: of one unit; units_per_day; known: share of the variance that the scores know (CUPED).
    design_effect: how many times a visitor's several units make the variance of a mean larger, where visitors are
    assigned.
    """

    units: int
    days: float
    mean: float
    sd: float
    units_per_day: float
    known: float
    design_effect: float

    @property
    def variance(self) -> float:
        """Of one unit's outcome, as far as it makes a mean unsure."""
        return self.sd**2 * (1 - self.known) * self.design_effect


@dataclass(frozen=True)
class Needed:
    """What one lift takes: of a single look, and looking all the time (`median`: half of such experiments need no
    more)."""

    lift: float
    units: int
    days: float
    sequential_units: int
    sequential_days: float
    median_units: int
    median_days: float


@dataclass(frozen=True)
class Found:
    """The least lift that a duration finds with the power asked for."""

    weeks: int
    units: int
    lift: float
    sequential_lift: float


@dataclass(frozen=True)
class Plan:
    """`needed`: a line a lift; `found`: a line a duration; `cost`: of looking all the time, in fixed horizons."""

    baseline: Baseline
    arms: int
    comparisons: int
    alpha: float
    power: float
    needed: tuple[Needed, ...]
    found: tuple[Found, ...]
    cost: Cost


@dataclass(frozen=True)
class Cost:
    """Units of a test that is looked at all the time over those of a single look of the same power.

    at_power: with so many, the share `power` of tests has decided; median, mean: of the units until the decision.
    """

    at_power: float
    median: float
    mean: float


def baseline_of(
    table: pd.DataFrame,
    goal: str,
    columns: Mapping[str, str] | None = None,
    *,
    arm: str | None = None,
    by_visitor: bool = False,
) -> Baseline:
    """What the units of a table say of the goal in column `goal`.

    columns: our name -> the table's. arm: only its units have the outcome to plan with; all of them are traffic.
    by_visitor: visitors will be assigned, so that their units are not independent.

    Raises
    ------
    EventError
        A column is missing, there are fewer than 50 units, no time passes, or the outcome never varies.
    """
    names = dict(columns or {})
    moment = names.get("exposed_at", "exposed_at")
    for name in (goal, moment):
        if name not in table:
            raise EventError(
                f"the table has no column {name!r}; it has {', '.join(map(str, table.columns))}; "
                "say which it is, e.g. --column exposed_at=time"
            )
    days = float(np.ptp(table[moment].to_numpy(float))) / _DAY_MS if len(table) else 0.0
    per_day = len(table) / max(days, 1e-9)
    if arm is not None:
        table = table[_arm_column(table, names) == arm]
    table = table[table[goal].notna()]
    outcome = table[goal].to_numpy(float)
    if len(outcome) < LEAST_UNITS:
        raise EventError(f"a history of {len(outcome)} units says too little; give at least {LEAST_UNITS}")
    if days <= 0 or outcome.std() == 0 or outcome.mean() == 0:
        raise EventError(
            f"nothing can be planned: the history lasts {days:g} days, {goal!r} varies by {outcome.std():g}"
        )
    scores = [names.get(name, name) for name in SCORES if names.get(name, name) in table]
    scores = [name for name in scores if table[name].notna().any()]
    known = 0.0
    if scores:
        told = table[scores].fillna(table[scores].mean()).to_numpy(float)
        known = max(float(sm.OLS(outcome, sm.add_constant(told, has_constant="add")).fit().rsquared_adj), 0.0)
    visitor = names.get("visitor", "visitor")
    effect = 1.0
    if by_visitor and visitor in table:
        groups = pd.factorize(table[visitor])[0]
        mean = sm.OLS(outcome, np.ones(len(outcome)))
        clustered = mean.fit(cov_type="cluster", cov_kwds={"groups": groups}).bse[0]
        effect = max(float(clustered / mean.fit().bse[0]) ** 2, 1.0)
    return Baseline(len(outcome), days, float(outcome.mean()), float(outcome.std(ddof=1)), per_day, known, effect)


def _arm_column(table: pd.DataFrame, names: Mapping[str, str]) -> pd.Series:
    name = names.get("arm", "arm")
    if name not in table:
        raise EventError(f"the table has no column {name!r}; leave --arm out, or say which it is: --column arm=version")
    return table[name].astype(str)


def plan(
    baseline: Baseline, lifts: Sequence[float] = LIFTS, *, arms: int = 2, goals: int = 1, traffic: float = 1.0,
    alpha: float = 0.05, power: float = 0.8,
) -> Plan:  # fmt: skip
    """Units and days of an experiment with equal shares.

    goals: primary ones; each arm and each of them is one comparison of `alpha` (Bonferroni, just above Holm).
    traffic: share of the units that take part.

    >>> found = plan(Baseline(10_000, 10, 0.1, 0.3, 1_000, 0.0, 1.0), [0.1])
    >>> found.needed[0].units, round(found.needed[0].days)
    (28256, 28)
    """
    comparisons = (arms - 1) * goals
    level = alpha / comparisons
    cost = sequential_cost(level, power)
    per_day = baseline.units_per_day * traffic
    needed = []
    for lift in lifts:
        standard = abs(lift) * abs(baseline.mean) / math.sqrt(baseline.variance)
        units = arms * math.ceil(NormalIndPower().solve_power(standard, alpha=level, power=power))
        most, middle = (math.ceil(units * factor) for factor in (cost.at_power, cost.median))
        needed.append(Needed(lift, units, units / per_day, most, most / per_day, middle, middle / per_day))
    found = []
    for weeks in WEEKS:
        units = int(weeks * 7 * per_day)
        lift = _least_lift(baseline, units / arms, level, power)
        found.append(Found(weeks, units, lift, lift * math.sqrt(cost.at_power)))
    return Plan(baseline, arms, comparisons, alpha, power, tuple(needed), tuple(found), cost)


def _least_lift(baseline: Baseline, units_an_arm: float, alpha: float, power: float) -> float:
    if units_an_arm < LEAST_UNITS:
        return math.inf
    standard = NormalIndPower().solve_power(None, nobs1=units_an_arm, alpha=alpha, power=power)
    return float(np.asarray(standard).item() * math.sqrt(baseline.variance) / abs(baseline.mean))


def sequential_cost(alpha: float, power: float) -> Cost:
    """Simulated paths of a test whose single look would have this power, tuned to be narrowest there (seed 0).

    >>> cost = sequential_cost(0.05, 0.8)
    >>> 1.2 < cost.at_power < 1.8, 0.7 < cost.median < 1.2
    (True, True)
    """
    steps = np.arange(_STEP, _LONGEST, _STEP)
    drift = norm.isf(alpha / 2) + norm.ppf(power)
    boundary = critical_value(steps, 1.0, alpha) * np.sqrt(steps)
    random = np.random.default_rng(0)
    taken = np.empty(_PATHS)
    for start in range(0, _PATHS, 1_000):
        path = np.cumsum(random.standard_normal((1_000, len(steps)), np.float32) * math.sqrt(_STEP), axis=1)
        crossed = np.abs(path + (drift * steps).astype(np.float32)) > boundary
        taken[start : start + 1_000] = np.where(crossed.any(axis=1), steps[crossed.argmax(axis=1)], _LONGEST)
    return Cost(float(np.quantile(taken, power)), float(np.median(taken)), float(taken.mean()))

"""What an arm changes: means of all arms by weighted regression within each phase, and the phases combined.

Within a phase each arm has a linear regression of the outcome on the scores at the trigger (CUPED with a slope an arm,
as Lin, 2013), weighted by one over the propensity; its value at the mean scores is the arm's mean. statsmodels fits it,
with errors that need no equal variances, clustered by visitor where visitors have several units; without scores it is
`features.judging.means`, which the service counts by, too. Phases are combined as `features.judging.effects` says. A
unit whose outcome is not known is left out of that goal.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import statsmodels.api as sm
from scipy.stats import kurtosis

from features.experiments import LEAST_UNITS, Goal
from features.judging.effects import Effect, combine
from features.judging.means import ArmMeans, Array, Moments, less_sure
from training.experiments.table import Units


def arm_means(
    outcome: Array, arm: npt.NDArray[np.int64], arms: int, weight: Array, scores: Array, visitor: npt.NDArray[np.int64]
) -> ArmMeans | None:
    """Means of the arms of one phase; None if one of them has no more units than the regression has terms.

    outcome, weight: [units], weight one over the propensity; scores: [units, scores], none missing; visitor: [units].
    """
    units = np.bincount(arm, minlength=arms)
    if units.min() <= scores.shape[1] + 2:
        return None
    if not scores.shape[1]:
        cluster = pd.factorize(visitor)[0]
        return Moments.of(outcome, arm, arms, weight, cluster, int(cluster.max()) + 1).means()
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
    squares = residual**2
    own = np.bincount(arm, weight**2 * squares, arms) / np.bincount(arm, weight**2, arms)
    peaked = float(kurtosis(residual, fisher=False)) if squares.any() else 1.0
    covariance += np.diag(less_sure(units, own, float(squares.mean()), peaked) / effective)
    return ArmMeans(units, effective, fit.params[:arms], covariance)


def effects(units: Units, goal: Goal, *, adjust: bool = True, least: int = LEAST_UNITS) -> list[Effect | None]:
    """Every arm but the first beside it; None where no phase has `least` units of known outcome in both.

    adjust: by the scores at the trigger, where there are some.
    """
    found = _phases(units, goal, units.scored if adjust else ())
    bare = _phases(units, goal, ()) if adjust and units.scored else None
    compared: list[Effect | None] = []
    for arm in range(1, len(units.definition.arms)):
        effect = combine(goal, units.definition.arms[arm], arm, found, least)
        if effect is not None and bare is not None:
            without = combine(goal, effect.arm, arm, bare, least)
            if without is not None and without.error > 0:
                effect = Effect(**{**vars(effect), "narrowed": 1 - effect.error**2 / without.error**2})
        compared.append(effect)
    return compared


def _phases(units: Units, goal: Goal, scored: tuple[str, ...]) -> list[tuple[list[int], ArmMeans]]:
    """Of each phase the arms that are in it, and their means; when an arm is closed, another phase begins."""
    frame = units.frame
    outcome = frame[goal.column].to_numpy()
    known = ~np.isnan(outcome)
    found = []
    for phase, closed in frame[["phase", "closed"]].drop_duplicates().sort_values(["phase", "closed"]).to_numpy():
        rows = known & ((frame["phase"] == phase) & (frame["closed"] == closed)).to_numpy()
        counts = np.bincount(units.arm[rows], minlength=len(units.definition.arms))
        there = [place for place, count in enumerate(counts) if count > len(scored) + 2]
        rows &= np.isin(units.arm, there)
        if len(there) < 2:
            continue
        part = frame[rows]
        means = arm_means(
            outcome[rows], np.searchsorted(there, units.arm[rows]), len(there), 1 / part["propensity"].to_numpy(),
            _scores(part[list(scored)].to_numpy(), units.arm[rows]), part["visitor"].to_numpy(),
        )  # fmt: skip
        if means is not None:
            found.append((there, means))
    return found


def _scores(values: Array, arm: npt.NDArray[np.int64]) -> Array:
    """The scores that say something of their own in every arm; what is missing is as the mean is.

    One that is the same for all of an arm, or follows from the others there (of one model, one minus the other), would
    leave that arm's slopes undefined.
    """
    told = ~np.isnan(values).all(axis=0)
    values = values[:, told]
    values = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0))[:, spread > 1e-9] / spread[spread > 1e-9]
    kept = np.ones((len(values), 1))
    for score in values.T:
        rest = [_rest(score[arm == one], kept[arm == one]) for one in np.unique(arm)]
        if min(rest) > 1e-6:
            kept = np.column_stack([kept, score])
    return kept[:, 1:]


def _rest(score: Array, others: Array) -> float:
    """The variance that a score has beside what follows from the others, which are independent of each other."""
    basis, _ = np.linalg.qr(others)
    return float(((score - basis @ (basis.T @ score)) ** 2).mean())

"""Posterior of the arms' effects, and from it how probable it is that each arm is the best.

In: sums of outcomes by period, bin and arm. An outcome is taken to be the mean of its period and bin, plus its arm's
effect there, plus noise. The means of periods and bins are left free, so that arms are compared within them only:
shares change from period to period because of what was seen, and so does the shop, and to compare sums over all periods
would credit an arm with the days on which it was shown most. (To weigh by inverse propensities mends that, too; it
missed more on the simulated shops because one unit of a small share then counts as many.) Effects are
in standard deviations of the outcome, so that conversions, bounces and revenue share one normal prior. The posterior is
normal in closed form (the sums of many outcomes are normal whatever one outcome is); forgetting is a power prior
(Ibrahim and Chen 2000): the likelihood of an older period to the power of its share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

_DRAWS: Final = 20_000
# A bin of few units takes its variance from all of them, as if it had so many more.
_PRIOR_UNITS: Final = 20.0
# Arms with fewer recent units in a bin say nothing about drift: sums of so few are not normal.
_ENOUGH: Final = 30


@dataclass(frozen=True)
class Strata:
    """Sums by period, bin and arm, float64 (P, B, A): units, and total and square of their outcomes.

    share: float64 (P,), how much a period's units count.
    """

    units: np.ndarray
    total: np.ndarray
    square: np.ndarray
    share: np.ndarray

    @cached_property
    def deviation(self) -> np.ndarray:
        """Standard deviation of an outcome within period, bin and arm, float64 (B,); 0 where nothing varies."""
        within = np.maximum(self.square - self.total**2 / np.maximum(self.units, 1), 0)
        units, spread = self.units.sum(axis=(0, 2)), within.sum(axis=(0, 2))
        overall = spread.sum() / max(units.sum(), 1.0)
        return np.asarray(np.sqrt((spread + overall * _PRIOR_UNITS) / (units + _PRIOR_UNITS)))

    @cached_property
    def information(self) -> np.ndarray:
        """What each period tells of effects beside its own mean: diag(n) - n n' / sum(n), float64 (P, B, A, A)."""
        n = self.units
        outer = n[..., :, None] * n[..., None, :] / np.maximum(n.sum(axis=-1), 1)[..., None, None]
        return np.asarray(n[..., :, None] * np.eye(n.shape[-1]) - outer)

    @cached_property
    def score(self) -> np.ndarray:
        """Sums of deviations from the mean of period and bin, in deviations of the outcome, float64 (P, B, A)."""
        n = self.units
        mean = self.total.sum(axis=-1) / np.maximum(n.sum(axis=-1), 1)
        return np.asarray((self.total - n * mean[..., None]) / np.maximum(self.deviation, 1e-12)[:, None])

    def with_share(self, share: np.ndarray) -> Strata:
        """The same where periods count otherwise."""
        return Strata(self.units, self.total, self.square, share)


@dataclass(frozen=True)
class Posterior:
    """Normal posterior of effects, bin by bin and in it arm by arm: mean float64 (B, A), precision (B A, B A)."""

    mean: np.ndarray
    precision: np.ndarray

    @cached_property
    def covariance(self) -> np.ndarray:
        """Of the effects within each bin, float64 (B, A, A)."""
        bins, arms = self.mean.shape
        whole = np.linalg.inv(self.precision)
        return np.array([whole[at : at + arms, at : at + arms] for at in range(0, bins * arms, arms)])

    def best(self, sign: float) -> np.ndarray:
        """How probable it is that each arm has the largest effect (the smallest for sign -1), float64 (B, A).

        By 20,000 draws that are always the same ones: within 0.004 (one standard error) of the integral. A propensity
        is exact all the same: units are assigned by these numbers.
        """
        arms = self.mean.shape[1]
        half = np.random.default_rng(0).standard_normal((arms, _DRAWS // 2))
        draws = np.linalg.cholesky(self.covariance) @ np.hstack([half, -half]) + self.mean[..., None]
        winner = (sign * draws).argmax(axis=1)
        return np.column_stack([(winner == arm).mean(axis=1) for arm in range(arms)])


def posterior(strata: Strata, prior: np.ndarray) -> Posterior:
    """The effects in the light of the strata; prior: covariance of an arm's effects over bins, float64 (B, B)."""
    bins, arms = strata.units.shape[1:]
    told = np.tensordot(strata.share, strata.information, 1)
    score = np.tensordot(strata.share, strata.score, 1)
    steady = prior + 1e-6 * prior.trace() / bins * np.eye(bins)
    precision = np.kron(np.linalg.inv(steady), np.eye(arms))
    for place in range(bins):
        at = slice(place * arms, (place + 1) * arms)
        precision[at, at] += told[place]
    mean = np.linalg.solve(precision, score.reshape(-1))
    return Posterior(mean.reshape(bins, arms), precision)


def drifted(strata: Strata, recent: np.ndarray, alarm: float) -> bool:
    """Whether arms compare otherwise by the shares `recent`, float64 (P,), than by those of the strata.

    A chi-square test of the difference of both estimates of the effects against the first arm, bin by bin; alarm: its
    level. What all arms have in common, a season, is no drift: nothing can be chosen by it.
    """
    from scipy.stats import chi2  # noqa: PLC0415  (a third of a second, at a change of state only)

    statistic, degrees = 0.0, 0
    told, score = strata.information[..., 1:, 1:], strata.score[..., 1:]
    units = np.tensordot(recent, strata.units, 1)
    for place in range(strata.units.shape[1]):
        if units[place].min() < _ENOUGH or not strata.deviation[place] > 0:
            continue
        of_bin, scores = told[:, place], score[:, place]
        inverses = [np.linalg.pinv(np.tensordot(share, of_bin, 1)) for share in (recent, strata.share)]
        # each period's part in the difference: the same units count in both estimates
        parts = recent[:, None, None] * inverses[0] - strata.share[:, None, None] * inverses[1]
        moved = np.einsum("pij,pj->i", parts, scores)
        variance = np.einsum("pij,pjk,plk->il", parts, of_bin, parts)
        statistic += float(moved @ np.linalg.pinv(variance) @ moved)
        degrees += len(moved)
    return degrees > 0 and statistic > chi2.isf(alarm, degrees)

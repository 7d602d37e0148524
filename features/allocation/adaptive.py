"""What adaptive allocations share: what they strive for, when outcomes are forgotten, and the posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from pydantic import Field

from features.allocation.effects import Posterior, Strata, drifted, posterior
from features.allocation.evidence import DAY_MS, State
from features.settings import Settings

# The chance of a false alarm of drift, a look.
_ALARM: Final = 1e-4


@dataclass(frozen=True)
class Goal:
    """What an allocation strives for; cap: outcomes above count as it (one order of a reseller is not an effect)."""

    kind: Literal["binary", "numeric", "revenue"] = "binary"
    better: Literal["higher", "lower"] = "higher"
    cap: float | None = None

    @property
    def sign(self) -> float:
        """1 if more is better, else -1."""
        return 1.0 if self.better == "higher" else -1.0


class Adaptive(Settings):
    """Options of every adaptive allocation.

    half_life_days: after so many days a unit counts half; none: never forgotten. recent_days: the half-life that is
    used instead when arms compare otherwise of late than before; none: not looked for.
    settle_minutes: units exposed later than so long ago are left for the next update, closed or not, because sessions
    that close early are not like those that stay open.
    effect_deviation: standard deviation of the prior of effects, in deviations of the outcome: 0.1 is 2 points of a
    conversion of 5 %.
    """

    half_life_days: float | None = Field(28.0, gt=0)
    recent_days: float | None = Field(3.0, gt=0)
    settle_minutes: float = Field(60.0, ge=0)
    effect_deviation: float = Field(0.1, gt=0)

    def posterior(self, state: State, now_ms: int, prior: np.ndarray) -> Posterior:
        """The effects as of now; prior: covariance of an arm's effects over bins, float64 (B, B); (1, 1) pools bins."""
        sums = state.by_period()
        units, total, square = (
            np.array([getattr(one, name) for one in sums.values()]) for name in ("units", "total", "square")
        )
        if len(prior) == 1:
            units, total, square = (array.sum(axis=1, keepdims=True) for array in (units, total, square))
        age_days = np.maximum(now_ms - np.array(list(sums)), 0) / DAY_MS
        strata = Strata(units, total, square, _shares(age_days, self.half_life_days))
        if self.recent_days is not None and len(age_days) > 1:
            recent = _shares(age_days, self.recent_days)
            if drifted(strata, recent, _ALARM):
                strata = strata.with_share(recent)
        return posterior(strata, prior)


def _shares(age_days: np.ndarray, half_life_days: float | None) -> np.ndarray:
    if half_life_days is None:
        return np.ones(len(age_days))
    return np.asarray(0.5 ** (age_days / half_life_days))

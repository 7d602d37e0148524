"""The same effects as beliefs: how likely an arm is better, and what is lost if the choice is wrong.

A prior that most changes change little (normal around no lift) meets the estimate with its error, so scores,
propensities, clusters and phases count here as they do there. In: effects. Out: `Belief`; None where an effect is not
known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import norm

from features.judging.effects import Effect
from features.judging.means import Array

# Standard deviation of the lifts that changes of a site have: two of three move less than so much.
PRIOR_SD: Final = 0.1
_DRAWS: Final = 100_000


@dataclass(frozen=True)
class Belief:
    """What to believe of an arm's lift, after the prior; in the wanted direction where it says better.

    low, high: the credible interval. better: probability that the arm is better than the control.
    best: probability that it is the best of all arms. loss: lift given away on average by taking the arm, if it is not
    better.
    """

    lift: float
    low: float
    high: float
    better: float
    best: float
    loss: float


def beliefs(found: Sequence[Effect | None], alpha: float, prior_sd: float = PRIOR_SD) -> list[Belief | None]:
    """Of every arm of one goal; None where means are not above 0, for then a lift means nothing.

    Arms share the control's error, so what is known of one says something about the others: drawn together (seed 0).
    """
    random = np.random.default_rng(0)
    shared = random.standard_normal(_DRAWS)
    drawn: dict[int, Array] = {}
    held: dict[int, tuple[float, float]] = {}
    for place, effect in enumerate(found):
        posterior = _posterior(effect, prior_sd) if effect else None
        if effect is None or posterior is None:
            continue
        mean, sd = held[place] = posterior
        # correlation of two ratios over one control: the control's part of the variance
        part = min(effect.covariance[0, 0] / effect.control_mean**2 / effect.log_ratio[1] ** 2, 1.0)
        noise = -np.sqrt(part) * shared + np.sqrt(1 - part) * random.standard_normal(_DRAWS)
        drawn[place] = effect.goal.sign * (mean + sd * noise)
    winner = np.stack([np.zeros(_DRAWS), *drawn.values()]).argmax(axis=0)
    best = dict(zip(drawn, np.bincount(winner, minlength=len(drawn) + 1)[1:] / _DRAWS, strict=True))
    result: list[Belief | None] = []
    for place, effect in enumerate(found):
        if effect is None or place not in held:
            result.append(None)
            continue
        mean, sd = held[place]
        low, high = np.expm1(norm.interval(1 - alpha, mean, sd))
        z = effect.goal.sign * mean / sd
        loss = sd * (norm.pdf(z) - z * norm.sf(z))
        result.append(
            Belief(math.expm1(mean), float(low), float(high), float(norm.cdf(z)), float(best[place]), float(loss))
        )
    return result


def _posterior(effect: Effect, prior_sd: float) -> tuple[float, float] | None:
    """Mean and standard deviation of the logarithm of the ratio of means."""
    mean, error = effect.log_ratio
    if not error > 0:
        return None
    precision = 1 / prior_sd**2 + 1 / error**2
    return mean / error**2 / precision, 1 / math.sqrt(precision)

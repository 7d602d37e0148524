"""The same effects as beliefs: how likely an arm is better, and what is lost if the choice is wrong.

A prior that most changes change little (normal around no lift) meets the estimate with its error, so scores,
propensities, clusters and phases count here as they do there. In: effects. Out: `Belief`; None where an effect is not
known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import norm

from training.experiments.effects import Effect

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
    """Of every arm of one goal.

    Arms share the control's error, so what is known of one says something about the others: drawn together (seed 0).
    """
    posterior = [_posterior(effect, prior_sd) if effect else None for effect in found]
    known = [place for place, one in enumerate(posterior) if one is not None]
    drawn = np.zeros((_DRAWS, len(found) + 1))
    random = np.random.default_rng(0)
    shared = random.standard_normal(_DRAWS)
    for place in known:
        effect, (mean, sd) = found[place], posterior[place]  # type: ignore[misc]
        assert effect is not None
        # correlation of two differences with one control: the control's part of the variance
        part = min(effect.covariance[0, 0] / effect.error**2, 1.0) if effect.error > 0 else 0.0
        noise = -np.sqrt(part) * shared + np.sqrt(1 - part) * random.standard_normal(_DRAWS)
        drawn[:, place + 1] = effect.goal.sign * (mean + sd * noise)
    best = np.bincount(drawn[:, [0, *(place + 1 for place in known)]].argmax(axis=1), minlength=len(known) + 1) / _DRAWS
    result: list[Belief | None] = [None] * len(found)
    for order, place in enumerate(known):
        mean, sd = posterior[place]  # type: ignore[misc]
        sign = found[place].goal.sign  # type: ignore[union-attr]
        low, high = norm.interval(1 - alpha, mean, sd)
        z = sign * mean / sd
        loss = sd * (norm.pdf(z) - z * norm.sf(z))
        result[place] = Belief(mean, float(low), float(high), float(norm.cdf(z)), float(best[order + 1]), float(loss))
    return result


def _posterior(effect: Effect, prior_sd: float) -> tuple[float, float] | None:
    if not effect.lift_error > 0:
        return None
    precision = 1 / prior_sd**2 + 1 / effect.lift_error**2
    return effect.lift / effect.lift_error**2 / precision, float(1 / np.sqrt(precision))

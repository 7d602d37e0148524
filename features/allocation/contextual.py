"""Contextual Thompson sampling by predicted risk: the best arm may be another one for those who are about to leave.

The context is one live score, parted into bins. An arm's effect varies from bin to bin, the more alike the nearer (a
Gaussian process, Rasmussen and Williams 2006): few units in one bin lean on its neighbours, and no shape is presumed,
because those whom something helps may be in the middle.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from pydantic import Field, field_validator

from features.allocation.adaptive import Adaptive, Goal
from features.allocation.evidence import State


class Contextual(Adaptive):
    """Options: those of every adaptive allocation, and

    score: the head whose live score is the context; edges: where its bins part.
    differing: which share of the prior's variance differs by bin, the rest is of an effect common to all bins;
    bins_alike: over how many bins what differs becomes unlike (by a factor e).
    """

    score: str = "conversion"
    edges: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.7, 0.85)
    differing: float = Field(0.5, ge=0, le=1)
    bins_alike: float = Field(4.0, gt=0)

    @field_validator("edges")
    @classmethod
    def _rising(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if not edges or any(one >= other for one, other in pairwise(edges)):
            raise ValueError("expected at least one edge, each above the one before, such as [0.05, 0.2, 0.5]")
        return edges

    def probabilities(self, state: State, shares: tuple[float, ...], goal: Goal, now_ms: int) -> np.ndarray:
        """P(arm is the best in the bin), float64 (B, A); the fixed shares as long as nothing is known."""
        if not state.informative:
            return np.tile(shares, (len(self.edges) + 2, 1))
        return self.posterior(state, now_ms, self._prior()).best(goal.sign)

    def _prior(self) -> np.ndarray:
        place = np.arange(len(self.edges) + 2)
        alike = np.exp(-np.abs(place[:, None] - place) / self.bins_alike)
        # the bin of those without a score is next to none
        alike[-1, :-1] = alike[:-1, -1] = 0.0
        return np.asarray(self.effect_deviation**2 * ((1 - self.differing) + self.differing * alike))

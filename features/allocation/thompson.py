"""Thompson sampling: each arm as often as it is the best in the light of what is known.

Thompson 1933; Chapelle and Li, "An empirical evaluation of Thompson sampling", NeurIPS 2011.
"""

from __future__ import annotations

import numpy as np

from features.allocation.adaptive import Adaptive, Goal
from features.allocation.evidence import State


class Thompson(Adaptive):
    """Options: those of every adaptive allocation."""

    edges: tuple[()] = ()

    def probabilities(self, state: State, shares: tuple[float, ...], goal: Goal, now_ms: int) -> np.ndarray:
        """P(arm is the best), float64 (1, A); the fixed shares as long as nothing is known."""
        if not state.informative:
            return np.array([shares])
        return self.posterior(state, now_ms, np.full((1, 1), self.effect_deviation**2)).best(goal.sign)

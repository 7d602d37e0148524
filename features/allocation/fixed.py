"""Fixed allocation: the experiment's own shares, whatever happens."""

from __future__ import annotations

import numpy as np

from features.allocation.adaptive import Goal
from features.allocation.evidence import State
from features.settings import Settings


class Fixed(Settings):
    """Shares that no outcome changes."""

    edges: tuple[()] = ()

    def probabilities(self, state: State, shares: tuple[float, ...], goal: Goal, now_ms: int) -> np.ndarray:
        """The shares, float64 (1, A)."""
        del state, goal, now_ms
        return np.array([shares])

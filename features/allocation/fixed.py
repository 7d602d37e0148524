"""Fixed allocation: the experiment's own shares, whatever happens."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from features.allocation.adaptive import Goal
from features.allocation.evidence import State
from features.settings import Settings


class Fixed(Settings):
    """Shares that no outcome changes.

    settle_minutes: units exposed later than so long ago are not judged yet, as of `Adaptive`.
    """

    edges: tuple[()] = ()
    settle_minutes: float = Field(60.0, ge=0)

    def probabilities(self, state: State, shares: tuple[float, ...], goal: Goal, now_ms: int) -> np.ndarray:
        """The shares, float64 (1, A)."""
        del state, goal, now_ms
        return np.array([shares])

"""How long sessions stay on each kind of page, and whether those that end there stayed longer than those that go on.

In: sessions. Out: a line a kind. The time after the latest event is not known to anybody and counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.journeys.sessions import DWELL_KINDS, Sessions
from features.steps import STEPS

# The steps that open a page of a kind.
STEPS_OF = {"checkout": ("checkout", "shipping", "payment")}


@dataclass(frozen=True)
class Dwell:
    """Of one kind of page: the sessions that opened one, and their seconds on such pages.

    opened, ended: bool (n,), sessions that did, and that ended with a step on such a page; seconds: float64 (n,).
    """

    kind: str
    opened: np.ndarray
    ended: np.ndarray
    seconds: np.ndarray

    def quantiles(self, which: np.ndarray) -> tuple[float, float, float]:
        """Median, mean and 90 % quantile of the seconds of some sessions; NaN of none."""
        of = self.seconds[which]
        if not len(of):
            return float("nan"), float("nan"), float("nan")
        return float(np.median(of)), float(of.mean()), float(np.quantile(of, 0.9))


def dwell(sessions: Sessions) -> list[Dwell]:
    """Every kind of page."""
    found = []
    for kind in DWELL_KINDS:
        codes = [STEPS.index(step) for step in STEPS_OF.get(kind, (kind,))]
        opened = (sessions["steps_seen_bits"] & sum(1 << code for code in codes)) != 0
        ended = np.isin(sessions["last_step"], codes)
        found.append(Dwell(kind, opened, ended, sessions[f"{kind}_dwell_seconds_ms"] * 0.001))
    return found

"""Where sessions end: the step that was their last, exactly; and the steps at which more end than at others.

In: sessions. Out: a line a step. A step is a bottleneck where the share of sessions that end there is above that of all
steps together beyond chance (Wilson's interval); its excess is how many fewer would end at the common rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.journeys.sessions import Sessions
from features.steps import STEPS


@dataclass(frozen=True)
class Endings:
    """By step, as STEPS: sessions that took it, began with it, ended with it; int64 (steps,).

    share: of those that took it, how many ended there; low, high: its 95 % interval; excess: sessions above the common
    rate. float64 (steps,), NaN where nobody took it.
    """

    seen: np.ndarray
    began: np.ndarray
    ended: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    excess: np.ndarray
    common: float


def endings(sessions: Sessions) -> Endings:
    """Counts of all of them, whatever their length."""
    size = len(STEPS)
    seen = np.array([((sessions["steps_seen_bits"] >> step) & 1).sum() for step in range(size)], np.int64)
    # bit 0 is set by events that are no step
    seen[0] = 0
    ended = np.bincount(sessions["last_step"], minlength=size)
    began = np.bincount(sessions["path_0"] & 15, minlength=size)
    ended[0] = began[0] = 0
    common = float(ended.sum() / max(seen.sum(), 1))
    low, high = wilson(ended, seen)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = ended / np.where(seen > 0, seen, np.nan)
    return Endings(seen, began, ended, share, low, high, ended - common * seen, common)


def wilson(hits: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals of shares, NaN without trials (Wilson 1927)."""
    from statsmodels.stats.proportion import proportion_confint  # noqa: PLC0415  (takes a second to import)

    low, high = np.full(len(hits), np.nan), np.full(len(hits), np.nan)
    there = np.asarray(trials) > 0
    if there.any():
        low[there], high[there] = proportion_confint(hits[there], trials[there], method="wilson")
    return low, high

"""The true probabilities behind every hidden state: exact, by linear equations, never by drawing.

- exit: the chain's own probability to leave.
- conversion: h(x) = (1 - leave) * sum over y of T(x, y) * (1 if y is a purchase else h(y)): a purchase strictly later.
- bounce, while the session has one interactive event and r seconds are left of the bounce limit:
  B(x, r) = leave + (1 - leave) * passive * integral of f(g) B(x, r - g) dg, f the density of the gap before a passive
  event. A Volterra equation of the second kind, solved forwards on a grid (passive events do not change the state).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from simulation.chain import BOUGHT, LEAST_GAP_SECONDS, PASSIVE_SECONDS, PASSIVE_SPREAD, STAGES, STATES, Chain

BOUNCE_SECONDS: Final = 10.0
GRID: Final = 400


def conversion_probability(chain: Chain) -> np.ndarray:
    """Probability of a purchase later in the session. float64 (kinds, states)."""
    bought = np.array([state // 2 % len(STAGES) == BOUGHT for state in range(STATES)])
    out = np.empty_like(chain.leave)
    for kind in range(len(chain.leave)):
        stay = (1 - chain.leave[kind])[:, None]
        passive = chain.passive[kind][:, None]
        go_on = stay * (passive * np.eye(STATES) + (1 - passive) * chain.move[kind] * ~bought)
        at_once = (stay * (1 - passive) * chain.move[kind])[:, bought].sum(axis=1)
        # the solver's rounding may go a hair below zero; adding zero turns -0.0 into 0.0
        out[kind] = np.clip(np.linalg.solve(np.eye(STATES) - go_on, at_once), 0.0, 1.0) + 0.0
    return out


def bounce_probability(chain: Chain) -> np.ndarray:
    """Probability that the session bounces, by seconds left of the limit.

    float64 (kinds, states, GRID + 1): entry j is for j / GRID * BOUNCE_SECONDS seconds left.
    """
    edges = np.linspace(0.0, BOUNCE_SECONDS, GRID + 1)
    mass = np.diff(passive_gap_cdf(edges))  # of the gap falling between two grid points
    again = (1 - chain.leave) * chain.passive
    out = np.zeros((*chain.leave.shape, GRID + 1))
    out[..., 0] = chain.leave
    for j in range(1, GRID + 1):
        # the gap in cell m leaves between j - m - 1 and j - m: the mean of both ends, the newest one unknown yet
        known = sum(mass[m] * (out[..., j - m] if m else 0.0) for m in range(j)) * 0.5
        known = known + 0.5 * (out[..., j - 1 :: -1] @ mass[:j])
        out[..., j] = (chain.leave + again * known) / (1 - again * 0.5 * mass[0])
    return out


def passive_gap_cdf(seconds: np.ndarray) -> np.ndarray:
    """Probability that a passive event follows within so many seconds (shifted lognormal). Same shape as `seconds`."""
    shifted = np.maximum(seconds - LEAST_GAP_SECONDS, 1e-12)
    z = (np.log(shifted) - math.log(PASSIVE_SECONDS)) / PASSIVE_SPREAD
    return 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))

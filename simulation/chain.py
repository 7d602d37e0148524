"""How a simulated visitor moves: a finite absorbing Markov chain for each kind of visitor.

A hidden state is (intent level, stage, cart filled or not). After each event the visitor leaves for good, sends a
passive signal and stays, or goes on to another stage, where the intent may drift. Everything that is drawn
depends on the hidden state alone, which is what makes the true probabilities computable (`simulation.truth`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from features.events import (
    ADD_PAYMENT_INFO,
    ADD_TO_CART,
    BEGIN_CHECKOUT,
    PAGE_VIEW,
    PURCHASE,
    REMOVE_FROM_CART,
    SEARCH,
    VIEW_CART,
    VIEW_ITEM,
    VIEW_ITEM_LIST,
)

KINDS: Final = ("bouncer", "browser", "researcher", "buyer", "bot")
BOT: Final = KINDS.index("bot")
INTENTS: Final = 5

# The stages and the event that arriving at each of them sends.
STAGES: Final = {
    "home": PAGE_VIEW,
    "info": PAGE_VIEW,
    "list": VIEW_ITEM_LIST,
    "search": SEARCH,
    "item": VIEW_ITEM,
    "add": ADD_TO_CART,
    "cart": VIEW_CART,
    "remove": REMOVE_FROM_CART,
    "checkout": BEGIN_CHECKOUT,
    "payment": ADD_PAYMENT_INFO,
    "purchase": PURCHASE,
}
HOME, INFO, LIST, SEARCHED, ITEM, ADD, CART, REMOVE, CHECKOUT, PAYMENT, BOUGHT = range(len(STAGES))
STATES: Final = INTENTS * len(STAGES) * 2

# Where visits begin, by kind: shares of home, info, list, search, item.
LANDING: Final = np.array(
    [
        [0.20, 0.35, 0.15, 0.05, 0.25],
        [0.35, 0.10, 0.30, 0.05, 0.20],
        [0.20, 0.05, 0.20, 0.25, 0.30],
        [0.30, 0.02, 0.13, 0.25, 0.30],
        [0.10, 0.05, 0.45, 0.00, 0.40],
    ]
)
# Intent on a first visit, by kind; earlier visits and the season move it up or down a level.
FIRST_INTENT: Final = np.array(
    [
        [0.75, 0.20, 0.05, 0.00, 0.00],
        [0.35, 0.40, 0.20, 0.05, 0.00],
        [0.05, 0.30, 0.40, 0.20, 0.05],
        [0.00, 0.10, 0.25, 0.40, 0.25],
        [1.00, 0.00, 0.00, 0.00, 0.00],
    ]
)
_LEAVE_KIND: Final = np.array([1.35, -0.35, -0.70, -0.75, -3.3])
_LEAVE_STAGE: Final = np.array([0.2, 0.3, -0.1, -0.2, 0.0, -0.6, -0.4, 0.2, -0.9, -1.6, 1.2])
_LEAVE_PER_INTENT: Final = 0.55
_PASSIVE_STAGE: Final = np.array([0.12, 0.30, 0.18, 0.06, 0.26, 0.04, 0.06, 0.04, 0.08, 0.04, 0.10])
# Median seconds to the next event, by kind and by intent (eager visitors are quicker), and the spread of its logarithm.
PACE_SECONDS: Final = np.array([18.0, 22.0, 38.0, 20.0, 1.2])
PACE_SPREAD: Final = np.array([1.0, 1.0, 1.1, 0.9, 0.08])
PACE_PER_INTENT: Final = 0.88
PASSIVE_SECONDS: Final = 5.0
PASSIVE_SPREAD: Final = 0.7
LEAST_GAP_SECONDS: Final = 0.2
MOST_GAP_SECONDS: Final = 1500.0


@dataclass(frozen=True)
class Chain:
    """The chain of every kind of visitor. K kinds, S states.

    Attributes
    ----------
    leave: float64 (K, S), probability that the latest event was the last.
    passive: float64 (K, S), probability that the next event, if there is one, is passive.
    move: float64 (K, S, S), where the next active event leads; rows sum to 1.
    """

    leave: np.ndarray
    passive: np.ndarray
    move: np.ndarray


def state_of(intent: int, stage: int, filled: int) -> int:
    """The number of a hidden state."""
    return (intent * len(STAGES) + stage) * 2 + filled


def build_chain() -> Chain:
    """The chain with the parameters above."""
    kinds = len(KINDS)
    leave, passive = np.zeros((kinds, STATES)), np.zeros((kinds, STATES))
    move = np.zeros((kinds, STATES, STATES))
    for kind in range(kinds):
        for intent in range(INTENTS):
            for stage in range(len(STAGES)):
                for filled in (0, 1):
                    state = state_of(intent, stage, filled)
                    logit = _LEAVE_KIND[kind] + _LEAVE_STAGE[stage] - _LEAVE_PER_INTENT * intent - 0.3 * filled
                    leave[kind, state] = 1 / (1 + np.exp(-logit))
                    passive[kind, state] = 0.0 if kind == BOT else _PASSIVE_STAGE[stage]
                    weights = _next_stage(kind, intent, stage, filled)
                    for to_stage, weight in enumerate(weights / weights.sum()):
                        for to_filled, share in _next_cart(filled, to_stage):
                            for to_intent, drift in _drift(kind, intent, to_stage):
                                target = state_of(to_intent, to_stage, to_filled)
                                move[kind, state, target] += weight * share * drift
    return Chain(leave, passive, move)


def _next_stage(kind: int, intent: int, stage: int, filled: int) -> np.ndarray:
    """Weights of the next stage: intent leads to products, products to the cart, the cart to the till."""
    eager = intent / (INTENTS - 1)
    weights = np.zeros(len(STAGES))
    weights[HOME] = 0.5 - 0.35 * eager
    weights[INFO] = 0.35 - 0.28 * eager
    weights[LIST] = 1.4 - 0.6 * eager
    weights[SEARCHED] = 0.15 + 0.5 * eager
    weights[ITEM] = 1.2 + 1.2 * eager
    if stage == ITEM:
        weights[ADD] = 0.03 + 0.95 * eager**1.5
    if filled:
        weights[CART] = 0.4 + 0.7 * eager
        weights[REMOVE] = 0.35 - 0.25 * eager if stage in (CART, ADD) else 0.0
        weights[CHECKOUT] = 0.10 + 2.6 * eager**2 if stage in (CART, ADD) else 0.05 * eager
    if stage == CHECKOUT:
        weights *= 0.5 - 0.3 * eager
        weights[PAYMENT] = 0.6 + 1.0 * eager
    if stage == PAYMENT:
        weights *= 0.3 - 0.2 * eager
        weights[BOUGHT] = 1.2 + eager
    if kind == BOT:  # goes through the catalogue and never buys
        weights[:] = 0.0
        weights[LIST], weights[ITEM] = 0.35, 0.65
    return weights


def _next_cart(filled: int, stage: int) -> list[tuple[int, float]]:
    if stage == ADD:
        return [(1, 1.0)]
    if stage == BOUGHT:
        return [(0, 1.0)]
    if stage == REMOVE:
        return [(0, 0.7), (1, 0.3)]
    return [(filled, 1.0)]


def _drift(kind: int, intent: int, stage: int) -> list[tuple[int, float]]:
    """Intent goes up on products, down on information and after a purchase, and tires of lists."""
    if kind == BOT:
        return [(intent, 1.0)]
    up = 0.12 if stage in (ITEM, ADD, CHECKOUT) else 0.05
    down = 0.35 if stage == BOUGHT else 0.14 if stage in (LIST, INFO, REMOVE) else 0.06
    up = up if intent < INTENTS - 1 else 0.0
    down = down if intent > 0 else 0.0
    moves = [(intent, 1.0 - up - down)]
    if up:
        moves.append((intent + 1, up))
    if down:
        moves.append((intent - 1, down))
    return moves

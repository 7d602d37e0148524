"""Heads: what a model is asked. A head is one declaration: which rows are asked, and what the answer was.

An outcome that is already decided at a prefix gives no row: a session that has bought cannot fail to convert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.config import LabelSettings
from training.labels import Outcomes

# (feature, at least): any of them closes the question
Conditions = list[tuple[str, float]]


@dataclass(frozen=True)
class Decided:
    """The answer is `value` once any condition of `when` holds."""

    when: Conditions
    value: float


# The feature that counts a goal's events, where the catalogue has one.
GOAL_FEATURE: Final = {
    "purchase": "purchases",
    "add_to_cart": "cart_adds",
    "begin_checkout": "checkouts",
    "search": "searches",
    "add_to_wishlist": "wishlist_adds",
    "view_item": "item_views",
}


def _goal_reached(settings: LabelSettings) -> Conditions:
    return [(GOAL_FEATURE[settings.goal], 1)] if settings.goal in GOAL_FEATURE else []


def _bounce_decided(settings: LabelSettings) -> Decided:
    limits = [("interactive_events", 2.0), ("duration_seconds", settings.bounce_seconds)]
    return Decided([*limits, *_goal_reached(settings)], 0.0)


@dataclass(frozen=True)
class Head:
    """One question about a running session.

    asked: Outcomes -> bool (events,), whether the question is still open after the event.
    answer: Outcomes -> bool (events,), what the answer turned out to be.
    decided: the same as `asked` in terms of features, for the service: when the question is closed, and with what.
    """

    name: str
    question: str
    asked: Callable[[Outcomes], np.ndarray]
    answer: Callable[[Outcomes], np.ndarray]
    decided: Callable[[LabelSettings], Decided | None] = lambda settings: None


HEADS: Final = {
    head.name: head
    for head in (
        Head(
            "bounce",
            "Does this session end without a second interaction?",
            asked=lambda o: o.bounce_open,
            answer=lambda o: o.bounced,
            decided=_bounce_decided,
        ),
        Head(
            "conversion",
            "Is the goal reached later in this session?",
            asked=lambda o: ~o.goal_reached,
            answer=lambda o: o.goal_later,
            decided=lambda settings: Decided(_goal_reached(settings), 1.0),
        ),
        Head(
            "exit",
            "Was this the session's last event?",
            asked=lambda o: np.ones(len(o.last), bool),
            answer=lambda o: o.last,
        ),
    )
}

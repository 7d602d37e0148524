"""Heads: what a model is asked. A head is one line of configuration; a new kind of question is one function here.

An outcome that is already decided at a prefix gives no row: a session that has bought cannot fail to convert.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from training.config import (
    GOAL,
    BounceQuestion,
    ExitQuestion,
    GoalQuestion,
    LabelSettings,
    Question,
    ReturnsQuestion,
    TrainingSettings,
    ValueQuestion,
)
from training.labels import DAY_MS, SessionOutcomes

Task = Literal["binary", "value"]
# (feature, at least): any of them closes the question
Conditions = list[tuple[str, float]]

# The feature that counts an event, where the catalogue has one of that event alone.
COUNTED_BY: Final = {
    "page_view": "page_views",
    "view_item_list": "list_views",
    "view_item": "item_views",
    "view_cart": "cart_views",
    "search": "searches",
    "add_to_wishlist": "wishlist_adds",
    "add_to_cart": "cart_adds",
    "remove_from_cart": "cart_removes",
    "begin_checkout": "checkouts",
    "purchase": "purchases",
    "click": "clicks",
    "scroll": "scrolls",
    "user_engagement": "heartbeats",
    "form_start": "form_starts",
    "form_submit": "form_submits",
}


@dataclass(frozen=True)
class Decided:
    """The answer is `value` once any condition of `when` holds."""

    when: Conditions
    value: float


@dataclass(frozen=True)
class Head:
    """One question about a running session.

    Attributes
    ----------
    task: "binary", answered by yes or no and scored by a probability; "value", answered and scored by an amount.
    asked: SessionOutcomes -> bool (events,), whether the question is still open after the event.
    answer: SessionOutcomes -> bool or float64 (events,), what the answer turned out to be.
    decided: the same as `asked` in terms of features, for the service: when the question is closed, and with what.
    needs: features that must not be missing for the question to be asked at all.
    horizon_ms: how long after a session's end its answer is known.
    monotone: feature -> 1 or -1: the score may only rise, or only fall, with it.
    """

    name: str
    question: str
    asked: Callable[[SessionOutcomes], np.ndarray]
    answer: Callable[[SessionOutcomes], np.ndarray]
    horizon_ms: int
    task: Task = "binary"
    decided: Decided | None = None
    needs: tuple[str, ...] = ()
    monotone: Mapping[str, int] = field(default_factory=dict)


# More in the cart and further in the checkout never make a purchase less likely. Constraints are few on purpose: each
# one that does not hold costs quality (a long silence is no sign of leaving where people read).
_TOWARDS_PURCHASE: Final = {"cart_units": 1, "checkout_step": 1, "item_conversion_rate": 1, "recent_log_odds": 1}


def heads_of(settings: TrainingSettings) -> dict[str, Head]:
    """Every configured head by name.

    >>> heads_of(TrainingSettings())["conversion"].question
    'Does a purchase follow later in this session?'
    """
    return {name: _head(name, question, settings) for name, question in settings.heads.questions.items()}


def _head(name: str, question: Question, settings: TrainingSettings) -> Head:
    labels, timeout_ms = settings.labels, settings.timeout_ms
    match question:
        case BounceQuestion():
            return _bounce(name, labels, timeout_ms)
        case GoalQuestion(event=event):
            return _goal(name, labels.goal if event == GOAL else event, timeout_ms)
        case ExitQuestion():
            return Head(
                name,
                "Was this the session's last event?",
                asked=lambda o: np.ones(len(o.session), bool),
                answer=lambda o: o.last,
                horizon_ms=timeout_ms,
            )
        case ValueQuestion():
            return Head(
                name,
                "How much revenue does the rest of this session bring?",
                asked=lambda o: np.ones(len(o.session), bool),
                answer=lambda o: o.value_later,
                horizon_ms=timeout_ms,
                task="value",
            )
        case ReturnsQuestion(days=days):
            return Head(
                name,
                f"Does the visitor begin another session within {days:g} days after this one?",
                asked=lambda o: o.linked,
                answer=lambda o: o.returns(days),
                horizon_ms=max(timeout_ms, round(days * DAY_MS)),
                needs=("visits_before",),
            )


def _bounce(name: str, labels: LabelSettings, timeout_ms: int) -> Head:
    limits = [("interactive_events", 2.0), ("duration_seconds", labels.bounce_seconds)]
    goal = [(COUNTED_BY[labels.goal], 1.0)] if labels.goal in COUNTED_BY else []
    return Head(
        name,
        f"Does this session end with one interaction and under {labels.bounce_seconds:g} seconds?",
        asked=lambda o: o.bounce_open,
        answer=lambda o: o.bounced,
        horizon_ms=timeout_ms,
        decided=Decided([*limits, *goal], 0.0),
    )


def _goal(name: str, event: str, timeout_ms: int) -> Head:
    """An event that a feature counts is asked for until it was reached; of others nobody can tell from the features
    whether it was, so they are asked for always: does it follow (again)?"""
    counted = COUNTED_BY.get(event)
    article = "an" if event[0] in "aeiou" else "a"
    return Head(
        name,
        f"Does {article} {event} follow later in this session?",
        asked=(lambda o: ~o.reached(event)) if counted else (lambda o: np.ones(len(o.session), bool)),
        answer=lambda o: o.later(event),
        horizon_ms=timeout_ms,
        decided=Decided([(counted, 1.0)], 1.0) if counted else None,
        monotone=_TOWARDS_PURCHASE if event == "purchase" else {},
    )

"""Steps of a journey: what a visitor does, in fifteen kinds, so that a step is four bits.

In: nothing. Out: the names of the steps, and which step an event is. A passive signal (scroll, heartbeat) is none.
Events of one kind that follow each other are one step: looking at five products in a row is the step `item` once.
"""

from __future__ import annotations

from typing import Final

from features.events import EVENT_NAMES

# A code is the position in this tuple and is stored: append, never reorder. Four bits hold no more than these.
STEPS: Final = (
    "none",
    "content",
    "list",
    "item",
    "search",
    "cart",
    "checkout",
    "purchase",
    "cart add",
    "cart remove",
    "wish list",
    "shipping",
    "payment",
    "account",
    "lead",
    "other",
)
# Of an event that is not named here: "other" if the visitor caused it, "none" if it is passive.
_NAMED: Final = {
    "page_view": "content",
    "view_item_list": "list",
    "view_item": "item",
    "search": "search",
    "view_cart": "cart",
    "begin_checkout": "checkout",
    "purchase": "purchase",
    "add_to_cart": "cart add",
    "remove_from_cart": "cart remove",
    "add_to_wishlist": "wish list",
    "add_shipping_info": "shipping",
    "add_payment_info": "payment",
    "login": "account",
    "sign_up": "account",
    "generate_lead": "lead",
    "form_submit": "lead",
    "scroll": "none",
    "user_engagement": "none",
    "video_progress": "none",
    "view_promotion": "none",
}
STEP_OF: Final = tuple(STEPS.index(_NAMED.get(name, "other")) for name in EVENT_NAMES)

STEP_BITS: Final = 4
# Fifteen steps a word: the sign stays out of the way of shifts, in compiled code and in plain Python.
STEPS_A_WORD: Final = 15
PATH_WORDS: Final = 4
KEPT_STEPS: Final = STEPS_A_WORD * PATH_WORDS
_FIRST_NAMES: Final = sum(step << STEP_BITS * name for name, step in enumerate(STEP_OF[:STEPS_A_WORD]))
_OTHER_NAMES: Final = sum(step << STEP_BITS * name for name, step in enumerate(STEP_OF[STEPS_A_WORD:]))


def step_of(name: int) -> int:
    """The step that an event of this name is, 0 for none: a shift in compiled code.

    >>> STEPS[step_of(EVENT_NAMES.index("add_to_cart"))], STEPS[step_of(EVENT_NAMES.index("scroll"))]
    ('cart add', 'none')
    """
    if name < STEPS_A_WORD:
        return (_FIRST_NAMES >> (STEP_BITS * name)) & 15
    return (_OTHER_NAMES >> (STEP_BITS * (name - STEPS_A_WORD))) & 15


def with_step(word: int, first: int, path_steps: int, last_step: int, step: int) -> int:
    """A word of the path, which holds the steps from number `first` on, after one more event of the session.

    path_steps: steps before it; last_step: the latest of them. Nothing changes where the step goes on, or its place is
    in another word.
    """
    place = path_steps - first
    if step == 0 or step == last_step or place < 0 or place >= STEPS_A_WORD:  # noqa: PLR1714  (two comparisons compile)
        return word
    return word | (step << (STEP_BITS * place))

"""What Matomo calls what a visitor does, its carts and its clock: the same for its history and for its live requests.

In: Matomo's own values. Out: names that `EVENTS` maps to ours, changes of a cart, channels, offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar
from urllib.parse import urlencode

from features.channels import entry_of

# Kinds of actions -> our events. Events and goals are the shop's own: see `event_name` and `goal_name`.
EVENTS: Final = {
    "action": "page_view",
    "product": "view_item",
    "category": "view_item_list",
    "search": "search",
    "outlink": "click",
    "download": "file_download",
    "content_interaction": "select_promotion",
    "cart_add": "add_to_cart",
    "cart_remove": "remove_from_cart",
    "ecommerceOrder": "purchase",
}
# Kinds of referrers -> our channels.
CHANNELS: Final = {"search": "organic", "website": "referral", "campaign": "paid", "ai-assistant": "referral"}

_TOLD: Final = frozenset({"paid", "email", "social", "organic", "referral"})
_QUARTER_SECONDS: Final = 900
_QUARTERS_A_DAY: Final = 96
_DAY_SECONDS: Final = 86_400
_MOST_AHEAD: Final = 56  # quarters: no clock is more than 14 hours ahead, more is the day before

Item = TypeVar("Item")


def kind_of_view(item: object, category: object) -> str:
    """The kind of a page view, by the product or the category that it shows."""
    return "product" if item else "category" if category else "action"


def event_name(known: Mapping[str, str], category: object, action: object) -> str:
    """Under which name an event is mapped: by category and action, by category, or else by its action."""
    return _first_known(known, f"event:{category}/{action}", f"event:{category}", str(action))


def goal_name(known: Mapping[str, str], name: object, number: object) -> str:
    """Under which name a goal is mapped: by its name, by its number, or all alike."""
    return _first_known(known, f"goal:{name}", f"goal:{number}", "goal")


def cart_changes(before: Mapping[Item, float], now: Mapping[Item, float]) -> Iterator[tuple[Item, float]]:
    """What was put into a cart (positive) and taken out of it between two of its states: quantities by item.

    >>> list(cart_changes({"socks": 1.0, "shoes": 1.0}, {"shoes": 2.0}))
    [('socks', -1.0), ('shoes', 1.0)]
    """
    for item in {**before, **now}:
        more = now.get(item, 0.0) - before.get(item, 0.0)
        if more:
            yield item, more


def change_name(more: float) -> str:
    """The kind of a change of the cart."""
    return "cart_add" if more > 0 else "cart_remove"


def campaign_kind(channel: str) -> str:
    """How Matomo's visits by a campaign are told apart; channel: what the campaign's tags tell, which may be nothing.

    >>> campaign_kind("email"), campaign_kind("unknown")
    ('email', 'campaign')
    """
    return channel if channel in _TOLD else "campaign"


def medium_kind(medium: str) -> str:
    """The same by a campaign's medium alone.

    >>> medium_kind("newsletter"), medium_kind("flyer")
    ('email', 'campaign')
    """
    return campaign_kind(entry_of("/?" + urlencode({"utm_medium": medium}), "").channel)


def utc_offset(at_seconds: int, local_seconds: int) -> int:
    """Minutes that a clock is ahead of UTC which shows so many seconds of its day; clocks differ by quarters.

    >>> utc_offset(1_767_607_200, 15 * 3600 + 30 * 60 + 4)  # 10:00:00Z
    330
    """
    quarters = round((local_seconds - at_seconds % _DAY_SECONDS) / _QUARTER_SECONDS) % _QUARTERS_A_DAY
    return 15 * (quarters if quarters <= _MOST_AHEAD else quarters - _QUARTERS_A_DAY)


def _first_known(known: Mapping[str, str], *names: str) -> str:
    """The first of the names that is mapped, or else the first."""
    return next((name for name in names if name in known), names[0])

"""What an event of Google Analytics 4 says in our words: its vocabulary and its rules about money, items and origin.

In: parameters and items under their names in the BigQuery export (`page_location`, `item_id`, ...);
`features.sources.ga4` and `serving.collect.ga4` lay them out. Out: records of our columns, one or, for an action on
several items, one an item. `(not set)` and the like are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from features.channels import Entry, channel_of, entry_of
from features.settings import Settings

Row = dict[str, Any]

# Beside the recommended names, which are ours.
EVENTS: Final = {
    "view_search_results": "search",
    "screen_view": "page_view",
    "in_app_purchase": "purchase",
    "ecommerce_purchase": "purchase",
}
DEVICES: Final = {"smart tv": "tv"}
# Actions on items: an event each. Of the others only the second two are about one item.
_ITEM_ACTIONS: Final = frozenset({"add_to_cart", "remove_from_cart", "add_to_wishlist", "purchase", "refund"})
_OF_ONE_ITEM: Final = frozenset({"view_item", "select_item"})
# What a page says about itself while it loads, beside its page_view.
_PAGE_VIEWS: Final = frozenset({"view_item", "view_item_list", "view_cart", "search"})
_NOT_SET: Final = frozenset({"", "(not set)", "<Other>", "(data deleted)", "(other)"})


class Ga4Options(Settings):
    """`[sources.ga4.options]`, for live events, too.

    Attributes
    ----------
    skip_events: names that Google makes by itself and that are no step of a visitor; counted.
    views_interact: whether view_item, view_item_list, view_cart and searches count as interactions. GA4 sends them
        beside the page_view of the same page, so that counting both would leave no bounce on a product page; set it
        where the site sends no page_view.
    """

    skip_events: tuple[str, ...] = (
        "session_start",
        "first_visit",
        "first_open",
        "app_clear_data",
        "app_exception",
        "app_remove",
        "app_update",
        "os_update",
    )
    views_interact: bool = False


def known(value: Any) -> str:
    """The text of a cell; empty where it is missing or says that it is, as in `(not set)`."""
    text = "" if value is None else str(value)
    return "" if text in _NOT_SET else text


def interactive(name: str, options: Ga4Options) -> int | None:
    """0 for what a page says about itself; None: by the name, as everywhere."""
    return 0 if name in _PAGE_VIEWS and not options.views_interact else None


def campaign_of(tags: Iterable[Sequence[str]]) -> str | None:
    """The first campaign that is one, of (source, medium, campaign)."""
    return next((tag[2] for tag in tags if tag[2] and not tag[2].startswith("(")), None)


def origin(
    tags: Sequence[Sequence[str]], url: str, referrer: str, entry: Callable[[str, str], Entry] = entry_of
) -> tuple[str | None, str | None]:
    """Channel and campaign by the first tag (source, medium, campaign) with a source or medium, else by the address.

    >>> origin([("news", "email", "spring")], "https://shop.example/", "")
    ('email', 'spring')
    """
    campaign = campaign_of(tags)
    for source, medium, name in tags:
        if source or medium:
            return channel_of(source, medium or "(not set)", name), campaign
    if not url and not referrer:
        return None, campaign
    found = entry(url, referrer)
    return found.channel, campaign or found.campaign or None


def is_money(name: str, currency: str) -> bool:
    """Whether `value` is an amount: without a currency it is none, vitals and videos use the same parameter."""
    return bool(currency) or name in ("purchase", "refund")


def with_items(event: Row, name: str, items: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The event with its items: one event an item for actions on items. event: takes out its `prices`, an item each."""
    prices = event.pop("prices")
    if name not in _ITEM_ACTIONS:
        categories = {known(item.get("item_category")) for item in items}
        if len(categories) == 1:
            event["category"] = categories.pop() or None
        if items and name in _OF_ONE_ITEM:
            event |= item_of(items[0], prices[0])
        return [event]
    if not items:
        return [event]
    events = []
    for place, (item, price) in enumerate(zip(items, prices, strict=True)):
        # the value is the whole order's: once
        own = {"id": event["id"] and f"{event['id']}/{place}", "value": None} if place else {}
        events.append(event | own | item_of(item, price))
    return events


def item_of(item: Mapping[str, Any], price: Any) -> Row:
    """Our columns of an item."""
    return {
        "item": known(item.get("item_id")) or known(item.get("item_name")) or None,
        "category": known(item.get("item_category")) or None,
        "price": price,
        "quantity": item.get("quantity"),
    }

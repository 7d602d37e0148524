"""How much was done so far, by kind of event."""

from __future__ import annotations

from features.aggregations import count, total
from features.declare import feature
from features.events import (
    ADD_TO_CART,
    ADD_TO_WISHLIST,
    BEGIN_CHECKOUT,
    PAGE_VIEW,
    PURCHASE,
    REMOVE_FROM_CART,
    SEARCH,
    VIEW_ITEM,
)

count("events", "Events so far, heartbeats included: the session's length in steps.")
total(
    "interactive_events",
    "Events the visitor caused; with at most one of them the session may still bounce.",
    of="interactive",
)
count("page_views", "Pages seen so far.", when=PAGE_VIEW)
count("item_views", "Product pages seen so far.", when=VIEW_ITEM)
count("searches", "Searches so far: somebody who searches knows what they want.", when=SEARCH)
count("wishlist_adds", "Products put on the wish list so far.", when=ADD_TO_WISHLIST)
count("cart_adds", "Products put in the cart so far.", when=ADD_TO_CART)
count("cart_removes", "Products taken out of the cart so far.", when=REMOVE_FROM_CART)
count("checkouts", "Checkouts begun so far.", when=BEGIN_CHECKOUT)
count("purchases", "Purchases so far; with one the session has converted.", when=PURCHASE)


@feature(unit="share")
def item_view_share(item_views: int, events: int) -> float:
    """Product pages among all events: looking at products rather than looking around."""
    return item_views / max(events, 1)

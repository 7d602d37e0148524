"""How much was done so far, by kind of event."""

from __future__ import annotations

from features.aggregations import count, total
from features.declare import feature
from features.events import (
    ADD_TO_CART,
    ADD_TO_WISHLIST,
    BEGIN_CHECKOUT,
    CLICK,
    FILE_DOWNLOAD,
    GENERATE_LEAD,
    LOGIN,
    PAGE_VIEW,
    PURCHASE,
    REMOVE_FROM_CART,
    SEARCH,
    SHARE,
    SIGN_UP,
    VIDEO_COMPLETE,
    VIDEO_PROGRESS,
    VIDEO_START,
    VIEW_CART,
    VIEW_ITEM,
    VIEW_ITEM_LIST,
)

count("events", "Events so far, heartbeats included: the session's length in steps.")
total(
    "interactive_events",
    "Events the visitor caused; with at most one of them the session may still bounce.",
    of="interactive",
)
count("page_views", "Pages seen so far.", when=PAGE_VIEW)
count("list_views", "Product lists seen so far: the width of the search for something.", when=VIEW_ITEM_LIST)
count("item_views", "Product pages seen so far.", when=VIEW_ITEM)
count("cart_views", "Times the cart was looked at: checking what it costs.", when=VIEW_CART)
count("searches", "Searches so far: somebody who searches knows what they want.", when=SEARCH)
count("wishlist_adds", "Products put on the wish list so far: kept for later, not for now.", when=ADD_TO_WISHLIST)
count("cart_adds", "Products put in the cart so far.", when=ADD_TO_CART)
count("cart_removes", "Products taken out of the cart so far: second thoughts.", when=REMOVE_FROM_CART)
count("checkouts", "Checkouts begun so far.", when=BEGIN_CHECKOUT)
count("purchases", "Purchases so far; with one the session has converted.", when=PURCHASE)
count("clicks", "Clicks that the tracker reports by themselves: hands on the page.", when=CLICK)
count(
    "media_events",
    "Videos watched, files loaded, pages shared: interest in content.",
    when=(VIDEO_START, VIDEO_PROGRESS, VIDEO_COMPLETE, FILE_DOWNLOAD, SHARE),
)
count(
    "account_events",
    "Logins, registrations and leads: a visitor who says who they are means it.",
    when=(LOGIN, SIGN_UP, GENERATE_LEAD),
)


@feature(unit="share")
def item_view_share(item_views: int, events: int) -> float:
    """Product pages among all events: looking at products rather than looking around."""
    return item_views / max(events, 1)


@feature(unit="share")
def passive_share(interactive_events: float, events: int) -> float:
    """Events that the visitor did not cause among all: a page left open."""
    return 1.0 - interactive_events / max(events, 1)

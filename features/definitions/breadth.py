"""How widely the visitor looks around, and whether they come back to the same things."""

from __future__ import annotations

from features.aggregations import distinct
from features.declare import feature, field

distinct("distinct_pages", "Different pages, about: a visitor who explores.", of="page")
distinct("distinct_items", "Different products, about: comparing or browsing.", of="item", words=2)
distinct("distinct_categories", "Different categories, about: a clear aim stays within few.", of="category")


@field("i8")
def last_item(last_item: int, item: int) -> int:
    """Hash of the latest product."""
    return item if item != 0 else last_item


@field("i8")
def second_last_item(second_last_item: int, last_item: int, item: int) -> int:
    """Hash of the product before the latest one."""
    return last_item if item not in (0, last_item) else second_last_item


@field("i8")
def last_page(last_page: int, page: int) -> int:
    """Hash of the latest page."""
    return page if page != 0 else last_page


@field("i8")
def second_last_page(second_last_page: int, last_page: int, page: int) -> int:
    """Hash of the page before the latest one."""
    return last_page if page not in (0, last_page) else second_last_page


@field("i8")
def last_category(last_category: int, category: int) -> int:
    """Hash of the latest category."""
    return category if category != 0 else last_category


@field("i4")
def item_events(item_events: int, item: int) -> int:
    """Events that are about a product."""
    return item_events + (item != 0)


@field("i4")
def page_events(page_events: int, page: int) -> int:
    """Events on a known page."""
    return page_events + (page != 0)


@field("i4", feature=True)
def same_item_repeats(same_item_repeats: int, last_item: int, item: int) -> int:
    """Events about the same product as the one before: dwelling on it."""
    return same_item_repeats + (item != 0 and item == last_item)


@field("i4", feature=True)
def item_returns(item_returns: int, last_item: int, second_last_item: int, item: int) -> int:
    """Times the visitor went back from one product to the one before it: comparing two."""
    return item_returns + (item not in (0, last_item) and item == second_last_item)


@field("i4", feature=True)
def page_returns(page_returns: int, last_page: int, second_last_page: int, page: int) -> int:
    """Times the visitor went back to the page before: back and forth, looking for something."""
    return page_returns + (page not in (0, last_page) and page == second_last_page)


@field("i4", feature=True)
def category_switches(category_switches: int, last_category: int, category: int) -> int:
    """Changes from one category to another: wandering or not yet decided."""
    return category_switches + (category != 0 and last_category not in (0, category))


@feature
def item_revisits(item_events: int, distinct_items: float) -> float:
    """Product events beyond the first of each product, about: coming back to something is interest."""
    return max(item_events - distinct_items, 0.0)


@feature
def page_revisits(page_events: int, distinct_pages: float) -> float:
    """Page events beyond the first of each page, about: going round in circles."""
    return max(page_events - distinct_pages, 0.0)


@feature(unit="share")
def new_item_share(distinct_items: float, item_events: int) -> float:
    """Different products among product events, about: 1 where each is seen once, small where few are weighed."""
    return min(distinct_items / max(item_events, 1), 1.0)

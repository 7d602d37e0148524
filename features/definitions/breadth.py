"""How widely the visitor looks around, and whether they come back to the same things."""

from __future__ import annotations

from features.aggregations import distinct, latest
from features.declare import feature, field

distinct("distinct_pages", "Different pages, about: a visitor who explores.", of="page")
distinct("distinct_items", "Different products, about: comparing or browsing.", of="item", words=2)
distinct("distinct_categories", "Different categories, about: a clear aim stays within few.", of="category")
latest("last_item", "Hash of the product of the latest event.", of="item", dtype="i8", feature=False)


@field("i4")
def item_events(item_events: int, item: int) -> int:
    """Events that are about a product."""
    return item_events + (item != 0)


@field("i4", feature=True)
def same_item_repeats(same_item_repeats: int, last_item: int, item: int) -> int:
    """Times that an event was about the same product as the one before: dwelling on it."""
    return same_item_repeats + (item != 0 and item == last_item)


@feature
def item_revisits(item_events: int, distinct_items: float) -> float:
    """Product events beyond the first of each product, about: coming back to something is interest."""
    return max(item_events - distinct_items, 0.0)

"""Searching: a visitor with an aim, and whether the shop serves it."""

from __future__ import annotations

from features.aggregations import since
from features.declare import field
from features.events import SEARCH, VIEW_ITEM

since("seconds_since_search", "Since the latest search", when=SEARCH)


@field("i4", feature=True)
def searches_without_item(searches_without_item: int, name: int) -> int:
    """Searches since a product page was last opened: not finding it."""
    return 0 if name == VIEW_ITEM else searches_without_item + (name == SEARCH)


@field("i4", feature=True)
def items_since_search(items_since_search: int, searches: int, name: int) -> int:
    """Product pages opened since the latest search: it found something."""
    return 0 if name == SEARCH else items_since_search + (name == VIEW_ITEM and searches > 0)

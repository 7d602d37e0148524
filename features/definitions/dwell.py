"""How long the visitor stays on which kind of page.

A page is opened by its event (`features.events.PAGE_KIND_OF`) and stays open until another one is; the time between
two events belongs to the page that was open.
"""

from __future__ import annotations

from features.aggregations import dwell, opened_page_kind, popcount
from features.declare import feature, field
from features.events import PAGE_KINDS


@field("u1", feature=True, unit="page kind code")
def page_kind(page_kind: int, name: int) -> int:
    """Kind of the page that is open: what the visitor is in the middle of."""
    opened = opened_page_kind(name)
    return opened if opened != 0 else page_kind


@field("u1")
def second_last_page_kind(second_last_page_kind: int, page_kind: int, name: int) -> int:
    """Kind of the page before the open one: where the visitor came from."""
    return page_kind if opened_page_kind(name) != 0 else second_last_page_kind


@field("i8")
def page_opened_at(page_opened_at: int, name: int, time: int) -> int:
    """Time the open page was opened, ms UTC."""
    return time if opened_page_kind(name) != 0 else page_opened_at


@field("u1")
def page_kinds_seen_bits(page_kinds_seen_bits: int, name: int) -> int:
    """Kinds of page seen, a bit each."""
    return page_kinds_seen_bits | (1 << opened_page_kind(name))


@feature
def page_kinds_seen(page_kinds_seen_bits: int) -> int:
    """Different kinds of page seen: how much of the shop is in play."""
    return popcount(page_kinds_seen_bits >> 1)


for _code, _kind in enumerate(PAGE_KINDS):
    if _kind not in ("none", "confirmation"):
        dwell(f"{_kind}_dwell_seconds", f"Time spent on {_kind} pages so far.", kind=_code)


@feature(unit="s")
def open_page_seconds(now: int, page_opened_at: int) -> float:
    """Since the open page was opened: reading, or gone; -1 before the first."""
    return (now - page_opened_at) * 0.001 if page_opened_at > 0 else -1.0


@feature(unit="s")
def mean_item_dwell_seconds(item_dwell_seconds: float, item_views: int) -> float:
    """Mean time spent on a product page: interest in what is offered."""
    return item_dwell_seconds / max(item_views, 1)

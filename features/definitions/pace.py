"""How fast the visitor moves, how long they stay, how long ago things happened."""

from __future__ import annotations

from features.aggregations import decayed, latest
from features.declare import feature, field
from features.events import ADD_TO_CART, VIEW_ITEM


@field("i8")
def started_at(started_at: int, time: int, events: int) -> int:
    """Time of the session's first event, ms UTC."""
    return time if events == 0 else started_at


@field("i8")
def last_at(last_at: int, time: int) -> int:
    """Time of the latest event, ms UTC."""
    return max(last_at, time)


@field("i8")
def last_gap_ms(time: int, last_at: int, events: int) -> int:
    """Pause before the latest event; 0 for the first and for events that come late."""
    return max(time - last_at, 0) if events > 0 else 0


@field("i8")
def longest_gap_ms(longest_gap_ms: int, time: int, last_at: int, events: int) -> int:
    """Longest pause between two events."""
    return max(longest_gap_ms, time - last_at) if events > 0 else 0


latest("last_event_name", "Code of the latest event.", of="name", dtype="u1", feature=False)
latest("last_cart_at", "Time of the latest add_to_cart.", of="time", dtype="i8", when=ADD_TO_CART, feature=False)
latest("last_item_at", "Time of the latest product page.", of="time", dtype="i8", when=VIEW_ITEM, feature=False)


@field("i8")
def item_dwell_ms(item_dwell_ms: int, last_event_name: int, time: int, last_at: int) -> int:
    """Time from each product page to the event after it."""
    return item_dwell_ms + (max(time - last_at, 0) if last_event_name == VIEW_ITEM else 0)


@feature(unit="s")
def duration_seconds(last_at: int, started_at: int) -> float:
    """From the first to the latest event: how long the visitor has been engaged for certain."""
    return (last_at - started_at) / 1000.0


@feature(unit="s")
def idle_seconds(now: int, last_at: int) -> float:
    """Since the latest event: silence is how a visit ends."""
    return (now - last_at) / 1000.0 if last_at > 0 else 0.0


@feature(unit="s")
def last_gap_seconds(last_gap_ms: int) -> float:
    """Pause before the latest event."""
    return last_gap_ms / 1000.0


@feature(unit="s")
def longest_gap_seconds(longest_gap_ms: int) -> float:
    """Longest pause between two events: read, compared or distracted."""
    return longest_gap_ms / 1000.0


@feature(unit="s")
def mean_gap_seconds(duration_seconds: float, events: int) -> float:
    """Mean pause between events: the visitor's own pace, against which a silence is long or short."""
    return duration_seconds / max(events - 1, 1)


@feature(unit="s")
def mean_item_dwell_seconds(item_dwell_ms: int, item_views: int) -> float:
    """Mean time spent on a product page that was left again: interest in what is offered."""
    return item_dwell_ms / 1000.0 / max(item_views, 1)


@feature(unit="s")
def seconds_since_cart(now: int, last_cart_at: int) -> float:
    """Since something was put in the cart; -1 if nothing was."""
    return (now - last_cart_at) / 1000.0 if last_cart_at > 0 else -1.0


@feature(unit="s")
def seconds_since_item(now: int, last_item_at: int) -> float:
    """Since a product page was opened; -1 if none was."""
    return (now - last_item_at) / 1000.0 if last_item_at > 0 else -1.0


decayed("activity_30s", "Events with a half-life of 30 seconds: what is going on right now.", half_life_seconds=30)
decayed(
    "activity_5m", "Events with a half-life of 5 minutes: how busy the visit has been lately.", half_life_seconds=300
)

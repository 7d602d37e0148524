"""Earlier visits of the same visitor: kept only with consent to link, missing (NaN) without it."""

from __future__ import annotations

from features.aggregations import count
from features.declare import feature, field
from features.events import PURCHASE

count("visitor_events", "Events of all linked visits.", scope="visitor", feature=False)
count("visitor_purchases", "Purchases of all linked visits.", when=PURCHASE, scope="visitor", feature=False)


@field("i4", scope="visitor")
def visitor_visits(visitor_visits: int, events: int) -> int:
    """Linked visits, the running one included."""
    return visitor_visits + (events == 0)


@field("i8", scope="visitor")
def visitor_seen_at(visitor_seen_at: int, time: int) -> int:
    """Time of the visitor's latest event, ms UTC."""
    return max(visitor_seen_at, time)


@field("i8")
def previous_visit_at(previous_visit_at: int, visitor_seen_at: int, events: int) -> int:
    """Time of the last event of the visit before this one; 0 if there was none."""
    return visitor_seen_at if events == 0 else previous_visit_at


@feature(consent="link")
def visits_before(visitor_visits: int) -> int:
    """Linked visits before this one: a returning visitor decides faster."""
    return max(visitor_visits - 1, 0)


@feature(unit="d", consent="link")
def days_since_visit(started_at: int, previous_visit_at: int) -> float:
    """Days between the visit before and this one; -1 on the first visit."""
    return (started_at - previous_visit_at) / 86_400_000.0 if previous_visit_at > 0 else -1.0


@feature(consent="link")
def purchases_before(visitor_purchases: int, purchases: int) -> int:
    """Purchases in earlier visits: who has bought knows the way."""
    return visitor_purchases - purchases


@feature(unit="events", consent="link")
def events_before(visitor_events: int, events: int) -> int:
    """Events in earlier visits."""
    return visitor_events - events

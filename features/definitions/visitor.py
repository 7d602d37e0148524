"""Earlier visits of the same visitor: kept only with consent to link, missing (NaN) without it."""

from __future__ import annotations

import math

from features.aggregations import LN2, count
from features.declare import feature, field
from features.events import ADD_TO_CART, PURCHASE

DAY_MS = 86_400_000.0
PER_DAY = 1.0 / DAY_MS
WEEK_RATE = LN2 / (7.0 * DAY_MS)
QUARTER_RATE = LN2 / (90.0 * DAY_MS)

count("visitor_events", "Events of all linked visits.", scope="visitor", feature=False)
count("visitor_cart_adds", "Cart adds of all linked visits.", when=ADD_TO_CART, scope="visitor", feature=False)
count("visitor_purchases", "Purchases of all linked visits.", when=PURCHASE, scope="visitor", feature=False)


@field("i4", scope="visitor")
def visitor_visits(visitor_visits: int, events: int) -> int:
    """Linked visits, the running one included."""
    return visitor_visits + (events == 0)


@field("i8", scope="visitor")
def visitor_first_at(visitor_first_at: int, time: int) -> int:
    """Time of the visitor's first event, ms UTC."""
    return visitor_first_at if visitor_first_at > 0 else time


@field("i8", scope="visitor")
def visitor_seen_at(visitor_seen_at: int, time: int) -> int:
    """Time of the visitor's latest event, ms UTC."""
    return max(visitor_seen_at, time)


@field("i8", scope="visitor")
def visitor_bought_at(visitor_bought_at: int, name: int, time: int) -> int:
    """Time of the visitor's latest purchase, ms UTC."""
    return time if name == PURCHASE else visitor_bought_at


@field("f8", scope="visitor")
def visitor_cart_units(visitor_cart_units: float, name: int, quantity: float) -> float:
    """Units in the cart over all linked visits."""
    if name == ADD_TO_CART:
        return visitor_cart_units + quantity
    return 0.0 if name == PURCHASE else visitor_cart_units


@field("f8", scope="visitor")
def visits_week(visits_week: float, visitor_seen_at: int, time: int, events: int) -> float:
    """Visits before this one with a half-life of 7 days, as of the start of this one, and this one."""
    if events > 0:
        return visits_week
    return visits_week * math.exp(-WEEK_RATE * max(time - visitor_seen_at, 0)) + 1.0


@field("f8", scope="visitor")
def events_quarter(events_quarter: float, visitor_seen_at: int, time: int, events: int) -> float:
    """Events of linked visits with a half-life of 90 days, as of the start of this one."""
    if events > 0:
        return events_quarter + 1.0
    return events_quarter * math.exp(-QUARTER_RATE * max(time - visitor_seen_at, 0)) + 1.0


@field("i8")
def previous_visit_at(previous_visit_at: int, visitor_seen_at: int, events: int) -> int:
    """Time of the last event of the visit before this one; 0 if there was none."""
    return visitor_seen_at if events == 0 else previous_visit_at


@field("f8")
def cart_units_before(cart_units_before: float, visitor_cart_units: float, events: int) -> float:
    """Units that the visits before left in the cart."""
    return visitor_cart_units if events == 0 else cart_units_before


@feature(consent="link")
def visits_before(visitor_visits: int) -> int:
    """Linked visits before this one: a returning visitor decides faster."""
    return max(visitor_visits - 1, 0)


@feature(unit="d", consent="link")
def days_since_visit(started_at: int, previous_visit_at: int) -> float:
    """Days between the visit before and this one; -1 on the first visit."""
    return (started_at - previous_visit_at) * PER_DAY if previous_visit_at > 0 else -1.0


@feature(unit="d", consent="link")
def days_since_first_visit(started_at: int, visitor_first_at: int) -> float:
    """Days between the first linked visit and this one: an old acquaintance; 0 on the first."""
    return max((started_at - visitor_first_at) * PER_DAY, 0.0)


@feature(unit="d", consent="link")
def days_since_purchase(now: int, visitor_bought_at: int) -> float:
    """Days since the latest purchase, this visit's included; -1 without one."""
    return (now - visitor_bought_at) * PER_DAY if visitor_bought_at > 0 else -1.0


@feature(consent="link")
def purchases_before(visitor_purchases: int, purchases: int) -> int:
    """Purchases in earlier visits: who has bought knows the way."""
    return visitor_purchases - purchases


@feature(unit="share", consent="link")
def conversion_rate_before(purchases_before: int, visits_before: int) -> float:
    """Purchases an earlier visit."""
    return purchases_before / max(visits_before, 1)


@feature(unit="events", consent="link")
def events_before(visitor_events: int, events: int) -> int:
    """Events in earlier visits."""
    return visitor_events - events


@feature(consent="link")
def cart_adds_before(visitor_cart_adds: int, cart_adds: int) -> int:
    """Products put in the cart in earlier visits."""
    return visitor_cart_adds - cart_adds


@feature(consent="link")
def cart_left_before(cart_units_before: float) -> float:
    """Units that earlier visits put in the cart and did not buy: unfinished business."""
    return cart_units_before


@feature(unit="visits", consent="link")
def visit_frequency(visits_week: float) -> float:
    """Visits with a half-life of 7 days, this one included: how often they come these days."""
    return visits_week


@feature(unit="events", consent="link")
def lifetime_activity(events_quarter: float) -> float:
    """Events with a half-life of 90 days, this visit's included: how close the relation is."""
    return events_quarter

"""How fast the visitor moves, how steadily, how long they stay, how long ago things happened."""

from __future__ import annotations

import math

from features.aggregations import decayed, since
from features.declare import feature, field
from features.events import ADD_TO_CART, BEGIN_CHECKOUT, VIEW_CART, VIEW_ITEM

SECOND_MS = 1_000
MINUTE_MS = 60_000


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
    return time - last_at if events > 0 else 0


@field("i8")
def longest_gap_ms(longest_gap_ms: int, time: int, last_at: int, events: int) -> int:
    """Longest pause between two events."""
    return max(longest_gap_ms, time - last_at) if events > 0 else 0


@field("f8")
def gap_square_sum(gap_square_sum: float, time: int, last_at: int, events: int) -> float:
    """Sum of the squared pauses, in seconds."""
    return gap_square_sum + (square_of_seconds(time - last_at) if events > 0 else 0.0)


@field("f8")
def gap_rank_sum(gap_rank_sum: float, time: int, last_at: int, events: int) -> float:
    """Sum of each pause times its number (1, 2, ...), in seconds: the trend's numerator."""
    return gap_rank_sum + ((time - last_at) * events * 0.001 if events > 0 else 0.0)


@field("f8", feature=True, unit="s")
def recent_gap_seconds(recent_gap_seconds: float, time: int, last_at: int, events: int) -> float:
    """Mean pause of the last few events (exponentially weighted, 0.3 for the latest): the pace right now."""
    if events <= 1:
        return (time - last_at) * 0.001 if events == 1 else 0.0
    return 0.7 * recent_gap_seconds + 0.3 * ((time - last_at) * 0.001)


@field("i4")
def quick_events(quick_events: int, time: int, last_at: int, events: int) -> int:
    """Events within a second of the one before."""
    return quick_events + (events > 0 and time - last_at < SECOND_MS)


@feature(unit="s")
def duration_seconds(last_at: int, started_at: int) -> float:
    """From the first to the latest event: how long the visitor has been engaged for certain."""
    return (last_at - started_at) * 0.001


@feature(unit="s")
def idle_seconds(now: int, last_at: int) -> float:
    """Since the latest event: silence is how a visit ends."""
    return (now - last_at) * 0.001 if last_at > 0 else 0.0


@feature(unit="s")
def last_gap_seconds(last_gap_ms: int) -> float:
    """Pause before the latest event."""
    return last_gap_ms * 0.001


@feature(unit="s")
def longest_gap_seconds(longest_gap_ms: int) -> float:
    """Longest pause between two events: read, compared or distracted."""
    return longest_gap_ms * 0.001


@feature(unit="s")
def mean_gap_seconds(duration_seconds: float, events: int) -> float:
    """Mean pause between events: the visitor's own pace, against which a silence is long or short."""
    return duration_seconds / max(events - 1, 1)


@feature(unit="s")
def gap_deviation_seconds(gap_square_sum: float, mean_gap_seconds: float, events: int) -> float:
    """Standard deviation of the pauses (of the sample as it is, divided by n)."""
    return math.sqrt(max(gap_square_sum / max(events - 1, 1) - mean_gap_seconds * mean_gap_seconds, 0.0))


@feature(unit="share")
def gap_variation(gap_deviation_seconds: float, mean_gap_seconds: float) -> float:
    """Deviation of the pauses over their mean: about 1 for people, near 0 for a machine's even beat."""
    return gap_deviation_seconds / mean_gap_seconds if mean_gap_seconds > 0.0 else 0.0


@feature(unit="s an event")
def gap_trend(gap_rank_sum: float, duration_seconds: float, events: int) -> float:
    """Least-squares slope of the pauses over their number: above 0 the visitor slows down; 0 under two pauses."""
    if events < 3:
        return 0.0
    pauses = events - 1.0
    return (gap_rank_sum - duration_seconds * (pauses + 1.0) / 2.0) * 12.0 / (pauses * (pauses * pauses - 1.0))


@feature(unit="share")
def pace_change(recent_gap_seconds: float, mean_gap_seconds: float) -> float:
    """Recent pause over the mean one: above 1 the visit is running down."""
    return recent_gap_seconds / mean_gap_seconds if mean_gap_seconds > 0.0 else 0.0


@feature(unit="share")
def idle_ratio(idle_seconds: float, mean_gap_seconds: float) -> float:
    """The silence so far over the visitor's own mean pause: how unusual it is; 0 under two events."""
    return idle_seconds / mean_gap_seconds if mean_gap_seconds > 0.0 else 0.0


@feature(unit="events")
def events_per_minute(events: int, duration_seconds: float) -> float:
    """Events a minute so far; the first ten seconds count as ten."""
    return events * 60.0 / max(duration_seconds, 10.0)


since("seconds_since_item", "Since a product page was opened", when=VIEW_ITEM)

decayed("activity_30s", "Events with a half-life of 30 seconds: what is going on right now.", half_life_seconds=30)
decayed(
    "activity_2m", "Events with a half-life of 2 minutes: how busy the visit has been lately.", half_life_seconds=120
)
decayed("activity_8m", "Events with a half-life of 8 minutes: the visit's weight so far.", half_life_seconds=480)
decayed("item_activity_2m", "Product pages with a half-life of 2 minutes: looking at products now.",
        half_life_seconds=120, when=VIEW_ITEM)  # fmt: skip
decayed("cart_activity_8m", "Events of cart and checkout with a half-life of 8 minutes: the purchase in the making.",
        half_life_seconds=480, when=(ADD_TO_CART, VIEW_CART, BEGIN_CHECKOUT))  # fmt: skip


def square_of_seconds(gap_ms: int) -> float:
    """(gap in seconds)^2."""
    seconds = gap_ms * 0.001
    return seconds * seconds

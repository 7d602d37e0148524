"""The visitor's local hour and weekday."""

from __future__ import annotations

from features.declare import feature, field

MINUTE_MS = 60_000
PER_HOUR = 1.0 / 3_600_000
DAY_MS = 86_400_000
SATURDAY = 5


@field("i2")
def clock_offset(utc_offset: int) -> int:
    """Minutes the visitor's clock is ahead of UTC, as of the latest event."""
    return utc_offset


@feature(unit="h")
def local_hour(now: int, clock_offset: int) -> float:
    """Hour of the visitor's day, 0 up to 24 with its fraction: evenings buy, office hours look."""
    return (now + clock_offset * MINUTE_MS) % DAY_MS * PER_HOUR


@feature(unit="day")
def local_weekday(now: int, clock_offset: int) -> int:
    """Weekday of the visitor's day, 0 = Monday; 1970-01-01 was a Thursday."""
    return ((now + clock_offset * MINUTE_MS) // DAY_MS + 3) % 7


@feature(unit="yes or no")
def weekend(local_weekday: int) -> int:
    """Saturday or Sunday: other visitors, with more time."""
    return int(local_weekday >= SATURDAY)

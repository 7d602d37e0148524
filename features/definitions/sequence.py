"""The latest steps: which event follows which tells more than how many there were."""

from __future__ import annotations

from features.aggregations import popcount
from features.declare import feature, field


@field("u1", feature=True, unit="event code")
def last_event(name: int) -> int:
    """Name of the latest event."""
    return name


@field("u1", feature=True, unit="event code")
def second_last_event(last_event: int) -> int:
    """Name of the event before the latest one; 0 if there is none."""
    return last_event


@field("u1", feature=True, unit="event code")
def third_last_event(second_last_event: int) -> int:
    """Name of the third event from the end; 0 if there is none."""
    return second_last_event


@field("i4")
def repeats(repeats: int, last_event: int, name: int) -> int:
    """Length of the run of equal event names that the latest event continues."""
    return repeats + 1 if name == last_event else 1


@field("i8")
def event_name_bits(event_name_bits: int, name: int) -> int:
    """Event names seen, a bit each."""
    return event_name_bits | (1 << name)


@feature(unit="events")
def event_streak(repeats: int) -> int:
    """How many times in a row the latest event came: monotony is browsing, or a bot."""
    return repeats


@feature
def distinct_events(event_name_bits: int) -> int:
    """Different event names so far: a visit that does many things is a person with an aim."""
    return popcount(event_name_bits)

"""What earlier sessions teach about the things this one shows: tables that training fills in (`features.tables`)."""

from __future__ import annotations

from features.declare import feature, learned
from features.events import EVENT_NAMES, PAGE_KINDS

# Keys of pairs begin at 1: 0 is "none".
NAMES = len(EVENT_NAMES)
KINDS = len(PAGE_KINDS)


@learned("popularity", unit="log share")
def item_popularity(last_item: int) -> int:
    """How many sessions show the latest product: a best-seller or a rarity."""
    return last_item


@learned("rate", unit="share")
def item_conversion_rate(last_item: int) -> int:
    """Sessions with the latest product that went on to the goal."""
    return last_item


@learned("popularity", unit="log share")
def category_popularity(last_category: int) -> int:
    """How many sessions show the latest category."""
    return last_category


@learned("rate", unit="share")
def category_conversion_rate(last_category: int) -> int:
    """Sessions with the latest category that went on to the goal."""
    return last_category


@learned("rate", unit="share")
def entry_page_conversion_rate(entry_page: int) -> int:
    """Sessions with this landing page that went on to the goal."""
    return entry_page


@learned("rate", unit="share")
def campaign_conversion_rate(last_campaign: int) -> int:
    """Sessions of this campaign that went on to the goal."""
    return last_campaign


@learned("log_odds", table="event_transition", unit="log odds")
def last_transition_log_odds(second_last_event: int, last_event: int) -> int:
    """How much likelier the latest step from event to event is in sessions that go on to the goal."""
    return second_last_event * NAMES + last_event + 1


@learned("log_odds", table="event_transition", unit="log odds")
def second_last_transition_log_odds(third_last_event: int, second_last_event: int) -> int:
    """The same of the step before the latest."""
    return third_last_event * NAMES + second_last_event + 1


@learned("log_odds", table="page_transition", unit="log odds")
def page_kind_log_odds(second_last_page_kind: int, page_kind: int) -> int:
    """How much likelier the latest step from page kind to page kind is in sessions that go on to the goal."""
    return second_last_page_kind * KINDS + page_kind + 1


@feature(unit="log odds")
def recent_log_odds(
    last_transition_log_odds: float, second_last_transition_log_odds: float, page_kind_log_odds: float
) -> float:
    """What the latest steps say together, as a naive Bayes classifier adds it up."""
    return last_transition_log_odds + second_last_transition_log_odds + page_kind_log_odds

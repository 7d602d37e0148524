"""Where the visit came from and on what it is made."""

from __future__ import annotations

from features.aggregations import opened_page_kind
from features.declare import feature, field


@field("u1", feature=True, unit="channel code")
def entry_channel(entry_channel: int, channel: int, events: int) -> int:
    """Channel of the session's first event: paid traffic bounces more, e-mail brings buyers back."""
    return channel if events == 0 else entry_channel


@field("u1", feature=True, unit="event code")
def entry_event(entry_event: int, name: int, events: int) -> int:
    """Name of the session's first event: landing on a product is not landing on a list."""
    return name if events == 0 else entry_event


@field("u1", feature=True, unit="page kind code")
def entry_page_kind(entry_page_kind: int, name: int) -> int:
    """Kind of the first page that was opened: the landing page."""
    return entry_page_kind if entry_page_kind != 0 else opened_page_kind(name)


@field("i8")
def entry_page(entry_page: int, page: int, events: int) -> int:
    """Hash of the landing page."""
    return page if events == 0 else entry_page


@field("i8")
def last_campaign(last_campaign: int, campaign: int) -> int:
    """Hash of the latest campaign."""
    return campaign if campaign != 0 else last_campaign


@feature(unit="yes or no")
def from_campaign(last_campaign: int) -> int:
    """A campaign led here: promised something, and measured against it."""
    return int(last_campaign != 0)


@field("u1", feature=True, unit="device code")
def device_kind(device: int) -> int:
    """Device of the latest event: phones browse, desktops buy."""
    return device

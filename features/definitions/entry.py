"""Where the visit came from and on what it is made."""

from __future__ import annotations

from features.declare import field


@field("u1", feature=True, unit="channel code")
def entry_channel(entry_channel: int, channel: int, events: int) -> int:
    """Channel of the session's first event: paid traffic bounces more, e-mail brings buyers back."""
    return channel if events == 0 else entry_channel


@field("u1", feature=True, unit="event code")
def entry_event(entry_event: int, name: int, events: int) -> int:
    """Name of the session's first event: landing on a product is not landing on a list."""
    return name if events == 0 else entry_event


@field("u1", feature=True, unit="device code")
def device_kind(device: int) -> int:
    """Device of the latest event: phones browse, desktops buy."""
    return device

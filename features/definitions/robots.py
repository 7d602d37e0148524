"""What a machine's visit looks like: even, quick, monotonous. Bots are scored like everybody; the model learns them."""

from __future__ import annotations

from features.declare import feature
from features.events import DEVICES

BOT_DEVICE = DEVICES.index("bot")


@feature(unit="share")
def quick_event_share(quick_events: int, events: int) -> float:
    """Events within a second of the one before: faster than a hand."""
    return quick_events / max(events - 1, 1)


@feature(unit="share")
def bot_likeness(
    device_kind: int, quick_event_share: float, gap_variation: float, passive_share: float, events: int
) -> float:
    """From 0 to 1, by rule: a declared bot, or many events that come quickly, evenly and without a sign of a hand."""
    if device_kind == BOT_DEVICE:
        return 1.0
    if events < 5:
        return 0.0
    even = max(1.0 - 2.0 * gap_variation, 0.0)
    return min(0.5 * quick_event_share + 0.5 * even, 1.0) * (1.0 - passive_share)

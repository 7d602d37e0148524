"""An event as it goes to the service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Purpose = Literal["measure", "link", "personalise"]
Channel = Literal["unknown", "direct", "organic", "paid", "social", "email", "referral", "internal"]
Device = Literal["unknown", "desktop", "mobile", "tablet", "tv", "bot"]


class Event(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Something that a visitor did.

    visitor: an id of yours that tells nobody who it is; the service keeps a keyed pseudonym of it. name: one of GA4's
    event names, or one that configs/shop.toml maps. id: the event's own, so that it counts once however often it is
    sent; the client gives it one. time, sent_at: ms since 1970, or ISO 8601, such as `datetime.now(UTC).isoformat()`.
    consent: what may be done with it; None for the service's default. Never put names, addresses or queries into it.

    >>> msgspec.json.encode(Event(visitor="v-1", name="view_item", item="sku-1", price=19.9))
    b'{"visitor":"v-1","name":"view_item","item":"sku-1","price":19.9}'
    """

    visitor: str
    name: str
    id: str = ""
    session: str = ""
    time: int | str | None = None
    sent_at: int | str | None = None
    page: str = ""
    referrer: str | None = None
    item: str = ""
    category: str = ""
    campaign: str = ""
    price: float = 0.0
    quantity: float = 1.0
    value: float = 0.0
    currency: str = ""
    channel: Channel = "unknown"
    device: Device = "unknown"
    interactive: bool | None = None
    consent: Sequence[Purpose] | None = None
    utc_offset: int | None = None
    declared: list[float] = []

"""Captured requests of real clients, read in place, and what our adapters make of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from features.shop import ShopSettings, load_shop
from serving.collect import Collected, Endpoint, Hit, Refused, Tools, Tracker, trackers
from serving.collect.visitors import Anonymous
from serving.consent import Consent
from serving.intake import EventIn, Intake
from serving.settings import CollectSettings, PrivacySettings
from tests.shared import SHARED
from tests.workspace import ROOT

CAPTURES = SHARED / "captures"
SHOP = load_shop(ROOT / "configs" / "shop.toml")


class Capture(NamedTuple):
    """One captured request; answered: what the collector said then, "drop" for a closed connection."""

    client: str
    version: str
    scenario: str
    hit: Hit
    answered: Any


def captures(name: str) -> Iterator[Capture]:
    """All requests of a file, in their order."""
    for line in (CAPTURES / f"{name}.jsonl").read_text().splitlines():
        one = json.loads(line)
        headers = {key.encode(): value.encode() for key, value in one["headers"].items()}
        hit = Hit(one["method"], one["path"], one["query"], headers, one["body"].encode(), one["t_ms"], "192.0.2.7")
        yield Capture(one["client"], one["version"], one["scenario"], hit, one["answered"])


def tracker(name: str, shop: ShopSettings = SHOP, /, **options: Any) -> Tracker:
    """An adapter by itself."""

    async def nobody(raw: str) -> None:
        del raw

    settings = CollectSettings(trackers=(name,), options={name: options})
    consent = Consent(PrivacySettings(), ("measure",))
    anonymous = Anonymous(lambda text, now_ms: hash((text, now_ms // 86_400_000)))
    return trackers(settings, lambda each: Tools(shop, settings.options.get(each, {}), consent, anonymous, nobody))[
        name
    ]


def endpoint(adapter: Tracker, hit: Hit) -> Endpoint:
    """The endpoint of a hit, which must be one of the adapter's."""
    found = adapter.endpoint(hit.path)
    assert found is not None, hit.path
    assert hit.method in (*found.methods, "OPTIONS"), hit.method
    return found


def read(adapter: Tracker, capture: Capture) -> Collected:
    """What is read of a request; of one that is refused, nothing but the reason. Every event keeps the contract."""
    if capture.hit.method == "OPTIONS":
        return Collected()
    try:
        collected = endpoint(adapter, capture.hit).read(capture.hit)
    except Refused as refused:
        return Collected(dropped=[refused.reason])
    intake = Intake(SHOP, ("measure",), 10**9)
    for event in collected.events:
        intake.event(event, capture.hit.received_ms, lambda raw, linked: 1)
    return collected


def told(event: EventIn, *left_out: str) -> dict[str, Any]:
    """What an event says that is not a default; without ids and times, and what is left out."""
    empty = msgspec.structs.asdict(EventIn(visitor="-", name="-"))
    return {
        key: value
        for key, value in msgspec.structs.asdict(event).items()
        if value != empty[key] and key not in ("visitor", "session", "id", "time", "sent_at", *left_out)
    }

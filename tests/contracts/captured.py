"""Captured requests of real clients, read in place, and what our adapters make of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from features.events import hash64
from features.shop import ShopSettings, load_shop
from serving.collect import Collected, Endpoint, Hit, Refused, Tools, Tracker, trackers
from serving.collect.carts import Carts
from serving.collect.visitors import Anonymous
from serving.consent import Consent
from serving.intake import EventIn, Intake
from serving.settings import CollectSettings, PrivacySettings
from serving.stores.memory import MemoryStore
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


def alone() -> Tools:
    """What an adapter works with by itself: no session runs, carts lie in memory, and "secret" is the secret key."""

    async def nobody(*raw: object, **more: object) -> None:
        del raw, more

    async def ask(call: Callable[[], Any]) -> Any:
        return call()

    def keys(raw: str, *, linked: bool) -> list[bytes]:
        del linked
        return [hash64(raw).to_bytes(8, "little", signed=True)]

    consent = Consent(PrivacySettings(), ("measure",))
    anonymous = Anonymous(lambda text, now_ms: hash((text, now_ms // 86_400_000)))
    carts = Carts(MemoryStore(), ask, keys, nobody, 1_800_000)
    return Tools(SHOP, {}, consent, anonymous, nobody, carts, nobody, nobody, lambda text: text == "secret")


def tracker(name: str, shop: ShopSettings = SHOP, /, **options: Any) -> Tracker:
    """An adapter by itself."""
    settings = CollectSettings(trackers=(name,), options={name: options})
    return trackers(settings, lambda each: alone()._replace(shop=shop, options=settings.options.get(each, {})))[name]


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
        found = endpoint(adapter, capture.hit).read(capture.hit)
        collected = asyncio.run(_awaited(found)) if isinstance(found, Awaitable) else found
    except Refused as refused:
        return Collected(dropped=[refused.reason])
    intake = Intake(SHOP, ("measure",), 10**9)
    for event in collected.events:
        intake.event(event, capture.hit.received_ms, lambda raw, linked: 1)
    return collected


async def _awaited(found: Awaitable[Collected]) -> Collected:
    return await found


def told(event: EventIn, *left_out: str) -> dict[str, Any]:
    """What an event says that is not a default; without ids and times, and what is left out."""
    empty = msgspec.structs.asdict(EventIn(visitor="-", name="-"))
    return {
        key: value
        for key, value in msgspec.structs.asdict(event).items()
        if value != empty.get(key, 0) and key not in ("visitor", "session", "id", "time", "sent_at", *left_out)
    }

"""One call of Segment, as the archive or a warehouse keeps it, as records of events.

In: an object of the archive or a row of a table. Out: a record an event: one, or, of a purchase, a refund or a change
of cart or wishlist, one for each product, with the order's value on the first. Missing values stay None.

The visitor is `anonymousId`, else `userId`; a call that joins the two is no step of a visitor, so they are never
joined. `timestamp` is taken, which Segment has corrected for the client's clock, else the time of receipt. `messageId`
is the event's id: a call that was delivered twice is dropped by the fold. Addresses, referrers, user agents and zones
are looked at and forgotten. Products that are no JSON (a warehouse may cut text) are counted; the event has none then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import msgspec

from features.channels import Entry, entry_of
from features.events import CONSENTS, EVENT_NAMES
from features.sources.columns import inside
from features.sources.exports import Row
from features.sources.reading import Reading

NO_STEP: Final = "no step of a visitor"
REPEATED: Final = "tracks: the event has its own table"
NO_PRODUCTS: Final = "products that are no JSON"
# Tables of calls that are no step of a visitor, and of what Segment gathers from them.
NO_EVENTS: Final = frozenset({"identifies", "users", "groups", "accounts", "aliases"})
CONSENT_COLUMN: Final = "context_consent_category_preferences_"
_OF_PRODUCTS: Final = frozenset({"add_to_cart", "remove_from_cart", "add_to_wishlist", "purchase", "refund"})
# Consent categories as consent managers name them, without case and punctuation; what each of them grants.
_CATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("analytics", "performance", "measurement", "statistics", "c0002"), ("measure", "link")),
    **dict.fromkeys(("functional", "preferences", "personalization", "personalisation", "c0003"), ("personalise",)),
    **dict.fromkeys(("necessary", "strictlynecessary", "essential", "c0001"), ()),
    **dict.fromkeys(("advertising", "marketing", "targeting", "c0004"), ()),
}


class Calls:
    """From calls to records of events, by the settings of one reading.

    categories: what each of the shop's consent categories grants. with_table: the events that have their own table.
    """

    def __init__(self, reading: Reading, categories: Mapping[str, Sequence[str]]) -> None:
        self.notes = reading.notes
        self.with_table: set[str] = set()
        self.categories = {**_CATEGORIES, **{_plain(name): grants for name, grants in categories.items()}}
        self.names = {**reading.shop.events, **reading.settings.events}
        self.spelled = {_plain(name): name for name in (*EVENT_NAMES, *self.names)}

    def of_archive(self, call: Row) -> list[Row]:
        """The events of a call as the archive keeps it."""
        kind = call.get("type")
        if kind not in ("page", "screen", "track", None):
            self.notes.skipped[f"{kind}: {NO_STEP}"] += 1
            return []
        context, properties = _object(call.get("context")), _object(call.get("properties"))
        page, seen = _object(context.get("page")), properties if kind != "track" else {}
        url = _first(page, "url", "path") or _first(seen, "url", "path")
        name = _first(call, "name") or _first(seen, "name")
        return self.events(
            {
                "name": call.get("event") if kind == "track" else kind,
                "visitor": _first(call, "anonymousId", "userId"),
                "time": _first(call, "timestamp", "receivedAt"),
                "id": _first(call, "messageId"),
                "page": url if kind == "track" else name or url if kind == "screen" else url or name,
                "url": url,
                "referrer": _first(page, "referrer") or _first(seen, "referrer"),
                "user_agent": _first(context, "userAgent"),
                "zone": _first(context, "timezone"),
            },
            campaign=_object(context.get("campaign")),
            consent=_object(inside(context, "consent", "categoryPreferences")),
            properties=properties if kind == "track" else {},
        )

    def of_row(self, table: str, cells: Row) -> list[Row]:
        """The events of a row of a warehouse's table."""
        if table in NO_EVENTS:
            self.notes.skipped[f"{table}: {NO_STEP}"] += 1
            return []
        if table == "tracks" and cells.get("event") in self.with_table:
            self.notes.skipped[REPEATED] += 1
            return []
        kind = {"pages": "page", "screens": "screen"}.get(table)
        # of another table these are the product's
        name, url = (_first(cells, "name"), _first(cells, "url", "path")) if kind else (None, None)
        url = _first(cells, "context_page_url", "context_page_path") or url
        return self.events(
            {
                "name": kind or _first(cells, "event_text", "event") or table,
                "visitor": _first(cells, "anonymous_id", "user_id"),
                "time": _first(cells, "timestamp", "received_at"),
                "id": _first(cells, "id"),
                "page": name or url if kind == "screen" else url or name,
                "url": url,
                "referrer": _first(cells, "context_page_referrer", *(("referrer",) if kind else ())),
                "user_agent": _first(cells, "context_user_agent"),
                "zone": _first(cells, "context_timezone"),
            },
            campaign={key: cells.get(f"context_campaign_{key}") for key in ("source", "medium", "name")},
            consent={
                column.removeprefix(CONSENT_COLUMN): value
                for column, value in cells.items()
                if column.startswith(CONSENT_COLUMN) and _is_given(value)
            },
            properties={} if kind else cells,
        )

    def events(self, call: Row, campaign: Row, consent: Row, properties: Row) -> list[Row]:
        """One record, or one for each product."""
        name, time = self.name(call["name"]), call["time"]
        url, referrer = str(call["url"] or ""), str(call["referrer"] or "")
        products = []
        if self.names.get(name or "", name) in _OF_PRODUCTS:
            products = self.products(properties.get("products"))
        tags = (str(_first(campaign, key) or "") for key in ("source", "medium", "name"))
        entry = _entry(url, referrer, *tags)
        # a server's call without a page says nothing about how the visitor came
        came = entry if url or referrer or entry.campaign else Entry("", "")
        whole = {
            "visitor": call["visitor"],
            "time": time.removesuffix(" UTC") if isinstance(time, str) else time,
            "name": name,
            "page": call["page"],
            "channel": came.channel or None,
            "campaign": came.campaign or None,
            "user_agent": call["user_agent"],
            "utc_offset": _utc_offset(time, call["zone"]),
            "consent": self.consent(consent),
            "currency": _first(properties, "currency"),
        }
        # a row of a warehouse has the call's own id under `id`, a product of the older spec has the product's
        keys = ("product_id", "sku", "id") if products else ("product_id", "sku")
        return [
            {
                **whole,
                "id": f"{call['id']}/{place}" if place and call["id"] else call["id"],
                "item": _first(product, *keys),
                "category": _first(product, "category"),
                "price": _first(product, "price"),
                "quantity": _first(product, "quantity"),
                "value": None if place else _first(properties, "total", "value", "revenue", "subtotal"),
            }
            for place, product in enumerate(products or [properties])
        ]

    def name(self, found: Any) -> str | None:
        """A name in the spelling of the mappings, where it differs from one of theirs only by case and punctuation."""
        if not _is_given(found):
            return None
        text = str(found)
        return text if text in self.names else self.spelled.get(_plain(text), text)

    def consent(self, preferences: Row) -> int | None:
        """The bits that the granted categories grant together; None where the call says nothing."""
        bits = 0
        for name, granted in preferences.items():
            if _plain(name) not in self.categories:
                self.notes.unmapped[f"consent category {name}"] += 1
            elif str(granted).lower() in ("true", "t", "1"):
                for grant in self.categories[_plain(name)]:
                    bits |= CONSENTS[grant]
        return bits if preferences else None

    def products(self, found: Any) -> list[Row]:
        """The products of a call: a list, or its text in a warehouse."""
        if not _is_given(found):
            return []
        try:
            found = msgspec.json.decode(found) if isinstance(found, str) else found
        except msgspec.DecodeError:
            found = None
        found = found if isinstance(found, list) else [found]
        if not all(isinstance(product, dict) for product in found):
            self.notes.unmapped[NO_PRODUCTS] += 1
        return [product for product in found if isinstance(product, dict)]


def _object(value: Any) -> Row:
    return value if isinstance(value, dict) else {}


def _is_given(value: Any) -> bool:
    # a float column of a table has NaN where it has nothing
    return value is not None and value != "" and value == value  # noqa: PLR0124


def _first(record: Mapping[str, Any], *keys: str) -> Any:
    """The first value that is given; a list or an object is none, whatever a client put there."""
    found = (record.get(key) for key in keys)
    return next((value for value in found if _is_given(value) and not isinstance(value, list | dict)), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


@lru_cache(maxsize=100_000)
def _entry(url: str, referrer: str, source: str, medium: str, name: str) -> Entry:
    tags = {"utm_source": source, "utm_medium": medium, "utm_campaign": name}
    given = urlencode({tag: value for tag, value in tags.items() if value})
    # what the call says of its campaign comes last and so wins over the address
    address = url.partition("#")[0]
    return entry_of(f"{address}{'&' if '?' in address else '?'}{given}" if given else url, referrer)


@lru_cache(maxsize=2_000)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None  # what a client says may be anything


def _utc_offset(time: Any, zone: Any) -> int | None:
    """Minutes ahead of UTC at that time; None where the call does not say its zone."""
    place = _zone(str(zone)) if zone else None
    if place is None:
        return None
    try:
        at = time if isinstance(time, datetime) else datetime.fromisoformat(str(time).removesuffix(" UTC"))
        local = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(place)
    except (ValueError, OverflowError):
        return None  # refused as a time later on
    return (local.utcoffset() or timedelta()) // timedelta(minutes=1)

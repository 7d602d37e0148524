"""Segment's calls as events: the vocabulary and the conversion that the history's reader and the live tracker share.

In: a call as a client sends it or an archive keeps it, or its fields out of a warehouse's row. Out: records of events,
their values as the call has them: one, or, of a purchase, a refund or a change of cart or wishlist, one for each
product, with the order's value on the first. Missing values stay None.

`messageId` is the event's id: a call that comes twice is dropped by the fold. Addresses, referrers, user agents and
zones are looked at and forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import msgspec

from features.channels import Entry
from features.events import CONSENTS, EVENT_NAMES
from features.remember import Entries

Row = dict[str, Any]

# Ecommerce spec v2, its aliases of v1, and the standard names of accounts and videos. "custom": known, and nothing like
# it in the vocabulary. Any spelling of a name is known: "Order Completed", "order_completed", "order completed".
EVENTS: Final = {
    "page": "page_view",
    "screen": "page_view",
    "Products Searched": "search",
    "Product List Viewed": "view_item_list",
    "Product List Filtered": "view_item_list",
    "Viewed Product Category": "view_item_list",
    "Promotion Viewed": "view_promotion",
    "Viewed Promotion": "view_promotion",
    "Promotion Clicked": "select_promotion",
    "Clicked Promotion": "select_promotion",
    "Product Clicked": "select_item",
    "Clicked Product": "select_item",
    "Product Viewed": "view_item",
    "Viewed Product": "view_item",
    "Product Added": "add_to_cart",
    "Added Product": "add_to_cart",
    "Wishlist Product Added to Cart": "add_to_cart",
    "Product Removed": "remove_from_cart",
    "Removed Product": "remove_from_cart",
    "Cart Viewed": "view_cart",
    "Checkout Started": "begin_checkout",
    "Checkout Step Viewed": "custom",  # its first step comes with Checkout Started, which must not count twice
    "Viewed Checkout Step": "custom",
    "Checkout Step Completed": "add_shipping_info",  # what steps before the payment ask for
    "Completed Checkout Step": "add_shipping_info",
    "Payment Info Entered": "add_payment_info",
    "Order Completed": "purchase",
    "Completed Order": "purchase",
    "Order Updated": "custom",
    "Updated Order": "custom",
    "Order Refunded": "refund",
    "Order Cancelled": "refund",
    "Coupon Entered": "custom",
    "Coupon Applied": "custom",
    "Coupon Denied": "custom",
    "Coupon Removed": "custom",
    "Product Added to Wishlist": "add_to_wishlist",
    "Product Removed from Wishlist": "custom",
    "Product Shared": "share",
    "Cart Shared": "share",
    "Product Reviewed": "custom",
    "Signed Up": "sign_up",
    "Signed In": "login",
    "Signed Out": "custom",
    "Video Playback Started": "video_start",
    "Video Content Playing": "video_progress",
    "Video Playback Completed": "video_complete",
}
# Consent categories as consent managers name them, without case and punctuation; what each of them grants.
CATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("analytics", "performance", "measurement", "statistics", "c0002"), ("measure", "link")),
    **dict.fromkeys(("functional", "preferences", "personalization", "personalisation", "c0003"), ("personalise",)),
    **dict.fromkeys(("necessary", "strictlynecessary", "essential", "c0001"), ()),
    **dict.fromkeys(("advertising", "marketing", "targeting", "c0004"), ()),
}
# Types of calls: those that are a step of a visitor, and those that are none.
STEPS: Final = ("track", "page", "screen")
OTHERS: Final = ("identify", "group", "alias")
NO_STEP: Final = "no step of a visitor"
NOT_LINKED: Final = "only a userId, and no consent to link"
WITHHELD: Final = "withheld by its integrations"
NO_PRODUCTS: Final = "products that are no JSON"
_OF_PRODUCTS: Final = frozenset({"add_to_cart", "remove_from_cart", "add_to_wishlist", "purchase", "refund"})


def visitor_of(anonymous_id: Any, user_id: Any, *, linked: bool) -> Any:
    """Whose call it is: with consent to link the account's, on all of its devices, else the device's; None if neither.

    >>> visitor_of("device", "account", linked=False), visitor_of("device", "account", linked=True)
    ('device', 'account')
    >>> visitor_of(None, "account", linked=False) is None
    True
    """
    return user_id if linked and user_id is not None else anonymous_id


def is_withheld(call: Row) -> bool:
    """Whether a call's `integrations` keep it from us: by our name, else from Segment as a whole, else from everybody.

    >>> is_withheld({"integrations": {"All": False}}), is_withheld({"integrations": {"All": False, "Lotse": True}})
    (True, False)
    """
    integrations = as_object(call.get("integrations"))
    return next((integrations[name] is False for name in ("Lotse", "Segment.io", "All") if name in integrations), False)


class Calls:
    """From calls to records of events.

    names: of Segment's or the shop's, by ours; categories: what each of the shop's own consent categories grants, above
    CATEGORIES; note: told of what nothing could be made of, such as `consent category Sonstiges`.
    """

    def __init__(
        self, names: Mapping[str, str], categories: Mapping[str, Sequence[str]], note: Callable[[str], object]
    ) -> None:
        self._note = note
        self._categories = {**CATEGORIES, **{_plain(name): grants for name, grants in categories.items()}}
        self._names = dict(names)
        self._spelled = {_plain(name): name for name in (*EVENT_NAMES, *self._names)}
        # by their hash: addresses may tell a person
        self._entry = Entries()

    def consent(self, preferences: Row) -> int | None:
        """The bits that the granted categories grant together; None where a call says nothing."""
        bits = 0
        for name, granted in preferences.items():
            grants = self._categories.get(_plain(name))
            if grants is None:
                self._note(f"consent category {name}")
            elif str(granted).lower() in ("true", "t", "1"):
                for grant in grants:
                    bits |= CONSENTS[grant]
        return bits if preferences else None

    def consent_of_call(self, call: Row) -> int | None:
        """The same of a call as clients send it."""
        consent = as_object(as_object(call.get("context")).get("consent"))
        return self.consent(as_object(consent.get("categoryPreferences")))

    def of_call(self, call: Row, visitor: Any, consent: Any) -> list[Row]:
        """The events of a call of STEPS as clients send it; visitor, consent: go into the records as they are."""
        kind = call.get("type")
        context, properties = as_object(call.get("context")), as_object(call.get("properties"))
        page, seen = as_object(context.get("page")), properties if kind != "track" else {}
        url = first(page, "url", "path") or first(seen, "url", "path")
        name = first(call, "name") or first(seen, "name")
        return self.events(
            {
                "name": call.get("event") if kind == "track" else kind,
                "visitor": visitor,
                "consent": consent,
                "time": first(call, "timestamp", "receivedAt"),
                "id": first(call, "messageId"),
                "page": url if kind == "track" else name or url if kind == "screen" else url or name,
                "url": url,
                "referrer": first(page, "referrer") or first(seen, "referrer"),
                "user_agent": first(context, "userAgent"),
                "zone": first(context, "timezone"),
            },
            campaign=as_object(context.get("campaign")),
            properties=properties if kind == "track" else {},
        )

    def events(self, call: Row, campaign: Row, properties: Row) -> list[Row]:
        """One record, or one for each product."""
        name, time = self.name(call["name"]), call["time"]
        url, referrer = str(call["url"] or ""), str(call["referrer"] or "")
        products = []
        if self._names.get(name or "", name) in _OF_PRODUCTS:
            products = self.products(properties.get("products"))
        tags = (str(first(campaign, key) or "") for key in ("source", "medium", "name"))
        entry = self._entry(_tagged(url, *tags), referrer)
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
            "consent": call["consent"],
            "currency": first(properties, "currency"),
        }
        # a row of a warehouse has the call's own id under `id`, a product of the older spec has the product's
        keys = ("product_id", "sku", "id") if products else ("product_id", "sku")
        return [
            {
                **whole,
                "id": f"{call['id']}/{place}" if place and call["id"] else call["id"],
                "item": first(product, *keys),
                "category": first(product, "category"),
                "price": first(product, "price"),
                "quantity": first(product, "quantity"),
                "value": None if place else first(properties, "total", "value", "revenue", "subtotal"),
            }
            for place, product in enumerate(products or [properties])
        ]

    def name(self, found: Any) -> str | None:
        """A name in the spelling of the mappings, where it differs from one of theirs only by case and punctuation."""
        if not _is_given(found):
            return None
        text = str(found)
        return text if text in self._names else self._spelled.get(_plain(text), text)

    def ours(self, name: str) -> str:
        """Our name for one that `name` gave; "custom" if there is none.

        >>> calls = Calls(EVENTS, {}, print)
        >>> calls.ours(calls.name("order_completed")), calls.ours(calls.name("Gewinnspiel gestartet"))
        ('purchase', 'custom')
        """
        found = self._names.get(name, name)
        return found if found in _OURS else "custom"

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
            self._note(NO_PRODUCTS)
        return [product for product in found if isinstance(product, dict)]


_OURS: Final = frozenset(EVENT_NAMES)


def as_object(value: Any) -> Row:
    """A record, an empty one for anything else: clients put there what they like."""
    return value if isinstance(value, dict) else {}


def first(record: Mapping[str, Any], *keys: str) -> Any:
    """The first value that is given; a list or an object is none, whatever a client put there."""
    for key in keys:
        value = record.get(key)
        if _is_given(value) and not isinstance(value, list | dict):
            return value
    return None


def _is_given(value: Any) -> bool:
    # a float column of a table has NaN where it has nothing
    return value is not None and value != "" and value == value  # noqa: PLR0124


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _tagged(url: str, source: str, medium: str, name: str) -> str:
    """An address with what a call says of its campaign, which comes last and so wins over what the address says."""
    tags = {"utm_source": source, "utm_medium": medium, "utm_campaign": name}
    given = urlencode({tag: value for tag, value in tags.items() if value})
    if not given:
        return url
    address = url.partition("#")[0]
    return f"{address}{'&' if '?' in address else '?'}{given}"


@lru_cache(maxsize=1_000)
def _known_zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _zone(name: str) -> ZoneInfo | None:
    try:
        return _known_zone(name)  # remembers those that there are, and nothing else that a client says
    except (KeyError, ValueError, OSError):
        return None


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

"""Plausible: `POST /api/event`, JSON as text/plain, of the script and the npm packages.

No id, no client time, no consent signal: visitors are told apart for a day as Plausible does it (`collect.visitors`),
and an event counts when it comes. `engagement` tells how far was scrolled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from features.agents import device_of
from features.remember import Entries
from serving.collect import Collected, Endpoint, Hit, Refused, Tools
from serving.collect.records import BadValueError, amount
from serving.http.call import Reply
from serving.intake import EventIn
from serving.requests import Answer

# Plausible's own names; custom ones are the shop's, and are mapped in [events] of configs/shop.toml.
EVENTS: Final = {
    "pageview": "page_view",
    "engagement": "user_engagement",
    "Outbound Link: Click": "click",
    "File Download": "file_download",
    "Form: Submission": "form_submit",
    "Add to Cart": "add_to_cart",
    "Remove from Cart": "remove_from_cart",
    "Checkout": "begin_checkout",
    "Purchase": "purchase",
    "Search": "search",
    "Signup": "sign_up",
    "Login": "login",
}
# Properties that tell a product or money, by what they tell; the first that is there.
PROPERTIES: Final = {
    "item": ("sku", "product_id", "item_id"),
    "category": ("category", "product_category"),
    "price": ("price",),
    "quantity": ("quantity",),
}
_LONGEST: Final = 2_000


class Plausible:
    """Its one endpoint."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._names = {**EVENTS, **tools.shop.events}
        self._entry = Entries()
        self._endpoint = Endpoint(("POST",), self.read, self.answer)

    def endpoint(self, path: str) -> Endpoint | None:
        """`/api/event`."""
        return self._endpoint if path == "/api/event" else None

    def read(self, hit: Hit) -> Collected:
        """The event of a hit.

        Raises
        ------
        Refused
            It is not what Plausible takes.
        """
        try:
            wire = msgspec.json.decode(hit.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _refused("no JSON", {"request": ["is not JSON"]}) from None
        if not isinstance(wire, dict):
            raise _refused("no JSON object", {"request": ["is not an object"]})
        name, url, domain = (_text(wire, *keys) for keys in (("n", "name"), ("u", "url"), ("d", "domain")))
        missing = [key for key, value in (("name", name), ("url", url), ("domain", domain)) if not value]
        if missing:
            raise _refused(f"no {missing[0]}", {key: ["can't be blank"] for key in missing})
        agent = hit.header(b"user-agent")
        device = device_of(agent)
        visitor = self._tools.anonymous.visitor(hit, domain)
        if not visitor or not agent:
            return Collected(dropped=["no visitor"])
        if device == "bot":
            return Collected(dropped=["a program"])
        properties = _properties(wire)
        entry = self._entry(url[:_LONGEST], _text(wire, "r", "referrer")[:_LONGEST])
        revenue = wire.get("$", wire.get("revenue"))
        money = revenue if isinstance(revenue, dict) else {}
        event = EventIn(
            visitor=visitor,
            name=self._names.get(name, "custom"),
            page=url[:_LONGEST],
            channel=entry.channel,
            campaign=entry.campaign[:512],
            device=device,
            item=_first(properties, PROPERTIES["item"]),
            category=_first(properties, PROPERTIES["category"]),
            price=_number(_first(properties, PROPERTIES["price"])) or 0.0,
            quantity=_number(_first(properties, PROPERTIES["quantity"])) or 1.0,
            value=_number(money.get("amount")) or 0.0,
            currency=str(money.get("currency", ""))[:3],
            interactive=False if wire.get("i", wire.get("interactive")) is False else None,
            consent=self._tools.consent.of(hit.headers),
        )
        if name == "engagement":
            event.value = min(_number(wire.get("sd")) or 0.0, 100.0) / 100
        return Collected([event])

    def answer(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """202 in any case; dropped ones are told in a header, as Plausible does."""
        del hit, answers
        dropped = ((b"x-plausible-dropped", b"1"),) if collected.dropped else ()
        return Reply(b"text/plain; charset=utf-8", b"ok", 202, dropped)


def _refused(reason: str, errors: Mapping[str, Sequence[str]]) -> Refused:
    return Refused(reason, Reply(b"application/json", msgspec.json.encode({"errors": errors}), 400))


def _properties(wire: Mapping[str, Any]) -> Mapping[str, Any]:
    """Custom properties: an object, of the older package a text that holds one."""
    found = next((wire[key] for key in ("p", "props", "m", "meta") if key in wire), None)
    if isinstance(found, str):
        try:
            found = msgspec.json.decode(found)
        except (msgspec.DecodeError, RecursionError):
            return {}
    return found if isinstance(found, dict) else {}


def _text(wire: Mapping[str, Any], *keys: str) -> str:
    found = next((wire[key] for key in keys if key in wire), "")
    return found if isinstance(found, str) else ""


def _first(properties: Mapping[str, Any], keys: Sequence[str]) -> str:
    """A property's text; lists and objects are dropped, as Plausible does."""
    return next((str(properties[key])[:512] for key in keys if isinstance(properties.get(key), str | int | float)), "")


def _number(value: Any) -> float | None:
    """A number that an event may hold, also of text such as "1,322.22".

    None for anything else: Plausible counts an event whose revenue it cannot read, without the revenue.
    """
    try:
        return amount(value.replace(",", "") if isinstance(value, str) else value, 0.0, "number")
    except BadValueError:
        return None

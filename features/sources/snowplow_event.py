"""One enriched event of a Snowplow pipeline: who did what, to which products, in our words.

In: the atomic columns as text, with `schema` and `data` of a self-describing event and `entities`, as
`features.sources.snowplow` lays them out. Out: records of our columns, one or one for each product. What the event does
not say is None.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from features.agents import device_of
from features.channels import Entry, channel_of, entry_of
from features.events import CONSENT_MEASURE, CONSENTS, EVENT_NAMES

SNOWPLOW: Final = "com_snowplowanalytics_snowplow"
_ECOMMERCE: Final = f"{SNOWPLOW}_ecommerce"
_ENHANCED: Final = "com_google_analytics_enhanced_ecommerce"
_ACTION: Final = f"{_ECOMMERCE}_snowplow_ecommerce_action"
ENTITIES: Final = {
    f"{_ECOMMERCE}_{name}" for name in ("product", "cart", "transaction", "refund", "checkout_step")
} | {
    f"{_ENHANCED}_{name}" for name in ("product_field_object", "action_field_object", "impression_field_object")
} | {
    f"{SNOWPLOW}_client_session",
    f"{SNOWPLOW}_bot_detection",
    f"{SNOWPLOW}_client_side_bot_detection",
    "com_iab_snowplow_spiders_and_robots",
    "nl_basjes_yauaa_context",
}  # fmt: skip
# Events that say more than their name; of any other, warehouse columns need not be read.
TOLD: Final = {_ACTION, f"{_ENHANCED}_action"} | {
    f"{SNOWPLOW}_{name}"
    for name in (
        "add_to_cart", "remove_from_cart", "focus_form", "change_form", "media_player_event", "consent_preferences",
        "screen_view",
    )
} | {"com_snowplowanalytics_mobile_screen_view"}  # fmt: skip
# Actions on products, of which each product is one event; any other action is one event, of its first product.
_PER_ITEM: Final = frozenset({
    "add_to_cart", "remove_from_cart", "transaction", "refund",
    *(f"enhanced_ecommerce/{name}" for name in ("add", "remove", "purchase", "refund")),
})  # fmt: skip
_LISTS: Final = frozenset({"list_view", "enhanced_ecommerce/view"})
# Sent by the page itself, not because the visitor did something.
_AUTOMATIC: Final = frozenset({"cmp_visible", "web_vitals", "timing", "application_error"})
_CONSENT_GIVEN: Final = {"allow_all": sum(CONSENTS.values()), "deny_all": 0, "withdrawn": 0, "expired": 0}
# What the collector writes where the tracker asks for anonymity.
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
_FORMS_REMEMBERED: Final = 200_000


@lru_cache(maxsize=100_000)
def _entry(url: str, referrer: str) -> Entry:
    return entry_of(url, referrer)


@lru_cache(maxsize=2_000)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None  # what a browser says may be anything


class EnrichedEvent:
    """One enriched event and what it says in our words."""

    def __init__(
        self, event: dict[str, Any], own: Mapping[str, str], devices: Mapping[str, str], forms: set[tuple[str, str]]
    ) -> None:
        self.event, self.own, self.devices, self.forms = event, own, devices, forms
        self.data: dict[str, Any] = event["data"]
        app = self.entity(f"{SNOWPLOW}_client_session")
        network = event.get("network_userid")
        self.known = event.get("domain_userid") or app.get("user_id")
        self.session = event.get("domain_sessionid") or app.get("session_id")
        self.visitor = self.known or (network if network != _NOBODY else None) or self.session
        self.time = event.get("derived_tstamp") or event.get("collector_tstamp")

    def entity(self, name: str) -> dict[str, Any]:
        """The first entity of the schema, empty without one."""
        found: list[dict[str, Any]] = self.event["entities"].get(name, [])
        return found[0] if found else {}

    def events(self) -> list[dict[str, Any]]:
        """The records: one, or one for each product."""
        event, name = self.event, self.name()
        channel, campaign = self.origin()
        record = {
            "visitor": self.visitor,
            "session": self.session,
            "id": event.get("event_id"),
            "time": self.time,
            "name": name,
            "page": event.get("page_url") or event.get("page_urlpath") or self.screen(name),
            "channel": channel,
            "campaign": campaign,
            "device": self.device(),
            "utc_offset": self.utc_offset(),
            # without a first-party id nothing may link visits, whatever the settings say of the others
            "consent": None if self.known else CONSENT_MEASURE,
            "interactive": 0 if name in _AUTOMATIC else None,
            **self.amount(name),
        }
        if name == "consent_preferences" and (given := _CONSENT_GIVEN.get(self.data.get("event_type", ""))) is not None:
            record["consent"] = given
        items = self.items(name)
        if name in _LISTS:
            items = [{"category": items[0].get("category")}] if items else []
        elif name not in _PER_ITEM:
            items = items[:1]
        records = [record | item for item in items] or [record]
        for number, further in enumerate(records[1:], 1):
            further["value"] = None
            further["id"] = f"{record['id']}/{number}" if record["id"] else None
        return records

    def name(self) -> str | None:
        """The event's name in the words of `DEFAULTS.events`."""
        event, kind, schema = self.event, self.event.get("event"), self.event["schema"]
        if kind == "struct":
            action, category = event.get("se_action", ""), event.get("se_category", "")
            both = f"{category}/{action}"
            return action if both not in self.own and (action in self.own or action in EVENT_NAMES) else both
        if kind not in (None, "unstruct"):
            return str(kind)
        if schema == _ACTION:
            return self.step() if self.data.get("type") == "checkout_step" else self.data.get("type")
        if schema == f"{_ENHANCED}_action":
            return f"enhanced_ecommerce/{self.data.get('action')}"
        if schema == f"{SNOWPLOW}_media_player_event":
            return f"media/{self.data.get('type')}"
        name = event.get("event_name") or schema.removeprefix(f"{SNOWPLOW}_") or None
        return self.field() if name in ("focus_form", "change_form") else name

    def step(self) -> str:
        """The first step of a checkout begins it; a later one is told by what it asks for."""
        step = self.entity(f"{_ECOMMERCE}_checkout_step")
        if step.get("step") in (None, 1, "1"):
            return "checkout_step"
        if step.get("payment_method"):
            return "checkout_step/payment"
        shipping = any(step.get(key) for key in ("delivery_provider", "delivery_method", "shipping_full_address"))
        return f"checkout_step/{'shipping' if shipping else 'other'}"

    def field(self) -> str:
        """A form is begun once a session, at its first field."""
        form = (str(self.session or self.visitor), str(self.data.get("form_id")))
        if form in self.forms:
            return "form_field"
        if len(self.forms) >= _FORMS_REMEMBERED:
            self.forms.clear()
        self.forms.add(form)
        return "focus_form"

    def screen(self, name: str | None) -> Any:
        return self.data.get("name") if name == "screen_view" else None

    def items(self, name: str | None) -> list[dict[str, Any]]:
        """Products of the event: item, category, price, quantity, currency."""
        event, entities = self.event, self.event["entities"]
        if name == "transaction_item":
            keys = {"item": "sku", "category": "category", "price": "price", "quantity": "quantity"}
            found = {ours: event.get(f"ti_{theirs}") for ours, theirs in keys.items()}
            return [found | {"currency": event.get("ti_currency")}]
        schema = event["schema"]
        if schema in (f"{SNOWPLOW}_add_to_cart", f"{SNOWPLOW}_remove_from_cart"):
            products = [{**self.data, "id": self.data.get("sku"), "price": self.data.get("unit_price")}]
        elif schema == f"{_ENHANCED}_action":
            products = entities.get(f"{_ENHANCED}_product_field_object") or entities.get(
                f"{_ENHANCED}_impression_field_object", []
            )
        else:
            products = entities.get(f"{_ECOMMERCE}_product", []) if schema == _ACTION else []
        amount = self.amount(name).get("currency")
        return [
            {
                "item": product.get("id"),
                "category": product.get("category"),
                "price": product.get("price"),
                "quantity": product.get("quantity"),
                "currency": product.get("currency") or amount,
            }
            for product in products
        ]

    def amount(self, name: str | None) -> dict[str, Any]:
        """Value and currency of the whole event; of a page ping, the share of the page that was seen."""
        event = self.event
        if name == "transaction" and event.get("event") == "transaction":
            return {"value": event.get("tr_total"), "currency": event.get("tr_currency")}
        if name == "page_ping":
            return {"value": self.seen()}
        if event["schema"] == _ACTION:
            where = {"transaction": "revenue", "refund": "refund_amount", "cart": "total_value"}
            kind = "cart" if str(name).startswith("checkout_step") else str(name)
            found = self.entity(f"{_ECOMMERCE}_{kind}") if kind in where else {}
            return {"value": found.get(where.get(kind, "")), "currency": found.get("currency")}
        if name in ("enhanced_ecommerce/purchase", "enhanced_ecommerce/refund"):
            found = self.entity(f"{_ENHANCED}_action_field_object")
            return {"value": found.get("revenue"), "currency": found.get("currency")}
        return {}

    def seen(self) -> float | None:
        try:
            bottom = float(self.event["pp_yoffset_max"]) + float(self.event["br_viewheight"])
            return max(0.0, min(bottom / float(self.event["doc_height"]), 1.0))
        except (KeyError, ValueError, ZeroDivisionError):
            return None

    def origin(self) -> tuple[str, str | None]:
        """Channel and campaign: of the campaign's parameters, else of the referrer as the pipeline or we know it."""
        event = self.event
        url, referrer, campaign = event.get("page_url", ""), event.get("page_referrer", ""), event.get("mkt_campaign")
        # the pipeline's reading of the address comes first: the address may have been scrubbed since
        if event.get("mkt_clickid"):
            return "paid", campaign
        source, medium = event.get("mkt_source", ""), event.get("mkt_medium", "")
        if (source or medium) and (tagged := channel_of(source, medium, campaign or "")) != "unknown":
            return tagged, campaign
        found = _entry(url, referrer)
        return event.get("refr_medium") or found.channel, campaign or found.campaign

    def device(self) -> str:
        robot = (
            self.entity("com_iab_snowplow_spiders_and_robots").get("spider_or_robot"),
            self.entity(f"{SNOWPLOW}_bot_detection").get("bot"),
            self.entity(f"{SNOWPLOW}_client_side_bot_detection").get("bot"),
            self.event.get("br_type") == "Robot",
        )
        if any(robot):
            return "bot"
        kind = self.entity("nl_basjes_yauaa_context").get("device_class")
        return self.devices.get(str(kind)) or device_of(self.event.get("useragent", ""))

    def utc_offset(self) -> int | None:
        """Minutes ahead of UTC by the zone that the browser names, else by that of the address."""
        zone = _zone(self.event.get("os_timezone") or self.event.get("geo_timezone") or "")
        try:
            moment = datetime.datetime.fromisoformat(str(self.time)).replace(tzinfo=datetime.UTC)
            offset = moment.astimezone(zone).utcoffset() if zone else None
        except (ValueError, OverflowError):
            return None  # a time that is none is refused with its row later on
        return None if offset is None else int(offset.total_seconds() // 60)

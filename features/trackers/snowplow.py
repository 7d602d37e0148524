"""What one event of a Snowplow tracker says in our words: who did what, to which products.

In: the atomic columns as text, as Enrich names them, with `schema` and `data` of a self-describing event and `entities`
by schema; `features.sources.snowplow` and `serving.collect.snowplow` lay them out. Out: records of our columns, one or
one for each product. What the event does not say is None.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from features.agents import device_of
from features.channels import Entry, channel_of, entry_of
from features.events import CONSENT_LINK, CONSENT_MEASURE, CONSENTS, EVENT_NAMES, hash64
from features.remember import remembered
from features.settings import Settings

# The tracker's own names, structured actions and self-describing schemas, as `SnowplowEvent.name` tells them.
EVENTS: Final = {
    "page_ping": "user_engagement",
    "screen_view": "page_view",
    "link_click": "click",
    "button_click": "click",
    "focus_form": "form_start",
    "change_form": "form_start",
    "form_field": "custom",
    "submit_form": "form_submit",
    "site_search": "search",
    "social_interaction": "share",
    "transaction": "purchase",
    "transaction_item": "purchase",
    "product_view": "view_item",
    "list_view": "view_item_list",
    "list_click": "select_item",
    "checkout_step": "begin_checkout",
    "checkout_step/shipping": "add_shipping_info",
    "checkout_step/payment": "add_payment_info",
    "checkout_step/other": "custom",
    "promo_view": "view_promotion",
    "promo_click": "select_promotion",
    "trns_error": "custom",
    "enhanced_ecommerce/view": "view_item_list",
    "enhanced_ecommerce/click": "select_item",
    "enhanced_ecommerce/detail": "view_item",
    "enhanced_ecommerce/add": "add_to_cart",
    "enhanced_ecommerce/remove": "remove_from_cart",
    "enhanced_ecommerce/checkout": "begin_checkout",
    "enhanced_ecommerce/checkout_option": "custom",
    "enhanced_ecommerce/purchase": "purchase",
    "enhanced_ecommerce/refund": "refund",
    "enhanced_ecommerce/promo_click": "select_promotion",
    "add-to-basket": "add_to_cart",
    "add-to-cart": "add_to_cart",
    "remove-from-basket": "remove_from_cart",
    "remove-from-cart": "remove_from_cart",
    "media/play": "video_start",
    "media/percentprogress": "video_progress",
    "media/ended": "video_complete",
    "play_event": "video_start",
    "percent_progress_event": "video_progress",
    "ping_event": "video_progress",
    "end_event": "video_complete",
    "consent_preferences": "custom",
    "cmp_visible": "custom",
    "web_vitals": "custom",
    "timing": "custom",
}
# the referrer parser's mediums; "unknown" is its word for a site that it has no entry for
CHANNELS: Final = {"search": "organic", "unknown": "referral"}
# the device classes of the YAUAA enrichment; another class, or none, leaves it to the user agent
DEVICES: Final = {
    "Desktop": "desktop",
    "Phone": "mobile",
    "Mobile": "mobile",
    "Tablet": "tablet",
    "eReader": "tablet",
    "TV": "tv",
    "Set-top box": "tv",
    "Game Console": "tv",
    "Robot": "bot",
    "Robot Mobile": "bot",
    "Robot Imitator": "bot",
    "Spy": "bot",
    "Hacker": "bot",
}

SNOWPLOW: Final = "com_snowplowanalytics_snowplow"
_ECOMMERCE: Final = f"{SNOWPLOW}_ecommerce"
_ENHANCED: Final = "com_google_analytics_enhanced_ecommerce"
_ACTION: Final = f"{_ECOMMERCE}_snowplow_ecommerce_action"
_APP_SESSION: Final = f"{SNOWPLOW}_client_session"
_CHOICE: Final = f"{SNOWPLOW}_consent_preferences"
_BASIS: Final = f"{SNOWPLOW}_gdpr"
_IAB: Final = "com_iab_snowplow_spiders_and_robots"
_YAUAA: Final = "nl_basjes_yauaa_context"
_BOTS: Final = (f"{SNOWPLOW}_bot_detection", f"{SNOWPLOW}_client_side_bot_detection")
ENTITIES: Final = {
    f"{_ECOMMERCE}_{name}" for name in ("product", "cart", "transaction", "refund", "checkout_step")
} | {
    f"{_ENHANCED}_{name}" for name in ("product_field_object", "action_field_object", "impression_field_object")
} | {
    _APP_SESSION, _CHOICE, _BASIS, _IAB, _YAUAA, *_BOTS,
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
# What a basis for processing (GDPR, article 6) allows: only who was asked may be linked.
_BASES: Final = {
    "consent": sum(CONSENTS.values()),
    **dict.fromkeys(
        ("contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"),
        CONSENT_MEASURE,
    ),
}
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")
# What the collector, or an app's tracker, writes where anonymity is asked for.
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
_FORMS_REMEMBERED: Final = 200_000
QUARTER_SECONDS: Final = 900


class SnowplowOptions(Settings):
    """`[sources.snowplow.options]`, for live events, too.

    Attributes
    ----------
    app_ids: read the events of these apps only; those of others are left out and counted. Empty: of all.
    """

    app_ids: tuple[str, ...] = ()


class Rules(NamedTuple):
    """How events are read.

    Attributes
    ----------
    own: names of the tracker -> ours; devices: YAUAA's classes -> ours.
    forms: remembered from event to event: hash of session and form -> hash of the event that began it.
    entry: channel and campaign of an address and its referrer.
    """

    own: Mapping[str, str]
    devices: Mapping[str, str]
    forms: dict[int, int]
    entry: Callable[[str, str], Entry] = entry_of


class SnowplowEvent:
    """One event and what it says in our words."""

    def __init__(self, event: dict[str, Any], rules: Rules) -> None:
        self.event, self.rules = event, rules
        self.data: dict[str, Any] = event["data"]
        app = self.entity(_APP_SESSION)
        network = event.get("network_userid")
        app_user = app.get("user_id")
        self.known = event.get("domain_userid") or (app_user if app_user != _NOBODY else None)
        self.session = event.get("domain_sessionid") or app.get("session_id")
        self.visitor = self.known or (network if network != _NOBODY else None) or self.session

    def entity(self, name: str) -> dict[str, Any]:
        """The first entity of the schema, empty without one."""
        found: list[dict[str, Any]] | None = self.event["entities"].get(name)
        return found[0] if found else {}

    def events(self, **more: Any) -> list[dict[str, Any]]:
        """The records: one, or one for each product. more: what the event's own columns do not say the same way."""
        event, name = self.event, self.name()
        channel, campaign = self.origin()
        record = {
            "visitor": self.visitor,
            "session": self.session,
            "id": event.get("event_id"),
            "name": name,
            "page": event.get("page_url") or event.get("page_urlpath") or self.screen(name),
            "channel": channel,
            "campaign": campaign,
            "device": self.device(),
            "consent": self.consent(),
            "interactive": 0 if name in _AUTOMATIC else None,
            **self.amount(name),
            **more,
        }
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

    def told(self) -> int | None:
        """Bits of CONSENTS that the event names: a choice, or the basis that stands beside it; None if it is silent."""
        if not self.event["entities"] and not self.chose():
            return None
        given = self.choice()
        return _BASES.get(str(self.entity(_BASIS).get("basis_for_processing"))) if given is None else given

    def choice(self) -> int | None:
        """Bits of CONSENTS that the visitor's choice grants, the event itself or beside it; None without one."""
        choice = self.data if self.chose() else self.entity(_CHOICE)
        return _CONSENT_GIVEN.get(str(choice.get("event_type")))

    def chose(self) -> bool:
        """Whether it is the visitor's choice itself."""
        return bool(self.event["schema"] == _CHOICE)

    def consent(self) -> int | None:
        given = self.told()
        if self.known:
            return given
        # without a first-party id nothing may link visits, whatever the settings say of the others
        return CONSENT_MEASURE if given is None else given & ~CONSENT_LINK

    def name(self) -> str | None:
        """The event's name in the words of `EVENTS`."""
        event, kind, schema = self.event, self.event.get("event"), self.event["schema"]
        if kind == "struct":
            action, category = event.get("se_action", ""), event.get("se_category", "")
            both = f"{category}/{action}"
            own = self.rules.own
            return action if both not in own and (action in own or action in EVENT_NAMES) else both
        if kind not in (None, "unstruct"):
            return str(kind)
        if schema == _ACTION:
            kind = self.data.get("type")
            return self.step() if kind == "checkout_step" else str(kind) if kind else None
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
        """A form is begun once a session, at its first field; that event is so, too, when it is delivered again."""
        forms = self.rules.forms
        form = hash64(f"{self.session or self.visitor} {self.data.get('form_id')}")
        this = hash64(f"{self.event.get('event_id')} {self.event['schema']}")
        if form not in forms and len(forms) >= _FORMS_REMEMBERED:
            forms.clear()
        return "focus_form" if forms.setdefault(form, this) == this else "form_field"

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
        found = self.rules.entry(url, referrer)
        return event.get("refr_medium") or found.channel, campaign or found.campaign

    def device(self) -> str:
        if self.event.get("br_type") == "Robot":
            return "bot"
        if self.event["entities"]:
            if any(self.entity(name).get("bot") for name in _BOTS) or self.entity(_IAB).get("spider_or_robot"):
                return "bot"
            kind = self.entity(_YAUAA).get("device_class")
            if found := self.rules.devices.get(str(kind)):
                return found
        found = device_of(self.event.get("useragent", ""))
        # a server or an app that tells what a person did names its library
        return "unknown" if found == "bot" and self.event.get("platform") not in (None, "web") else found


@remembered(10_000)
def utc_offset(zone: str, quarter: int) -> int | None:
    """Minutes ahead of UTC in a zone as a browser names it; None where there is none of that name.

    quarter: of an hour, since 1970; zones change on them.

    >>> utc_offset("Europe/Berlin", 1_782_864_000 // 900), utc_offset("Mars/Olympus", 0)
    (120, None)
    """
    try:
        found = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return None  # what a browser says may be anything
    offset = datetime.datetime.fromtimestamp(quarter * QUARTER_SECONDS, found).utcoffset()
    return None if offset is None else int(offset.total_seconds() // 60)


def add_entities(entities: dict[str, list[dict[str, Any]]], contexts: Any) -> None:
    """Add to {schema: [data, ...]} what of a `contexts` JSON is looked at.

    Raises
    ------
    KeyError, TypeError, AttributeError
        It is no self-describing JSON.
    """
    for entity in contexts.get("data", ()):
        name = known_schema(entity["schema"])
        if name in ENTITIES:
            entities.setdefault(name, []).append(snake(entity["data"]))


def self_described(unstruct: Any) -> dict[str, Any]:
    """`schema`, `event_name` and `data` of an `unstruct_event` JSON.

    Raises
    ------
    KeyError, TypeError, AttributeError
        It is no self-describing JSON.
    """
    inner = unstruct["data"]
    address = inner["schema"]
    return {"schema": known_schema(address), "event_name": address.split("/")[1], "data": snake(inner["data"])}


@remembered(10_000)
def known_schema(address: str) -> str:
    """A schema that is looked at, as warehouse columns are called; empty for every other.

    >>> known_schema("iglu:com.snowplowanalytics.snowplow.ecommerce/checkout_step/jsonschema/1-0-0")
    'com_snowplowanalytics_snowplow_ecommerce_checkout_step'
    >>> known_schema("iglu:com.acme/someThing/jsonschema/1-0-0")
    ''

    Raises
    ------
    TypeError, AttributeError
        It is no address of a schema.
    """
    parts = address.removeprefix("iglu:").split("/")
    if len(parts) < 2:
        raise TypeError("no address of a schema")
    snaked = _CAMEL.sub(r"_\1", parts[1])
    name = re.sub(r"[^a-z0-9]+", "_", f"{parts[0]}_{snaked}".lower())
    return name if name in ENTITIES or name in TOLD else ""


def snake(data: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as warehouses write them: `unitPrice` and `unit_price` are one."""
    return {key if key.islower() else _CAMEL.sub(r"_\1", key).lower(): value for key, value in data.items()}

"""One event of Tealium, as the archive keeps it or the tag sends it, as records of events.

In: an object in any of the shapes that `tealium` names. Out: records of our columns: one, or, of a purchase, a refund
or a change of cart or wishlist, one for each product, with the order's value on the first. What is not said is None.

The history's reader and the live adapter share all of it, so that an event is the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from pydantic import Field, field_validator

from features.agents import device_of
from features.channels import Entry, entry_of
from features.events import CONSENT_MEASURE, CONSENTS
from features.settings import Settings
from features.shop import SourceSettings

Row = dict[str, Any]

# The standard events of the retail data layer and of the events extension, and what tags call themselves without it.
# "custom": known, and nothing like it in the vocabulary.
EVENTS: Final = {
    "view": "page_view",
    "screen_view": "page_view",
    "link": "click",
    "custom_click": "click",
    "category_view": "view_item_list",
    "product_view": "view_item",
    "cart_add": "add_to_cart",
    "cart_remove": "remove_from_cart",
    "cart_empty": "remove_from_cart",
    "cart_view": "view_cart",
    "checkout": "begin_checkout",
    "wishlist_add": "add_to_wishlist",
    "user_login": "login",
    "user_logout": "custom",
    "user_register": "sign_up",
    "user_update": "custom",
    "email_signup": "generate_lead",
    "newsletter_signup": "generate_lead",
    "social_share": "share",
}  # page_view, search and purchase are our names too
DEFAULTS: Final = SourceSettings(events=EVENTS, unknown_events="custom")

# Where each column is looked for, the best place first.
VARIABLES: Final[dict[str, tuple[str, ...]]] = {
    "name": ("tealium_event", "ut_event", "event", "event_name"),
    "visitor": (
        "visitorid", "visitor_id", "tealium_visitor_id", "ut_visitor_id", "cp_utag_main_v_id",
        "firstpartycookies_utag_main_v_id", "firstparty_tealium_cookies_utag_main_v_id", "tealium_vid",
    ),
    "session": (
        "tealium_session_id", "ut_session_id", "cp_utag_main_ses_id", "firstpartycookies_utag_main_ses_id",
        "firstparty_tealium_cookies_utag_main_ses_id",
    ),
    "id": ("eventid", "event_id", "request_uuid"),
    "time": (
        "eventtime", "post_time", "timestamp_unix_milliseconds", "tealium_timestamp_utc", "tealium_timestamp_epoch",
    ),
    "url": ("dom_url", "pageurl_full_url", "page_url_full_url"),
    "query": ("dom_query_string", "pageurl_querystring", "page_url_querystring"),
    "page": ("screen_title", "page_name"),
    "referrer": ("dom_referrer", "referrerurl_full_url", "referrer_url_full_url"),
    "user_agent": ("useragent", "user_agent"),
    "device": ("device_type",),
    "item": ("product_id", "product_sku", "_cprod"),
    "category": ("product_category", "_ccat"),
    "list_category": ("category_name", "category_id", "page_category_name"),
    "price": ("product_price", "product_unit_price", "_cprice"),
    "quantity": ("product_quantity", "_cquan"),
    "value": ("order_total", "_ctotal", "order_subtotal", "_csubtotal"),
    "cart_value": ("cart_total_value",),
    "currency": ("order_currency_code", "order_currency", "_ccurrency", "currency_code", "site_currency"),
    "consent_status": ("consent_status", "tracking_consented"),
    "consent_categories": ("consent_categories",),
    "do_not_sell": ("do_not_sell",),
    **{f"declared_{slot}": () for slot in range(4)},
}  # fmt: skip
_OF_PRODUCTS: Final = frozenset({"add_to_cart", "remove_from_cart", "add_to_wishlist", "purchase", "refund"})
_OF_ONE_PRODUCT: Final = frozenset({"view_item", "select_item"})
_OF_CART: Final = frozenset({"view_cart", "begin_checkout", "add_shipping_info", "add_payment_info"})
_NOT_GRANTED: Final = frozenset({"notconsented", "unknown"})
_EVERYTHING: Final = sum(CONSENTS.values())
# What else is looked at, without a column of its own.
_OF_THE_TAG: Final = frozenset({
    "tealium_random", "tealium_timestamp_epoch", "tealium_timestamp_local", "tealium_timestamp_utc",
    "browser_timezone_offset",
})  # fmt: skip
# Tealium's categories of consent: the two that grant something here, then those that grant nothing.
_CATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    "analytics": ("measure", "link"),
    "personalization": ("personalise",),
    **dict.fromkeys(("affiliates", "displayads", "email", "search", "social", "bigdata", "mobile", "engagement"), ()),
    **dict.fromkeys(("monitoring", "crm", "cdp", "cookiematch", "misc"), ()),
}


class TooManyProductsError(Exception):
    """An event names more products than are taken from somebody who may send anything."""


class TealiumOptions(Settings):
    """What `[sources.tealium.options]` may hold.

    variables: where the shop keeps what, our name on the left: `variables = {item = "prod_sku", value = "basket_sum"}`.
        It is looked for first, then the usual names. Ours are the columns of an event and: list_category (of an event
        without products), cart_value (of a cart and a checkout; `value` is a purchase's), query, consent_status,
        consent_categories, do_not_sell.
    consent_categories: what each category of consent grants, beside analytics (measure, link) and personalization
        (personalise). An event with categories carries what they grant together; "consented" without any grants all,
        "notConsented" and "unknown" nothing; an event that says neither has the source's `consent`. do_not_sell
        leaves no more than measure.
    """

    variables: dict[str, str] = Field(default_factory=dict)
    consent_categories: dict[str, tuple[Literal["measure", "link", "personalise"], ...]] = Field(default_factory=dict)

    @field_validator("variables")
    @classmethod
    def _known_variables(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if name not in VARIABLES:
                raise ValueError(f"unknown name {name!r}; known: {', '.join(VARIABLES)}")
        return variables


def is_step(found: Row) -> bool:
    """Whether an object is a step of a visitor, and not one that was imported to enrich a profile."""
    return found.get("enrichmentOnly") is not True and found.get("type") != "BULK_IMPORT"


class TealiumEvents:
    """From an object to records of events.

    names: the shop's own name of an event -> ours; entry: as `entry_of`, which may remember; unmapped: told of a word
    of the consent that means nothing here; times: where an event's time is looked for; most: products of an event.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        options: TealiumOptions,
        entry: Callable[[str, str], Entry] = entry_of,
        unmapped: Callable[[str], None] = lambda what: None,
        times: tuple[str, ...] = VARIABLES["time"],
        most: int | None = None,
    ) -> None:
        self.most = most
        self.names, self.entry, self.unmapped = names, entry, unmapped
        self.places = {
            ours: (_plain(options.variables[ours]), *usual) if ours in options.variables else usual
            for ours, usual in {**VARIABLES, "time": times}.items()
        }
        # for each way in which a name may begin, how it may go on: its plain name, and whether it is a variable
        self.levels: dict[str, dict[str, tuple[str, bool]]] = {}
        for name in {name for names in self.places.values() for name in names} | _OF_THE_TAG:
            for before in ("", "data_", "udo_", "data_udo_"):
                whole = before + name
                for cut in (0, *(place + 1 for place, letter in enumerate(whole) if letter == "_")):
                    self.levels.setdefault(whole[:cut], {})[whole[cut:]] = name, bool(before)
        self.undeclared: Row = dict.fromkeys(f"declared_{slot}" for slot in range(4))
        self.declared = [slot for slot in self.undeclared if self.places[slot]]
        own = options.consent_categories.items()
        self.categories = {**_CATEGORIES, **{_letters(name): grants for name, grants in own}}

    def __call__(self, found: Row) -> list[Row]:
        """One record, or one for each product.

        Raises
        ------
        TooManyProductsError
            There are more of them than `most`.
        """
        event = self.flat(found)
        name = self.first(event, "name")
        url, referrer = str(self.first(event, "url") or ""), str(self.first(event, "referrer") or "")
        query = str(self.first(event, "query") or "")
        entry = self.entry(f"{url}?{query}" if query and "?" not in url else url, referrer)
        agent, kind = self.first(event, "user_agent"), self.first(event, "device")
        whole = {
            "visitor": self.first(event, "visitor"),
            "session": self.first(event, "session"),
            "time": _time_ms(self.first(event, "time")),
            "name": name,
            "page": url or self.first(event, "page"),
            # a server's event without a page tells nothing about how the visitor came
            "channel": entry.channel if url or referrer else None,
            "campaign": entry.campaign or None,
            "device": device_of(str(agent)) if agent else str(kind).lower() if kind else None,
            "utc_offset": _utc_offset(event),
            "consent": self.consent(event),
            "currency": self.first(event, "currency"),
            **self.undeclared,
        }
        for slot in self.declared:
            whole[slot] = self.first(event, slot)
        action = self.names.get(str(name), str(name))
        identity = self.identity(event)
        value = "value" if action in ("purchase", "refund") else "cart_value" if action in _OF_CART else None
        whole["id"], whole["value"] = identity, self.first(event, value) if value else None
        first, *others = self.products(event, action)
        whole |= first
        if not others:
            return [whole]
        own = ({"id": identity and f"{identity}/{place}", "value": None} for place in range(1, len(others) + 1))
        return [whole, *(whole | product | more for product, more in zip(others, own, strict=True))]

    def flat(self, event: Row) -> Row:
        """{plain name: value} of what is looked for; what stands at the top wins over a variable of the same name."""
        top: Row = {}
        inside: Row = {}
        levels = [("", event)]
        for prefix, level in levels:
            wanted = self.levels[prefix]
            for key, value in level.items():
                if type(value) is dict:
                    deeper = f"{prefix}{key.replace('.', '_')}_"
                    if deeper in self.levels:
                        levels.append((deeper, value))
                # most are not looked for; a name without a point is spelled already
                elif (place := wanted.get(key.replace(".", "_") if "." in key else key)) is not None:
                    name, is_variable = place
                    (inside if is_variable else top).setdefault(name, value)
        return inside | top if inside else top

    def first(self, event: Row, ours: str) -> Any:
        """The first value that is given; of a list its first."""
        for theirs in self.places[ours]:
            if theirs in event:
                found = event[theirs]
                if isinstance(found, str) and found and found[0] != "[":
                    return found
                for value in _cells(found):
                    if value is not None:
                        return value
        return None

    def cells(self, event: Row, ours: str) -> list[Any]:
        """All values of the first variable that has some."""
        for theirs in self.places[ours]:
            if theirs in event and (found := _cells(event[theirs])):
                return found
        return []

    def identity(self, event: Row) -> str | None:
        """The event's id; of one that only the tag has seen, its random number and its time."""
        given = self.first(event, "id")
        if given is None and _cells(event.get("tealium_random")):
            return f"{event['tealium_random']}-{event.get('tealium_timestamp_epoch')}"
        return None if given is None else str(given)

    def products(self, event: Row, action: str) -> list[Row]:
        """What the event says of each of its products; of an event that is about none, its list's category."""
        if action not in _OF_PRODUCTS and action not in _OF_ONE_PRODUCT:
            return [{"category": self.first(event, "list_category")}]
        columns = {ours: self.cells(event, ours) for ours in ("item", "category", "price", "quantity")}
        rows = [place for place, item in enumerate(columns["item"]) if item is not None] or [0]
        if action in _OF_ONE_PRODUCT:
            rows = rows[:1]
        if self.most is not None and len(rows) > self.most:
            raise TooManyProductsError
        return [
            {ours: cells[place] if place < len(cells) else None for ours, cells in columns.items()} for place in rows
        ]

    def consent(self, event: Row) -> int | None:
        """The bits that the event's consent grants; None where it says nothing."""
        told, refused = self.first(event, "consent_status"), self.first(event, "do_not_sell")
        listed = self.cells(event, "consent_categories")
        if not told and not listed and refused is None:
            return None
        status = _letters(str(told or ""))
        categories = [part for cell in listed if cell is not None for part in str(cell).split(",")]
        most = CONSENT_MEASURE if _is_true(refused) else _EVERYTHING
        if not status and not categories:
            return most if most == CONSENT_MEASURE else None
        if status in _NOT_GRANTED:
            return 0
        if not categories and status == "consented":
            return most
        if not categories:
            self.unmapped(f"consent status {status}")
        bits = 0
        for category in categories:
            if _letters(category) not in self.categories:
                self.unmapped(f"consent category {category}")
            for grant in self.categories.get(_letters(category), ()):
                bits |= CONSENTS[grant]
        return bits & most


def _plain(name: str) -> str:
    return name.replace(".", "_").removeprefix("data_").removeprefix("udo_")


def _is_true(value: Any) -> bool:
    return value is True or str(value).lower() in ("true", "1", "yes", "y")


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _cells(value: Any) -> list[Any]:
    """A variable's values: of a list, or of its text, its elements; None for those that are empty."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return [value]  # a text that begins so
    if not isinstance(value, list):
        return [] if value is None or value == "" else [value]
    return [None if cell == "" or isinstance(cell, list | dict) else cell for cell in value]


def _time_ms(value: Any) -> Any:
    """Milliseconds of seconds, milliseconds or ISO text; anything else as it is, to be refused as a time."""
    try:
        # a text with a dash in it is a date: to have int() find out takes longer than to read it
        number = None if isinstance(value, str) and "-" in value[1:] else int(value)
    except (TypeError, ValueError):
        number = None
    if number is None:
        at = _moment(value)
        return value if at is None else round(at.timestamp() * 1000)
    # seconds of the year 5138 and milliseconds of the year 1973: no event has either
    return number if abs(number) >= 10**11 else number * 1000


def _clock(value: Any) -> datetime | None:
    """What a clock shows, perhaps without saying whose."""
    try:
        return datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None


def _moment(value: Any) -> datetime | None:
    at = _clock(value)
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)


def _utc_offset(event: Row) -> int | None:
    """Minutes ahead of UTC, from the two clocks that the tag reads or the offset that the browser tells."""
    local, utc = _clock(event.get("tealium_timestamp_local")), _clock(event.get("tealium_timestamp_utc"))
    if local and utc:
        # both as if they were UTC's, and the offset that the second may have taken off afterwards: no date overflows
        ahead = (local.replace(tzinfo=None) if local.tzinfo else local) - utc.replace(tzinfo=None)
        minutes = ahead.total_seconds() / 60
        if utc.tzinfo is not None and utc.tzinfo is not UTC:
            minutes += (utc.utcoffset() or timedelta()).total_seconds() / 60
    else:
        behind = event.get("browser_timezone_offset")
        if not isinstance(behind, int | float):
            return None
        minutes = -behind
    offset = round(minutes / 15) * 15  # zones lie quarters of an hour apart
    return offset if abs(offset) <= 18 * 60 else None

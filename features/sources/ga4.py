"""Google Analytics 4: its BigQuery export, a row an event, or a flat table of the items of purchases.

In: files of `events_YYYYMMDD` (and `events_intraday_...`) as JSON lines or Parquet, a row an event; or CSV, JSON lines
or Parquet with a row an item of a purchase, as Google's published sample has it (told by the column `item_id`).

Out: canonical events. A visitor is a `user_pseudo_id`, a session is that with `ga_session_id`. Without consent Google
leaves out the first: such events belong to a visitor of one session where there is a session id, else they are left out
and counted. `(not set)` and the like are missing. Money comes with the event's own `currency`, or, where the event has
none, from the amounts that Google converted to US dollars. The events of one request share a time: `batch_event_index`
milliseconds are added, so that they keep their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, Final

import pandas as pd

from features.channels import CHANNEL_GROUPS, channel_of, entry_of
from features.errors import EventError
from features.events import CONSENT_LINK, CONSENT_MEASURE, CONSENTS
from features.settings import Settings
from features.shop import SourceSettings
from features.sources.columns import inside
from features.sources.convert import Record, from_records
from features.sources.exports import (
    BadRowError,
    Row,
    known,
    number,
    records_of,
    repeated,
    table_files,
    table_rows,
    whole,
)
from features.sources.reading import Reading

DEFAULTS: Final = SourceSettings(
    events={
        "view_search_results": "search",
        "screen_view": "page_view",
        "in_app_purchase": "purchase",
        "ecommerce_purchase": "purchase",
    },
    channels=CHANNEL_GROUPS,
    devices={"smart tv": "tv"},
    time_unit="us",
    unknown_events="custom",
)

NO_VISITOR: Final = "no user_pseudo_id and no ga_session_id (no consent)"

_COLUMNS: Final = (
    "event_name",
    "event_timestamp",
    "event_value_in_usd",
    "event_bundle_sequence_id",
    "batch_page_id",
    "batch_ordering_id",
    "batch_event_index",
    "user_pseudo_id",
    "event_params",
    "privacy_info",
    "device",
    "collected_traffic_source",
    "session_traffic_source_last_click",
    "ecommerce",
    "items",
)
_FLAT_COLUMNS: Final = (
    "user_pseudo_id",
    "event_timestamp",
    "item_id",
    "item_name",
    "item_category",
    "price",
    "price_in_usd",
    "quantity",
    "item_revenue",
    "item_revenue_in_usd",
    "currency",
)
# Actions on items: an event each. Of the others only the first two are about one item.
_ITEM_ACTIONS: Final = frozenset({"add_to_cart", "remove_from_cart", "add_to_wishlist", "purchase", "refund"})
_OF_ONE_ITEM: Final = frozenset({"view_item", "select_item"})
# What a page says about itself while it loads, beside its page_view.
_PAGE_VIEWS: Final = frozenset({"view_item", "view_item_list", "view_cart", "search"})


class Ga4Options(Settings):
    """`[sources.ga4.options]`.

    Attributes
    ----------
    skip_events: names that Google makes by itself and that are no step of a visitor; counted.
    views_interact: whether view_item, view_item_list, view_cart and searches count as interactions. GA4 sends them
        beside the page_view of the same page, so that counting both would leave no bounce on a product page; set it
        where the site sends no page_view.
    """

    skip_events: tuple[str, ...] = (
        "session_start",
        "first_visit",
        "first_open",
        "app_clear_data",
        "app_exception",
        "app_remove",
        "app_update",
        "os_update",
    )
    views_interact: bool = False


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files, daily tables in the order of their days.

    Raises
    ------
    EventError
        A file is no export of Google Analytics 4, or a row of it cannot be used.
    """
    convert = _Conversion(reading)
    for path in table_files(reading):
        rows = table_rows(path, reading, {*_COLUMNS, *_FLAT_COLUMNS})
        first = next(rows, None)
        if first is None:
            continue
        rows = chain([first], rows)
        if "event_name" in first[1]:
            records = records_of(rows, convert.event, path, reading)
        elif {"user_pseudo_id", "event_timestamp", "item_id"} <= first[1].keys():
            records = _purchases(records_of(rows, _item_of_purchase, path, reading))
        else:
            raise EventError(
                f"{path}, row {first[0]}: found the columns {', '.join(first[1])}; expected event_name, "
                "event_timestamp, user_pseudo_id, event_params of a BigQuery export, or item_id of a table of items"
            )
        yield from from_records(records, reading, path)


class _Conversion:
    """From a row of the export to records, one or, for an action on several items, one an item."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.options = reading.options(Ga4Options)
        self.own = {**reading.shop.events, **reading.settings.events}
        self.consent = sum(CONSENTS[name] for name in reading.settings.consent)

    def event(self, row: Row) -> list[Row]:
        skipped = self.reading.notes.skipped
        theirs = known(row.get("event_name"))
        if not theirs:
            raise BadRowError(f"event_name is {row.get('event_name')!r}; expected a name", "event_name: missing")
        if theirs in self.options.skip_events:
            skipped[f"event {theirs}"] += 1
            return []
        params = {str(one.get("key")): _value(one.get("value")) for one in repeated(row, "event_params")}
        visitor, session = known(row.get("user_pseudo_id")), known(params.get("ga_session_id"))
        if not visitor and not session:
            skipped[NO_VISITOR] += 1
            return []
        name = self.own.get(theirs, theirs)
        time = whole(row.get("event_timestamp"), "event_timestamp")
        event: Row = {
            "visitor": visitor or f"session {session}",
            "session": f"{visitor}.{session}" if session else None,
            "id": _id(row, params),
            "time": time + 1000 * whole(row.get("batch_event_index") or 0, "batch_event_index"),
            "name": theirs,
            "page": known(params.get("page_location")) or known(params.get("firebase_screen")) or None,
            "device": known(inside(row, "device", "category")) or None,
            "consent": self._consent(row, visitor),
            # passive names follow the vocabulary
            "interactive": 0 if name in _PAGE_VIEWS and not self.options.views_interact else None,
        }
        event["channel"], event["campaign"] = _came_from(row, params)
        items = repeated(row, "items")
        event |= _money(row, name, params, items)
        if name == "scroll":
            share = number(params.get("percent_scrolled"), "percent_scrolled")
            event["value"] = None if share is None else share / 100
        return _with_items(event, name, items)

    def _consent(self, row: Row, visitor: str) -> int:
        storage = inside(row, "privacy_info", "analytics_storage")
        bits = {"Yes": CONSENT_MEASURE | CONSENT_LINK, "No": CONSENT_MEASURE}.get(storage, self.consent)
        transient = inside(row, "privacy_info", "uses_transient_token") == "Yes"
        return bits if visitor and not transient else bits & ~CONSENT_LINK


def _value(value: Any) -> Any:
    """What an event parameter holds: of its four typed values the one that is there."""
    kinds = ("string_value", "int_value", "double_value", "float_value")
    return next((found for kind in kinds if (found := inside(value, kind)) is not None), None)


def _id(row: Row, params: Row) -> str:
    """A row has no id of its own: the request, the place in it, and for older exports without a place the content."""
    names = ("user_pseudo_id", "event_timestamp", "event_name", "event_bundle_sequence_id")
    parts = [str(row.get(name)) for name in (*names, "batch_page_id", "batch_ordering_id", "batch_event_index")]
    if row.get("batch_event_index") is None:
        parts += [f"{key}={params[key]}" for key in sorted(params)]
        parts += [str(item.get("item_id")) for item in repeated(row, "items")]
    return "/".join(parts)


def _came_from(row: Row, params: Row) -> tuple[str | None, str | None]:
    """Channel and campaign: what Google settled on for the session, else what the event itself brought along.

    `traffic_source` is of the visitor's first visit ever, so it is not looked at.
    """
    session, collected = row.get("session_traffic_source_last_click"), row.get("collected_traffic_source")
    cross = inside(session, "cross_channel_campaign")
    manual = inside(session, "manual_campaign")
    tags = [
        [known(inside(cross, name)) for name in ("source", "medium", "campaign_name")],
        [known(inside(manual, name)) for name in ("source", "medium", "campaign_name")],
        [known(inside(collected, f"manual_{name}")) for name in ("source", "medium", "campaign_name")],
        [known(params.get(name)) for name in ("source", "medium", "campaign")],
    ]
    ads_campaign = known(inside(session, "google_ads_campaign", "campaign_name"))
    campaign = ads_campaign or next((tag[2] for tag in tags if tag[2] and not tag[2].startswith("(")), None)
    if group := known(inside(cross, "default_channel_group")):
        return group, campaign
    clicks = (inside(collected, name) for name in ("gclid", "dclid"))
    if ads_campaign or any(map(known, clicks)):
        return "paid", campaign
    for source, medium, name in tags:
        if source or medium:
            return channel_of(source, medium or "(not set)", name), campaign
    url, referrer = known(params.get("page_location")), known(params.get("page_referrer"))
    if not url and not referrer:
        return None, campaign
    entry = entry_of(url, referrer)
    return entry.channel, campaign or entry.campaign or None


def _money(row: Row, name: str, params: Row, items: list[Row]) -> Row:
    """Value and currency of the event; `in_usd` stands for the items' prices."""
    ecommerce = row.get("ecommerce")
    amount = "refund_value" if name == "refund" else "purchase_revenue"
    currency = known(params.get("currency"))
    in_usd = [row.get("event_value_in_usd"), inside(ecommerce, f"{amount}_in_usd")]
    in_usd += [item.get("price_in_usd") for item in items]
    if not currency and any(found is not None for found in in_usd):
        values = [inside(ecommerce, f"{amount}_in_usd"), row.get("event_value_in_usd")]
        currency, price = "USD", "price_in_usd"
    else:
        values = [params.get("value"), inside(ecommerce, amount)]
        price = "price"
        # a `value` without a currency is no money: vitals and video positions use the same parameter
        if not currency and name not in ("purchase", "refund"):
            values = []
    return {
        "value": next((found for found in values if found is not None), None),
        "currency": currency or None,
        "prices": [item.get(price) for item in items],
    }


def _with_items(event: Row, name: str, items: list[Row]) -> list[Row]:
    prices = event.pop("prices")
    if name not in _ITEM_ACTIONS:
        categories = {known(item.get("item_category")) for item in items}
        if len(categories) == 1:
            event["category"] = categories.pop() or None
        if items and name in _OF_ONE_ITEM:
            event |= _item(items[0], prices[0])
        return [event]
    if not items:
        return [event]
    events = []
    for place, (item, price) in enumerate(zip(items, prices, strict=True)):
        # the value is the whole order's: once
        own = {"id": f"{event['id']}/{place}", "value": None} if place else {}
        events.append(event | own | _item(item, price))
    return events


def _item(item: Row, price: Any) -> Row:
    return {
        "item": known(item.get("item_id")) or known(item.get("item_name")) or None,
        "category": known(item.get("item_category")) or None,
        "price": price,
        "quantity": item.get("quantity"),
    }


def _item_of_purchase(row: Row) -> list[Row]:
    usd = not known(row.get("currency"))
    price, revenue = ("price_in_usd", "item_revenue_in_usd") if usd else ("price", "item_revenue")
    event = {
        "visitor": known(row.get("user_pseudo_id")) or None,
        "id": f"{row.get('user_pseudo_id')}/{row.get('event_timestamp')}",
        "time": whole(row.get("event_timestamp"), "event_timestamp"),
        "name": "purchase",
        "value": number(row.get(revenue), revenue),
        "currency": "USD" if usd else row.get("currency"),
    }
    return [event | _item(row, row.get(price))]


def _purchases(items: Iterator[Record]) -> Iterator[Record]:
    """The rows of one purchase stand next to each other: its value is the sum of its items' revenues."""
    for _, group in groupby(items, itemgetter("id")):
        events = [dict(event) for event in group]
        value = sum(event["value"] or 0.0 for event in events)
        for place, event in enumerate(events):
            event["value"] = None if place else value
            event["id"] += f"/{place}" if place else ""
            yield event

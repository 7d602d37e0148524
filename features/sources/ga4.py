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

from features.channels import CHANNEL_GROUPS
from features.errors import EventError
from features.events import CONSENT_LINK, CONSENT_MEASURE, CONSENTS
from features.shop import SourceSettings
from features.sources.columns import inside
from features.sources.convert import Record, from_records
from features.sources.exports import (
    BadRowError,
    Row,
    number,
    records_of,
    repeated,
    table_files,
    table_rows,
    whole,
)
from features.sources.reading import Reading
from features.trackers.ga4 import (
    DEVICES,
    EVENTS,
    Ga4Options,
    campaign_of,
    interactive,
    is_money,
    item_of,
    known,
    origin,
    with_items,
)

DEFAULTS: Final = SourceSettings(
    events=EVENTS,
    channels=CHANNEL_GROUPS,
    devices=DEVICES,
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
            "interactive": interactive(name, self.options),
        }
        event["channel"], event["campaign"] = _came_from(row, params)
        items = repeated(row, "items")
        event |= _money(row, name, params, items)
        if name == "scroll":
            share = number(params.get("percent_scrolled"), "percent_scrolled")
            event["value"] = None if share is None else share / 100
        return with_items(event, name, items)

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
    campaign = ads_campaign or campaign_of(tags)
    if group := known(inside(cross, "default_channel_group")):
        return group, campaign
    clicks = (inside(collected, name) for name in ("gclid", "dclid"))
    if ads_campaign or any(map(known, clicks)):
        return "paid", campaign
    channel, found = origin(tags, known(params.get("page_location")), known(params.get("page_referrer")))
    return channel, campaign or found


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
        if not is_money(name, currency):
            values = []
    return {
        "value": next((found for found in values if found is not None), None),
        "currency": currency or None,
        "prices": [item.get(price) for item in items],
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
    return [event | item_of(row, row.get(price))]


def _purchases(items: Iterator[Record]) -> Iterator[Record]:
    """The rows of one purchase stand next to each other: its value is the sum of its items' revenues."""
    for _, group in groupby(items, itemgetter("id")):
        events = [dict(event) for event in group]
        value = sum(event["value"] or 0.0 for event in events)
        for place, event in enumerate(events):
            event["value"] = None if place else value
            event["id"] += f"/{place}" if place else ""
            yield event

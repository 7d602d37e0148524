"""Google Analytics 360 (Universal Analytics): its BigQuery export, or one of two flat tables that are taught with.

In, told apart by the columns of each file:

- the export `ga_sessions_YYYYMMDD` as JSON lines or Parquet, a row a visit with its `hits`;
- a row a hit and product (`visitId`, `eCommerceAction_type`, ...) as Parquet, CSV or JSON lines;
- a row a product shown in a visit (`visit_id`, `page_views`, `revenue`, ...) as Parquet, totals of the visit only.

Out: canonical events. In the export a visitor is a `fullVisitorId`. In the flat tables a spreadsheet rounded that, so a
visitor is a visit, and returning visitors cannot be told. Two visits that began in the same second are one there.

How events are made of visit totals is told in `features.sources.ga360_totals`.

`(not set)` is missing. Money is in millionths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

import pandas as pd

from features.channels import CHANNEL_GROUPS, channel_of
from features.errors import EventError
from features.shop import SourceSettings
from features.sources.columns import inside
from features.sources.convert import from_records
from features.sources.exports import (
    BadRowError,
    Row,
    is_parquet,
    number,
    parquet_columns,
    records_of,
    repeated,
    table_files,
    table_rows,
    whole,
)
from features.sources.ga360_totals import Ga360Options, visit_events
from features.sources.reading import Reading
from features.trackers.ga4 import known

_CHECKOUT_STEPS: Final = 10

DEFAULTS: Final = SourceSettings(
    # a shop can say more of its steps: checkout_step_2 = "add_payment_info"
    events={f"checkout_step_{step}": "begin_checkout" for step in range(1, _CHECKOUT_STEPS + 1)} | {"hit": "custom"},
    channels=CHANNEL_GROUPS,
    unknown_events="custom",
)

NO_HITS: Final = "visit without hits"
NOT_A_STEP: Final = "exception report"

_EXPORT_COLUMNS: Final = (
    "fullVisitorId",
    "visitId",
    "visitStartTime",
    "trafficSource",
    "device",
    "channelGrouping",
    "hits",
)
_HIT_COLUMNS: Final = (
    "visitId",
    "time",
    "type",
    "channelGrouping",
    "pagePathLevel1",
    "productSKU",
    "v2ProductCategory",
    "productPrice",
    "productQuantity",
    "currencyCode",
    "transactionRevenue",
    "totalTransactionRevenue",
    "eCommerceAction_type",
    "eCommerceAction_step",
)
# hits.eCommerceAction.action_type
_ACTIONS: Final = {
    1: "select_item",
    2: "view_item",
    3: "add_to_cart",
    4: "remove_from_cart",
    5: "checkout",
    6: "purchase",
    7: "refund",
    8: "checkout_option",
}
_ITEM_ACTIONS: Final = frozenset({"add_to_cart", "remove_from_cart", "purchase", "refund"})
_OF_ONE_ITEM: Final = frozenset({"select_item", "view_item"})


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files, daily tables in the order of their days.

    Raises
    ------
    EventError
        A file is none of the three, or a row of it cannot be used.
    """
    options = reading.options(Ga360Options)
    export = _Export(reading)
    for path in table_files(reading):
        if is_parquet(path) and "visit_id" in parquet_columns(path):
            yield from from_records(visit_events(path, reading, options), reading, path)
            continue
        rows = table_rows(path, reading, {*_EXPORT_COLUMNS, *_HIT_COLUMNS})
        first = next(rows, None)
        if first is None:
            continue
        convert: Callable[[Row], list[Row]]
        if {"fullVisitorId", "visitStartTime"} <= first[1].keys():
            convert = export.events
        elif {"visitId", "time", "eCommerceAction_type"} <= first[1].keys():
            convert = _flat_hit
        else:
            raise EventError(
                f"{path}, row {first[0]}: found the columns {', '.join(first[1])}; expected fullVisitorId, visitId, "
                "visitStartTime, hits of a BigQuery export, or visitId, time, eCommerceAction_type of a table of hits, "
                "or, as Parquet, visit_id, visit_start_time, page_views of visit totals"
            )
        yield from from_records(records_of(chain([first], rows), convert, path, reading), reading, path)


class _Export:
    """From a visit of the export to a record a hit, or, for an action on several products, one a product."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.own = {**reading.shop.events, **reading.settings.events}

    def events(self, visit: Row) -> list[Row]:
        visitor = known(visit.get("fullVisitorId"))
        if not visitor:
            raise BadRowError("fullVisitorId is missing; expected one in every visit", "fullVisitorId: missing")
        start = whole(visit.get("visitStartTime"), "visitStartTime")
        # a visit id is unique within its visitor; at midnight a visit goes on with its id and another start
        session = f"{visitor}.{visit.get('visitId') or start}"
        campaign = known(inside(visit, "trafficSource", "campaign"))
        common = {
            "visitor": visitor,
            "session": session,
            "channel": _channel(visit),
            "campaign": None if campaign.startswith("(") else campaign or None,
            "device": known(inside(visit, "device", "deviceCategory")) or None,
        }
        hits = repeated(visit, "hits")
        if not hits:
            self.reading.notes.skipped[NO_HITS] += 1
        events = []
        for hit in hits:
            name = self._name(hit)
            if not name:
                self.reading.notes.skipped[NOT_A_STEP] += 1
                continue
            event = common | {
                "id": f"{session}.{start}.{whole(hit.get('hitNumber'), 'hits.hitNumber')}",
                "time": start * 1000 + whole(hit.get("time") or 0, "hits.time"),
                "name": name,
                "page": known(inside(hit, "page", "pagePath")) or known(inside(hit, "appInfo", "screenName")) or None,
            }
            if hit.get("isInteraction") is not None:
                event["interactive"] = int(hit["isInteraction"] in (True, "true"))
            events += _with_products(event, hit)
        return events

    def _name(self, hit: Row) -> str:
        action = _action(inside(hit, "eCommerceAction", "action_type"), inside(hit, "eCommerceAction", "step"))
        kind = known(hit.get("type")).upper()
        seen = any(product.get("isImpression") for product in repeated(hit, "product"))
        promotion = inside(hit, "promotionActionInfo")
        if action:
            return action
        if kind in ("PAGE", "APPVIEW", "SCREENVIEW"):
            return (
                "search" if known(inside(hit, "page", "searchKeyword")) else "view_item_list" if seen else "page_view"
            )
        if inside(promotion, "promoIsClick"):
            return "select_promotion"
        if inside(promotion, "promoIsView"):
            return "view_promotion"
        if kind == "EVENT":
            return self._own_event(hit)
        return {"TRANSACTION": "purchase", "ITEM": "purchase", "SOCIAL": "share", "EXCEPTION": ""}.get(kind, kind)

    def _own_event(self, hit: Row) -> str:
        """A site's own event: `category/action` where the shop maps that, else its category (actions are free text)."""
        category = known(inside(hit, "eventInfo", "eventCategory")) or "event"
        both = f"{category}/{inside(hit, 'eventInfo', 'eventAction')}"
        return both if both in self.own else category


def _action(action: Any, step: Any) -> str:
    """The name of an action on products; empty for none."""
    name = _ACTIONS.get(whole(action or 0, "eCommerceAction.action_type"), "")
    return f"checkout_step_{max(whole(step or 1, 'eCommerceAction.step'), 1)}" if name == "checkout" else name


def _channel(visit: Row) -> str | None:
    group = known(visit.get("channelGrouping"))
    if group:
        return group
    source, medium, campaign = (
        known(inside(visit, "trafficSource", name)) for name in ("source", "medium", "campaign")
    )
    return channel_of(source, medium or "(none)", campaign) if source or medium else None


def _millionths(value: Any, column: str) -> float | None:
    found = number(value, column)
    return None if found is None else found / 1e6


def _with_products(event: Row, hit: Row) -> list[Row]:
    name = event["name"]
    products = repeated(hit, "product")
    transaction, item = hit.get("transaction"), hit.get("item")
    # amounts in the currency of the sale where they are there, else in the one the property reports in
    amounts = [inside(transaction, "localTransactionRevenue"), *(one.get("localProductPrice") for one in products)]
    local = any(amount is not None for amount in amounts)
    currency = known(inside(transaction, "currencyCode")) or known(inside(item, "currencyCode"))
    if local and currency:
        event["currency"] = currency
    if name == "purchase":
        column = "localTransactionRevenue" if local and currency else "transactionRevenue"
        event["value"] = _millionths(inside(transaction, column), column)
    if known(hit.get("type")).upper() == "ITEM":
        return [event | _sold(item)]
    shown = [product for product in products if product.get("isImpression")]
    acted = [product for product in products if not product.get("isImpression")]
    price = "localProductPrice" if local and currency else "productPrice"
    if name in _ITEM_ACTIONS and acted:
        events = []
        for place, product in enumerate(acted):
            # the value is the whole order's: once
            own = {"id": f"{event['id']}/{place}", "value": None} if place else {}
            events.append(event | own | _product(product, price))
        return events
    if name in _OF_ONE_ITEM and acted:
        return [event | _product(acted[0], price)]
    categories = {known(product.get("v2ProductCategory")) for product in shown}
    if name == "view_item_list" and len(categories) == 1:
        event["category"] = categories.pop() or None
    return [event]


def _product(product: Row, price: str) -> Row:
    return {
        "item": known(product.get("productSKU")) or known(product.get("v2ProductName")) or None,
        "category": known(product.get("v2ProductCategory")) or None,
        "price": _millionths(product.get(price), price),
        "quantity": product.get("productQuantity"),
    }


def _sold(item: Any) -> Row:
    """An item hit of the older e-commerce, which follows the hit of its transaction."""
    units = number(inside(item, "itemQuantity"), "itemQuantity")
    revenue = _millionths(inside(item, "itemRevenue"), "itemRevenue")
    return {
        "item": known(inside(item, "productSku")) or known(inside(item, "productName")) or None,
        "category": known(inside(item, "productCategory")) or None,
        "price": revenue / units if revenue is not None and units else None,
        "quantity": units,
    }


def _flat_hit(row: Row) -> list[Row]:
    """One record of a row: a hit and one of its products. Rows of one hit that are no action on an item share an id."""
    visit, time = whole(row.get("visitId"), "visitId"), whole(row.get("time"), "time")
    name = _action(row.get("eCommerceAction_type"), row.get("eCommerceAction_step"))
    if not name and known(row.get("type")) == "PAGE":
        name = "view_item_list" if known(row.get("productSKU")) else "page_view"
    event: Row = {
        "visitor": str(visit),
        "session": str(visit),
        "id": f"{visit}.{time}.{name}",
        "time": visit * 1000 + time,
        "name": name or known(row.get("type")) or "hit",
        "page": known(row.get("pagePathLevel1")) or None,
        "category": known(row.get("v2ProductCategory")) or None,
        "channel": known(row.get("channelGrouping")) or None,
        "currency": known(row.get("currencyCode")) or None,
    }
    if name in _ITEM_ACTIONS | _OF_ONE_ITEM:
        event |= _product(row, "productPrice")
        event["id"] += f".{event['item']}"
    if name == "purchase":
        revenue = row.get("transactionRevenue")
        event["value"] = _millionths(row.get("totalTransactionRevenue") if revenue is None else revenue, "revenue")
    return [event]

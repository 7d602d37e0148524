"""Matomo's log tables as visits in the shape of its API, so that `features.sources.matomo` reads both alike.

In: a database with log_visit, log_link_visit_action, log_action, log_conversion and log_conversion_item (Matomo 3 to 5;
columns of plug-ins may be missing). Out: a dict a visit, in the order of `idvisit`. Visits are asked for by their key,
some at a time: no read stays open for hours on a database that the tracker writes to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

import sqlalchemy as sa

from features.errors import EventError
from features.sources.reading import Progress
from features.sources.sql import Database

VISITS_AT_ONCE: Final = 1_000
_NAMES_AT_ONCE: Final = 1_000  # databases limit the parameters of a statement

# As the API names them, in the order of their numbers.
_DEVICES: Final = (
    "Desktop", "Smartphone", "Tablet", "Feature phone", "Console", "TV", "Car browser", "Smart display", "Camera",
    "Portable media player", "Phablet", "Smart speaker", "Wearable", "Peripheral",
)  # fmt: skip
_REFERRERS: Final = {1: "direct", 2: "search", 3: "website", 6: "campaign", 7: "social", 8: "ai-assistant"}
_ACTIONS: Final = {1: "action", 2: "outlink", 3: "download", 4: "action", 8: "search"}
_URL_PREFIXES: Final = ("http://", "http://www.", "https://", "https://www.")
_CART, _ORDER = -1, 0

# (needed, read if it is there)
_COLUMNS: Final = {
    "log_visit": (
        ("idvisit", "idsite", "idvisitor", "visit_first_action_time"),
        ("visitor_localtime", "referer_type", "referer_name", "config_device_type", "campaign_name", "campaign_medium"),
    ),
    "log_link_visit_action": (
        ("idlink_va", "idsite", "idvisit", "server_time", "idaction_url", "idaction_name"),
        ("idaction_event_category", "idaction_event_action", "idaction_content_name", "idaction_content_interaction",
         "idaction_product_sku", "idaction_product_name", "idaction_product_cat", "product_price"),
    ),
    "log_action": (("idaction", "name", "type"), ("url_prefix",)),
    "log_conversion": (
        ("idvisit", "idsite", "idgoal", "server_time", "revenue"),
        ("buster", "idorder", "idlink_va", "url"),
    ),
    "log_conversion_item": (
        ("idvisit", "idsite", "idorder", "idaction_sku", "price", "quantity", "deleted"),
        ("idaction_name", "idaction_category"),
    ),
}  # fmt: skip

Row = dict[str, Any]


class LogTables:
    """The log tables of one Matomo.

    Raises
    ------
    EventError
        A table or a column that is needed is missing.
    """

    def __init__(self, database: Database, prefix: str, site: int | None) -> None:
        self._database, self._prefix, self._site = database, prefix, site
        self._tables = {name: self._table(name, *columns) for name, columns in _COLUMNS.items()}
        self._goals = {
            (row["idsite"], row["idgoal"]): row["name"] for row in self._all("goal", "idsite", "idgoal", "name")
        }
        self._currencies = {row["idsite"]: row["currency"] for row in self._all("site", "idsite", "currency")}

    def visits(self, progress: Progress) -> Iterator[Row]:
        """Every visit with its actions; progress counts visits, of 0 where nobody knows how many there are."""
        table = self._tables["log_visit"]
        last, done, whole = -1, 0, self._database.rows_known(self._prefix + "log_visit")
        while True:
            asked = self._of_site(sa.select(table).where(table.c.idvisit > last), table)
            batch = self._database.rows(asked.order_by(table.c.idvisit).limit(VISITS_AT_ONCE))
            if not batch:
                return
            first, last = batch[0]["idvisit"], batch[-1]["idvisit"]
            actions = self._actions(first, last)
            for row in batch:
                yield self._visit(row, actions.get(row["idvisit"], []))
            done += len(batch)
            progress(min(done, whole) if whole else done, whole)

    def _table(self, name: str, needed: tuple[str, ...], more: tuple[str, ...]) -> sa.TableClause:
        found = self._database.columns(self._prefix + name)
        for column in needed:
            if column not in found:
                raise EventError(
                    f"{self._database.name}, table {self._prefix + name} has no column {column!r}, which Matomo's has; "
                    f"found: {', '.join(found)}"
                )
        return sa.table(self._prefix + name, *(sa.column(column) for column in (*needed, *more) if column in found))

    def _all(self, name: str, *columns: str) -> list[Row]:
        """All rows of a small table; none if it was not copied along with the log."""
        if self._prefix + name not in self._database.tables():
            return []
        return self._database.rows(sa.select(sa.table(self._prefix + name, *(sa.column(column) for column in columns))))

    def _of_site(self, statement: sa.Select[Any], table: sa.TableClause) -> sa.Select[Any]:
        return statement if self._site is None else statement.where(table.c.idsite == self._site)

    def _between(self, name: str, first: int, last: int, *order: str) -> list[Row]:
        table = self._tables[name]
        statement = self._of_site(sa.select(table).where(table.c.idvisit.between(first, last)), table)
        return self._database.rows(statement.order_by(*(table.c[column] for column in order)))

    def _actions(self, first: int, last: int) -> dict[int, list[Row]]:
        """The actions of some visits, each visit's in the order of time."""
        links = self._between("log_link_visit_action", first, last, "idvisit", "idlink_va")
        conversions = self._between("log_conversion", first, last, "idvisit", "server_time")
        # Matomo keeps what was taken out again, but not when
        items = [
            item
            for item in self._between("log_conversion_item", first, last, "idvisit", "idaction_sku")
            if not item["deleted"]
        ]
        names = self._names([*links, *items])
        orders: defaultdict[tuple[int, str], list[Row]] = defaultdict(list)
        for item in items:
            orders[item["idvisit"], str(item["idorder"])].append(item)
        actions: defaultdict[int, list[Row]] = defaultdict(list)
        for link in links:
            actions[link["idvisit"]].append(_action(link, names))
        for conversion in conversions:
            order = "0" if conversion["idgoal"] == _CART else str(conversion.get("idorder"))
            goal = self._goals.get((conversion["idsite"], conversion["idgoal"]))
            bought = orders[conversion["idvisit"], order]
            actions[conversion["idvisit"]].append(_conversion(conversion, goal, bought, names))
        for found in actions.values():
            found.sort(key=lambda action: action["timestamp"] if isinstance(action["timestamp"], int) else 0)
        return actions

    def _names(self, rows: Iterable[Row]) -> dict[int, Row]:
        """The rows of log_action that some rows point to."""
        wanted = sorted({value for row in rows for column, value in row.items() if "idaction" in column and value})
        table = self._tables["log_action"]
        names: dict[int, Row] = {}
        for start in range(0, len(wanted), _NAMES_AT_ONCE):
            asked = sa.select(table).where(table.c.idaction.in_(wanted[start : start + _NAMES_AT_ONCE]))
            names |= {row["idaction"]: row for row in self._database.rows(asked)}
        return names

    def _visit(self, row: Row, actions: list[Row]) -> Row:
        device, local, visitor = row.get("config_device_type"), row.get("visitor_localtime"), row["idvisitor"]
        return {
            "idVisit": row["idvisit"],
            "idSite": row["idsite"],
            "visitorId": bytes(visitor).hex() if isinstance(visitor, bytes | bytearray | memoryview) else visitor,
            "firstActionTimestamp": _seconds(row["visit_first_action_time"]),
            "visitLocalTime": str(local) if isinstance(local, time | timedelta | str) else None,
            "deviceType": _DEVICES[device] if device is not None and device < len(_DEVICES) else device,
            "referrerType": _REFERRERS.get(row.get("referer_type") or 0, row.get("referer_type")),
            "referrerName": row.get("referer_name"),
            "campaignName": row.get("campaign_name"),
            "campaignMedium": row.get("campaign_medium"),
            "siteCurrency": self._currencies.get(row["idsite"]),
            "actionDetails": actions,
        }


def _action(row: Row, names: dict[int, Row]) -> Row:
    url, title = (names.get(row[column] or 0, {}) for column in ("idaction_url", "idaction_name"))

    def name(column: str) -> str | None:
        return names.get(row.get(column) or 0, {}).get("name")

    kind = url.get("type") or title.get("type")
    action = {
        "type": _ACTIONS.get(kind, f"action type {kind}") if kind else "action",
        "pageId": row["idlink_va"],
        "timestamp": _seconds(row["server_time"]),
        "url": _url(url),
        "productViewSku": name("idaction_product_sku"),
        "productViewName": name("idaction_product_name"),
        "productViewPrice": row.get("product_price"),
        "productViewCategories": [found for found in (name("idaction_product_cat"),) if found],
    }
    if row.get("idaction_event_category"):
        action |= {"type": "event", "eventCategory": name("idaction_event_category")}
        action["eventAction"] = name("idaction_event_action")
    elif row.get("idaction_content_name"):
        action |= {"type": "content", "contentInteraction": name("idaction_content_interaction")}
    return action


def _conversion(row: Row, goal: str | None, items: list[Row], names: dict[int, Row]) -> Row:
    action = {"timestamp": _seconds(row["server_time"]), "revenue": row["revenue"]}
    if row["idgoal"] not in (_CART, _ORDER):
        number = row["idgoal"]
        found = {"goalId": number, "goalName": goal, "goalPageId": row.get("idlink_va"), "url": row.get("url")}
        return {**action, "type": "goal", **found}
    action["itemDetails"] = [
        {
            "itemSKU": names.get(item["idaction_sku"] or 0, {}).get("name"),
            "itemName": names.get(item.get("idaction_name") or 0, {}).get("name"),
            "itemCategory": names.get(item.get("idaction_category") or 0, {}).get("name"),
            "price": item["price"],
            "quantity": item["quantity"],
        }
        for item in items
    ]
    if row["idgoal"] == _CART:
        return {**action, "type": "ecommerceAbandonedCart"}
    return {**action, "type": "ecommerceOrder", "orderId": row.get("idorder")}


def _url(row: Row) -> str | None:
    name, prefix = row.get("name"), row.get("url_prefix")
    return _URL_PREFIXES[prefix] + name if name and prefix is not None and prefix < len(_URL_PREFIXES) else name


def _seconds(value: Any) -> Any:
    """A time of the log, which is UTC, in seconds since 1970; what is none stays as it is, to be named later."""
    if isinstance(value, str):  # SQLite has no type for times
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    return value

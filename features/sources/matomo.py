"""Visits of Matomo: what `Live.getLastVisitsDetails` answers as JSON, or the log tables of its database.

In: files with an array of visits or a visit a line, compressed or not; or the URL of the database (`matomo_tables`
turns its rows into the same visits). Out: an event an action of a visit, one per item of an order or of a change of the
cart. The session is the visit, the visitor is Matomo's visitor id. What an action does not say is the column's default;
the visitor's clock follows from the local time of the first action, or else from the shop's time zone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import ijson
import pandas as pd

from features.errors import EventError
from features.events import EVENT_NAMES
from features.settings import Settings
from features.shop import SourceSettings
from features.sources.convert import from_records
from features.sources.matomo_tables import LogTables
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Reading
from features.sources.sql import Database
from features.trackers.matomo import (
    CHANNELS,
    EVENTS,
    cart_changes,
    change_name,
    event_name,
    goal_name,
    kind_of_view,
    medium_kind,
    utc_offset,
)

DEFAULTS: Final = SourceSettings(
    events=EVENTS,
    channels=CHANNELS,
    devices={
        "Desktop": "desktop",
        "Smartphone": "mobile",
        "Phablet": "mobile",
        "Feature phone": "mobile",
        "Portable media player": "mobile",
        "Tablet": "tablet",
        "TV": "tv",
        "Console": "tv",
        **dict.fromkeys(
            ("Unknown", "Camera", "Car browser", "Peripheral", "Smart display", "Smart speaker", "Wearable"), "unknown"
        ),
    },
    time_unit="s",
    unknown_events="custom",
)

Visit = Mapping[str, Any]
Action = Mapping[str, Any]


class MatomoOptions(Settings):
    """What `[sources.<name>.options]` may hold for this reader.

    site: read only the visits of this Matomo site.
    carts: "skip" leaves carts out. Matomo keeps one state of the cart a visit, and drops it when the visit orders: in
        its history a cart is a sign that nothing was bought.
    table_prefix: what the names of the tables begin with.
    url_variable: the environment variable that holds the database's URL; the path is then only a name.
    """

    site: int | None = None
    carts: Literal["events", "skip"] = "skip"
    table_prefix: str = "matomo_"
    url_variable: str = ""


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files or of the database.

    Raises
    ------
    SettingsError
        An option or the database's URL cannot be used.
    EventError
        A file holds something else than visits, a table is missing, or an action breaks the contract of the event.
    """
    options = reading.options(MatomoOptions)
    if "://" in reading.location or options.url_variable:
        with Database(reading.location, options.url_variable) as database:
            tables = LogTables(database, options.table_prefix, options.site)
            visits = tables.visits(reading.progress)
            yield from from_records(_records(visits, reading, options, database.name), reading, database.name)
        return
    for path in reading.files("*.json*", "*.ndjson*"):
        yield from from_records(_records(_visits(path, reading), reading, options, path), reading, path)


def _visits(path: Path, reading: Reading) -> Iterator[Any]:
    """The visits of a file, parsed as they come: the API answers with a single line, however long."""
    parser, visits, count = None, ijson.sendable_list(), 0
    ended_early = reading.notes.skipped[CUT_OFF_STREAM]
    try:
        for block in reading.blocks(path):
            if parser is None:
                if not block.strip():
                    continue
                inside = "item" if block.lstrip().startswith(b"[") else ""
                parser = ijson.items_coro(visits, inside, multiple_values=True, use_float=True)
            parser.send(block)
            count += len(visits)
            yield from visits
            visits.clear()
    except ijson.JSONError as error:
        problem = " ".join(str(error).split("\n")[0].split())
        raise EventError(
            f"{path}, row {count + len(visits)}: no JSON ({problem}); expected an array of visits or one a line"
        ) from None
    try:
        if parser is not None:
            parser.close()
            yield from visits
    except ijson.IncompleteJSONError:
        if reading.notes.skipped[CUT_OFF_STREAM] == ended_early:
            reading.notes.skipped[CUT_OFF] += 1


def _records(
    visits: Iterable[Any], reading: Reading, options: MatomoOptions, where: object
) -> Iterator[dict[str, Any]]:
    known = {**reading.shop.events, **reading.settings.events, **{name: name for name in EVENT_NAMES}}

    def leave_out(reason: str, rows: int = 1) -> None:
        reading.notes.rows += rows
        reading.notes.skipped[reason] += rows

    for row, visit in enumerate(visits):
        problem = _problem(visit)
        if problem and (reading.settings.bad_rows == "error" or problem.startswith("Matomo")):
            raise EventError(f"{where}, row {row}: {problem}")
        if problem:
            leave_out("visit: not in the API's shape")
        elif options.site is not None and str(visit.get("idSite")) != str(options.site):
            leave_out("visit of another site")
        elif not visit.get("actionDetails"):
            leave_out("visit without actions")
        else:
            cut = str(visit.get("truncatedActionsCount") or "")
            if cut.isdigit():
                leave_out("action that Matomo's limit of actions a visit kept out of the export", int(cut))
            yield from _events(visit, row, options, known, leave_out)


def _problem(visit: Any) -> str:
    """What is wrong with the shape of a visit; nothing if it can be read."""
    if not isinstance(visit, dict):
        return f"found a {type(visit).__name__}; expected a visit as an object"
    if visit.get("result") == "error":
        return f"Matomo answered with an error: {visit.get('message')}; export the visits again"
    actions = visit.get("actionDetails") or []
    if not isinstance(actions, list) or not all(isinstance(action, dict) for action in actions):
        return "actionDetails is no list of objects; expected what Live.getLastVisitsDetails answers"
    for action in actions:
        items = action.get("itemDetails") or []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            return "itemDetails is no list of objects; expected what Live.getLastVisitsDetails answers"
        for item in items:
            try:
                _quantity(item)
            except (TypeError, ValueError):
                return f"quantity is {item.get('quantity')!r}; expected a number"
    return ""


def _events(
    visit: Visit, row: int, options: MatomoOptions, known: Mapping[str, str], leave_out: Callable[..., None]
) -> Iterator[dict[str, Any]]:
    actions: list[Action] = visit["actionDetails"]
    session = visit.get("idVisit")
    common = {"row": row, "visitor": visit.get("visitorId") or None, "session": session} | _entry(visit)
    common["device"] = visit.get("deviceType") or None
    common["utc_offset"] = _utc_offset(visit, actions[0])
    cart: dict[str, Action] = {}
    for position, action in enumerate(actions):
        kind, time = str(action.get("type") or "action"), action.get("timestamp")
        event = {**common, "time": time, "id": action.get("pageId") or f"{session}/{position}"}
        if kind in ("content", "13") and not action.get("contentInteraction"):
            leave_out("content impression: seen, not done")
        elif kind == "ecommerceOrder":
            cart = {}
            event["id"] = f"{session}/order/{action.get('orderId')}"
            yield from _order(event, action, visit)
        elif kind == "ecommerceAbandonedCart" and options.carts == "skip":
            leave_out('cart of a visit that did not order: carts = "skip"')
        elif kind == "ecommerceAbandonedCart":
            now = _by_item(action)
            event["id"] = f"{session}/cart/{time}"
            changes = list(_changes(event, cart, now, visit))
            if not changes:
                leave_out("cart that did not change")
            yield from changes
            cart = now
        else:
            yield event | _single(kind, action, visit, known, event["id"])


def _single(kind: str, action: Action, visit: Visit, known: Mapping[str, str], id_: Any) -> dict[str, Any]:
    """What is particular to an action that is one event."""
    page = action.get("url") or None
    if kind == "goal":
        name = goal_name(known, action.get("goalName"), action.get("goalId"))
        own = f"{visit.get('idVisit')}/goal/{action.get('goalId')}/{action.get('timestamp')}"
        found = {"id": own, "name": name, "page": page, **_money(action, visit)}
        # a goal that a page or an event reached by itself is nothing that the visitor did besides
        return found | ({"interactive": 0} if action.get("goalPageId") else {})
    if kind == "event":
        return {"name": event_name(known, action.get("eventCategory"), action.get("eventAction")), "page": page}
    if kind in ("content", "13"):
        return {"name": "content_interaction", "page": page}
    if kind in ("outlink", "download"):
        return {"name": kind}  # the address is where it leads, not the page that is open
    item = action.get("productViewSku") or action.get("productViewName")
    categories = action.get("productViewCategories") or []
    if kind != "action" or not (item or categories):
        return {"name": kind, "page": page}
    return {
        "name": kind_of_view(item, categories),
        "page": page,
        "item": item,
        "category": categories[0] if categories else None,
        "price": _or_none(action.get("productViewPrice")),
        "currency": visit.get("siteCurrency") or None,
    }


def _order(event: dict[str, Any], action: Action, visit: Visit) -> Iterator[dict[str, Any]]:
    """An event an item; the order's value on the first."""
    for number, item in enumerate(action.get("itemDetails") or [{}]):
        found = event | {"name": "ecommerceOrder", **_item(item, visit)}
        if number:
            yield found | {"id": f"{event['id']}/{number}"}
        else:
            yield found | _money(action, visit)


def _changes(
    event: dict[str, Any], before: Mapping[str, Action], now: Mapping[str, Action], visit: Visit
) -> Iterator[dict[str, Any]]:
    """What was put into the cart and taken out of it between two of its states."""
    changes = cart_changes(*({key: _quantity(item) for key, item in cart.items()} for cart in (before, now)))
    for number, (key, more) in enumerate(changes):
        found = event | _item(now.get(key) or before[key], visit) | {"quantity": abs(more), "name": change_name(more)}
        yield found | ({"id": f"{event['id']}/{number}"} if number else {})


def _by_item(cart: Action) -> dict[str, Action]:
    items: dict[str, Action] = {}
    for item in cart.get("itemDetails") or []:
        key = str(item.get("itemSKU") or item.get("itemName"))
        items[key] = {**item, "quantity": _quantity(item) + _quantity(items.get(key))}
    return items


def _quantity(item: Action | None) -> float:
    quantity = item.get("quantity") if item else 0
    return 1.0 if quantity in (None, "") else float(quantity)  # type: ignore[arg-type]


def _item(item: Action, visit: Visit) -> dict[str, Any]:
    categories = item.get("categories") or [item.get("itemCategory")]
    return {
        "item": item.get("itemSKU") or item.get("itemName") or None,
        "category": categories[0] or None,
        "price": _or_none(item.get("price")),
        "quantity": _or_none(item.get("quantity")),
        "currency": visit.get("siteCurrency") or None,
    }


def _money(action: Action, visit: Visit) -> dict[str, Any]:
    return {"value": _or_none(action.get("revenue")), "currency": visit.get("siteCurrency") or None}


def _entry(visit: Visit) -> dict[str, Any]:
    """Channel and campaign, the same for each event of the visit."""
    channel = visit.get("referrerType") or None
    if channel != "campaign":
        return {"channel": channel}
    if medium := visit.get("campaignMedium"):  # of the plug-in MarketingCampaignsReporting
        channel = medium_kind(medium)
    return {"channel": channel, "campaign": visit.get("campaignName") or visit.get("referrerName") or None}


def _utc_offset(visit: Visit, first: Action) -> int | None:
    """Minutes that the visitor's clock was ahead of UTC at the first action; None if the visit does not say."""
    try:
        at = int(visit.get("firstActionTimestamp") or first.get("timestamp") or 0)
        if local := visit.get("visitLocalTime"):
            hours, minutes, seconds = (int(part) for part in str(local).partition(".")[0].split(":"))
            return utc_offset(at, hours * 3600 + minutes * 60 + seconds)
        # the hour alone: both clocks are looked at on the hour
        return utc_offset(at - at % 3600, int(visit["visitLocalHour"]) * 3600)
    except (KeyError, TypeError, ValueError):
        return None


def _or_none(value: Any) -> Any:
    return None if value == "" else value

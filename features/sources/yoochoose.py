"""Clicks and buys of an online shop in 2014 (YOOCHOOSE, RecSys Challenge 2015), session by session.

In: `yoochoose-clicks.dat`, `yoochoose-buys.dat` and `yoochoose-test.dat` as published, CSV without a heading, told
apart by their number of cells; or the prepared clicks that session-based recommenders are compared on: tab-separated
`SessionId, ItemId, Time` in seconds. A folder's files are read one after the other: events are sorted by time later.
Out: canonical events. The session's id is all there is to tell visitors by, so no visit is linked to another. Category
"0" and a buy's price or quantity of 0 mean that it is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pandas as pd

from features.errors import EventError
from features.shop import SourceSettings
from features.sources.columns import read_table
from features.sources.reading import Reading, first_line

DEFAULTS: Final = SourceSettings(
    events={"click": "view_item", "special offer": "select_promotion", "buy": "purchase"},
    time_unit="iso",
    timezone="UTC",  # the shop's own is not published
    bad_rows="error",
)
_CLICKS: Final = {"visitor": "session", "time": "timestamp", "item": "item", "category": "category"}
_BUYS: Final = {"visitor": "session", "time": "timestamp", "item": "item", "price": "price", "quantity": "quantity"}
_PREPARED: Final = {"visitor": "SessionId", "time": "Time", "item": "ItemId"}


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    EventError
        A file has none of the three layouts, a row breaks the contract of the event, or a file is damaged.
    """
    prepared = replace(reading, settings=reading.settings.model_copy(update={"separator": "\t", "time_unit": "s"}))
    for path in reading.files("*.dat", "*.dat.gz", "*.tsv", "*.tsv.gz"):
        first = first_line(path).decode("utf-8", "replace")
        cells = len(first.split(","))
        if set(_PREPARED.values()) <= set(first.split()):
            yield from read_table(path, prepared, columns=_PREPARED, change=_clicks)
        elif cells == len(_CLICKS):
            yield from read_table(path, reading, list(_CLICKS.values()), columns=_CLICKS, change=_clicks)
        elif cells == len(_BUYS):
            yield from read_table(path, reading, list(_BUYS.values()), columns=_BUYS, change=_buys)
        elif first:
            raise EventError(
                f"{path} begins with {first.strip()!r}; expected session,timestamp,item,category or "
                "session,timestamp,item,price,quantity or a heading with SessionId, ItemId, Time"
            )


def _clicks(raw: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """A click in the context of a special offer says so where the category would stand."""
    names = pd.Series(["click"] * len(raw["time"]), dtype=object)
    if "category" not in raw:
        return {**raw, "name": names}
    category = raw["category"].astype(object)
    offer = category == "S"
    names = names.mask(offer, "special offer")
    return {**raw, "name": names, "category": category.mask(offer | (category == "0"), None)}


def _buys(raw: dict[str, pd.Series]) -> dict[str, pd.Series]:
    quantity = raw["quantity"].astype(object)
    quantity = quantity.mask(quantity == "0", None)
    # a cell that is no number is refused as what it is
    price, units = (pd.to_numeric(cells, errors="coerce").fillna(0) for cells in (raw["price"], quantity))
    names = pd.Series(["buy"] * len(price), dtype=object)
    return {**raw, "name": names, "quantity": quantity, "value": price * units.where(units > 0, 1)}

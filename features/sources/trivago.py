"""Hotel search sessions of trivago (RecSys Challenge 2019): users, sessions, steps, actions, what they refer to.

In: `train.csv` or `test.csv` as published, or Parquet with the same columns; time in seconds. Out: canonical events.
The conversion of a hotel search is the click out to a booking site: `generate_lead`, so train with that goal. Most
neighbours share a second: events at the same time keep the order of the file, which is that of `step`. A price is known
only for a click out: that of the item clicked, among the prices of the list shown. Item "unknown" is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from features.shop import SourceSettings
from features.sources.columns import read_table
from features.sources.reading import Reading

DEFAULTS: Final = SourceSettings(
    columns={
        "visitor": "user_id",
        "session": "session_id",
        "time": "timestamp",
        "name": "action_type",
        "item": "reference",
        "category": "city",
        "device": "device",
    },
    events={
        "clickout item": "generate_lead",
        "interaction item image": "view_item",
        "interaction item info": "view_item",
        "interaction item rating": "view_item",
        "interaction item deals": "view_item",
        "search for item": "search",
        "search for destination": "search",
        "search for poi": "search",
        "filter selection": "view_item_list",
        "change of sort order": "view_item_list",
    },
    time_unit="s",
    timezone="UTC",  # 55 countries in one log, and nothing tells a visitor's clock
    consent=("measure", "link"),
)
_ON_AN_ITEM: Final = "clickout item", "search for item"


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    EventError
        A column is missing, a row breaks the contract of the event, or a file is damaged.
    """
    columns = {**reading.settings.columns, "shown": "impressions", "prices": "prices"}
    for path in reading.files("*.parquet", "train*.csv", "test*.csv", "train*.csv.gz", "test*.csv.gz"):
        yield from read_table(path, reading, columns=columns, change=_items_and_prices)


def _items_and_prices(raw: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """`reference` where it is an item, and the price of the item that was clicked."""
    actions = raw["name"].astype(object)
    on_an_item = actions.isin(_ON_AN_ITEM) | actions.str.startswith("interaction item", na=False)
    items = raw["item"].astype(object)
    items = items.where(on_an_item & items.notna() & (items != "unknown"), None)
    shown, prices = raw.pop("shown"), raw.pop("prices")
    lists = zip(actions, items, shown.fillna(""), prices.fillna(""), strict=True)
    price = [_price(item, *of_list) if action == "clickout item" else None for action, item, *of_list in lists]
    return {**raw, "item": items, "price": pd.Series(price, dtype=object)}


def _price(item: str, shown: str, prices: str) -> str | None:
    """The price that stands where the item does; None for an item that was not among the ones shown."""
    return dict(zip(shown.split("|"), prices.split("|"), strict=False)).get(item)

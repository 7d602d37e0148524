"""Events of online shops as REES46 publishes them, a file a month: views, carts and purchases with prices.

In: CSV or Parquet with `event_time, event_type, product_id, category_id, category_code, brand, price, user_id,
user_session`; `category_code` and `brand`, which many rows lack, are not read. Out: canonical events; a purchase is a
row an item, and its value is the price. Prices are taken as the shop's base currency: the publisher names none.
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
        "session": "user_session",
        "time": "event_time",
        "name": "event_type",
        "item": "product_id",
        "category": "category_id",
        "price": "price",
    },
    events={
        "view": "view_item",
        "cart": "add_to_cart",
        "remove_from_cart": "remove_from_cart",
        "purchase": "purchase",
    },
    time_unit="iso",
    timezone="UTC",  # the shops' own are not published
    consent=("measure", "link"),
)


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    EventError
        A column is missing, a row breaks the contract of the event, or a file is damaged.
    """
    for path in reading.files("*.csv", "*.csv.gz", "*.parquet"):
        yield from read_table(path, reading, change=_with_value)


def _with_value(raw: dict[str, pd.Series]) -> dict[str, pd.Series]:
    price = raw["price"].astype(object)
    return {**raw, "value": price.where((raw["name"] == "purchase").fillna(False).astype(bool), None)}

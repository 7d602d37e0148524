"""Events of an online shop, four and a half months of 2015 (RetailRocket): views, carts and transactions of visitors.

In: `events.csv` as published, or Parquet with the same columns, where the event may be coded 0, 1, 2 and the time be a
time. Out: canonical events without category or price: the data set keeps those, hashed, in a history of item
properties, which is not read (nor is the category tree). A transaction of several items is a row an item, so its id
names no event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from features.shop import SourceSettings
from features.sources.columns import read_table
from features.sources.reading import Reading

DEFAULTS: Final = SourceSettings(
    columns={"visitor": "visitorid", "time": "timestamp", "name": "event", "item": "itemid"},
    events={
        "view": "view_item",
        "addtocart": "add_to_cart",
        "transaction": "purchase",
        "0": "view_item",
        "1": "add_to_cart",
        "2": "purchase",
    },
    time_unit="ms",
    timezone="UTC",  # the shop's own is not published
    consent=("measure", "link"),
)


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    EventError
        A column is missing, a row breaks the contract of the event, or a file is damaged.
    """
    for path in reading.files("events*.csv", "events*.csv.gz", "events*.parquet"):
        yield from read_table(path, reading)

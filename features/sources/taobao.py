"""User behaviour log of a large marketplace (Tianchi data set 649): user, item, category, behaviour, time in seconds.

In: `UserBehavior.csv` as published, which has no heading, or Parquet with the published names. Out: canonical events;
local days are UTC+8. Rows outside the nine days the log covers, some 20 of 45,000, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from features.shop import SourceSettings
from features.sources.columns import read_table
from features.sources.reading import Reading

_PUBLISHED: Final = ["user_id", "item_id", "category_id", "behavior_type", "timestamp"]

DEFAULTS: Final = SourceSettings(
    columns={
        "visitor": "user_id",
        "time": "timestamp",
        "name": "behavior_type",
        "item": "item_id",
        "category": "category_id",
    },
    events={"pv": "view_item", "fav": "add_to_wishlist", "cart": "add_to_cart", "buy": "purchase"},
    time_unit="s",
    timezone="Asia/Shanghai",
    consent=("measure", "link"),
    # the nine days it covers, in local time: a few rows carry times far outside
    start="2017-11-25T00:00:00+08:00",
    end="2017-12-04T00:00:00+08:00",
    bad_rows="skip",
)


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the Parquet and CSV files.

    Raises
    ------
    EventError
        A column is missing, an event name is unknown, or a file is damaged.
    """
    for path in reading.files("*.parquet", "*.csv", "*.csv.gz"):
        yield from read_table(path, reading, _PUBLISHED)

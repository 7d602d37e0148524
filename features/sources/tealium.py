"""Tealium: events as EventStore, an EventStream connector or a log of the Collect endpoint keeps them.

In: JSON lines, compressed or not (CSV with EventDB's columns too), in any of three shapes: flattened (`visitorid`,
`eventtime`, `dom_url`, `udo_product_id`), nested (`visitor_id`, `post_time`, `data.dom.url`, `data.udo.product_id`), or
as the tag sends it (`tealium_event`, `dom.url`, `product_id`, also inside `data` beside `post_time`). Dots, underscores
and nesting are the same here, and `data` and `udo` are no part of a name. Out: canonical events: one, or, of a
purchase, a refund or a change of cart or wishlist, one for each product, with the order's value on the first.

Names of events and variables are the shop's: those of Tealium's retail data layer are known, others are told by
`[sources.tealium.events]` and the option `variables`. A missing value is the column's default. Addresses, referrers and
user agents are looked at and forgotten; no other variable of the data layer is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import pandas as pd

from features.channels import Entry, entry_of
from features.sources.convert import from_records
from features.sources.exports import records_of, table_rows
from features.sources.reading import Reading
from features.sources.tealium_event import DEFAULTS, EVENTS, Row, TealiumEvents, TealiumOptions, is_step

__all__ = ["DEFAULTS", "EVENTS", "TealiumOptions", "read"]

NO_VISIT: Final = "imported, no step of a visitor"


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    SettingsError
        An option cannot be used.
    EventError
        A file cannot be read, or a row breaks the contract of the event.
    """
    names = {**reading.shop.events, **reading.settings.events}
    unmapped = reading.notes.unmapped
    records = TealiumEvents(names, reading.options(TealiumOptions), _entry, lambda what: unmapped.update([what]))

    def convert(found: Row) -> list[Row]:
        if is_step(found):
            return records(found)
        reading.notes.skipped[NO_VISIT] += 1
        return []

    for path in reading.files():
        yield from from_records(records_of(table_rows(path, reading, ()), convert, path, reading), reading, path)


@lru_cache(maxsize=100_000)
def _entry(url: str, referrer: str) -> Entry:
    return entry_of(url, referrer)

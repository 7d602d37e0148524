"""Sessions of the OTTO web shop (OTTO recommender data set, 2022): clicks, carts and orders of articles.

In: JSON lines as published, one `{"session", "events": [{"aid", "ts", "type"}]}` a line, `ts` in milliseconds. Out:
canonical events without category or price, which are not published. What the publisher calls a session is all that
one user did in the weeks of the data set: it is our visitor, and visits are told apart by time. Of an order, every
article is an event of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd

from features.errors import EventError
from features.shop import SourceSettings
from features.sources.columns import json_lines
from features.sources.convert import from_records
from features.sources.reading import Reading

DEFAULTS: Final = SourceSettings(
    events={"clicks": "view_item", "carts": "add_to_cart", "orders": "purchase"},
    time_unit="ms",
    timezone="Europe/Berlin",
    consent=("measure", "link"),
)


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    EventError
        A line is no JSON or no session, or an event breaks the contract.
    """
    for path in reading.files("*.jsonl", "*.jsonl.gz"):
        yield from from_records(_records(path, reading), reading, path)


def _records(path: Path, reading: Reading) -> Iterator[dict[str, Any]]:
    for row, found in json_lines(path, reading):
        events = found.get("events") if isinstance(found, dict) else None
        if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
            if reading.settings.bad_rows != "skip":
                raise EventError(f'{path}, row {row}: no session; expected {{"session": ..., "events": [...]}}')
            reading.notes.rows += 1
            reading.notes.skipped["no session"] += 1
            continue
        for event in events:
            yield {
                "row": row,
                "visitor": found.get("session"),
                "time": event.get("ts"),
                "name": event.get("type"),
                "item": event.get("aid"),
            }

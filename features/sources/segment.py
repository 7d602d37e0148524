"""Segment: raw calls as its S3 destinations archive them, and the tables of a Segment warehouse.

In: files of JSON lines (compressed or not, in nested folders); Parquet or CSV files named by their table
(`pages.parquet`, `order_completed-0001.csv.gz`); or a database URL, whose tables are streamed. Out: canonical events,
as `features.sources.segment_calls` makes them of a call; a missing value is the column's default.

The table `tracks` repeats the tables of the events: it gives only the events that have no table here. An identify,
group or alias call is no step of a visitor and is counted as left out.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import sqlalchemy as sa
from pydantic import ConfigDict, Field

from features.errors import EventError
from features.segment import EVENTS
from features.settings import Settings
from features.shop import SourceSettings
from features.sources.convert import from_records
from features.sources.exports import Row, is_parquet, records_of, table_rows
from features.sources.reading import Reading
from features.sources.segment_calls import CONSENT_COLUMN, NO_EVENTS, ArchivedCalls
from features.sources.sql import Database

DEFAULTS: Final = SourceSettings(events=EVENTS, time_unit="iso", unknown_events="custom")

_COLUMNS: Final = frozenset({
    "id", "anonymous_id", "user_id", "timestamp", "received_at", "event", "event_text",
    "name", "url", "path", "referrer", "context_page_url", "context_page_path", "context_page_referrer",
    "context_user_agent", "context_timezone", "context_campaign_source", "context_campaign_medium",
    "context_campaign_name", "product_id", "sku", "category", "price", "quantity", "total", "value", "revenue",
    "subtotal", "currency", "products",
})  # fmt: skip
_FETCHED_ROWS: Final = 20_000


class SegmentOptions(Settings):
    """What `[sources.segment.options]` may hold.

    schema: the database schema of the source's tables (Segment names it after the source); the connection's own by
        default.
    url_variable: the environment variable that holds the database's URL; the path is then only a name.
    consent_categories: what each of the shop's own consent categories grants, `{"C0009" = ["measure", "link"]}`.
        An event with preferences carries what its granted categories grant together; one without any, the source's
        `consent`. A category that nobody knows grants nothing and is counted.
    """

    # a field called `schema` would shadow a method of pydantic
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_name: str = Field("", alias="schema")
    url_variable: str = ""
    consent_categories: dict[str, tuple[Literal["measure", "link", "personalise"], ...]] = Field(default_factory=dict)


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the calls.

    Raises
    ------
    SettingsError
        An option or the database's URL cannot be used.
    EventError
        A file or table cannot be read, or a row breaks the contract of the event.
    """
    options = reading.options(SegmentOptions)
    calls = ArchivedCalls(reading, options.consent_categories)
    if options.url_variable or "://" in reading.location:
        yield from _database(reading, options, calls)
        return
    paths = reading.files()
    tables = {path: _table_of(path) for path in paths if is_parquet(path) or ".csv" in path.suffixes}
    calls.with_table = set(tables.values())
    for path in paths:
        columns = _COLUMNS | _consent_columns(path)
        convert = partial(calls.of_row, tables[path]) if path in tables else calls.of_archive
        yield from from_records(records_of(table_rows(path, reading, columns), convert, path, reading), reading, path)


def _table_of(path: Path) -> str:
    """`order_completed` of `order_completed-0001.csv.gz`: no table has a hyphen in its name."""
    return path.name.partition(".")[0].partition("-")[0]


def _consent_columns(path: Path) -> set[str]:
    try:
        found = pa.parquet.read_schema(path).names if is_parquet(path) else ()
    except pa.ArrowException:
        return set()  # said when the rows are read
    return {name for name in found if name.startswith(CONSENT_COLUMN)}


def _database(reading: Reading, options: SegmentOptions, calls: ArchivedCalls) -> Iterator[pd.DataFrame]:
    schema = options.schema_name
    with Database(reading.location, options.url_variable) as database:
        names = database.tables(schema)
        columns = {
            # some warehouses have a view `pages_view` beside each table
            name: {*database.columns(name, schema)}
            for name in names
            if name.removesuffix("_view") not in {*names} - {name}
        }
        found = [name for name in columns if {"anonymous_id", "received_at"} <= columns[name] or name in NO_EVENTS]
        if not found:
            raise EventError(
                f"{database.name} has no table of Segment in {f'schema {schema!r}' if schema else 'its own schema'} "
                f"(found: {', '.join(names) or 'none'}); name the schema in [sources.<name>.options] schema"
            )
        calls.with_table = set(found)
        for name in found:
            wanted: list[sa.ColumnClause[Any]] = [
                sa.column(column)
                for column in sorted(columns[name])
                if column in _COLUMNS or column.startswith(CONSENT_COLUMN)
            ]
            query = sa.select(*wanted).select_from(sa.table(name, schema=schema or None))
            where = f"{database.name}, table {name}"
            rows = _rows(database, query, min(reading.chunk_rows, _FETCHED_ROWS))
            # closed here, so that an early end leaves no connection behind
            with closing(rows):
                records = records_of(rows, partial(calls.of_row, name), where, reading)
                yield from from_records(records, reading, where)


def _rows(database: Database, query: sa.Executable, rows: int) -> Generator[tuple[int, Row]]:
    number = 0
    with closing(database.stream(query, rows)) as parts:
        for names, part in parts:
            for cells in part:
                yield number, dict(zip(names, cells, strict=True))
                number += 1

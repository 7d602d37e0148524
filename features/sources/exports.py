"""Rows of a warehouse table as it is exported: JSON lines or Parquet with nested records, or CSV of flat ones.

In: files, or a folder of them. Out: each row as a dict with the table's own names, and its number in the file. JSON
lines of BigQuery hold 64-bit integers as text, CSV holds everything as text; what is missing is None or absent in all
of them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet

from features.errors import EventError
from features.sources.columns import json_lines
from features.sources.convert import Record
from features.sources.reading import CUT_OFF, Reading

Row = dict[str, Any]

REPEATED_DAY: Final = "intraday file of a day that its daily table covers"
# A nested row takes kilobytes as Python objects.
_BATCH_ROWS: Final = 10_000
_TABLE: Final = re.compile(r"(?:events|sessions)_(intraday_)?(\d{8})")


class BadRowError(Exception):
    """A row that cannot be used: what was found and what was expected, and a short reason to count it under."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def table_files(reading: Reading) -> list[Path]:
    """The files of the location, oldest day first; without intraday files of days whose daily table is there.

    Raises
    ------
    EventError
        There are none.
    """
    found = reading.files("*.json*", "*.ndjson*", "*.parquet", "*.csv*", "*_[0-9]*")
    days = {path: _TABLE.search(str(path)) for path in found}
    daily = {day[2] for day in days.values() if day and not day[1]}
    repeated = {path for path, day in days.items() if day and day[1] and day[2] in daily}
    if repeated:
        reading.notes.skipped[REPEATED_DAY] += len(repeated)
    return [path for path in found if path not in repeated]


def is_parquet(path: Path) -> bool:
    """Whether the content is Parquet: exported files often have no suffix."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def parquet_columns(path: Path) -> list[str]:
    """The names of a Parquet file's columns.

    Raises
    ------
    EventError
        It cannot be read.
    """
    try:
        names: list[str] = pa.parquet.read_schema(path).names
        return names
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"{path} cannot be read as Parquet: {error}") from None


def table_rows(path: Path, reading: Reading, columns: Collection[str]) -> Iterator[tuple[int, Row]]:
    """(number, row) of each row of a file; of Parquet only `columns` are read.

    Raises
    ------
    EventError
        The file cannot be read, or a row of it is no row.
    """
    if is_parquet(path):
        yield from _parquet_rows(path, reading, columns)
    elif ".csv" in path.suffixes:
        yield from _csv_rows(path, reading)
    else:
        for row, found in json_lines(path, reading):
            if isinstance(found, dict):
                yield row, found
            else:
                _refuse(
                    BadRowError(f"found a {type(found).__name__}; expected an object a line", "no object"),
                    path,
                    row,
                    reading,
                )


def records_of(
    rows: Iterable[tuple[int, Row]], convert: Callable[[Row], list[Row]], path: object, reading: Reading
) -> Iterator[Record]:
    """The records that `convert` makes of each row, none or several; a row that it refuses is an error or is counted.

    Raises
    ------
    EventError
        `convert` refused a row, and bad rows are not to be skipped.
    """
    for row, found in rows:
        try:
            records = convert(found)
        except BadRowError as error:
            _refuse(error, path, row, reading)
            continue
        # every record is counted as a row later on
        reading.notes.rows += 1 - len(records)
        for record in records:
            record["row"] = row
            yield record


def whole(value: Any, column: str) -> int:
    """A 64-bit integer, which JSON holds as text.

    Raises
    ------
    BadRowError
        It is none.
    """
    try:
        return int(value)
    except (TypeError, ValueError):
        raise BadRowError(f"{column} is {value!r}; expected a whole number", f"{column}: no whole number") from None


def number(value: Any, column: str) -> float | None:
    """A number; None where it is missing.

    Raises
    ------
    BadRowError
        It is none.
    """
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise BadRowError(f"{column} is {value!r}; expected a number", f"{column}: no number") from None


def repeated(row: Row, name: str) -> list[Row]:
    """The records of a repeated field.

    Raises
    ------
    BadRowError
        There is something else.
    """
    found = row.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadRowError(f"{name} is {found!r}; expected a list of records", f"{name}: no list of records")
    return found


def _refuse(error: BadRowError, path: object, row: int, reading: Reading) -> None:
    if reading.settings.bad_rows != "skip":
        raise EventError(f'{path}, row {row}: {error}. Mend it, or set bad_rows = "skip" for this source') from None
    reading.notes.rows += 1
    reading.notes.skipped[error.reason] += 1


def _parquet_rows(path: Path, reading: Reading, columns: Collection[str]) -> Iterator[tuple[int, Row]]:
    try:
        file = pa.parquet.ParquetFile(path)
        there = [name for name in file.schema_arrow.names if name in columns]
        row, size = 0, path.stat().st_size
        for batch in file.iter_batches(batch_size=min(reading.chunk_rows, _BATCH_ROWS), columns=there):
            yield from enumerate(batch.to_pylist(), row)
            row += len(batch)
            reading.done(size * len(batch) // max(file.metadata.num_rows, 1))
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"{path} cannot be read as Parquet: {error}") from None


def _csv_rows(path: Path, reading: Reading) -> Iterator[tuple[int, Row]]:
    lines = (line.decode("utf-8", "replace") for line in reading.lines(path))
    found = csv.reader(lines, delimiter=reading.settings.separator)
    heading = next(found, [])
    short: tuple[int, int] | None = None  # a row with another number of cells: no fault if the file ends with it
    for row, cells in enumerate(filter(None, found)):
        if short:
            error = f"found {short[1]} cells; expected the heading's {len(heading)}"
            _refuse(BadRowError(error, "another number of cells"), path, short[0], reading)
            short = None
        if len(cells) == len(heading):
            yield row, {name: cell or None for name, cell in zip(heading, cells, strict=True)}
        else:
            short = row, len(cells)
    if short:
        reading.notes.skipped[CUT_OFF] += 1

"""Any CSV, Parquet or JSON-lines log with a row an event, its columns mapped in configs/shop.toml.

In: files (also a folder or a pattern) and the `[sources.<name>]` section. Out: canonical events, a block at a time.
Empty cells become the column's default; a cell that says NaN, a time that is none, an unknown event name or a negative
number is an error that names the row. A last row that was cut off is left out and counted; one without a line end that
reads as a whole row is taken as one.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from features.errors import EventError
from features.shop import SourceSettings
from features.sources.convert import Raw, canonical, from_records
from features.sources.reading import COMPRESSED, CUT_OFF, Reading, TextFile, first_line

DEFAULTS: Final = SourceSettings()
TABLES: Final = ("*.parquet", "*.csv*", "*.tsv*", "*.json*", "*.ndjson*")
OTHER_WIDTH: Final = "another number of cells"
_BLOCK_BYTES: Final = 1 << 23
_LONGEST_ROW_BYTES: Final = 1 << 25

# What a reader does to the log's values itself: columns in, columns out, of one length.
Change = Callable[[dict[str, pd.Series]], Raw]


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    EventError
        A mapped column is missing, or a row breaks the contract of the event.
    """
    # of a folder only tables: it may hold a key beside them
    for path in reading.files(*TABLES):
        if kind(path) in (".jsonl", ".ndjson", ".json"):
            yield from from_records(_json_records(path, reading), reading, path)
        else:
            yield from read_table(path, reading)


def kind(path: Path) -> str:
    """The suffix of a file, that of a compression aside: `.csv` of events.csv.gz."""
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


def read_table(
    path: Path,
    reading: Reading,
    names: list[str] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    change: Change = dict,
) -> Iterator[pd.DataFrame]:
    """The canonical events of a Parquet or CSV file.

    names: the columns of a CSV file without a heading; a heading that is there all the same is told by its names.
    columns: ours -> theirs, the settings' by default; change: called with those columns, gives ours.

    Raises
    ------
    EventError
        A column is missing, a row has another number of cells or breaks the contract, or the file is damaged.
    """
    columns = reading.settings.columns if columns is None else columns
    if kind(path) == ".parquet":
        return _read_parquet(path, reading, columns, change)
    return _read_csv(path, reading, columns, change, names)


def _read_parquet(path: Path, reading: Reading, columns: Mapping[str, str], change: Change) -> Iterator[pd.DataFrame]:
    """Batch by batch; columns may lie in structs: `device.category`."""
    size, row = path.stat().st_size, 0
    if not size:
        return
    try:
        file = pa.parquet.ParquetFile(path)
        found = file.schema_arrow.names
        _series(file.schema_arrow.empty_table(), columns, path)  # names a missing column even where there is no row
        tops = {theirs if theirs in found else theirs.partition(".")[0] for theirs in columns.values()}
        for batch in file.iter_batches(batch_size=reading.chunk_rows, columns=sorted(tops)):
            raw = _series(pa.Table.from_batches([batch]), columns, path)
            yield canonical(change(raw), reading, path, row)
            row += len(batch)
            reading.done(size * len(batch) // file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"{path} cannot be read as Parquet: {error}") from None


def _read_csv(
    path: Path, reading: Reading, columns: Mapping[str, str], change: Change, names: list[str] | None
) -> Iterator[pd.DataFrame]:
    """A block of whole rows at a time, then the row without an end, if there is one."""
    heading = first_line(path)
    found = next(csv.reader([heading.decode("utf-8-sig", "replace")], delimiter=reading.settings.separator), [])
    if not found:
        return
    if names is not None and not set(columns.values()) <= set(found):
        heading, found = b"", names
    for ours, theirs in columns.items():
        if theirs not in found:
            raise _no_column(path, ours, theirs, found)
    row = 0
    with reading.text(path) as text:
        for block in _whole_rows(text):
            rows = block.lstrip(b"\r\n").removeprefix(heading)
            heading = b""
            table, numbers = _cells(rows, path, reading, found, columns, row)
            for start in range(0, len(table), reading.chunk_rows):
                part = slice(start, start + reading.chunk_rows)
                raw = _series(table[part], columns, path)
                yield canonical(change(raw), reading, path, rows=numbers[part])
            row = numbers[-1] + 1 if numbers else row
    last, counted = text.tail.removeprefix(heading), reading.notes.rows
    if not last.strip():
        return
    try:
        table, numbers = _cells(last, path, reading, found, columns, row, cut=True)
        ended = canonical(change(_series(table, columns, path)), reading, path, rows=numbers)
    except EventError:
        reading.notes.rows = counted + 1
        reading.notes.skipped[CUT_OFF] += 1
    else:
        yield ended


def _whole_rows(text: TextFile) -> Iterator[bytes]:
    """Blocks of rows with their ends."""
    rows = b""
    while block := text.read(_BLOCK_BYTES):
        rows += block
        end = _end_of_rows(rows)
        if not end and len(rows) > _LONGEST_ROW_BYTES:  # a quote that is never closed must not gather the whole file
            end = len(rows)
        if rows[:end].strip():
            yield rows[:end]
        rows = rows[end:]
    if rows.strip():
        yield rows


def _end_of_rows(rows: bytes) -> int:
    """Where the last whole row ends: a line end between quotes ends none."""
    end = len(rows)
    while rows.count(b'"', 0, end) % 2:
        end = rows.rfind(b"\n", 0, rows.rfind(b'"', 0, end)) + 1
    return end


def _cells(
    rows: bytes, path: Path, reading: Reading, found: list[str], columns: Mapping[str, str], row: int, cut: bool = False
) -> tuple[pa.Table, Sequence[int]]:
    """The wanted cells as text, and each row's number; rows of another width are left out and counted, or refused."""
    wanted = sorted(set(columns.values()))
    # types told from a first block are wrong in a later one, and only an empty cell is missing: a "NaN" or "null" in
    # a file is a mistake of the export that should be seen
    as_text = pa.csv.ConvertOptions(
        include_columns=wanted,
        column_types=dict.fromkeys(wanted, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    if not rows.strip():
        return pa.table({name: pa.array([], pa.string()) for name in wanted}), range(0)
    other: list[tuple[int, int]] = []  # (row, its cells)

    def note(bad: Any) -> str:
        other.append((row + bad.number - 1, bad.actual_columns))
        return "skip"

    try:
        table = pa.csv.read_csv(
            pa.py_buffer(rows),
            pa.csv.ReadOptions(column_names=found, use_threads=False, block_size=len(rows) + 1),
            pa.csv.ParseOptions(
                delimiter=reading.settings.separator,
                newlines_in_values=True,
                # a handler is given the row as text, which such a row has none
                invalid_row_handler=note if _is_utf8(rows) else None,
            ),
            as_text,
        )
    except pa.ArrowException as error:
        raise EventError(f"{path}, row {row} or later: {error}") from None
    if not other:
        return table, range(row, row + len(table))
    if cut or reading.settings.bad_rows != "skip":
        at, cells = other[0]
        raise EventError(
            f"{path}, row {at}: found {cells} cells; expected {len(found)}: {', '.join(found)}. Mend the row, or set "
            f'bad_rows = "skip" for this source'
        )
    reading.notes.rows += len(other)
    reading.notes.skipped[OTHER_WIDTH] += len(other)
    left_out = {at for at, _ in other}
    return table, [at for at in range(row, row + len(table) + len(other)) if at not in left_out]


def _is_utf8(rows: bytes) -> bool:
    try:
        rows.decode()
    except UnicodeDecodeError:
        return False
    return True


def _series(table: pa.Table, columns: Mapping[str, str], path: Path) -> dict[str, pd.Series]:
    return {ours: _column(table, theirs, ours, path) for ours, theirs in columns.items()}


def _column(table: pa.Table, theirs: str, ours: str, path: Path) -> pd.Series:
    first, *inner = theirs.split(".") if theirs not in table.column_names else [theirs]
    if first not in table.column_names:
        raise _no_column(path, ours, theirs, table.column_names)
    column = table[first]
    for name in inner:
        if name not in [field.name for field in getattr(column.type, "fields", [])]:
            raise _no_column(path, ours, theirs, table.column_names)
        column = pa.compute.struct_field(column, name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    # Arrow types keep "missing" and NaN apart, which numpy's floats cannot
    return column.to_pandas(types_mapper=pd.ArrowDtype)  # type: ignore[no-any-return]


def _no_column(path: Path, ours: str, theirs: str, found: list[str]) -> EventError:
    return EventError(
        f"{path} has no column {theirs!r}, which [sources.<name>.columns] maps to {ours!r}; found: {', '.join(found)}"
    )


def json_lines(path: Path, reading: Reading) -> Iterator[tuple[int, Any]]:
    """(row, object) of each line of a JSON-lines file; a last line that was cut off is left out and counted.

    Raises
    ------
    EventError
        Another line is no JSON, and bad rows are not to be skipped.
    """
    for row, (found,) in reading.sound(_decoded(path, reading), path, "no JSON"):
        yield row, found


def _decoded(path: Path, reading: Reading) -> Iterator[tuple[int, tuple[Any] | str]]:
    """(row, its object in a tuple, because that may be a text) or what is wrong with the line."""
    for row, line in enumerate(reading.lines(path)):
        if line.strip():
            try:
                yield row, (msgspec.json.decode(line),)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield row, f"no JSON ({error}); expected one object a line"


def _json_records(path: Path, reading: Reading) -> Iterator[dict[str, Any]]:
    columns = {ours: theirs.split(".") for ours, theirs in reading.settings.columns.items()}
    for row, found in json_lines(path, reading):
        if isinstance(found, dict):
            yield {"row": row, **{ours: inside(found, *place) for ours, place in columns.items()}}
        elif reading.settings.bad_rows == "skip":
            reading.notes.rows += 1
            reading.notes.skipped["no JSON object"] += 1
        else:
            raise EventError(f"{path}, row {row}: found a {type(found).__name__}; expected an object an event")


def inside(record: Any, *names: str) -> Any:
    """What lies in nested records under these names; None where any of them is missing."""
    for name in names:
        record = record.get(name) if isinstance(record, dict) else None
    return record

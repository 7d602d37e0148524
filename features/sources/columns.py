"""Any CSV, Parquet or JSON-lines log with a row an event, its columns mapped in configs/shop.toml.

In: files (also a folder or a pattern) and the `[sources.<name>]` section. Out: canonical events, a block at a time.
Empty cells become the column's default; a cell that says NaN, a time that is none, an unknown event name or a negative
number is an error that names the row. A last row that was cut off is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from features.errors import EventError
from features.shop import SourceSettings
from features.sources.convert import canonical, from_records
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Reading

DEFAULTS: Final = SourceSettings()
_BLOCK_BYTES: Final = 1 << 23


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    EventError
        A mapped column is missing, or a row breaks the contract of the event.
    """
    for path in reading.files():
        suffix = Path(path.stem).suffix if path.suffix in (".gz", ".bz2", ".xz") else path.suffix
        if suffix == ".parquet":
            yield from read_parquet(path, reading)
        elif suffix in (".jsonl", ".ndjson", ".json"):
            yield from from_records(_json_records(path, reading), reading, path)
        else:
            yield from read_csv(path, reading)


def read_parquet(path: Path, reading: Reading) -> Iterator[pd.DataFrame]:
    """A Parquet file, row group by row group; columns may lie in structs: `device.category`."""
    try:
        file = pa.parquet.ParquetFile(path)
        wanted = sorted({theirs.partition(".")[0] for theirs in reading.settings.columns.values()})
        known = [name for name in wanted if name in file.schema_arrow.names]
        row, size = 0, path.stat().st_size
        for batch in file.iter_batches(batch_size=reading.chunk_rows, columns=known):
            yield _converted(pa.Table.from_batches([batch]), path, reading, row)
            row += len(batch)
            reading.done(size * len(batch) // max(file.metadata.num_rows, 1))
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"{path} cannot be read as Parquet: {error}") from None


def read_csv(path: Path, reading: Reading, names: list[str] | None = None) -> Iterator[pd.DataFrame]:
    """A CSV file, a block at a time; `names` are the columns of a file without a heading."""
    if not path.stat().st_size:
        return
    short: list[int] = []  # rows with another number of cells

    def note(row: Any) -> str:
        short.append(row.number)
        return "skip"

    separator = reading.settings.separator
    try:
        stream = pa.csv.open_csv(
            path,
            read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False, column_names=names),
            parse_options=pa.csv.ParseOptions(delimiter=separator, invalid_row_handler=note),
            convert_options=_as_text(path, reading, names),
        )
        row = 0
        for batch in stream:
            yield _converted(pa.Table.from_batches([batch]), path, reading, row)
            row += len(batch)
            reading.done(batch.nbytes)
        heading = 0 if names else 1
        last = row + len(short) + heading
        # rows are counted from 1 in the file, heading included
        if any(number != last for number in short) or (short and _ends_a_row(path)):
            bad = short[0] - heading - 1
            raise EventError(f"{path}, row {bad}: found another number of cells than the heading has; mend or drop it")
        reading.notes.skipped.update({CUT_OFF: len(short)} if short else {})
    except (EOFError, OSError) as error:
        if "ended before" not in str(error) and "Truncated" not in str(error):
            raise EventError(f"{path} cannot be read: {error}") from None
        reading.notes.skipped[CUT_OFF_STREAM] += 1
    except pa.ArrowException as error:
        raise EventError(f"{path} cannot be read: {error}") from None


def _as_text(path: Path, reading: Reading, names: list[str] | None) -> pa.csv.ConvertOptions:
    """Every wanted column as text: types told from a first block are wrong in a later one."""
    wanted = sorted(set(reading.settings.columns.values()))
    with pa.csv.open_csv(
        path,
        read_options=pa.csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=pa.csv.ParseOptions(
            delimiter=reading.settings.separator, invalid_row_handler=lambda row: "skip"
        ),
    ) as stream:
        found = stream.schema.names
    for ours, theirs in reading.settings.columns.items():
        if theirs not in found:
            raise _no_column(path, ours, theirs, found)
    # only an empty cell is missing: a "NaN" or "null" in a file is a mistake of the export that should be seen
    return pa.csv.ConvertOptions(
        include_columns=wanted,
        column_types=dict.fromkeys(wanted, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )


def _ends_a_row(path: Path) -> bool:
    if path.suffix in (".gz", ".bz2", ".xz"):
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"


def _converted(table: pa.Table, path: Path, reading: Reading, row: int) -> pd.DataFrame:
    raw = {ours: _column(table, theirs, ours, path) for ours, theirs in reading.settings.columns.items()}
    return canonical(raw, reading, path, row)


def _column(table: pa.Table, theirs: str, ours: str, path: Path) -> pd.Series:
    first, *inner = theirs.split(".") if theirs not in table.column_names else [theirs]
    if first not in table.column_names:
        raise _no_column(path, ours, theirs, table.column_names)
    column = table[first]
    for name in inner:
        column = pa.compute.struct_field(column, name)
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
        Another line is no JSON.
    """
    bad: tuple[int, str] | None = None
    for row, line in enumerate(reading.lines(path)):
        if not line.strip():
            continue
        if bad:
            raise EventError(f"{path}, row {bad[0]}: no JSON ({bad[1]}); expected one object a line")
        try:
            yield row, msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            bad = (row, str(error))
    if bad:
        reading.notes.skipped[CUT_OFF] += 1


def _json_records(path: Path, reading: Reading) -> Iterator[dict[str, Any]]:
    columns = {ours: theirs.split(".") for ours, theirs in reading.settings.columns.items()}
    for row, found in json_lines(path, reading):
        if not isinstance(found, dict):
            raise EventError(f"{path}, row {row}: found a {type(found).__name__}; expected an object an event")
        yield {ours: _inside(found, place) for ours, place in columns.items()}


def _inside(record: Any, place: list[str]) -> Any:
    for part in place:
        record = record.get(part) if isinstance(record, dict) else None
    return record

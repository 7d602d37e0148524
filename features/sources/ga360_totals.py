"""Visit totals of Google Analytics 360: a row a product that a visit was shown, each with the totals of the visit, in.

Out: records of the few events that such totals prove. They hold two times, the start and, by `time_on_site`, the last
hit; events stand at these only: a page view at the start, a page view at the end if there were several (another hit if
there was one), and a purchase at the end, with all its units and its revenue. How the page views between lay in time
nobody knows: they are counted as left out. With the option `spread` they are interpolated, evenly: then counts are
right, but times are invented, and an interval early in a visit tells how long it will be, which no model must learn.
A total that is missing is none: no page view, no time, no revenue.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet

from features.errors import EventError
from features.settings import Settings
from features.sources.convert import Record
from features.sources.reading import Reading
from features.trackers.ga4 import known

UNTIMED: Final = "page view between the first and the last hit, its time unknown"

_SCHEMA: Final = pa.schema(
    {
        "visit_id": pa.int64(),
        "visit_start_time": pa.int64(),
        "channel_grouping": pa.string(),
        "page_views": pa.float64(),
        "time_on_site": pa.float64(),
        "units_sold": pa.float64(),
        "revenue": pa.float64(),
    }
)
# Of a product; the others are of the visit, the same in all its rows.
_SUMS: Final = frozenset({"units_sold", "revenue"})
_BATCH_ROWS: Final = 1 << 16


class Ga360Options(Settings):
    """`[sources.ga360.options]`.

    Attributes
    ----------
    spread: of visit totals, interpolate the page views between the first and the last hit. Their times are invented.
    """

    spread: bool = False


def visit_events(path: Path, reading: Reading, options: Ga360Options) -> Iterator[Record]:
    """The records of a Parquet file of visit totals, visit by visit, by their start.

    Raises
    ------
    EventError
        A column is missing, or a visit has no id or no start.
    """
    batches = _totals(path, reading).to_batches(max_chunksize=_BATCH_ROWS)
    for visit in chain.from_iterable(batch.to_pylist() for batch in batches):
        if visit["visit_id"] is None or visit["visit_start_time"] is None:
            raise EventError(f"{path}: visit {visit['visit_id']} has no visit_id or no visit_start_time; drop its rows")
        found = list(_events(visit, reading, options))
        # the rows were counted when they were collapsed
        reading.notes.rows -= len(found)
        yield from found


def _totals(path: Path, reading: Reading) -> pa.Table:
    """A row a visit, by its start. Rows of one visit lie apart in the file, so visits, not rows, bound the memory.

    The revenue is the sum over all rows that have one: they are the lines of the order, and equal lines are no
    repetition (where the table of hits has the order's total too, the sum is equal to it).
    """
    collapsed = _SCHEMA.empty_table()
    size = path.stat().st_size
    try:
        file = pa.parquet.ParquetFile(path)
        missing = [name for name in _SCHEMA.names if name not in file.schema_arrow.names]
        if missing:
            raise EventError(f"{path} has no column {missing[0]!r}; found: {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=_SCHEMA.names):
            rows = pa.Table.from_batches([batch]).select(_SCHEMA.names).cast(_SCHEMA)
            # units without a revenue were put into a cart, not sold
            sold = pa.compute.if_else(rows["revenue"].is_valid(), rows["units_sold"], None)
            rows = rows.set_column(_SCHEMA.get_field_index("units_sold"), "units_sold", sold)
            collapsed = _collapse(pa.concat_tables([collapsed, _collapse(rows)]))
            reading.notes.rows += len(batch)
            reading.done(size * len(batch) // max(file.metadata.num_rows, 1))
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"{path} cannot be read as visit totals in Parquet: {error}") from None
    return collapsed.sort_by([("visit_start_time", "ascending"), ("visit_id", "ascending")])


def _collapse(rows: pa.Table) -> pa.Table:
    """A row a visit: its sums, and of the other columns the first known value."""
    kinds = [(name, "sum" if name in _SUMS else "first") for name in _SCHEMA.names if name != "visit_id"]
    found = rows.group_by("visit_id", use_threads=False).aggregate(kinds)
    return found.rename_columns([name.removesuffix("_first").removesuffix("_sum") for name in found.column_names])


def _events(visit: Record, reading: Reading, options: Ga360Options) -> Iterator[Record]:
    start = 1000 * visit["visit_start_time"]
    end = start + 1000 * int(visit["time_on_site"] or 0)
    pages = int(visit["page_views"] or 0)
    common = {
        "visitor": str(visit["visit_id"]),
        "session": str(visit["visit_id"]),
        "channel": known(visit["channel_grouping"]) or None,
    }
    yield common | {"time": start, "name": "page_view" if pages else "hit"}
    if options.spread:
        for place in range(1, pages):
            yield common | {"time": start + (end - start) * place // (pages - 1), "name": "page_view"}
    elif pages > 1:
        yield common | {"time": end, "name": "page_view"}
        reading.notes.skipped.update({UNTIMED: pages - 2} if pages > 2 else {})
    if pages <= 1 and end > start:
        yield common | {"time": end, "name": "hit"}
    if visit["revenue"]:
        sold = {"value": visit["revenue"] / 1e6, "quantity": visit["units_sold"]}
        yield common | {"time": end, "name": "purchase"} | sold

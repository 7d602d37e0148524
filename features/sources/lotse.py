"""Parquet files that hold the canonical columns already: what `lotse simulate` writes.

In: any of `features.events.COLUMNS`, at least visitor, time and name. Out: the same, checked; a column that is not
there is at its default, and a NaN is an error. Visitors are taken as pseudonyms already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from features.errors import EventError
from features.events import check_events
from features.shop import SourceSettings
from features.sources.reading import Reading

DEFAULTS: Final = SourceSettings()


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The tables as they are, checked.

    Raises
    ------
    EventError
        A column is unknown or missing, a value breaks the contract of the event, or a file is damaged.
    """
    for path in reading.files("*.parquet"):
        size, row = path.stat().st_size, 0
        if not size:
            continue
        try:
            file = pa.parquet.ParquetFile(path)
            for batch in file.iter_batches(batch_size=reading.chunk_rows):
                reading.notes.rows += len(batch)
                yield check_events(batch.to_pandas())
                row += len(batch)
                reading.done(size * len(batch) // file.metadata.num_rows)
            if not file.metadata.num_rows:
                yield check_events(file.read().to_pandas())
        except EventError as error:
            raise EventError(f"{path}, counted from row {row} on: {error}") from None
        except (OSError, pa.ArrowException) as error:
            raise EventError(f"{path} cannot be read as Parquet: {error}") from None

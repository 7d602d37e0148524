"""Parquet files that hold the canonical columns already: what `lotse simulate` writes."""

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
    """The table as it is, checked. Its visitors are pseudonyms already."""
    for path in reading.files("*.parquet"):
        try:
            file = pa.parquet.ParquetFile(path)
            size, whole = path.stat().st_size, max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=reading.chunk_rows):
                reading.notes.rows += len(batch)
                yield check_events(batch.to_pandas())
                reading.done(size * len(batch) // whole)
            if not file.metadata.num_rows:
                yield check_events(file.read().to_pandas())
        except EventError as error:
            raise EventError(f"{path}: {error}") from None
        except (OSError, pa.ArrowException) as error:
            raise EventError(f"{path} cannot be read as Parquet: {error}") from None

"""How many sessions a day there are: those that were handed on, on the last full days."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from serving.model_health.measured import Tree

_DAYS: Final = 7


def sessions_per_day(closed: str, now_ms: int, least: int) -> Tree | None:
    """The mean over those of the last seven full days, in UTC, that have any; None where none has, or too few.

    closed: the folder; least: of fewer sessions than this on those days nothing is told.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415  (seconds with pandas behind it)

    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    counts = []
    for before in range(1, _DAYS + 1):
        count = 0
        for file in Path(closed).glob(f"day={today - timedelta(days=before)}/*.parquet"):
            with suppress(FileNotFoundError):  # erased meanwhile
                count += pq.ParquetFile(file).metadata.num_rows
        if count:
            counts.append(count)
    if sum(counts) < least or not counts:
        return None
    return {"sessions": sum(counts) / len(counts), "days": len(counts)}

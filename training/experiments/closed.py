"""Sessions that are over, as the service hands them on, for experiments: their units, and what to plan with.

In: the folder `store.closed` of Parquet files. Out: tables; nothing is copied of what is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from features.errors import EventError
from features.experiments import Experiment
from features.units import units_of

# Shows that files are gone through: gives each of them on.
Through = Callable[[Sequence[Path]], Iterable[Path]]


def closed_files(folder: Path) -> list[Path]:
    """The files, the earliest day first.

    Raises
    ------
    EventError
        There are none.
    """
    found = sorted(folder.glob("day=*/*.parquet"))
    if not found:
        raise EventError(
            f"no sessions that are over in {folder}; the service writes them to store.closed (configs/serving.toml) "
            "half an hour after their last event"
        )
    return found


def units_of_closed(folder: Path, experiments: Mapping[str, Experiment], through: Through = iter) -> pd.DataFrame:
    """The table of units of some experiments.

    Raises
    ------
    EventError
        There is no session that is over.
    """
    return units_of(through(closed_files(folder)), experiments)


def sessions_of_closed(folder: Path, columns: Sequence[str], through: Through = iter) -> pd.DataFrame:
    """A row a session, as a history to plan with: `visitor`, `exposed_at` (its start), and the columns asked for.

    Raises
    ------
    EventError
        There is no session that is over, or they have no such column.
    """
    parts = []
    for path in through(closed_files(folder)):
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        missing = [name for name in columns if name not in names]
        if missing:
            raise EventError(
                f"sessions have no column {missing[0]!r}; name one that is counted, such as purchases, revenue or "
                "cart_adds (lotse features list)"
            )
        parts.append(file.read(list(dict.fromkeys(("visitor", "started_at", *columns)))).to_pandas())
    table = pd.concat(parts, ignore_index=True).rename(columns={"started_at": "exposed_at"})
    return table.sort_values("exposed_at", kind="stable", ignore_index=True)


def as_outcome(values: pd.Series, kind: str) -> pd.Series:
    """A count as the outcome of a goal: of a binary one, whether there was any."""
    return (values > 0).astype(float) if kind == "binary" else values.astype(np.float64)

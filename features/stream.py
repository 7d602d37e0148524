"""Rows of a history that need not fit into memory: tables of events in, Parquet files of feature rows out.

The tables are split by visitor into buckets on disk (`features.partition`); then bucket after bucket is folded and
written. What is in memory at a time is one table of events, or the events and rows of one group of buckets a thread.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from features.batch import IDLE_SECONDS, Progress, Rows, build_rows
from features.compiler import Fold, compile_fold
from features.definitions import CATALOGUE
from features.partition import DEFAULT_BUCKETS, gather, groups_of, spill
from features.sessions import DEFAULT_TIMEOUT_SECONDS
from features.tables import NOTHING_LEARNED, Tables, Windows

# 1 M events of 120 features and no idle rows: 0.5 GB of rows and 0.2 GB of events.
EVENTS_AT_ONCE: Final = 1_000_000
# What stands before the features in a file of rows.
KEYS: Final = ("visitor", "now", "prefix", "idle_ms")
_ROW_GROUP: Final = 100_000
_BLOCK: Final = 512


@dataclass(frozen=True)
class Plan:
    """How rows are made, as a task on another machine needs to know it; `features` None is the whole catalogue."""

    features: tuple[str, ...] | None = None
    idle_seconds: tuple[float, ...] = IDLE_SECONDS
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    tables: Tables | Windows = NOTHING_LEARNED
    threads: int | None = None

    def fold(self) -> Fold:
        """The compiled catalogue."""
        return compile_fold(None if self.features is None else CATALOGUE.select(self.features))

    def rows(self, events: pd.DataFrame) -> Rows:
        """The rows of events whose sessions are whole."""
        return build_rows(
            events,
            self.fold(),
            idle_seconds=self.idle_seconds,
            timeout_seconds=self.timeout_seconds,
            threads=self.threads,
            tables=self.tables,
        )


@dataclass(frozen=True)
class Written:
    """What was written: the files, in the order of their names, and how many rows in all."""

    files: tuple[Path, ...]
    rows: int


def write_rows(
    chunks: Iterable[pd.DataFrame],
    out: Path | str,
    plan: Plan = Plan(),
    *,
    buckets: int = DEFAULT_BUCKETS,
    events_at_once: int = EVENTS_AT_ONCE,
    progress: Progress | None = None,
) -> Written:
    """Write the rows of a history as `rows-00000.parquet`, ... into the folder `out`.

    Each file has the columns KEYS (visitor's pseudonym; `now`, ms UTC; events so far; idle ms) and the features as
    float32. All rows of a visitor are in one file, in the order of time. The same rows as `build_rows` of all events.

    chunks: canonical events, in any order; buckets: more of them need less memory for a history of many events;
    events_at_once: how many events are in memory at a time, shared by the threads; progress: called with (events
    written, events in all).

    Raises
    ------
    FileExistsError
        `out` holds rows already.
    """
    folder = prepare_folder(out)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".spilled-") as spilled:
        counts = np.zeros(buckets, np.int64)
        for number, chunk in enumerate(chunks):
            counts += spill(chunk, Path(spilled), number, buckets)
        threads = plan.threads or os.cpu_count() or 1
        # a thread a group: writing takes longer than folding, and a file is written by one thread
        alone = replace(plan, threads=1)
        groups = groups_of(counts, max(events_at_once // threads, 1))
        files = [rows_file(folder, number) for number in range(len(groups))]
        rows, done = 0, 0
        with ThreadPoolExecutor(threads) as pool:
            writing = pool.map(lambda group, file: fold_buckets(Path(spilled), group, file, alone), groups, files)
            for group, written in zip(groups, writing, strict=True):
                rows += written
                done += int(counts[group].sum())
                if progress:
                    progress(done, int(counts.sum()))
    return Written(tuple(files), rows)


def prepare_folder(out: Path | str) -> Path:
    """The folder for rows, made where it is missing.

    Raises
    ------
    FileExistsError
        It holds rows already.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("rows-*.parquet")):
        raise FileExistsError(f"{folder} holds rows already; give an empty folder, or remove them")
    return folder


def rows_file(folder: Path, number: int) -> Path:
    """The name of the file of a group of buckets."""
    return folder / f"rows-{number:05d}.parquet"


def fold_buckets(spilled: Path, group: Sequence[int], target: Path, plan: Plan) -> int:
    """Write the rows of a group of buckets into one file; returns how many. A file stands there whole or not at all."""
    rows = plan.rows(gather(spilled, group))
    visitor = rows.events["visitor"].to_numpy()
    schema = pa.schema(
        [("visitor", pa.int64()), ("now", pa.int64()), ("prefix", pa.int32()), ("idle_ms", pa.int64())]
        + [(name, pa.float32()) for name in rows.names],
        metadata={"feature_digest": rows.digest},
    )
    # in the folder that is removed at the end: what a killed worker has begun goes with it
    begun = spilled / f"{target.stem}.{uuid4().hex}.part"
    # without dictionaries: 2.5 times as fast, and a fifth smaller
    writing = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}
    with pa.parquet.ParquetWriter(begun, schema, **writing) as writer:
        for start in range(0, len(rows), _ROW_GROUP):
            part = slice(start, start + _ROW_GROUP)
            keys = (visitor[rows.event[part]], rows.now[part], rows.prefix[part], rows.idle_ms[part])
            writer.write_table(pa.table([*keys, *_columns(rows.matrix[part])], schema=schema))
    begun.replace(target)
    return len(rows)


def _columns(matrix: np.ndarray) -> np.ndarray:
    """The matrix by columns, (n, F) -> (F, n): turned a block at a time, which stays in the cache."""
    turned = np.empty(matrix.shape[::-1], matrix.dtype)
    for start in range(0, len(matrix), _BLOCK):
        turned[:, start : start + _BLOCK] = matrix[start : start + _BLOCK].T
    return turned

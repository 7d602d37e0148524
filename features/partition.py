"""Splitting events by visitor: into buckets on disk, so that a history of any size is folded a bucket at a time.

In: tables of canonical events. Out: one Arrow file for each table and bucket in which it has events, and from a
bucket's files its events again, in the order of the log. A visitor is in one bucket, so sessions stay whole. Files are
written beside and moved: a task that is killed and run again leaves what one run would have left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa

from features.events import COLUMNS

DEFAULT_BUCKETS: Final = 64
# The step of splitmix64: 2^64 over the golden ratio.
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_SCHEMA: Final = pa.schema([(name, pa.from_numpy_dtype(np.dtype(column.dtype))) for name, column in COLUMNS.items()])


def mixed(values: np.ndarray) -> np.ndarray:
    """64 well-mixed bits of each value, the same in every run: the finaliser of splitmix64. int64 (n,) -> uint64 (n,).

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    with np.errstate(over="ignore"):
        z = values.astype(np.int64).view(np.uint64) + GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def bucket_of(visitor: np.ndarray, buckets: int) -> np.ndarray:
    """The bucket of each visitor: int64 (n,) -> int64 (n,), 0 up to `buckets`."""
    return (mixed(visitor) % np.uint64(buckets)).astype(np.int64)


def spill(events: pd.DataFrame, folder: Path, number: int, buckets: int) -> np.ndarray:
    """Write a table's events by bucket. events: canonical; number: the table's place in the log.

    Returns the number of events in each bucket, int64 (buckets,).
    """
    bucket = bucket_of(events["visitor"].to_numpy(), buckets)
    counts = np.bincount(bucket, minlength=buckets)
    order = np.argsort(bucket, kind="stable")
    table = pa.table([events[name].to_numpy()[order] for name in COLUMNS], schema=_SCHEMA)
    start = 0
    for place in np.flatnonzero(counts):
        target = _bucket_folder(folder, int(place)) / f"{number:08d}.arrow"
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_suffix(f".{uuid4().hex}.part")
        with pa.OSFile(str(beside), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
            writer.write_table(table.slice(start, counts[place]))
        beside.replace(target)
        start += counts[place]
    return counts


def gather(folder: Path, buckets: Sequence[int]) -> pd.DataFrame:
    """The events of some buckets, those of a visitor in the order of the log."""
    tables = []
    for place in buckets:
        for path in sorted(_bucket_folder(folder, place).glob("*.arrow")):
            with pa.memory_map(str(path)) as file:
                tables.append(pa.ipc.open_file(file).read_all())
    whole = pa.concat_tables(tables) if tables else _SCHEMA.empty_table()
    return pd.DataFrame({name: whole[name].to_numpy() for name in COLUMNS}, copy=False)


def groups_of(counts: np.ndarray, most: int) -> list[list[int]]:
    """Neighbouring buckets that together hold at most `most` events, larger ones alone; empty ones are left out."""
    groups: list[list[int]] = []
    size = 0
    for place, count in enumerate(counts.tolist()):
        if not count:
            continue
        if not groups or size + count > most:
            groups.append([])
            size = 0
        groups[-1].append(place)
        size += count
    return groups


def _bucket_folder(folder: Path, place: int) -> Path:
    return folder / f"bucket-{place:04d}"

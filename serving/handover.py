"""Sessions that are over, handed on exactly once: from the store, batch by batch, to a folder of Parquet files.

A batch has a name and keeps its content until it is settled. Its file has that name, is written beside and moved into
place, and only then the batch is settled: a worker that is killed at any point leaves a batch that another one claims
again, and writes to the same file. Two workers at one batch write the same.

One line a session: key of the visitor's record, start and end, events, consent, and every field of the fold; of records
that were folded with other fields than this release has, the record itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.compiler import Fold
from features.generate import layout_of
from features.sessions import (
    HEADER_CONSENT,
    HEADER_DIGEST,
    HEADER_EVENTS,
    HEADER_LAST_AT,
    HEADER_STARTED_AT,
    HEADER_WORDS,
)
from serving.sessions import STATE_BYTES, visitor_of
from serving.stores import KEY_BYTES, Batch, Closed
from serving.syncing import sync

_HEADER: Final = {
    "field_digest": HEADER_DIGEST,
    "started_at": HEADER_STARTED_AT,
    "ended_at": HEADER_LAST_AT,
    "events": HEADER_EVENTS,
    "consent": HEADER_CONSENT,
}


class Sink(Protocol):
    """Where closed sessions go. `write` may be called again with the same batch, and must then do nothing new."""

    def write(self, batch: Batch) -> None:
        """Keep the batch; it is forgotten by the store afterwards."""


class ParquetSink:
    """A file a batch, in a folder a day (UTC, of the batch's first session)."""

    def __init__(self, folder: Path, fold: Fold, *, sync: bool = False) -> None:
        self._folder, self._fold, self._sync = folder, fold, sync
        self._places = layout_of(fold.catalogue.fields.values()).places

    def write(self, batch: Batch) -> None:
        """Write beside, then move into place."""
        table = self.table(batch.sessions)
        first = datetime.fromtimestamp(table["started_at"][0].as_py() / 1000, UTC)
        folder = self._folder / f"day={first:%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{batch.name}.{os.getpid()}"
        try:
            with beside.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                if self._sync:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError:
            beside.unlink(missing_ok=True)  # half a file would keep room from others on a full disk
            raise
        beside.replace(folder / f"{batch.name}.parquet")
        if self._sync:
            # a file is on the disk when its name is, too
            for named_in in (folder, self._folder):
                sync(named_in)

    def table(self, sessions: Sequence[Closed]) -> pa.Table:
        """A line a session, in the order of their names."""
        ordered = sorted(sessions)
        headers = np.array(
            [np.frombuffer(value, np.int64, HEADER_WORDS, STATE_BYTES) for _, value in ordered]
        )  # fmt: skip
        columns: dict[str, pa.Array] = {
            "visitor": pa.array(np.array([visitor_of(name[:KEY_BYTES]) for name, _ in ordered]))
        }
        columns |= {name: pa.array(headers[:, place]) for name, place in _HEADER.items()}
        ours = headers[:, HEADER_DIGEST] == self._fold.field_digest
        for name, (dtype, offset) in self._places.items():
            values = [
                np.frombuffer(value, dtype, 1, STATE_BYTES + offset)[0] if fits else None
                for (_, value), fits in zip(ordered, ours, strict=True)
            ]
            columns[name] = pa.array(values, pa.from_numpy_dtype(np.dtype(dtype)))
        columns["record"] = pa.array(
            [None if fits else value[STATE_BYTES:] for (_, value), fits in zip(ordered, ours, strict=True)], pa.binary()
        )
        return pa.table(columns)

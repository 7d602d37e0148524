"""Sessions that are over, handed on exactly once: from the store, batch by batch, to a folder of Parquet files.

A batch has a name and keeps its content until it is settled. Its file has that name, is written beside and moved into
place, and only then the batch is settled: a worker that is killed at any point leaves a batch that another one claims
again, and writes to the same file. Two workers at one batch write the same.

One line a session: key of the visitor's record, start and end, events, consent, every field of the fold that folded it,
which `field_digest` names, and what experiments have assigned to it; of records whose fold is not known any more, the
record itself.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.compiler import Fold
from features.experiments import MOST_GOALS
from features.generate import layout_of
from features.sessions import (
    HEADER_CONSENT,
    HEADER_DIGEST,
    HEADER_EVENTS,
    HEADER_LAST_AT,
    HEADER_STARTED_AT,
    HEADER_WORDS,
)
from serving.experiments.assignments import ASSIGNMENT_BYTES, unpack
from serving.sessions import ASSIGNED, STATE_BYTES, assignments_of, visitor_of, word_of
from serving.stores import KEY_BYTES, Batch, Closed, Value
from serving.syncing import sync

_HEADER: Final = {
    "field_digest": HEADER_DIGEST,
    "started_at": HEADER_STARTED_AT,
    "ended_at": HEADER_LAST_AT,
    "events": HEADER_EVENTS,
    "consent": HEADER_CONSENT,
}
# As of `serving.experiments.assignments.Assignment`.
ASSIGNMENTS: Final = pa.list_(
    pa.struct(
        [
            ("experiment", pa.int64()),
            ("exposed_at", pa.int64()),
            *((name, pa.float32()) for name in ("propensity", "age_seconds", "bounce", "conversion", "exit")),
            *((name, pa.int32()) for name in ("age_events", "arm", "phase", "flags")),
            *((f"before_{number}", pa.float32()) for number in range(1, MOST_GOALS + 1)),
        ]
    )
)


class Sink(Protocol):
    """Where closed sessions go. `write` may be called again with the same batch, and must then do nothing new."""

    def write(self, batch: Batch) -> None:
        """Keep the batch; it is forgotten by the store afterwards."""


class ParquetSink:
    """A file a batch, in a folder a day (UTC, of the batch's first session).

    folds: that sessions may have been folded with, the newest first. A batch is one file whatever folds it has, so that
    a worker that knows other ones and writes it again replaces all of it. A field has one column; one that has another
    type than with a newer fold of the file has a column of its own, such as `value_sum@i4`.
    """

    def __init__(self, folder: Path, folds: Sequence[Fold], *, sync: bool = False) -> None:
        self._folder, self._sync = folder, sync
        self._places = {fold.field_digest: layout_of(fold.catalogue.fields.values()).places for fold in folds}
        self._ends = {fold.field_digest: STATE_BYTES + fold.record_bytes for fold in folds}

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
        assigned = [self._assigned(value) for _, value in ordered]
        headers[:, HEADER_CONSENT] &= ~ASSIGNED
        columns: dict[str, pa.Array] = {
            "visitor": pa.array(np.array([visitor_of(name[:KEY_BYTES]) for name, _ in ordered]))
        }
        columns |= {name: pa.array(headers[:, place]) for name, place in _HEADER.items()}
        digests = headers[:, HEADER_DIGEST].tolist()
        for name, (dtype, offsets) in self._columns(digests).items():
            values = [
                np.frombuffer(value, dtype, 1, STATE_BYTES + offsets[digest])[0] if digest in offsets else None
                for (_, value), digest in zip(ordered, digests, strict=True)
            ]
            columns[name] = pa.array(values, pa.from_numpy_dtype(np.dtype(dtype)))
        raw = [
            None if digest in self._places else value[STATE_BYTES:]
            for (_, value), digest in zip(ordered, digests, strict=True)
        ]
        columns["assignments"] = pa.array(assigned, ASSIGNMENTS)
        columns["record"] = pa.array(raw, pa.binary())
        return pa.table(columns)

    def _assigned(self, value: Value) -> list[dict[str, float]]:
        end = self._ends.get(word_of(value, HEADER_DIGEST))
        if end is None:
            return []
        packed = value[end : end + ASSIGNMENT_BYTES * assignments_of(value)]
        return [one._asdict() for one in unpack(bytes(packed))]

    def _columns(self, digests: Collection[int]) -> dict[str, tuple[str, dict[int, int]]]:
        """The fields of the folds of these digests: dtype, and by digest where it lies in the record."""
        columns: dict[str, tuple[str, dict[int, int]]] = {}
        there = [digest for digest in self._places if digest in digests] or list(self._places)[:1]
        for digest in there:
            for name, (dtype, offset) in self._places[digest].items():
                taken = name in columns and columns[name][0] != dtype
                columns.setdefault(f"{name}@{dtype}" if taken else name, (dtype, {}))[1][digest] = offset
        return columns

"""Sessions that are over, handed on exactly once: from the store, batch by batch, to a folder of Parquet files.

A batch has a name and keeps its content until it is settled. Its file has that name, is written beside and moved into
place, and only then the batch is settled: a worker that is killed at any point leaves a batch that another one claims
again, and writes to the same file. Two workers at one batch write the same.

One line a session: key of the visitor's record, start and end, events, consent, every field of the fold that folded it,
which `field_digest` names, and what experiments have assigned to it; of records whose fold is not known any more, the
record itself. As `row/<field>` the fields at a moment that was drawn at random from all that have a row
(`serving.drawn`): what `lotse train --source log` learns from.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
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
from serving.drawn import DRAWN, HEAD, HEAD_BYTES, Drawing
from serving.experiments.assignments import ASSIGNMENT_BYTES, unpack
from serving.sessions import ASSIGNED, STATE_BYTES, assignments_of, visitor_of, word_of
from serving.stores import KEY_BYTES, Batch, Closed, Value
from serving.syncing import sync

# Begins the names of the columns of the row that was drawn.
ROW: Final = "row/"
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

    def __init__(
        self,
        folder: Path,
        folds: Sequence[Fold],
        *,
        sync: bool = False,
        silences_ms: tuple[int, ...] = (),
        timeout_ms: int = 0,
    ) -> None:
        """silences_ms, timeout_ms: from which moments of silence rows are drawn, and the last of them."""
        self._folder, self._sync = folder, sync
        self._places = {fold.field_digest: layout_of(fold.catalogue.fields.values()).places for fold in folds}
        self._ends = {fold.field_digest: STATE_BYTES + fold.record_bytes for fold in folds}
        self._drawings = {fold.field_digest: Drawing.of(fold, silences_ms, timeout_ms) for fold in folds}

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
        values = [value for _, value in ordered]
        headers = np.array([np.frombuffer(value, np.int64, HEADER_WORDS, STATE_BYTES) for value in values])
        records: _Lines = {}
        rows: _Lines = {}
        for digest in self._places:
            own = np.flatnonzero(headers[:, HEADER_DIGEST] == digest)
            drawn = own[headers[own, HEADER_CONSENT] & DRAWN > 0]
            drawing = self._drawings[digest]
            records[digest] = own, _stacked([values[place][STATE_BYTES : self._ends[digest]] for place in own])
            rows[digest] = drawn, _stacked([drawing.last(values[place]) for place in drawn])
        assigned = [self._assigned(value) for value in values]
        headers[:, HEADER_CONSENT] &= ~(ASSIGNED | DRAWN)
        columns: dict[str, pa.Array] = {
            "visitor": pa.array(np.array([visitor_of(name[:KEY_BYTES]) for name, _ in ordered]))
        }
        columns |= {name: pa.array(headers[:, place]) for name, place in _HEADER.items()}
        digests = headers[:, HEADER_DIGEST].tolist()
        for name, (dtype, offsets) in self._columns(digests).items():
            columns[name] = _column(dtype, len(ordered), records, offsets)
            further = {digest: offset + HEAD_BYTES - 8 * HEADER_WORDS for digest, offset in offsets.items()}
            columns[f"{ROW}{name}"] = _column(dtype, len(ordered), rows, further)
        for place, name in enumerate(HEAD):
            columns[f"{ROW}{name}"] = _column("i8", len(ordered), rows, dict.fromkeys(rows, 8 * place))
        raw = [
            None if digest in self._places else value[STATE_BYTES:]
            for value, digest in zip(values, digests, strict=True)
        ]
        columns["assignments"] = pa.array(assigned, ASSIGNMENTS)
        columns["record"] = pa.array(raw, pa.binary())
        return pa.table(columns)

    def _assigned(self, value: Value) -> list[dict[str, float]]:
        digest = word_of(value, HEADER_DIGEST)
        end = self._ends.get(digest)
        if end is None:
            return []
        if word_of(value, HEADER_CONSENT) & DRAWN:
            end += self._drawings[digest].row_bytes
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


# By digest: the places of some sessions, int64 (k,), and bytes of each, uint8 (k, bytes).
_Lines = dict[int, tuple[np.ndarray, np.ndarray]]


def _stacked(lines: Sequence[Value]) -> np.ndarray:
    return np.frombuffer(b"".join(lines), np.uint8).reshape(len(lines), -1) if lines else np.zeros((0, 0), np.uint8)


def _column(dtype: str, size: int, lines: _Lines, offsets: Mapping[int, int]) -> pa.Array:
    """What lies at the offset of each digest's lines, for so many sessions; missing of those without."""
    values, missing = np.zeros(size, dtype), np.ones(size, bool)
    for digest, offset in offsets.items():
        places, of = lines[digest]
        if len(places):
            values[places] = np.ascontiguousarray(of[:, offset : offset + values.itemsize]).view(dtype)[:, 0]
            missing[places] = False
    return pa.array(values, mask=missing)

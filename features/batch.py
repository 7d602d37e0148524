"""Rows from a history: an events table in, one feature vector per event prefix and idle checkpoint out.

The loop over events is the compiled fold of `features.compiler`; here are only the grouping by visitor, the two passes
(`admit` says what each event does, then the fold runs) and the sharing of the work between threads. The columns
are read through the order of the visitors, a block at a time, and never copied. Missing values:
`features.events.check_events` fills missing columns with their defaults and refuses NaN.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import as_strided

from features.compiler import Fold, compile_fold
from features.events import COLUMNS, check_ranges, typed_events
from features.grouping import order_by_visitor, sessionise
from features.sessions import DEFAULT_TIMEOUT_SECONDS, FOLDED, STARTED
from features.tables import NOTHING_LEARNED, Tables, Windows

# Events gathered at a time: their columns stay in the second-level cache.
_BLOCK_EVENTS: Final = 4096
IDLE_SECONDS: Final = (5, 10, 30, 60, 300)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rows:
    """Feature vectors with the moments they describe. n rows, F features.

    Attributes
    ----------
    matrix: float32 (n, F), C order.
    names: the F features; digest: of the fold that made them.
    event: int64 (n,), position in `events` of the latest event of the prefix.
    prefix: int32 (n,), events of the session so far.
    idle_ms: int64 (n,), 0 right after an event, else the idle checkpoint.
    """

    matrix: np.ndarray
    names: tuple[str, ...]
    digest: str
    event: np.ndarray
    prefix: np.ndarray
    idle_ms: np.ndarray
    _table: pd.DataFrame
    _order: np.ndarray
    _statuses: np.ndarray

    @cached_property
    def events(self) -> pd.DataFrame:
        """The events that were folded in, sorted by visitor and time, with `session_index` int64 (0, 1, ...)."""
        session_index = np.cumsum(self._statuses == STARTED) - 1
        table = self._table.take(self._order).assign(session_index=session_index)
        folded = self._statuses >= FOLDED
        return (table if folded.all() else table[folded]).reset_index(drop=True)

    @cached_property
    def now(self) -> np.ndarray:
        """int64 (n,), the moment each row describes, ms UTC: the session's latest event time plus the idle time."""
        time = self.events["time"].to_numpy()
        return time[self.event] + self.idle_ms

    def __len__(self) -> int:
        return len(self.matrix)

    def frame(self) -> pd.DataFrame:
        """The matrix with named columns, shape (n, F)."""
        return pd.DataFrame(self.matrix, columns=list(self.names), copy=False)


def build_rows(
    events: pd.DataFrame,
    fold: Fold | None = None,
    *,
    idle_seconds: Sequence[float] = IDLE_SECONDS,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    threads: int | None = None,
    progress: Progress | None = None,
    out: np.ndarray | None = None,
    tables: Tables | Windows = NOTHING_LEARNED,
) -> Rows:
    """The feature vector after every event, and after every idle checkpoint the session was silent for.

    Parameters
    ----------
    events: table with columns of `features.events.COLUMNS`; `visitor`, `time` and `name` must be there. Any order;
        events of one visitor at the same time keep theirs.
    fold: compiled catalogue; the whole catalogue by default.
    idle_seconds: checkpoints without an event; those of the timeout and beyond give no row.
    threads: how many to use; all cores by default. The rows do not depend on it.
    progress: called with (events done, events in all) now and then.
    out: float32 (at least as many rows, F) to write the matrix into, for callers that make rows again and again: the
        first touch of a new matrix costs the machine more than what is written into it.

    Raises
    ------
    EventError
        The table breaks the contract of the event.
    ValueError
        `out` is too small or of another type.
    """
    fold = fold or compile_fold()
    table = typed_events(events)
    timeout_ms = round(timeout_seconds * 1000)
    checkpoints = np.unique(np.round(np.asarray(idle_seconds, np.float64) * 1000).astype(np.int64))
    checkpoints = checkpoints[(checkpoints > 0) & (checkpoints < timeout_ms)]
    threads = threads or os.cpu_count() or 1
    if isinstance(tables, Tables):
        tables = Windows(np.array([np.iinfo(np.int64).min]), [tables])
    words, window_starts, window_places = tables.pack(tuple(fold.catalogue.tables))

    columns = {name: table[name].to_numpy() for name in COLUMNS}
    read = ("visitor", "time", "consent", *(name for name in fold.columns if name != "time"))
    with ThreadPoolExecutor(threads) as pool:
        # beside the ordering and packing, because the checking is one thread's work
        checking = pool.submit(check_ranges, table)
        order = order_by_visitor(columns["visitor"], columns["time"], pool)
        packed = _pack({name: columns[name] for name in {*read, "session", "id"}}, pool)
        checking.result()
        identity = [packed.view(name) for name in ("visitor", "session", "id", "time")]
        statuses, silences = np.empty(len(order), np.uint8), np.empty(len(order), np.int32)
        parts = _parts(columns["visitor"], order, threads)
        counts = pool.map(
            lambda part: sessionise(*part, order, *identity, timeout_ms, checkpoints, statuses, silences), parts
        )
        ends = list(accumulate(counts, initial=0))
        matrix = _matrix(out, (ends[-1], len(fold.names)), fold.dtype)
        flat = matrix.reshape(-1)
        event, prefix = np.empty(ends[-1], np.int64), np.empty(ends[-1], np.int32)
        idle = np.zeros(ends[-1], np.int64)

        def fold_part(part: tuple[int, int], row: int) -> int:
            record, tables_at = fold.new_record(), np.zeros(1, np.int64)
            block = packed.block()
            blocks = [block.view(name) for name in read]
            for first in range(*part, _BLOCK_EVENTS):
                places = order[first : min(first + _BLOCK_EVENTS, part[1])].astype(np.intp)
                size = len(places)
                packed.rows.take(places, out=block.rows[:size], mode="clip")  # "raise" would copy the block
                row = fold.module.run(
                    first, size, statuses, silences, checkpoints, row, record, flat, event, prefix, idle,
                    words, tables_at, window_starts, window_places, *blocks,
                )  # fmt: skip
            return part[1] - part[0]

        done = 0
        for future in as_completed([pool.submit(fold_part, *work) for work in zip(parts, ends, strict=False)]):
            done += future.result()
            if progress:
                progress(done, len(table))
    return Rows(
        matrix=matrix,
        names=fold.names,
        digest=fold.digest,
        event=_without_dropped(event, statuses),
        prefix=prefix,
        idle_ms=idle,
        _table=table,
        _order=order,
        _statuses=statuses,
    )


def _matrix(out: np.ndarray | None, shape: tuple[int, int], dtype: str) -> np.ndarray:
    if out is None:
        return np.empty(shape, dtype)
    if out.dtype != np.float32 or not out.flags.c_contiguous or out.shape[1:] != shape[1:] or len(out) < shape[0]:
        raise ValueError(f"out is {out.dtype} {out.shape}; expected float32, C order, at least {shape}")
    return out[: shape[0]]


@dataclass(frozen=True)
class _Packed:
    """Columns side by side, a row an event: to gather an event then touches one or two lines of the cache, not one a
    column, which takes a third of the time on ten million events. Columns of a single value are held once.

    rows: structured (n,); single: arrays of shape (1,) by name.
    """

    rows: np.ndarray
    single: dict[str, np.ndarray]

    def view(self, name: str) -> np.ndarray:
        """A column, shape (n,): always with a stride of its own, so that compiled code sees one type."""
        if name in self.single:
            return as_strided(self.single[name], (len(self.rows),), (0,))
        return self.rows[name]

    def block(self) -> _Packed:
        """Room for the rows of a block."""
        return _Packed(np.empty(_BLOCK_EVENTS, self.rows.dtype), self.single)


def _pack(columns: dict[str, np.ndarray], pool: ThreadPoolExecutor) -> _Packed:
    single = {name: column[:1].copy() for name, column in columns.items() if not _varies(column)}
    varying = sorted(columns.keys() - single.keys(), key=lambda name: (-columns[name].itemsize, name))
    # a field more, so that a lone column has a stride, too
    rows = np.empty(len(columns["visitor"]), np.dtype([(name, columns[name].dtype) for name in varying] + [("", "i8")]))

    def pack(first: int) -> None:
        for start in range(first, min(first + _PART_EVENTS, len(rows)), _BLOCK_EVENTS):
            place = slice(start, min(start + _BLOCK_EVENTS, first + _PART_EVENTS))
            for name in varying:
                rows[name][place] = columns[name][place]

    list(pool.map(pack, range(0, len(rows), _PART_EVENTS)))
    return _Packed(rows, single)


def _varies(column: np.ndarray) -> bool:
    """Whether a column holds more than one value; most tell at once."""
    return len(column) > 0 and bool((column[:4096] != column[0]).any() or (column != column[0]).any())


# Small enough for a progress bar to move, large enough for the call to cost nothing.
_PART_EVENTS: Final = 250_000


def _parts(visitor: np.ndarray, order: np.ndarray, threads: int) -> list[tuple[int, int]]:
    """Slices of the order of about equal size that never cut through a visitor."""
    size = len(order)
    step = max(1, min(_PART_EVENTS, -(-size // threads)))
    borders = [0]
    while borders[-1] < size:
        border = min(borders[-1] + step, size)
        # on to the end of the visitor at the border
        while border < size and visitor[order[border]] == visitor[order[border - 1]]:
            border += 1
        borders.append(border)
    return list(pairwise(borders))


def _without_dropped(event: np.ndarray, statuses: np.ndarray) -> np.ndarray:
    """Positions among all sorted events -> positions among those that were folded in."""
    folded = statuses >= FOLDED
    if folded.all():
        return event
    return (np.cumsum(folded) - 1)[event]

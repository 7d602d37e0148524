"""Rows from a history: an events table in, one feature vector per event prefix and idle checkpoint out.

The loop over events is the compiled fold of `features.compiler`; here are only the grouping by visitor, the two passes
(`admit` says what each event does, then the fold runs) and the sharing of the work between threads. Missing values:
`features.events.check_events` fills missing columns with their defaults and refuses NaN.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd

from features.compiler import Fold, compile_fold
from features.events import COLUMNS, check_events
from features.grouping import order_by_visitor, sessionise
from features.sessions import DEFAULT_TIMEOUT_SECONDS, FOLDED

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
    _order: np.ndarray | None
    _statuses: np.ndarray
    _session_index: np.ndarray

    @cached_property
    def events(self) -> pd.DataFrame:
        """The events that were folded in, sorted by visitor and time, with `session_index` int64 (0, 1, ...)."""
        table = self._table if self._order is None else self._table.take(self._order)
        table = table.assign(session_index=self._session_index)
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

    Raises
    ------
    EventError
        The table breaks the contract of the event.
    """
    fold = fold or compile_fold()
    table = check_events(events)
    timeout_ms = round(timeout_seconds * 1000)
    checkpoints = np.unique(np.round(np.asarray(idle_seconds, np.float64) * 1000).astype(np.int64))
    checkpoints = checkpoints[(checkpoints > 0) & (checkpoints < timeout_ms)]
    threads = threads or os.cpu_count() or 1

    order = order_by_visitor(table["visitor"].to_numpy(), table["time"].to_numpy())
    with ThreadPoolExecutor(threads) as pool:
        wanted = list(dict.fromkeys(("visitor", "session", "id", "time", "consent", *fold.columns)))
        arrays = dict(zip(wanted, pool.map(lambda name: _sorted(table, name, order), wanted), strict=True))
        statuses, silences, session_index = sessionise(
            arrays["visitor"], arrays["session"], arrays["id"], arrays["time"], timeout_ms
        )
        per_event = np.where(statuses >= FOLDED, 1 + np.searchsorted(checkpoints, silences, "left"), 0)
        row_after = np.cumsum(per_event)
        count = int(row_after[-1]) if len(row_after) else 0
        matrix = np.empty((count, len(fold.names)), np.float32)
        event, prefix = np.empty(count, np.int64), np.empty(count, np.int32)
        idle = np.empty(count, np.int64)
        flat = matrix.reshape(-1)
        extra = [arrays[name] for name in fold.columns if name != "time"]

        def fold_part(part: tuple[int, int]) -> int:
            first, last = part
            first_row = int(row_after[first - 1]) if first else 0
            fold.module.run(
                first, last, statuses, silences, checkpoints, first_row,
                arrays["visitor"], arrays["time"], arrays["consent"], flat, event, prefix, idle, *extra,
            )  # fmt: skip
            return last - first

        done = 0
        for future in as_completed(pool.submit(fold_part, part) for part in _parts(arrays["visitor"], threads)):
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
        _session_index=session_index,
    )


def _sorted(table: pd.DataFrame, name: str, order: np.ndarray | None) -> np.ndarray:
    column = table[name].to_numpy()
    return np.ascontiguousarray(column if order is None else column[order], COLUMNS[name].dtype)


# Small enough for a progress bar to move, large enough for the call to cost nothing.
_PART_EVENTS: Final = 250_000


def _parts(visitor: np.ndarray, threads: int) -> list[tuple[int, int]]:
    """Slices of about equal size that never cut through a visitor."""
    size = len(visitor)
    if not size:
        return []
    step = max(1, min(_PART_EVENTS, -(-size // threads)))
    borders = [0]
    while borders[-1] < size:
        border = min(borders[-1] + step, size)
        # on to the end of the visitor at the border
        while border < size and visitor[border] == visitor[border - 1]:
            border += int(np.argmax(visitor[border : border + step] != visitor[border - 1])) or len(
                visitor[border : border + step]
            )
        borders.append(border)
    return list(pairwise(borders))


def _without_dropped(event: np.ndarray, statuses: np.ndarray) -> np.ndarray:
    """Positions among all sorted events -> positions among those that were folded in."""
    folded = statuses >= FOLDED
    if folded.all():
        return event
    return (np.cumsum(folded) - 1)[event]

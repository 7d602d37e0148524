"""The sessions that journeys are counted over: of a history, folded here, or as a service handed them on.

Both are the same fields of the same fold, at the session's end. A session whose end is not known, because the log ends
less than a timeout after its latest event, is left out and counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.declare import Catalogue
from features.definitions import CATALOGUE
from features.events import PAGE_KINDS
from features.sessions import DEFAULT_TIMEOUT_SECONDS
from features.steps import PATH_WORDS

# a service has no tables, and starts a second sooner without pandas
if TYPE_CHECKING:
    import pandas as pd

    from features.compiler import Fold

DWELL_KINDS: Final = tuple(kind for kind in PAGE_KINDS if kind not in ("none", "confirmation"))
PATH_FIELDS: Final = tuple(f"path_{word}" for word in range(PATH_WORDS))
FIELDS: Final = (
    "started_at",
    "last_at",
    "path_steps",
    "last_step",
    "steps_seen_bits",
    *PATH_FIELDS,
    "device_kind",
    "entry_channel",
    "last_campaign",
    "visitor_visits",
    "previous_visit_at",
    "events",
    "item_views",
    "searches",
    "cart_adds",
    "purchases",
    *(f"{kind}_dwell_seconds_ms" for kind in DWELL_KINDS),
)
_FOREVER_MS: Final = 2**62
_EVENTS_AT_ONCE: Final = 500_000


@dataclass(frozen=True)
class Sessions:
    """n sessions, those of a visitor beside each other.

    Attributes
    ----------
    columns: FIELDS, `visitor` (pseudonym) and `consent` (bit set) by name: int64 (n,), times and dwell in ms.
    open: sessions left out because they may go on after the end of the log.
    pathless: sessions left out because a release without paths folded them.
    """

    columns: dict[str, np.ndarray]
    open: int = 0
    pathless: int = 0

    def __len__(self) -> int:
        return len(self.columns["visitor"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def where(self, chosen: np.ndarray) -> Sessions:
        """Some of them; chosen: bool (n,)."""
        return Sessions({name: column[chosen] for name, column in self.columns.items()}, self.open, self.pathless)


@cache
def kept_fold() -> Fold:
    """A fold whose features are FIELDS as they are kept, as int64: the catalogue's own fields, compiled as ever."""
    from features.compiler import compile_fold  # noqa: PLC0415  (numba comes with it, and closed sessions are folded)

    whole = Catalogue(dict(CATALOGUE.fields))
    for name in FIELDS:
        whole.expose(name)
    return compile_fold(whole.select(FIELDS), dtype="i8")


def of_events(events: pd.DataFrame, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> Sessions:
    """The sessions of an events table (`features.events.COLUMNS`) that holds all events of its visitors."""
    from features.batch import build_rows  # noqa: PLC0415

    fold = kept_fold()
    rows = build_rows(events, fold, idle_seconds=(), timeout_seconds=timeout_seconds)
    at_end = np.flatnonzero(np.append(rows.prefix[1:] == 1, True)[: len(rows)])
    last = rows.matrix[at_end]
    columns = {name: last[:, place].copy() for place, name in enumerate(fold.names)}
    of = rows.event[at_end]
    for name in ("visitor", "consent"):
        columns[name] = rows.events[name].to_numpy()[of].astype(np.int64)
    return Sessions(columns)


def of_history(
    chunks: Iterable[pd.DataFrame],
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    *,
    keep_open: bool = False,
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> Sessions:
    """The sessions of a history of any size: split by visitor into files, then folded some at a time.

    chunks: tables of canonical events, in any order. keep_open: take sessions, too, that the log may cut off.
    """
    from features.partition import DEFAULT_BUCKETS, gather, groups_of, spill  # noqa: PLC0415

    parts, counts, latest = [], np.zeros(DEFAULT_BUCKETS, np.int64), 0
    with tempfile.TemporaryDirectory(prefix="lotse-journeys-") as folder:
        for number, chunk in enumerate(chunks):
            counts += spill(chunk, Path(folder), number, DEFAULT_BUCKETS)
            latest = max(latest, int(chunk["time"].max())) if len(chunk) else latest
        done = 0
        for group in groups_of(counts, _EVENTS_AT_ONCE):
            parts.append(of_events(gather(Path(folder), group), timeout_seconds))
            done += int(counts[group].sum())
            progress(done, int(counts.sum()))
    whole = _joined(parts)
    goes_on = whole["last_at"] + round(timeout_seconds * 1000) >= latest
    if keep_open or not goes_on.any():
        return whole
    return Sessions(whole.where(~goes_on).columns, open=int(goes_on.sum()))


def of_closed(folder: Path | str, since_ms: int = 0, until_ms: int = _FOREVER_MS) -> Sessions:
    """The sessions that a service handed on, those that began in [since_ms, until_ms).

    What a visitor withdrew is 0, as of a first visit without consent to link.
    """
    parts, pathless = [], 0
    for path in sorted(Path(folder).glob("day=*/*.parquet")):
        try:
            file = pq.ParquetFile(path)
        except FileNotFoundError:
            continue  # erased meanwhile
        if not _may_hold(file, since_ms, until_ms):
            continue
        kept = set(FIELDS) <= set(file.schema_arrow.names)
        table = file.read(["visitor", "consent", *FIELDS] if kept else ["started_at"])
        began = table["started_at"].fill_null(0).to_numpy()
        within = (began >= since_ms) & (began < until_ms)
        # records of a fold without paths may be in a file with others
        known = table["path_steps"].is_valid().to_numpy() if kept else np.zeros(len(began), bool)
        pathless += int((within & ~known).sum())
        if kept:
            chosen = table.filter(pa.array(within & known))
            columns = {name: chosen[name].cast(pa.int64()).fill_null(0).to_numpy() for name in chosen.column_names}
            parts.append(Sessions(columns))
    return Sessions(_joined(parts).columns, pathless=pathless)


def _may_hold(file: pq.ParquetFile, since_ms: int, until_ms: int) -> bool:
    """Whether a file may hold sessions that began in [since_ms, until_ms), by what it says of itself."""
    place = file.schema.names.index("started_at")
    for group in range(file.metadata.num_row_groups):
        told = file.metadata.row_group(group).column(place).statistics
        if told is None or not told.has_min_max or (told.max >= since_ms and told.min < until_ms):
            return True
    return False


def _joined(parts: Sequence[Sessions]) -> Sessions:
    """All of them, by visitor and then in time."""
    names = ("visitor", "consent", *FIELDS)
    whole = {name: np.concatenate([part[name] for part in parts]) if parts else np.zeros(0, np.int64) for name in names}
    order = np.lexsort((whole["started_at"], whole["visitor"]))
    return Sessions({name: column[order] for name, column in whole.items()})

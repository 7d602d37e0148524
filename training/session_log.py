"""Training from what a service has handed on: sessions that are over, each with one drawn row (`serving.drawn`).

In: the folder of Parquet files. Out: a table with a line a session, which stands wherever a table of events does
(`training.pipeline`): `visitor`, `time` (its start) and `weight`, what it has in the end, and as `row/<field>` the
record at the drawn moment. Features are read from it by the fold, with the learned tables of its time, as live.

A row stands for all of its session's rows: it counts 1 / (the probability of being drawn), times the session's weight
(`training.guard`). Rows are repeated accordingly, which is the same as weights for everything that is fitted or
measured, and errors are counted over visitors anyway. Learned tables count each session once, with what its drawn
moment shows. Missing: what a withdrawal has removed is as at a session's beginning, and features that need consent to
link are missing (NaN) without it, as live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.special import digamma

from features.compiler import Fold, compile_fold
from features.declare import Catalogue
from features.definitions import CATALOGUE
from features.events import CONSENT_LINK
from features.generate import layout_of
from features.partition import mixed
from features.sessions import HEADER_CONSENT, HEADER_EVENTS, HEADER_LAST_AT, HEADER_WORDS
from features.settings import SettingsError
from features.tables import NOTHING_LEARNED, Windows
from training.config import SessionLogSettings, TrainingSettings
from training.guard import weights_of
from training.heads import COUNTED_BY
from training.labels import DAY_MS, Moments, SessionOutcomes, SoFarAndWhole

SOURCE: Final = "log"
ROW: Final = "row/"
_HEADER: Final = {"events": HEADER_EVENTS, "last_at": HEADER_LAST_AT, "consent": HEADER_CONSENT}
_ENDS: Final = ("visitor", "started_at", "ended_at", "events", "consent", "field_digest")
_TOLD: Final = tuple(dict.fromkeys((*COUNTED_BY.values(), "interactive_events", "revenue")))
_HEAD: Final = ("of", "number", "last_at", "events", "consent", "idle_ms", "until")
# Rows in all, for each event that may be drawn of a log of events: as many as that gives.
_ROWS_AN_EVENT: Final = 3


def read_session_log(location: Path | str | None, settings: SessionLogSettings) -> pd.DataFrame:
    """The sessions that can be learned from, sorted by visitor and start.

    Left out are those without a row (`log.rows` was 0), of fields that this release does not have, and those that
    the guard leaves out; `attrs["left_out"]` tells how many, by reason.

    Raises
    ------
    SettingsError
        There is no session in the folder.
    """
    folder = Path(location or settings.folder)
    files = sorted(folder.glob("day=*/*.parquet"))
    fields = list(CATALOGUE.fields)
    wanted = [*_ENDS, *_TOLD, *(f"{ROW}{name}" for name in (*_HEAD, *fields))]
    left_out = {"without a row": 0, "of another release's fields": 0, "treated": 0}
    digest, parts = compile_fold().field_digest, []
    for path in files:
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        if not names.issuperset(wanted):
            reason = "of another release's fields" if f"{ROW}of" in names else "without a row"
            left_out[reason] += file.metadata.num_rows
            continue
        table = file.read([*dict.fromkeys(wanted), "assignments"])
        drawn = pc.is_valid(table.column(f"{ROW}of"))
        own = pc.equal(table.column("field_digest"), pa.scalar(digest, pa.int64()))
        left_out["without a row"] += len(table) - int(pc.sum(drawn).as_py() or 0)
        left_out["of another release's fields"] += int(pc.sum(pc.and_not(drawn, own)).as_py() or 0)
        table = table.filter(pc.and_(drawn, own))
        weight = weights_of(table.column("assignments"), settings.guard, settings.most_weight, settings.alike)
        left_out["treated"] += int((weight == 0).sum())
        table = table.drop_columns(["assignments"]).append_column("weight", pa.array(weight)).filter(weight > 0)
        # what a withdrawal removed is zero; whole numbers of 64 bits must not go through floats
        columns = {name: _filled(table.column(name)) for name in table.column_names}
        columns |= {"time": columns["started_at"], "session_index": np.zeros(len(table), np.int64)}
        parts.append(pd.DataFrame(columns, copy=False))
    if not any(map(len, parts)):
        told = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count) or "no session at all"
        raise SettingsError(f"{folder} holds no session to learn from ({told}); is [log] rows = 1 in serving.toml?")
    found = pd.concat(parts, ignore_index=True)
    found = found.sort_values(["visitor", "time"], kind="stable", ignore_index=True)
    found["session_index"] = np.arange(len(found))
    found.attrs["left_out"] = left_out
    return found


def is_session_log(table: pd.DataFrame) -> bool:
    """Whether this is such a table, and not one of events."""
    return f"{ROW}of" in table.columns


@dataclass(frozen=True)
class LoggedRows:
    """As `features.batch.Rows`, of drawn rows; event: int64 (n,), the line of `events`, of which each is a session."""

    matrix: np.ndarray
    names: tuple[str, ...]
    digest: str
    event: np.ndarray
    events: pd.DataFrame

    @cached_property
    def prefix(self) -> np.ndarray:
        """int32 (n,), events of the session so far."""
        return self._of("events").astype(np.int32)

    @cached_property
    def idle_ms(self) -> np.ndarray:
        """int64 (n,), 0 right after an event, else the silence."""
        return self._of("idle_ms")

    @cached_property
    def now(self) -> np.ndarray:
        """int64 (n,), the moment each row describes, ms UTC."""
        return self._of("last_at") + self.idle_ms

    def _of(self, name: str) -> np.ndarray:
        return self.events[f"{ROW}{name}"].to_numpy()[self.event]

    def __len__(self) -> int:
        return len(self.event)


def logged_rows(table: pd.DataFrame, windows: Windows, settings: TrainingSettings) -> LoggedRows:
    """The features of each session's row, read with what was learned before it began, as often as it counts."""
    fold = compile_fold()
    # by the silences of training's configuration alone, as from events
    allowed = np.isin(
        table[f"{ROW}idle_ms"].to_numpy(), [0, *(round(1000 * one) for one in settings.rows.idle_seconds)]
    )
    table = table[allowed].reset_index(drop=True)
    table["session_index"] = np.arange(len(table))
    repeats = _repeats(table, _ROWS_AN_EVENT * settings.rows.max_events)
    event = np.repeat(np.arange(len(table)), repeats)
    return LoggedRows(_read(table, fold, windows)[event], fold.names, fold.digest, event, table)


def logged_keys(table: pd.DataFrame, catalogue: Catalogue) -> LoggedRows:
    """The keys of the learned tables that each session's drawn moment shows, int64, a row a session."""
    fold = compile_fold(catalogue.keys(), dtype="i8")
    nothing = Windows(np.zeros(0, np.int64), [])
    table = table.reset_index(drop=True).assign(session_index=np.arange(len(table)))
    return LoggedRows(_read(table, fold, nothing), fold.names, fold.digest, np.arange(len(table)), table)


def _read(table: pd.DataFrame, fold: Fold, windows: Windows) -> np.ndarray:
    """What a fold reads of the drawn records: (n, features)."""
    records = np.tile(fold.new_record(), (len(table), 1))
    header = records[:, : 8 * HEADER_WORDS].view(np.int64)
    for name, word in _HEADER.items():
        header[:, word] = table[f"{ROW}{name}"].to_numpy()
    for name, (dtype, offset) in layout_of(fold.catalogue.fields.values()).places.items():
        values = np.ascontiguousarray(table[f"{ROW}{name}"].to_numpy(), dtype)
        records[:, offset : offset + values.itemsize] = values.view(np.uint8).reshape(len(table), -1)
    names = tuple(fold.catalogue.tables)
    packed = [one.pack(names) for one in (NOTHING_LEARNED, *windows.tables)]
    window = np.searchsorted(windows.starts, table["time"].to_numpy(), "right")
    now = (table[f"{ROW}last_at"] + table[f"{ROW}idle_ms"]).to_numpy()
    out = np.empty((len(table), len(fold.names)), fold.dtype)
    read = fold.read
    for record, moment, line, which in zip(records, now.tolist(), out, window.tolist(), strict=True):
        read(record, moment, line, packed[which])
    return out


def _repeats(table: pd.DataFrame, most: int) -> np.ndarray:
    """How often each row stands in the matrix, int64 (n,): its weight, in a unit that leaves at most about `most` rows.

    Parts of a whole are rounded up or down by a hash of the session, with the probability that keeps the mean.
    """
    number, of = table[f"{ROW}number"].to_numpy(), table[f"{ROW}of"].to_numpy()
    # the n-th of N rows is drawn with probability 1 / (n (1 + 1/2 + ... + 1/N))
    weight = table["weight"].to_numpy() * number * (digamma(of + 1) - digamma(1))
    unit = max(1.0, weight.sum() / most)
    part = mixed(table["visitor"].to_numpy() ^ table["time"].to_numpy()) >> np.uint64(11)
    return np.floor(weight / unit + part.astype(np.float64) / 2**53).astype(np.int64)


def _filled(column: Any) -> np.ndarray:
    filled: np.ndarray = pc.fill_null(column, 0).to_numpy()
    return filled


@dataclass(frozen=True)
class LoggedOutcomes(SessionOutcomes):
    """What became of logged sessions after their drawn moment. n sessions, of which each has one."""

    @property
    def every_row(self) -> bool:
        """One is all there is."""
        return False

    @cached_property
    def session(self) -> np.ndarray:
        """int64 (n,), index of the session."""
        return self._of("session_index")

    @cached_property
    def started(self) -> np.ndarray:
        """int64 (n,), ms UTC of the session's first event."""
        return self._of("started_at")

    @cached_property
    def ended(self) -> np.ndarray:
        """int64 (n,), ms UTC of the session's last event."""
        return self._of("ended_at")

    @property
    def spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First and last event, ms UTC, and visitor of each session: int64 (sessions,)."""
        return self.started, self.ended, self._of("visitor")

    @cached_property
    def end_ms(self) -> int:
        """A session is handed on when it is over, a timeout after its last event."""
        return int(self.ended.max()) + self.timeout_ms

    @cached_property
    def last(self) -> np.ndarray:
        """bool (n,): no event of the session follows."""
        return self._of("row/events") == self._of("events")

    def counts(self, event: str) -> SoFarAndWhole:
        """How often `event` happened.

        Raises
        ------
        SettingsError
            No field counts it.
        """
        if event not in COUNTED_BY:
            raise SettingsError(
                f"the log of sessions does not tell whether {event!r} happened; it does of: {', '.join(COUNTED_BY)}"
            )
        return self._both(COUNTED_BY[event])

    @cached_property
    def interactive(self) -> SoFarAndWhole:
        """How many events the visitor caused."""
        return self._both("interactive_events")

    @cached_property
    def elapsed_ms(self) -> SoFarAndWhole:
        """Time from the first to the latest event."""
        return self._of("row/last_at") - self.started, self.ended - self.started

    @cached_property
    def revenue(self) -> SoFarAndWhole:
        """What purchases brought, in the shop's currency."""
        return self._both("revenue")

    @cached_property
    def linked(self) -> np.ndarray:
        """bool (n,): the visitor's visits may be linked."""
        return self._of("row/consent") & CONSENT_LINK > 0

    def returns(self, days: float) -> np.ndarray:
        """bool (n,): the visitor's next session begins within `days` after this one's last event."""
        visitor = self._of("visitor")
        following = np.minimum(np.arange(len(visitor)) + 1, len(visitor) - 1)
        another = (visitor[following] == visitor) & (following > np.arange(len(visitor)))
        return another & (self.started[following] - self.ended <= days * DAY_MS)

    def until(self, rows: Moments) -> np.ndarray:
        """When each row stops being its session's latest: int64 (rows,), ms UTC."""
        return self._of("row/until")[rows.event]

    def _both(self, field: str) -> SoFarAndWhole:
        return self._of(f"{ROW}{field}"), self._of(field)

    def _of(self, column: str) -> np.ndarray:
        return self.events[column].to_numpy()


def told(table: pd.DataFrame) -> Sequence[str]:
    """What was left out, in words."""
    return [f"{count:,} {reason}" for reason, count in table.attrs.get("left_out", {}).items() if count]

"""What is in a log, before anything is trained from it: tables of canonical events in, one `Inspection` out.

Of each event 52 bytes are kept (who, when, which session, id and name, four small codes, its value, a hash of the whole
row), so every count is of the whole log and exact. At the peak, when sessions are labelled and cut into slices, that is
about 380 bytes an event: a fraction of what training on the same log takes. A share of nothing is 0; there are no
missing values but the times of an empty log, which are None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pandas as pd

from features.batch import Rows, build_rows
from features.compiler import compile_fold
from features.definitions import CATALOGUE
from features.events import CONSENT_LINK, DEVICES, EVENT_NAMES
from features.grouping import order_by_visitor, sessionise
from features.sessions import DUPLICATE, LATE
from features.sources import Notes
from training.config import TrainingSettings
from training.datasets import assign_sessions, shortages, slices_of, split_border
from training.heads import heads_of
from training.labels import Outcomes
from training.tables import window_starts

BOT_LIKENESS: Final = 0.8
_DAY_MS: Final = 86_400_000
_BOT: Final = DEVICES.index("bot")
_KEPT: Final = ("visitor", "session", "id", "time", "name", "device", "interactive", "consent", "value")


@dataclass(frozen=True)
class Inspection:
    """What was found in a log.

    Attributes
    ----------
    rows: of the log, looked at; events: made of them.
    skipped: reason -> rows left out; unmapped: the log's own name -> rows that became `custom` events or "unknown".
    names: name -> events, most frequent first.
    first, last: time of the first and of the last event, ISO 8601 in UTC; days: between them.
    session_median, session_p99, session_most: events a session.
    single_share: sessions of one event; bounce_rate, conversion_rate: sessions that bounce, that reach the `goal`;
        open_sessions: those the log may cut off, because it ends less than a timeout after them. All of all sessions.
    linked_share: events with consent to link visits.
    same_ms_share, same_second_share: of a visitor's neighbouring events.
    steps_back: rows earlier than the row before; largest_step_back_ms: by how much at most.
    repeated_ids: events dropped as repeated deliveries; identical_rows: rows equal to an earlier one in every column.
    late_events: those a service would drop if they reached it in the log's order; training, which sorts, drops none.
    declared_bots: sessions with the device bot; likely_bots: others whose `bot_likeness` is at least 0.8 at their end.
    future_share: events later than now.
    missing: configured head -> what is missing to train it; nothing where there is enough.
    """

    rows: int
    events: int
    skipped: dict[str, int]
    unmapped: dict[str, int]
    names: dict[str, int]
    first: str | None
    last: str | None
    days: float
    visitors: int
    sessions: int
    session_median: float
    session_p99: float
    session_most: int
    single_share: float
    bounce_rate: float
    goal: str
    conversion_rate: float
    open_sessions: int
    linked_share: float
    same_ms_share: float
    same_second_share: float
    steps_back: int
    largest_step_back_ms: int
    repeated_ids: int
    identical_rows: int
    late_events: int
    declared_bots: int
    likely_bots: int
    future_share: float
    missing: dict[str, list[str]]

    @property
    def enough(self) -> bool:
        """Whether at least one head can be trained."""
        return any(not reasons for reasons in self.missing.values())


@dataclass
class _Backwards:
    """Steps back in time from row to row, over the borders of the chunks."""

    latest: int | None = None
    steps: int = 0
    largest_ms: int = 0

    def add(self, time: np.ndarray) -> None:
        if not len(time):
            return
        back = -np.diff(time, prepend=time[0] if self.latest is None else self.latest)
        self.steps += int((back > 0).sum())
        self.largest_ms = max(self.largest_ms, int(back.max()))
        self.latest = int(time[-1])


def inspect(chunks: Iterable[pd.DataFrame], notes: Notes, settings: TrainingSettings, now_ms: int) -> Inspection:
    """Look at every event of a log. notes: of the reading that gives the chunks; read when they have ended.

    Raises
    ------
    EventError
        A row breaks the contract of the event.
    """
    backwards = _Backwards()
    events = _kept(chunks, backwards)
    time = events["time"].to_numpy()
    timeout_seconds = settings.rows.timeout_minutes * 60
    timeout_ms = round(timeout_seconds * 1000)
    order = order_by_visitor(events["visitor"].to_numpy(), time)
    same_visitor, same_ms, same_second = _neighbours(events, order)
    identical = _identical(events.pop("content").to_numpy(), order, same_ms)
    repeated = int((_statuses(events, order, timeout_ms) == DUPLICATE).sum())
    order = order_by_visitor(events["visitor"].to_numpy(), np.arange(len(events)))
    late = int((_statuses(events, order, timeout_ms) == LATE).sum())
    del order

    fold = compile_fold(CATALOGUE.select(["bot_likeness"]))
    rows = build_rows(events, fold, idle_seconds=(), timeout_seconds=timeout_seconds)
    at_end = np.flatnonzero(np.append(rows.prefix[1:] == 1, True)[: len(rows)])
    lengths = rows.prefix[at_end]
    likely = rows.matrix[at_end, fold.names.index("bot_likeness")] >= BOT_LIKENESS
    rows = replace(rows, matrix=np.empty((len(rows), 0), np.float32))  # the largest part, no longer needed
    declared = np.zeros(len(at_end), bool)
    declared[rows.events["session_index"].to_numpy()[rows.events["device"] == _BOT]] = True

    outcome = Outcomes(rows.events, settings.labels, timeout_ms)
    bounced, converted = outcome.bounced[at_end], outcome.reached(settings.labels.goal)[at_end]
    named = np.bincount(events["name"], minlength=len(EVENT_NAMES))
    names = Counter({name: int(count) for name, count in zip(EVENT_NAMES, named, strict=True) if count})
    return Inspection(
        rows=notes.rows,
        events=len(events),
        skipped=dict(notes.skipped.most_common()),
        unmapped=dict(notes.unmapped.most_common()),
        names=dict(names.most_common()),
        first=_iso(int(time.min())) if len(time) else None,
        last=_iso(int(time.max())) if len(time) else None,
        days=float(np.ptp(time)) / _DAY_MS if len(time) else 0.0,
        visitors=events["visitor"].nunique(),
        sessions=len(at_end),
        session_median=float(np.median(lengths)) if len(lengths) else 0.0,
        session_p99=float(np.quantile(lengths, 0.99)) if len(lengths) else 0.0,
        session_most=int(lengths.max(initial=0)),
        single_share=_share(lengths == 1),
        bounce_rate=_share(bounced),
        goal=settings.labels.goal,
        conversion_rate=_share(converted),
        open_sessions=int(outcome.censored(timeout_ms)[at_end].sum()),
        linked_share=_share(events["consent"].to_numpy() & CONSENT_LINK > 0),
        same_ms_share=_share(same_ms[same_visitor]),
        same_second_share=_share(same_second[same_visitor]),
        steps_back=backwards.steps,
        largest_step_back_ms=backwards.largest_ms,
        repeated_ids=repeated,
        identical_rows=identical,
        late_events=late,
        declared_bots=int(declared.sum()),
        likely_bots=int((likely & ~declared).sum()),
        future_share=_share(time > now_ms),
        missing=_missing(rows, outcome, settings),
    )


def _kept(chunks: Iterable[pd.DataFrame], backwards: _Backwards) -> pd.DataFrame:
    """The columns that sessions need, and of every row a hash of all of it (`content`); the log's own order."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*_KEPT, "content")}
    for chunk in chunks:
        for name in _KEPT:
            # a copy, so that the chunk's other columns go
            parts[name].append(chunk[name].to_numpy(copy=True))
        parts["content"].append(pd.util.hash_pandas_object(chunk, index=False).to_numpy())
        backwards.add(chunk["time"].to_numpy())
    columns = {name: np.concatenate(parts.pop(name) or [np.zeros(0, np.int64)]) for name in list(parts)}
    return pd.DataFrame(columns, copy=False)


def _neighbours(events: pd.DataFrame, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each event and the next in order, bool (n - 1,): of one visitor; at the same ms; in the same second."""
    visitor, time = events["visitor"].to_numpy()[order], events["time"].to_numpy()[order]
    same = visitor[1:] == visitor[:-1]
    return same, same & (time[1:] == time[:-1]), same & (time[1:] // 1000 == time[:-1] // 1000)


def _identical(content: np.ndarray, order: np.ndarray, same_ms: np.ndarray) -> int:
    """Rows equal to an earlier one: only those that share visitor and time can be, so that hashes hardly collide."""
    tied = np.zeros(len(order), bool)
    tied[1:] |= same_ms
    tied[:-1] |= same_ms
    hashes = content[order[tied]]
    return len(hashes) - len(np.unique(hashes))


def _statuses(events: pd.DataFrame, order: np.ndarray, timeout_ms: int) -> np.ndarray:
    """What becomes of each event if they come in `order`: u1 (n,), codes of `features.sessions`."""
    statuses, silences = np.empty(len(order), np.uint8), np.empty(len(order), np.int32)
    identity = [events[name].to_numpy() for name in ("visitor", "session", "id", "time")]
    sessionise(0, len(order), order, *identity, timeout_ms, np.zeros(0, np.int64), statuses, silences)
    return statuses


def _missing(rows: Rows, outcome: Outcomes, settings: TrainingSettings) -> dict[str, list[str]]:
    """What `lotse train` would refuse each configured head for."""
    events, heads = rows.events, heads_of(settings)
    border = split_border(events, settings.split)
    first = float(window_starts(outcome.starts, int(border), settings.tables.windows)[0]) if len(events) else border
    assigned = assign_sessions(events, settings.split, settings.timeout_ms, border, from_ms=first)
    found = {}
    for name in settings.heads.train:
        slices = slices_of(rows, outcome, assigned, heads[name], border)
        found[name] = list(shortages(heads[name], slices, events, settings.split))
    return found


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if len(which) else 0.0


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

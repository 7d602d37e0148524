"""A slow, obvious reference: what the compiled fold, the live steps and the batch must all equal.

It keeps the session as a dict, calls the declared Python functions one by one, and states the session rules in its own
words. Nothing here is shared with the compiler.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features.declare import Catalogue
from features.events import CONSENT_LINK, Event
from features.tables import NOTHING_LEARNED, Tables


@dataclass
class Session:
    """A visitor's record: current session and, with consent, what is left of earlier ones."""

    catalogue: Catalogue
    tables: Tables = NOTHING_LEARNED
    values: dict[str, float] = field(default_factory=dict)
    events: int = 0
    session: int = 0
    started_at: int = 0
    last_at: int = 0
    consent: int = 0
    ids: list[int] = field(default_factory=list)

    def fold(self, event: Event, timeout_ms: int) -> str:
        """Take one event; returns what was done with it."""
        if event.id and event.id in self.ids[-7:]:
            return "duplicate"
        another = bool(event.session and self.session and event.session != self.session)
        if self.events and event.time < self.started_at - timeout_ms:
            return "late"
        if self.events and another and event.time < self.started_at:
            return "late"
        silent_too_long = event.time - self.last_at > timeout_ms
        starts = not self.events or another or silent_too_long
        if starts:
            linked = self.consent & event.consent & CONSENT_LINK
            for name, entry in self.catalogue.fields.items():
                if entry.scope == "session" or not linked:
                    self.values[name] = entry.initial
            self.events, self.session = 0, 0
            self.started_at = self.last_at = event.time
        if event.id:
            self.ids.append(event.id)
        self.session = event.session or self.session
        self.last_at = max(self.last_at, event.time)
        self.consent = event.consent
        self._update(event._replace(time=self.last_at))
        self.events += 1
        return "started" if starts else "folded"

    def _update(self, event: Event) -> None:
        """Every field from the values before."""
        inputs = {**event._asdict(), **self.values}
        self.values = {
            name: stored(entry.dtype, entry.body(**{p: inputs[source] for p, source in entry.inputs.items()}))
            for name, entry in self.catalogue.fields.items()
        }

    def read(self, now: int) -> dict[str, np.float32]:
        """Every feature as of now."""
        known: dict[str, Any] = {**self.values, "now": max(now, self.last_at)}
        for name in self.catalogue.feature_order():
            feature = self.catalogue.features[name]
            if feature.body is not None:
                value = feature.body(**{p: known[source] for p, source in feature.inputs.items()})
                known[name] = self.tables.get(feature.table, value) if feature.table else value
        return {
            name: np.float32(math.nan if feature.consent and not self.consent & feature.consent else known[name])
            for name, feature in self.catalogue.features.items()
        }


def stored(dtype: str, value: float) -> float:
    """The value as a record of this dtype gives it back."""
    return np.dtype(dtype).type(value).item()  # type: ignore[no-any-return]


def rows(
    events: Sequence[Event],
    catalogue: Catalogue,
    idle_seconds: Sequence[float] = (),
    timeout_seconds: float = 1800,
    tables: Tables = NOTHING_LEARNED,
) -> list[tuple[int, int, int, dict[str, np.float32]]]:
    """(position in the sorted events, prefix, idle ms, features) of every row, by visitor."""
    timeout_ms = round(timeout_seconds * 1000)
    by_visitor: dict[int, list[Event]] = {}
    for event in sorted(events, key=lambda e: e.time):
        by_visitor.setdefault(event.visitor, []).append(event)
    found = []
    position = 0
    for own in by_visitor.values():
        session = Session(catalogue, tables)
        open_row: list[tuple[int, int, int, dict[str, np.float32]]] = []
        for event in own:
            before = session.last_at
            checkpoints = [
                (position - 1, session.events, round(idle * 1000), session.read(before + round(idle * 1000)))
                for idle in idle_seconds
                if session.events
            ]
            status = session.fold(event, timeout_ms)
            if status in ("duplicate", "late"):
                continue
            silence = timeout_ms if status == "started" else session.last_at - before
            found += [row for row in checkpoints if row[2] < silence]
            found.append((position, session.events, 0, session.read(session.last_at)))
            position += 1
        for idle in idle_seconds:
            if round(idle * 1000) < timeout_ms:
                at = session.last_at + round(idle * 1000)
                open_row.append((position - 1, session.events, round(idle * 1000), session.read(at)))
        found += open_row
    return found

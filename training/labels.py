"""What became of sessions: the outcomes that heads ask for, defined once, whatever they are told from.

A session is looked at in some moments, and what it has of a thing by then is held to what it has in the end. Both come
from the sorted events of `features.batch.Rows` (`Outcomes`) or from sessions that a service has handed on
(`training.session_log`). Every array is per moment; of events each is one, because silence adds no outcome.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pandas as pd

from features.events import CONSENT_LINK, EVENT_NAMES, PURCHASE
from training.config import LabelSettings

DAY_MS = 86_400_000

# What a session has by each moment, and what it has in the end; both (n,).
SoFarAndWhole = tuple[np.ndarray, np.ndarray]


class Moments(Protocol):
    """Rows with the moments that they describe, as of `features.batch.Rows`; n rows."""

    @property
    def matrix(self) -> np.ndarray: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def event(self) -> np.ndarray: ...
    @property
    def prefix(self) -> np.ndarray: ...
    @property
    def idle_ms(self) -> np.ndarray: ...
    @property
    def now(self) -> np.ndarray: ...
    @property
    def events(self) -> pd.DataFrame: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class SessionOutcomes(ABC):
    """The definitions. n moments.

    A session bounces with at most one interactive event, under `bounce_seconds` from its first to its latest event,
    and no goal.
    """

    events: pd.DataFrame
    settings: LabelSettings
    timeout_ms: int

    @property
    @abstractmethod
    def session(self) -> np.ndarray:
        """int64 (n,), index of the session."""

    @property
    @abstractmethod
    def started(self) -> np.ndarray:
        """int64 (n,), ms UTC of the session's first event."""

    @property
    @abstractmethod
    def ended(self) -> np.ndarray:
        """int64 (n,), ms UTC of the session's last event."""

    @property
    @abstractmethod
    def spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First and last event, ms UTC, and visitor of each session: int64 (sessions,)."""

    @property
    @abstractmethod
    def end_ms(self) -> int:
        """Until when outcomes are known, ms UTC."""

    @property
    @abstractmethod
    def last(self) -> np.ndarray:
        """bool (n,): no event of the session follows."""

    @abstractmethod
    def counts(self, event: str) -> SoFarAndWhole:
        """How often `event` happened."""

    @property
    @abstractmethod
    def interactive(self) -> SoFarAndWhole:
        """How many events the visitor caused."""

    @property
    @abstractmethod
    def elapsed_ms(self) -> SoFarAndWhole:
        """Time from the first to the latest event."""

    @property
    @abstractmethod
    def revenue(self) -> SoFarAndWhole:
        """What purchases brought, in the shop's currency."""

    @abstractmethod
    def returns(self, days: float) -> np.ndarray:
        """bool (n,): the visitor's next session begins within `days` after this one's last event."""

    @abstractmethod
    def until(self, rows: Moments) -> np.ndarray:
        """When each row stops being its session's latest: int64 (rows,), ms UTC."""

    @property
    def starts(self) -> np.ndarray:
        """int64 (sessions,), ms UTC of each session's first event."""
        return self.spans[0]

    @property
    def every_row(self) -> bool:
        """Whether each session has all its rows, or one that was drawn."""
        return True

    def censored(self, horizon_ms: int) -> np.ndarray:
        """bool (n,): the log ends before what happens within `horizon_ms` after the session's end can be known."""
        if not len(self.session):
            return np.zeros(0, bool)
        return self.ended + horizon_ms > self.end_ms

    def reached(self, event: str) -> np.ndarray:
        """bool (n,): `event` happened in the session by then."""
        return self.counts(event)[0] > 0

    def later(self, event: str) -> np.ndarray:
        """bool (n,): `event` happens in the session after that."""
        so_far, whole = self.counts(event)
        return whole > so_far

    @cached_property
    def bounce_open(self) -> np.ndarray:
        """bool (n,): the session may still bounce."""
        return self._may_bounce(0)

    @cached_property
    def bounced(self) -> np.ndarray:
        """bool (n,): the whole session bounces."""
        return self._may_bounce(1)

    def _may_bounce(self, by: int) -> np.ndarray:
        """By then (0) or in the end (1)."""
        quick = self.elapsed_ms[by] < self.settings.bounce_seconds * 1000
        return (self.interactive[by] <= 1) & quick & ~(self.counts(self.settings.goal)[by] > 0)

    @cached_property
    def value_later(self) -> np.ndarray:
        """float64 (n,), what the session's purchases after that bring, in the shop's currency."""
        so_far, whole = self.revenue
        # sums of floats in another order: a remainder of rounding is nothing
        rest = whole - so_far
        return np.where(rest > 1e-6 * np.maximum(whole, 1.0), rest, 0.0)

    @cached_property
    def linked(self) -> np.ndarray:
        """bool (n,): the visitor's visits may be linked."""
        return self.events["consent"].to_numpy() & CONSENT_LINK > 0


@dataclass(frozen=True)
class Outcomes(SessionOutcomes):
    """The outcomes of a table that is sorted by visitor and time, with `session_index`. n events, each a moment.

    log_end_ms: where the log ends, ms UTC, if these are not all its events.
    """

    log_end_ms: int | None = None

    @cached_property
    def session(self) -> np.ndarray:
        """int64 (n,), index of the session."""
        return self.events["session_index"].to_numpy()

    @cached_property
    def _begins(self) -> np.ndarray:
        session = self.session
        return np.flatnonzero(np.append(True, session[1:] != session[:-1])[: len(session)])

    @cached_property
    def begin(self) -> np.ndarray:
        """int64 (n,), position of the session's first event."""
        return np.repeat(self._begins, self._lengths)

    @cached_property
    def started(self) -> np.ndarray:
        """int64 (n,), ms UTC of the session's first event."""
        return self.events["time"].to_numpy()[self.begin]

    @cached_property
    def spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First and last event, ms UTC, and visitor of each session: int64 (sessions,)."""
        visitor = self.events["visitor"].to_numpy()
        return self.started[self._begins], self.ended[self._begins], visitor[self._begins]

    @cached_property
    def end(self) -> np.ndarray:
        """int64 (n,), position of the session's last event."""
        return np.repeat(self._begins + self._lengths - 1, self._lengths)

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.diff(np.append(self._begins, len(self.session)))

    @cached_property
    def clock(self) -> np.ndarray:
        """int64 (n,), ms UTC: within a session a late event keeps the session's clock, as the fold does."""
        return self.events["time"].groupby(self.session).cummax().to_numpy()

    @cached_property
    def last(self) -> np.ndarray:
        """bool (n,): no event of the session follows."""
        return np.arange(len(self.session)) == self.end

    @cached_property
    def ended(self) -> np.ndarray:
        """int64 (n,), ms UTC of the session's last event."""
        return self.clock[self.end]

    @property
    def end_ms(self) -> int:
        """Where the log ends, ms UTC."""
        return int(self.events["time"].max()) if self.log_end_ms is None else self.log_end_ms

    def counts(self, event: str) -> SoFarAndWhole:
        """How often `event` happened."""
        return self._summed(self.events["name"].to_numpy() == EVENT_NAMES.index(event))

    @cached_property
    def interactive(self) -> SoFarAndWhole:
        """How many events the visitor caused."""
        return self._summed(self.events["interactive"].to_numpy() > 0)

    @cached_property
    def elapsed_ms(self) -> SoFarAndWhole:
        """Time from the first to the latest event."""
        so_far = self.clock - self.started
        return so_far, so_far[self.end]

    @cached_property
    def revenue(self) -> SoFarAndWhole:
        """What purchases brought, in the shop's currency."""
        bought = self.events["name"].to_numpy() == PURCHASE
        return self._summed(np.where(bought, np.maximum(self.events["value"].to_numpy(np.float64), 0.0), 0.0))

    def _summed(self, values: np.ndarray) -> SoFarAndWhole:
        so_far = _running(values, self.begin)
        return so_far, so_far[self.end]

    def returns(self, days: float) -> np.ndarray:
        """bool (n,): the visitor's next session begins within `days` after this one's last event."""
        if not len(self.session):
            return np.zeros(0, bool)
        visitor, time = self.events["visitor"].to_numpy(), self.events["time"].to_numpy()
        following = np.minimum(self.end + 1, len(visitor) - 1)
        another = (self.end + 1 < len(visitor)) & (visitor[following] == visitor)
        return another & (time[following] - self.ended <= days * DAY_MS)

    def until(self, rows: Moments) -> np.ndarray:
        """When each row stops being its session's latest: int64 (rows,), ms UTC. A session's are in order of time."""
        if not len(rows):
            return np.zeros(0, np.int64)
        session = self.session[rows.event]
        until = np.append(rows.now[1:], 0)
        final = np.append(session[1:] != session[:-1], True)
        until[final] = self.ended[rows.event[final]] + self.timeout_ms
        return until


def _running(values: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """The sum of the session's values up to and with each event."""
    total = np.cumsum(values)
    return total - total[begin] + values[begin]

"""What happened after each event: the outcomes that heads ask for, from the sorted events of `features.batch.Rows`.

Every array is per event. Rows take the outcome of the latest event of their prefix, because silence adds none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from features.events import CONSENT_LINK, EVENT_NAMES, PURCHASE
from training.config import LabelSettings

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a table that is sorted by visitor and time, with `session_index`. n events.

    A session bounces with at most one interactive event, under `bounce_seconds` from its first to its latest event,
    and no goal. log_end_ms: where the log ends, ms UTC, if these are not all its events.
    """

    events: pd.DataFrame
    settings: LabelSettings
    timeout_ms: int
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
    def starts(self) -> np.ndarray:
        """int64 (sessions,), ms UTC of each session's first event."""
        return self.events["time"].to_numpy()[self._begins]

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

    def censored(self, horizon_ms: int) -> np.ndarray:
        """bool (n,): the log ends before what happens within `horizon_ms` after the session's end can be known."""
        if not len(self.session):
            return np.zeros(0, bool)
        end = self.events["time"].max() if self.log_end_ms is None else self.log_end_ms
        return self.ended + horizon_ms > end

    def reached(self, event: str) -> np.ndarray:
        """bool (n,): `event` happened in the session at or before each event."""
        return self._so_far(event) > 0

    def later(self, event: str) -> np.ndarray:
        """bool (n,): `event` happens in the session after each event."""
        count = self._so_far(event)
        return count[self.end] > count

    def _so_far(self, event: str) -> np.ndarray:
        return _running(self.events["name"].to_numpy() == EVENT_NAMES.index(event), self.begin)

    @cached_property
    def bounce_open(self) -> np.ndarray:
        """bool (n,): up to each event the session may still bounce."""
        so_far_ms = self.clock - self.events["time"].to_numpy()[self.begin]
        interactive = _running(self.events["interactive"].to_numpy() > 0, self.begin)
        quick = so_far_ms < self.settings.bounce_seconds * 1000
        return (interactive <= 1) & quick & ~self.reached(self.settings.goal)

    @cached_property
    def bounced(self) -> np.ndarray:
        """bool (n,): the whole session bounces."""
        return self.bounce_open[self.end]

    @cached_property
    def value_later(self) -> np.ndarray:
        """float64 (n,), what the session's purchases after each event bring, in the shop's currency."""
        bought = self.events["name"].to_numpy() == PURCHASE
        value = np.where(bought, np.maximum(self.events["value"].to_numpy(np.float64), 0.0), 0.0)
        so_far = _running(value, self.begin)
        # sums of floats in another order: a remainder of rounding is nothing
        rest = so_far[self.end] - so_far
        return np.where(rest > 1e-6 * np.maximum(so_far[self.end], 1.0), rest, 0.0)

    @cached_property
    def linked(self) -> np.ndarray:
        """bool (n,): the visitor's visits may be linked."""
        return self.events["consent"].to_numpy() & CONSENT_LINK > 0

    def returns(self, days: float) -> np.ndarray:
        """bool (n,): the visitor's next session begins within `days` after this one's last event."""
        if not len(self.session):
            return np.zeros(0, bool)
        visitor, time = self.events["visitor"].to_numpy(), self.events["time"].to_numpy()
        following = np.minimum(self.end + 1, len(visitor) - 1)
        another = (self.end + 1 < len(visitor)) & (visitor[following] == visitor)
        return another & (time[following] - self.ended <= days * DAY_MS)


def _running(values: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """The sum of the session's values up to and with each event."""
    total = np.cumsum(values)
    return total - total[begin] + values[begin]

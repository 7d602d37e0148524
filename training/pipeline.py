"""From a history to rows that heads learn from: learned tables, features, outcomes, past and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from features.batch import Rows, build_rows
from features.declare import Catalogue
from features.definitions import CATALOGUE
from features.tables import NOTHING_LEARNED, Tables, Windows
from training.config import TrainingSettings
from training.datasets import Slice, assign_sessions, draw_others, draw_visitors, slices_of, split_border
from training.heads import Head
from training.labels import Outcomes
from training.tables import count_keys, fit_windows, key_rows, window_starts

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """A history ready for heads.

    Attributes
    ----------
    rows: of the drawn visitors; outcome: of their events; border_ms: where the test begins; until_ms: where it ends.
    windows: what was learned by when; the last tables are what the test is read with, and what the model carries.
    events: of the whole log; window: its first and last time, ms UTC.
    """

    rows: Rows
    outcome: Outcomes
    settings: TrainingSettings
    border_ms: float
    until_ms: float
    windows: Windows
    events: int
    window: tuple[int, int]

    @cached_property
    def assigned(self) -> np.ndarray:
        """int8 (sessions,), the side of each session (`training.datasets.assign_sessions`).

        Sessions before the first window are on no side: they could be read with no tables, and visitors known for
        long look new there, which the test's do not.
        """
        split, timeout_ms = self.settings.split, self.settings.timeout_ms
        return assign_sessions(
            self.rows.events, split, timeout_ms, self.border_ms, self.until_ms, float(self.windows.starts[0])
        )

    @property
    def tables(self) -> Tables:
        """What was learned until the border."""
        return self.windows.tables[-1]

    @property
    def digest(self) -> str:
        """Of the features."""
        return self.rows.digest

    def slices(self, head: Head) -> dict[str, Slice]:
        """The head's rows: "past" and "test"."""
        return slices_of(self.rows, self.outcome, self.assigned, head, self.border_ms)


def prepare(
    events: pd.DataFrame,
    settings: TrainingSettings,
    report: Report = lambda *_: None,
    *,
    border_ms: float | None = None,
    until_ms: float = np.inf,
    tables: Tables | None = None,
) -> Prepared:
    """Rows, outcomes, sides and learned tables of a history.

    report: gets (step, done, in all); border_ms, until_ms: where the test begins and ends, by `split.test_from` and
    never by default; tables: to read every session with, instead of those learned from the history itself.
    """
    border = split_border(events, settings.split) if border_ms is None else border_ms
    if tables is None:
        windows = learn(events, settings, border, report=report)
    else:
        windows = Windows(np.array([np.iinfo(np.int64).min]), [tables])
    drawn = draw_visitors(events, border, settings.rows.max_events, settings.split.seed)
    rows = build_rows(
        drawn,
        idle_seconds=settings.rows.idle_seconds,
        timeout_seconds=settings.rows.timeout_minutes * 60,
        progress=lambda done, whole: report("features", done, whole),
        tables=windows,
    )
    time = events["time"]
    return Prepared(
        rows=rows,
        outcome=Outcomes(rows.events, settings.labels, settings.timeout_ms),
        settings=settings,
        border_ms=border,
        until_ms=until_ms,
        windows=windows,
        events=len(events),
        window=(int(time.min()), int(time.max())) if len(events) else (0, 0),
    )


@dataclass(frozen=True)
class Others:
    """Rows of a long log's visitors that nothing is learned from and nothing tested on: the calibration's."""

    rows: Rows
    outcome: Outcomes
    assigned: np.ndarray
    border_ms: float

    def past(self, head: Head) -> Slice:
        """The head's rows before the border."""
        return slices_of(self.rows, self.outcome, self.assigned, head, self.border_ms)["past"]


def prepare_others(events: pd.DataFrame, prepared: Prepared, report: Report = lambda *_: None) -> Others | None:
    """What is left of a log that was thinned, in the past; None of a log that was not."""
    settings, border, timeout_ms = prepared.settings, prepared.border_ms, prepared.settings.timeout_ms
    more = settings.calibration.max_events
    drawn = draw_others(events, border, settings.rows.max_events, settings.split, more, timeout_ms)
    if not len(drawn):
        return None
    rows = build_rows(
        drawn,
        idle_seconds=settings.rows.idle_seconds,
        timeout_seconds=settings.rows.timeout_minutes * 60,
        progress=lambda done, whole: report("others' features", done, whole),
        tables=prepared.windows,
    )
    # the log goes on after the events that are looked at
    outcome = Outcomes(rows.events, settings.labels, timeout_ms, int(events["time"].max()))
    first = float(prepared.windows.starts[0])
    return Others(
        rows, outcome, assign_sessions(rows.events, settings.split, timeout_ms, border, from_ms=first), border
    )


def learn(
    events: pd.DataFrame,
    settings: TrainingSettings,
    border_ms: float | None = None,
    catalogue: Catalogue = CATALOGUE,
    report: Report = lambda *_: None,
) -> Windows:
    """The learned tables over the expanding window; the last ones are those of the test, and of the model."""
    timeout_seconds = settings.rows.timeout_minutes * 60
    border_ms = split_border(events, settings.split) if border_ms is None else border_ms
    # what happens after the border cannot be counted: nobody needs its keys
    keys = key_rows(events[events["time"] < border_ms], catalogue, timeout_seconds)
    report("learned tables", 1, 2)
    if not len(keys):
        return Windows(np.zeros(1, np.int64), [NOTHING_LEARNED])
    outcome = Outcomes(keys.events, settings.labels, settings.timeout_ms)
    counted = count_keys(keys, catalogue, outcome, timeout_seconds)
    starts = keys.events["time"].to_numpy()[outcome.begin[outcome.last]]
    windows = fit_windows(counted, window_starts(starts, int(border_ms), settings.tables.windows), settings.tables)
    report("learned tables", 2, 2)
    return windows

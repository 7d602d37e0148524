"""From a history to rows that heads learn from: learned tables, features, outcomes, past and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from features.batch import Rows, build_rows
from features.declare import Catalogue
from features.definitions import CATALOGUE
from features.tables import NOTHING_LEARNED, Tables, Windows
from training.config import TrainingSettings
from training.datasets import Slice, assign_spans, draw_others, draw_visitors, slices_of, split_border
from training.heads import Head
from training.labels import Outcomes, SessionOutcomes
from training.session_log import LoggedOutcomes, LoggedRows, is_session_log, logged_keys, logged_rows
from training.tables import count_keys, fit_windows, key_rows, window_starts

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """A history ready for heads.

    Attributes
    ----------
    rows: of the drawn visitors; outcome: of their events; border_ms: where the test begins; until_ms: where it ends.
    windows: what was learned by when; the last tables are what the test is read with, and what the model carries.
    """

    rows: Rows | LoggedRows
    outcome: SessionOutcomes
    settings: TrainingSettings
    border_ms: float
    until_ms: float
    windows: Windows

    @cached_property
    def assigned(self) -> np.ndarray:
        """int8 (sessions,), the side of each session (`training.datasets.assign_spans`).

        Sessions before the first window are on no side: they could be read with no tables, and visitors known for
        long look new there, which the test's do not.
        """
        split, timeout_ms = self.settings.split, self.settings.timeout_ms
        return assign_spans(
            self.outcome.spans, split, timeout_ms, self.border_ms, self.until_ms, float(self.windows.starts[0])
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
    """Rows, outcomes, sides and learned tables of a history: a table of events, or of logged sessions.

    report: gets (step, done, in all); border_ms, until_ms: where the test begins and ends, by `split.test_from` and
    never by default; tables: to read every session with, instead of those learned from the history itself.
    """
    border = split_border(events, settings.split) if border_ms is None else border_ms
    if tables is None:
        windows = learn(events, settings, border, report=report)
    else:
        windows = Windows(np.array([np.iinfo(np.int64).min]), [tables])
    drawn = draw_visitors(events, border, settings.rows.max_events, settings.split.seed)
    return with_rows(
        drawn, settings, windows, border, until_ms, progress=lambda done, whole: report("features", done, whole)
    )


def prepare_others(events: pd.DataFrame, prepared: Prepared, report: Report = lambda *_: None) -> Prepared | None:
    """Of a log that was thinned, visitors that nothing is learned from and nothing tested on: the calibration's.

    Their past, before the border, is all there is; None of a log that was not thinned.
    """
    settings, border = prepared.settings, prepared.border_ms
    drawn = draw_others(
        events, border, settings.rows.max_events, settings.split, settings.calibration.max_events, settings.timeout_ms
    )
    if not len(drawn):
        return None
    return with_rows(
        drawn,
        settings,
        prepared.windows,
        border,
        log_end_ms=int(events["time"].max()),
        progress=lambda done, whole: report("others' features", done, whole),
    )


def with_rows(
    events: pd.DataFrame,
    settings: TrainingSettings,
    windows: Windows,
    border_ms: float,
    until_ms: float = np.inf,
    *,
    log_end_ms: int | None = None,
    **how: Any,
) -> Prepared:
    """Rows and outcomes of some visitors' events; log_end_ms: as in `Outcomes`; how: more of `build_rows`."""
    if is_session_log(events):
        logged = logged_rows(events, windows, settings)
        outcomes = LoggedOutcomes(logged.events, settings.labels, settings.timeout_ms)
        return Prepared(logged, outcomes, settings, border_ms, until_ms, windows)
    rows = build_rows(
        events,
        idle_seconds=settings.rows.idle_seconds,
        timeout_seconds=settings.rows.timeout_minutes * 60,
        tables=windows,
        **how,
    )
    outcome = Outcomes(rows.events, settings.labels, settings.timeout_ms, log_end_ms)
    return Prepared(rows, outcome, settings, border_ms, until_ms, windows)


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
    before = events[events["time"] < border_ms]
    keys = logged_keys(before, catalogue) if is_session_log(events) else key_rows(before, catalogue, timeout_seconds)
    report("learned tables", 1, 2)
    if not len(keys):
        return Windows(np.zeros(1, np.int64), [NOTHING_LEARNED])
    of = LoggedOutcomes if isinstance(keys, LoggedRows) else Outcomes
    outcome: SessionOutcomes = of(keys.events, settings.labels, settings.timeout_ms)
    counted = count_keys(keys, catalogue, outcome, timeout_seconds)
    windows = fit_windows(
        counted, window_starts(outcome.starts, int(border_ms), settings.tables.windows), settings.tables
    )
    report("learned tables", 2, 2)
    return windows

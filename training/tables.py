"""Fitting the learned tables: from past sessions alone, over an expanding window of time.

A session that starts at t is read with tables counted from sessions that were over (their timeout included) before t,
so no row knows its own outcome or a later one. Within training that is a handful of windows, each counting everything
before its start; the last one begins with the test and is what the model carries. Keys come from the fold of
`Catalogue.keys`, the same code that looks them up later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.batch import Rows, build_rows
from features.compiler import compile_fold
from features.declare import Catalogue, Statistic
from features.tables import Table, Tables, Windows
from training.config import TableSettings
from training.labels import Outcomes


@dataclass(frozen=True)
class KeyEvents:
    """What is counted: per event of n sorted events.

    keys: int64 (n, tables); statistics: of each table; session: int64 (n,); known_at: int64 (n,), ms UTC when the
    session's outcome is known; goal_later, goal_reached: bool (n,).
    """

    names: tuple[str, ...]
    statistics: tuple[Statistic, ...]
    keys: np.ndarray
    session: np.ndarray
    known_at: np.ndarray
    goal_later: np.ndarray
    goal_reached: np.ndarray


def key_rows(events: pd.DataFrame, catalogue: Catalogue, timeout_seconds: float) -> Rows:
    """The keys of every event, int64 (n, tables), in the order of the rows that features are built for."""
    fold = compile_fold(catalogue.keys(), dtype="i8")
    return build_rows(events, fold, idle_seconds=(), timeout_seconds=timeout_seconds)


def key_events(rows: Rows, catalogue: Catalogue, outcome: Outcomes, timeout_seconds: float) -> KeyEvents:
    """The keys with what became of their sessions; `outcome` is that of `rows.events`."""
    end = rows.events["time"].groupby(outcome.session).transform("max").to_numpy()
    return KeyEvents(
        names=rows.names,
        statistics=tuple(catalogue.tables[name] for name in rows.names),
        keys=rows.matrix,
        session=outcome.session,
        known_at=end + round(timeout_seconds * 1000),
        goal_later=outcome.later(outcome.settings.goal),
        goal_reached=outcome.reached(outcome.settings.goal),
    )


def fit_tables(counted: KeyEvents, before_ms: int, settings: TableSettings) -> Tables:
    """Every table, from the sessions whose outcome was known before `before_ms`."""
    past = counted.known_at <= before_ms
    if not past.any():
        return Tables({})
    session = counted.session[past]
    later, reached = counted.goal_later[past], counted.goal_reached[past]
    sessions = len(np.unique(session))
    found = {}
    for place, (name, statistic) in enumerate(zip(counted.names, counted.statistics, strict=True)):
        shown = pd.DataFrame({"key": counted.keys[past, place], "session": session, "later": later, "over": reached})
        shown = shown[shown["key"] != 0]
        if statistic == "popularity":
            found[name] = _popularity(shown, sessions, settings)
        elif statistic == "rate":
            found[name] = _rate(shown, settings)
        else:
            found[name] = _log_odds(shown, settings)
    return Tables(found)


def fit_windows(counted: KeyEvents, starts: Sequence[int] | np.ndarray, settings: TableSettings) -> Windows:
    """Tables for each start, counted from everything known before it."""
    starts = np.unique(np.asarray(starts, np.int64))
    return Windows(starts, [fit_tables(counted, int(start), settings) for start in starts])


def window_starts(session_start: np.ndarray, until_ms: int, windows: int) -> np.ndarray:
    """`windows` moments, ms UTC: about as many sessions start between any two, the last is `until_ms`."""
    before = np.sort(session_start[session_start < until_ms])
    if not len(before):
        return np.array([until_ms], np.int64)
    places = [len(before) * number // windows for number in range(1, windows)]
    return np.unique(np.array([*before[places], until_ms], np.int64))


def _popularity(shown: pd.DataFrame, sessions: int, settings: TableSettings) -> Table:
    """log((sessions with the key + 1) / (sessions + 2)): Laplace's rule of succession."""
    counts = shown.drop_duplicates(["session", "key"]).groupby("key").size()
    counts = counts[counts >= settings.min_sessions]
    return _table(counts.index, np.log((counts + 1) / (sessions + 2)), float(np.log(1 / (sessions + 2))))


def _rate(shown: pd.DataFrame, settings: TableSettings) -> Table:
    """(conversions after the key was first shown + m * base) / (sessions + m), m sessions of the base rate as prior."""
    first = shown[~shown["over"]].drop_duplicates(["session", "key"])
    if not len(first):
        return Table.nothing()
    base = float(first["later"].mean())
    groups = first.groupby("key")["later"].agg(["size", "sum"])
    groups = groups[groups["size"] >= settings.min_sessions]
    prior = settings.prior_sessions
    return _table(groups.index, (groups["sum"] + prior * base) / (groups["size"] + prior), base)


def _log_odds(shown: pd.DataFrame, settings: TableSettings) -> Table:
    """log P(key | goal later) - log P(key | not), each from counts of events with one added to every known key."""
    asked = shown[~shown["over"]]
    groups = asked.groupby("key")["later"].agg(["size", "sum"])
    yes, no = groups["sum"], groups["size"] - groups["sum"]
    if not yes.sum() or not no.sum():
        return Table.nothing()
    odds = np.log((yes + 1) / (yes.sum() + len(groups))) - np.log((no + 1) / (no.sum() + len(groups)))
    return _table(odds.index, odds, 0.0)


def _table(keys: pd.Index, values: pd.Series | np.ndarray, unseen: float) -> Table:
    return Table(keys.to_numpy(np.int64), np.asarray(values, np.float64), unseen)

"""Fitting the learned tables: from past sessions alone, over an expanding window of time.

A session that starts at t is read with tables counted from sessions that were over (their timeout included) before t,
so no row knows its own outcome or a later one. Within training that is a handful of windows, each counting everything
before its start; the last one begins with the test and is what the model carries. Keys come from the fold of
`Catalogue.keys`, the same code that looks them up later.

A value must not tell which window it is of: learners would find out, take the windows' means for signs and carry them
into a future that is like none of them (scores of the simulated shop were off by 0.02). So values are rounded, counted
from the window's own mean, and all windows speak at the level of the first (`comparable`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import log

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from features.batch import Rows, build_rows
from features.compiler import compile_fold
from features.declare import Catalogue, Statistic
from features.tables import Table, Tables, Windows
from training.config import TableSettings
from training.labels import Moments, SessionOutcomes


@dataclass(frozen=True)
class KeyCounts:
    """What is counted of one table: n events or sessions that show a key, and what became of them.

    statistic: of the table; keys: int64 (k,), distinct; code: int (n,), places in `keys`; later: bool (n,), whether the
    goal followed; known_at: int64 (n,), ms UTC when that was known.
    """

    statistic: Statistic
    keys: np.ndarray
    code: np.ndarray
    later: np.ndarray
    known_at: np.ndarray

    def until(self, before_ms: int) -> tuple[np.ndarray, np.ndarray]:
        """How many were known before, and how many of them with the goal following: int64 (k,) both."""
        known = self.known_at <= before_ms
        size = len(self.keys)
        return np.bincount(self.code[known], minlength=size), np.bincount(self.code[known & self.later], minlength=size)


@dataclass(frozen=True)
class Counted:
    """All that the tables are counted from. sessions_known_at: int64 (sessions,), sorted; counts: by table."""

    sessions_known_at: np.ndarray
    counts: dict[str, KeyCounts]


def key_rows(events: pd.DataFrame, catalogue: Catalogue, timeout_seconds: float) -> Rows:
    """The keys of every event, int64 (n, tables), in the order of the rows that features are built for."""
    fold = compile_fold(catalogue.keys(), dtype="i8")
    return build_rows(events, fold, idle_seconds=(), timeout_seconds=timeout_seconds)


def count_keys(rows: Moments, catalogue: Catalogue, outcome: SessionOutcomes, timeout_seconds: float) -> Counted:
    """The keys with what became of their sessions; `outcome` is that of `rows.events`."""
    known_at = outcome.ended + round(timeout_seconds * 1000)
    later = outcome.later(outcome.settings.goal)
    # after the goal nothing leads to it any more
    open_ = ~outcome.reached(outcome.settings.goal)

    def counts(place: int, statistic: Statistic) -> KeyCounts:
        keys = rows.matrix[:, place]
        chosen = np.flatnonzero((keys != 0) & open_ if statistic != "popularity" else keys != 0)
        code, found = pd.factorize(keys[chosen])
        if statistic != "log_odds":
            # a session counts once for a key, with what followed when it was first shown
            first = ~pd.Series(outcome.session[chosen] * (len(found) + 1) + code).duplicated().to_numpy()
            chosen, code = chosen[first], code[first]
        return KeyCounts(statistic, found, code, later[chosen], known_at[chosen])

    with ThreadPoolExecutor(2) as pool:  # hashing lets go of the interpreter
        found = pool.map(counts, range(len(rows.names)), [catalogue.tables[name] for name in rows.names])
        by_name = dict(zip(rows.names, found, strict=True))
    return Counted(np.sort(known_at[outcome.last]), by_name)


def fit_tables(counted: Counted, before_ms: int, settings: TableSettings) -> Tables:
    """Every table, from the sessions whose outcome was known before `before_ms`."""
    sessions = int(np.searchsorted(counted.sessions_known_at, before_ms, "right"))
    if not sessions:
        return Tables({})
    found = {}
    for name, counts in counted.counts.items():
        shown, later = counts.until(before_ms)
        known = shown >= (1 if counts.statistic == "log_odds" else settings.min_sessions)
        if not shown.any():
            found[name] = Table.nothing()
        elif counts.statistic == "popularity":
            # log((sessions with the key + 1) / (sessions + 2)): Laplace's rule of succession
            found[name] = Table(counts.keys[known], np.log((shown[known] + 1) / (sessions + 2)), -log(sessions + 2))
        elif counts.statistic == "rate":
            # m sessions of the base rate as prior
            base, prior = later.sum() / shown.sum(), settings.prior_sessions
            rate = (later[known] + prior * base) / (shown[known] + prior)
            found[name] = Table(counts.keys[known], rate, float(base))
        else:
            found[name] = _log_odds(counts.keys[known], later[known], (shown - later)[known])
    return Tables(found)


def _log_odds(keys: np.ndarray, yes: np.ndarray, no: np.ndarray) -> Table:
    """log P(key | goal later) - log P(key | not), each from counts of events with one added to every known key."""
    if not yes.any() or not no.any():
        return Table.nothing()
    odds = np.log((yes + 1) / (yes.sum() + len(keys))) - np.log((no + 1) / (no.sum() + len(keys)))
    return Table(keys, odds, 0.0)


def fit_windows(counted: Counted, starts: Sequence[int] | np.ndarray, settings: TableSettings) -> Windows:
    """Tables for each start, counted from everything known before it and made comparable."""
    starts = np.unique(np.asarray(starts, np.int64))
    fitted = [fit_tables(counted, int(start), settings) for start in starts]
    # of each table the first one with anything in it, which every later window knew
    level: dict[str, Table] = {}
    for one in fitted:
        level |= {name: table for name, table in one.tables.items() if name not in level and len(table.keys)}

    def at_level(name: str, table: Table) -> Table:
        return comparable(table, level[name], counted.counts[name].statistic, settings.step) if name in level else table

    return Windows(
        starts, [Tables({name: at_level(name, table) for name, table in one.tables.items()}) for one in fitted]
    )


def comparable(table: Table, level: Table, statistic: Statistic, step: float) -> Table:
    """A table that says the same in every window: values in steps of `step`, at the level of the first window.

    Rates keep their log-odds from the mean rate, and get the first window's mean. Of popularities, none is below that
    of a key the first window did not know.
    """
    if not len(table.keys):
        return table
    if statistic == "rate":
        if not (0 < table.unseen < 1 and 0 < level.unseen < 1):
            # a window without conversions, or with nothing else, has no odds: every key is like the mean
            return Table(table.keys, np.full(len(table.keys), level.unseen), level.unseen)
        steps = np.round((logit(table.values) - logit(table.unseen)) / step) * step
        return Table(table.keys, expit(steps + logit(level.unseen)), level.unseen)
    values = np.round(table.values / step) * step
    return Table(table.keys, np.maximum(values, level.unseen) if statistic == "popularity" else values, level.unseen)


def window_starts(session_start: np.ndarray, until_ms: int, windows: int) -> np.ndarray:
    """`windows` moments, ms UTC: about as many sessions start between any two, the last is `until_ms`."""
    before = np.sort(session_start[session_start < until_ms])
    if not len(before):
        return np.array([until_ms], np.int64)
    places = [len(before) * number // windows for number in range(1, windows)]
    return np.unique(np.array([*before[places], until_ms], np.int64))

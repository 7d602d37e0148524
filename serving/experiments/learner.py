"""Closed sessions into tables of probabilities, and arms that harm stopped: what the learner does, look by look.

In: the Parquet files of handed-on sessions, and the configuration. Out: the files of `serving.experiments.learned` and,
of how it came to that, of `serving.experiments.timeline`. Each look counts the files that are new, changed or gone;
makes the tables that hold from the next period on; and judges results, guardrails and the sample ratio by bounds that
hold at all looks together, so that it may look as often as it likes.

An arm is stopped when the always-valid bound of one of its guardrails is beyond what is allowed. That holds, whatever
is counted later, until the definition has another phase. A wrong sample ratio is told and stops nothing: it says that
the figures cannot be trusted, not whom anything harms, and a person has to find out why.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from features.allocation import DAY_MS, Fixed, Plan, State, Sums, Table
from features.experiments import LEAST_UNITS, Experiment
from features.judging.rails import guard
from features.judging.ratio import ALARM
from features.judging.verdicts import Result, results
from features.settings import SettingsError
from features.units import assigned_in
from serving.experiments.configuration import Configuration, Trial, nothing, parse
from serving.experiments.counted import Counted, Part, Seen
from serving.experiments.learned import Learned, LearnedFile, Published, Stopped, Timed, Told, Watched, fits
from serving.experiments.learning import Orders
from serving.experiments.tally import Rows, Tally, bounded, row_type, rows_of
from serving.experiments.timeline import TimelineFile, Timelines

logger = logging.getLogger("lotse.learning")

_DAY: Final = "day="
# Files that are read and committed together; rows that are added up together after a start.
_BATCH_FILES: Final = 100
_BATCH_ROWS: Final = 200_000
# A folder that changed so recently may change again without a later time.
_RACY_NS: Final = 2_000_000_000
# A table is told so long before it holds that every worker has it, on a busy machine, too.
_AHEAD_MS: Final = 10_000


class Learner:
    """What was counted, and what it says."""

    def __init__(self, orders: Orders, alive: Callable[[], None] = lambda: None) -> None:
        """Take up what an earlier one left; alive: called again and again while it works."""
        self._orders, self._alive = orders, alive
        self._period_ms = max(round(orders.table_minutes * 60_000), 1)
        self._closed = Path(orders.closed)
        self._counted = Counted(Path(orders.learned))
        self._file = LearnedFile(Path(orders.learned))
        self._configuration: Configuration = nothing(orders.known)
        self._text: bytes | None = None
        self._tallies: dict[str, tuple[str, Tally]] = {}
        self._folders: dict[str, int] = {}
        # by experiment what its next table was made of
        self._made: dict[str, tuple[tuple[int, int, frozenset[str]], Tally]] = {}
        try:
            self._published = self._file.read()
        except (OSError, ValueError) as error:
            logger.error("what was learned before cannot be read, and is learned anew: %s", error)
            self._published = Published()
        self._timelines = Timelines(TimelineFile(Path(orders.learned)))

    def close(self) -> None:
        """Let go of the database."""
        self._counted.close()

    def look(self, now_ms: int) -> Published:
        """Count what is new, and publish what follows from it."""
        self.count(now_ms)
        return self.publish(now_ms)

    def count(self, now_ms: int) -> None:
        """Count what is new; it may take long where there is much."""
        self._configure(now_ms)
        self._count()

    def publish(self, now_ms: int) -> Published:
        """Publish what follows from what was counted."""
        found: dict[str, Learned] = dict(self._published.experiments)  # a stop outlasts a while as a draft
        for key, (_, tally) in self._tallies.items():
            tally.settle(now_ms)
            found[key] = self._learned(key, tally, now_ms)
            self._timelines.note(tally.trial, tally.tables, tally.first_ms(), now_ms)
        for key, definition in self._configuration.definitions.items():
            if key in found and found[key].phase != definition.phase:
                del found[key]
        self._published = Published(now_ms, found)
        self._file.write(self._published)
        self._timelines.keep({key: one.phase for key, one in self._configuration.definitions.items()})
        return self._published

    def tally(self, key: str) -> Tally:
        """What was counted of an experiment that runs."""
        return self._tallies[key][1]

    # what runs

    def _configure(self, now_ms: int) -> None:
        """Take the configuration as it is; one that cannot be used changes nothing, and workers tell of it."""
        try:
            text = Path(self._orders.file).read_bytes()
        except OSError:
            text = b"{}"
        if text == self._text:
            return
        self._text = text
        try:
            self._configuration = parse(text, self._orders.known, self._orders.file)
        except SettingsError:
            return
        for key, trial in self._configuration.trials.items():
            by, known = _digest(trial, self._period_ms), self._tallies.get(key)
            if known and known[0] == by and _without_killed(known[1].trial) == _without_killed(trial):
                known[1].trial = trial
                continue
            tally = Tally(trial, self._period_ms)
            tally.settle(now_ms)
            for rows in _together(self._counted.rows(trial.number, trial.definition.phase, by)):
                tally.add(rows)
                self._alive()
            known_tables = self._counted.tables(trial.number, trial.definition.phase)
            shape = len(trial.plan.allocation.edges) + 2, len(trial.plan.arms)
            tally.tables = {begin: bins for begin, bins in known_tables.items() if bins.shape == shape}
            self._tallies[key] = by, tally
        self._tallies = {key: one for key, one in self._tallies.items() if key in self._configuration.trials}

    # counting

    def _count(self) -> None:
        """Files that are new, changed or gone, and those of a phase that was defined otherwise when they were read."""
        there = {path.name: path for path in self._closed.glob(f"{_DAY}*") if path.is_dir()}
        for day in sorted(self._counted.days() - there.keys()):
            self._forget(day, self._counted.files(day))
        for day, folder in sorted(there.items()):
            try:
                changed = folder.stat().st_mtime_ns
            except OSError:
                continue
            if self._folders.get(day) == changed:
                continue
            racy = changed > time.time_ns() - _RACY_NS
            self._count_day(day, folder)
            if not racy:
                self._folders[day] = changed
        for key, (by, tally) in self._tallies.items():
            others = self._counted.uncounted(self._configuration.trials[key].number, tally.trial.definition.phase, by)
            self._read([(day, name, self._closed / day / name) for day, name in others])

    def _count_day(self, day: str, folder: Path) -> None:
        known, found = self._counted.files(day), {}
        for entry in os.scandir(folder):
            if entry.name.endswith(".parquet") and not entry.name.startswith("."):
                try:
                    found[entry.name] = _seen(entry.stat())
                except FileNotFoundError:
                    continue
        self._forget(day, known.keys() - found.keys())
        new = sorted(name for name, seen in found.items() if known.get(name) != seen)
        self._read([(day, name, folder / name) for name in new])

    def _forget(self, day: str, names: Iterable[str]) -> None:
        names = sorted(names)
        if names:
            parts = [part for name in names for part in self._counted.parts(day, name)]
            self._counted.forget(day, names)
            self._add(parts, -1)

    def _read(self, files: list[tuple[str, str, Path]]) -> None:
        """Read files and count them, some at a time."""
        waiting = iter(files)
        goals = sorted({goal.column for _, tally in self._tallies.values() for goal in tally.trial.definition.goals})
        while batch := list(islice(waiting, _BATCH_FILES)):
            found: dict[tuple[str, str], tuple[Seen, list[Part]]] = {}
            before: list[Part] = []
            for day, name, path in batch:
                try:
                    seen = _seen(path.stat())
                    parts = self._parts(assigned_in(path, goals))
                except FileNotFoundError:
                    continue  # deleted meanwhile: the next look takes it back
                except (OSError, pa.ArrowException) as error:
                    logger.error("%s cannot be read and is not counted: %s", path, error)
                    parts = []
                found[day, name] = seen, parts
                before += self._counted.parts(day, name)
            self._counted.replace(found)
            self._add(before, -1)
            self._add([part for _, parts in found.values() for part in parts], 1)
            self._alive()

    def _parts(self, assigned: pd.DataFrame) -> list[Part]:
        """What a file holds of each phase of an experiment; nothing is counted of those that do not run."""
        running = {(one.trial.number, one.trial.definition.phase): (by, one) for by, one in self._tallies.values()}
        parts = []
        for number, phase in assigned[["experiment", "phase"]].drop_duplicates().astype("int64").to_numpy().tolist():
            if (number, phase) in running:
                by, tally = running[number, phase]
                parts.append(Part(number, phase, by, rows_of(assigned, tally.trial, self._period_ms)))
            else:
                parts.append(Part(number, phase, "", np.zeros(0, row_type(1))))
        return parts

    def _add(self, parts: Iterable[Part], sign: int) -> None:
        of: dict[str, list[Rows]] = {}
        for part in parts:
            of.setdefault(part.counted, []).append(part.rows)
        for by, tally in self._tallies.values():
            for rows in _together(iter(of.get(by, ()))):
                tally.add(rows, sign)

    # what follows

    def _learned(self, key: str, tally: Tally, now_ms: int) -> Learned:
        trial, before = tally.trial, self._published.experiments.get(key)
        definition = trial.definition
        stopped = list(before.stopped) if before and before.phase == definition.phase else []
        watched = self._guarded(key, tally, stopped, now_ms)
        units = tally.units()
        p = tally.ratio_p({*definition.killed, *(one.arm for one in stopped)})
        learned = Learned(
            definition.phase, list(definition.arms), list(trial.plan.allocation.edges),
            [count if count >= LEAST_UNITS else None for count in units],
            self._tables(tally, before, [one.arm for one in stopped], now_ms), stopped, watched,
            p if min(units) >= LEAST_UNITS else None, p is not None and p < ALARM, at_ms=now_ms,
        )  # fmt: skip
        learned.results = self._results(tally, alarm=learned.ratio_alarm)
        if learned.ratio_alarm and not (before and before.phase == learned.phase and before.ratio_alarm):
            logger.warning("experiment %s, phase %d: units are lost or doubled in some arm (sample ratio, p < 0.001 at "
                           "all looks); no effect of it can be trusted", key, learned.phase)  # fmt: skip
        return learned

    def _results(self, tally: Tally, *, alarm: bool) -> list[Told]:
        """Every goal of every arm; alarm: whether nothing of it can be believed."""
        definition = tally.trial.definition
        found = results({goal.name: tally.effects(goal.name) for goal in definition.goals}, definition)
        return [_told(goal, arm, one, alarm=alarm) for goal, of in found.items() for arm, one in of.items()]

    def _guarded(self, key: str, tally: Tally, stopped: list[Stopped], now_ms: int) -> list[Watched]:
        """Every guardrail of every arm; arms of broken ones are added to those that are stopped."""
        definition, found = tally.trial.definition, []
        for rail in definition.guardrails:
            for arm, effect in tally.effects(rail.goal).items():
                one = guard(rail, effect, arm, definition)
                lift, low, high = bounded((one.lift, one.low, one.high))
                found.append(Watched(rail.goal, arm, rail.worst, one.state, lift, low, high))
                if one.state != "broken" or arm in {known.arm for known in stopped}:
                    continue
                assert one.lift is not None and one.high is not None
                stopped.append(Stopped(arm, rail.goal, now_ms, rail.worst, one.lift, one.high))
                logger.warning(
                    "experiment %s, phase %d: the arm %s is stopped, because %s is surely worse than allowed: %+.1f %% "
                    "(at most %+.1f %%, allowed %+.1f %%); its units get what %s gets until the phase changes",
                    key, definition.phase, arm, rail.goal, 100 * one.lift, 100 * one.high, 100 * rail.worst,
                    definition.control,
                )  # fmt: skip
        return found

    def _tables(self, tally: Tally, before: Learned | None, stopped: list[str], now_ms: int) -> list[Timed]:
        """What holds now, and what will from the next period on."""
        trial = tally.trial
        if isinstance(trial.plan.allocation, Fixed):
            return []
        tables = list(before.tables) if before and fits(trial, before) else []
        from_ms = now_ms // self._period_ms * self._period_ms + self._period_ms
        current = [one for one in tables if one.from_ms <= now_ms][-1:]
        if from_ms - now_ms < min(_AHEAD_MS, self._period_ms / 3):
            return [*current, *(one for one in tables if one.from_ms > now_ms)]
        closed = frozenset((*trial.definition.killed, *stopped))
        made_of = from_ms, tally.changes, closed
        if self._made.get(trial.key) == (made_of, tally) and tables and tables[-1].from_ms == from_ms:
            return [*current, tables[-1]]
        self._made[trial.key] = made_of, tally
        table = table_of(trial, tally.state(from_ms), closed, from_ms)
        if table is None:
            return current
        bins = [list(line) for line in table.bins]
        tally.tables[from_ms] = np.array(bins)
        self._counted.note_table(trial.number, trial.definition.phase, from_ms, bins)
        return [*current, Timed(from_ms, now_ms, bins)]


def table_of(trial: Trial, state: State, closed: Collection[str], now_ms: int) -> Table | None:
    """Probabilities of the arms that are still given, none for the others; None where nothing is left to choose from.

    The allocation sees the arms that are left and nothing else, so that what a closed one had goes to the best of them.
    """
    plan = trial.plan
    left = [place for place, arm in enumerate(plan.arms) if arm not in closed]
    if len(left) < 2:
        return None
    half_life = getattr(plan.allocation, "half_life_days", None)
    if half_life is not None:
        state = state.since(int(now_ms - 10 * half_life * DAY_MS))
    if len(left) < len(plan.arms):
        total = sum(plan.shares[place] for place in left)
        shares = tuple(plan.shares[place] / total for place in left)
        arms = tuple(plan.arms[place] for place in left)
        least = min(plan.minimum_share, *shares)
        entries = {
            key: Sums(sums.units[:, left], sums.total[:, left], sums.square[:, left])
            for key, sums in state.entries.items()
        }
        state = State(arms, state.edges, entries)
        plan = Plan(arms, shares, plan.allocation, plan.goal, plan.holdback, least)
    found = plan.table(state, now_ms)
    bins = np.zeros((len(found.bins), len(trial.plan.arms)))
    bins[:, left] = found.bins
    return Table(trial.plan.arms, found.edges, bins.tolist(), trial.plan.shares, trial.plan.holdback)


def _told(goal: str, arm: str, one: Result | None, *, alarm: bool) -> Told:
    if one is None:
        return Told(goal, arm, "few")
    effect = one.effect
    verdict = "invalid" if alarm else one.verdict
    return Told(
        goal, arm, verdict, effect.units, effect.control_units,
        *bounded((effect.mean, effect.control_mean, effect.lift, one.low, one.high, one.p, one.adjusted_p)),
    )  # fmt: skip


def _digest(trial: Trial, period_ms: int) -> str:
    """Of all that rows depend on: rows that were counted by another one have to be counted again."""
    definition = trial.definition
    what = (trial.key, definition.phase, definition.arms, list(trial.plan.allocation.edges), trial.score, period_ms,
            [(goal.name, goal.kind, goal.column, goal.primary) for goal in definition.goals])  # fmt: skip
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _without_killed(trial: Trial) -> Experiment:
    return trial.definition.model_copy(update={"killed": ()})


def _together(parts: Iterable[Rows]) -> Iterable[Rows]:
    """The same rows in larger pieces."""
    found: list[Rows] = []
    for rows in parts:
        found.append(rows)
        if sum(map(len, found)) >= _BATCH_ROWS:
            yield np.concatenate(found)
            found = []
    if found:
        yield np.concatenate(found)


def _seen(status: Any) -> Seen:
    return Seen(status.st_mtime_ns, status.st_size, status.st_ino)

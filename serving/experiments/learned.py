"""What closed sessions have taught, as the learner publishes it and every worker follows it: one file, replaced whole.

A table holds for a period and begins at a moment that is told before, so that all workers change to it at once and
units of one period had the same probabilities. A worker uses what fits the configuration that it runs: the experiment's
key, phase, arms and bins. Where nothing does, or the file is missing or broken, the fixed shares assign, or the tables
that were last good. No number of fewer than 50 units is in the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from features.allocation import Fixed, Table
from serving.experiments.configuration import Trial
from serving.syncing import sync

FILE: Final = "learned.json"
FORMAT: Final = 1


class Timed(msgspec.Struct, frozen=True):
    """Probabilities of the arms by bin of the score, from a moment on, ms UTC; made_ms: of what was known then."""

    from_ms: int
    made_ms: int
    bins: list[list[float]]


class Stopped(msgspec.Struct, frozen=True):
    """An arm whose guardrail was surely broken.

    worst: the change that was allowed; lift, high: of the goal in the wanted direction, and the bound, then.
    """

    arm: str
    goal: str
    at_ms: int
    worst: float
    lift: float
    high: float


class Watched(msgspec.Struct, frozen=True):
    """A guardrail and an arm as of now; None: not known, or of fewer than 50 units."""

    goal: str
    arm: str
    worst: float
    state: str
    lift: float | None = None
    low: float | None = None
    high: float | None = None


class Told(msgspec.Struct, frozen=True):
    """A goal and an arm beside the control as of now (`features.judging.verdicts`); None: not known.

    units, control_units: settled ones of known outcome. mean, control_mean: of the goal, a share for a binary one.
    lift: of the goal as it is counted, whichever direction is wanted; low, high: always valid. verdict: better, worse,
    open, invalid where the sample ratio is wrong, few with fewer than 50 units in either arm, of which nothing else is
    told.
    """

    goal: str
    arm: str
    verdict: str
    units: int | None = None
    control_units: int | None = None
    mean: float | None = None
    control_mean: float | None = None
    lift: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted_p: float | None = None


class Learned(msgspec.Struct):
    """Of one phase of an experiment.

    units: of each arm, None below 50; periods: that tables know. tables: what holds, and what will hold.
    ratio_p: of the sample ratio, at all looks, None where an arm has fewer than 50 units; ratio_alarm: it is wrong.
    results: of every goal and arm; at_ms: as of when, later than which nothing is counted once the experiment stopped.
    """

    phase: int
    arms: list[str]
    edges: list[float] = []
    units: list[int | None] = []
    tables: list[Timed] = []
    stopped: list[Stopped] = []
    guardrails: list[Watched] = []
    ratio_p: float | None = None
    ratio_alarm: bool = False
    results: list[Told] = []
    at_ms: int = 0


class Published(msgspec.Struct):
    """The file; at_ms: when sessions were last counted."""

    at_ms: int = 0
    experiments: dict[str, Learned] = {}
    format: int = FORMAT


class Standing(NamedTuple):
    """How an experiment assigns.

    tables: each with the moment from which it holds, ms UTC, the first one from ever; closed: places of arms that are
    given no longer.
    """

    tables: tuple[tuple[int, Table], ...]
    closed: frozenset[int] = frozenset()

    def table(self, now_ms: int) -> Table:
        """The table that holds."""
        found = self.tables[0][1]
        for from_ms, table in self.tables[1:]:
            if now_ms >= from_ms:
                found = table
        return found

    def from_ms(self, now_ms: int) -> int:
        """Since when it holds, ms UTC; 0: the fixed shares do."""
        return max((from_ms for from_ms, _ in self.tables if from_ms <= now_ms), default=0)

    def choose(self, number: float, score: float | None, now_ms: int, *, held: bool) -> tuple[int, float]:
        """The arm of a unit and its probability, as of `Table.choose`.

        Who would get a closed arm gets the control, and nobody else another arm than before.
        """
        table = self.table(now_ms)
        arm, propensity = table.choose(number, score, held=held)
        if self.closed:
            arm = 0 if arm in self.closed else arm
            if arm == 0:
                shares = table.of(score, held=held)
                propensity = shares[0] + sum(shares[place] for place in self.closed)
        return arm, propensity


class LearnedFile:
    """The file in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def read(self) -> Published:
        """What it says; nothing where there is none.

        Raises
        ------
        ValueError
            It cannot be used.
        """
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=Published)
        except FileNotFoundError:
            return Published()
        if found.format != FORMAT:
            raise ValueError(f"{self.path}: format {found.format}; this release reads {FORMAT}")
        return found

    def write(self, published: Published) -> None:
        """Replace it; a stop survives a power cut."""
        beside = self.path.with_name(f".{FILE}.{os.getpid()}")
        with beside.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(published), indent=1))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)
        sync(self.path.parent)

    def mark(self) -> tuple[int, int]:
        """What is another one when the file is another one."""
        try:
            status = self.path.stat()
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino


def standing_of(trial: Trial, learned: Learned | None) -> Standing:
    """How an experiment assigns in the light of what is known of it.

    Raises
    ------
    ValueError
        What is known is no table.
    """
    plan, arms = trial.plan, trial.definition.arms
    closed = {arms.index(arm) for arm in trial.definition.killed}
    tables = [(0, plan.table(plan.nothing(), 0))]
    if learned is not None and learned.phase == trial.definition.phase:
        closed |= {arms.index(one.arm) for one in learned.stopped if one.arm in arms[1:]}
    if learned is not None and fits(trial, learned) and not isinstance(plan.allocation, Fixed):
        known = sorted(learned.tables, key=lambda one: one.from_ms)
        tables += [(one.from_ms, _table(trial, one.bins)) for one in known]
    return Standing(tuple(tables), frozenset(closed))


def fits(trial: Trial, learned: Learned) -> bool:
    """Whether it is of this phase, these arms and bins."""
    return (learned.phase, tuple(learned.arms), tuple(learned.edges)) == (
        trial.definition.phase, trial.definition.arms, tuple(trial.plan.allocation.edges)
    )  # fmt: skip


def _table(trial: Trial, bins: Sequence[Sequence[float]]) -> Table:
    plan = trial.plan
    return Table(plan.arms, plan.allocation.edges, bins, plan.shares, plan.holdback)


def standings(trials: Mapping[str, Trial], published: Published) -> dict[str, Standing]:
    """By experiment.

    Raises
    ------
    ValueError
        Names the experiment of which something is no table.
    """
    found = {}
    for key, trial in trials.items():
        try:
            found[key] = standing_of(trial, published.experiments.get(key))
        except ValueError as error:
            raise ValueError(f"experiment {key}: {error}") from None
    return found

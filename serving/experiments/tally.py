"""What the units of one experiment add up to: evidence for its allocation, sums for its guardrails, its sample ratio.

In: rows of units as `rows_of` makes them out of closed sessions, to be counted, or to be taken back because their file
has changed. Out: a `State`, effects of arms, a p-value. Rows hold no pseudonym: of a visitor only which of 1,024
clusters he is in, so that several sessions of one do not count as independent.

What a visitor does in the session of the exposure is the outcome, for visitors as units, too: it is known soon, and
nothing has to be kept of anybody to add later sessions to it. A report adds them.

Units of the holdback count as all others do: within a period and bin it is chance who is in it, so arms are compared
fairly by both together, and what it tells of arms that the table hardly gives is not thrown away. Only the sample ratio
looks at it apart. Units whose arm a person chose are left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.allocation import Fixed, State, Sums
from features.allocation.evidence import bins_of
from features.experiments import CLOSED_SHIFT, FORCED, HOLDBACK, LEAST_UNITS, SCORES
from features.judging.effects import Effect, combine
from features.judging.means import Moments
from features.judging.ratio import p_of_strata
from features.units import exposing, happened, outcomes
from serving.experiments.configuration import Trial

CLUSTERS: Final = 1_024
_MINUTE_MS: Final = 60_000
# Of a stratum (period, in the holdback or not, bin) and arm: units, sum and sum of squares of propensities; units of
# known outcome, sum and sum of squares of outcomes.
_CELLS: Final = 6
# Variance of an arm's propensities in a stratum, and distance from what is expected: more is no rounding (they are
# noted in single precision).
_APART: Final = 1e-9
_ROUNDED: Final = 1e-5

Rows = npt.NDArray[Any]


def row_type(goals: int) -> np.dtype[Any]:
    """Of rows: begin of the period, ms; arm and bin; in the holdback; arms closed; cluster; propensity; outcomes."""
    return np.dtype(
        [("begin", "<i8"), ("arm", "<i2"), ("bin", "<i2"), ("held", "?"), ("closed", "u1"), ("cluster", "<i2"),
         ("propensity", "<f8"), ("outcome", "<f8", (goals,))]
    )  # fmt: skip


def rows_of(assigned: pd.DataFrame, trial: Trial, period_ms: int) -> Rows:
    """The units among rows of `features.units.assigned_in`: of this experiment and phase, not forced, once each."""
    definition, flags = trial.definition, assigned["flags"].to_numpy(np.int64)
    mine = (assigned["experiment"] == trial.number) & (assigned["phase"] == definition.phase)
    mine &= (flags & FORCED == 0) & exposing(assigned)
    mine &= (assigned["arm"] < len(definition.arms)) & (assigned["propensity"] > 0)
    here = assigned[mine]
    rows = np.zeros(len(here), row_type(len(definition.goals)))
    flags, exposed_at = here["flags"].to_numpy(np.int64), here["exposed_at"].to_numpy(np.int64)
    rows["begin"] = exposed_at // period_ms * period_ms
    rows["arm"] = here["arm"]
    score = here[trial.score].to_numpy(float) if trial.score in SCORES else np.full(len(here), np.nan)
    rows["bin"] = bins_of(score, trial.plan.allocation.edges)
    rows["held"] = flags & HOLDBACK > 0
    rows["closed"] = flags >> CLOSED_SHIFT
    rows["cluster"] = here["visitor"].to_numpy(np.int64) % CLUSTERS
    rows["propensity"] = here["propensity"]
    found = outcomes(here, definition)
    for place, goal in enumerate(definition.goals):
        rows["outcome"][:, place] = happened(found[goal.column], goal.kind)
    return rows


class Tally:
    """The sums of one phase of an experiment.

    Attributes
    ----------
    settled_until: periods that begin before, ms UTC, are over for so long that most of their sessions are, too.
    changes: another number after each time that something was counted.
    tables: probabilities by the moment from which they held, ms UTC, float64 [bin, arm].
    """

    def __init__(self, trial: Trial, period_ms: int) -> None:
        self.trial, self._period_ms = trial, period_ms
        definition = trial.definition
        self._shape = len(trial.plan.allocation.edges) + 2, len(definition.arms)
        self._goal = next(place for place, goal in enumerate(definition.goals) if goal.primary)
        # by begin of the period and how many arms were closed: [in the holdback, bin, arm, _CELLS]
        self._cells: dict[tuple[int, int], npt.NDArray[np.float64]] = {}
        # by how many arms were closed, and goal
        self._moments: dict[tuple[int, int], Moments] = {}
        self._waiting: dict[int, list[tuple[Rows, int]]] = defaultdict(list)
        self.settled_until, self.changes = -(2**62), 0
        # the sample ratio, and what it was made of: a year of periods takes half a second
        self._ratio: tuple[tuple[object, ...], float | None] | None = None
        self.tables: dict[int, npt.NDArray[np.float64]] = {}

    @property
    def settle_ms(self) -> float:
        """How long after a period its units are counted: sessions that close early are not like others."""
        return float(getattr(self.trial.plan.allocation, "settle_minutes", 60.0)) * _MINUTE_MS

    def add(self, rows: Rows, sign: int = 1) -> None:
        """Count rows, or with sign -1 count them no longer."""
        self.changes += 1
        bins, arms = self._shape
        for begin, closed in np.unique(rows[["begin", "closed"]]).tolist():
            here = rows[(rows["begin"] == begin) & (rows["closed"] == closed)]
            place = (here["held"].astype(int) * bins + here["bin"]) * arms + here["arm"]
            outcome = here["outcome"][:, self._goal]
            known = ~np.isnan(outcome)
            p, y = here["propensity"], np.where(known, outcome, 0.0)
            columns = (np.ones(len(here)), p, p**2, known * 1.0, y, y**2)
            size = 2 * bins * arms
            sums = np.stack([np.bincount(place, column, size) for column in columns], axis=-1)
            cells = self._cells.setdefault((begin, closed), np.zeros((2, bins, arms, _CELLS)))
            cells += sign * sums.reshape(cells.shape)
            if begin < self.settled_until:
                self._judge(here, sign)
            else:
                self._waiting[begin].append((here, sign))

    def settle(self, now_ms: int) -> None:
        """From now on count for results and guardrails what has settled."""
        self.settled_until = max(self.settled_until, self._settled(now_ms))
        for begin in [one for one in self._waiting if one < self.settled_until]:
            for rows, sign in self._waiting.pop(begin):
                self._judge(rows, sign)

    def _settled(self, now_ms: int) -> int:
        return int(now_ms - self.settle_ms - self._period_ms) + 1

    def _judge(self, rows: Rows, sign: int) -> None:
        for closed in np.unique(rows["closed"]).tolist():
            here = rows[rows["closed"] == closed]
            arm, weight, cluster = here["arm"].astype(int), 1 / here["propensity"], here["cluster"].astype(int)
            for goal in range(len(self.trial.definition.goals)):
                sums = Moments.of(here["outcome"][:, goal], arm, self._shape[1], weight, cluster, CLUSTERS)
                before = self._moments.get((closed, goal)) or Moments.nothing(self._shape[1], CLUSTERS)
                self._moments[closed, goal] = before + sums if sign > 0 else before - sums

    def units(self) -> list[int]:
        """Of each arm, settled or not."""
        total = sum((cells[..., 0].sum(axis=(0, 1)) for cells in self._cells.values()), np.zeros(self._shape[1]))
        return [int(count) for count in np.rint(total).tolist()]

    def first_ms(self) -> int | None:
        """The period of the first exposures, ms UTC; None with fewer than 50 units."""
        begins = [begin for (begin, _), cells in self._cells.items() if cells[..., 0].sum() > 0.5]
        return min(begins) if begins and sum(self.units()) >= LEAST_UNITS else None

    def state(self, from_ms: int) -> State:
        """What an allocation learns from for a table that holds from then on: periods that have settled by then."""
        until, state = self._settled(from_ms), self.trial.plan.nothing()
        entries = {}
        for (begin, closed), cells in self._cells.items():
            if begin < until and cells[..., 3].any():
                units, total, square = (cells[..., column].sum(axis=0) for column in (3, 4, 5))
                entries[f"closed sessions, {closed}", begin] = Sums(units, total, square)
        return State(state.arms, state.edges, entries)

    def effects(self, goal: str) -> dict[str, Effect | None]:
        """Each arm beside the control, None where one of them has fewer than 50 units."""
        definition, found = self.trial.definition, []
        place = next(place for place, one in enumerate(definition.goals) if one.name == goal)
        for (_, other), moments in sorted(self._moments.items()):
            there = [int(arm) for arm in np.flatnonzero(moments.units > 2)]
            if other == place and len(there) > 1:
                means = moments.of_arms(there).means()
                found += [] if means is None else [(there, means)]
        named = definition.goals[place]
        return {
            arm: combine(named, arm, number, found, LEAST_UNITS)
            for number, arm in enumerate(definition.arms[1:], 1)
        }  # fmt: skip

    def ratio_p(self, closed: Collection[str]) -> float | None:
        """Whether units came into the arms as they were assigned, at all looks; None with fewer than 50 in all.

        closed: arms that are given no longer. A stratum is left out where probabilities are not those of the table that
        held, because they changed within the period, or another machine has assigned.
        """
        known = self.changes, self.settled_until // self._period_ms, frozenset(closed), len(self.tables)
        if self._ratio is None or self._ratio[0] != known:
            self._ratio = known, self._ratio_p(closed)
        return self._ratio[1]

    def _ratio_p(self, closed: Collection[str]) -> float | None:
        moments = sorted(self.tables)
        counts, shares = [np.zeros((0, self._shape[1]), np.int64)], [np.zeros((0, self._shape[1]))]
        for (begin, number), cells in self._cells.items():
            if begin >= self.settled_until:
                continue
            held = moments[bisect_right(moments, begin) - 1] if moments and moments[0] <= begin else None
            expected = self._expected(held, closed if number else ())
            units, p, square = (cells[..., column] for column in range(3))
            there = units > 0.5
            logged = np.where(there, p / np.maximum(units, 1), expected)
            steady = (square / np.maximum(units, 1) - logged**2 < _APART) & (np.abs(logged - expected) < _ROUNDED)
            kept = (steady | ~there).all(axis=-1) & there.any(axis=-1) & (number in (0, len(closed)))
            counts.append(np.rint(units[kept]).astype(np.int64))
            shares.append(expected[kept])
        every = np.concatenate(counts)
        if every.sum() < LEAST_UNITS:
            return None
        return p_of_strata(every, np.concatenate(shares), fixed=isinstance(self.trial.plan.allocation, Fixed))

    def _expected(self, held: int | None, closed: Collection[str]) -> npt.NDArray[np.float64]:
        """Probabilities, float64 [in the holdback, bin, arm], where the table of `held` holds, if there is one."""
        plan, found = self.trial.plan, np.zeros((2, *self._shape))
        # before the first table the shares hold, squeezed into what the smallest one leaves
        found[0] = plan.table(plan.nothing(), 0).bins if held is None else self.tables[held]
        found[1] = plan.shares
        for arm in closed:
            place = plan.arms.index(arm)
            found[..., 0] += found[..., place]
            found[..., place] = 0
        return found


def bounded(values: Sequence[float | None]) -> list[float | None]:
    """What JSON can say: None for what has no bound."""
    return [None if value is None or not np.isfinite(value) else float(value) for value in values]

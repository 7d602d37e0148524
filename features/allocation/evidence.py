"""What an allocation has learned: sums of outcomes by arm and bin of the score, kept by the period of the exposure.

In: rows of closed sessions with arm, score at the trigger and outcome. Out: a `State` that is small, written as
JSON, and the same whichever way it came about. A missing outcome is not counted; a missing score has a bin of its own,
the last.

A state holds an entry for each source (the log of a worker, of a node) and period, made of all rows of it at once. To
see a period again replaces its entry, so replays change nothing; of two versions of an entry the one with more units
holds, because the log of a period only grows, so states merge in any order (a grow-only counter, Shapiro et al. 2011).
A period must not be longer than a table of probabilities holds: outcomes are compared within periods.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np

DAY_MS: Final = 86_400_000
FORMAT: Final = 1


class StateError(ValueError):
    """A state that cannot be read, or is of other arms or bins than expected."""


@dataclass(frozen=True)
class Sums:
    """Sums over units by bin and arm, all float64 (B, A): units: how many; total, square: of their outcomes."""

    units: np.ndarray
    total: np.ndarray
    square: np.ndarray

    @classmethod
    def of(
        cls,
        arms: int,
        edges: Sequence[float],
        *,
        arm: np.ndarray,
        score: np.ndarray,
        outcome: np.ndarray,
        cap: float | None = None,
    ) -> Sums:
        """Count rows: arm int64, score and outcome float64, all (n,); outcomes above `cap` count as it.

        Raises
        ------
        ValueError
            An arm is none of the experiment's.
        """
        known = ~np.isnan(outcome)
        arm, score, outcome = arm[known], score[known], outcome[known]
        if len(arm) and not (arm.min() >= 0 and arm.max() < arms):
            raise ValueError(f"arms from {arm.min()} to {arm.max()}; this experiment has {arms}, counted from 0")
        if cap is not None:
            outcome = np.minimum(outcome, cap)
        place = bins_of(score, edges) * arms + arm
        shape = (len(edges) + 2, arms)
        columns = (np.ones(len(arm)), outcome, outcome**2)
        return cls(*(np.bincount(place, column, shape[0] * arms).reshape(shape) for column in columns))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.units + other.units, self.total + other.total, self.square + other.square)


def bins_of(score: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """The bin of each score, int64 (n,): below the first edge is 0; a missing one has the last, len(edges) + 1.

    >>> bins_of(np.array([0.05, 0.1, 0.9, np.nan]), (0.1, 0.5)).tolist()
    [0, 1, 2, 3]
    """
    found = np.searchsorted(np.asarray(edges, float), score, "right")
    return np.where(np.isnan(score), len(edges) + 1, found)


@dataclass(frozen=True, eq=False)
class State:
    """Everything that was learned in one phase of an experiment.

    Attributes
    ----------
    arms: their keys, the control first; edges: where the bins of the score part.
    entries: by source and the period's begin, ms UTC.

    >>> rows = {"arm": np.array([0, 1]), "score": np.array([0.2, 0.2])}
    >>> today = Sums.of(2, (), **rows, outcome=np.array([0.0, 1.0]))
    >>> state = State(("control", "banner")).seen("worker-1", 20_000 * DAY_MS, today)
    >>> state.seen("worker-1", 20_000 * DAY_MS, today) == state  # a replay
    True
    """

    arms: tuple[str, ...]
    edges: tuple[float, ...] = ()
    entries: Mapping[tuple[str, int], Sums] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    @property
    def units(self) -> int:
        """How many units were counted."""
        return round(sum(float(sums.units.sum()) for sums in self.entries.values()))

    @property
    def informative(self) -> bool:
        """Whether anything is known by which arms could be told apart: outcomes that are not all the same."""
        units, total, square = (
            sum(float(getattr(sums, name).sum()) for sums in self.entries.values())
            for name in ("units", "total", "square")
        )
        return units > 1 and square * units > total**2 * (1 + 1e-12)

    def seen(self, source: str, begin_ms: int, sums: Sums) -> State:
        """With all rows that `source` has of a period, in the place of what it had of it, unless that was more."""
        key = (source, begin_ms)
        if key in self.entries and not _larger(sums, self.entries[key]):
            return self
        return replace(self, entries={**self.entries, key: sums})

    def merged(self, other: State) -> State:
        """What both know.

        Raises
        ------
        StateError
            They are of different arms or bins.
        """
        self.must_fit(other.arms, other.edges)
        found = self
        for (source, begin_ms), sums in other.entries.items():
            found = found.seen(source, begin_ms, sums)
        return found

    def since(self, begin_ms: int) -> State:
        """Without earlier periods: after ten half-lives one counts a thousandth."""
        return replace(self, entries={key: sums for key, sums in self.entries.items() if key[1] >= begin_ms})

    def by_period(self) -> dict[int, Sums]:
        """The sums of all sources by the period's begin, earliest first."""
        found: dict[int, Sums] = {}
        for (_, begin_ms), sums in sorted(self.entries.items()):
            found[begin_ms] = found[begin_ms] + sums if begin_ms in found else sums
        return dict(sorted(found.items()))

    def must_fit(self, arms: Sequence[str], edges: Sequence[float]) -> None:
        """Nothing, if the state is of these arms and edges.

        Raises
        ------
        StateError
            It is not.
        """
        if (self.arms, self.edges) != (tuple(arms), tuple(edges)):
            raise StateError(
                f"a state of arms {self.arms} and edges {self.edges}, expected {tuple(arms)} and {tuple(edges)}; "
                "when arms or bins change, begin a new phase with an empty state"
            )

    def to_json(self) -> str:
        """As text, the same for equal states."""
        entries = [
            {"source": source, "begin_ms": begin_ms}
            | {one.name: getattr(sums, one.name).tolist() for one in fields(sums)}
            for (source, begin_ms), sums in sorted(self.entries.items())
        ]  # fmt: skip
        whole = {"format": FORMAT, "arms": self.arms, "edges": self.edges, "entries": entries}
        return json.dumps(whole, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> State:
        """What `to_json` wrote.

        Raises
        ------
        StateError
            It is no state.
        """
        try:
            found: dict[str, Any] = json.loads(text)
            if found["format"] != FORMAT:
                raise StateError(f"allocation state of format {found['format']}; this release reads {FORMAT}")
            arms, edges = tuple(map(str, found["arms"])), tuple(map(float, found["edges"]))
            entries = {
                (str(one["source"]), int(one["begin_ms"])): Sums(*(np.array(one[f.name], float) for f in fields(Sums)))
                for one in found["entries"]
            }
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, StateError):
                raise
            raise StateError(f"no allocation state: {error!r}; expected what State.to_json wrote") from None
        shape = (len(edges) + 2, len(arms))
        for key, sums in entries.items():
            if any(getattr(sums, one.name).shape != shape for one in fields(sums)):
                raise StateError(f"entry {key} is not of {shape[0]} bins and {shape[1]} arms")
        return cls(arms, edges, entries)


def _larger(one: Sums, other: Sums) -> bool:
    """Of more units; of as many, one order holds for all who compare, so that merging commutes."""
    return (one.units.sum(), one.total.tolist(), one.square.tolist()) > (
        other.units.sum(), other.total.tolist(), other.square.tolist()
    )  # fmt: skip

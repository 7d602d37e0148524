"""Which arm a unit is given: plug-ins that turn what was learned into probabilities, inside a frame none can leave.

A plug-in is a class with an entry point in the group `lotse.allocations`: a typed model of its options
(`features.settings.Settings`) with `edges` and `probabilities`. Everything else is the frame's: the holdback, the
smallest share, the state, the look-up. In: a `State` of closed sessions. Out: a `Table`. No I/O.

>>> plan = Plan(("control", "banner"), (0.5, 0.5), allocation=allocation_of({"name": "thompson"}))
>>> plan.table(plan.nothing(), now_ms=0).of()
(0.5, 0.5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
from pydantic import ValidationError

from features.allocation.adaptive import Adaptive, Goal
from features.allocation.contextual import Contextual
from features.allocation.evidence import DAY_MS, State, StateError, Sums
from features.allocation.fixed import Fixed
from features.allocation.table import Table
from features.allocation.thompson import Thompson
from features.settings import SettingsError

__all__ = [
    "DAY_MS",
    "Adaptive",
    "Allocation",
    "Contextual",
    "Fixed",
    "Goal",
    "Plan",
    "State",
    "StateError",
    "Sums",
    "Table",
    "Thompson",
    "allocation_of",
]


class Allocation(Protocol):
    """A plug-in. `edges` part the score into bins; empty: the score does not matter."""

    @property
    def edges(self) -> tuple[float, ...]: ...

    def probabilities(self, state: State, shares: tuple[float, ...], goal: Goal, now_ms: int) -> np.ndarray:
        """Probabilities of the arms as of now, float64 (1, A), or (len(edges) + 2, A) by bin: the last
        is of units without a score. shares: the experiment's own, for as long as nothing is known."""
        ...


def allocation_of(options: Mapping[str, Any]) -> Allocation:
    """The plug-in of an experiment's `allocation`: `name` and its options.

    Raises
    ------
    SettingsError
        No such plug-in, an option it does not know, or a value that it cannot take.

    >>> allocation_of({"name": "fixed"})
    Fixed(edges=(), settle_minutes=60.0)
    """
    found = {point.name: point for point in entry_points(group="lotse.allocations")}
    name = options.get("name", "fixed")
    if name not in found:
        raise SettingsError(f"allocation.name: unknown allocation {name!r}; known: {', '.join(sorted(found))}")
    model = found[name].load()
    try:
        plugin: Allocation = model(**{key: value for key, value in options.items() if key != "name"})
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                lines.append(f"allocation.{key}: unknown option of {name!r}; known: {', '.join(model.model_fields)}")
            else:
                lines.append(f"allocation.{key}: {problem['msg']} (found {problem['input']!r})")
        raise SettingsError("; ".join(lines)) from None
    return plugin


@dataclass(frozen=True)
class Plan:
    """How units of one phase of an experiment are allocated.

    Attributes
    ----------
    arms: their keys, the control first; shares: theirs in the holdback, and to begin with.
    holdback: how many units are always assigned by the fixed shares; minimum_share: of each arm among the others.

    Raises
    ------
    SettingsError
        Shares, holdback and minimum share do not fit together.
    """

    arms: tuple[str, ...]
    shares: tuple[float, ...]
    allocation: Allocation = field(default_factory=Fixed)
    goal: Goal = field(default_factory=Goal)
    holdback: float = 0.1
    minimum_share: float = 0.05

    def __post_init__(self) -> None:
        arms = len(self.arms)
        if arms < 2 or len(self.shares) != arms or min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise SettingsError(
                f"shares {self.shares} of arms {self.arms}; expected one above 0 for each, summing to 1"
            )
        if not 0 <= self.minimum_share <= 1 / arms:
            raise SettingsError(f"minimum_share {self.minimum_share}; expected 0 to {1 / arms:.3g} for {arms} arms")
        if not 0 <= self.holdback <= 1:
            raise SettingsError(f"holdback {self.holdback}; expected 0 to 1")

    def nothing(self) -> State:
        """The state that a phase begins with."""
        return State(self.arms, tuple(self.allocation.edges))

    def sums(self, rows: Mapping[str, np.ndarray], now_ms: int) -> Sums:
        """What rows of closed sessions tell: arm (int64, its number), score, outcome, exposed_at (ms UTC), all (n,).

        Units whose outcome is not known, or that are too young to be counted, are left for the next time.
        """
        settle_minutes = getattr(self.allocation, "settle_minutes", 0.0)
        settled = rows["exposed_at"] <= now_ms - settle_minutes * 60_000
        chosen = {name: np.asarray(rows[name])[settled] for name in ("arm", "score", "outcome")}
        return Sums.of(len(self.arms), self.allocation.edges, **chosen, cap=self.goal.cap)

    def table(self, state: State, now_ms: int) -> Table:
        """The probabilities as of now: the plug-in's, none below `minimum_share`.

        Raises
        ------
        StateError
            The state is of other arms or bins.
        ValueError
            The plug-in returned no probabilities.
        """
        edges = tuple(self.allocation.edges)
        state.must_fit(self.arms, edges)
        found = np.asarray(self.allocation.probabilities(state, self.shares, self.goal, now_ms), float)
        lines = np.broadcast_to(found, (len(edges) + 2, len(self.arms)))
        if not (np.isfinite(lines).all() and (lines >= 0).all() and np.allclose(lines.sum(axis=1), 1, atol=1e-6)):
            raise ValueError(f"{type(self.allocation).__name__} returned {lines.tolist()}; expected probabilities")
        if isinstance(self.allocation, Fixed):
            return Table(self.arms, edges, lines.tolist(), self.shares, self.holdback)
        free = 1 - self.minimum_share * len(self.arms)
        lifted = self.minimum_share + free * lines / lines.sum(axis=1, keepdims=True)
        return Table(self.arms, edges, lifted.tolist(), self.shares, self.holdback)


def merged(states: Sequence[State]) -> State:
    """What several workers know together; of at least one."""
    found = states[0]
    for one in states[1:]:
        found = found.merged(one)
    return found

"""Probabilities of arms by bin of the score: made when a state changes, looked up when a unit is assigned.

A unit brings a number in [0, 1), uniform and its own (a keyed hash), so that the same unit is given the same arm by the
same table in every worker. What the look-up returns beside the arm is the exact probability of having been given it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

FORMAT: Final = 1
_WHOLE: Final = 1e-6


class Table:
    """The probabilities of each arm.

    Attributes
    ----------
    arms: their keys; edges: where bins of the score part; bins: a line of probabilities a bin, the last of units
    without a score; shares: the fixed ones of the holdback; holdback: how many units are in it.

    >>> table = Table(("control", "banner"), (0.5,), [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], (0.5, 0.5), holdback=0.1)
    >>> table.choose(0.95, score=0.7)
    (1, 0.8)
    >>> table.choose(0.95, score=0.7, held=True)
    (1, 0.5)
    """

    def __init__(
        self,
        arms: Sequence[str],
        edges: Sequence[float],
        bins: Sequence[Sequence[float]],
        shares: Sequence[float],
        holdback: float,
    ) -> None:
        self.arms, self.edges, self.holdback = tuple(arms), tuple(edges), holdback
        self.shares = tuple(map(float, shares))
        self.bins = tuple(tuple(map(float, line)) for line in bins)
        if len(self.bins) != len(self.edges) + 2:
            raise ValueError(f"{len(self.bins)} bins for {len(self.edges)} edges; expected {len(self.edges) + 2}")
        for line in (*self.bins, self.shares):
            if len(line) != len(self.arms) or min(line) < 0 or abs(sum(line) - 1) > _WHOLE:
                raise ValueError(f"probabilities {line} of {len(self.arms)} arms; expected as many, summing to 1")
        self._edges = list(self.edges)
        # the last end is left out: rounding must not leave a gap below 1
        self._ends = [list(accumulate(line))[:-1] for line in self.bins]
        self._held_ends = list(accumulate(self.shares))[:-1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self.as_json() == other.as_json()

    __hash__ = None  # type: ignore[assignment]

    def of(self, score: float | None = None, *, held: bool = False) -> tuple[float, ...]:
        """The probability of each arm for a unit; held: it is in the holdback."""
        if held:
            return self.shares
        return self.bins[self._bin(score)]

    def choose(self, number: float, score: float | None = None, *, held: bool = False) -> tuple[int, float]:
        """The arm of a unit and its probability; number: the unit's own, in [0, 1)."""
        if held:
            arm = bisect_right(self._held_ends, number)
            return arm, self.shares[arm]
        place = self._bin(score)
        arm = bisect_right(self._ends[place], number)
        return arm, self.bins[place][arm]

    def _bin(self, score: float | None) -> int:
        if score is None or score != score:  # noqa: PLR0124  (NaN: math.isnan takes twice as long)
            return -1
        return bisect_right(self._edges, score)

    def as_json(self) -> dict[str, Any]:
        """For the workers that choose by it."""
        return {
            "format": FORMAT,
            "arms": list(self.arms),
            "edges": list(self.edges),
            "bins": [list(line) for line in self.bins],
            "shares": list(self.shares),
            "holdback": self.holdback,
        }

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.as_json(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Table:
        """What `to_json` wrote.

        Raises
        ------
        ValueError
            It is no table.
        """
        try:
            found = json.loads(text)
            if found["format"] != FORMAT:
                raise ValueError(f"allocation table of format {found['format']}; this release reads {FORMAT}")
            return cls(found["arms"], found["edges"], found["bins"], found["shares"], found["holdback"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"no allocation table: {error!r}; expected what Table.to_json wrote") from None

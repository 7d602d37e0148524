"""Who of the crowd is in the shop just now, for a visitor who wants to know where they stand among the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

# Nobody can see that a visitor has gone: one who was silent for so long is counted no more.
PRESENT_SECONDS: Final = 120.0


class Board:
    """The crowd's sessions that went on lately, with their scores as of their latest events.

    >>> board = Board(clock=iter([0.0, 1.0, 1.0]).__next__)
    >>> board.tell("a", {"exit": 0.25}); board.tell("b", {"exit": 0.1234})
    >>> board.scores()
    {'sessions': 2, 'scores': {'exit': [12.3, 25.0]}}
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest: dict[str, tuple[float, Mapping[str, float]]] = {}

    def tell(self, visitor: str, scores: Mapping[str, float]) -> None:
        """An event of a visitor was answered with these scores."""
        self._latest.pop(visitor, None)  # so that the oldest come first
        self._latest[visitor] = self._clock(), scores

    def scores(self) -> dict[str, Any]:
        """How many sessions there are, and of each head their scores, in per cent, from the lowest to the highest."""
        oldest = self._clock() - PRESENT_SECONDS
        while self._latest and next(iter(self._latest.values()))[0] < oldest:
            del self._latest[next(iter(self._latest))]
        by_head: dict[str, list[float]] = {}
        for _, scores in self._latest.values():
            for head, score in scores.items():
                by_head.setdefault(head, []).append(round(score * 100, 1))
        return {"sessions": len(self._latest), "scores": {head: sorted(found) for head, found in by_head.items()}}

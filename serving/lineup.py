"""Who folds and scores a visitor: generations by the fold that records are folded with, and in each who scores.

In a generation the champions score; or the champions while challengers look on; or, as a canary, the challengers. Who
is answered by a canary is taken from the visitor's pseudonym, so it stays the same in every worker.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from features.compiler import Fold
from serving.heads import Head
from serving.memory import Memories
from serving.scorer import Scorer
from serving.sessions import Sessions
from serving.shadow import Comparison, Shadowed
from serving.stores import Value

# Pseudonyms are keyed hashes: any of their bits are as good as random.
_CANARY_SHIFT: Final = 32
_PARTS: Final = 1 << 16


class Generation:
    """One fold, its buffer, and what scores its features.

    Attributes
    ----------
    champions: the scorer of all who are in no other part; used: whether a running session was folded with it, here or
    in another worker, since somebody looked; untold: whether one was here since the other workers were told.
    """

    def __init__(
        self,
        sessions: Sessions,
        champions: Scorer,
        challengers: Mapping[str, Head],
        prior: Mapping[str, float],
        comparison: Comparison,
        *,
        shadow_share: float,
        canary_share: float,
    ) -> None:
        self.sessions, self.fold, self.champions = sessions, sessions.fold, champions
        self.memories = Memories(sessions)
        self.used = self.untold = False
        self._challengers = dict(challengers)
        self._shadow_share = shadow_share if challengers else 0.0
        self._canary_below = round(canary_share * _PARTS) if challengers else 0
        self._shadowed = self._canary = champions
        if self._shadow_share:
            self._shadowed = Shadowed(champions, self._challengers, prior, self.fold, comparison)
        if self._canary_below:
            self._canary = Scorer({**champions.heads, **self._challengers}, prior, champions.reasons, self.fold)

    @property
    def champions_only(self) -> bool:
        """Whether nobody else ever scores."""
        return not self._shadow_share and not self._canary_below

    def looked_on(self) -> bool:
        """Whether challengers score beside the champions this time; drawn by turn, because a turn is scored whole."""
        return self._shadow_share > 0 and random.random() < self._shadow_share

    def scorer(self, visitor: int, *, looked_on: bool = False) -> Scorer:
        """Who scores the visitor, a pseudonym."""
        if self._canary_below and (visitor >> _CANARY_SHIFT) % _PARTS < self._canary_below:
            return self._canary
        return self._shadowed if looked_on else self.champions

    def tally(self) -> list[dict[str, tuple[list[int], float]]]:
        """Of every scorer what `Scorer.tally` tells."""
        return [scorer.tally() for scorer in {self.champions, self._shadowed, self._canary}]

    def describe(self) -> dict[str, Any]:
        """What scores here, for people."""
        described = self.champions.describe()
        for name, head in self._challengers.items():
            described[name]["challenger"] = head.version
        return described


class Lineup:
    """What serves at a time. It is never changed: a swap is another lineup.

    Attributes
    ----------
    generations: the first is the one in which new sessions start; running ones end in the one they started in.
    registered: by head and version when it was registered, seconds since 1970, where the registry told.
    """

    def __init__(
        self, generations: Sequence[Generation], registered: Mapping[tuple[str, str], float] | None = None
    ) -> None:
        self.generations = tuple(generations)
        self.registered = dict(registered or {})
        self.newest = self.generations[0]

    @property
    def champions(self) -> Scorer:
        """Of the newest generation."""
        return self.newest.champions

    @property
    def fold(self) -> Fold:
        """Of the newest generation."""
        return self.newest.fold

    def tally(self) -> list[dict[str, tuple[list[int], float]]]:
        """Of every scorer what `Scorer.tally` tells."""
        return [tally for one in self.generations for tally in one.tally()]

    def generation(self, value: Value) -> Generation | None:
        """The generation whose fold a record was made with, if there is one."""
        for one in self.generations:
            if one.sessions.fits(value):
                return one
        return None

"""Who folds and scores: generations, by the fold that records are folded with, and in each its champions.

New sessions start in the newest generation; one that runs ends in the generation it started in. Challengers stand
beside the champions of the newest, see `serving.shadow`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from features.compiler import Fold
from serving.group import Memories
from serving.heads import Head
from serving.scorer import Scorer
from serving.sessions import Sessions
from serving.shadow import Comparison, Shadowed
from serving.stores import Value

# Pseudonyms are keyed hashes: any of their bits are as good as random. Two parts take different ones.
_SHADOW_SHIFT: Final = 8
_CANARY_SHIFT: Final = 32
_PARTS: Final = 1 << 16


class Generation:
    """One fold, and what scores its features.

    Attributes
    ----------
    used: whether a running session was folded with it since somebody looked.
    """

    def __init__(self, sessions: Sessions, champions: Scorer, beside: Beside | None, shadow_share: float) -> None:
        self.sessions, self.fold, self.champions = sessions, sessions.fold, champions
        self.memories = Memories(sessions)
        self.used = False
        self._beside, self._share, self._due = beside, shadow_share, 0.0

    def scorer(self) -> Scorer:
        """Who scores the next turn: of all turns the share in which challengers look on, and all where some visitors
        are answered by them."""
        if self._beside is None:
            return self.champions
        self._due += 1.0 if self._beside.answers else self._share
        if self._due < 1.0:
            return self.champions
        self._due -= 1.0
        return self._beside

    def tally(self) -> dict[str, tuple[list[int], float]]:
        """Scores of the champions since this was asked last, as `Scorer.tally` tells them."""
        found = self.champions.tally()
        for name, (counts, total) in self._beside.tally().items() if self._beside else ():
            known, sum_known = found[name]
            found[name] = [one + more for one, more in zip(known, counts, strict=True)], sum_known + total
        return found

    def tally(self) -> list[dict[str, tuple[list[int], float]]]:
        """Of every scorer what `Scorer.tally` tells."""
        return [scorer.tally() for scorer in {self.champions, self._shadowed, self._canary}]

    def describe(self) -> dict[str, Any]:
        """What scores here, for people."""
        described = self.champions.describe()
        for name, version in self._beside.challengers.items() if self._beside else ():
            described[name]["challenger"] = version
        return described


class Lineup:
    """What serves at a time. It is never changed: a swap is another lineup.

    Attributes
    ----------
    generations: the first is the newest, in which new sessions start.
    """

    def __init__(self, generations: Sequence[Generation]) -> None:
        self.generations = tuple(generations)
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

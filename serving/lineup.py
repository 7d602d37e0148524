"""Who folds and scores: generations, by the fold that records are folded with, and in each its champions.

New sessions start in the newest generation; one that runs ends in the generation it started in. Challengers stand
beside the champions of the newest, see `serving.shadow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from features.compiler import Fold
from features.sessions import HEADER_LAST_AT
from serving.scorer import Scorer
from serving.sessions import Sessions, is_handed_on, word_of
from serving.shadow import Beside
from serving.stores import Found


class Generation:
    """One fold, and what scores its features.

    Attributes
    ----------
    used: whether a running session was folded with it since somebody looked.
    """

    def __init__(self, sessions: Sessions, champions: Scorer, beside: Beside | None, shadow_share: float) -> None:
        self.sessions, self.fold, self.champions = sessions, sessions.fold, champions
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

    def generation(self, value: bytes | memoryview) -> Generation | None:
        """The generation whose fold a record was made with, if there is one."""
        for one in self.generations:
            if one.sessions.fits(value):
                return one
        return None

    def home(self, found: Found, first_ms: int) -> Generation:
        """Where a visit is folded whose first event is of `first_ms`: where its session runs, or the newest."""
        values = [] if found.value is None else [found.value]
        for value in (*values, *(other for _, other in found.others)):
            one = self.generation(value)
            if one is None or one is self.newest or is_handed_on(value):
                continue
            if first_ms - word_of(value, HEADER_LAST_AT) <= one.sessions.timeout_ms:
                one.used = True
                return one
        return self.newest

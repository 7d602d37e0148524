"""Who scores a visitor: the champions; the champions while challengers look on; or, as a canary, the challengers.

A visitor's part is taken from its pseudonym, so it stays the same for all of a session, in every worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from features.compiler import Fold
from serving.scorer import Head, Scorer
from serving.shadow import Comparison, Shadowed

# Pseudonyms are keyed hashes: any of their bits are as good as random. Two parts take different ones.
_SHADOW_SHIFT: Final = 8
_CANARY_SHIFT: Final = 32
_PARTS: Final = 1 << 16


class Lineup:
    """What scores at a time. It is never changed: a swap is another lineup.

    Attributes
    ----------
    champions: the scorer of all who are in no other part.
    """

    def __init__(
        self,
        champions: Scorer,
        challengers: Mapping[str, Head],
        fold: Fold,
        prior: Mapping[str, float],
        comparison: Comparison,
        *,
        shadow_share: float,
        canary_share: float,
    ) -> None:
        self.champions = champions
        self._challengers = dict(challengers)
        self._shadow_below = round(shadow_share * _PARTS) if challengers else 0
        self._canary_below = round(canary_share * _PARTS) if challengers else 0
        self._alone = not (self._shadow_below or self._canary_below)
        self._shadowed = self._canary = champions
        if self._shadow_below:
            self._shadowed = Shadowed(champions, self._challengers, prior, fold, comparison)
        if self._canary_below:
            self._canary = Scorer({**champions.heads, **self._challengers}, prior, champions.reasons, fold)

    def scorer(self, visitor: int) -> Scorer:
        """Who scores the visitor, a pseudonym."""
        if self._alone:
            return self.champions
        if (visitor >> _CANARY_SHIFT) % _PARTS < self._canary_below:
            return self._canary
        if (visitor >> _SHADOW_SHIFT) % _PARTS < self._shadow_below:
            return self._shadowed
        return self.champions

    def describe(self) -> dict[str, Any]:
        """What scores here, for people."""
        described = self.champions.describe()
        for name, head in self._challengers.items():
            described[name]["challenger"] = head.version
        return described

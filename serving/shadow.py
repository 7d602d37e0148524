"""Challengers in the shadow: they score the same rows as the champions, and nobody is answered with it.

What is kept of it are sums and histograms, by head and by the two versions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from features.compiler import Fold
from serving.explain import Asked
from serving.heads import Head
from serving.metrics import Tally
from serving.scorer import Scorer, Scores, Sheet

# Not a name that a head may have.
_MARK: Final = " "
_TENTHS: Final = tuple(tenth / 10 for tenth in range(1, 11))
# Of a pair of versions that do not meet any more, nothing is told after so many others.
_PAIRS: Final = 20


class Pair:
    """A champion and a challenger that scored the same rows."""

    def __init__(self) -> None:
        self.champion, self.challenger = Tally(_TENTHS), Tally(_TENTHS)
        self.rows, self.difference = 0, 0.0

    def add(self, champion: float, challenger: float) -> None:
        """Both scores of one row."""
        self.champion.add(champion)
        self.challenger.add(challenger)
        self.rows += 1
        self.difference += abs(challenger - champion)

    def psi(self) -> float:
        """Population stability index of the challenger's scores against the champion's, by tenths of the scores.

        sum of (p - q) ln(p / q), half a row added to each tenth. Siddiqi, Credit Risk Scorecards, 2006. NaN before
        there are rows.
        """
        if not self.rows:
            return math.nan
        total = self.rows + 0.5 * len(self.champion.counts)
        shares = [
            ((one + 0.5) / total, (other + 0.5) / total)
            for one, other in zip(self.champion.counts, self.challenger.counts, strict=True)
        ]
        return sum((p - q) * math.log(p / q) for q, p in shares)


class Comparison:
    """All pairs that have met, by head and the versions of champion and challenger."""

    def __init__(self) -> None:
        self.pairs: dict[tuple[str, str, str], Pair] = {}

    def pair(self, head: str, champion: str, challenger: str) -> Pair:
        """The pair, a new one where they never met."""
        pair = self.pairs.pop((head, champion, challenger), None) or Pair()
        self.pairs[head, champion, challenger] = pair
        while len(self.pairs) > _PAIRS:
            del self.pairs[next(iter(self.pairs))]
        return pair

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before it is collected."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Called by Prometheus' registry."""
        labels = ["head", "champion", "challenger"]
        scores = HistogramMetricFamily(
            "lotse_shadow_score", "Scores of challengers that nobody was answered with.", labels=labels
        )
        rows = CounterMetricFamily("lotse_shadow_rows", "Rows scored by champion and challenger.", labels=labels)
        mean = GaugeMetricFamily(
            "lotse_shadow_mean_difference", "Mean of |challenger - champion| over these rows.", labels=labels
        )
        psi = GaugeMetricFamily(
            "lotse_shadow_psi", "Population stability index of the challenger's scores against the champion's.",
            labels=labels,
        )  # fmt: skip
        for key, pair in list(self.pairs.items()):
            scores.add_metric(key, *pair.challenger.buckets())
            rows.add_metric(key, pair.rows)
            mean.add_metric(key, pair.difference / pair.rows if pair.rows else math.nan)
            psi.add_metric(key, pair.psi())
        return scores, rows, mean, psi


class Shadowed(Scorer):
    """The champions, and challengers that score beside them."""

    def __init__(
        self,
        champions: Scorer,
        challengers: Mapping[str, Head],
        prior: Mapping[str, float],
        fold: Fold,
        comparison: Comparison,
    ) -> None:
        self._pairs = [
            (name, f"{name}{_MARK}", comparison.pair(name, champions.versions[name], head.version))
            for name, head in challengers.items()
            if name in champions.versions and {*champions.names, *champions.priors}.issuperset(head.asks)
        ]
        beside = {f"{name}{_MARK}": challengers[name] for name, _, _ in self._pairs}
        super().__init__({**champions.heads, **beside}, prior, champions.reasons, fold)
        self.versions = champions.versions

    def _made(self, size: int) -> Sheet:
        """A sheet that compares while it tells the scores."""
        return ShadowSheet(self, size, self._pairs)

    def tally(self) -> dict[str, tuple[list[int], float]]:
        """Of the champions: nobody was answered with the others."""
        return {name: counts for name, counts in super().tally().items() if not name.endswith(_MARK)}


class ShadowSheet(Sheet):
    """A sheet whose scores are those of the champions."""

    def __init__(self, scorer: Scorer, size: int, pairs: list[tuple[str, str, Pair]]) -> None:
        super().__init__(scorer, size)
        self._pairs = pairs

    def scores(self, place: int = 0) -> Scores:
        """The same of the champions alone."""
        scores, decided, reasons = super().scores(place)
        for name, beside, pair in self._pairs:
            score = scores.pop(beside, None)
            if beside in decided:
                decided.remove(beside)
            elif score is not None and name in scores and name not in decided:
                pair.add(scores[name], score)
            if beside in reasons:
                reasons = {head: reason for head, reason in reasons.items() if head != beside}
        return Scores(scores, decided, reasons)

    def asked(self, place: int = 0) -> list[Asked]:
        """The same of the champions alone."""
        beside = [self._heads[name] for _, name, _ in self._pairs]
        return [one for one in super().asked(place) if one.head not in beside]

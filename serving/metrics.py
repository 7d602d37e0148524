"""What the service counts, in plain integers on the hot path, as Prometheus text when asked."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from features.sessions import STATUS_NAMES

if TYPE_CHECKING:
    from serving.lineup import Lineup

_LATENCY_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_SCORE_TENTHS: Final = tuple(tenth / 10 for tenth in range(1, 11))


class Tally:
    """A histogram of plain integers."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, and the sum, as Prometheus wants them."""
        total, out = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self.counts, strict=True):
            total += count
            out.append((bound, float(total)))
        return out, self.sum


class Metrics:
    """Counters of one worker process."""

    def __init__(self, lineup: Callable[[], Lineup]) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self._statuses: Counter[int] = Counter()
        self.retired_records = 0
        self.swept_records = 0
        self.closed_sessions = 0
        self.latency = Tally(_LATENCY_SECONDS)
        self.scores: dict[str, Tally] = {}
        self.records = 0
        self._lineup = lineup
        self._registry = CollectorRegistry()
        self._registry.register(self)  # type: ignore[arg-type]

    def register(self, collector: Collector) -> None:
        """Tell what somebody else counts, too."""
        self._registry.register(collector)

    def folded(self, statuses: list[int]) -> None:
        """Count events by what was done with them."""
        self._statuses.update(statuses)

    def scored(self, tally: Mapping[str, tuple[list[int], float]]) -> None:
        """Count scores, as `Scorer.tally` tells them."""
        for head, (counts, total) in tally.items():
            known = self.scores.setdefault(head, Tally(_SCORE_TENTHS))
            known.counts = [one + more for one, more in zip(known.counts, counts, strict=True)]
            known.sum += total

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before it is collected."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Called by Prometheus' registry."""
        requests = CounterMetricFamily("lotse_requests", "Requests by path and status.", labels=["path", "status"])
        for (path, status), count in self.requests.items():
            requests.add_metric([path, str(status)], count)
        events = CounterMetricFamily("lotse_events", "Events by what was done with them.", labels=["status"])
        for status, count in self._statuses.items():
            events.add_metric([STATUS_NAMES[status]], count)
        latency = HistogramMetricFamily("lotse_events_seconds", "Time to answer POST /v1/events, after the body came.")
        latency.add_metric([], *self.latency.buckets())
        for generation in self._lineup().generations:
            self.scored(generation.tally())
        scores = HistogramMetricFamily("lotse_score", "Scores answered.", labels=["head"])
        for head, tally in self.scores.items():
            scores.add_metric([head], *tally.buckets())
        models = GaugeMetricFamily(
            "lotse_model_info", "The version of each head that scores.", labels=["head", "version"]
        )
        for head, version in self._lineup().champions.versions.items():
            models.add_metric([head, version], 1)
        yield from (requests, events, latency, scores, models)
        yield GaugeMetricFamily("lotse_session_records", "Records in the store.", value=self.records)
        yield CounterMetricFamily(
            "lotse_retired_records", "Records of older fields put away.", value=self.retired_records
        )
        yield CounterMetricFamily("lotse_swept_records", "Records forgotten.", value=self.swept_records)
        yield CounterMetricFamily(
            "lotse_closed_sessions", "Sessions that were over and handed on.", value=self.closed_sessions
        )

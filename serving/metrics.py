"""What one worker counts, in plain integers on the hot path."""

from __future__ import annotations

import platform
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.registry import Collector

from serving.exposition import LATENCY_SECONDS, METRICS, SCORE_TENTHS, Sample, cumulated, samples_of, text

if TYPE_CHECKING:
    from serving.connections import Watch
    from serving.lineup import Lineup
    from serving.workers import WorkerFiles


class Tally:
    """A histogram of plain integers."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count one value, or as many of the same."""
        self.counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, and the sum, as Prometheus wants them."""
        return cumulated(self._bounds, self.values())

    def values(self) -> list[float]:
        """Counts of the buckets, and the sum."""
        return [*self.counts, self.sum]


class Metrics:
    """Counters of one worker process.

    Attributes
    ----------
    registered: when versions were registered, seconds since 1970, by head and version, where that is known.
    watch: the worker's connections; files: what the workers tell each other; set when it serves.
    """

    def __init__(self, lineup: Callable[[], Lineup]) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.events: Counter[str] = Counter()
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.returned: Counter[tuple[str, str]] = Counter()
        self.forwarded: Counter[tuple[str, str]] = Counter()
        self.forward_dropped: Counter[tuple[str, str]] = Counter()
        self.forward_queue: Counter[str] = Counter()
        self.outbound_sent: Counter[tuple[str, str]] = Counter()
        self.outbound_retries: Counter[str] = Counter()
        self.outbound_dropped: Counter[tuple[str, str]] = Counter()
        self.outbound_dead: Counter[str] = Counter()
        self.outbound_queue: Counter[str] = Counter()
        self.fallbacks: Counter[tuple[str, str]] = Counter()
        self.store_errors: Counter[str] = Counter()
        self.retired_records = 0
        self.swept_records = 0
        self.closed_sessions = 0
        self.buffered_events = 0
        self.latency = Tally(LATENCY_SECONDS)
        self.scores: dict[str, Tally] = {}
        self.records = 0
        self.registered: dict[tuple[str, str], float] = {}
        self.watch: Watch | None = None
        self.files: WorkerFiles | None = None
        self._lineup = lineup
        self._collectors: list[Collector] = []
        self._loaded: dict[tuple[str, str], float] = {}
        self._process = ProcessCollector(registry=CollectorRegistry())

    def register(self, collector: Collector) -> None:
        """Tell what somebody else counts, too."""
        self._collectors.append(collector)

    def scored(self, tallies: Iterable[Mapping[str, tuple[list[int], float]]]) -> None:
        """Count scores, as `Lineup.tally` tells them."""
        for tally in tallies:
            for head, (counts, total) in tally.items():
                known = self.scores.setdefault(head, Tally(SCORE_TENTHS))
                known.counts = [one + more for one, more in zip(known.counts, counts, strict=True)]
                known.sum += total

    def sent_back(self, tracker: str, outcome: str) -> None:
        """Count what became of one visitor's scores on their way to a tracker's own server."""
        self.returned[tracker, outcome] += 1

    def fell_back(self, reasons: dict[str, str]) -> None:
        """Count the heads of one answer that had no model."""
        for head, reason in reasons.items():
            self.fallbacks[head, reason] += 1

    def text(self) -> bytes:
        """What all workers counted, as Prometheus text."""
        samples = self.files.all(self.samples()) if self.files is not None else self.samples()
        # of the store, not of a worker: what others counted of it is older
        return text([*samples, Sample("lotse_session_records", (), [self.records])])

    def samples(self) -> list[Sample]:
        """What this worker counted until now."""
        lineup = self._lineup()
        self.scored(lineup.tally())
        found = [Sample("lotse_requests", (path, str(status)), [n]) for (path, status), n in self.requests.items()]
        found += [Sample("lotse_events", (status,), [count]) for status, count in self.events.items()]
        found += [Sample("lotse_dropped_events", each, [count]) for each, count in self.dropped.items()]
        found += [Sample("lotse_returned_scores", each, [count]) for each, count in self.returned.items()]
        found += [Sample("lotse_forwarded_requests", each, [count]) for each, count in self.forwarded.items()]
        found += [Sample("lotse_forward_dropped_requests", each, [n]) for each, n in self.forward_dropped.items()]
        found += [Sample("lotse_forward_queue", (tracker,), [n]) for tracker, n in self.forward_queue.items()]
        found += [Sample("lotse_outbound_messages", each, [n]) for each, n in self.outbound_sent.items()]
        found += [Sample("lotse_outbound_retries", (target,), [n]) for target, n in self.outbound_retries.items()]
        found += [Sample("lotse_outbound_dropped_messages", each, [n]) for each, n in self.outbound_dropped.items()]
        found += [Sample("lotse_outbound_dead_letters", (target,), [n]) for target, n in self.outbound_dead.items()]
        found += [Sample("lotse_outbound_queue", (target,), [n]) for target, n in self.outbound_queue.items()]
        found += [Sample("lotse_fallbacks", each, [count]) for each, count in self.fallbacks.items()]
        found += [Sample("lotse_store_errors", (what,), [count]) for what, count in self.store_errors.items()]
        found += [Sample("lotse_events_seconds", (), self.latency.values())]
        found += [Sample("lotse_score", (head,), tally.values()) for head, tally in self.scores.items()]
        plain = {
            "lotse_buffered_events": self.buffered_events,
            "lotse_retired_records": self.retired_records,
            "lotse_swept_records": self.swept_records,
            "lotse_closed_sessions": self.closed_sessions,
            "lotse_workers": 1,
        }
        if self.watch is not None:
            plain |= {
                "lotse_connections": len(self.watch.connections),
                "lotse_cut_connections": self.watch.cut,
                "lotse_refused_connections": self.watch.refused,
            }
        found += [Sample(name, (), [value]) for name, value in plain.items()]
        build = (_release(), platform.python_version(), lineup.fold.digest)
        found += [Sample("lotse_build_info", build, [1])]
        for collector in self._collectors:
            found += samples_of(collector)
        return [*found, *self._models(), *self._of_process()]

    def _models(self) -> list[Sample]:
        now, found = time.time(), []
        current = self._lineup().champions.versions
        self._loaded = {each: self._loaded.get(each, now) for each in current.items()}
        for each, loaded_at in self._loaded.items():
            found.append(Sample("lotse_model_info", each, [1]))
            age = max(now - self.registered.get(each, loaded_at), 0)
            found.append(Sample("lotse_model_age_seconds", each[:1], [age]))
        return found

    def _of_process(self) -> list[Sample]:
        """CPU, memory and files, where the system tells them."""
        return [
            Sample(family.name, (), [family.samples[0].value])
            for family in self._process.collect()
            if family.name in METRICS
        ]


@cache
def _release() -> str:
    try:
        return version("lotse")
    except PackageNotFoundError:  # a Bento holds the modules without the distribution
        return "unknown"

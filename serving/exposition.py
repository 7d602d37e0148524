"""Every metric by name, and how the samples of several workers become one page of Prometheus text.

In: samples of each worker, counters and histograms since it started. Out: their sums; gauges as their row says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

LATENCY_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SCORE_TENTHS: Final = tuple(tenth / 10 for tenth in range(1, 11))


class Described(NamedTuple):
    """A metric. merge: of gauges, what the value of all workers is; bounds: of a histogram's buckets."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    merge: Literal["sum", "max", "min"] = "sum"
    bounds: tuple[float, ...] = ()


METRICS: Final[dict[str, Described]] = {
    "lotse_requests": Described("counter", "Requests by path and status.", ("path", "status")),
    "lotse_events": Described("counter", "Events by what was done with them.", ("status",)),
    "lotse_dropped_events": Described(
        "counter", "Events of trackers that could not be used, by tracker and reason.", ("tracker", "reason")
    ),
    "lotse_returned_scores": Described(
        "counter", "Visitors' scores sent back to a tracker's own server, by outcome.", ("tracker", "outcome")
    ),
    "lotse_forwarded_requests": Described(
        "counter", "Requests passed on to original collectors, by what these answered.", ("tracker", "status")
    ),
    "lotse_forward_dropped_requests": Described(
        "counter", "Requests that were to be passed on and were not, by reason.", ("tracker", "reason")
    ),
    "lotse_forward_queue": Described("gauge", "Requests that wait to be passed on, or are under way.", ("tracker",)),
    "lotse_outbound_messages": Described("counter", "Messages that a target took, by type.", ("target", "type")),
    "lotse_outbound_retries": Described("counter", "Tries of a target after one that failed.", ("target",)),
    "lotse_outbound_dropped_messages": Described(
        "counter", "Messages that a target did not get, by reason.", ("target", "reason")
    ),
    "lotse_outbound_dead_letters": Described("counter", "Of them, those that were written down.", ("target",)),
    "lotse_outbound_queue": Described("gauge", "Messages that wait for a target, or are under way.", ("target",)),
    "lotse_events_seconds": Described(
        "histogram", "Time to answer POST /v1/events, after the body came.", bounds=LATENCY_SECONDS
    ),
    "lotse_score": Described("histogram", "Scores answered.", ("head",), bounds=SCORE_TENTHS),
    "lotse_fallbacks": Described("counter", "Scores answered without a model, by head and reason.", ("head", "reason")),
    "lotse_model_info": Described("gauge", "The version of each head that scores.", ("head", "version"), "max"),
    "lotse_model_age_seconds": Described(
        "gauge", "Seconds since the version was registered; where that is not known, loaded.", ("head",), "max"
    ),
    "lotse_session_records": Described("gauge", "Records in the store.", merge="max"),
    "lotse_store_errors": Described("counter", "Requests for which the store failed, by what was asked.", ("what",)),
    "lotse_buffered_events": Described("gauge", "Events that wait until the store is back."),
    "lotse_retired_records": Described("counter", "Records of older fields put away."),
    "lotse_swept_records": Described("counter", "Records forgotten."),
    "lotse_closed_sessions": Described("counter", "Sessions that were over and handed on."),
    "lotse_connections": Described("gauge", "Open connections."),
    "lotse_cut_connections": Described("counter", "Connections cut because the client was too slow."),
    "lotse_refused_connections": Described("counter", "Connections refused because there were too many."),
    "lotse_workers": Described("gauge", "Workers that run."),
    "lotse_build_info": Described("gauge", "Release, Python and features.", ("version", "python", "features"), "max"),
    "process_cpu_seconds": Described("counter", "CPU time of all workers, in seconds."),
    "process_resident_memory_bytes": Described("gauge", "Memory of all workers; what they share counts in each."),
    "process_virtual_memory_bytes": Described("gauge", "Address space of all workers."),
    "process_start_time_seconds": Described("gauge", "When the oldest worker started, seconds since 1970.", (), "min"),
    "process_open_fds": Described("gauge", "Open files and connections of all workers."),
    "process_max_fds": Described("gauge", "Most open files of a worker.", (), "min"),
}


class Sample(msgspec.Struct, array_like=True):
    """One number of a metric; of a histogram, the counts of its buckets (not cumulated) and then the sum."""

    name: str
    labels: tuple[str, ...]
    values: list[float]
    about: Described | None = None  # of a metric that is not in METRICS


_MERGES: Final[dict[str, Callable[[Iterable[float]], float]]] = {"sum": sum, "max": max, "min": min}


def merged(lasting: Iterable[Sequence[Sample]], current: Iterable[Sequence[Sample]] = ()) -> list[Sample]:
    """One sample for each name and labels.

    lasting: of which only counters and histograms count, because their workers ended; current: of workers that run.
    """
    found: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    others: dict[str, Described | None] = {}
    for samples, runs in [(each, False) for each in lasting] + [(each, True) for each in current]:
        for sample in samples:
            about = sample.about or METRICS[sample.name]
            if about.kind == "gauge" and not runs:
                continue
            others[sample.name] = sample.about
            key = sample.name, sample.labels
            merge = _MERGES[about.merge]
            values = sample.values
            found[key] = [merge(pair) for pair in zip(found[key], values, strict=True)] if key in found else values
    return [Sample(name, labels, values, others[name]) for (name, labels), values in found.items()]


def samples_of(collector: Collector) -> list[Sample]:
    """What a collector of prometheus_client's tells; its gauges are merged as the largest."""
    found = []
    for family in collector.collect():
        if not family.samples:
            continue
        names = tuple(name for name in family.samples[0].labels if name != "le")
        kind: Literal["counter", "gauge", "histogram"] = family.type  # type: ignore[assignment]
        values: dict[tuple[str, ...], list[float]] = {}
        bounds = []
        for sample in family.samples:
            if sample.name.endswith(("_count", "_created")) and kind != "gauge":
                continue
            values.setdefault(tuple(sample.labels[name] for name in names), []).append(sample.value)
            bounds.append(float(sample.labels.get("le", "inf")))
        if kind == "histogram":
            bounds = sorted({bound for bound in bounds if bound != float("inf")})
            values = {labels: _uncumulated(each) for labels, each in values.items()}
        about = Described(kind, family.documentation, names, "max" if kind == "gauge" else "sum", tuple(bounds))
        found += [Sample(family.name, labels, each, about) for labels, each in values.items()]
    return found


def _uncumulated(values: Sequence[float]) -> list[float]:
    *counts, total = values
    return [*(count - before for before, count in zip([0.0, *counts], counts, strict=False)), total]


def text(samples: Sequence[Sample]) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Page(samples))  # type: ignore[arg-type]
    return generate_latest(registry)


class _Page:
    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Metric]:
        described = METRICS | {sample.name: sample.about for sample in self._samples if sample.about is not None}
        for name, about in described.items():
            samples = sorted((sample for sample in self._samples if sample.name == name), key=lambda each: each.labels)
            if about.kind == "histogram":
                histogram = HistogramMetricFamily(name, about.help, labels=about.labels)
                for sample in samples:
                    histogram.add_metric(sample.labels, *cumulated(about.bounds, sample.values))
                yield histogram
                continue
            family = CounterMetricFamily if about.kind == "counter" else GaugeMetricFamily
            plain = family(name, about.help, labels=about.labels)
            for sample in samples:
                plain.add_metric(sample.labels, sample.values[0])
            yield plain


def cumulated(bounds: tuple[float, ...], values: Sequence[float]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts by upper bound, and the sum."""
    total, out = 0.0, []
    for bound, count in zip((*map(str, bounds), "+Inf"), values[:-1], strict=True):
        total += count
        out.append((bound, total))
    return out, values[-1]

"""How the service does, from what all of its workers have counted: rates and latencies of the last half minute.

In: merged samples, once a second. Out: a JSON-ready dict; null where nothing was counted in that time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from serving.exposition import LATENCY_SECONDS, Sample

_WINDOW_SECONDS: Final = 30.0
_LATENCY: Final = "lotse_events_seconds"
# Sums of these are told as they are.
_PLAIN: Final = {
    "buffered": "lotse_buffered_events",
    "connections": "lotse_connections",
    "workers": "lotse_workers",
    "store_errors": "lotse_store_errors",
    "closed": "lotse_closed_sessions",
}


class Health:
    """Remembers half a minute of samples."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, list[Sample]]] = deque()

    def told(self, samples: list[Sample], at_seconds: float) -> dict[str, Any]:
        """Of the samples now; at_seconds: by a clock that is not set.

        >>> health = Health()
        >>> counts = lambda *n: Sample("lotse_events_seconds", (), [*n, *[0.0] * (14 - len(n))])
        >>> health.told([counts(10), Sample("lotse_events", ("folded",), [10])], 100.0)["p99_ms"] is None
        True
        >>> found = health.told([counts(10, 100), Sample("lotse_events", ("folded",), [110])], 110.0)
        >>> found["events_per_second"], found["p50_ms"], found["p99_ms"]
        (10.0, 0.175, 0.2485)
        """
        seen = self._seen
        seen.append((at_seconds, samples))
        # the oldest stays until the next one is old enough
        while len(seen) > 2 and at_seconds - seen[1][0] >= _WINDOW_SECONDS:
            seen.popleft()
        since, before = seen[0]
        seconds = at_seconds - since
        latency = [now - then for now, then in zip(_sums(samples, _LATENCY), _sums(before, _LATENCY), strict=False)]
        counts = latency[:-1] if all(count >= 0 for count in latency) else []
        models = [
            {"head": sample.labels[0], "version": sample.labels[1], "age_seconds": _age(samples, sample.labels[0])}
            for sample in samples
            if sample.name == "lotse_model_info"
        ]
        unreachable = _total(samples, "lotse_registry_unreachable_since_seconds")
        return {
            **{name: _total(samples, metric) for name, metric in _PLAIN.items()},
            "window_seconds": round(seconds, 1),
            "events_per_second": _rate(samples, before, "lotse_events", seconds),
            "requests_per_second": _rate(samples, before, "lotse_requests", seconds),
            "errors_in_window": _total(samples, "lotse_store_errors") - _total(before, "lotse_store_errors"),
            "p50_ms": _milliseconds(counts, 0.5),
            "p99_ms": _milliseconds(counts, 0.99),
            "models": sorted(models, key=lambda one: one["head"]),
            "registry_unreachable_since_ms": round(unreachable * 1000) or None,
        }


def _sums(samples: Sequence[Sample], name: str) -> list[float]:
    """A histogram's counts and sum, over all labels; empty if there is none."""
    found = [sample.values for sample in samples if sample.name == name]
    return [sum(column) for column in zip(*found, strict=True)]


def _total(samples: Sequence[Sample], name: str) -> float:
    return sum(sample.values[0] for sample in samples if sample.name == name)


def _rate(samples: Sequence[Sample], before: Sequence[Sample], name: str, seconds: float) -> float | None:
    """How much a counter grew a second; null before there is a second."""
    if seconds <= 0:
        return None
    return round(max(_total(samples, name) - _total(before, name), 0) / seconds, 2)


def _age(samples: Sequence[Sample], head: str) -> float | None:
    of_models = (sample for sample in samples if sample.name == "lotse_model_age_seconds")
    ages = [sample.values[0] for sample in of_models if sample.labels == (head,)]
    return round(ages[0], 1) if ages else None


def _milliseconds(counts: Sequence[float], share: float) -> float | None:
    """The time that so many answers took at most, in a bucket as if they were spread evenly, as Prometheus has it."""
    total = sum(counts)
    if not total:
        return None
    rank, passed = share * total, 0.0
    for place, count in enumerate(counts):
        if count and passed + count >= rank:
            if place == len(LATENCY_SECONDS):  # longer than the last bound tells
                return LATENCY_SECONDS[-1] * 1000
            low = LATENCY_SECONDS[place - 1] if place else 0.0
            inside = low + (LATENCY_SECONDS[place] - low) * (rank - passed) / count
            return round(inside * 1000, 4)
        passed += count
    return None

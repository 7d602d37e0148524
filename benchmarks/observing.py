"""What each part of observability costs an event, beside a service that tells nothing.

    python -m benchmarks.observing [--seconds 4] [--runs 5]

Services with one worker and other settings each are asked in turn for `POST /v1/events` by wrk (16 connections, closed
loop). The result is the processor's time that the worker takes for a request, beyond that of the service without a log
of requests, and the ratio of requests a second. Spans go to a receiver on the same machine, which answers at once.
Counting for /metrics cannot be switched off, so it is timed by itself: what an event counts, in this process.

Needs `wrk` and the extra `otel`; `LOTSE_TRAINED` names a folder with models, so that none are trained.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack, nullcontext
from typing import Final, NamedTuple

from benchmarks.measure import console, median, report
from benchmarks.services import ask, collector, lotse, needs, processor, scraped, trained_folder
from serving.lineup import Lineup
from serving.metrics import Metrics

QUIET: Final = "logs.sample=0"
NOTHING: Final = "nothing is told"
EVENTS: Final = 200_000


class Part(NamedTuple):
    """One row: settings of its service; read: whether /metrics is, every second."""

    settings: tuple[str, ...]
    read: bool = False


def parts(receiver: int) -> dict[str, Part]:
    """The rows; receiver: port of what takes spans."""
    spans = (QUIET, "telemetry.enabled=true", f"telemetry.endpoint=http://127.0.0.1:{receiver}/v1/traces")
    return {
        NOTHING: Part((QUIET,)),
        "the same again": Part((QUIET,)),
        "/metrics read every second": Part((QUIET,), read=True),
        "one request of a thousand logged (default)": Part(()),
        "every request logged": Part(("logs.sample=1",)),
        "spans of 1 % of requests": Part((*spans, "telemetry.sample=0.01")),
        "spans of all requests": Part((*spans, "telemetry.sample=1")),
        "decisions of 1 % logged": Part((QUIET, "decisions.sample=0.01")),
        "all together, defaults": Part((*spans[1:], "decisions.sample=0.01"), read=True),
    }


def counting() -> float:
    """Microseconds that an event takes to count: its request, status and time."""

    def nothing() -> Lineup:
        raise AssertionError("nobody reads these")

    metrics, fastest = Metrics(nothing), 1.0
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(EVENTS):
            came = time.perf_counter()
            metrics.events["folded"] += 1
            metrics.latency.add(time.perf_counter() - came, 1)
            metrics.requests["/v1/events", 200] += 1
        fastest = min(fastest, (time.perf_counter() - begin) / EVENTS)
    return fastest * 1e6


def main() -> None:
    """Start all, ask in turn, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    needs("wrk")
    with trained_folder() as folder, ExitStack() as stack:
        rows = parts(stack.enter_context(collector(hangs=False)))
        ports = {label: stack.enter_context(lotse(folder, *part.settings)).port for label, part in rows.items()}
        rates: dict[str, list[float]] = {label: [] for label in rows}
        took: dict[str, list[float]] = {label: [] for label in rows}
        for turn in range(options.runs + 1):
            for label, part in rows.items():
                with scraped(ports[label]) if part.read else nullcontext():
                    before = processor(ports[label])
                    rate, _ = ask(ports[label], "/v1/events", options.seconds, "events.lua")
                    if turn:  # the first turn warms up
                        rates[label].append(rate)
                        took[label].append((processor(ports[label]) - before) / (rate * options.seconds) * 1e6)
                console.print(f"  turn {turn}: {label} {rate:,.0f}/s", style="dim")
    report(
        "What observability costs: one worker, wrk, 16 connections, closed loop",
        ["part", "requests/s", "ratio", "CPU us a request", "beyond"],
        [
            [
                label, f"{median(rates[label]):,.0f}", f"{median(rates[label]) / median(rates[NOTHING]):.3f}x",
                f"{median(took[label]):.1f}", f"{median(took[label]) - median(took[NOTHING]):+.1f}",
            ]
            for label in rows
        ],
    )  # fmt: skip
    console.print(f"counting for /metrics, which is always done: {counting():.2f} us an event")


if __name__ == "__main__":
    main()

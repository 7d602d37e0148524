"""What trackers cost: reading and answering, the way over HTTP, and what forwarding does to latencies.

    python -m benchmarks.collect [--part inside http forward] [--runs 5] [--seconds 4] [--rate 1000]

inside: each installed adapter's `read` and `answer` of its captured requests, beside the native reading of the same
events; microseconds an event, in this process, the fastest of many runs taken in turn. What comes after (the fold,
scores) is the same for both. Captures come again and again, so what is remembered (user agents, pages) is remembered.

http: wrk (16 connections, closed loop) asks for `POST /v1/events` and for Plausible's endpoint in turn.

forward: wrk2 sends Plausible's events at a constant rate: without forwarding, to an original that answers, to one that
hangs, to one that is not there. The original runs on the same machine and takes of its time.

Both also tell the processor's time that the service takes a request, which other work on the machine changes little.

Needs `wrk` and `wrk2` for the latter two; `LOTSE_TRAINED` names a folder with models, so that none are trained.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.load import attack
from benchmarks.measure import console, median, report
from benchmarks.services import ROOT, ask, collector, free_port, lotse, needs, page, processor, scraped, trained_folder
from serving.collect import Collected, Endpoint, Hit, Refused
from serving.http.call import Reply
from serving.intake import Intake
from serving.requests import Answer
from tests.contracts.captured import CAPTURES, SHOP, captures, tracker

PLAUSIBLE: Final = "plausible.lua"
# All visitors of wrk's come from one machine: they are told apart as behind a proxy, and not limited.
BEHIND_PROXY: Final = ('limits.trusted_proxies=["127.0.0.1"]', "limits.address_events_per_second=0")
LEAST_SECONDS: Final = 15
SCORED: Final = Answer(
    session="T" * 86, status="folded", events=3, scores=dict.fromkeys(("bounce", "conversion", "exit"), 0.25),
    models=dict.fromkeys(("bounce", "conversion", "exit"), "1"),
)  # fmt: skip


class Work(NamedTuple):
    """Captured requests of one tracker; native: bodies of `POST /v1/events` with the same events."""

    asked: list[tuple[Endpoint, Hit, list[Answer]]]
    native: list[bytes]
    events: int


def work(name: str) -> Work:
    """All requests of an adapter's endpoints that hold an event."""
    adapter, found = tracker(name), Work([], [], 0)
    for file in sorted(CAPTURES.glob("*.jsonl")):
        for capture in captures(file.stem):
            endpoint = adapter.endpoint(capture.hit.path)
            if endpoint is None or capture.hit.method not in endpoint.methods:
                continue
            try:
                events = finished(endpoint.read(capture.hit)).events
            except Refused:
                continue
            if events:
                found.asked.append((endpoint, capture.hit, [SCORED] * len(events)))
                found.native.append(msgspec.json.encode(events if len(events) > 1 else events[0]))
    return found._replace(events=sum(len(answers) for _, _, answers in found.asked))


def finished(found: Any) -> Any:
    """What comes of something that may be awaited; nothing waits for anything here."""
    if isinstance(found, Collected | Reply):
        return found
    try:
        found.__await__().send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a tracker waits without a store")


def inside(runs: int) -> None:
    """Microseconds an event."""
    split = Intake(SHOP, ("measure",), 10**9).split
    rows = []
    for name in sorted(point.name for point in entry_points(group="lotse.trackers")):
        asked, native, events = work(name)

        def ours(asked: list[Any] = asked) -> None:
            for endpoint, hit, answers in asked:
                finished(endpoint.answer(hit, finished(endpoint.read(hit)), answers))

        def theirs(native: list[bytes] = native) -> None:
            for body in native:
                split(body)

        seconds: dict[Callable[[], None], float] = {ours: 1.0, theirs: 1.0}
        for _ in range(runs * 100):
            for call, fastest in seconds.items():
                begin = time.perf_counter()
                call()
                seconds[call] = min(fastest, time.perf_counter() - begin)
        each = {call: one / events * 1e6 for call, one in seconds.items()}
        rows.append([
            name, str(len(asked)), str(events), f"{each[ours]:.1f}", f"{each[theirs]:.1f}",
            f"{each[ours] - each[theirs]:.1f}", f"{each[ours] / each[theirs]:.0f}x",
        ])  # fmt: skip
    columns = ["tracker", "requests", "events", "read + answer, us", "native, us", "beyond native, us", "ratio"]
    report("An event of captured requests", columns, rows)


def over_http(runs: int, seconds: int) -> None:
    """Requests a second, each of one event."""
    needs("wrk")
    rows = {"POST /v1/events": ("/v1/events", "events.lua"), "Plausible, POST /api/event": ("/api/event", PLAUSIBLE)}
    rates: dict[str, list[float]] = {label: [] for label in rows}
    worst: dict[str, list[float]] = {label: [] for label in rows}
    took: dict[str, list[float]] = {label: [] for label in rows}
    with trained_folder() as folder, lotse(folder, *BEHIND_PROXY) as service:
        for turn in range(runs + 1):
            for label, (path, script) in rows.items():
                before = processor(service.port)
                rate, p99 = ask(service.port, path, seconds, script)
                if turn:  # the first turn warms up
                    took[label].append((processor(service.port) - before) / (rate * seconds) * 1e6)
                    rates[label].append(rate)
                    worst[label].append(p99)
                console.print(f"  turn {turn}: {label} {rate:,.0f}/s, p99 {p99:.1f} ms", style="dim")
    first = next(iter(rows))
    report(
        "One worker, wrk, 16 connections, closed loop",
        ["what", "events/s", "p99 ms", "ratio", "CPU us an event", "beyond the first"],
        [
            [
                label, f"{median(found):,.0f}", f"{median(worst[label]):.1f}",
                f"{median(found) / median(rates[first]):.2f}x", f"{median(took[label]):.0f}",
                f"{median(took[label]) - median(took[first]):.0f}",
            ]
            for label, found in rates.items()
        ],
    )  # fmt: skip


def forwarding(runs: int, seconds: int, rate: float) -> None:
    """Latencies at a rate."""
    needs("wrk2")
    script, seconds = ROOT / "benchmarks" / PLAUSIBLE, max(seconds, LEAST_SECONDS)
    with trained_folder() as folder, collector(hangs=False) as answering, collector(hangs=True) as hanging:
        ports = {"not forwarded": 0, "it answers": answering, "it hangs": hanging, "it is away": free_port()}
        found: dict[str, list[Any]] = {label: [] for label in ports}
        took: dict[str, list[float]] = {label: [] for label in ports}
        counts: dict[str, str] = {}
        for _ in range(runs):
            for label, port in ports.items():
                forward = [f"collect.forward.plausible=http://127.0.0.1:{port}"] if port else []
                with lotse(folder, *BEHIND_PROXY, "server.stop_seconds=1", *forward) as service, scraped(service.port):
                    ask(service.port, "/api/event", 1, PLAUSIBLE, 4)  # warms up
                    before = processor(service.port)
                    one = attack(service.port, rate, seconds, script)
                    took[label].append((processor(service.port) - before) / (one.rate * seconds) * 1e6)
                    found[label].append(one)
                    counts[label] = _counts(service.port)
                console.print(
                    f"  {label}: p50 {one.p50:.2f} ms, p99 {one.p99:.2f} ms, {one.failed} failed", style="dim"
                )
    report(
        f"Plausible's events at {rate:,.0f} requests/s, 64 connections, one worker",
        ["original", "p50 ms", "p99 ms", "p99.9 ms", "answered/s", "failed", "CPU us a request", "last run's requests"],
        [
            [
                label, *(f"{median([getattr(one, name) for one in each]):.2f}" for name in ("p50", "p99", "p999")),
                f"{median([one.rate for one in each]):,.0f}", str(sum(one.failed for one in each)),
                f"{median(took[label]):.0f}", counts[label],
            ]
            for label, each in found.items()
        ],
    )  # fmt: skip


def _counts(port: int) -> str:
    """What has become of the requests that were to be passed on."""
    names = ("lotse_forwarded_requests_total{", "lotse_forward_dropped_requests_total{", "lotse_forward_queue{")
    return ", ".join(line.removeprefix("lotse_") for line in page(port).splitlines() if line.startswith(names))


def main() -> None:
    """The parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", nargs="+", choices=("inside", "http", "forward"), default=["inside", "http", "forward"]
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1_000)
    options = parser.parse_args()
    if "inside" in options.part:
        inside(options.runs)
    if "http" in options.part:
        over_http(options.runs, options.seconds)
    if "forward" in options.part:
        forwarding(options.runs, options.seconds, options.rate)


if __name__ == "__main__":
    main()

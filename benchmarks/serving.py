"""What an event costs: `POST /v1/events` beside a no-op in the same service, stock BentoML and bare uvicorn.

    python -m benchmarks.serving [--seconds 4] [--runs 5] [--only WORD] [--variant "LABEL: key=value, key=value"]

Needs `wrk`. Trains models from a simulated shop in a folder of its own, starts all services, most with one worker, and
lets wrk (one thread, loopback) ask them in turn; each figure is the median of its runs, the ratios are the result. A
`--variant` is one more service with these settings, asked like the first: what a part of it costs. `--only` keeps the
rows with the word. Also: bytes a live session takes, and the time from `lotse serve` to the first score.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from benchmarks.measure import console, median, report
from benchmarks.services import ROOT, Running, ask, echo, free_port, lotse, needs, scraped, trained_folder

EVENTS, BATCHES, NOOP = "events.lua", "batches.lua", "noop.lua"
OURS, SAME, MOUNTED = "POST /v1/events", "no-op, same service", "no-op, same service, mounted as usual"


class Asked(NamedTuple):
    """One row: which service is asked for what, by how many connections, and how many events a request holds."""

    service: str
    path: str
    script: str = EVENTS
    connections: int = 16
    events: int = 1
    beside: str = OURS
    watched: bool = False


ROWS: dict[str, Asked] = {
    OURS: Asked("lotse", "/v1/events"),
    SAME: Asked("lotse", "/v1/noop"),
    MOUNTED: Asked("lotse", "/noop"),
    "stock @bentoml.api no-op": Asked("stock", "/noop", NOOP),
    "bare uvicorn echo": Asked("bare", "/"),
    "with /metrics read every second": Asked("lotse", "/v1/events", watched=True),
    "scores=none": Asked("lotse", "/v1/events?scores=none"),
    "64 connections": Asked("lotse", "/v1/events", connections=64),
    "64 connections, durability disk": Asked("disk", "/v1/events", connections=64, beside="64 connections"),
    "16 connections, durability disk": Asked("disk", "/v1/events"),
    "100 events of 100 sessions": Asked("lotse", "/v1/events", BATCHES, 4, 100),
    "100 events, scores=none": Asked("lotse", "/v1/events?scores=none", BATCHES, 4, 100),
    "100 events, two workers": Asked("two", "/v1/events", BATCHES, 8, 100),
    "100 events, scores=none, two workers": Asked("two", "/v1/events?scores=none", BATCHES, 8, 100),
}


def bytes_per_session(store: Path) -> tuple[float, int]:
    """Bytes of the store's used pages for each record, and the number of records."""
    with lmdb.open(str(store), readonly=True, lock=False, max_dbs=8) as environment:
        information, statistics = environment.info(), environment.stat()
        with environment.begin() as transaction:
            records = transaction.stat(environment.open_db(b"records", transaction, create=False))["entries"]
        return (information["last_pgno"] + 1) * statistics["psize"] / records, records


def services(folder: Path, names: set[str], variants: dict[str, list[str]], stack: ExitStack) -> dict[str, Running]:
    """Every service that is asked, started one after the other."""

    def other(*command: str) -> Running:
        port = free_port()
        running = Running([sys.executable, "-m", *command, "--port", str(port)], ROOT, port)
        stack.callback(running.stop)
        return running

    makes: dict[str, Callable[[], Running]] = {
        "lotse": lambda: stack.enter_context(lotse(folder)),
        "two": lambda: stack.enter_context(lotse(folder, "server.workers=2")),
        "disk": lambda: stack.enter_context(lotse(folder, 'store.durability="disk"')),
        "stock": lambda: other("bentoml", "serve", "benchmarks.stock_service:Stock"),
        "bare": lambda: stack.enter_context(echo()),
        **{name: lambda own=own: stack.enter_context(lotse(folder, *own)) for name, own in variants.items()},  # type: ignore[misc]
    }
    running = {name: makes[name]() for name in makes if name in names}
    if "stock" in running:
        running["stock"].until("GET", "/readyz")
    return running


def variant(text: str) -> tuple[str, list[str]]:
    """`LABEL: key=value, key=value`."""
    label, _, settings = text.partition(":")
    return label.strip(), [setting.strip() for setting in settings.split(",") if setting.strip()]


def main() -> None:
    """Train, start, ask in turn, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="rows that hold this word, and those they stand beside")
    parser.add_argument("--variant", type=variant, action="append", default=[])
    options = parser.parse_args()
    needs("wrk")
    variants: dict[str, list[str]] = dict(options.variant)
    rows = {label: row for label, row in ROWS.items() if options.only in label}
    rows = {label: row for label, row in ROWS.items() if label in {*rows, *(row.beside for row in rows.values())}}
    rows |= {label: Asked(label, "/v1/events") for label in variants}
    rates: dict[str, list[float]] = {label: [] for label in rows}
    worst: dict[str, list[float]] = {label: [] for label in rows}
    with trained_folder() as folder, ExitStack() as stack:
        running = services(folder, {row.service for row in rows.values()}, variants, stack)
        first = min((service for service in running.values()), key=lambda service: service.began)
        for turn in range(options.runs + 1):
            for label, row in rows.items():
                port = running[row.service].port
                with scraped(port) if row.watched else nullcontext():
                    rate, p99 = ask(port, row.path, options.seconds, row.script, row.connections)
                if turn:  # the first turn warms up
                    rates[label].append(rate * row.events)
                    worst[label].append(p99)
                console.print(f"  turn {turn}: {label} {rate * row.events:,.0f}/s, p99 {p99:.1f} ms", style="dim")
        size, records = bytes_per_session(first.store)
    report(
        "One worker unless it is said, wrk, closed loop",
        ["what", "events/s", "p99 ms", "beside", "ratio", f"{OURS} / this"],
        [_line(label, row, rates, worst) for label, row in rows.items()],
    )
    console.print(
        f"a live session takes {size:.0f} bytes ({records:,} records); "
        f"the first score came {first.ready:.1f} s after `lotse serve`"
    )


def _line(label: str, row: Asked, rates: dict[str, list[float]], worst: dict[str, list[float]]) -> list[Any]:
    middle = median(rates[label])
    return [
        label, f"{middle:,.0f}", f"{median(worst[label]):.1f}", row.beside if row.beside != label else "",
        f"{middle / median(rates[row.beside]):.2f}x", f"{median(rates[OURS]) / middle:.2f}x" if OURS in rates else "",
    ]  # fmt: skip


if __name__ == "__main__":
    main()

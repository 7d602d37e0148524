"""Latency at 70 % of the highest load, open loop: requests come when they come, whether the last was answered or not.

    python -m benchmarks.load [--workers 1 2] [--share 0.7] [--seconds 20] [--runs 3]

The highest load is what wrk gets (64 connections, closed loop) in the worst of eight windows of two seconds: what the
service always keeps up with. A shared machine changes its speed within seconds, and at a share of what it did once
there would be a queue whenever it is slow. wrk2 then sends at a share of it, at a constant rate over 64 connections,
and tells latencies from the moment at which a request was due. Both with /metrics asked for every second and without,
and in turn with a bare uvicorn echo that has as many workers, at the same share of what it can do: the load is made on
the same machine, which may have other work, too, and what the echo is late is not the service's.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.measure import console, median, report
from benchmarks.services import ROOT, ask, echo, lotse, needs, scraped, trained_folder

SCRIPT: Final = ROOT / "benchmarks" / "events.lua"
CONNECTIONS: Final = 64
# wrk2 looks at what it measures for ten seconds before it counts
LEAST_SECONDS: Final = 15
_WINDOWS, _WINDOW_SECONDS = 8, 2


class Latencies(NamedTuple):
    """Of one run: ms, requests a second that were answered, and how many were not answered with 200."""

    p50: float
    p99: float
    p999: float
    rate: float
    failed: int


def attack(port: int, rate: float, seconds: int, script: Path = SCRIPT) -> Latencies:
    """Send at a rate, whatever comes back."""
    command = ["wrk2", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"-R{rate:.0f}", "-L", "-s", str(script)]
    told = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    failed = [*re.findall(r"Non-2xx or 3xx responses: (\d+)", told)]
    failed += re.findall(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", told)[0] if "errors" in told else []

    def at(percent: str) -> float:
        found = re.search(rf"^ *{percent}% +([\d.]+)(us|ms|s) *$", told, re.MULTILINE)
        assert found, told
        return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]

    answered = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert answered, told
    return Latencies(at("50.000"), at("99.000"), at("99.900"), float(answered[1]), sum(map(int, failed)))


def middle_of(runs: Sequence[Latencies]) -> Latencies:
    """The median of each figure."""
    p50, p99, p999, rate, failed = (median([float(one) for one in column]) for column in zip(*runs, strict=True))
    return Latencies(p50, p99, p999, rate, int(failed))


def main() -> None:
    """For each number of workers: the highest load, then a share of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="a setting of the service, as for lotse serve")
    options = parser.parse_args()
    if options.seconds < LEAST_SECONDS:
        parser.error(f"--seconds: at least {LEAST_SECONDS}")
    needs("wrk", "wrk2")
    rows = []
    with trained_folder() as folder:
        for workers in options.workers:
            with lotse(folder, f"server.workers={workers}", *options.set) as service, echo(workers) as bare:
                asked = {
                    ("lotse", "no"): (service.port, "/v1/events", False),
                    ("lotse", "every second"): (service.port, "/v1/events", True),
                    ("bare uvicorn echo", ""): (bare.port, "/", False),
                }
                ports = {port: path for port, path, _ in asked.values()}
                rates: dict[int, list[float]] = {port: [] for port in ports}
                for _ in range(_WINDOWS + 1):
                    for port, path in ports.items():
                        rates[port].append(ask(port, path, _WINDOW_SECONDS, SCRIPT.name, CONNECTIONS)[0])
                highest = {port: min(some[1:]) for port, some in rates.items()}  # the first warms up
                best = {port: max(some[1:]) for port, some in rates.items()}
                found: dict[tuple[str, str], list[Latencies]] = {row: [] for row in asked}
                for _ in range(options.runs):
                    for row, (port, _, watched) in asked.items():
                        with scraped(port) if watched else nullcontext():
                            one = attack(port, options.share * highest[port], options.seconds)
                        console.print(f"  {workers} workers, {row[0]}: {one}", style="dim")
                        found[row].append(one)
                for row, (port, _, _) in asked.items():
                    middle = middle_of(found[row])
                    p99s = sorted(one.p99 for one in found[row])
                    rows.append(
                        [
                            row[0], str(workers), row[1], f"{highest[port]:,.0f} ({best[port]:,.0f})",
                            f"{middle.rate:,.0f}",
                            f"{middle.p50:.1f}", f"{middle.p99:.1f}", f"{p99s[0]:.1f} to {p99s[-1]:.1f}",
                            f"{middle.p999:.1f}", str(sum(one.failed for one in found[row])),
                        ]
                    )  # fmt: skip
    report(
        f"Open loop (wrk2) at {options.share:.0%} of the highest load, ms",
        ["", "workers", "metrics read", "highest/s (best)", "answered/s", "p50", "p99", "p99 of each run", "p99.9",
         "failed"],
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()

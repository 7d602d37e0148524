"""Latency at 70 % of the highest load, open loop: requests come when they come, whether the last was answered or not.

    python -m benchmarks.load [--workers 1 2] [--share 0.7] [--seconds 20] [--runs 3]

The highest load is what wrk gets (64 connections, closed loop); vegeta then sends at a share of it, at a constant rate
over as many connections as are needed, and tells latencies from the moment at which a request was due. Both with
/metrics asked for every second and without. The load is made on the same machine: with two cores, two workers and the
load share them, and latencies hold what waiting for a core takes.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import subprocess
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import console, median, report
from benchmarks.services import ask, lotse, needs, scraped, trained_folder

NAMES = ("page_view", "view_item", "view_item", "view_item_list", "add_to_cart", "search")
TARGETS = 50_000


class Latencies(NamedTuple):
    """Of one run: ms, requests a second that were answered, and how many were not answered with 200."""

    p50: float
    p99: float
    p999: float
    rate: float
    failed: int


def targets(path: Path, port: int) -> Path:
    """One event a request, as vegeta reads them: a line a request; after the last comes the first again."""
    chance = random.Random(0)
    with path.open("w") as file:
        for number in range(TARGETS):
            event = {
                "visitor": f"v{chance.randrange(20_000)}", "id": f"e{number}", "name": NAMES[number % 6],
                "page": "/product/:id", "item": f"shoes-{number % 60:02d}", "category": "shoes",
                "price": number % 90 + 5.5, "channel": "organic", "device": "mobile",
            }  # fmt: skip
            body = base64.b64encode(json.dumps(event).encode()).decode()
            line = {"method": "POST", "url": f"http://127.0.0.1:{port}/v1/events", "body": body}
            file.write(json.dumps({**line, "header": {"Content-Type": ["application/json"]}}) + "\n")
    return path


def attack(requests: Path, rate: float, seconds: int) -> Latencies:
    """Send at a rate, whatever comes back."""
    command = ["vegeta", "attack", "-format=json", f"-targets={requests}", f"-rate={rate:.0f}/s"]
    with tempfile.NamedTemporaryFile() as results:
        subprocess.run([*command, f"-duration={seconds}s", "-timeout=10s"], stdout=results, check=True)
        told = {
            kind: subprocess.run(
                ["vegeta", "report", f"-type={kind}", results.name], capture_output=True, text=True, check=True
            ).stdout
            for kind in ("json", "hdrplot")
        }
    summary = json.loads(told["json"])
    lines = [list(map(float, line.split())) for line in told["hdrplot"].splitlines()[1:] if line.strip()]
    ok = summary["status_codes"].get("200", 0)

    def at(share: float) -> float:
        return next(line[0] for line in lines if line[1] >= share)

    return Latencies(at(0.5), at(0.99), at(0.999), summary["throughput"], summary["requests"] - ok)


def main() -> None:
    """For each number of workers: the highest load, then a share of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="a setting of the service, as for lotse serve")
    options = parser.parse_args()
    needs("wrk", "vegeta")
    rows = []
    with trained_folder() as folder, tempfile.TemporaryDirectory() as name:
        for workers in options.workers:
            with lotse(folder, f"server.workers={workers}", *options.set) as service:
                requests = targets(Path(name) / f"targets-{workers}", service.port)
                ask(service.port, "/v1/events", 5, "events.lua", 64)  # warms up
                highest = median([ask(service.port, "/v1/events", 5, "events.lua", 64)[0] for _ in range(options.runs)])
                console.print(f"{workers} workers: at most {highest:,.0f} requests/s", style="dim")
                for watched in (False, True):
                    with scraped(service.port) if watched else nullcontext():
                        found = [
                            attack(requests, options.share * highest, options.seconds) for _ in range(options.runs)
                        ]
                    for one in found:
                        console.print(f"  {one}", style="dim")
                    middle = Latencies(*(median(list(column)) for column in zip(*found, strict=True)))
                    rows.append(
                        [
                            str(workers), "every second" if watched else "no", f"{highest:,.0f}", f"{middle.rate:,.0f}",
                            f"{middle.p50:.1f}", f"{middle.p99:.1f}", f"{middle.p999:.1f}",
                            str(sum(one.failed for one in found)),
                        ]
                    )  # fmt: skip
    report(
        f"Open loop (vegeta) at {options.share:.0%} of the highest load, ms",
        ["workers", "metrics read", "highest/s", "answered/s", "p50", "p99", "p99.9", "failed"],
        rows,
    )


if __name__ == "__main__":
    main()

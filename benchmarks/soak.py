"""Mixed load for half an hour against a service with two workers: no error, memory flat, p99 steady.

    python -m benchmarks.soak [--minutes 30] [--rate 400] [--workers 2] [--no-moves]

wrk2 sends open loop: single events, arrays, scores of vectors, and requests that must be refused. Visitors stay for
two slices of 30 seconds, then their sessions end (timeout: a minute) and are handed on. Beside it one client reads
every session that it writes to back by its token, /metrics is read every five seconds, and the champion's alias is
moved between two versions every minute. Each slice tells the memory of each process (its own pages, without those of
the store's file), what went wrong, latencies and the store's size. At the end stands a verdict; the exit code is 1 if
it is bad.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import lmdb
import pyarrow.parquet as pq

from benchmarks.measure import console, median, report
from benchmarks.services import ROOT, Running, lotse, needs, scraped, trained_folder

SLICE_SECONDS = 30


@dataclass
class Slice:
    """What half a minute was like."""

    memory: dict[str, float]  # MB by process
    p50: float
    p99: float
    store_mb: float
    errors: Counter[str] = field(default_factory=Counter)


def attack(port: int, rate: int, number: int, vectors: str) -> tuple[float, float, Counter[str]]:
    """One slice: p50 and p99 in ms, and what was not as expected."""
    command = ["wrk2", "-t1", "-c32", f"-d{SLICE_SECONDS}s", f"-R{rate}", "-s", str(ROOT / "benchmarks" / "soak.lua")]
    told = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"],
        env={**os.environ, "LOTSE_SLICE": str(number), "LOTSE_VECTORS": vectors},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"^soak (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+)$", told, re.MULTILINE)
    assert found, told
    answers, mistaken, broken = (int(found[place]) for place in (1, 2, 3))
    errors = Counter({"wrong answer": mistaken, "broken connection": broken, "no answer": int(answers == 0)})
    return float(found[4]), float(found[5]), +errors


@contextmanager
def beside(work: Callable[[], None], stopping: threading.Event) -> Iterator[None]:
    """Work in a thread, until it is told to stop."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@contextmanager
def reading(port: int, errors: Counter[str]) -> Iterator[Counter[str]]:
    """Write an event, read its session back, whichever worker answers; counts what it did."""
    stopping, done = threading.Event(), Counter[str]()

    def read() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            while not stopping.wait(0.05):
                number = done["written and read"]
                body = {"visitor": f"reader-{number // 50}", "name": "view_item", "id": str(number)}
                try:
                    answer = http.post("/v1/events", json=body).json()
                    again = http.get(f"/v1/sessions/{answer['session']}").json()
                    if not answer["events"] == again["events"] == number % 50 + 1:
                        errors["what was written was not read"] += 1
                except (httpx.TransportError, KeyError, ValueError) as error:
                    errors[type(error).__name__] += 1
                done["written and read"] += 1

    with beside(read, stopping):
        yield done


@contextmanager
def moving_alias(folder: Path, every_seconds: float, errors: Counter[str]) -> Iterator[Counter[str]]:
    """Two versions of each head take turns as champion."""
    from mlflow import MlflowClient  # noqa: PLC0415  (seconds of imports)

    client = MlflowClient(f"sqlite:///{folder}/lotse-data/mlflow.db", f"sqlite:///{folder}/lotse-data/mlflow.db")
    stopping, done = threading.Event(), Counter[str]()
    names = [model.name for model in client.search_registered_models()]
    versions = {
        name: [
            client.get_model_version_by_alias(name, "champion"),
            client.copy_model_version(f"models:/{name}@champion", name),
        ]
        for name in names
    }
    for name, (one, other) in versions.items():
        for key, value in one.tags.items():
            client.set_model_version_tag(name, other.version, key, value)

    def move() -> None:
        while not stopping.wait(every_seconds):
            done["moves of the alias"] += 1
            for name, pair in versions.items():
                try:
                    client.set_registered_model_alias(name, "champion", pair[done["moves of the alias"] % 2].version)
                except Exception as error:
                    errors[f"alias: {type(error).__name__}"] += 1

    with beside(move, stopping):
        yield done


def memory(service: Running) -> dict[str, float]:
    """MB of each process, by what it is."""
    found = {}
    for pid in service.processes():
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            (pss,) = (int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
            found[f"{'supervisor' if pid == service.process.pid else 'worker'} {pid}"] = pss / 1024
    return found


def store_mb(store: Path) -> float:
    """What is used of the store's file."""
    with lmdb.open(str(store), readonly=True, lock=False, max_dbs=8) as environment:
        return (environment.info()["last_pgno"] + 1) * environment.stat()["psize"] / 2**20


def verdict(slices: Sequence[Slice]) -> list[str]:
    """What was not as it must be; the first quarter warms up."""
    quarter = max(1, len(slices) // 4)
    early, late = slices[quarter : 2 * quarter] or slices[:1], slices[-quarter:]
    wrong = [f"{count} x {what}" for what, count in sum((one.errors for one in slices), Counter[str]()).items()]
    for process in late[-1].memory:
        before, after = (median([one.memory.get(process, 0) for one in part]) for part in (early, late))
        if after > before * 1.05 + 10:
            wrong.append(f"{process} grew from {before:.0f} to {after:.0f} MB")
    if {process for one in slices for process in one.memory} != set(slices[0].memory):
        wrong.append("a process ended and was started again")
    before, after = median([one.p99 for one in early]), median([one.p99 for one in late])
    if after > before * 1.5 + 2:
        wrong.append(f"p99 went from {before:.1f} to {after:.1f} ms")
    before, after = median([one.store_mb for one in early]), median([one.store_mb for one in late])
    if after > before * 1.25 + 8:
        wrong.append(f"the store grew from {before:.0f} to {after:.0f} MB")
    return wrong


def main() -> None:
    """Load, tell, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=int, default=400, help="requests a second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-moves", action="store_true", help="leave the champion's alias where it is")
    parser.add_argument("--set", action="append", default=[], help="a setting of the service, as for lotse serve")
    options = parser.parse_args()
    needs("wrk2")
    settings = [f"server.workers={options.workers}", "session.timeout_minutes=1", "store.closed_seconds=10"]
    settings.append("store.linked_days=0.002")  # three minutes; what stays for a year makes the store grow for a year
    slices: list[Slice] = []
    errors = Counter[str]()
    with trained_folder() as folder, lotse(folder, *settings, *options.set) as service:
        about = httpx.get(f"http://127.0.0.1:{service.port}/v1/features").json()
        vectors = json.dumps({"rows": [dict.fromkeys(about["features"], 1.0)] * 5})
        moves = moving_alias(folder, 3600 if options.no_moves else 60, errors)
        with scraped(service.port, 5), reading(service.port, errors) as read, moves as moved:
            until = time.monotonic() + 60 * options.minutes
            while time.monotonic() < until:
                p50, p99, wrong = attack(service.port, options.rate, len(slices), vectors)
                one = Slice(memory(service), p50, p99, store_mb(service.store), wrong + errors)
                errors.clear()
                slices.append(one)
                told = ", ".join(f"{process} {size:.0f} MB" for process, size in one.memory.items())
                console.print(
                    f"{len(slices) * SLICE_SECONDS:5d} s: p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
                    f"store {one.store_mb:.1f} MB, {told}; errors: {dict(one.errors) or 'none'}"
                )
        handed_on = sum(pq.ParquetFile(file).metadata.num_rows for file in service.closed.rglob("*.parquet"))
    wrong_at_all = verdict(slices)
    report(
        f"{options.minutes:g} minutes, {options.rate} requests/s, {options.workers} workers",
        ["", "first quarter", "second", "third", "last"],
        [
            [label, *(f"{median([value(one) for one in part]):.1f}" for part in _quarters(slices))]
            for label, value in (
                ("p50 ms", lambda one: one.p50),
                ("p99 ms", lambda one: one.p99),
                ("MB of all processes", lambda one: sum(one.memory.values())),
                ("MB of the store", lambda one: one.store_mb),
            )
        ],
    )
    console.print(f"{dict(read)}, {dict(moved)}, {handed_on:,} sessions handed on")
    console.print("verdict: " + ("; ".join(wrong_at_all) if wrong_at_all else "no error, memory flat, p99 steady"))
    sys.exit(bool(wrong_at_all))


def _quarters(slices: Sequence[Slice]) -> list[Sequence[Slice]]:
    size = max(1, len(slices) // 4)
    return [slices[min(number * size, len(slices) - 1) :][:size] for number in range(4)]


if __name__ == "__main__":
    main()

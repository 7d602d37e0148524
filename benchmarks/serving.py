"""Requests per second of `POST /v1/events` against a no-op in the same service and a stock BentoML no-op.

    python -m benchmarks.serving [--seconds 6] [--runs 5]

Needs `wrk`. Trains models from a simulated shop in a folder of its own, starts both services with one worker each, and
lets wrk (one thread, 16 connections, loopback) ask them in turn. Also: bytes a live session takes, and the time from
`lotse serve` to the first score.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import lmdb

from benchmarks.measure import console, median, report

ROOT = Path(__file__).resolve().parents[1]
LOTSE = [sys.executable, "-c", "from features.cli import main; main()"]
EVENT = {"visitor": "first", "name": "page_view"}


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the service answers."""
    while True:
        if process.poll() is not None:
            raise SystemExit("a service ended before it was ready")
        try:
            if httpx.get(url, timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)


def start_lotse(folder: Path, port: int) -> tuple[subprocess.Popen[bytes], float]:
    """The service, and the seconds from the command to the first score."""
    begin = time.perf_counter()
    command = [*LOTSE, "serve", "--port", str(port), "--set", "server.noop=true"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/events", json=EVENT, timeout=5)
            if answer.status_code == httpx.codes.OK and "reasons" not in answer.json():
                return process, time.perf_counter() - begin
        except httpx.TransportError:
            pass
        time.sleep(0.02)


def start_stock(port: int) -> subprocess.Popen[bytes]:
    """BentoML as it comes."""
    command = [sys.executable, "-m", "bentoml", "serve", "benchmarks.stock_service:Stock", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    wait(f"http://127.0.0.1:{port}/readyz", process)
    return process


def environment() -> dict[str, str]:
    """Nothing of a benchmark is reported to anybody."""
    return {**os.environ, "BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"}


def ask(port: int, path: str, seconds: int, script: str) -> tuple[float, float]:
    """Requests per second and p99 in ms of one wrk run."""
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", "-s", str(ROOT / "benchmarks" / script)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"],
        env={**os.environ, "LOTSE_PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"{path} answered errors:\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    worst = re.search(r"99%\s+([\d.]+)(us|ms|s)\n", done.stdout)
    assert rate and worst
    return float(rate[1]), float(worst[1]) * {"us": 0.001, "ms": 1, "s": 1000}[worst[2]]


def bytes_per_session(folder: Path) -> tuple[float, int]:
    """Bytes of the store's used pages for each record, and the number of records."""
    with lmdb.open(str(folder / "lotse-data" / "live"), readonly=True, lock=False) as store:
        information, statistics = store.info(), store.stat()
        return (information["last_pgno"] + 1) * statistics["psize"] / statistics["entries"], statistics["entries"]


def main() -> None:
    """Train, start, ask in turn, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; on Debian: apt-get install wrk")
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "configs", folder / "configs")
        for verb in (["simulate", "--events", "150000"], ["train", "--events", "lotse-data/simulated.parquet"]):
            subprocess.run([*LOTSE, *verb], cwd=folder, check=True, capture_output=True, env=environment())
        console.print("models trained; starting the services")
        try:
            starts = []
            for _ in range(3):
                port = free_port()
                process, took = start_lotse(folder, port)
                processes.append(process)
                starts.append(took)
                if len(starts) < 3:
                    process.terminate()
                    process.wait(30)
            stock_port = free_port()
            processes.append(start_stock(stock_port))
            asked = {
                "POST /v1/events": (port, "/v1/events", "events.lua"),
                "no-op, same service": (port, "/v1/noop", "events.lua"),
                "stock @bentoml.api no-op": (stock_port, "/noop", "noop.lua"),
            }
            rates: dict[str, list[float]] = {label: [] for label in asked}
            worst: dict[str, list[float]] = {label: [] for label in asked}
            for turn in range(options.runs + 1):
                for label, (to, path, script) in asked.items():
                    rate, p99 = ask(to, path, options.seconds, script)
                    if turn:  # the first turn warms up
                        rates[label].append(rate)
                        worst[label].append(p99)
                    console.print(f"  turn {turn}: {label} {rate:,.0f} requests/s, p99 {p99:.1f} ms", style="dim")
            size, records = bytes_per_session(folder)
        finally:
            for process in processes:
                if process.poll() is None:
                    process.terminate()
                    process.wait(30)
    ours = median(rates["POST /v1/events"])
    report(
        "One worker, wrk with 16 connections",
        ["what", "requests/s", "p99 ms", "events / this"],
        [
            [label, f"{median(found):,.0f}", f"{median(worst[label]):.1f}", f"{ours / median(found):.2f}x"]
            for label, found in rates.items()
        ],
    )
    console.print(
        f"a live session takes {size:.0f} bytes ({records:,} records); "
        f"the first score comes {median(starts):.1f} s after `lotse serve`"
    )


if __name__ == "__main__":
    main()

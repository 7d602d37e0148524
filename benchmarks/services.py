"""Services to be measured: started in a folder of models trained from a simulated shop, asked by wrk, ended."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import httpx

ROOT: Final = Path(__file__).resolve().parents[1]
LOTSE: Final = [sys.executable, "-c", "from features.cli import main; main()"]
EVENT: Final = {"visitor": "first", "name": "page_view"}
_READY_SECONDS: Final = 180


def environment() -> dict[str, str]:
    """Nothing of a benchmark is reported to anybody."""
    return {**os.environ, "BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def needs(*programs: str) -> None:
    """End with what to install if a program is not there."""
    how = {
        "wrk": "on Debian: apt-get install wrk",
        "wrk2": "build it from its source (giltene/wrk2 on GitHub, make) and have it in PATH under this name",
    }
    for program in programs:
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed; {how[program]}")


@contextmanager
def trained_folder() -> Iterator[Path]:
    """A folder with configs and models; `LOTSE_TRAINED` names one that is there already."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "work"
        if there := os.environ.get("LOTSE_TRAINED"):
            yield Path(there)
            return
        folder.mkdir()
        shutil.copytree(ROOT / "configs", folder / "configs")
        for verb in (["simulate", "--events", "150000"], ["train", "--events", "lotse-data/simulated.parquet"]):
            subprocess.run([*LOTSE, *verb], cwd=folder, check=True, capture_output=True, env=environment())
        yield folder


class Running:
    """A process that serves a port, with everything it started.

    began, ready: when it was started, and how many seconds later it answered.
    store, closed: where its records are, and what is handed on.
    """

    def __init__(self, command: Sequence[str], folder: Path, port: int) -> None:
        self.port, self.log = port, tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)
        self.began, self.ready = time.perf_counter(), 0.0
        self.store = self.closed = folder
        self.process = subprocess.Popen(command, cwd=folder, stdout=self.log, stderr=self.log, env=environment())

    def until(self, method: str, path: str, json: object = None) -> float:
        """Wait for an answer of 200 without `reasons`; returns the seconds since the start."""
        while time.perf_counter() < self.began + _READY_SECONDS:
            if self.process.poll() is not None:
                break
            try:
                answer = httpx.request(method, f"http://127.0.0.1:{self.port}{path}", json=json, timeout=5)
                if answer.status_code == httpx.codes.OK and b'"reasons"' not in answer.content:
                    return time.perf_counter() - self.began
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        self.log.seek(0)
        raise SystemExit(f"the service is not ready:\n{self.log.read()}")

    def processes(self) -> list[int]:
        """The process and all below it."""
        found, waiting = [], [self.process.pid]
        while waiting:
            found.append(waiting.pop())
            children = Path(f"/proc/{found[-1]}/task/{found[-1]}/children")
            if children.exists():
                waiting += [int(child) for child in children.read_text().split()]
        return found

    def stop(self) -> None:
        """End it in good order."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self.log.close()


@contextmanager
def lotse(folder: Path, *overrides: str) -> Iterator[Running]:
    """The service with a store and keys of its own, once it scores."""
    with tempfile.TemporaryDirectory() as own, ExitStack() as stack:
        port = free_port()
        command = [*LOTSE, "serve", "--port", str(port)]
        kept = [f"keys.folder={own}/keys", f"store.url=embedded:{own}/live", f"store.closed={own}/closed"]
        for override in (*kept, "server.noop=true", *overrides):
            command += ["--set", override]
        running = Running(command, folder, port)
        running.store, running.closed = Path(own) / "live", Path(own) / "closed"
        stack.callback(running.stop)
        running.ready = running.until("POST", "/v1/events", EVENT)
        running.until("GET", "/readyz")
        yield running


@contextmanager
def echo(workers: int = 1) -> Iterator[Running]:
    """The bare uvicorn echo of `benchmarks.bare`."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.bare:app", "--no-access-log", "--log-level", "warning"]
    running = Running([*command, "--workers", str(workers), "--port", str(port)], ROOT, port)
    try:
        running.until("GET", "/")
        yield running
    finally:
        running.stop()


@contextmanager
def scraped(port: int, seconds: float = 1) -> Iterator[None]:
    """Metrics asked for again and again, as Prometheus does."""
    stopping = threading.Event()

    def scrape() -> None:
        # httpx takes milliseconds of a core that the service needs
        client = HTTPConnection("127.0.0.1", port, timeout=5)
        while not stopping.wait(seconds):
            try:
                client.request("GET", "/metrics")
                client.getresponse().read()
            except OSError:  # under too much load; the next one may be answered
                client.close()
        client.close()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def ask(port: int, path: str, seconds: int, script: str, connections: int = 16) -> tuple[float, float]:
    """Requests per second and p99 in ms of one wrk run: one thread, closed loop."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(ROOT / "benchmarks" / script)]
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


def processor(port: int) -> float:
    """Seconds of processor's time that the service's workers have taken."""
    return float(re.findall(r"^process_cpu_seconds_total ([\d.e+]+)", page(port), re.MULTILINE)[0])


def page(port: int) -> str:
    """The service's metrics."""
    return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text


@contextmanager
def collector(*, hangs: bool) -> Iterator[int]:
    """A server that answers every request at once, or holds connections and answers none; its port."""
    with echo() as running:
        if hangs:
            running.process.send_signal(signal.SIGSTOP)
        try:
            yield running.port
        finally:
            running.process.send_signal(signal.SIGCONT)

"""A folder as a user has it: configs, a history, models trained from it, and the service started in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
# Makes every run the same.
KEY = b"a fixed key of thirty-two bytes!"
LOTSE = [sys.executable, "-c", "from features.cli import main; main()"]


def workspace(folder: Path, key: bytes | None = None) -> Path:
    """The configs in a folder of their own; with a given key for pseudonyms, from which follows who is tested."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    if key:
        (folder / "lotse-data").mkdir()
        (folder / "lotse-data" / "pseudonym.key").write_bytes(key)
    return folder


def environment() -> dict[str, str]:
    """The process environment without what a user's shell would not have."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LOTSE_SERVING", "BENTOML_"))}


def lotse(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end."""
    return subprocess.run(
        [*LOTSE, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=900, check=False
    )


def packed(trained: Path) -> list[str]:
    """Overrides: the models of a folder where `lotse train` has run, and no registry, for which MLflow is loaded."""
    folder = trained / "packed"
    if not folder.exists():
        done = lotse(trained, "build", "--models", "packed")
        assert done.returncode == 0, done.stderr
    return ["models.uri=", f"models.cache={folder}"]


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Ask again until it is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


class Service:
    """`lotse serve` as a process."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder, self.overrides = folder, overrides
        self.log = folder / "serve.log"
        self.scheme, self.verify = "http", ""
        self.http = httpx.Client()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def start(self) -> Service:
        """Start and wait until it is ready."""
        self.begin()
        self.http.close()  # of the start before
        self.http = self.client()
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                if self.http.get("/readyz").status_code == 200:
                    return self
            time.sleep(0.1)
        raise AssertionError(f"not ready: {self.log.read_text()}")

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        """A client of its own connections; `verify` names the certificate that the service is to show."""
        verify = ssl.create_default_context(cafile=self.verify) if self.verify else True
        return httpx.Client(base_url=self.url, timeout=20, verify=verify)

    def begin(self) -> None:
        """Start without waiting."""
        command = [*LOTSE, "serve", "--port", str(self.port)]
        for override in self.overrides:
            command += ["--set", override]
        with self.log.open("a") as file:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=file, stderr=file)

    def processes(self) -> list[int]:
        """The supervisor and everything it started."""
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            children = Path(f"/proc/{pid}/task/{pid}/children")
            with contextlib.suppress(OSError):
                waiting += [int(child) for child in children.read_text().split()]
        return found

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """It holds its connections and does nothing; then it goes on, first with what has come in meanwhile."""
        stopped = self.processes()
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                os.kill(process, signal.SIGCONT)

    def kill(self) -> None:
        """kill -9 of every process at once."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=20)
        self.http.close()

    def stop(self) -> None:
        """End it as an operator does."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

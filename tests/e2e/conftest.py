"""`lotse demo` as a newcomer runs it, smaller, once for all: its models serve the others."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.once import alone, common
from tests.workspace import lotse, workspace


class DemoRun(NamedTuple):
    """A demo that has run to its end: its folder, what it printed, and the port that it served on."""

    folder: Path
    output: str
    port: int


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """Once for all processes of a run."""
    shared = common(tmp_path_factory)
    folder, printed = shared / "demo" / "work", shared / "demo" / "output"
    with alone(shared / "demo.lock"):
        if not printed.exists():
            workspace(folder)
            port = free_port()
            done = lotse(folder, "demo", "--size", "40000", "--seconds", "4", "--port", str(port))
            assert done.returncode == 0, done.stdout + done.stderr
            printed.write_text(f"{port}\n{done.stdout}")
    port_line, _, output = printed.read_text().partition("\n")
    return DemoRun(folder, output, int(port_line))

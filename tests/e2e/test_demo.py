"""`lotse demo` as a newcomer runs it, smaller."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.workspace import lotse, workspace


@pytest.mark.slow
def test_the_demo_runs_to_its_end(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "work")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = lotse(folder, "demo", "--size", "40000", "--seconds", "4", "--port", str(port))
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("Live sessions", "events answered, 0 failed", "mlflow ui", "plots/*.png", "curl http://127.0.0.1"):
        assert words in done.stdout
    answered = int(done.stdout.partition(" events answered")[0].split()[-1].replace(",", ""))
    assert answered > 100
    with socket.socket() as again:  # nothing is left behind that listens
        assert again.connect_ex(("127.0.0.1", port)) != 0


def test_a_log_needs_its_path(tmp_path: Path) -> None:
    done = lotse(workspace(tmp_path / "work"), "demo", "--source", "taobao")
    assert done.returncode == 2
    assert "where is the log of 'taobao'? Give its path" in done.stderr
    assert "[sources.taobao] path" in done.stderr

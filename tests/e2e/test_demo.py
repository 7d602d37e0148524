"""`lotse demo` as a newcomer runs it, smaller."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.conftest import DemoRun, free_port
from tests.workspace import lotse, workspace


@pytest.mark.slow
def test_the_demo_runs_to_its_end(demo_run: DemoRun) -> None:
    for words in ("Live sessions", "events answered, 0 failed", "mlflow ui", "plots/*.png", "curl http://127.0.0.1"):
        assert words in demo_run.output
    answered = int(demo_run.output.partition(" events answered")[0].split()[-1].replace(",", ""))
    assert answered > 100
    with socket.socket() as again:  # nothing is left behind that listens
        assert again.connect_ex(("127.0.0.1", demo_run.port)) != 0


def test_a_log_needs_its_path(tmp_path: Path) -> None:
    done = lotse(workspace(tmp_path / "work"), "demo", "--source", "taobao")
    assert done.returncode == 2
    assert "where is the log of 'taobao'? Give its path" in done.stderr
    assert "[sources.taobao] path" in done.stderr


def test_a_port_that_is_taken_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = lotse(
            workspace(tmp_path / "work"), "demo", "--keep", "--shop-port", str(port), "--port", str(free_port())
        )
    assert done.returncode == 2
    assert f"--shop-port {port}: " in done.stderr
    assert not (tmp_path / "work" / "lotse-data").exists()

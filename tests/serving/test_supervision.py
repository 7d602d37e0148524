"""Nothing of a service is left, whoever of it is killed: supervisor, workers, the follower of models."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from bentoml._internal.utils import circus

from serving.supervision import replace_workers_soon
from tests.workspace import Service, wait_until, workspace


def runs(pid: int) -> bool:
    """Whether a process has not ended; one that nobody has asked for its status has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def followers(running: Service) -> dict[int, int]:
    """Every follower that runs, and the worker that started it."""
    found = {}
    for pid in running.processes():
        if runs(pid) and b"serving.follow" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


@pytest.mark.slow
def test_no_process_is_left_behind(trained: Path, tmp_path: Path) -> None:
    """A follower ends when its worker is killed, workers when their supervisor is."""
    registry = f"models.uri=sqlite:///{trained}/lotse-data/mlflow.db"
    running = Service(workspace(tmp_path / "work"), registry, "server.workers=2").start()
    wait_until(lambda: len(followers(running)) == 1)
    (follower, worker), *_ = followers(running).items()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not runs(follower))
    # another worker starts the next one
    wait_until(lambda: bool(followers(running)), seconds=60)
    everybody = running.processes()
    running.process.kill()
    running.process.wait(timeout=20)
    wait_until(lambda: not any(map(runs, everybody)), seconds=60)
    running.http.close()


def test_a_killed_worker_is_missed_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """As BentoML's supervisor is made: it would look every ten."""
    monkeypatch.setattr(circus, "create_standalone_arbiter", circus.create_standalone_arbiter)  # put back afterwards
    replace_workers_soon()
    arbiter = circus.create_standalone_arbiter([])
    assert arbiter.check_delay == arbiter.ctrl.check_delay / 1000 == 1

"""A process beside the workers: there is one, and another one when it ends, hangs, or its worker does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from serving.companion import Companion, take_lock
from serving.experiments.attributes import Names
from serving.experiments.learning import LOCK, Orders
from tests.workspace import wait_until


def companion(folder: Path, heard: Callable[[], float] = time.time) -> Companion:
    """The learner, as one of several workers keeps it; heard: when it last gave a sign."""
    found = Companion("serving.learn", partial(take_lock, folder / LOCK), heard, 1.0)
    orders = Orders(f"{folder}/none.json", f"{folder}/closed", str(folder), Names(frozenset(), frozenset()), 0.1, 1.0)
    found.order(lambda run: msgspec.json.encode(orders))
    return found


def kept(one: Companion, folder: Path) -> subprocess.Popen[bytes]:
    """Its process, once it works, which the file says that it publishes."""
    (folder / "learned.json").unlink(missing_ok=True)

    def works() -> bool:
        one.keep()
        return (folder / "learned.json").exists()

    wait_until(works)
    assert one.process is not None
    return one.process


def test_one_process_runs_and_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hangs = [False]
    one, other = companion(tmp_path, lambda: 0.0 if hangs[0] else time.time()), companion(tmp_path)
    try:
        first = kept(one, tmp_path)
        other.keep()
        assert other.process is None  # somebody else holds the lock
        first.send_signal(signal.SIGSTOP)
        hangs[0] = True

        def replaced() -> bool:
            one.keep()
            return one.process is not first

        wait_until(replaced)
        assert first.poll() is not None and "has given no sign" in caplog.text
        one.close()
        second = kept(other, tmp_path)
        second.kill()
        assert kept(other, tmp_path) is not second and "has ended" in caplog.text
    finally:
        one.close()
        other.close()


def test_it_ends_with_its_worker(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tests.serving.test_companion import companion, kept\n"
        "folder = Path(sys.argv[1]); print(kept(companion(folder), folder).pid, flush=True); time.sleep(60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    os.kill(pid, 0)
    worker.kill()
    worker.wait()

    wait_until(lambda: take_lock(tmp_path / LOCK, "another") is not None)
    worker.stdout.close()

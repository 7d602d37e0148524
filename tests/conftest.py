"""Fixtures shared by the suites: models trained once from the real log, and services that score with them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.shared import TAOBAO
from tests.workspace import KEY, Service, lotse, packed, workspace

# Real logs are years old: their times are believed, as an operator who replays an archive configures it.
REPLAY = "session.max_age_hours=200000"

# How many random histories a property is tried on; `pytest --hypothesis-profile small` where each takes long.
settings.register_profile("usual", max_examples=150, deadline=None)
settings.register_profile("small", max_examples=5, deadline=None)
settings.load_profile("usual")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of files, which two processes share: those with slow tests first, so that the last ones are short.

    Of these, one has the models trained while the others that come next do not need them.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    later = {item.path for item in items if slow[item.path] and "trained" in getattr(item, "fixturenames", ())}
    later.discard(max(later, key=lambda path: (slow[path], path), default=Path()))
    items.sort(key=lambda item: (not slow[item.path], item.path in later, -slow[item.path]))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where `lotse train --source taobao` has run, once for all processes of a run; not to be served in."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "taobao" / "work"
    with (shared / "taobao.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "train.log").exists():
            workspace(folder, KEY)
            done = lotse(folder, "train", "--source", "taobao", "--events", str(TAOBAO))
            assert done.returncode == 0, done.stdout + done.stderr
            packed(folder)
            (folder / "train.log").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def service(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the registry and the pseudonyms of where the models were trained."""
    folder = workspace(tmp_path_factory.mktemp("service") / "work", KEY)
    running = Service(folder, REPLAY, f"models.uri=sqlite:///{trained}/lotse-data/mlflow.db").start()
    yield running
    running.stop()


@pytest.fixture
def own_service(trained: Path, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """A service of the test's own: same models, its own store and keys; no registry, unless an override names one."""
    started: list[Service] = []

    def start(*overrides: str) -> Service:
        shutil.copytree(trained / "configs", tmp_path / "configs", dirs_exist_ok=True)
        running = Service(tmp_path, *packed(trained), *overrides)
        started.append(running)
        return running.start()

    yield start
    for running in started:
        if running.process.poll() is None:
            running.stop()

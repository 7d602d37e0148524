"""Fixtures shared by the suites: models trained once from the real log, and services that score with them."""

from __future__ import annotations

import shutil
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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where `lotse train --source taobao` has run."""
    folder = workspace(tmp_path_factory.mktemp("taobao") / "work", KEY)
    done = lotse(folder, "train", "--source", "taobao", "--events", str(TAOBAO))
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "train.log").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def service(trained: Path) -> Iterator[Service]:
    """The service in the folder where the models were trained."""
    running = Service(trained, REPLAY).start()
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

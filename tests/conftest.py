"""Fixtures shared by the suites: models trained once from the real log, and services that score with them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.once import alone, common
from tests.shared import TAOBAO
from tests.watched import watched_folder
from tests.workspace import KEY, Service, lotse, packed, workspace

# Real logs are years old: their times are believed, as an operator who replays an archive configures it.
REPLAY = "session.max_age_hours=200000"

# How many random histories a property is tried on; `pytest --hypothesis-profile small` where each takes long.
settings.register_profile("usual", max_examples=150, deadline=None)
settings.register_profile("small", max_examples=5, deadline=None)
settings.load_profile("usual")


# What takes minutes to have, and is had once for all processes of a run: the others wait at its lock.
SHARED = ("trained", "watched", "demo_run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of files, which two processes share: those with slow tests first, so that the last ones are short.

    Of what is shared, one file has it made while those that need it, too, come after all that do not: nobody waits.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    needs: dict[Path, set[str]] = {}
    for item in items:
        if slow[item.path]:
            needs.setdefault(item.path, set()).update({*SHARED} & {*getattr(item, "fixturenames", ())})
    # a file that waits for nothing else, if there is one, with many slow tests
    first = [
        min(those, key=lambda path: (len(needs[path]), -slow[path], path))
        for name in SHARED
        if (those := [path for path in needs if name in needs[path]])
    ]
    items.sort(key=lambda item: (
        not slow[item.path],
        first.index(item.path) if item.path in first else len(first) + bool(needs.get(item.path)),
        -slow[item.path],
    ))  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where `lotse train --source taobao` has run, once for all processes of a run; not to be served in."""
    folder = common(tmp_path_factory) / "taobao" / "work"
    with alone(common(tmp_path_factory) / "taobao.lock"):
        if not (folder / "train.log").exists():
            workspace(folder, KEY)
            done = lotse(folder, "train", "--source", "taobao", "--events", str(TAOBAO))
            assert done.returncode == 0, done.stdout + done.stderr
            packed(folder)
            (folder / "train.log").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose models were trained and watched, once for all processes of a run; not to be served in."""
    folder = common(tmp_path_factory) / "watched" / "work"
    with alone(common(tmp_path_factory) / "watched.lock"):
        if not (folder / "done").exists():
            watched_folder(folder)
            (folder / "done").touch()
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

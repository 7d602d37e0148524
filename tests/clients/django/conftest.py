"""A service with keys and flags, and shops under both kinds of server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from serving.keys import KeyFile
from tests.clients.django.running import FLAGS, SERVERS, DjangoShop, Server, running
from tests.workspace import ROOT, Service, packed

Start = Callable[..., DjangoShop]
# Where a test is not about time: on a busy machine a page may take longer than it should.
PATIENT_MS = 3_000


@pytest.fixture(scope="module")
def overrides() -> tuple[str, ...]:
    """Of the module's service, for a module that has some."""
    return ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the module's service: configurations and flags."""
    found = tmp_path_factory.mktemp("keyed")
    shutil.copytree(ROOT / "configs", found / "configs")
    (found / "flags.json").write_text(json.dumps(FLAGS))
    return found


@pytest.fixture(scope="module")
def secret(folder: Path) -> str:
    """A secret key of it."""
    (folder / "lotse-data").mkdir(exist_ok=True)
    _, shown = KeyFile(folder / "lotse-data").create("secret", "shop")
    return shown


@pytest.fixture(scope="module")
def keyed(trained: Path, folder: Path, secret: str, overrides: tuple[str, ...]) -> Iterator[Service]:
    """A service of the module's own, with trained models, that wants keys."""
    started = Service(folder, *packed(trained), "experiments.file=flags.json", *overrides).start()
    yield started
    if started.process.poll() is None:
        started.stop()


@pytest.fixture(scope="module")
def start(keyed: Service, secret: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a shop; its settings are the usual ones, and what a test wants otherwise."""
    with ExitStack() as shops:

        def started(server: Server, more: dict[str, Any] | None = None, **lotse: Any) -> DjangoShop:
            usual: dict[str, Any] = {"URL": keyed.url, "KEY": secret, "TIMEOUT_MS": PATIENT_MS}
            usual["FLAGS"] = {"help_offer": "none", "banner": False}
            shop = DjangoShop(server, tmp_path_factory.mktemp("shop"), {**usual, **lotse}, **(more or {}))
            return shops.enter_context(running(shop))

        yield started


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    """WSGI with threads, and ASGI."""
    found: Server = request.param
    return found


@pytest.fixture(scope="module")
def shop(server: Server, start: Start) -> DjangoShop:
    """The shop that most tests visit."""
    return start(server)

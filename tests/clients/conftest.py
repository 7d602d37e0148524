"""A service with flags and keys, as a shop's server has one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.keys import KeyFile, Kind
from tests.workspace import ROOT, Service, packed, wait_until

FLAGS: dict[str, Any] = {
    "features": {
        "help_offer": {
            "defaultValue": "none",
            "rules": [{"condition": {"events": {"$gte": 2}}, "force": "chat"}],
        },
        "price": {"defaultValue": 1.5},
        "local_price": {"defaultValue": 1.5, "rules": [{"condition": {"country": "DE"}, "force": 2.5}]},
        "links": {"defaultValue": {"more": ["a", "b"]}},
    },
    "attributes": ["country"],
}


@pytest.fixture(scope="session")
def keyed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with trained models and flags that wants keys; a test may kill it and starts it again."""
    folder = tmp_path_factory.mktemp("keyed")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "flags.json").write_text(json.dumps(FLAGS))
    (folder / "lotse-data").mkdir()
    KeyFile(folder / "lotse-data").create("secret", "first")
    running = Service(folder, *packed(trained), "experiments.file=flags.json").start()
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="session")
def secret(keyed: Service) -> str:
    """A secret key that the service knows."""
    return key_of(keyed)


def key_of(service: Service, kind: Kind = "secret") -> str:
    """A new key, which the service knows."""
    _, shown = KeyFile(service.folder / "lotse-data").create(kind, "shop")
    wait_until(lambda: service.http.get(f"/api/features/{shown}").status_code == 200)
    return shown

"""One browser and one service, behind TLS as clients insist on, for all clients."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.clients import chromium
from tests.certificate import certificate
from tests.workspace import Service, packed


@pytest.fixture(scope="module")
def collector(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the module's own, with trained models."""
    folder = tmp_path_factory.mktemp("collector")
    shutil.copytree(trained / "configs", folder / "configs")
    shown, key = certificate(folder)
    running = Service(folder, *packed(trained), f"tls.certificate={shown}", f"tls.key={key}")
    running.scheme, running.verify = "https", str(shown)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser(collector: Service) -> Iterator[Browser]:
    """Chromium."""
    with sync_playwright() as playwright, chromium(playwright.chromium, collector) as started:
        yield started

"""One browser and one service, behind TLS as clients insist on, for all clients."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.browser.clients import chromium
from tests.certificate import certificate
from tests.workspace import Service, packed


@pytest.fixture(scope="module")
def overrides() -> tuple[str, ...]:
    """Of the module's service, for a module that has some."""
    return ()


@pytest.fixture(scope="module")
def collector(trained: Path, tmp_path_factory: pytest.TempPathFactory, overrides: tuple[str, ...]) -> Iterator[Service]:
    """A service of the module's own, with trained models."""
    folder = tmp_path_factory.mktemp("collector")
    shutil.copytree(trained / "configs", folder / "configs")
    shown, key = certificate(folder)
    running = Service(folder, *packed(trained), f"tls.certificate={shown}", f"tls.key={key}", *overrides)
    running.scheme, running.verify = "https", str(shown)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def driver() -> Iterator[Playwright]:
    """What starts browsers; there may be only one."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(driver: Playwright, collector: Service) -> Iterator[Browser]:
    """Chromium."""
    with chromium(driver, collector.port) as started:
        yield started

"""A real service with data behind it, one that has none, and Chromium."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from simulation.crowd import visits_of_shop
from simulation.shop import simulate
from tests.chromium import headless
from tests.console.pages import Opened, context_of, post
from tests.workspace import ROOT, Service, packed, wait_until

# Sessions that are over, by whose events a later visit of the same visitors says so.
OVER = 240
RUNNING = 120

# as long as other waits of these tests: a slow machine's service checks a configuration for longer than 5 s
expect.set_options(timeout=30_000)


def serve(folder: Path, trained: Path | None, *overrides: str) -> Service:
    """A service with the models of a folder where `lotse train` has run, or with none."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "configs", folder / "configs", dirs_exist_ok=True)
    models = packed(trained) if trained else ["models.uri="]
    return Service(folder, *models, "store.closed_seconds=0.5", "server.batch_limit=2000", *overrides).start()


def visited(service: Service, over: int = OVER, running: int = RUNNING) -> None:
    """Visits of a simulated shop: some sessions are over and handed on, others run, some of them idle for minutes."""
    visits = visits_of_shop(simulate(visitors=over + running, seed=7))[: over + running]
    now, sent = time.time_ns() // 1_000_000, []
    for number, visit in enumerate(visits):
        ended = number < over
        idle_ms = 3_600_000 * (1 + number % 20) if ended else round(1_500_000 * ((number - over) / running) ** 2)
        last = visit.offsets[-1]
        # an event's time is believed for a day, and a session that runs must not be over by its own clock
        for place, (event, offset) in enumerate(zip(visit.events, visit.offsets, strict=True)):
            at = now - idle_ms - round((last - offset) * 1000)
            if at > now - 80_000_000:
                whose = {"visitor": visit.visitor, "time": at, "id": f"{visit.visitor}-{place}"}
                sent.append(event | whose | ({"session": f"first-{visit.visitor}"} if ended else {}))
        if ended:
            # another visit of the same visitor ends the one before
            again = {"visitor": visit.visitor, "session": f"next-{visit.visitor}", "time": now}
            sent.append({"name": "page_view", **again})
    sent.sort(key=lambda event: event["time"])
    post(service, sent)
    wait_until(lambda: len(list((service.folder / "lotse-data/closed").glob("day=*/*.parquet"))) > 0)


@pytest.fixture(scope="session")
def console_service(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with models, sessions that run and sessions that are over; not to be changed by a test."""
    running = serve(tmp_path_factory.mktemp("console") / "work", trained)
    try:
        visited(running)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def empty_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has no models and has met nobody."""
    running = serve(tmp_path_factory.mktemp("empty") / "work", None)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def driver() -> Iterator[Playwright]:
    """What starts browsers; there may be only one, and as long as it is there no other event loop."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(driver: Playwright) -> Iterator[Browser]:
    """Chromium."""
    with headless(driver) as started:
        yield started


@pytest.fixture
def page_at(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Opened]]:
    """Open pages: `page_at(390, "light", "de").show("live")`; at the end each is held to what all must keep to.

    Without a service they are of `console_service`.
    """
    opened: list[tuple[Opened, Any]] = []

    def open_page(width: int, theme: str, language: str, service: Service | None = None, **more: Any) -> Opened:
        asked = service or request.getfixturevalue("console_service")
        context = context_of(browser, width, theme, language, **more)
        found = Opened(context.new_page(), asked)
        opened.append((found, context))
        return found

    yield open_page
    name = re.sub(r"\W+", "-", request.node.name)
    try:
        for (one, _), number in zip(opened, itertools.count()):
            one.close(f"{name}-{number}")
    finally:
        for _, context in opened:
            context.close()

"""The shop of tests/clients/django_shop under the servers that Django shops run under, and visitors of it."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import httpx

from tests.browser.clients import AGENT
from tests.server_process import HOST, ServerProcess, free_ports, running
from tests.workspace import ROOT, Service

Server = Literal["gunicorn", "uvicorn"]
SERVERS: Final[tuple[Server, ...]] = ("gunicorn", "uvicorn")
TIMEOUT_MS: Final = 30
_APPLICATION: Final = "tests.clients.django_shop"
# What a browser says of a page that it opens.
BROWSER: Final = {
    "user-agent": AGENT,
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "sec-fetch-dest": "document",
    "sec-fetch-mode": "navigate",
}
FLAGS: Final[dict[str, Any]] = {
    "features": {
        "help_offer": {
            "defaultValue": "none",
            "rules": [{"condition": {"events": {"$gte": 2}}, "force": "chat"}],
        },
        "banner": {"defaultValue": False, "rules": [{"condition": {"cart_adds": {"$gte": 1}}, "force": True}]},
        "price": {"defaultValue": 1.5},
    },
}


class DjangoShop(ServerProcess):
    """The shop as a process; lotse: its LOTSE setting; preload: whether gunicorn forks when all is loaded."""

    def __init__(self, server: Server, folder: Path, lotse: Any, **more: Any) -> None:
        (port,) = free_ports(1)
        given = json.dumps({"LOTSE": lotse, **more})
        paths = os.pathsep.join([str(ROOT), str(ROOT / "clients" / "django" / "src"), os.environ.get("PYTHONPATH", "")])
        environment = ["env", f"SHOP={given}", f"SHOP_SERVER={server}", f"PYTHONPATH={paths}"]
        address = f"{HOST}:{port}"
        if server == "gunicorn":
            how = ["gunicorn", f"{_APPLICATION}.wsgi:application", "--bind", address, "--threads", "16"]
            how += ["--preload"] if more.get("preload") else []
        else:
            how = ["uvicorn", f"{_APPLICATION}.asgi:application", "--host", HOST, "--port", str(port)]
        super().__init__([*environment, sys.executable, "-m", *how], folder, port, f"http://{address}")

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/quiet/").status_code == 200
        except httpx.TransportError as error:
            raise OSError from error

    def browser(self, **headers: str) -> httpx.Client:
        """A browser of one visitor: cookies, and what it says of itself."""
        return httpx.Client(base_url=self.url, headers={**BROWSER, **headers}, timeout=20, follow_redirects=True)

    def counts(self) -> dict[str, int]:
        """What became of the events."""
        found: dict[str, int] = httpx.get(f"{self.url}/counts/").json()
        return found

    def settled(self) -> bool:
        """Whether nothing waits."""
        return self.counts()["waiting"] == 0

    def terminate(self) -> float:
        """End it as an operator does; returns how many seconds it took."""
        assert self.process
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        return time.monotonic() - begin

    def kill(self) -> None:
        # gunicorn's workers notice that their master is gone; they are not to be waited for
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=10)
            finally:
                super().kill()


class Page(NamedTuple):
    """A page that a visitor got; took_ms: in the shop; late_ms: of which its process had no processor."""

    status: int
    took_ms: float
    late_ms: float
    known: dict[str, Any]
    text: str
    headers: httpx.Headers


def page_of(response: httpx.Response) -> Page:
    """A response of the shop, as its watch saw it."""
    known = json.loads(response.headers.get("x-known", "{}"))
    took_ms, late_ms = (float(response.headers[name]) for name in ("x-took-ms", "x-late-ms"))
    return Page(response.status_code, took_ms, late_ms, known, response.text, response.headers)


def opened(browser: httpx.Client, path: str = "/", **headers: str) -> Page:
    """Load a page."""
    return page_of(browser.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()}))


def agree(browser: httpx.Client, *purposes: str) -> Page:
    """Choose in the shop's banner; without purposes, withdraw."""
    return page_of(browser.post("/consent/", data={"purpose": list(purposes)}))


def held(service: Service, key: str, visitor: str) -> list[dict[str, Any]]:
    """The live records of a visitor."""
    bearer = {"authorization": f"Bearer {key}"}
    answer = service.http.post("/v1/visitors/export", json={"visitor": visitor}, headers=bearer)
    found: list[dict[str, Any]] = answer.json()["records"]
    return found


def features(service: Service, key: str, visitor: str) -> dict[str, Any]:
    """The features of a visitor's session; empty as long as there is none."""
    records = held(service, key, visitor)
    return {**records[0]["session"], "events": records[0]["events"]} if records else {}


class Crowd:
    """Visitors who consented, each of whom loads one page after another."""

    def __init__(self, shop: DjangoShop, visitors: int, pause_seconds: float = 0.08) -> None:
        self.shop, self._pause_seconds = shop, pause_seconds
        self.pages: list[Page] = []
        self.loaded: Counter[str] = Counter()
        self.errors: list[Exception] = []
        self._going = True
        self._threads = [threading.Thread(target=self._visit) for _ in range(visitors)]

    def _visit(self) -> None:
        try:
            with self.shop.browser() as browser:
                # the page that follows the choice is one, too
                self._note(agree(browser, "measure", "link"))
                while self._going:
                    self._note(opened(browser))
                    time.sleep(self._pause_seconds)
        except Exception as error:
            self.errors.append(error)

    def _note(self, page: Page) -> None:
        self.pages.append(page)
        self.loaded[page.known["visitor"]] += 1

    def reasons(self) -> Counter[str]:
        """How many pages had scores, and why the others had none."""
        return Counter(page.known["reason"] for page in list(self.pages))

    @contextmanager
    def browsing(self) -> Iterator[Crowd]:
        """They come, and at the end they go."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._going = False
            for thread in self._threads:
                thread.join()


def summary(pages: list[Page]) -> str:
    """How long pages took inside the shop, for a failure's message."""
    took = sorted(page.took_ms for page in pages)
    return f"{len(took)} pages: median {statistics.median(took):.1f} ms, longest {took[-1]:.1f} ms"


__all__ = ["FLAGS", "SERVERS", "TIMEOUT_MS", "Crowd", "DjangoShop", "Page", "running"]

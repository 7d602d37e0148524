"""The Express middleware as it is built from this checkout, and a shop that runs it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx

from tests.browser.client_build import run
from tests.browser.clients import AGENT
from tests.once import alone
from tests.workspace import ROOT

EXPRESS = ROOT / "clients" / "express"


@lru_cache
def built() -> Path:
    """The package's folder, with dist/ and what its tests need."""
    with alone(ROOT / ".cache" / "express.lock"):
        run("make", "clients/express/dist/.ready", folder=ROOT)
    return EXPRESS


class Shop:
    """A running shop: its pages as a browser asks for them."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.url = process, f"http://127.0.0.1:{port}"
        self.http = self.browser()

    def browser(self) -> httpx.Client:
        """One of its own connections and cookies."""
        return httpx.Client(base_url=self.url, headers={"user-agent": AGENT, "accept": "text/html"}, timeout=20)

    def report(self) -> dict[str, Any]:
        """What it counted; how long pages have waited since the report before, in ms."""
        told: dict[str, Any] = self.http.get("/_report").json()
        return told


@contextmanager
def shop(url: str, key: str, **options: Any) -> Iterator[Shop]:
    """The shop of clients/express/tests/load.mjs; options: of the middleware."""
    told = {**os.environ, "LOTSE_URL": url, "LOTSE_KEY": key, "LOTSE_OPTIONS": json.dumps(options)}
    process = subprocess.Popen(
        ["node", "tests/load.mjs"], cwd=built(), env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.stderr and process.stderr.read()
        started = Shop(process, int(line))
        with started.http:
            yield started
    finally:
        process.kill()
        process.communicate(timeout=20)

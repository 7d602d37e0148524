"""npm packages of trackers, bundled for a page or run by Node; pages of a shop in headless Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Route

from features.compiler import Fold, compile_fold
from features.sessions import HEADER_LAST_AT
from serving.sessions import STATE_BYTES, is_handed_on
from tests.chromium import headless
from tests.workspace import ROOT, Service

HERE = Path(__file__).parent
# beside Cassandra's jars: loaded once a machine
PACKAGES = ROOT / ".cache" / "browser"
# without a head Chromium calls itself HeadlessChrome, which we take for a program
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
SHOP, COLLECTOR = "https://www.shop.example", "https://collect.shop.example"
# the same service on another site than the shop's
ELSEWHERE = "https://collect.other.example"


def packages() -> Path:
    """A folder with the packages of package.json, as package-lock.json names them."""
    for name in ("package.json", "package-lock.json"):
        PACKAGES.mkdir(parents=True, exist_ok=True)
        if not (PACKAGES / name).exists() or (PACKAGES / name).read_bytes() != (HERE / name).read_bytes():
            shutil.rmtree(PACKAGES / "node_modules", ignore_errors=True)
            shutil.copy(HERE / name, PACKAGES / name)
    if not (PACKAGES / "node_modules").exists():
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=PACKAGES, check=True, timeout=600
        )
    return PACKAGES


def bundled(source: str) -> str:
    """A script for a page, from a module's source that imports packages."""
    done = subprocess.run(
        ["node_modules/.bin/esbuild", "--bundle", "--format=iife", "--loader=js", "--log-level=error"],
        cwd=packages(), input=source, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def node(source: str, **environment: str) -> str:
    """What a module prints that Node runs; it may import the packages."""
    done = subprocess.run(
        ["node", "--input-type=module", "-e", source], cwd=packages(), env={**os.environ, **environment},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def chromium(playwright: Playwright, port: int) -> Iterator[Browser]:
    """The browser, for which the collector's names are this port of this machine."""
    # trackers send nothing for a browser that says it is driven by a program
    arguments = ["--disable-blink-features=AutomationControlled"]
    # the shop's page is made up by the test and counts as one of the internet, which must not ask this machine
    arguments += ["--disable-features=LocalNetworkAccessChecks"]
    # a beacon of a page that is gone has no context whose errors are ignored, nor the context's user agent
    arguments += ["--ignore-certificate-errors", f"--user-agent={AGENT}"]
    hosts = (COLLECTOR.removeprefix("https://"), ELSEWHERE.removeprefix("https://"))
    rules = ", ".join(f"MAP {host}:443 127.0.0.1:{port}" for host in hosts)
    with headless(playwright, *arguments, f"--host-resolver-rules={rules}") as browser:
        yield browser


@contextmanager
def shop(browser: Browser, script: str, **options: Any) -> Iterator[Page]:
    """A page of the shop, at any path, that runs a script; options: of the browser's context."""
    options = {"user_agent": AGENT, **options}
    context: BrowserContext = browser.new_context(ignore_https_errors=True, **options)
    html = f"<!doctype html><title>Shop</title><body style='height:5000px'><h1>Shop</h1><script>{script}</script>"

    def answer(route: Route) -> None:
        route.fulfill(body=html, content_type="text/html; charset=utf-8")

    context.route(f"{SHOP}/**", answer)
    page = context.new_page()
    try:
        yield page
    finally:
        context.close()


def records(service: Service, fold: Fold | None = None, **wanted: float) -> list[dict[str, float]]:
    """The features of every running session in the store, as of its latest event; wanted: only those with these."""
    fold = fold or compile_fold()
    found = []
    with lmdb.open(str(service.folder / "lotse-data/live"), readonly=True, lock=False, max_dbs=8) as environment:
        table = environment.open_db(b"records", create=False)
        with environment.begin(db=table) as transaction:
            values = [bytes(value) for _, value in transaction.cursor()]
    for value in values:
        if is_handed_on(value):
            continue
        record = np.frombuffer(value, np.uint8)[STATE_BYTES:].copy()
        out = np.zeros(len(fold.names), np.float32)
        fold.read(record, int(record.view(np.int64)[HEADER_LAST_AT]), out, fold.nothing_learned)
        features = dict(zip(fold.names, out.tolist(), strict=True))
        if all(features[name] == value for name, value in wanted.items()):
            found.append(features)
    return found


def metrics(service: Service, name: str) -> dict[str, float]:
    """A metric's samples by their labels."""
    lines = [line for line in service.http.get("/metrics").text.splitlines() if line.startswith(name)]
    return {line.rpartition(" ")[0].removeprefix(name): float(line.rpartition(" ")[2]) for line in lines}

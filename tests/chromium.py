"""Chromium as tests start it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, Playwright

# It asks nobody for anything by itself.
_ARGUMENTS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def headless(playwright: Playwright, *more: str) -> Iterator[Browser]:
    """A browser without a head; more: of its arguments."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    assert executable, "install chromium"
    browser = playwright.chromium.launch(executable_path=executable, args=[*_ARGUMENTS, *more])
    try:
        yield browser
    finally:
        browser.close()

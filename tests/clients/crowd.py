"""Visitors of a shop who load its pages while a test kills or stops the service behind it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx


def visitor_of(browser: httpx.Client) -> str:
    """The id in the cookie that the clients of Express and Spring Boot set."""
    return browser.cookies["lotse"].split(".")[0]


class Crowd:
    """Visitors, each with a browser of its own, who open pages one after the other until they are told to stop.

    opened: opens a page and returns what it knows of its session; fails if that is no page.

    Attributes
    ----------
    pages: what each knew; loaded: how many, by visitor; reasons: how many, by reason; failed: what went wrong.
    """

    def __init__(self, browsers: Sequence[httpx.Client], opened: Callable[[httpx.Client], dict[str, Any]]) -> None:
        self._browsers, self._opened = browsers, opened
        self._threads = [threading.Thread(target=self._browse, args=(browser,)) for browser in browsers]
        self._going = True
        self.pages: list[dict[str, Any]] = []
        self.loaded: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.failed: list[str] = []

    def _browse(self, browser: httpx.Client) -> None:
        while self._going:
            try:
                page = self._opened(browser)
            except (AssertionError, httpx.HTTPError) as error:
                self.failed.append(repr(error))
                continue
            self.pages.append(page)
            self.loaded[visitor_of(browser)] += 1
            self.reasons[page["reason"]] += 1
            time.sleep(0.02)

    @contextmanager
    def browsing(self) -> Iterator[None]:
        """They come, and at the end they go."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._going = False
            for thread in self._threads:
                thread.join()
            for browser in self._browsers:
                browser.close()

"""Pages of the console in Chromium, and what each must be: quiet, at home, and no wider than the screen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Page

from tests.workspace import Service, wait_until

WIDE, NARROW = 1280, 390
_LOCALES: Final = {"en": "en-GB", "de": "de-DE"}
# `LOTSE_SCREENSHOTS=folder`: what each page looked like at its end
_PICTURES: Final = os.environ.get("LOTSE_SCREENSHOTS", "")
# Whatever is visible and reaches beyond the screen, but for what lies in a box that scrolls by itself.
_BEYOND: Final = """() => [...document.querySelectorAll("body *")].filter((node) => {
  const box = node.getBoundingClientRect();
  if (!box.width || !box.height || getComputedStyle(node).visibility === "hidden") return false;
  if (node.closest(".scroll, .tabs, .unseen, .skip, svg *, #js-plotly-tester, dialog:not([open])")) return false;
  return box.right > document.documentElement.clientWidth + 1 || box.left < -1;
}).map((node) => `${node.tagName}.${node.className} ${node.textContent.slice(0, 40)}`)"""


class Opened:
    """A page of the console, watched.

    Attributes
    ----------
    page: of playwright; errors: what its console was told and what it threw; asked: every address it asked for.
    allowed: parts of errors that a test expects, such as a refusal.
    """

    def __init__(self, page: Page, service: Service) -> None:
        self.page, self.service = page, service
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.allowed: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def show(self, view: str) -> Page:
        """Open a view, such as `live` or `journeys?depth=3`, and wait for it."""
        self.page.goto(f"http://127.0.0.1:{self.service.port}/console#{view}")
        self.page.wait_for_selector(f'#view[data-ready="{view.partition("?")[0]}"]')
        return self.page

    def value(self, selector: str) -> float:
        """The number that an element shows, as it was told and not as it is written."""
        found = self.page.locator(selector).first.get_attribute("data-value")
        assert found, f"{selector} has no data-value"
        return float(found)

    def values(self, selector: str) -> list[float]:
        """The same of several elements."""
        found: list[str] = self.page.locator(selector).evaluate_all("all => all.map((one) => one.dataset.value)")
        return [float(one) for one in found]

    def text(self, selector: str) -> str:
        """What a person reads there."""
        return self.page.locator(selector).first.inner_text()

    def until(self, expression: str, seconds: float = 30) -> None:
        """Wait until a JavaScript expression is true.

        Playwright's own `wait_for_function` evaluates text in the page, which the page's policy forbids.
        """
        wait_until(lambda: bool(self.page.evaluate(expression)), seconds)

    def fits(self) -> None:
        """Nothing is wider than the screen, and nothing reaches beyond it."""
        wide, screen = self.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= screen, f"the page is {wide} px wide, the screen {screen}"
        beyond = self.page.evaluate(_BEYOND)
        assert beyond == [], beyond

    def close(self, name: str) -> None:
        """What every page must have kept to."""
        if _PICTURES:
            Path(_PICTURES).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{_PICTURES}/{name}.png", full_page=True)
        wrong = [error for error in self.errors if not any(part in error for part in self.allowed)]
        assert wrong == [], wrong
        home = f"http://127.0.0.1:{self.service.port}/"
        elsewhere = [url for url in self.asked if not url.startswith((home, "data:", "blob:"))]
        assert elsewhere == [], elsewhere


def context_of(browser: Browser, width: int, theme: str, language: str, **more: Any) -> Any:
    """A browser's context; theme: "dark" or "light"."""
    size = {"width": width, "height": 900 if width > NARROW else 844}
    options = {"viewport": size, "color_scheme": theme, "locale": _LOCALES[language], "timezone_id": "Europe/Berlin"}
    return browser.new_context(**options, **more)


def post(service: Service, events: Sequence[dict[str, Any]], at_once: int = 500) -> list[dict[str, Any]]:
    """Send events to a service; returns their answers."""
    answers: list[dict[str, Any]] = []
    for begin in range(0, len(events), at_once):
        answered = service.http.post("/v1/events", json=list(events[begin : begin + at_once]))
        assert answered.status_code == 200, answered.text
        answers += answered.json()["results"]
    return answers

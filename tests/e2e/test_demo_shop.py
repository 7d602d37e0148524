"""A person in the demo's shop: Chromium, the service, the crowd and the flag as `lotse demo --keep` starts them."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect, sync_playwright

from simulation.shop_page.app import CLIENT
from tests.browser.client_build import built
from tests.browser.clients import AGENT, chromium
from tests.e2e.conftest import DemoRun, free_port
from tests.workspace import LOTSE, environment, wait_until

HESITATING_MS = 40_000
# a link of the page to any path
FOLLOW = """path => {
  const link = document.createElement("a")
  link.href = path
  document.body.append(link)
  link.click()
  link.remove()
}"""


class Kept(NamedTuple):
    """Where the shop and the service are."""

    shop: str
    service: str
    output: Path
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def kept(demo_run: DemoRun) -> Iterator[Kept]:
    """`lotse demo --keep` with the models of the demo before."""
    assert built() / "dist" == CLIENT
    ports = free_port(), free_port()
    command = [*LOTSE, "demo", "--keep", "--no-train", "--seconds", "5"]
    command += ["--port", str(ports[0]), "--shop-port", str(ports[1])]
    output = demo_run.folder / "kept.log"
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=demo_run.folder, env=environment(), stdout=file, stderr=file)
    try:
        wait_until(lambda: process.poll() is not None or "Ctrl-C" in output.read_text(), 90)
        assert process.poll() is None, output.read_text()
        yield Kept(f"http://127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[0]}", output, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def browser(kept: Kept) -> Iterator[Browser]:
    """Chromium."""
    with sync_playwright() as driver, chromium(driver, int(kept.service.rpartition(":")[2])) as started:
        yield started


class Person:
    """Somebody with a browser, and what it asks for and complains of."""

    def __init__(self, page: Page) -> None:
        self.page, self.requests, self.complaints = page, [], []  # type: ignore[var-annotated]
        page.on("request", self._note)
        page.on("console", lambda told: told.type in ("error", "warning") and self.complaints.append(told.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, request: Request) -> None:
        self.requests.append(request)

    def asked(self, part: str) -> list[Request]:
        """The requests whose address has this in it."""
        return [request for request in self.requests if part in request.url]

    def score(self, head: str) -> float:
        """What the panel shows; settled before the first answer would be an error."""
        return float(self.output(head).get_attribute("data-value") or "nan")

    def output(self, head: str) -> Locator:
        """Where it shows that."""
        return self.page.locator(f"output[data-head={head}]")

    def flag(self) -> str:
        """The help offer's value, as JSON."""
        return self.page.locator("[data-flag=help_offer]").get_attribute("data-value") or ""


@contextmanager
def person(browser: Browser, **options: Any) -> Iterator[Person]:
    """A person who has not been here before."""
    context = browser.new_context(**{"user_agent": AGENT, "locale": "en-GB", **options})
    try:
        yield Person(context.new_page())
    finally:
        context.close()


@pytest.mark.slow
def test_who_hesitates_is_offered_help_and_the_purchase_is_known(browser: Browser, kept: Kept) -> None:
    with person(browser) as visitor:
        page = visitor.page
        page.goto(kept.shop)
        page.get_by_role("button", name="This visit").click()
        expect(visitor.output("bounce")).to_have_attribute("data-value", re.compile(r"0\.\d+"))
        expect(page.locator("[data-flag=help_offer]")).to_have_attribute("data-value", '"none"')
        landed, asked = visitor.score("bounce"), len(visitor.asked("/ofrep/v1/evaluate"))
        offer = page.get_by_role("heading", name="Need a hand?")
        expect(offer).to_be_hidden()

        # hesitates: nothing is done, and nothing is asked for until the service says that there is something
        begin = time.monotonic()
        expect(offer).to_be_visible(timeout=HESITATING_MS)
        waited = time.monotonic() - begin
        assert visitor.flag() == '"free_shipping"'
        wait_until(lambda: visitor.score("bounce") > landed)
        assert visitor.score("bounce") > landed
        assert len(visitor.asked("/ofrep/v1/evaluate")) - asked <= 3 < waited
        assert [one.method for one in visitor.asked("/v1/events")].count("POST") == 1

        # buys
        page.get_by_role("button", name="Free shipping, please").click()
        page.get_by_label("Search products").fill("amrum hats")
        page.keyboard.press("Enter")
        page.locator("main .card").first.click()
        expect(page.locator("main h1")).to_have_text("Amrum")
        page.get_by_role("button", name="Add to cart").click()
        page.get_by_role("link", name="Cart 1").click()
        expect(page.locator(".sums")).to_contain_text("free")
        page.get_by_role("link", name="Checkout").click()
        page.get_by_role("link", name="Continue to payment").click()
        page.get_by_role("button", name="Buy now").click()
        expect(page.locator("main h1")).to_have_text("Thank you")
        expect(visitor.output("conversion")).to_have_attribute("data-value", "1")
        expect(visitor.output("conversion")).to_contain_text("settled")
        expect(page.locator("[data-flag=help_offer]")).to_have_attribute("data-value", '"none"')

        # the service knows the same
        token = re.findall(r"/v1/sessions/([^/?]+)", " ".join(one.url for one in visitor.requests))[-1]
        told = httpx.get(f"{kept.service}/v1/sessions/{token}").json()
        assert told["scores"]["conversion"] == 1
        assert "conversion" in told["decided"]
        sent = [
            event["name"] for one in visitor.asked("/v1/events") if one.method == "POST" for event in one.post_data_json
        ]
        assert sent == [
            "page_view", "select_promotion", "search", "view_item", "add_to_cart", "view_cart", "begin_checkout",
            "add_payment_info", "purchase",
        ]  # fmt: skip
        assert visitor.complaints == []

        # and so does who looks at all sessions in the console
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="Console").click()
        console = opened.value
        console.locator("#choose-list").select_option("conversion")
        bought = console.locator("tbody tr", has=console.locator("[data-step=purchase]"))
        own = bought.filter(has=console.locator(f"td[data-value='{told['events']}']"))
        expect(own.first.locator("[data-head=conversion]")).to_have_attribute("data-value", "1", timeout=20_000)


@pytest.mark.slow
def test_a_person_is_one_of_the_crowd(browser: Browser, kept: Kept) -> None:
    with person(browser) as visitor:
        page = visitor.page
        page.goto(kept.shop)
        page.get_by_role("button", name="Decline").click()
        standing = page.locator(".standing")
        expect(standing).to_contain_text(re.compile(r"Bounce: higher than .* of \d+ other visits"), timeout=20_000)
        page.get_by_role("button", name="Exit", exact=True).click()
        expect(standing).to_contain_text("Exit: higher than")
        assert 0 <= float(standing.get_attribute("data-value") or "nan") <= 1
        assert int(standing.get_attribute("data-sessions") or 0) > 5
        reasons = page.locator(".reasons li[data-feature]")
        expect(reasons).not_to_have_count(0)
        # who declined leaves nothing on the device but the choice
        stored = page.evaluate("({ ...localStorage, ...sessionStorage, cookies: document.cookie })")
        assert stored.keys() == {"lotse-consent", "cookies"}
        assert stored["cookies"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "language"), [(1280, "de-DE"), (390, "en-GB")])
def test_pages_fit_and_ask_nobody_else(browser: Browser, kept: Kept, width: int, language: str, scheme: str) -> None:
    with person(browser, locale=language, color_scheme=scheme, viewport={"width": width, "height": 844}) as visitor:
        page = visitor.page
        page.goto(kept.shop)
        page.locator("lotse-consent button").first.click()
        expect(page.locator("html")).to_have_attribute("lang", language[:2])
        for path in ("/category/bags", "/product/bags-07", "/cart", "/search", "/about", "/nowhere", "/"):
            page.evaluate(FOLLOW, path)
            expect(page.locator("main h1")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        if width < 500:
            page.get_by_role("button", name="Show what Lotse sees").click()
            expect(page.locator(".facts")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert {one.url.split("/")[2] for one in visitor.requests} == {
            kept.shop.partition("//")[2], kept.service.partition("//")[2],
        }  # fmt: skip
        assert visitor.complaints == []


@pytest.mark.slow
def test_ended_it_leaves_nothing_behind(kept: Kept, browser: Browser) -> None:
    with person(browser) as visitor:  # whose streams are open
        visitor.page.goto(kept.shop)
        expect(visitor.output("bounce")).not_to_have_attribute("data-value", "")
        kept.process.send_signal(signal.SIGINT)
        assert kept.process.wait(timeout=30) == 0, kept.output.read_text()
    for address in (kept.shop, kept.service):
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)
    assert "Traceback" not in kept.output.read_text()

"""The shop's pages in Chromium, with the browser client's tag beside the server's own events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from serving.keys import KeyFile
from tests.browser.client_build import built
from tests.browser.clients import chromium
from tests.clients.django.conftest import Start
from tests.clients.django.running import DjangoShop, Server, features
from tests.workspace import Service, wait_until

SETTLED = "() => lotse.flush().then(() => lotse.session.token !== '')"


@pytest.fixture(scope="module")
def overrides() -> tuple[str, ...]:
    """The shop's pages may read what the service answers."""
    return ('cors.origins=["*"]',)


@pytest.fixture(scope="module")
def browser(keyed: Service) -> Iterator[Browser]:
    with sync_playwright() as driver, chromium(driver, keyed.port) as started:
        yield started


@pytest.fixture(scope="module")
def both(keyed: Service, server: Server, start: Start) -> DjangoShop:
    """A shop whose pages have the browser client, too."""
    _, public = KeyFile(keyed.folder / "lotse-data").create("public", "shop")
    wait_until(lambda: keyed.http.get("/api/features/" + public).status_code == 200)
    static = {"static": [str(built() / "dist")]}
    return start(server, static, SCRIPT="lotse.js", PUBLIC_KEY=public, COLLECTOR=keyed.url)


def test_server_and_page_are_one_visitor_who_is_counted_once(
    both: DjangoShop, browser: Browser, keyed: Service, secret: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(both.url)
    assert context.cookies() == []
    assert page.evaluate("lotse.level") == "none"
    page.get_by_role("button", name="Remember me").click()
    page.wait_for_load_state()
    (cookie,) = (one for one in context.cookies() if one["name"] == "lotse")
    visitor = cookie["value"].split(".")[0]
    assert cookie["httpOnly"] is False and page.evaluate("lotse.level") == "full"
    page.get_by_role("link", name="Walker").click()
    page.wait_for_url("**/p/walker/")
    assert "Which size fits?" in page.inner_text("aside")
    page.evaluate("lotse.addToWishlist({ item: 'walker' })")
    page.wait_for_function(SETTLED)
    wait_until(lambda: features(keyed, secret, visitor)["events"] == 3)
    session = features(keyed, secret, visitor)
    assert (session["item_views"], session["page_views"]) == (1, 1)
    assert page.evaluate("lotse.session.scores.conversion") > 0

    # what the page's own client forgets, the server does not bring back
    page.evaluate("lotse.consent('none')")
    page.reload()
    assert [one for one in context.cookies() if one["name"] == "lotse"] == []
    assert page.evaluate("lotse.level") == "none"
    assert problems == []
    context.close()


def test_a_page_that_the_server_does_not_tell_of_is_told_of_by_the_browser(
    both: DjangoShop, browser: Browser, keyed: Service
) -> None:
    context = browser.new_context(extra_http_headers={"sec-purpose": "prefetch;prerender"})
    page = context.new_page()
    with page.expect_request("**/v1/events**") as sent:
        page.goto(both.url)
    assert [event["name"] for event in sent.value.post_data_json] == ["page_view"]
    context.close()


def test_the_tag_holds_the_public_key_and_no_other(both: DjangoShop, browser: Browser, secret: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(both.url)
    tag = page.locator("script[data-key]")
    assert (tag.get_attribute("data-key") or "").startswith("lotse_pub_")
    assert tag.get_attribute("src") == "/static/lotse.js" and tag.get_attribute("data-thresholds") == "conversion:0.3"
    assert secret not in page.content()
    context.close()

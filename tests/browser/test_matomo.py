"""Matomo's clients: of a page and an app in Chromium, of a server in Node; what a visitor does is in the record.

No registry has matomo.js itself. `LOTSE_MATOMO_JS=<file>` names one, as a Matomo server has it, for the tests of the
real script; captures of it are replayed by `tests/contracts/test_matomo.py` in any case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, Route

from tests.browser.clients import COLLECTOR, SHOP, bundled, chromium, metrics, node, records, shop
from tests.browser.unsteady import unsteady
from tests.workspace import Service, wait_until

APP = """
import MatomoTracker from "matomo-tracker-react-native/src/MatomoTracker"
window.tracker = new MatomoTracker({ urlBase: "%s/stats", siteId: 1 })
"""
SERVER = """
import https from "node:https"
import MatomoTracker from "matomo-tracker"
const matomo = new MatomoTracker(1, process.env.TRACKER)
matomo.on("error", error => { console.log("error", error) })
const visitor = { _id: "00000000000000aa", ua: process.env.AGENT }
const bulk = await new Promise(resolve => matomo.trackBulk([
    { ...visitor, url: "https://www.shop.example/", r: 1 },
    { ...visitor, url: "https://www.shop.example/p/1", _pks: "SKU-1", _pkp: 79.9, r: 2 },
    { ...visitor, idgoal: 0, ec_items: JSON.stringify([["SKU-1", "Shoe", ["Shoes"], 79.9, 2]]), revenue: 159.8, r: 3 },
    { ...visitor, idgoal: 0, ec_items: JSON.stringify([["SKU-1", "Shoe", ["Shoes"], 79.9, 1]]), revenue: 79.9, r: 4 },
    { ...visitor, r: 5 },
], resolve))
console.log(bulk)
await new Promise(resolve => {
    matomo.agent = { get: (address, answered) => https.get(address, answer => { answered(answer); resolve() }) }
    matomo.track({ ...visitor, url: "https://www.shop.example/thanks", idgoal: 0, ec_id: "N-1", revenue: 79.9,
        ec_items: JSON.stringify([["SKU-1", "Shoe", ["Shoes"], 79.9, 1]]) })
})
process.exit()  // the client leaves answers unread, which keep their connections open
"""
MATOMO_JS = os.environ.get("LOTSE_MATOMO_JS", "")
real_script = pytest.mark.skipif(not MATOMO_JS, reason="LOTSE_MATOMO_JS names no matomo.js")
START = """
window._paq = [["setTrackerUrl", "%s/matomo.php"], ["setSiteId", "%s"], %s]
"""


def test_a_visit_with_the_app_s_client(collector: Service, browser: Browser) -> None:
    with shop(browser, bundled(APP % COLLECTOR)) as page:
        page.goto(f"{SHOP}/")
        for call in (
            "trackScreenView({ name: 'Home', url: 'https://www.shop.example/' })",
            "trackSiteSearch({ keyword: 'red shoes', url: 'https://www.shop.example/' })",
            "trackEvent({ category: 'Cart', action: 'add_to_cart', url: 'https://www.shop.example/p/1' })",
            "trackLink({ link: 'https://other.example/' })",
        ):
            # fetch of an app has no cookie and no id: a visitor is one for a day
            assert page.evaluate(f"tracker.{call}.then(response => response.status)") == 204
    (session,) = records(collector, searches=1, cart_adds=1)
    assert (session["page_views"], session["events"]) == (1, 4)


def test_a_server_s_client_sends_many_at_once(collector: Service) -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    out = node(
        SERVER, TRACKER=f"https://127.0.0.1:{collector.port}/matomo.php", AGENT=agent,
        NODE_EXTRA_CA_CERTS=collector.verify,
    )  # fmt: skip
    # the last of the five has nothing to record
    assert out.split("\n")[0] == '{"status":"success","tracked":4,"invalid":1}'
    assert "error" not in out
    wait_until(lambda: len(records(collector, purchases=1, cart_adds=1)) == 1)
    (session,) = records(collector, purchases=1, cart_adds=1)
    assert (session["cart_removes"], session["item_views"], session["page_views"]) == (1, 1, 1)
    assert session["cart_units"] == 0


@contextmanager
def site(browser: Browser, *commands: str, number: int = 1) -> Iterator[Page]:
    """A page of the shop with the real script; number: of the site."""
    start = START % (COLLECTOR, number, ", ".join(commands))
    with shop(browser, f"{start}</script><script src='/matomo.js'>") as page:

        def script(route: Route) -> None:
            route.fulfill(body=Path(MATOMO_JS).read_text(), content_type="text/javascript")

        page.route(f"{SHOP}/matomo.js", script)
        yield page


def push(page: Page, *commands: str) -> None:
    for command in commands:
        page.evaluate(f"window._paq.push({command})")


VISIT = (
    "['trackPageView']", "['enableLinkTracking']", "['enableHeartBeatTimer', 1]",
)  # fmt: skip


@real_script
def test_a_visit_with_matomo_js(collector: Service, browser: Browser) -> None:
    with site(browser, *VISIT) as page:
        page.goto(f"{SHOP}/?mtm_campaign=spring&mtm_medium=email")
        push(page, "['trackSiteSearch', 'red shoes', 'Shoes', 14]")
        push(page, "['setEcommerceView', 'SKU-1', 'Red shoe', 'Shoes', 79.9]", "['trackPageView']")
        push(page, "['addEcommerceItem', 'SKU-1', 'Red shoe', 'Shoes', 79.9, 2]", "['trackEcommerceCartUpdate', 159.8]")
        push(page, "['addEcommerceItem', 'SKU-2', 'Socks', 'Socks', 5, 1]", "['trackEcommerceCartUpdate', 164.8]")
        push(page, "['removeEcommerceItem', 'SKU-2']", "['trackEcommerceCartUpdate', 159.8]")
        push(page, "['setUserId', 'jane@shop.example']", "['trackEvent', 'Account', 'login']")
        push(page, "['trackEcommerceOrder', 'ORD-1', 164.7, 159.8]")
        wait_until(lambda: len(records(collector, purchases=1, searches=1)) == 1)
        # the page is loaded again: the same order, with what is left of it
        push(page, "['trackEcommerceOrder', 'ORD-1', 164.7, 159.8]")
        page.wait_for_timeout(2_500)
        page.goto("about:blank")
    (session,) = records(collector, purchases=1, searches=1)
    assert (session["cart_adds"], session["cart_removes"], session["searches"]) == (2, 1, 1)
    assert (session["cart_units"], session["entry_channel"]) == (0, 5)
    assert metrics(collector, "lotse_dropped_events_total")[
        '{reason="an order that was counted",tracker="matomo"}'
    ] == 1  # fmt: skip


@real_script
def test_cookies_that_are_allowed_later_begin_no_session(collector: Service, browser: Browser) -> None:
    # without an id a visitor is known by site, address and browser
    with site(browser, "['requireCookieConsent']", "['trackPageView']", number=2) as page:
        before = len(records(collector))
        page.goto(f"{SHOP}/once")
        wait_until(lambda: len(records(collector)) == before + 1)
        push(page, "['setCookieConsentGiven']")
        page.wait_for_timeout(500)
        push(page, "['trackEvent', 'Video', 'play']", "['trackEvent', 'Video', 'stop']")
        wait_until(lambda: len(records(collector, events=4, page_views=1, searches=0)) == 1)
        assert len(records(collector)) == before + 1


RETRIES = """
import http from "node:http"
import MatomoTracker from "matomo-tracker"
const failed = []
for (const number of [1, 2, 3, 4]) {
    for (let tries = 0; tries < 3; tries++) {
        const matomo = new MatomoTracker(1, process.env.TRACKER)
        // the client tells of errors only
        await new Promise(resolve => {
            matomo.on("error", error => { failed.push(String(error)); resolve() })
            matomo.agent = { get: (address, answered) => http.get(address, answer => { answered(answer); resolve() }) }
            matomo.track({
                _id: "00000000000000bb", ua: process.env.AGENT, _pks: "SKU-" + number, r: number,
                url: `https://www.shop.example/p/${number}`,
            })
        })
    }
}
console.log(failed.join())
process.exit()
"""


def test_what_is_sent_again_counts_once(collector: Service) -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0"
    with unsteady(collector, "/piwik.php", 500, 429, 204, "lost", "lost", 204, tls=False) as between:
        out = node(RETRIES, TRACKER=f"http://127.0.0.1:{between.port}/piwik.php", AGENT=agent)
        assert len(between.asked) == 12
    assert out.strip() == "500,429,socket hang up,socket hang up"
    (session,) = records(collector, item_views=4)
    assert session["events"] == 4


@real_script
def test_what_the_browser_repeats_counts_once(collector: Service, driver: Playwright) -> None:
    """A connection that ends without an answer is one that Chromium opens again by itself."""
    with unsteady(collector, ".php") as between, chromium(driver, between.port) as elsewhere:
        with site(elsewhere, "['trackPageView']") as page:
            page.goto(f"{SHOP}/unlucky")
            wait_until(lambda: len(between.asked) == 1)
            page.wait_for_timeout(500)  # the connection is free to be used again
            between.fates.append("lost")
            push(page, "['trackEvent', 'Unlucky', 'add_to_wishlist']")
            wait_until(lambda: len(between.asked) >= 3)
        assert between.asked[1] == between.asked[2]
    (session,) = records(collector, wishlist_adds=1)
    assert session["events"] == 2

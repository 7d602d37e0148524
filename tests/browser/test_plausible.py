"""Plausible's npm packages in Chromium: what a visitor does is in the session's record."""

from __future__ import annotations

from playwright.sync_api import Browser

from tests.browser.clients import COLLECTOR, SHOP, bundled, metrics, records, shop
from tests.workspace import Service, wait_until

NEW = """
import { init, track } from "@plausible-analytics/tracker"
init({ domain: "shop.example", endpoint: "%s/api/event", logging: false, fileDownloads: true })
window.track = track
"""
OLD = """
import Plausible from "plausible-tracker"
const plausible = Plausible({ domain: "old.example", apiHost: "%s", trackLocalhost: true })
plausible.enableAutoPageviews()
window.track = (name, options) => plausible.trackEvent(name, options)
"""


def test_a_visit_with_the_new_package(collector: Service, browser: Browser) -> None:
    with shop(browser, bundled(NEW % COLLECTOR)) as page:
        page.goto(f"{SHOP}/?utm_source=news&utm_medium=email")
        page.evaluate("history.pushState({}, '', '/category/shoes')")
        page.evaluate("track('Add to Cart', { props: { sku: 'SKU-1', price: 79.9, quantity: 2 } })")
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(300)
        page.evaluate("track('Purchase', { revenue: { amount: '178.62', currency: 'EUR' } })")
        page.wait_for_timeout(300)
        page.goto("about:blank")  # leaves: an engagement is sent
        # a context that is closed takes with it what is on its way
        wait_until(lambda: len(records(collector, cart_adds=1, purchases=1)) == 1)
    (session,) = records(collector, cart_adds=1)
    assert session["page_views"] == 2
    assert session["entry_channel"] == 5  # e-mail
    assert metrics(collector, "lotse_dropped_events_total") == {}


def test_a_visit_with_the_old_package(collector: Service, browser: Browser) -> None:
    before = len(records(collector))
    with shop(browser, bundled(OLD % COLLECTOR)) as page:
        page.goto(f"{SHOP}/")
        page.evaluate("track('Search')")
        page.evaluate("history.pushState({}, '', '/p/1')")
        wait_until(lambda: len(records(collector)) == before + 1)
        wait_until(lambda: len(records(collector, page_views=2, searches=1)) == 1)

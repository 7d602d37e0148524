"""Segment's npm packages in Chromium and Node: what a visitor does is in the session's record, and once."""

from __future__ import annotations

import json

from playwright.sync_api import Browser, Page, Playwright

from tests.browser.clients import COLLECTOR, SHOP, bundled, chromium, metrics, node, records, shop
from tests.browser.unsteady import Fate, unsteady
from tests.workspace import Service, wait_until

# Nothing but the address of the settings: where calls go is said by them.
PAGE = """
import { AnalyticsBrowser } from "@segment/analytics-next"
window.analytics = AnalyticsBrowser.load({ writeKey: "WK", cdnURL: "%s" }, %s)
"""
SERVER = """
import { gzipSync } from "node:zlib"
import { Analytics } from "@segment/analytics-node"
const gzipped = (url, init) => {
  const headers = { ...init.headers, "Content-Encoding": "gzip" }
  return fetch(url, { ...init, headers, body: gzipSync(init.body) })
}
const analytics = new Analytics({ writeKey: "WK", host: process.env.HOST, flushAt: 3, httpClient: gzipped })
const failed = []
analytics.on("error", (error) => failed.push(error.code))
const anonymousId = "server-1"
const products = [{ product_id: "P1", price: 10, quantity: 2 }, { product_id: "P2", price: 5 }]
analytics.page({ anonymousId, name: "Home", properties: { url: "https://www.shop.example/" } })
analytics.track({ anonymousId, event: "Order Completed", properties: { total: 25, currency: "EUR", products } })
analytics.identify({ userId: "user-42", anonymousId, traits: { email: "jane@shop.example" } })
await analytics.closeAndFlush({ timeout: 20000 })
console.log(JSON.stringify(failed))
"""


def dropped(service: Service) -> dict[str, float]:
    return metrics(service, "lotse_dropped_events_total")


def duplicates(service: Service) -> float:
    return metrics(service, "lotse_events_total").get('{status="duplicate"}', 0)


def done(page: Page, call: str) -> None:
    """A call of the client's, to its end."""
    page.evaluate(f"analytics.{call}.then(() => null)")


def test_a_visit(collector: Service, browser: Browser) -> None:
    with shop(browser, bundled(PAGE % (COLLECTOR, "{}"))) as page:
        page.goto(f"{SHOP}/?utm_source=news&utm_medium=email&utm_campaign=spring")
        done(page, "page()")
        done(page, "track('Products Searched', { query: 'red shoes' })")
        page.evaluate("history.pushState({}, '', '/category/shoes')")
        done(page, "page('Shoes')")
        done(page, "track('Product Added', { product_id: 'SKU-1', price: 79.9, quantity: 2 })")
        done(page, "identify('user-42', { email: 'jane@shop.example' })")
        done(page, "track('Signed In')")
        products = [{"product_id": "SKU-1", "price": 79.9, "quantity": 2}, {"product_id": "SKU-2", "price": 5}]
        order = {"order_id": "ORD-1", "total": "178.62", "currency": "EUR", "products": products}
        done(page, f"track('Order Completed', {json.dumps(order)})")
        page.goto("about:blank")
    (session,) = records(collector)
    expected = {
        "events": 7, "page_views": 2, "searches": 1, "cart_adds": 1, "account_events": 1,
        "purchases": 2, "entry_channel": 5, "from_campaign": 1, "device_kind": 1,
    }  # fmt: skip
    assert {name: session[name] for name in expected} == expected
    assert round(session["revenue"], 2) == 178.62
    assert dropped(collector) == {'{reason="identify: no step of a visitor",tracker="segment"}': 1}


def test_a_batch_is_sent_when_the_page_is_left(collector: Service, browser: Browser) -> None:
    strategy = {"strategy": "batching", "config": {"timeout": 60_000, "size": 2}}
    batching = json.dumps({"integrations": {"Segment.io": {"deliveryStrategy": strategy}}})
    with shop(browser, bundled(PAGE % (COLLECTOR, batching))) as page:
        page.goto(f"{SHOP}/p/1")
        for _ in range(2):
            done(page, "track('Product Viewed', { product_id: 'SKU-7' })")
        # a full batch goes at once; Chromium has asked with it whether it may
        wait_until(lambda: len(records(collector, item_views=2)) == 1)
        done(page, "track('Product Added to Wishlist', { product_id: 'SKU-7' })")
        assert records(collector, item_views=2)[0]["wishlist_adds"] == 0
        page.goto("about:blank")
        wait_until(lambda: records(collector, item_views=2)[0]["wishlist_adds"] == 1)


def test_consent_of_a_consent_manager_and_of_the_browser_reach_the_record(collector: Service, browser: Browser) -> None:
    consent = "{ context: { consent: { categoryPreferences: { Analytics: true, Functional: true } } } }"
    for headers in ({}, {"Sec-GPC": "1"}):
        with shop(browser, bundled(PAGE % (COLLECTOR, "{}")), extra_http_headers=headers) as page:
            page.goto(f"{SHOP}/")
            done(page, f"track('Product List Viewed', {{}}, {consent})")
    # whether visits may be linked is seen by what needs it
    visits = [session["visits_before"] for session in records(collector, list_views=1)]
    assert sorted(map(str, visits)) == ["0.0", "nan"]


def test_retries_count_once(collector: Service, driver: Playwright) -> None:
    before = duplicates(collector)
    with (
        unsteady(collector, "/v1/t") as server,
        chromium(driver, server.port) as browser,
        shop(browser, bundled(PAGE % (COLLECTOR, "{}"))) as page,
    ):
        page.goto(f"{SHOP}/retried")
        page.evaluate("analytics.ready().then(() => null)")
        fates: tuple[Fate, ...] = (500, 429, "lost")
        for number, fate in enumerate(fates):
            server.fates.append(fate)
            page.evaluate("void analytics.track('Coupon Applied')")
            page.evaluate("void analytics.track('Cart Viewed')")
            # it is sent again, and known
            wait_until(lambda seen=number: duplicates(collector) > before + seen)
            assert not server.fates
    (session,) = records(collector, cart_views=3)
    assert session["events"] == 6


def test_a_server_sends_compressed_batches_and_repeats_them(collector: Service) -> None:
    before = duplicates(collector)
    with unsteady(collector, "/v1/batch", 500, "lost", 429) as server:
        certificate = collector.folder / "certificate.pem"
        environment = {"HOST": f"https://127.0.0.1:{server.port}", "NODE_EXTRA_CA_CERTS": str(certificate)}
        assert json.loads(node(SERVER, **environment)) == []
        assert server.seen["/v1/batch"] == 4
    (session,) = records(collector, page_views=1, device_kind=0)
    assert session["events"] == 3
    assert (session["purchases"], session["revenue"]) == (2, 25)
    assert duplicates(collector) == before + 3 * 3

"""Snowplow's npm trackers in Chromium and Node: what a visitor does is in the session's record, and once."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Browser, Page, Playwright

from tests.browser.clients import COLLECTOR, SHOP, bundled, chromium, metrics, node, records, shop
from tests.browser.unsteady import unsteady
from tests.workspace import Service, wait_until

PAGE = """
import * as tracker from "@snowplow/browser-tracker"
import * as ecommerce from "@snowplow/browser-plugin-snowplow-ecommerce"
tracker.newTracker("sp1", "%s", { appId: "shop", plugins: [ecommerce.SnowplowEcommercePlugin()], ...%s })
const described = (name, data) => tracker.trackSelfDescribingEvent({
  event: { schema: `iglu:com.snowplowanalytics.snowplow/${name}/jsonschema/1-0-0`, data } })
window.sp = { ...tracker, ...ecommerce, described }
"""
SERVER = """
import { newTracker, buildPageView, buildSelfDescribingEvent, buildStructEvent } from "@snowplow/node-tracker"
const failed = []
const emitter = { endpoint: process.env.HOST, bufferSize: 1, onRequestFailure: ({ status }) => failed.push(status) }
const tracker = newTracker({ namespace: "n1", appId: "shop-be", encodeBase64: process.env.BASE64 === "true" }, emitter)
tracker.setDomainUserId(process.env.VISITOR)
tracker.setSessionId(process.env.VISITOR + "-1")
const schema = name => `iglu:com.snowplowanalytics.snowplow.ecommerce/${name}/jsonschema/1-0-0`
const wait = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))
tracker.track(buildPageView({ pageUrl: "https://www.shop.example/server" }))
await tracker.flush()
await wait(300)
const product = (id, price) => ({ schema: schema("product"), data: { id, price, currency: "EUR", category: "x" } })
const order = { schema: schema("transaction"), data: { transaction_id: "T", revenue: 25, currency: "EUR" } }
const event = { schema: schema("snowplow_ecommerce_action"), data: { type: "transaction" } }
tracker.track(buildSelfDescribingEvent({ event }), [product("P1", 20), product("P2", 5), order])
await tracker.flush()
await wait(300)
tracker.track(buildStructEvent({ category: "auth", action: "login" }))
await tracker.flush()
await wait(300)
console.log(JSON.stringify(failed))
"""


def events(service: Service) -> dict[str, float]:
    return metrics(service, "lotse_events_total")


def duplicates(service: Service) -> float:
    return events(service).get('{status="duplicate"}', 0)


def done(service: Service, page: Page, call: str) -> None:
    """A call of the tracker's, until its event has arrived."""
    before = sum(events(service).values())
    page.evaluate(f"void sp.{call}")
    wait_until(lambda: sum(events(service).values()) > before)


def test_a_visit(collector: Service, browser: Browser) -> None:
    with shop(browser, bundled(PAGE % (COLLECTOR, "{}"))) as page:
        page.goto(f"{SHOP}/?utm_source=news&utm_medium=email&utm_campaign=spring")
        done(collector, page, "trackPageView()")
        done(collector, page, "described('site_search', { terms: ['red', 'shoes'] })")
        page.evaluate("history.pushState({}, '', '/category/shoes')")
        done(collector, page, "trackPageView()")
        shoe = {"id": "SKU-1", "category": "Shoes", "price": 79.9, "quantity": 2, "currency": "EUR"}
        sock = {"id": "SKU-2", "category": "Socks", "price": 5, "quantity": 1, "currency": "EUR"}
        done(collector, page, f"trackProductView({json.dumps(shoe)})")
        cart = {"products": [shoe, sock], "total_value": 164.8, "currency": "EUR"}
        done(collector, page, f"trackAddToCart({json.dumps(cart)})")
        page.evaluate("sp.setUserId('user-42')")
        done(collector, page, "trackStructEvent({ category: 'auth', action: 'login' })")
        done(collector, page, "trackCheckoutStep({ step: 1 })")
        order = {"transaction_id": "ORD-1", "revenue": 178.62, "currency": "EUR", "payment_method": "card"}
        done(collector, page, f"trackTransaction({json.dumps({**order, 'products': [shoe, sock]})})")
        page.goto("about:blank")  # leaves: nothing is sent
    (session,) = records(collector)
    expected = {
        "events": 10, "page_views": 2, "searches": 1, "item_views": 1, "cart_adds": 2, "account_events": 1,
        "purchases": 2, "entry_channel": 5, "from_campaign": 1, "device_kind": 1,
    }  # fmt: skip
    assert {name: session[name] for name in expected} == expected
    assert round(session["revenue"], 2) == 178.62
    assert metrics(collector, "lotse_dropped_events_total") == {}


def test_page_pings_tell_what_was_seen(collector: Service, browser: Browser) -> None:
    with shop(browser, bundled(PAGE % (COLLECTOR, "{}"))) as page:
        page.goto(f"{SHOP}/long")
        page.evaluate("sp.enableActivityTracking({ minimumVisitLength: 1, heartbeatDelay: 1 })")
        done(collector, page, "trackPageView()")
        before = sum(events(collector).values())
        for _ in range(8):
            page.mouse.wheel(0, 500)
            page.wait_for_timeout(300)
        wait_until(lambda: sum(events(collector).values()) > before)
    (session,) = records(collector, page_views=1)
    assert 0.3 < session["scroll_depth_max"] <= 1


@pytest.mark.parametrize("option", ["{ encodeBase64: true }", "{ eventMethod: 'get' }"])
def test_the_older_ways_say_the_same(collector: Service, browser: Browser, option: str) -> None:
    before = len(records(collector, wishlist_adds=1))
    with shop(browser, bundled(PAGE % (COLLECTOR, option))) as page:
        page.goto(f"{SHOP}/older")
        done(collector, page, "trackPageView()")
        done(collector, page, "trackStructEvent({ category: 'shop', action: 'add_to_wishlist' })")
        done(collector, page, "described('link_click', { targetUrl: 'https://other.example/' })")
    found = records(collector, wishlist_adds=1)
    assert len(found) == before + 1
    assert all(session["events"] == 3 and session["clicks"] == 1 for session in found)


def test_anonymous_tracking_is_of_a_session_or_a_day(collector: Service, browser: Browser) -> None:
    for with_sessions in ("true", "false"):
        option = f"{{ anonymousTracking: {{ withServerAnonymisation: true, withSessionTracking: {with_sessions} }} }}"
        before = len(records(collector))
        with shop(browser, bundled(PAGE % (COLLECTOR, option))) as page:
            page.goto(f"{SHOP}/anonymous")
            done(collector, page, "trackPageView()")
            done(collector, page, "trackStructEvent({ category: 'shop', action: 'share' })")
            # the tracker's own, with a session's id; a collector would add `sp` otherwise
            assert "sp" not in {cookie["name"] for cookie in page.context.cookies(COLLECTOR)}
        assert len(records(collector)) == before + 1


def test_the_basis_for_processing_is_consent(collector: Service, browser: Browser) -> None:
    """Whether visits may be linked is seen by what needs it."""
    gdpr = {
        "schema": "iglu:com.snowplowanalytics.snowplow/gdpr/jsonschema/1-0-0",
        "data": {"basisForProcessing": "consent"},
    }
    for headers in ({}, {"Sec-GPC": "1"}):
        with shop(browser, bundled(PAGE % (COLLECTOR, "{}")), extra_http_headers=headers) as page:
            page.goto(f"{SHOP}/")
            page.evaluate(f"sp.addGlobalContexts([{json.dumps(gdpr)}])")
            done(collector, page, "trackStructEvent({ category: 'shop', action: 'view_cart' })")
    visits = [session["visits_before"] for session in records(collector, cart_views=1)]
    assert sorted(map(str, visits)) == ["0.0", "nan"]


def test_retries_count_once(collector: Service, driver: Playwright) -> None:
    before = duplicates(collector)
    with (
        unsteady(collector, "/tp2") as server,
        chromium(driver, server.port) as browser,
        shop(browser, bundled(PAGE % (COLLECTOR, "{}"))) as page,
    ):
        page.goto(f"{SHOP}/retried")
        for number, trouble in enumerate((500, 429, "lost")):
            server.fates.append(trouble)
            page.evaluate("void sp.trackStructEvent({ category: 'shop', action: 'coupon' })")
            wait_until(lambda: not server.fates)
            page.wait_for_timeout(1_000)  # the tracker has to notice, or it waits with the next event, too
            # what failed is sent again with the next event, and is known
            page.evaluate("void sp.trackStructEvent({ category: 'shop', action: 'view_promotion' })")
            wait_until(lambda seen=number: duplicates(collector) > before + seen)
        wait_until(lambda: len(records(collector, promotion_events=3)) == 1)
    (session,) = records(collector, promotion_events=3)
    assert session["events"] == 6


def test_what_could_not_be_sent_comes_later_at_its_own_time(collector: Service, browser: Browser) -> None:
    with shop(browser, bundled(PAGE % (COLLECTOR, "{}"))) as page:
        page.goto(f"{SHOP}/tunnel")
        done(collector, page, "trackPageView()")
        page.context.set_offline(True)
        page.evaluate("void sp.trackStructEvent({ category: 'film', action: 'video_start' })")
        page.wait_for_timeout(1500)
        page.context.set_offline(False)
        page.evaluate("void sp.trackStructEvent({ category: 'film', action: 'video_complete' })")
        wait_until(lambda: len(records(collector, media_events=2)) == 1)
    (session,) = records(collector, media_events=2)
    assert session["events"] == 3
    assert session["last_gap_seconds"] >= 1.4  # both came at once


@pytest.mark.parametrize("base64", ["false", "true"])
def test_a_server_tells_of_a_visitor_and_repeats_what_failed(collector: Service, base64: str) -> None:
    before = duplicates(collector)
    with unsteady(collector, "/tp2", 500) as server:
        environment = {
            "HOST": f"https://127.0.0.1:{server.port}", "NODE_EXTRA_CA_CERTS": collector.verify,
            "VISITOR": f"visitor-{base64}", "BASE64": base64,
        }  # fmt: skip
        assert json.loads(node(SERVER, **environment)) == [500]
    found = records(collector, purchases=2, device_kind=0)
    assert len(found) == 1 + (base64 == "true")
    for session in found:
        assert (session["events"], session["page_views"], session["account_events"]) == (4, 1, 1)
        assert session["revenue"] == 25
    assert duplicates(collector) == before + 1

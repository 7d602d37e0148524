"""Tealium's Collect tag in Chromium: there is no npm package, so a page does what the published tag does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright

from tests.browser.clients import COLLECTOR, SHOP, chromium, metrics, records, shop
from tests.browser.unsteady import Unsteady
from tests.workspace import Service, wait_until

# What template 20064 ("Tealium Collect") of 2025-04-14 does: the first request is an XMLHttpRequest with credentials,
# whose answer names a region; with one, later events are beacons. Afterwards it asks the visitor service by a script.
TAG = """
const collector = "COLLECTOR"
const kept = {}
for (const pair of document.cookie.split("; ")) kept[pair.split("=")[0]] = pair.split("=")[1]
const hex = (length) => Array.from({ length }, () => Math.floor(Math.random() * 16).toString(16)).join("")
const visitor = kept.utag_v_id || hex(45), session = kept.utag_ses_id || String(Date.now())
document.cookie = `utag_v_id=${visitor}; domain=shop.example; path=/; secure`
document.cookie = `utag_ses_id=${session}; domain=shop.example; path=/; secure`
window.enriched = []
window.utag = { ut: {
  writevamain(told) {
    if (JSON.stringify(told) === "{}") return
    localStorage.setItem("tealium_va", JSON.stringify(told))
    enriched.push(told)
  },
} }
function layer(event, variables) {
  const now = new Date()
  return {
    ...variables, tealium_event: variables.tealium_event || event, "ut.event": event,
    tealium_visitor_id: visitor, "cp.utag_main_v_id": visitor, tealium_session_id: session,
    tealium_account: "acme", tealium_profile: "main", tealium_environment: "prod", tealium_datasource: "abc123",
    tealium_random: String(Math.random()).slice(2), tealium_timestamp_epoch: Math.floor(now / 1000),
    tealium_timestamp_utc: now.toISOString(), "dom.url": location.href, "dom.referrer": document.referrer,
    "dom.pathname": location.pathname, "dom.query_string": location.search.slice(1), "dom.title": document.title,
  }
}
window.track = (event, variables = {}) => new Promise((done) => {
  const data = layer(event, variables)
  const query = kept.tcf ? `?gdpr=1&gdpr_consent=${kept.tcf}` : ""
  const endpoint = `${collector}${kept.as_event ? "/event" : "/acme/main/2/i.gif"}${query}`
  const whole = {
    "loader.cfg": { 172: { load: 1, send: 1, tid: 20064 } }, data, event, post_time: Date.now(),
    browser: { height: innerHeight, width: innerWidth, timezone_offset: new Date().getTimezoneOffset() },
  }
  const form = new FormData()
  form.append("data", JSON.stringify(whole))
  const body = kept.as_event ? JSON.stringify(data) : form
  if (kept.utag_region) {
    navigator.sendBeacon(endpoint, body)
    done("beacon")
    return
  }
  const request = new XMLHttpRequest()
  request.onload = () => {
    const region = request.getResponseHeader("X-Region")
    if (request.status === 200 && region) document.cookie = `utag_region=${kept.utag_region = region}; path=/; secure`
    done(String(request.status))
  }
  request.onerror = () => done("error")
  request.open("POST", endpoint)
  request.withCredentials = true
  request.send(body)
})
window.enrich = () => new Promise((done) => {
  const script = document.createElement("script")
  const callback = encodeURIComponent('utag.ut["writevamain"]')
  script.src = `${collector}/acme/main/${visitor}?callback=${callback}&rnd=${Date.now()}`
  script.onload = () => done("loaded")
  script.onerror = () => done("error")
  document.head.append(script)
})
""".replace("COLLECTOR", COLLECTOR)


@pytest.fixture(scope="module")
def overrides() -> tuple[str, ...]:
    return ('collect.trackers=["tealium"]',)


@pytest.fixture(scope="module")
def broken(driver: Playwright, collector: Service) -> Iterator[tuple[Browser, Unsteady]]:
    """Chromium, for which the collector's name is a server that loses answers."""
    unsteady = Unsteady(collector, "/i.gif")
    with chromium(driver, unsteady.port) as started:
        yield started, unsteady
    unsteady.close()


def track(page: Page, event: str = "view", **variables: Any) -> str:
    """How it was sent, or what it was answered."""
    return str(page.evaluate("([event, variables]) => track(event, variables)", [event, variables]))


SHOE = {
    "product_id": ["SKU-1"],
    "product_name": ["Red shoe"],
    "product_unit_price": ["79.90"],
    "product_quantity": ["2"],
}
ORDER = {
    "product_id": ["SKU-1", "SKU-2"], "product_unit_price": ["79.90", "13.92"], "product_quantity": ["2", "1"],
    "order_id": "ORD-1001", "order_total": "178.62", "order_currency": "EUR",
}  # fmt: skip


@pytest.mark.parametrize("way", ["form", "event endpoint"])
def test_a_visit(collector: Service, browser: Browser, way: str) -> None:
    wanted = {"page_views": 1, "list_views": 1, "item_views": 1, "cart_adds": 1, "checkouts": 1, "account_events": 1}
    before = len(records(collector, **wanted))
    with shop(browser, TAG) as page:
        if way == "event endpoint":
            page.context.add_cookies([{"name": "as_event", "value": "1", "url": SHOP}])
        page.goto(f"{SHOP}/?utm_source=news&utm_medium=email")
        assert track(page, page_name="Home") == "200"
        page.evaluate("history.pushState({}, '', '/category/shoes')")
        assert track(page, tealium_event="category_view", category_name="Shoes") == "beacon"
        track(page, tealium_event="search", search_keyword="red")
        page.goto(f"{SHOP}/p/1")
        track(page, tealium_event="product_view", **SHOE)
        track(page, "link", tealium_event="cart_add", currency_code="EUR", **SHOE)
        track(page, tealium_event="checkout", cart_total_value="159.80")
        track(page, tealium_event="purchase", **ORDER)
        track(page, "link", tealium_event="user_login", customer_id="user-42")
        page.wait_for_timeout(300)
        page.goto("about:blank")  # the tag says nothing of it
        wait_until(lambda: len(records(collector, **wanted, purchases=2)) == before + 1)
    for session in records(collector, **wanted):
        assert session["events"] == 9  # an order of two products
        assert session["searches"] == 1
        assert session["revenue"] == pytest.approx(178.62)
        assert session["entry_channel"] == 5  # e-mail
    assert metrics(collector, "lotse_dropped_events_total") == {}


def test_scores_arrive_in_the_page(collector: Service, browser: Browser) -> None:
    with shop(browser, TAG) as page:
        page.goto(f"{SHOP}/")
        assert page.evaluate("enrich()") == "loaded"
        assert page.evaluate("enriched") == []  # nobody yet
        assert track(page) == "200"
        assert page.evaluate("enrich()") == "loaded"
        (told,) = page.evaluate("enriched")
        assert page.evaluate("JSON.parse(localStorage.tealium_va)") == told
    assert 0 < told["metrics"]["lotse_conversion"] < 1
    assert set(told["properties"]) >= {f"{name}_model" for name in told["metrics"]}
    over = {name for name, score in told["metrics"].items() if score >= 0.5}
    assert told["badges"] == dict.fromkeys(over, True)


def taken(collector: Service) -> dict[str, float]:
    """How many events were taken as what."""
    return {labels: value for labels, value in metrics(collector, "lotse_events_total").items() if value}


@pytest.mark.parametrize("fate", ["lost", 500, 429])
def test_an_event_whose_answer_is_lost_counts_once(
    broken: tuple[Browser, Unsteady], collector: Service, fate: Any
) -> None:
    """The tag never sends again; the browser may by itself where a connection broke."""
    browser, unsteady = broken
    before = taken(collector)
    with shop(browser, TAG) as page:
        page.goto(f"{SHOP}/")
        unsteady.fates.append(fate)
        outcome = track(page)
        assert outcome == str(fate) or (fate == "lost" and outcome in ("error", "200"))
        assert track(page) == ("beacon" if outcome == "200" else "200")
        page.wait_for_timeout(300)
    now = taken(collector)
    assert {labels: now[labels] - before.get(labels, 0) for labels in ('{status="started"}', '{status="folded"}')} == {
        '{status="started"}': 1, '{status="folded"}': 1,
    }  # fmt: skip


def test_a_string_of_the_consent_framework_counts(collector: Service, browser: Browser) -> None:
    before = taken(collector)
    with shop(browser, TAG) as page:
        # nothing is granted: the event is of its session and of nothing else
        page.context.add_cookies([{"name": "tcf", "value": "CAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "url": SHOP}])
        page.goto(f"{SHOP}/")
        assert track(page) == "200"
    assert taken(collector)['{status="started"}'] == before.get('{status="started"}', 0) + 1
    assert metrics(collector, "lotse_dropped_events_total") == {}

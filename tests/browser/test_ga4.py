"""A small GA4 client in Chromium, and the Measurement Protocol from Node as servers send it."""

from __future__ import annotations

import json

from playwright.sync_api import Browser, Page

from tests.browser.clients import AGENT, COLLECTOR, SHOP, bundled, metrics, node, records, shop
from tests.workspace import Service, wait_until

# It looks at the settings when it is loaded.
PAGE = """
window.minimalAnalytics = { trackingId: "G-TEST1", analyticsEndpoint: "%s" }
window.track = require("@minimal-analytics/ga4").track
"""
# A server repeats a request that it has no good answer to.
SERVER = """
const items = [{ item_id: "P1", price: 20 }, { item_id: "P2", price: 5 }]
const params = { session_id: "1", currency: "EUR", value: 25, transaction_id: "T", items }
const body = JSON.stringify({ client_id: "9.9", events: [{ name: "login" }, { name: "purchase", params }],
  timestamp_micros: String(Date.now() * 1000) })
const ask = path => fetch(`${process.env.HOST}${path}?measurement_id=G-TEST1&api_secret=x`, { method: "POST", body })
const first = await ask("/mp/collect"), again = await ask("/mp/collect"), checked = await ask("/debug/mp/collect")
console.log(JSON.stringify([first.status, again.status, await checked.json()]))
"""


def events(service: Service) -> dict[str, float]:
    return metrics(service, "lotse_events_total")


def done(service: Service, page: Page, call: str) -> None:
    """A call of the client's, until its event has arrived."""
    before = sum(events(service).values())
    page.evaluate(f"void {call}")
    wait_until(lambda: sum(events(service).values()) > before)


def track(kind: str, **fields: str) -> str:
    return f"track({json.dumps({'type': kind, 'event': fields})})"


def test_a_visit(collector: Service, browser: Browser) -> None:
    shoe, sock = "idSKU-1~nmRed shoe~caShoes~pr79.9~qt2", "idSKU-2~caSocks~pr5~qt1"
    with shop(browser, bundled(PAGE % f"{COLLECTOR}/metrics/g/collect")) as page:
        page.goto(f"{SHOP}/?utm_source=news&utm_medium=email&utm_campaign=spring")
        done(collector, page, "track()")
        done(collector, page, track("view_search_results", **{"ep.search_term": "red shoes"}))
        done(collector, page, track("view_item", cu="EUR", pr1=shoe))
        done(collector, page, track("add_to_cart", cu="EUR", pr1=shoe, pr2=sock))
        done(collector, page, track("login", **{"ep.method": "mail"}))
        done(collector, page, track("purchase", cu="EUR", pr1=shoe, pr2=sock, **{"epn.value": "178.62"}))
        page.evaluate("location.href = '/next'")  # leaves: a user_engagement is sent
        wait_until(lambda: records(collector)[0]["heartbeats"] == 1)
    (session,) = records(collector)
    expected = {
        "events": 9, "page_views": 1, "searches": 1, "item_views": 1, "cart_adds": 2, "account_events": 1,
        "purchases": 2, "entry_channel": 5, "from_campaign": 1, "device_kind": 1,
    }  # fmt: skip
    assert {name: session[name] for name in expected} == expected
    assert round(session["revenue"], 2) == 178.62
    assert metrics(collector, "lotse_dropped_events_total") == {}


def test_a_request_that_comes_again_counts_once(collector: Service) -> None:
    query = "v=2&tid=G-1&cid=7.7&sid=7&_p=1&_s=1&en=add_to_cart&pr1=ida~pr1&pr2=idb~pr2"
    for _ in range(3):
        assert collector.http.post(f"/g/collect?{query}", headers={"user-agent": AGENT}).status_code == 204
    (session,) = records(collector, cart_adds=2, page_views=0)
    assert session["events"] == 2


def test_a_server_s_order_counts_once_and_the_check_counts_nothing(collector: Service) -> None:
    certificate = str(collector.folder / "certificate.pem")
    host = f"https://127.0.0.1:{collector.port}"
    assert json.loads(node(SERVER, HOST=host, NODE_EXTRA_CA_CERTS=certificate)) == [
        204, 204, {"validationMessages": []},
    ]  # fmt: skip
    (session,) = records(collector, purchases=2, device_kind=0)
    assert (session["events"], session["account_events"], session["revenue"]) == (3, 1, 25)

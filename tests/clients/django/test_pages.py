"""Pages of a Django shop: what its visitors do is in the service, and what the service says is in the pages."""

from __future__ import annotations

import re

import pytest

from features.events import CHANNELS, DEVICES, hash64
from tests.clients.django.conftest import Start
from tests.clients.django.running import DjangoShop, Server, agree, features, held, opened, page_of
from tests.workspace import Service, wait_until


def test_a_visit(shop: DjangoShop, keyed: Service, secret: str) -> None:
    with shop.browser() as browser:
        landing = opened(browser, "/?utm_source=crm&utm_medium=email&utm_campaign=may&email=jane@example.org")
        assert landing.status == 200 and landing.known["reason"] == "ok"
        assert set(landing.known["scores"]) == {"bounce", "conversion", "exit"}
        bounce = re.search(r'id="bounce">([\d.]+)<', landing.text)
        assert bounce and float(bounce[1]) == landing.known["scores"]["bounce"]
        assert 'data-offer="none"' in landing.text and "<aside" not in landing.text

        agree(browser, "measure", "link")
        item = opened(browser, "/p/walker/")
        visitor = item.known["visitor"]
        assert 'data-offer="chat"' in item.text and "<aside" in item.text
        added = browser.post("/cart/add/", data={"sku": "walker"})
        wait_until(lambda: features(keyed, secret, visitor).get("cart_adds") == 1)
        assert added.url.path == "/cart/" and "walker" in added.text
        banner = opened(browser, "/cart/")
        assert banner.known["flags"] == {"help_offer": "chat", "banner": True} and 'id="banner"' in banner.text
        browser.post("/order/", data={})
        wait_until(lambda: features(keyed, secret, visitor).get("purchases") == 1)

    session = features(keyed, secret, visitor)
    # a page after the choice, the product's, the cart's after adding and by itself, one after the order
    expected = {"item_views": 1, "cart_views": 2, "page_views": 2, "revenue": 79.9, "events": 7}
    expected |= {"price_viewed_last": 0, "device_kind": DEVICES.index("desktop")}
    assert {name: session[name] for name in expected} == pytest.approx(expected)


def test_channel_and_campaign_are_told_from_what_is_sent_of_an_address(
    shop: DjangoShop, keyed: Service, secret: str
) -> None:
    tags = "?utm_source=crm&utm_medium=email&utm_campaign=may&email=jane@example.org"
    cases = [
        ("/" + tags, "", "email"),
        ("/?gclid=abc", "", "paid"),
        ("/", "https://www.google.com/search?q=x", "organic"),
    ]
    cases += [
        ("/", "", "direct"),
        ("/", f"{shop.url}/cart/", "internal"),
        ("/", "https://news.example/jane", "referral"),
    ]
    for path, referrer, channel in cases:
        with shop.browser() as browser:
            page = opened(browser, path, **({"referer": referrer} if referrer else {}))
            session = features(keyed, secret, page.known["visitor"])
            assert CHANNELS[int(session["entry_channel"])] == channel, (path, referrer)
            assert session["last_campaign"] == (hash64("may") if "campaign" in path else 0)


@pytest.mark.parametrize(
    ("path", "headers", "reason"),
    [
        ("/", {"sec_purpose": "prefetch;prerender"}, "skipped"),
        ("/", {"user_agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}, "skipped"),
        ("/static/none.css", {}, "skipped"),
        ("/", {"sec_fetch_dest": "empty"}, "no_event"),
        ("/", {"accept": "application/json"}, "no_event"),
        ("/no-such-page/", {}, "no_event"),
        ("/quiet/", {}, "no_event"),
    ],
)
def test_what_is_no_page_view(
    shop: DjangoShop, keyed: Service, secret: str, path: str, headers: dict[str, str], reason: str
) -> None:
    with shop.browser() as browser:
        page = opened(browser, path, **headers)
    assert page.known["reason"] == reason
    assert page.known["scores"] == {} and page.known["flags"] == {"help_offer": "none", "banner": False}
    if page.known["visitor"]:
        assert held(keyed, secret, page.known["visitor"]) == []


def test_head_is_no_page_view(shop: DjangoShop) -> None:
    with shop.browser() as browser:
        assert page_of(browser.head("/")).known["reason"] == "no_event"


def test_what_is_tracked_of_a_page_that_fails_is_not_sent(shop: DjangoShop, keyed: Service, secret: str) -> None:
    with shop.browser() as browser:
        agree(browser, "measure", "link")
        browser.post("/cart/add/", data={"sku": "runner"})
        failed = browser.post("/order/", data={"fails": "yes"})
        assert failed.status_code == 500
        visitor = page_of(failed).known["visitor"]
        browser.post("/cart/add/", data={"sku": "runner"})
        wait_until(lambda: features(keyed, secret, visitor).get("cart_adds") == 2)
    assert features(keyed, secret, visitor)["purchases"] == 0


def test_an_event_with_a_mistake_in_it_is_named_in_the_log_and_nowhere_else(shop: DjangoShop) -> None:
    with shop.browser() as browser:
        assert opened(browser, "/misspelt/").status == 200
    wait_until(lambda: "name: expected one of custom, page_view" in shop.log.read_text())
    log = shop.log.read_text()
    assert "an event was not sent: Object contains unknown field `itme`" in log
    assert "an event was not sent: Expected `float`, got `str` - at `$.price`" in log


def test_pages_with_flags_are_kept_by_no_shared_cache(shop: DjangoShop) -> None:
    with shop.browser() as browser:
        page = opened(browser)
        assert page.headers["cache-control"] == "private" and "Cookie" in page.headers["vary"]
        assert "cache-control" not in opened(browser, "/quiet/").headers


def test_openfeature_answers_for_the_requests_session(server: Server, start: Start) -> None:
    if server == "uvicorn":
        pytest.skip("the view is the same")
    shop = start(server, OPENFEATURE=True, FLAGS="all")
    with shop.browser() as browser:
        agree(browser, "measure", "link")
        found = browser.get("/openfeature/").json()
        assert found == {
            "help_offer": ["chat", None],
            "price": [1.5, None],
            "wrong": [True, "TYPE_MISMATCH"],
            "other": ["default", "FLAG_NOT_FOUND"],
        }
    with shop.browser() as other:  # whose only page this is, in a thread that has served somebody else
        assert other.get("/openfeature/").json()["help_offer"] == ["none", None]


def test_a_shop_with_wrong_settings_serves_its_pages(server: Server, start: Start) -> None:
    shop = start(server, KEY="not a key", TIMEOUT_MS="soon")
    with shop.browser() as browser:
        for path in ("/", "/p/walker/", "/cart/"):
            page = opened(browser, path)
            assert page.status == 200 and page.known["reason"] == "not_configured"
        assert browser.post("/cart/add/", data={"sku": "walker"}).status_code == 200
        assert browser.post("/consent/", data={"purpose": "link"}).status_code == 200
        assert "lotse" not in browser.cookies
    log = shop.log.read_text()
    assert "LOTSE['KEY'] is no secret key" in log and "not a key" not in log


def test_neither_log_nor_page_holds_what_is_private(server: Server, start: Start, secret: str) -> None:
    shop = start(server, {"log": "DEBUG"})
    private = {"user_agent": "Mozilla/5.0 (X11; Linux x86_64) CanaryAgent/77.1", "x_forwarded_for": "203.0.113.77"}
    with shop.browser() as browser:
        agree(browser, "measure", "link")
        page = opened(browser, "/?email=canary@example.org&token=canary-query", **private)
        browser.post("/cart/add/", data={"sku": "walker"}, headers={"user-agent": private["user_agent"]})
        wait_until(shop.settled)
    log = shop.log.read_text()
    canaries = [secret, page.known["visitor"], page.known["session"], "CanaryAgent", "203.0.113.77"]
    lines = [line for line in log.splitlines() if "lotse" in line.lower() or "httpcore" in line or "httpx" in line]
    assert lines
    for canary in [*canaries, "canary@example.org", "canary-query"]:
        assert not [line for line in lines if canary in line], canary
    assert secret not in page.text and page.known["session"] not in page.text

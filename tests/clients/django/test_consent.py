"""What lies on a visitor's device, and what the service is told, is what the visitor has consented to."""

from __future__ import annotations

from http.cookies import Morsel, SimpleCookie

import pytest

from tests.clients.django.conftest import Start
from tests.clients.django.running import DjangoShop, Page, Server, agree, features, held, opened, page_of
from tests.workspace import Service, wait_until

THIRTEEN_MONTHS = 396 * 86_400
SERVER_SESSIONS = {"VISITOR": "lotse_django.visitors.of_session"}


def cookie_of(page: Page) -> Morsel[str] | None:
    """What a response says of our cookie."""
    return SimpleCookie(page.headers.get("set-cookie", "")).get("lotse")


def test_without_consent_nothing_is_kept_and_pages_are_not_linked(
    shop: DjangoShop, keyed: Service, secret: str
) -> None:
    with shop.browser() as browser:
        pages = [opened(browser) for _ in range(2)]
        assert [page.known["consent"] for page in pages] == [[], []]
        assert pages[0].known["visitor"] != pages[1].known["visitor"]
        assert len(browser.cookies) == 0 and all("set-cookie" not in page.headers for page in pages)
    for page in pages:
        (record,) = held(keyed, secret, page.known["visitor"])
        assert (record["events"], record["consent"]) == (1, [])


def test_a_visitor_who_consents_is_known_again_by_a_cookie(shop: DjangoShop, keyed: Service, secret: str) -> None:
    with shop.browser() as browser:
        chosen = browser.post("/consent/", data={"purpose": ["measure", "link"]}, follow_redirects=False)
        cookie = cookie_of(page_of(chosen))
        assert cookie is not None
        visitor, *purposes = cookie.value.split(".")
        assert purposes == ["measure", "link"] and len(visitor) == 32
        assert (cookie["path"], cookie["samesite"], cookie["httponly"], cookie["secure"]) == ("/", "Lax", True, "")
        assert 0 < int(cookie["max-age"]) <= THIRTEEN_MONTHS and cookie["domain"] == ""
        pages = [opened(browser) for _ in range(2)]
        assert {page.known["visitor"] for page in pages} == {visitor}
        # a visit does not prolong what was consented to
        assert all(cookie_of(page) is None for page in pages)
    (record,) = held(keyed, secret, visitor)
    assert (record["events"], record["consent"]) == (2, ["measure", "link"])
    assert record["history"]["visitor_visits"] == 1


def test_behind_tls_the_cookie_is_for_tls_only(shop: DjangoShop) -> None:
    with shop.browser(**{"x-forwarded-proto": "https"}) as browser:
        chosen = browser.post("/consent/", data={"purpose": ["measure", "link"]}, follow_redirects=False)
        cookie = cookie_of(page_of(chosen))
        assert cookie is not None and cookie["secure"] is True


def test_measuring_alone_needs_no_cookie(shop: DjangoShop) -> None:
    with shop.browser() as browser:
        agree(browser, "measure")
        assert len(browser.cookies) == 0


def test_a_withdrawal_deletes_the_cookie_and_is_told(shop: DjangoShop, keyed: Service, secret: str) -> None:
    with shop.browser() as browser:
        visitor = agree(browser, "measure", "link").known["visitor"]
        assert held(keyed, secret, visitor)[0]["history"]["visitor_visits"] == 1
        withdrawn = browser.post("/consent/", data={}, follow_redirects=False)
        cookie = cookie_of(page_of(withdrawn))
        assert cookie is not None and (cookie.value, cookie["max-age"]) == ("", "0")
        assert len(browser.cookies) == 0

        def unlinked() -> bool:
            records = held(keyed, secret, visitor)
            return bool(records) and all("link" not in record["consent"] for record in records)

        wait_until(unlinked)
        assert not any(record.get("history", {}).get("visitor_visits") for record in held(keyed, secret, visitor))
        assert opened(browser).known["visitor"] != visitor


@pytest.mark.parametrize("objection", ["sec-gpc", "dnt"])
def test_a_browser_that_objects_is_not_linked(shop: DjangoShop, keyed: Service, secret: str, objection: str) -> None:
    with shop.browser() as browser:
        visitor = agree(browser, "measure", "link").known["visitor"]
        page = page_of(browser.get("/", headers={objection: "1"}))
        assert page.known["consent"] == ["measure"]
        assert len(browser.cookies) == 0
        assert [record["consent"] for record in held(keyed, secret, visitor)] == [["measure"]]
    with shop.browser(**{objection: "1"}) as browser:
        agree(browser, "measure", "link", "personalise")
        assert len(browser.cookies) == 0


def test_a_consent_managers_cookie_is_believed(server: Server, start: Start, keyed: Service, secret: str) -> None:
    resolver = "of_request" if server == "gunicorn" else "of_request_async"
    shop = start(server, CONSENT=f"tests.clients.django_shop.consent.{resolver}")
    with shop.browser() as browser:
        assert opened(browser).known["consent"] == []
        browser.cookies.set("agreed", "statistics|profile")
        visitor = opened(browser).known["visitor"]
        assert browser.cookies["lotse"] == f"{visitor}.measure.link"
        assert opened(browser).known["visitor"] == visitor
        # less than before: the cookie is about what still holds
        browser.cookies.set("agreed", "statistics|profile|ads")
        opened(browser)
        assert browser.cookies["lotse"] == f"{visitor}.measure.link.personalise"
        browser.cookies.set("agreed", "statistics")
        page = opened(browser)
        assert (page.known["visitor"], page.known["consent"]) == (visitor, ["measure"])
        assert "lotse" not in browser.cookies
        assert [record["consent"] for record in held(keyed, secret, visitor)] == [["measure"]]


def test_a_shops_own_session_is_one_visitor_without_a_cookie_of_ours(
    server: Server, start: Start, keyed: Service, secret: str
) -> None:
    shop = start(server, **SERVER_SESSIONS)
    with shop.browser() as browser:
        browser.post("/cart/add/", data={"sku": "sandal"})  # from now on there is a session
        pages = [opened(browser), opened(browser)]
        visitor = pages[0].known["visitor"]
        assert pages[1].known["visitor"] == visitor and browser.cookies["sessionid"] not in visitor
        assert "lotse" not in browser.cookies
        (record,) = held(keyed, secret, visitor)
        assert record["consent"] == []
        # with consent the running session goes on under the cookie
        agree(browser, "measure", "link")
        assert browser.cookies["lotse"] == f"{visitor}.measure.link"
        wait_until(lambda: features(keyed, secret, visitor)["page_views"] >= 3)


def test_a_shop_may_send_nothing_without_consent(server: Server, start: Start, keyed: Service, secret: str) -> None:
    shop = start(server, REQUIRE_CONSENT=True)
    with shop.browser() as browser:
        page = opened(browser)
        assert page.known["reason"] == "no_consent"
        browser.post("/cart/add/", data={"sku": "sandal"})
        assert held(keyed, secret, page.known["visitor"]) == []
        visitor = agree(browser, "measure", "link").known["visitor"]
        assert features(keyed, secret, visitor)["page_views"] == 1


def test_a_resolver_that_fails_costs_no_page_and_no_consent(
    server: Server, start: Start, keyed: Service, secret: str
) -> None:
    shop = start(server, CONSENT="tests.clients.django_shop.views.fails")
    with shop.browser() as browser:
        browser.cookies.set("lotse", f"{'c' * 32}.measure.link")
        page = opened(browser)
        assert page.status == 200 and page.known["reason"] == "ok"
        assert page.known["consent"] == [] and page.known["visitor"] != "c" * 32
        assert browser.cookies["lotse"]  # nobody has withdrawn
    assert held(keyed, secret, "c" * 32) == []
    assert "could not be read: ValueError in fails" in shop.log.read_text()
    assert "127.0.0.1" not in "".join(line for line in shop.log.read_text().splitlines() if " lotse " in line)


def test_a_cookie_that_is_none_of_ours_is_nobody(shop: DjangoShop) -> None:
    for text in ("x", "a" * 200, "<script>.measure.link", f"{'a' * 32}.everything"):
        with shop.browser() as browser:
            browser.cookies.set("lotse", text)
            page = opened(browser)
            assert page.known["visitor"] != text.split(".")[0] and page.known["consent"] == []

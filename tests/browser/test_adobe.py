"""Adobe's Web SDK (alloy) in Chromium: a visit, its scores in the page, consent, and answers that are lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright

from tests.browser.clients import COLLECTOR, ELSEWHERE, SHOP, bundled, chromium, metrics, records, shop
from tests.browser.unsteady import Unsteady
from tests.workspace import Service, wait_until

SCRIPT = """
import { createInstance } from "@adobe/alloy"
const alloy = createInstance({ name: "alloy" })
const asked = new URLSearchParams(location.search)
window.configured = alloy("configure", {
  datastreamId: "ds-0001", orgId: "ORG@AdobeOrg", edgeDomain: "%s", edgeBasePath: "%s",
  defaultConsent: asked.get("consent") || "in",
})
window.send = async (options) => {
  await window.configured
  return alloy("sendEvent", options)
}
window.consent = (general) =>
  alloy("setConsent", { consent: [{ standard: "Adobe", version: "1.0", value: { general } }] })
window.consentTo = (value) => alloy("setConsent", { consent: [{ standard: "Adobe", version: "2.0", value }] })
window.identity = async () => (await alloy("getIdentity")).identity.ECID
"""


def script(collector: str = COLLECTOR, base: str = "ee") -> str:
    return bundled(SCRIPT % (collector.removeprefix("https://"), base))


@pytest.fixture(scope="module")
def overrides() -> tuple[str, ...]:
    return ('collect.trackers=["adobe"]', 'collect.options={adobe={organisation="ORG@AdobeOrg"}}')


@pytest.fixture(scope="module")
def broken(driver: Playwright, collector: Service) -> Iterator[tuple[Browser, Unsteady]]:
    """Chromium, for which the collector's name is a server that loses answers."""
    unsteady = Unsteady(collector, "/interact")
    with chromium(driver, unsteady.port) as started:
        yield started, unsteady
    unsteady.close()


def send(page: Page, **options: Any) -> Any:
    """What the page gets back."""
    return page.evaluate("options => send(options)", options)


def view(page: Page, **more: Any) -> Any:
    return send(page, xdm={"web": {"webPageDetails": {"pageViews": {"value": 1}}}, **more.pop("xdm", {})}, **more)


def commerce(page: Page, what: str, *products: dict[str, Any], **more: Any) -> None:
    xdm = {"eventType": f"commerce.{what}", "commerce": {what: {"value": 1}, **more}, "productListItems": products}
    send(page, xdm=xdm)


def cookies(page: Page) -> dict[str, dict[str, Any]]:
    context: BrowserContext = page.context
    return {cookie["name"]: dict(cookie) for cookie in context.cookies()}


@pytest.mark.parametrize(
    ("host", "base"), [(COLLECTOR, "ee"), (ELSEWHERE, "own/base")], ids=["the shop's site", "another site"]
)
def test_a_visit(collector: Service, browser: Browser, host: str, base: str) -> None:
    wanted = {"page_views": 2, "searches": 1, "item_views": 1, "cart_adds": 1, "checkouts": 1, "account_events": 1}
    before = len(records(collector, **wanted))
    with shop(browser, script(host, base)) as page:
        page.goto(f"{SHOP}/?utm_source=news&utm_medium=email")
        view(page)
        page.evaluate("history.pushState({}, '', '/search')")
        view(page, xdm={"siteSearch": {"phrase": "red shoes"}})
        page.goto(f"{SHOP}/p/1")
        commerce(page, "productViews", {"SKU": "SKU-1", "priceTotal": 79.9, "currencyCode": "EUR"})
        shoe = {"SKU": "SKU-1", "priceTotal": 159.8, "quantity": 2, "currencyCode": "EUR"}
        commerce(page, "productListAdds", shoe)
        commerce(page, "checkouts", shoe)
        sock = {"SKU": "SKU-2", "priceTotal": 13.92, "currencyCode": "EUR"}
        order = {"purchaseID": "ORD-1001", "priceTotal": 178.62, "currencyCode": "EUR"}
        commerce(page, "purchases", shoe, sock, order=order)
        known = {"CRMId": [{"id": "user-42", "authenticatedState": "authenticated", "primary": True}]}
        send(page, xdm={"eventType": "userAccount.login", "identityMap": known})
        link = {"webInteraction": {"name": "exit", "type": "exit", "linkClicks": {"value": 1}}}
        page.evaluate("options => { send(options) }", {"documentUnloading": True, "xdm": {"web": link}})
        page.wait_for_timeout(300)
        assert cookies(page)["kndctr_ORG_AdobeOrg_identity"]["value"].startswith("CiY")
        page.goto("about:blank")
        wait_until(lambda: len(records(collector, **wanted, clicks=1)) == before + 1)
    for session in records(collector, **wanted):
        assert session["events"] == 10  # a search beside its page view, an order of two products
        assert session["purchases"] == 2
        assert session["revenue"] == pytest.approx(178.62)
        assert session["entry_channel"] == 5  # e-mail
    assert metrics(collector, "lotse_dropped_events_total") == {}


def test_scores_arrive_in_the_page(collector: Service, browser: Browser) -> None:
    with shop(browser, script()) as page:
        page.goto(f"{SHOP}/")
        first = view(page, decisionScopes=["lotse"])
        second = view(page, personalization={"decisionScopes": ["lotse"]})
        without = view(page)
        ecid = page.evaluate("identity()")
        page.reload()
        assert page.evaluate("identity()") == ecid  # out of the cookie, which alloy decodes
    assert len(ecid) == 38
    for answer in (first, second):
        (proposition,) = answer["propositions"]
        (decision,) = answer["decisions"]
        assert (proposition["scope"], proposition["renderAttempted"]) == ("lotse", False)
        assert decision["items"] == proposition["items"]
        content = decision["items"][0]["data"]["content"]
        assert 0 < content["scores"]["conversion"] < 1
        assert set(content["models"]) >= set(content["scores"])
    assert without["propositions"] == []
    found = collector.http.get(f"/v1/sessions/{content['session']}").json()
    assert found["events"] == 3
    assert found["scores"].keys() == content["scores"].keys()


def test_consent_is_asked_for_kept_and_withdrawn(collector: Service, browser: Browser) -> None:
    before = len(records(collector))
    with shop(browser, script()) as page:
        page.goto(f"{SHOP}/?consent=pending")
        viewed = "{ xdm: { web: { webPageDetails: { pageViews: { value: 1 } } } } }"
        page.evaluate(f"() => {{ window.waiting = send({viewed}) }}")
        page.wait_for_timeout(300)
        assert len(records(collector)) == before
        page.evaluate("consent('in')")
        page.evaluate("window.waiting")
        assert len(records(collector)) == before + 1
        kept = cookies(page)
        assert kept["kndctr_ORG_AdobeOrg_consent"]["value"] == "general=in"
        page.reload()
        view(page)
        page.evaluate("consent('out')")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        send(page, xdm={"eventType": "own"})
        # also for a page that takes consent for granted where nothing is kept
        page.goto(f"{SHOP}/?consent=in")
        send(page, xdm={"eventType": "own"})
        assert not [url for url in asked if url.startswith(COLLECTOR)]
        now = cookies(page)
        assert now["kndctr_ORG_AdobeOrg_consent"]["value"] == "general=out"
        assert now["kndctr_ORG_AdobeOrg_identity"]["value"] != kept["kndctr_ORG_AdobeOrg_identity"]["value"]
        # what was linked is erased at once
    assert len(records(collector)) == before
    assert metrics(collector, "lotse_dropped_events_total") == {}


def taken(collector: Service) -> dict[str, float]:
    """How many events were taken as what."""
    return {labels: value for labels, value in metrics(collector, "lotse_events_total").items() if value}


def since(collector: Service, before: dict[str, float]) -> dict[str, float]:
    now = taken(collector)
    return {labels: value - before.get(labels, 0) for labels, value in now.items() if value != before.get(labels, 0)}


@pytest.mark.parametrize("host", [COLLECTOR, ELSEWHERE], ids=["the shop's site", "another site"])
def test_a_narrower_consent_is_read_back_by_alloy_and_by_us(browser: Browser, collector: Service, host: str) -> None:
    with shop(browser, script(host)) as page:
        page.goto(f"{SHOP}/?consent=pending")
        page.evaluate("consentTo({ collect: { val: 'y' } })")
        # as the library that writes it escapes it
        assert cookies(page)["kndctr_ORG_AdobeOrg_consent"]["value"] == "general=in%3Bpersonalise=out"
        page.reload()
        with page.expect_request("**/interact*") as asked:
            answer = view(page, decisionScopes=["lotse"])
        request = asked.value
        sent = request.all_headers().get("cookie", "") if host == COLLECTOR else str(request.post_data)
    assert answer["decisions"]
    assert "kndctr_ORG_AdobeOrg_consent" in sent
    assert metrics(collector, "lotse_dropped_events_total") == {}


@pytest.mark.parametrize("fates", [[503], [429, 429], [502, 504, 503]], ids=str)
def test_a_first_event_that_is_sent_again_counts_once(
    broken: tuple[Browser, Unsteady], collector: Service, fates: list[Any]
) -> None:
    """The visitor has no identity yet: an event after it shows that it is one visitor all the same."""
    browser, unsteady = broken
    before, seen = taken(collector), unsteady.seen["/ee/v1/interact"]
    with shop(browser, script()) as page:
        page.goto(f"{SHOP}/")
        unsteady.fates.extend(fates)
        view(page)
        view(page)
    assert unsteady.seen["/ee/v1/interact"] - seen == len(fates) + 2
    assert since(collector, before) == {
        '{status="started"}': 1, '{status="duplicate"}': len(fates), '{status="folded"}': 1,
    }  # fmt: skip


@pytest.mark.parametrize("fate", ["lost", 500])
def test_an_event_whose_answer_is_lost_counts_once(
    broken: tuple[Browser, Unsteady], collector: Service, fate: Any
) -> None:
    """alloy gives up; the browser may send again by itself where a connection broke."""
    browser, unsteady = broken
    before = taken(collector)
    with shop(browser, script()) as page:
        page.goto(f"{SHOP}/")
        view(page)
        unsteady.fates.append(fate)
        attempt = "send({ xdm: { eventType: 'own' } }).then(() => 'sent', () => 'failed')"
        outcome = page.evaluate(attempt)
        assert outcome == "failed" or fate == "lost"
        view(page)
    counted = since(collector, before)
    assert (counted['{status="started"}'], counted['{status="folded"}']) == (1, 2)

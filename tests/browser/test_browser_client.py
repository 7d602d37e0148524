"""The browser client in Chromium against the running service: what a visitor does is in the session's record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, Request, Route

from features.events import CHANNELS, DEVICES
from tests.browser.client_build import built
from tests.browser.clients import AGENT, COLLECTOR, SHOP, chromium, records
from tests.serving.proxy import Mood, Proxy
from tests.workspace import Service, lotse, wait_until

# everything that was done is answered
SETTLED = "() => lotse.flush().then(() => lotse.session.token !== '')"


@pytest.fixture(scope="module")
def overrides() -> tuple[str, ...]:
    """The shop's pages may read the answers, and no tracker's requests are understood."""
    return (f'cors.origins=["{SHOP}"]', "collect.trackers=[]")


@pytest.fixture(scope="module")
def key(collector: Service) -> str:
    """A public key of it."""
    done = lotse(collector.folder, "keys", "create", "--kind", "public", "--name", "shop", "--origins", SHOP)
    return done.stdout.strip()


class Visit:
    """One visitor: a context of the browser, and what its pages ask of the service."""

    def __init__(self, page: Page) -> None:
        self.page, self.requests, self.logged = page, [], []  # type: ignore[var-annotated]
        page.context.on("request", self._note)
        page.on("console", lambda message: self.logged.append(message.text))

    def _note(self, request: Request) -> None:
        if request.url.startswith(COLLECTOR):
            self.requests.append(request)

    def open(self, path: str = "/", **options: Any) -> None:
        """Load a page, and wait until the service has answered it."""
        self.page.goto(SHOP + path, **options)
        self.settle()

    def settle(self) -> None:
        """Wait until everything is answered."""
        self.page.wait_for_function(SETTLED)

    def do(self, script: str) -> Any:
        """Run something in the page."""
        return self.page.evaluate(script)

    def sent(self, *, heartbeats: bool = False) -> list[dict[str, Any]]:
        """The events of all requests; heartbeats: also those, which come by the clock, on a slow machine anywhere."""
        return [
            event
            for request in self.requests
            if request.method == "POST"
            for event in request.post_data_json
            if heartbeats or event["name"] != "user_engagement"
        ]

    def stored(self) -> dict[str, Any]:
        """What lies on the device; cookies as the browser keeps them."""
        storages = "({ local: { ...localStorage }, session: { ...sessionStorage } })"
        return {**self.do(storages), "cookies": self.page.context.cookies()}


@contextmanager
def proxy(service: Service) -> Iterator[tuple[int, Callable[[Mood], None]]]:
    """A broken network before the service: its port, and how its mood is turned."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    between = Proxy(service.port)
    asyncio.run_coroutine_threadsafe(between.start(), loop).result()
    try:
        yield between.port, lambda mood: loop.call_soon_threadsafe(between.turn, mood) and None
    finally:
        asyncio.run_coroutine_threadsafe(between.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def visit(
    browser: Browser, tag: str, head: str = "", body: str = "", init: str = "", **options: Any
) -> Iterator[Visit]:
    """A visitor of a shop whose every page has these tags."""
    context = browser.new_context(ignore_https_errors=True, **{"user_agent": AGENT, **options})
    html = f"""<!doctype html><html lang="de"><title>Shop</title><meta name="viewport" content="width=device-width">
{head}<body style="min-height:5000px;font-family:sans-serif"><h1>Schuhe</h1><p>Alle Schuhe unseres Ladens.</p>{body}
<a id="next" href="/next">Weiter</a><script>window.told = []</script>{tag}</body></html>"""

    def answer(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        if name.endswith((".js", ".mjs")):
            route.fulfill(path=built() / "dist" / name, content_type="text/javascript")
        else:
            route.fulfill(body=html, content_type="text/html; charset=utf-8")

    context.route(f"{SHOP}/**", answer)
    if init:
        context.add_init_script(init)
    page = context.new_page()
    try:
        yield Visit(page)
    finally:
        context.close()


def tag(key: str, more: str = "") -> str:
    """The one tag that a shop adds."""
    return f'<script src="{SHOP}/lotse.js" data-collector="{COLLECTOR}" data-key="{key}" {more}></script>'


def only(service: Service, before: int, **wanted: float) -> dict[str, float]:
    """The record that came to those before, as soon as it has these features."""
    wait_until(lambda: len(records(service, **wanted)) == before + 1)
    return records(service, **wanted)[-1]


def test_a_visit(collector: Service, browser: Browser, key: str) -> None:
    with visit(browser, tag(key)) as visitor:
        clock = visitor.page.clock
        clock.install()
        visitor.open("/?utm_source=crm&utm_medium=email&utm_campaign=may&email=jane@example.org#top")
        clock.pause_at(visitor.do("Date.now()") / 1000 + 60)  # time passes when the test says so
        visitor.do("lotse.session.addEventListener('scores', (event) => told.push(event.detail))")
        visitor.do("history.pushState({}, '', '/category/shoes?page=2')")
        visitor.do("history.replaceState({}, '', '/category/shoes?page=3')")  # the same page
        visitor.do("lotse.search()")
        visitor.do("history.pushState({}, '', '/p/12345')")
        visitor.do("lotse.viewItem({ item: 'SKU-1', category: 'shoes', price: 80, currency: 'EUR' })")
        visitor.do("lotse.addToCart({ item: 'SKU-1', category: 'shoes', price: 80, quantity: 2 })")
        # the client has heard of it before time goes on
        visitor.do("new Promise((heard) => { addEventListener('scroll', () => heard()); scrollTo(0, 10_000) })")
        clock.run_for(5_000)
        visitor.do("lotse.removeFromCart({ item: 'SKU-1', price: 80 })")
        visitor.do("lotse.beginCheckout()")
        visitor.do("lotse.login()")
        items = "[{ item: 'SKU-1', price: 80, quantity: 1 }, { item: 'SKU-2', price: 10, quantity: 2 }]"
        visitor.do(f"lotse.purchase({{ value: 100, currency: 'EUR', items: {items} }})")
        visitor.settle()
        visitor.page.wait_for_function("told.at(-1)?.events === 14")
        told = visitor.do("told")
        visitor.do("history.back()")
        visitor.page.wait_for_url("**/category/shoes?page=3")
        clock.run_for(5_000)
        visitor.settle()
        everything = visitor.sent(heartbeats=True)
        visitor.page.goto("about:blank")  # what is told then goes by beacon, when the page is gone
        session = only(collector, 0, cart_adds=1, page_views=4, heartbeats=4)
    expected = {
        "searches": 1, "item_views": 1, "cart_removes": 1, "checkouts": 1, "purchases": 2, "account_events": 1,
        "revenue": 100, "cart_units": 0, "price_viewed_last": 80, "scrolls": 1, "events": 17,
        "entry_channel": CHANNELS.index("email"), "from_campaign": 1, "device_kind": DEVICES.index("desktop"),
    }  # fmt: skip
    assert {name: session[name] for name in expected} == expected
    assert session["scroll_depth_max"] == pytest.approx(1, abs=0.02)
    # scores after every answer, in which what was sent is folded
    assert told[-1]["events"] == 14
    assert told[-1]["scores"]["conversion"] == 1
    # nothing of the address but the path
    landing = f"{SHOP}/?utm_source=crm&utm_medium=email&utm_campaign=may"
    assert {event["page"] for event in everything} == {landing, "/", "/category/shoes", "/p/12345"}
    assert "jane" not in str(everything)
    assert visitor.logged == []


def test_pages_behind_the_hash(collector: Service, browser: Browser, key: str) -> None:
    with visit(browser, tag(key, "data-hash")) as visitor:
        visitor.open("/app/#!/search?q=private")
        visitor.do("location.hash = '#/cart'")
        visitor.page.wait_for_timeout(300)
        visitor.settle()
        assert [event["page"] for event in visitor.sent()] == [f"{SHOP}/app/search", "/app/cart"]
        assert [event.get("channel") for event in visitor.sent()] == [None, "internal"]
    with visit(browser, tag(key)) as visitor:
        visitor.open("/app/#/search")
        visitor.do("location.hash = '#/cart'")
        visitor.settle()
        assert [event["page"] for event in visitor.sent()] == [f"{SHOP}/app/"]


def test_ten_seconds_in_view_are_told(collector: Service, browser: Browser, key: str) -> None:
    with visit(browser, tag(key)) as visitor:
        visitor.page.clock.install()
        visitor.open("/article")
        visitor.page.clock.pause_at(visitor.do("Date.now()") / 1000 + 2)
        visitor.page.clock.run_for(4_000)
        assert [event["name"] for event in visitor.sent(heartbeats=True)] == ["page_view"]
        visitor.page.clock.run_for(4_000)
        visitor.page.wait_for_function("() => lotse.flush().then(() => true)")
        assert [event["name"] for event in visitor.sent(heartbeats=True)] == ["page_view", "user_engagement"]
        share = visitor.do("innerHeight / document.documentElement.scrollHeight")
        assert visitor.sent(heartbeats=True)[-1]["value"] == pytest.approx(share, abs=0.01)


def test_a_visit_that_goes_offline(collector: Service, browser: Browser, key: str) -> None:
    before = len(records(collector, cart_adds=9))
    with visit(browser, tag(key, 'data-consent="functional"')) as visitor:
        visitor.open()
        visitor.page.context.set_offline(True)
        visitor.do("for (let i = 0; i < 9; i++) lotse.addToCart({ item: `SKU-${i}`, price: 1 })")
        visitor.page.wait_for_timeout(500)
        assert len(records(collector, cart_adds=9)) == before
        assert visitor.stored()["session"]["lotse.queue"].count("add_to_cart") == 9
        # another page, still without a network: what was not sent goes with the visitor
        visitor.page.goto(f"{SHOP}/next")
        visitor.do("lotse.viewCart()")
        visitor.page.wait_for_timeout(300)
        visitor.page.context.set_offline(False)
        only(collector, before, cart_adds=9, cart_views=1, page_views=2)
        visitor.settle()
        assert "lotse.queue" not in visitor.stored()["session"]


def test_answers_that_are_lost_count_once(collector: Service, driver: Playwright, key: str) -> None:
    before = len(records(collector, cart_adds=12))
    with (
        proxy(collector) as (port, turn),
        chromium(driver, port) as other,
        visit(other, tag(key, 'data-retry-ms="100"')) as visitor,
    ):
        visitor.open()
        visitor.do("lotse.session.addEventListener('scores', (event) => told.push(event.detail))")
        turn("mute")
        visitor.do("for (let i = 0; i < 7; i++) lotse.addToCart({ item: `SKU-${i}` })")
        only(collector, before=0, cart_adds=7, page_views=1)  # the service has them, and the page does not know
        turn("reset")
        visitor.do("for (let i = 7; i < 12; i++) lotse.addToCart({ item: `SKU-${i}` })")
        visitor.page.wait_for_timeout(1_000)
        turn("well")
        visitor.page.wait_for_function("told.at(-1)?.events >= 13")
        assert visitor.do("told[0].status") == "duplicate"
        session = only(collector, before, cart_adds=12, page_views=1)
        assert session["events"] - session["heartbeats"] == 13


def test_a_service_that_restarts(collector: Service, browser: Browser, key: str) -> None:
    before = len(records(collector, cart_adds=3))
    with visit(browser, tag(key)) as visitor:
        visitor.open()
        collector.stop()
        visitor.do("lotse.addToCart({ item: 'A' })")
        visitor.do("lotse.addToCart({ item: 'B' })")
        visitor.page.wait_for_timeout(1_500)
        collector.start()
        visitor.do("lotse.addToCart({ item: 'C' })")
        session = only(collector, before, cart_adds=3)
        assert session["events"] - session["heartbeats"] == 4


def test_thresholds_are_told_as_they_are_crossed(collector: Service, browser: Browser, key: str) -> None:
    # from the beginning: what is told before somebody listens is told to nobody
    listening = """<script>void (async () => {
        for await (const { type, detail } of lotse.session) if (type !== 'scores') told.push([type, detail])
    })()</script>"""
    thresholds = 'data-thresholds="conversion:0.99 conversion:0.000001"'
    with visit(browser, tag(key, thresholds) + listening) as visitor:
        visitor.open()
        visitor.page.wait_for_function("told.some(([type]) => type === 'threshold')")
        visitor.do("lotse.purchase({ value: 1 })")
        visitor.page.wait_for_function("told.some(([type, { threshold }]) => threshold === 0.99)")
        visitor.page.wait_for_function("told.some(([type]) => type === 'idle')")
        told = visitor.do("told")
        crossings = [(detail["threshold"], detail["direction"]) for kind, detail in told if kind == "threshold"]
        assert crossings == [(0.000001, "up"), (0.99, "up")]
        assert [detail["idle_seconds"] for kind, detail in told if kind == "idle"][-1] == 5
        assert visitor.do("lotse.refresh().then(() => lotse.session.scores.conversion)") == 1


def test_a_hidden_page_holds_no_stream_and_hears_afterwards_what_has_fallen(
    collector: Service, browser: Browser, key: str
) -> None:
    hide = """(state) => {
        Object.defineProperty(document, 'visibilityState', { value: state, configurable: true })
        document.dispatchEvent(new Event('visibilitychange'))
    }"""
    listen = "lotse.session.addEventListener('threshold', ({ detail }) => told.push(detail.direction))"
    with visit(browser, tag(key, 'data-thresholds="bounce:0.0001"') + f"<script>{listen}</script>") as visitor:
        visitor.open()
        visitor.page.wait_for_function("told.length === 1")
        visitor.page.evaluate(hide, "hidden")
        visitor.do("lotse.pageView()")
        visitor.do("lotse.addToCart()")
        visitor.settle()
        assert visitor.do("lotse.session.scores.bounce") == 0
        visitor.page.wait_for_timeout(1_500)  # longer than the service takes to look at a session again
        assert visitor.do("told") == ["up"]
        visitor.page.evaluate(hide, "visible")
        visitor.page.wait_for_function("told.length === 2")
        assert visitor.do("told") == ["up", "down"]


def test_the_module(collector: Service, browser: Browser, key: str) -> None:
    script = f"""<script type="module">
        import {{ init }} from "/index.mjs"
        window.lotse = init({{ collector: "{COLLECTOR}/", key: "{key}", auto: false }})
        lotse.pageView({{ page: "/named" }})
        lotse.track("product_view", {{ item: "A" }})
    </script>"""
    with visit(browser, script) as visitor:
        visitor.open()
        told = [(event["name"], event["page"]) for event in visitor.sent()]
        assert told == [("page_view", "/named"), ("product_view", "/")]
        assert visitor.do("lotse.session.scores.exit") > 0


def test_what_lies_on_the_device_is_what_was_consented_to(collector: Service, browser: Browser, key: str) -> None:
    nothing = {"local": {}, "session": {}, "cookies": []}
    with visit(browser, tag(key)) as visitor:
        visitor.open()
        assert visitor.stored() == nothing
        assert visitor.sent()[0]["consent"] == []

        visitor.do("lotse.consent('functional')")
        first = visitor.sent()[0]["visitor"]
        assert visitor.stored() == {**nothing, "session": {"lotse": f"{first}.measure"}}
        visitor.open("/next")  # the same visitor
        assert visitor.sent()[-1]["visitor"] == first
        assert visitor.sent()[-1]["consent"] == ["measure"]

        visitor.do("lotse.consent('full')")
        stored = visitor.stored()
        (cookie,) = stored.pop("cookies")
        assert stored == {"local": {}, "session": {}}
        assert cookie["value"] == f"{first}.measure.link.personalise"
        assert (cookie["name"], cookie["domain"], cookie["path"]) == ("lotse", "www.shop.example", "/")
        assert (cookie["sameSite"], cookie["secure"]) == ("Lax", True)
        visitor.open("/again")
        assert visitor.sent()[-1]["consent"] == ["measure", "link", "personalise"]
        token = visitor.do("lotse.session.token")

        # a withdrawal holds at once, and has the service forget
        with visitor.page.expect_request(f"{COLLECTOR}/v1/visitors/me?key={key}") as erasure:
            visitor.do("lotse.consent('none')")
            assert visitor.stored() == nothing
        assert erasure.value.method == "DELETE"
        assert erasure.value.headers["authorization"] == f"Bearer {token}"
        visitor.do("lotse.addToCart()")
        visitor.settle()
        last = visitor.sent()[-1]
        assert (last["name"], last["consent"]) == ("add_to_cart", [])
        assert last["visitor"] != first
        assert visitor.do("lotse.session.token") != token
        assert visitor.stored() == nothing


def test_full_consent_in_local_storage(collector: Service, browser: Browser, key: str) -> None:
    with visit(browser, tag(key, 'data-consent="full" data-storage="local"')) as visitor:
        visitor.open()
        stored = visitor.stored()
        assert (stored["session"], stored["cookies"]) == ({}, [])
        assert stored["local"] == {"lotse": f"{visitor.sent()[0]['visitor']}.measure.link.personalise"}
        visitor.do("lotse.consent('functional')")  # half a withdrawal is one
        stored = visitor.stored()
        assert stored["local"] == {}
        assert stored["session"]["lotse"].endswith(".measure")
        assert visitor.sent()[0]["visitor"] not in stored["session"]["lotse"]


@pytest.mark.parametrize("objection", ["globalPrivacyControl", "doNotTrack"])
def test_a_browser_that_objects_is_not_linked(collector: Service, browser: Browser, key: str, objection: str) -> None:
    value = "true" if objection == "globalPrivacyControl" else "'1'"
    init = f"Object.defineProperty(Navigator.prototype, '{objection}', {{ get: () => {value} }})"
    with visit(browser, tag(key, 'data-consent="full"'), init=init) as visitor:
        visitor.open()
        assert visitor.sent()[0]["consent"] == ["measure"]
        stored = visitor.stored()
        assert (stored["local"], stored["cookies"]) == ({}, [])
        assert visitor.do("lotse.level") == "functional"


def test_closed_storages_do_no_harm(collector: Service, browser: Browser, key: str) -> None:
    init = """for (const name of ['localStorage', 'sessionStorage']) {
        Object.defineProperty(window, name, { get() { throw new DOMException('closed', 'SecurityError') } })
    }"""
    with visit(browser, tag(key, 'data-consent="functional"'), init=init) as visitor:
        visitor.open()
        assert visitor.sent()[0]["name"] == "page_view"


BANNER = '<script src="/banner.js"></script>'
FOCUSED = """() => {
    const inside = document.activeElement.shadowRoot?.activeElement
    return (inside || document.activeElement).textContent
}"""


def test_the_banner_by_keyboard(collector: Service, browser: Browser, key: str, tmp_path: Path) -> None:
    with visit(browser, tag(key) + BANNER, color_scheme="light") as visitor:
        page = visitor.page
        visitor.open()
        dialog = page.get_by_role("dialog", name="Dürfen wir Ihren Besuch messen?")
        assert dialog.is_visible()
        page.screenshot(path=tmp_path / "light.png")
        # opt-in: nothing is kept before, and the buttons are equal
        assert visitor.stored() == {"local": {}, "session": {}, "cookies": []}
        looks = """(buttons) => buttons.map((button) => {
            const { width, height } = button.getBoundingClientRect(), style = getComputedStyle(button)
            return [Math.round(width), Math.round(height), style.color, style.background, style.font].join()
        })"""
        found = dialog.get_by_role("button").evaluate_all(looks)
        assert len(found) == 3
        assert len(set(found)) == 1
        # in the order of the page, by keys alone
        assert page.evaluate(FOCUSED) == "Dürfen wir Ihren Besuch messen?"
        walked = []
        for _ in range(3):
            page.keyboard.press("Tab")
            walked.append(page.evaluate(FOCUSED))
        assert walked == ["Ablehnen", "Dieser Besuch", "Erlauben"]
        page.keyboard.press("Enter")
        assert dialog.is_hidden()
        assert [cookie["name"] for cookie in page.context.cookies()] == ["lotse"]

        # not asked again on the next page, and withdrawn there as easily
        visitor.open("/next")
        assert dialog.is_hidden()
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUSED) == "Datenschutz-Einstellungen"
        page.keyboard.press("Enter")
        assert dialog.is_visible()
        pressed = dialog.get_by_role("button", pressed=True)
        assert pressed.all_text_contents() == ["Erlauben"]
        page.keyboard.press("Escape")
        assert dialog.is_hidden()
        assert page.evaluate(FOCUSED) == "Datenschutz-Einstellungen"
        assert visitor.do("lotse.level") == "full"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert visitor.do("lotse.level") == "none"
        stored = visitor.stored()
        assert (stored["session"], stored["cookies"]) == ({}, [])
        assert list(stored["local"]) == ["lotse-consent"]
        assert stored["local"]["lotse-consent"].startswith("none ")
        visitor.open("/last")
        assert dialog.is_hidden()
        assert visitor.sent()[-1]["consent"] == []


def test_the_banner_in_english_in_the_dark_on_a_small_screen(
    collector: Service, browser: Browser, key: str, tmp_path: Path
) -> None:
    small = {"width": 320, "height": 568}
    link = '<button data-lotse-consent id="own">Privacy</button>'
    script = '<script src="/banner.js" data-lang="en"></script>'
    with visit(browser, tag(key) + script, body=link, color_scheme="dark", viewport=small) as visitor:
        visitor.open()
        page = visitor.page
        dialog = page.get_by_role("dialog", name="May we measure your visit?")
        assert dialog.is_visible()
        page.screenshot(path=tmp_path / "dark.png")
        box = dialog.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= small["width"]
        assert box["y"] >= 0
        dialog.get_by_role("button", name="This visit").click()
        assert visitor.do("lotse.level") == "functional"
        # a shop's own link opens it again, and has the focus back afterwards
        assert page.get_by_role("button", name="Privacy settings").is_hidden()
        page.locator("#own").click()
        assert dialog.is_visible()
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "own"


def test_the_banner_keeps_to_a_strict_policy_and_to_an_objection(
    collector: Service, browser: Browser, key: str
) -> None:
    policy = f"""<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src {SHOP}; \
connect-src {COLLECTOR}; style-src 'none'; require-trusted-types-for 'script'">"""
    init = "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', { get: () => true })"
    with visit(browser, tag(key) + BANNER, head=policy, init=init) as visitor:
        visitor.open()
        dialog = visitor.page.get_by_role("dialog")
        assert dialog.get_by_role("button").all_text_contents() == ["Ablehnen", "Dieser Besuch"]
        assert "Daran halten wir uns" in dialog.inner_text()
        assert dialog.evaluate("(element) => getComputedStyle(element).position") == "fixed"


CMP = """<script>
const listeners = [], consents = {}
const data = (eventStatus) => ({ eventStatus, gdprApplies: true, purpose: { consents: { ...consents } } })
window.__tcfapi = (command, version, told) => {
    if (command === 'addEventListener' && version === 2) { listeners.push(told); told(data('cmpuishown'), true) }
}
window.choose = (...purposes) => {
    for (const key in consents) delete consents[key]
    for (const purpose of purposes) consents[purpose] = true
    listeners.forEach((told) => told(data('useractioncomplete'), true))
}
</script>"""


def test_tcf_is_listened_to(collector: Service, browser: Browser, key: str) -> None:
    with visit(browser, tag(key) + BANNER, head=CMP) as visitor:
        visitor.open()
        assert visitor.page.get_by_role("dialog").count() == 0
        assert visitor.do("lotse.level") == "none"
        visitor.do("choose(1, 7, 8)")
        visitor.do("lotse.addToCart()")
        visitor.settle()
        assert visitor.sent()[-1]["consent"] == ["measure", "link"]
        assert visitor.do("lotse.level") == "full"
        with visitor.page.expect_request(f"{COLLECTOR}/v1/visitors/me**"):
            visitor.do("choose(7)")  # measured, nothing on the device
        visitor.do("lotse.addToCart()")
        visitor.settle()
        assert visitor.sent()[-1]["consent"] == ["measure"]
        assert visitor.stored() == {"local": {}, "session": {}, "cookies": []}


GTAG = """<script>
window.dataLayer = []
function gtag() { dataLayer.push(arguments) }
gtag('consent', 'default', { analytics_storage: 'denied', personalization_storage: 'denied' })
</script>"""


def test_googles_consent_mode_is_listened_to(collector: Service, browser: Browser, key: str) -> None:
    with visit(browser, tag(key) + BANNER, head=GTAG) as visitor:
        visitor.open()
        assert visitor.page.get_by_role("dialog").count() == 0
        assert visitor.do("lotse.level") == "none"
        visitor.do("gtag('consent', 'update', { analytics_storage: 'granted' })")
        assert visitor.do("lotse.level") == "full"
        # the next page begins with the default again, which takes nothing back
        visitor.open("/next")
        assert visitor.do("lotse.level") == "full"
        assert visitor.sent()[-1]["consent"] == ["measure", "link"]
        visitor.do("gtag('consent', 'update', { personalization_storage: 'granted', analytics_storage: 'granted' })")
        assert visitor.page.context.cookies()[0]["value"].endswith(".measure.link.personalise")
        visitor.do("gtag('consent', 'update', { analytics_storage: 'denied' })")
        assert visitor.do("lotse.level") == "none"
        assert visitor.page.context.cookies() == []
        assert visitor.do("dataLayer.length") == 3  # nobody else misses what was pushed

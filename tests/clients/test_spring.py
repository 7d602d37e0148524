"""The starter for Spring Boot in a real shop, with a service that runs, and with one that is killed or hangs."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from features import channels
from features.agents import device_of
from features.channels import entry_of
from features.events import CHANNELS, DEVICES
from tests.browser.clients import records
from tests.clients.crowd import Crowd, visitor_of
from tests.clients.spring_build import CLIENT, CONSENTED, Shop, command, maven, page
from tests.features import test_agents, test_channels
from tests.workspace import ROOT, Service, lotse, packed, wait_until

FLAGS: dict[str, Any] = {
    "features": {
        "banner": {"defaultValue": False, "rules": [{"condition": {"cart_adds": {"$gte": 1}}, "force": True}]},
        "help": {"defaultValue": "none", "rules": [{"condition": {"events": {"$gte": 1}}, "force": "chat"}]},
        "price": {"defaultValue": 1.5, "rules": [{"condition": {"country": "DE"}, "force": 2.5}]},
    },
    "attributes": ["country"],
}
# 128 random bits in hexadecimal digits, and what they may be used for
COOKIE = re.compile(
    r"lotse=[0-9a-f]{32}\.measure\.link(\.personalise)?; "
    r"Path=/; Max-Age=33696000; Expires=[^;]+; HttpOnly; SameSite=Lax"
)


@pytest.fixture(scope="module")
def collector(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the module's own, with trained models, flags and a secret key."""
    folder = tmp_path_factory.mktemp("spring")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "flags.json").write_text(json.dumps(FLAGS))
    done = lotse(folder, "keys", "create", "--kind", "secret", "--name", "shop")
    assert done.returncode == 0, done.stderr
    (folder / "key").write_text(done.stdout.strip())
    running = Service(folder, *packed(trained), "experiments.file=flags.json", "keys.required=true").start()
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="module")
def key(collector: Service) -> str:
    """Its secret key."""
    return (collector.folder / "key").read_text()


@pytest.fixture(scope="module")
def shop(collector: Service, key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop that has all the time it needs, for tests of what it sends."""
    with Shop(tmp_path_factory.mktemp("shop"), collector.url, key, timeout_ms=5_000) as running:
        yield running


def held(service: Service, key: str, visitor: str) -> dict[str, Any]:
    """What is held of a visitor's running session; nothing of a visitor who is not there."""
    bearer = {"authorization": f"Bearer {key}"}
    asked = service.http.post("/v1/visitors/export", json={"visitor": visitor}, headers=bearer)
    found: list[dict[str, Any]] = asked.json()["records"]
    return {**found[0]["session"], "events": found[0]["events"]} if found else {}


def opens(browser: httpx.Client) -> bool:
    """Whether a page has its answer in time."""
    return bool(page(browser)["reason"] == "ok")


def late_ms(shop: Shop) -> float:
    """How late its timers were at worst."""
    return float(httpx.get(f"{shop.url}/lateness").text)


def test_its_own_tests(collector: Service, key: str) -> None:
    maven("verify", LOTSE_TEST_URL=collector.url, LOTSE_TEST_KEY=key)
    reports = [ET.parse(file).getroot() for file in (CLIENT / "target" / "surefire-reports").glob("*.xml")]
    assert sum(int(report.attrib["tests"]) for report in reports) > 30
    assert sum(int(report.attrib["skipped"]) for report in reports) == 0
    assert (CLIENT / "target" / "lotse-spring-boot-starter-0.1.0.jar").exists()


def test_a_visit(collector: Service, key: str, shop: Shop) -> None:
    with shop.browser(CONSENTED) as browser:
        landing = "/?utm_source=crm&utm_medium=email&utm_campaign=may&email=jane@example.org"
        first = page(browser, landing, referer="https://mail.example/inbox/jane")
        assert first["reason"] == "ok" and set(first["scores"]) == {"bounce", "conversion", "exit"}
        assert first["flags"]["help"] == {"value": "chat", "variant": "", "reason": "TARGETING_MATCH"}
        page(browser, "/p/SKU-1", referer=f"{shop.url}/")
        assert browser.post("/cart/SKU-1").json()["reason"] == "no_event"
        visitor = visitor_of(browser)
        wait_until(lambda: held(collector, key, visitor).get("cart_adds") == 1)
        assert page(browser)["banner"] is True
        assert browser.get("/imprint").status_code == 200
        browser.post("/orders")
        wait_until(lambda: held(collector, key, visitor).get("purchases") == 1)
    (session,) = records(collector, purchases=1)
    expected = {
        "page_views": 3, "item_views": 1, "cart_adds": 1, "cart_units": 0, "purchases": 1, "revenue": 159.8,
        "entry_channel": CHANNELS.index("email"), "from_campaign": 1, "device_kind": DEVICES.index("desktop"),
        "events": 6,
    }  # fmt: skip
    assert {name: pytest.approx(session[name]) for name in expected} == expected


def test_without_consent_nothing_is_kept_and_each_page_is_a_visitor(collector: Service, shop: Shop) -> None:
    before = len(records(collector, page_views=1, cart_adds=0))
    with shop.browser() as browser:
        sessions = {page(browser)["session"] for _ in range(3)}
        assert len(sessions) == 3
        assert dict(browser.cookies) == {}
    assert len(records(collector, page_views=1, cart_adds=0)) == before + 3


def test_who_has_a_cart_is_one_visitor_as_long_as_the_shop_keeps_it(collector: Service, shop: Shop) -> None:
    before = len(records(collector, page_views=2, cart_adds=1))
    with shop.browser() as browser:
        browser.post("/cart/SKU-1")
        page(browser)
        page(browser)
        assert set(browser.cookies) == {"JSESSIONID"}
    wait_until(lambda: len(records(collector, page_views=2, cart_adds=1)) == before + 1)


def test_the_cookie_and_its_withdrawal(collector: Service, key: str, shop: Shop) -> None:
    with shop.browser("measure-link") as browser:
        set_cookie = browser.get("/").headers["set-cookie"]
        assert COOKIE.fullmatch(set_cookie), set_cookie
        visitor = visitor_of(browser)
        # a visit does not prolong what was consented to; another consent is written
        assert "set-cookie" not in browser.get("/").headers
        browser.cookies.set("consent", CONSENTED)
        assert visitor_of(browser) == visitor
        assert COOKIE.fullmatch(browser.get("/").headers["set-cookie"])
        assert held(collector, key, visitor)["page_views"] == 3

        # withdrawn while the shop answers something that is no page
        browser.cookies.set("consent", "measure")
        answer = browser.post("/orders")
        assert "Max-Age=0" in answer.headers["set-cookie"] and "lotse" not in browser.cookies
        wait_until(lambda: held(collector, key, visitor) == {})
        assert page(browser)["reason"] == "ok"
        assert "lotse" not in browser.cookies
    # behind TLS the cookie is for TLS only
    with shop.browser("measure-link", **{"x-forwarded-proto": "https"}) as browser:
        assert browser.get("/").headers["set-cookie"].startswith("lotse=")
        assert "; Secure" in browser.get("/", headers={"cookie": "consent=measure-link"}).headers["set-cookie"]


@pytest.mark.parametrize("header", ["Sec-GPC", "DNT"])
def test_a_browser_that_objects_is_not_linked(collector: Service, key: str, shop: Shop, header: str) -> None:
    with shop.browser(CONSENTED) as browser:
        page(browser)
        visitor = visitor_of(browser)
        assert page(browser, **{header: "1"})["reason"] == "ok"
        assert "lotse" not in browser.cookies
        wait_until(lambda: held(collector, key, visitor) == {})


def test_where_nothing_may_be_sent_nothing_is(collector: Service, key: str, shop: Shop) -> None:
    with shop.browser("measure-link") as browser:
        page(browser)
        visitor = visitor_of(browser)
        before = len(records(collector))
        browser.cookies.set("consent", "never")
        told = page(browser)
        assert (told["reason"], told["scores"], told["session"]) == ("no_consent", {}, "")
        browser.post("/orders")
        assert "lotse" not in browser.cookies
        wait_until(lambda: held(collector, key, visitor) == {})
        assert len(records(collector)) == before - 1


def test_what_nobody_opens_is_no_event(collector: Service, shop: Shop) -> None:
    with shop.browser() as browser:
        before = len(records(collector))
        robot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
        assert page(browser, **{"user-agent": robot})["reason"] == "skipped"
        assert page(browser, **{"sec-purpose": "prefetch;prerender"})["reason"] == "skipped"
        assert page(browser, **{"sec-fetch-dest": "empty", "accept": "*/*"})["reason"] == "no_event"
        assert page(browser, "/frame")["reason"] == "no_event"
        assert browser.get("/nowhere").status_code == 404
        assert browser.get("/actuator/health").status_code == 200
        assert len(records(collector)) == before
        # a file is a page if it is one
        assert browser.get("/about.html").status_code == 200
        wait_until(lambda: len(records(collector)) == before + 1)
        # the shop's own error stays the shop's own; somebody has opened the page all the same
        assert browser.get("/broken").status_code == 500
        wait_until(lambda: len(records(collector)) == before + 2)


def test_flags_by_openfeature(collector: Service, key: str, shop: Shop) -> None:
    with shop.browser(CONSENTED) as browser:
        expected = {"banner": False, "help": "chat", "price": 1.5, "price_in_germany": 2.5, "unknown": "FLAG_NOT_FOUND"}
        told = page(browser, "/flags")
        assert {name: told[name] for name in expected} == expected, told["problem"]
        asked = flags_asked(collector, key)
        browser.post("/cart/SKU-1")
        wait_until(lambda: page(browser)["banner"] is True)
        told = page(browser, "/flags")
        assert {name: told[name] for name in expected} == {**expected, "banner": True}
        # no page, so its flags are asked for by the visitor, for which it takes a secret key
        assert browser.post("/cart/SKU-2").json()["banner"] is True
    # of the page two, those with a context of the shop's own: the others came with it; and one of each that is no page
    assert flags_asked(collector, key) - asked == 4


def flags_asked(service: Service, key: str) -> int:
    """Requests over OFREP so far."""
    told = service.http.get("/metrics", headers={"authorization": f"Bearer {key}"}).text
    counts = re.findall(r"^lotse_requests_total{.*ofrep.*} (\S+)$", told, re.MULTILINE)
    return sum(int(float(count)) for count in counts)


def test_an_event_that_is_refused_does_not_keep_others_out(collector: Service, key: str, shop: Shop) -> None:
    refused, delivered = shop.metric("events", outcome="refused"), shop.metric("events", outcome="delivered")
    with shop.browser(CONSENTED) as browser:
        page(browser)
        browser.post("/events", params={"name": "purchase", "value": -5})
        wait_until(lambda: held(collector, key, visitor_of(browser)).get("searches") == 1)
        assert held(collector, key, visitor_of(browser))["purchases"] == 0
    assert shop.metric("events", outcome="refused") == refused + 1
    assert shop.metric("events", outcome="delivered") == delivered + 2
    assert "value" in shop.log.read_text()


def test_the_key_and_visitors_are_nowhere(shop: Shop, key: str) -> None:
    with shop.browser(CONSENTED) as browser:
        paths = ("/", "/flags", "/actuator/configprops", "/actuator/metrics", "/broken")
        answers = [browser.get(path) for path in paths]
        told = "".join(answer.text + str(answer.headers) for answer in answers) + shop.log.read_text()
        assert key not in told
        assert visitor_of(browser) not in shop.log.read_text()
        assert page(browser)["session"] not in shop.log.read_text()


def test_what_it_decides_by_itself_it_decides_as_the_service_does() -> None:
    (marked,) = test_agents.test_a_string_names_a_kind_of_device.pytestmark
    agents = [agent for _, agent in marked.args[1]]
    (marked,) = test_channels.test_an_entry_is_told_from_tags_then_click_ids_then_the_referrer.pytestmark
    visits = [(url, referrer) for url, referrer, _ in marked.args[1] if url.startswith("https://") and referrer != "-"]
    address = "https://www.shop.example/"
    sites = [*channels._SITES, "www.google.co.uk", "mail.google.com", "pay.shop.example", "a.b"]
    visits += [(address, f"https://{site}/path?q=1") for site in sites]
    drawn = random.Random(5)
    for source in ("", "google", "fb", "crm", "partner", "sms", "Newsletter", "(direct)"):
        for medium in ("", "cpc", "email", "social", "affiliate", "referral", "banner", "x"):
            prefix = drawn.choice(["utm", "mtm", "pk"])
            query = f"q=shoes&{prefix}_source={source}&{prefix}_medium={medium}&{prefix}_campaign=may"
            visits.append(
                (f"{address}?{query}", drawn.choice(["", "https://www.google.com/", "https://news.example/a"]))
            )
    visits.append(
        (f"{address};jsessionid=SECRET?email=jane@example.org&gclid=SECRET", "https://jane:pass@mail.example/jane")
    )
    cases = {"agents": agents, "visits": [[*url.partition("?")[::2], referrer] for url, referrer in visits]}
    rules = command("org.lotse.spring.Rules")
    done = subprocess.run(rules, input=json.dumps(cases), capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    differing = [
        (agent, device, device_of(agent))
        for agent, device in zip(agents, found["devices"], strict=True)
        if device != device_of(agent)
    ]
    assert differing == []
    for (url, referrer), sent in zip(visits[:-1], found["sent"], strict=False):
        assert entry_of(*sent) == entry_of(url, referrer), (url, referrer, sent)
    assert found["sent"][-1] == [f"{address}?gclid=S", "https://mail.example"]


def test_every_setting_is_in_its_readme() -> None:
    readme = (CLIENT / "README.md").read_text()
    command("org.lotse.shop.Shop")  # has it compiled, and so described
    described = json.loads((CLIENT / "target/classes/META-INF/spring-configuration-metadata.json").read_text())
    assert len(described["properties"]) > 10
    for setting in described["properties"]:
        assert f"| `{setting['name']}` |" in readme, setting["name"]


def test_wrong_settings_keep_it_from_starting(tmp_path: Path) -> None:
    stopped = Shop(tmp_path, "http://127.0.0.1:9", "lotse_pub_0123456789ab_secret")
    assert stopped.process.wait(timeout=60) != 0
    assert "lotse.key: expected a secret key" in stopped.log.read_text()
    assert "lotse_pub_0123456789ab_secret" not in stopped.log.read_text()


def test_the_end_of_the_shop_sends_what_waits(collector: Service, key: str, tmp_path: Path) -> None:
    slow = {"queue__retry_ms": 60_000, "timeout_ms": 1_000, "circuit__failures": 1}
    with Shop(tmp_path, collector.url, key, **slow) as running:
        with running.browser(CONSENTED) as browser:
            page(browser)
            collector.kill()
            for _ in range(7):
                assert page(browser)["reason"] == "unavailable"
            assert running.metric("queue") == 7
            health = browser.get("/actuator/health")
            assert health.status_code == 200 and health.json()["components"]["lotse"]["status"] == "UNKNOWN"
            collector.start()
        running.end()
        assert held(collector, key, visitor_of(browser))["page_views"] == 8


def assert_no_page_waited_longer_than_it_may(pages: list[dict[str, Any]], timeout_ms: float, late_ms: float) -> None:
    """late_ms: how late the shop's timers are at worst, because the machine runs other tests, too; the page's thread,
    the client's, and the page's again have to get a processor each.
    """
    waited = sorted(told["waited_ms"] for told in pages)
    assert waited[len(waited) * 98 // 100] <= timeout_ms + 15, waited[-len(waited) // 50 :]
    assert waited[-1] <= timeout_ms + 3 * late_ms + 25, (waited[-5:], late_ms)


def test_the_service_is_killed_under_load_and_comes_back(collector: Service, key: str, tmp_path: Path) -> None:
    with Shop(tmp_path, collector.url, key) as running:
        crowd = Crowd([running.browser(CONSENTED) for _ in range(6)], partial(page, path="/p/7"))
        with crowd.browsing():
            wait_until(lambda: crowd.reasons["ok"] > 100 or bool(crowd.failed))
            collector.kill()
            wait_until(lambda: crowd.reasons["unavailable"] > 100)
            collector.start()
            before = crowd.reasons["ok"]
            wait_until(lambda: crowd.reasons["ok"] > before + 50)
        assert not crowd.failed
        assert_no_page_waited_longer_than_it_may(crowd.pages, 30, late_ms(running))
        wait_until(lambda: running.metric("events", outcome="delivered") == crowd.loaded.total())
        # each page once: those before, those in whose middle the service was killed, and those that nobody took
        assert len(crowd.loaded) == 6
        for visitor, pages in crowd.loaded.items():
            assert held(collector, key, visitor)["item_views"] == pages
        assert running.metric("events", outcome="dropped") == running.metric("events", outcome="refused") == 0


def test_a_service_that_hangs_costs_few_pages_their_time_and_others_nothing(
    collector: Service, key: str, tmp_path: Path
) -> None:
    with Shop(tmp_path, collector.url, key) as running, ExitStack() as open_:
        mine, *others = [open_.enter_context(running.browser(CONSENTED)) for _ in range(5)]
        for browser in (mine, *others):
            wait_until(partial(opens, browser))
        wait_until(lambda: running.metric("queue") == 0)
        with collector.standing_still():
            # a visitor one of whose events may have arrived does not ask again; after five nobody does
            pages = [page(browser) for browser in [mine] * 4 + others + [mine] * 4]
        expected = ["timeout"] + ["unavailable"] * 3 + ["timeout"] * 4 + ["unavailable"] * 4
        assert [told["reason"] for told in pages] == expected
        late = late_ms(running)
        for told in pages:
            assert told["waited_ms"] <= (30 + 3 * late + 25 if told["reason"] == "timeout" else late + 10)
        assert all(told["banner"] is False and told["scores"] == {} for told in pages)
        wait_until(partial(opens, mine))
        opened = sum(running.metric("pages", reason=reason) for reason in ("ok", "timeout", "unavailable"))
        wait_until(lambda: running.metric("events", outcome="delivered") == opened)
        # none came twice, whatever was sent again
        visitors = [visitor_of(browser) for browser in (mine, *others)]
        assert sum(held(collector, key, visitor)["page_views"] for visitor in visitors) == opened


def test_a_shop_whose_service_is_under_no_name_or_is_not_set(tmp_path: Path) -> None:
    # names inside of clusters are none of the internet's
    with Shop(tmp_path, "http://lotse.shop.svc.cluster.local:3000") as running, running.browser() as browser:
        told = page(browser, "/flags")
        assert told["reason"] in ("timeout", "unavailable")
        assert (told["help"], told["price_in_germany"]) == ("nothing", 0.5)
    with Shop(tmp_path, "") as running, running.browser(CONSENTED) as browser:
        told = page(browser, "/flags")
        assert (told["reason"], told["help"]) == ("off", "nothing")
        assert dict(browser.cookies) == {"consent": CONSENTED}
        assert "lotse.url is not set" in running.log.read_text()

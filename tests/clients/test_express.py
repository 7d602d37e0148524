"""The Express middleware in real apps: what it does with a running service, and with one that is killed or hangs."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import Any

import httpx

from tests.browser.client_build import run
from tests.clients.crowd import Crowd, visitor_of
from tests.clients.express_build import built, shop
from tests.workspace import Service, wait_until

TIMEOUT_MS = 30
# Beyond its time a page waits as long as the process's timers are late, and for this.
SLACK_MS = 15
FULL = {"x-consent": "measure,link"}


def held(service: Service, key: str, visitor: str) -> dict[str, Any]:
    """The live record of a visitor, with the counters of the session that runs."""
    asked = service.http.post(
        "/v1/visitors/export", json={"visitor": visitor}, headers={"authorization": f"Bearer {key}"}
    )
    (record,) = asked.json()["records"]
    return {**record, **record["session"]}


def load(browser: httpx.Client, path: str = "/") -> dict[str, Any]:
    """Open a page of the shop; what it knows of its session."""
    page = browser.get(path, headers=FULL)
    assert page.status_code == 200, page.text
    told: dict[str, Any] = page.json()
    return told


def assert_no_page_waited_longer_than_it_may(report: dict[str, Any]) -> None:
    assert report["longest"] <= TIMEOUT_MS + report["late"] + SLACK_MS, report


def test_in_apps_of_both_versions(keyed: Service, secret: str) -> None:
    """clients/express/tests/pages.test.mjs, by Node's own runner, and the types by the compiler."""
    run("env", f"LOTSE_URL={keyed.url}", f"LOTSE_KEY={secret}", "npm", "run", "--silent", "test", folder=built())


def test_the_service_is_killed_under_load_and_comes_back(keyed: Service, secret: str) -> None:
    with shop(keyed.url, secret, timeoutMs=TIMEOUT_MS) as running:
        crowd = Crowd([running.browser() for _ in range(8)], partial(load, path="/product/7"))
        with crowd.browsing():
            wait_until(lambda: crowd.reasons["ok"] > 100)
            keyed.kill()
            wait_until(lambda: crowd.reasons["unavailable"] > 100)
            keyed.start()
            before = crowd.reasons["ok"]
            wait_until(lambda: crowd.reasons["ok"] > before + 50)
        assert not crowd.failed
        report = running.report()
        assert report["pages"] == crowd.loaded.total()
        assert_no_page_waited_longer_than_it_may(report)
        wait_until(lambda: running.report()["waiting"] == 0)
        assert running.report()["dropped"] == running.report()["refused"] == 0
        # each page once: those before, those in whose middle the service was killed, and those that nobody took
        assert len(crowd.loaded) == 8
        for visitor, pages in crowd.loaded.items():
            assert held(keyed, secret, visitor)["page_views"] == pages


def test_a_service_that_hangs_costs_a_few_pages_their_time_and_others_nothing(keyed: Service, secret: str) -> None:
    how = {"timeoutMs": TIMEOUT_MS, "failures": 3, "circuitMs": 1500}
    with shop(keyed.url, secret, **how) as running, ExitStack() as open_:
        mine, *others = [open_.enter_context(running.browser()) for _ in range(3)]
        pages: Counter[str] = Counter()
        latest: dict[str, Any] = {}

        def opened(browser: httpx.Client) -> dict[str, Any]:
            told = load(browser)
            pages[visitor_of(browser)] += 1
            latest.update(told)
            return told

        def opens(browser: httpx.Client) -> bool:
            return bool(opened(browser)["reason"] == "ok")

        # a process' first pages may take longer than it waits
        for browser in (mine, *others):
            wait_until(partial(opens, browser))
        assert latest["scores"].keys() == {"bounce", "conversion", "exit"} and latest["session"]
        wait_until(lambda: running.report()["waiting"] == 0)
        with keyed.standing_still():
            # a visitor one of whose events may have arrived does not ask again; after three nobody does
            asked = [opened(browser) for browser in [mine] * 4 + others + [mine] * 4]
        expected = ["timeout"] + ["unavailable"] * 3 + ["timeout"] * 2 + ["unavailable"] * 4
        assert [page["reason"] for page in asked] == expected
        assert all(page["scores"] == {} and page["offer"] == "mine" and page["session"] == "" for page in asked)
        report = running.report()
        assert_no_page_waited_longer_than_it_may(report)
        assert report["median"] < TIMEOUT_MS / 2
        wait_until(partial(opens, mine))
        wait_until(lambda: running.report()["waiting"] == 0)
        assert {visitor: held(keyed, secret, visitor)["page_views"] for visitor in pages} == pages


def test_sigterm_sends_what_waits_and_then_ends_the_process(keyed: Service, secret: str) -> None:
    with shop(keyed.url, secret) as running, running.browser() as browser:
        browser.get("/", headers=FULL)
        visitor = browser.cookies["lotse"].split(".")[0]
        assert browser.get("/track", headers=FULL).status_code == 200
        running.process.terminate()
        assert running.process.wait(timeout=20) == -signal.SIGTERM
        record = held(keyed, secret, visitor)
        assert (record["page_views"], record["events"]) == (2, 7)


def test_a_key_that_is_not_the_services_costs_the_scores_and_no_page(keyed: Service) -> None:
    with shop(keyed.url, "lotse_sec_of_another", queueLimit=20, timeoutMs=5000) as running:
        pages = [running.http.get("/").json() for _ in range(30)]
        assert {page["reason"] for page in pages} == {"refused"}
        wait_until(lambda: running.report()["dropped"] >= 10)
        report = running.report()
        assert report["waiting"] == 20 and report["requests"] == {"refused": 30}
        running.process.terminate()
        _, said = running.process.communicate(timeout=20)
        assert "lotse: no scores: the key is none of this service's" in said
        assert "20 events are lost" in said
        assert "lotse_sec_of" not in said


def test_pages_without_any_service_come_at_once() -> None:
    with shop("http://127.0.0.1:9", "lotse_sec_", queueLimit=5) as running:
        pages = [running.http.get("/").json() for _ in range(20)]
        assert {page["reason"] for page in pages} == {"unavailable"}
        report = running.report()
        assert_no_page_waited_longer_than_it_may(report)
        assert report["waiting"] == 5 and report["dropped"] == 15

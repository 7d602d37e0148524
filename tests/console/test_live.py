"""The live view: what the process beside the worker sees is what the worker answers, and the page shows just that."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from serving.console.live import LIVE
from serving.keys import KeyFile
from tests.console.conftest import RUNNING, serve
from tests.console.pages import NARROW, WIDE, Opened, post
from tests.redis_server import RedisServer, redis_server
from tests.workspace import Service, wait_until

HEADS = ("bounce", "conversion", "exit")


@contextmanager
def listening(service: Service, **query: str) -> Iterator[Iterator[tuple[str, Any]]]:
    """What a console is told, one after the other: (kind, data)."""
    with service.client() as client, client.stream("GET", LIVE, params=query, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()

        def events() -> Iterator[tuple[str, Any]]:
            kind = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    yield kind, json.loads(line[6:])

        yield events()


def first(told: Iterator[tuple[str, Any]], kind: str, wanted: Callable[[Any], bool] = lambda data: True) -> Any:
    """The next of a kind that is as wanted."""
    for found, data in told:
        if found == kind and data is not None and wanted(data):
            return data
    raise AssertionError(f"the stream ended without {kind}")


def running(page: Page) -> Page:
    """Once numbers are there."""
    page.wait_for_selector('.state[data-state="running"]', timeout=60_000)
    page.wait_for_selector(".view-live[data-at]:not([data-at=''])", timeout=60_000)
    return page


def paused(page: Page) -> Page:
    """With numbers that stand still."""
    running(page)
    page.wait_for_selector(".sessions tbody tr")
    page.get_by_role("button", name=re.compile("Pause|Anhalten")).click()
    return page


# ---- numbers ----


def test_the_page_shows_what_the_api_tells(console_service: Service, page_at: Callable[..., Opened]) -> None:
    opened = page_at(WIDE, "dark", "en")
    page = opened.show("live")
    running(page)
    with listening(console_service) as told:
        heard: dict[int, dict[str, Any]] = {}
        rows: dict[str, Any] = {}
        for _ in range(3):
            heard |= {data["at_ms"]: data for data in [first(told, "totals")]}
        page.get_by_role("button", name="Pause").click()
        at = int(page.locator(".view-live").get_attribute("data-at") or 0)
        while at not in heard:
            found = first(told, "totals")
            assert found["at_ms"] <= at
            heard[found["at_ms"]] = found
        rows = first(told, "rows")
    totals = heard[at]
    assert totals["live"] >= RUNNING and sum(totals["age"]["counts"]) == sum(totals["idle"]["counts"]) == totals["live"]
    assert opened.value('[data-tile="live"]') == totals["live"]
    idle = dict(zip([*totals["idle"]["edges_seconds"], None], totals["idle"]["counts"], strict=True))
    assert opened.value('[data-tile="here"]') == idle[5] + idle[10]
    assert opened.value('[data-tile="silent"]') == idle[300] + idle[None]
    for place, head in enumerate(HEADS):
        assert opened.value(f'[data-tile="mean_{head}"]') == totals["scores"][head]["mean"]
        histogram = page.locator(".histograms").first.locator(":scope > div").nth(place)
        counts = histogram.locator("td[data-value]").evaluate_all("all => all.map((one) => Number(one.dataset.value))")
        assert counts == totals["scores"][head]["counts"] and sum(counts) == totals["scores"][head]["scored"]
    assert rows["list"] == "recent"


def test_a_row_is_what_its_session_answers(console_service: Service, page_at: Callable[..., Opened]) -> None:
    now = time.time_ns() // 1_000_000
    names = ["view_item", "view_item", "add_to_cart", "begin_checkout"]
    events = [
        {"visitor": "row", "name": name, "item": "sku-1", "price": 20.0, "time": now - 5_000 + 1_000 * place}
        for place, name in enumerate(names)
    ]
    token = post(console_service, events)[-1]["session"]
    opened = page_at(WIDE, "light", "en")
    page = running(opened.show("live?list=conversion"))
    row = page.locator(".sessions tbody tr", has=page.locator('td[data-step="checkout"]')).first
    row.wait_for()
    page.get_by_role("button", name="Pause").click()
    answer = console_service.http.get(f"/v1/sessions/{token}").json()
    assert row.locator("td").nth(1).get_attribute("data-value") == str(answer["events"]) == "4"
    for head in HEADS:
        # seconds of silence have passed in between
        shown = float(row.locator(f'td[data-head="{head}"]').get_attribute("data-value") or "nan")
        assert shown == pytest.approx(answer["scores"][head], abs=0.08), head
    age, idle, left = (float(row.locator("td").nth(place).get_attribute("data-value") or "nan") for place in (0, 6, 7))
    assert age == pytest.approx(idle + 3, abs=0.2) and 1_790 < left + (idle - 2) < 1_801


def test_the_list_is_the_one_that_is_asked_for_and_sorts(
    console_service: Service, page_at: Callable[..., Opened]
) -> None:
    opened = page_at(WIDE, "dark", "en")
    page = running(opened.show("live"))
    page.wait_for_selector(".sessions tbody tr")
    page.get_by_label("Show").select_option("exit")
    assert page.evaluate("location.hash") == "#live?list=exit"
    opened.until("document.querySelectorAll('.sessions tbody tr').length === 100")
    page.get_by_role("button", name="Pause").click()
    scores = opened.values('.sessions td[data-head="exit"]')
    assert scores == sorted(scores, reverse=True) and len(scores) == 100
    with listening(console_service, list="exit") as told:
        rows = first(told, "rows", lambda data: len(data["rows"]) == 100)
    # ids are made up by the process, which both listen to
    assert len(set(rows["order"]) & set(page.locator(".session-id").all_inner_texts())) > 90
    page.get_by_role("button", name="Events").click()
    events = opened.values(".sessions tbody tr td:nth-child(3)")
    assert events == sorted(events, reverse=True) and events[0] > events[-1]
    page.get_by_role("button", name="Events").click()
    assert opened.values(".sessions tbody tr td:nth-child(3)") == sorted(events)
    assert page.get_by_role("columnheader", name="Events").get_attribute("aria-sort") == "ascending"


def test_numbers_move_stand_still_and_move_again(console_service: Service, page_at: Callable[..., Opened]) -> None:
    opened = page_at(WIDE, "dark", "en")
    page = running(opened.show("live?list=idle"))
    page.wait_for_selector(".sessions tbody tr")
    left = ".sessions tbody tr:first-child td:nth-last-child(3)"
    before = opened.text(left)
    opened.until(f"document.querySelector({left!r}).textContent !== {before!r}")
    at = "document.querySelector('.view-live').dataset.at"
    seen = page.evaluate(at)
    opened.until(f"{at} !== {seen!r}")
    # lines grow while the page looks
    opened.until("document.querySelector('.spark polyline').getAttribute('points').split(' ').length >= 3")
    page.get_by_role("button", name="Pause").click()
    assert opened.text("#announcer") == "Paused. The numbers stand still."
    stands, seen = opened.text(left), page.evaluate(at)
    page.wait_for_timeout(2_500)
    assert (opened.text(left), page.evaluate(at)) == (stands, seen)
    page.get_by_role("button", name="Go on").click()
    opened.until(f"{at} !== {seen!r}")
    assert opened.text("#announcer") == "The numbers move again."


def test_what_is_announced_does_not_chatter(console_service: Service, page_at: Callable[..., Opened]) -> None:
    page = running(page_at(WIDE, "dark", "en").show("live"))
    page.wait_for_selector(".sessions tbody tr")
    page.evaluate(
        "window.said = []; new MutationObserver(() => window.said.push(announcer.textContent))"
        ".observe(document.getElementById('announcer'), { childList: true, characterData: true, subtree: true })"
    )
    page.wait_for_timeout(3_500)
    assert page.evaluate("window.said") == []
    assert page.locator("[aria-live]").count() == 1


# ---- widths, languages ----


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize(("language", "theme"), [("en", "dark"), ("de", "light")])
def test_it_fits_every_screen(page_at: Callable[..., Opened], width: int, language: str, theme: str) -> None:
    opened = page_at(width, theme, language)
    page = opened.show("live")
    paused(page)
    opened.fits()
    for summary in page.locator("summary").all():
        summary.click()
    opened.fits()
    assert page.locator("h2").inner_text() == "Live"
    said = {"en": "Sessions that run", "de": "Laufende Sitzungen"}[language]
    assert page.get_by_role("heading", name=said).count() == 1


@pytest.mark.parametrize(("width", "language"), [(WIDE, "en"), (NARROW, "de")])
def test_a_service_that_has_met_nobody(
    empty_service: Service, page_at: Callable[..., Opened], width: int, language: str
) -> None:
    opened = page_at(width, "dark", language, empty_service)
    page = running(opened.show("live"))
    said = {"en": "No session runs", "de": "Es läuft keine Sitzung"}[language]
    page.get_by_text(said).wait_for()
    assert opened.value('[data-tile="live"]') == 0 and opened.value('[data-tile="workers"]') == 1
    # without models every head says its prior, and why
    prior = {"en": "the prior", "de": "der Vorgabewert"}[language]
    page.get_by_text(re.compile(prior)).first.wait_for()
    assert page.get_by_text(re.compile(prior)).count() == 3
    assert not page.locator(".sessions").is_visible()
    opened.fits()


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[Service]:
    """A service whose store is its worker's memory."""
    service = serve(tmp_path / "work", None, "store.url=memory:")
    yield service
    service.stop()


def test_sessions_in_a_workers_memory_cannot_be_looked_at(forgetful: Service, page_at: Callable[..., Opened]) -> None:
    opened = page_at(WIDE, "dark", "en", forgetful)
    page = opened.show("live")
    page.get_by_text("lie in its worker's own memory").wait_for()
    post(forgetful, [{"visitor": "v", "name": "page_view"}] * 3)
    opened.until("Number(document.querySelector('[data-tile=events]').dataset.value) > 0")
    opened.fits()


@pytest.fixture
def encrypted(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service whose store is encrypted, synced, and shared by two workers."""
    monkeypatch.setenv("LOTSE_STORE_KEY", "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    service = serve(tmp_path / "work", trained, 'store.durability="disk"', "server.workers=2")
    yield service
    service.stop()


def test_an_encrypted_store_is_read_and_all_workers_are_counted(encrypted: Service) -> None:
    post(encrypted, [{"visitor": f"v{number}", "name": "view_item"} for number in range(30)])
    with listening(encrypted, list="conversion") as told:
        assert first(told, "health", lambda data: data["workers"] == 2)  # each says once a second that it is there
        assert first(told, "totals", lambda data: data["live"] == 30)["scores"]["exit"]["scored"] == 30
        for number in range(20):
            post(encrypted, [{"visitor": f"w{number}", "name": "page_view"}, {"visitor": "one", "name": "search"}])
        assert first(told, "totals", lambda data: data["live"] == 51)
        assert first(told, "health", lambda data: data["events_per_second"] > 0)["p99_ms"] > 0


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[Service, RedisServer]]:
    """A service whose store is a Redis, and that."""
    with redis_server() as server:
        service = serve(tmp_path / "work", None, f"store.url={server.url}")
        yield service, server
        service.stop()


def test_a_store_that_is_away_is_told_and_looked_at_when_it_is_back(
    shared: tuple[Service, RedisServer], page_at: Callable[..., Opened]
) -> None:
    service, server = shared
    post(service, [{"visitor": f"v{number}", "name": "view_item"} for number in range(5)])
    opened = page_at(WIDE, "light", "en", service)
    page = running(opened.show("live"))
    opened.until("document.querySelector('[data-tile=live]').dataset.value === '5'")
    server.pause()
    page.get_by_text("The store does not answer").wait_for(timeout=60_000)
    assert opened.text('[data-tile="store"]') == "redis: away" and not page.locator(".sessions").is_visible()
    server.resume()
    opened.until("document.querySelector('[data-tile=live]').dataset.value === '5'", 60)
    assert page.get_by_text("The store does not answer").count() == 0
    page.wait_for_selector(".sessions tbody tr")


# ---- the process, and who hears it ----


def observers(service: Service) -> list[int]:
    """Processes that look for consoles."""
    found = []
    for pid in service.processes():
        try:
            if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(b"serving.console"):
                found.append(pid)
        except OSError:
            pass
    return found


def test_all_consoles_of_a_worker_share_one_process_that_gives_way(console_service: Service) -> None:
    with listening(console_service) as one, listening(console_service, list="exit") as other:
        assert first(one, "rows")["list"] == "recent" and first(other, "rows")["list"] == "exit"
        (pid,) = observers(console_service)
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        assert first(one, "health")["workers"] == 1


def test_a_process_that_is_killed_comes_back(console_service: Service, page_at: Callable[..., Opened]) -> None:
    opened = page_at(WIDE, "dark", "en")
    page = running(opened.show("live"))
    (pid,) = observers(console_service)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: bool(observers(console_service)) and observers(console_service) != [pid])
    at = page.evaluate("document.querySelector('.view-live').dataset.at")
    opened.until(f"document.querySelector('.view-live').dataset.at !== {at!r}", 60)


def test_nothing_of_a_visitor_is_told(console_service: Service) -> None:
    answers = post(console_service, [{"visitor": "jane@shop.example", "name": "view_item", "page": "/a?b=secret"}])
    token = answers[0]["session"]
    with listening(console_service) as told:
        heard = json.dumps([first(told, "rows"), first(told, "totals"), first(told, "health")])
    assert "jane" not in heard and "secret" not in heard and token not in heard and token[:12] not in heard
    rows = json.loads(heard)[0]["rows"]
    assert all(set(row) <= {
        "id", "age_seconds", "idle_seconds", "left_seconds", "events", "step", "scores", "decided", "flags", "arms"
    } for row in rows)  # fmt: skip
    assert all(re.fullmatch("[0-9a-f]{10}", row["id"]) for row in rows)


def test_no_more_than_so_many_listen(tmp_path: Path) -> None:
    service = serve(tmp_path / "work", None, "console.listeners=1")
    try:
        with listening(service) as told:
            first(told, "health")
            refused = service.http.get(LIVE)
            assert refused.status_code == 503 and refused.headers["retry-after"] == "10"
        wait_until(lambda: _listens(service))
    finally:
        service.stop()


def _listens(service: Service) -> bool:
    with service.http.stream("GET", LIVE) as answer:
        return answer.status_code == 200


def test_a_revoked_key_ends_its_stream_and_a_stop_ends_all(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "work" / "lotse-data")
    (kept, secret), (revoked, other) = keys.create("secret", "kept"), keys.create("secret", "revoked")
    service = serve(tmp_path / "work", None, "stream.heartbeat_seconds=1")
    assert service.http.get(LIVE).status_code == 401
    with service.client() as client:
        with client.stream("GET", LIVE, headers={"authorization": f"Bearer {other}"}) as ends:
            lines = ends.iter_lines()
            assert next(lines).startswith("retry")
            keys.revoke(revoked.id)
            assert not [line for line in lines if line.startswith("event: trouble")]  # and it ends
        with client.stream("GET", LIVE, headers={"authorization": f"Bearer {secret}"}) as goes_on:
            lines = goes_on.iter_lines()
            assert next(lines).startswith("retry")
            pids = service.processes()
            begin = time.monotonic()
            service.stop()
            assert time.monotonic() - begin < 10
    wait_until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])
    assert kept.id not in service.log.read_text() and secret not in service.log.read_text()

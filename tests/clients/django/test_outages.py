"""A service that is killed, hangs, trickles or is not there: the shop's pages do not wait, and no event is lost."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from contextlib import suppress

import httpx

from tests.browser.test_browser_client import proxy
from tests.clients.django.conftest import Start
from tests.clients.django.running import (
    TIMEOUT_MS,
    Crowd,
    DjangoShop,
    Page,
    Server,
    agree,
    features,
    held,
    opened,
    page_of,
    summary,
)
from tests.server_process import HOST, free_ports
from tests.workspace import Service, wait_until

# The page itself, and what two threads take to hand over.
SLACK_MS = 20
# Eight visitors' pages are made at the same time; a socket's own wait would be seconds.
CROWDED_MS = 60
# The page's thread, the loop's, and the page's again have to get a processor each.
HAND_OVERS = 3


def assert_nobody_waited(pages: list[Page], slack_ms: int = SLACK_MS) -> None:
    """No page took longer than the deadline, but for what the machine did in between."""
    late = [page[1:3] for page in pages if page.took_ms - HAND_OVERS * page.late_ms > TIMEOUT_MS + slack_ms]
    assert not late, (summary(pages), late)


def welcomed(browser: httpx.Client) -> list[Page]:
    """Pages of a visitor who consents, until one has scores: a process's first page has the connection to make."""
    pages = [agree(browser, "measure", "link")]
    while pages[-1].known["reason"] != "ok":
        assert len(pages) < 50
        pages.append(opened(browser))
    return pages


def test_the_service_is_killed_under_load_and_comes_back(
    server: Server, start: Start, keyed: Service, secret: str
) -> None:
    shop = start(server, TIMEOUT_MS=TIMEOUT_MS)
    with shop.browser() as browser:
        welcomed(browser)
    with Crowd(shop, 8).browsing() as crowd:
        wait_until(lambda: crowd.reasons()["ok"] > 100)
        keyed.kill()
        wait_until(lambda: crowd.reasons()["unavailable"] > 100)
        keyed.start()
        before = crowd.reasons()["ok"]
        wait_until(lambda: crowd.reasons()["ok"] > before + 50)
    assert not crowd.errors
    assert {page.status for page in crowd.pages} == {200}
    assert_nobody_waited(crowd.pages, CROWDED_MS)
    without = [page for page in crowd.pages if page.known["reason"] != "ok"]
    assert all(page.known["scores"] == {} and 'data-offer="none"' in page.text for page in without)
    wait_until(shop.settled)
    counts = shop.counts()
    assert not {"dropped", "refused", "lost"} & {name for name, count in counts.items() if count}
    # each page once: those before, those in whose middle the service was killed, and those that nobody took
    assert len(crowd.loaded) == 8
    for visitor, pages in crowd.loaded.items():
        assert features(keyed, secret, visitor)["page_views"] == pages


def strangers(shop: DjangoShop, count: int) -> list[Page]:
    """Pages of visitors who have not been here."""
    with shop.browser() as browser:
        return [opened(browser) for _ in range(count)]


def stays_until_there_are_scores(browser: httpx.Client, shop: DjangoShop) -> list[Page]:
    """Pages of a visitor who stays until one has scores, and nothing waits."""
    pages: list[Page] = []

    def answered() -> bool:
        pages.append(opened(browser))
        return bool(pages[-1].known["reason"] == "ok")

    wait_until(answered)
    wait_until(shop.settled)
    return pages


def reasons(pages: list[Page]) -> list[str]:
    return [page.known["reason"] for page in pages]


def test_a_service_that_hangs_costs_a_few_pages_their_time_and_the_others_nothing(
    server: Server, start: Start, keyed: Service, secret: str
) -> None:
    shop = start(server, TIMEOUT_MS=TIMEOUT_MS, FAILURES=3, RETRY_SECONDS=1.5)
    with shop.browser() as browser:
        pages = welcomed(browser)
        with keyed.standing_still():
            # what this visitor does next is not to overtake the page of which nobody knows
            mine = [opened(browser) for _ in range(5)]
            assert reasons(mine) == ["timeout"] + ["unavailable"] * 4
            others = strangers(shop, 6)
            assert reasons(others) == ["timeout"] * 2 + ["unavailable"] * 4
            assert_nobody_waited([*mine, *others])
            # after three nobody waits at all
            assert statistics.median(page.took_ms - page.late_ms for page in others) < TIMEOUT_MS / 2
            time.sleep(2.5)  # the requests that nobody waits for are given up meanwhile
        pages += mine + stays_until_there_are_scores(browser, shop)
    assert features(keyed, secret, pages[0].known["visitor"])["page_views"] == len(pages)


def test_a_network_that_swallows_everything(server: Server, start: Start, keyed: Service, secret: str) -> None:
    """Connections that are half open: nothing comes, and nothing says so. A black hole swallows what is asked, a mute
    network the answers only."""
    with proxy(keyed) as (port, turn):
        shop = start(server, TIMEOUT_MS=TIMEOUT_MS, URL=f"http://{HOST}:{port}", FAILURES=2, RETRY_SECONDS=1)
        with shop.browser() as browser:
            pages = welcomed(browser)
            turn("mute" if server == "gunicorn" else "black hole")
            mine = [opened(browser) for _ in range(9)]
            assert reasons(mine) == ["timeout"] + ["unavailable"] * 8
            others = strangers(shop, 3)
            assert reasons(others) == ["timeout"] + ["unavailable"] * 2
            assert_nobody_waited([*mine, *others])
            turn("well")
            pages += mine + stays_until_there_are_scores(browser, shop)
    assert features(keyed, secret, pages[0].known["visitor"])["page_views"] == len(pages)


class Trickle:
    """A server that answers a byte at a time, for ever: no single wait for a byte is too long."""

    def __init__(self) -> None:
        self._socket = socket.create_server((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        self._going = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._trickle, args=(connection,), daemon=True).start()

    def _trickle(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-more: ")
            while self._going:
                connection.sendall(b"x")
                time.sleep(0.005)

    def close(self) -> None:
        """End."""
        self._going = False
        self._socket.close()


def test_a_service_that_trickles(server: Server, start: Start) -> None:
    trickle = Trickle()
    try:
        shop = start(server, TIMEOUT_MS=TIMEOUT_MS, URL=f"http://{HOST}:{trickle.port}", FAILURES=4, OPENFEATURE=True)
        with shop.browser() as browser:
            pages = [opened(browser) for _ in range(6)]
            assert [page.known["reason"] for page in pages] == ["timeout"] * 4 + ["unavailable"] * 2
            assert_nobody_waited(pages[1:])
            flags = browser.get("/openfeature/")
            assert flags.json()["help_offer"] == ["default", "GENERAL"]
            assert_nobody_waited([page_of(flags)])
    finally:
        trickle.close()


def test_what_waits_is_sent_before_the_shop_ends(server: Server, start: Start, keyed: Service, secret: str) -> None:
    with proxy(keyed) as (port, turn):
        setting = {"TIMEOUT_MS": TIMEOUT_MS, "URL": f"http://{HOST}:{port}", "FAILURES": 2, "RETRY_SECONDS": 60}
        shop = start(server, {"preload": True}, **setting)
        with shop.browser() as browser:
            pages = welcomed(browser)
            turn("reset")
            pages += [opened(browser) for _ in range(5)]
            # the pauses between its tries grow
            wait_until(lambda: shop.log.read_text().count("not taken yet") >= 3)
        turn("well")
        took_seconds = shop.terminate()
        visitor = pages[0].known["visitor"]
        assert features(keyed, secret, visitor)["page_views"] == len(pages)
        assert took_seconds < 10


def test_a_queue_that_is_full_forgets_and_counts(server: Server, start: Start) -> None:
    (nobody,) = free_ports(1)
    shop = start(server, URL=f"http://{HOST}:{nobody}", QUEUE=5, FLUSH_SECONDS=0.2)
    with shop.browser() as browser:
        pages = [opened(browser) for _ in range(9)]
    assert {page.known["reason"] for page in pages} == {"unavailable"}
    wait_until(lambda: shop.counts().get("dropped") == 4)
    assert shop.counts()["waiting"] == 5
    shop.terminate()
    assert "5 events could not be delivered before the end of the process" in shop.log.read_text()


def test_a_key_that_is_not_known(server: Server, start: Start, keyed: Service, secret: str) -> None:
    shop = start(server, KEY=f"lotse_sec_{'0' * 12}_{'0' * 64}")
    with shop.browser() as browser:
        pages = [opened(browser) for _ in range(8)]
    assert {page.status for page in pages} == {200} and {page.known["reason"] for page in pages} == {"unavailable"}
    assert "status 401" in shop.log.read_text()
    assert all(held(keyed, secret, page.known["visitor"]) == [] for page in pages)


def test_a_flag_that_is_gone_costs_the_answer_and_not_the_event(
    server: Server, start: Start, keyed: Service, secret: str
) -> None:
    shop = start(server, FLAGS={"help_offer": "none", "gone": "as before"})
    with shop.browser() as browser:
        page = opened(browser)
    assert (page.known["reason"], page.known["flags"]["gone"]) == ("refused", "as before")
    wait_until(lambda: len(held(keyed, secret, page.known["visitor"])) == 1)

"""The short way of events and the usual one answer alike: the same request with a length, and in chunks.

Trackers' requests go both ways, too.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from serving.connections import Connection, Watch
from serving.front import Front
from serving.lane import Whole
from serving.settings import LimitSettings, TelemetrySettings
from serving.telemetry import Tracing
from tests.serving.in_process import start
from tests.serving.test_canary import TRACKERS as INSTALLED
from tests.serving.test_canary import captured
from tests.serving.test_telemetry import collector
from tests.workspace import wait_until

__all__ = ["collector"]
CANARY = "quilla.canary"
SHOP = "https://shop.example"
SNOWPLOW = "com.snowplowanalytics.snowplow/tp2"
EVENT = {"visitor": "jane", "name": "view_item", "item": "sku-1"}
# What differs between two answers to the same request.
VARIES = re.compile(rb"(date|x-request-id): [^\r]*\r\n")


class Served:
    """An application on a port; went: the names of the classes that its requests went through."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.app, self.went = start(folder, *overrides), list[str]()
        self.port, self._server = 0, None
        went = self.went

        class Noting(Connection):
            watch = Watch(LimitSettings(), workers=1)
            front = staticmethod(lambda theirs: Front(self.app, theirs, 10_000))
            ours = self.app

            def on_response_complete(self) -> None:
                went.append(type(self.cycle).__name__)
                super().on_response_complete()

        async def nothing(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError(scope)

        config = uvicorn.Config(nothing, http=Noting, lifespan="off", log_config=None)
        self.server = uvicorn.Server(config)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve(sockets=[self.listening])))

    def ask(self, *packets: bytes, answers: int = 1) -> bytes:
        """So many answers to some packets, fewer if the connection is closed before."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            received = b""
            for packet in packets:
                client.sendall(packet)
                time.sleep(0.05 * (packet is not packets[-1]))  # so that it arrives alone
            while len(taken_apart(received)) < answers and (part := client.recv(65_536)):
                received += part
            return received


def taken_apart(received: bytes) -> list[bytes]:
    """The bodies of whole answers: each as long as it says."""
    bodies = []
    while b"\r\n\r\n" in received:
        head, _, rest = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 100"):
            told = re.search(rb"content-length: (\d+)", head)
            assert told or head.startswith(b"HTTP/1.1 204"), head
            length = int(told[1]) if told else 0
            if len(rest) < length:
                break
            bodies.append(rest[:length])
            rest = rest[length:]
        received = rest
    return bodies


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    yield from serving(Served(tmp_path, f'cors.origins=["{SHOP}"]', "server.body_limit_bytes=2000"))


def serving(one: Served) -> Iterator[Served]:
    """It serves meanwhile."""
    one.thread.start()
    wait_until(lambda: one.server.started)
    try:
        yield one
    finally:
        one.server.should_exit = True
        one.thread.join(20)


def request(body: bytes, *headers: str, version: str = "1.1", method: str = "POST", url: str = "/v1/events") -> bytes:
    lines = [f"{method} {url} HTTP/{version}", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(sent: bytes) -> bytes:
    """The same, without saying before how long the body is."""
    head, _, body = sent.partition(b"\r\n\r\n")
    head = re.sub(rb"content-length: \d+", b"transfer-encoding: chunked", head)
    return head + b"\r\n\r\n" + (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


GOOD = json.dumps(EVENT).encode()
ARRAY = json.dumps([EVENT, {**EVENT, "visitor": "joe"}]).encode()
PLAIN = {
    "an event": request(GOOD),
    "an array": request(ARRAY),
    "no event": request(b"[]"),
    "no body": request(b""),
    "no JSON": request(b"{"),
    "a bad field": request(json.dumps({**EVENT, "price": -1}).encode()),
    "bad events": request(json.dumps([EVENT, {"name": "x"}, 7]).encode()),
    "a key that is none of ours": request(GOOD, "authorization: Bearer lotse_sec_nothing"),
    "too long": request(json.dumps({**EVENT, "page": "x" * 3_000}).encode()),
    "a listed origin": request(GOOD, f"origin: {SHOP}"),
    "another origin": request(GOOD, "origin: https://other.example"),
    "a bad one of a listed origin": request(b"{}", f"origin: {SHOP}"),
    "an id": request(GOOD, "x-request-id: 01J8-abc"),
    "an empty query": request(GOOD, url="/v1/events?"),
    "no scores": request(GOOD, url="/v1/events?scores=none"),
    "no scores for an array": request(ARRAY, url="/v1/events?scores=none"),
    "all flags": request(GOOD, url="/v1/events?flags=all"),
    "a flag": request(GOOD, url="/v1/events?flags=help_offer"),
}
AGENT = "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537"
PAGE = f"origin: {SHOP}"
VIEW = json.dumps({"n": "pageview", "u": f"{SHOP}/p/1", "d": "shop.example"}).encode()
XDM = {"web": {"webPageDetails": {"URL": f"{SHOP}/p/1", "pageViews": {"value": 1}}}}
ASKS = {"query": {"personalization": {"decisionScopes": ["lotse"]}}}
ADOBE = "/ee/v1/interact?configId=ds&requestId=15cdf34a-9999-4eb6-b21e-7ca1ec7f07c6"
TEALIUM = "0123456789abcdef0123456789abcdef"
TRACKERS = {
    "Plausible": request(VIEW, AGENT, PAGE, url="/api/event"),
    "Plausible of another origin": request(VIEW, AGENT, "origin: https://other.example", url="/api/event"),
    "Plausible that is refused": request(b"[]", AGENT, PAGE, url="/api/event"),
    "Plausible of a program": request(VIEW, "user-agent: curl/8", PAGE, url="/api/event"),
    "too long": request(b"x" * 3_000, AGENT, PAGE, url="/api/event"),
    "GA4": request(
        b"", AGENT, PAGE, url="/g/collect?v=2&tid=G-1&cid=1.1&en=page_view&dl=https%3A%2F%2Fshop.example%2F"
    ),
    "Matomo's pixel": request(
        b"", AGENT, method="GET", url="/matomo.php?idsite=1&rec=1&_id=abc&url=https%3A%2F%2Fx%2Fp"
    ),
    "Matomo's cart": request(
        b"idsite=1&rec=1&_id=abc&idgoal=0&ec_items=" + b'[["SKU-1","","",1,1]]', AGENT, PAGE, url="/matomo.php"
    ),
    "Matomo's ping that waits for the store": request(
        b"", AGENT, method="GET", url="/matomo.php?idsite=1&rec=1&_id=nobody&ping=1"
    ),
    "Segment": request(json.dumps({"anonymousId": "a", "properties": {}}).encode(), PAGE, url="/v1/p"),
    "Segment's settings": request(b"", PAGE, method="GET", url="/v1/projects/key/settings"),
    "Snowplow": request(json.dumps({"data": [{"e": "pv", "duid": "d"}]}).encode(), url=f"/{SNOWPLOW}"),
    "Adobe with scores": request(json.dumps({"events": [{"xdm": XDM, **ASKS}]}).encode(), AGENT, PAGE, url=ADOBE),
    "Adobe without a step": request(
        json.dumps({"events": [{"xdm": {"eventType": "decisioning.propositionFetch"}, **ASKS}]}).encode(), url=ADOBE
    ),
    "Tealium": request(json.dumps({"tealium_account": "a", "tealium_profile": "b"}).encode(), url="/event"),
    "Tealium's scores": request(b"", PAGE, method="GET", url=f"/acme/main/{TEALIUM}?callback=utag.ut"),
}
SPECIAL = {
    "a query": request(GOOD, url="/v1/events?explain=true"),
    "two of them": request(GOOD, url="/v1/events?scores=none&flags=all"),
    "a flag that is none": request(GOOD, url="/v1/events?flags=nothing"),
    "several flags": request(GOOD, url="/v1/events?flags=help_offer,shipping_banner"),
    "a fragment": request(GOOD, url="/v1/events#here"),
    "compressed": request(GOOD, "content-encoding: gzip"),
    "a key for sending again": request(GOOD, "idempotency-key: one"),
    "asks whether to go on": request(GOOD, "expect: 100-continue"),
    "the last one": request(GOOD, "connection: close"),
    "an old client": request(GOOD, version="1.0"),
    "another method": request(b"", method="GET"),
    "a tracker's preflight": request(b"", PAGE, method="OPTIONS", url="/api/event"),
    "a tracker's path with escapes": request(VIEW, AGENT, url="/api/eve%6Et"),
    "a tracker's other method": request(b"", method="GET", url="/api/event"),
    "a compressed one of a tracker's": request(VIEW, "content-encoding: gzip", url="/api/event"),
    "chunks": chunked(request(GOOD)),
}


BOTH = [Whole.__name__, "RequestResponseCycle"]


def same(answer: bytes) -> bytes:
    """An answer without what differs from one to the next."""
    return re.sub(rb'"(request_id|session)":"[^"]*"', b"", VARIES.sub(b"", answer))


@pytest.mark.parametrize("name", PLAIN)
def test_both_ways_answer_alike(served: Served, name: str) -> None:
    sent = PLAIN[name]
    served.ask(PLAIN["an array"])  # the session is there
    wait_until(lambda: served.went != [])  # it is noted after the answer was sent
    served.went.clear()
    first, second = served.ask(sent), served.ask(chunked(sent))
    wait_until(lambda: served.went == BOTH)
    counted = re.compile(rb'"events":\d+')
    assert counted.sub(b"", same(first)) == counted.sub(b"", same(second))
    assert len(VARIES.findall(first)) == len(VARIES.findall(second)) == 2
    assert counted.findall(first) == [b'"events":%d' % (int(found[9:]) - 1) for found in counted.findall(second)], (
        "each way folds each event once"
    )


@pytest.mark.parametrize("name", TRACKERS)
def test_both_ways_answer_trackers_alike(served: Served, name: str) -> None:
    metrics = served.app.engine.metrics  # type: ignore[union-attr]
    sent, counted = TRACKERS[name], []
    for packet in (sent, chunked(sent)):
        before = Counter(metrics.events) + Counter(metrics.dropped)
        counted.append((same(served.ask(packet)), Counter(metrics.events) + Counter(metrics.dropped) - before))
    wait_until(lambda: served.went == BOTH)
    (first, short), (second, usual) = counted
    assert first == second
    assert short.total() == usual.total(), "each way counts each event once, or why it does not"
    assert metrics.requests.total() == 2


@pytest.mark.parametrize("name", SPECIAL)
def test_what_is_special_goes_the_usual_way(served: Served, name: str) -> None:
    answer = served.ask(SPECIAL[name])
    assert answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 100"))
    assert Whole.__name__ not in served.went


@pytest.mark.parametrize("cut", [30, -len(GOOD), -10], ids=["headers", "before the body", "body"])
def test_what_comes_in_parts_is_taken_whole(served: Served, cut: int) -> None:
    sent = PLAIN["an event"]
    assert json.loads(taken_apart(served.ask(sent[:cut], sent[cut:]))[0])["events"] == 1
    # cut within the headers, the rest comes whole
    wait_until(lambda: served.went == [BOTH[cut < 0]])


def test_a_connection_is_used_again_and_requests_wait_for_their_turn(served: Served) -> None:
    pipelined = b"".join(request(json.dumps({**EVENT, "visitor": f"v{number}"}).encode()) for number in range(5))
    last = request(GOOD, "connection: close")
    answer = served.ask(PLAIN["an event"], PLAIN["bad events"], pipelined, last, answers=9)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"422", *[b"200"] * 6]
    assert len(taken_apart(answer)) == 8


def test_while_the_service_starts_both_say_so(served: Served) -> None:
    engine, served.app._engine = served.app._engine, None
    try:
        sent = request(GOOD)
        first, second = served.ask(sent), served.ask(chunked(sent))
    finally:
        served.app._engine = engine
    assert same(first) == same(second)
    assert first.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in first


def test_who_drains_closes_the_connection(served: Served) -> None:
    served.app.draining = True
    sent = PLAIN["an event"]
    first, second = served.ask(sent, answers=2), served.ask(chunked(sent), answers=2)
    assert first.count(b"HTTP/1.1 200") == second.count(b"HTTP/1.1 200") == 1
    assert first.count(b"connection: close") == second.count(b"connection: close") == 1
    wait_until(lambda: served.went == BOTH)


def test_a_client_that_goes_away_disturbs_nobody(served: Served) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(request(GOOD))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # resets it
    assert served.ask(request(GOOD)).startswith(b"HTTP/1.1 200")


def test_what_is_measured_is_the_same(served: Served) -> None:
    metrics = served.app.engine.metrics  # type: ignore[union-attr]
    for sent in (PLAIN["an event"], PLAIN["bad events"]):
        before = dict(metrics.requests)
        served.ask(sent)
        once = {key: count - before.get(key, 0) for key, count in metrics.requests.items()}
        served.ask(chunked(sent))
        assert {key: count - before.get(key, 0) for key, count in metrics.requests.items()} == {
            key: 2 * count for key, count in once.items()
        }


def test_both_leave_a_span(served: Served, collector: tuple[str, list[Any]]) -> None:
    endpoint, spans = collector
    tracing = served.app.tracing = Tracing(TelemetrySettings(endpoint=endpoint, sample=1.0))
    served.ask(PLAIN["an event"])
    served.ask(chunked(PLAIN["bad events"]))
    wait_until(lambda: served.went == BOTH)
    tracing.close()
    told = [{each.key: each.value for each in span.attributes} for span in spans]
    assert [one["http.route"].string_value for one in told] == ["/v1/events"] * 2
    assert [one["http.response.status_code"].int_value for one in told] == [200, 422]


def texts_in(found: Any, depth: int = 8) -> Iterator[str]:
    """Texts that an object holds, also within what the collector does not know."""
    for part in gc.get_referents(found):
        if isinstance(part, str | bytes):
            yield part if isinstance(part, str) else part.decode("latin-1")
        elif depth and not gc.is_tracked(part):
            yield from texts_in(part, depth - 1)


@contextmanager
def nothing_left(served: Served, requests: int) -> Iterator[None]:
    """Check that so many requests leave nothing to the garbage collector; each has the canary in a header.

    Nobody knows when it comes: with the thresholds of a worker perhaps in an hour.
    """
    served.ask(PLAIN["an event"])
    wait_until(lambda: not served.server.server_state.connections)
    served.went.clear()
    gc.collect()
    gc.disable()
    try:
        yield
        wait_until(lambda: len(served.went) == requests)
        wait_until(lambda: not served.server.server_state.connections)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = {type(one).__name__ for one in gc.garbage}
        holding = [type(one).__name__ for one in gc.garbage if any(CANARY in text for text in texts_in(one))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert holding == []
    ours = {
        "Request",
        "Problem",
        "Whole",
        "RequestResponseCycle",
        "Connection",
        "Hit",
        "Refused",
        "EventVisit",
        "Group",
    }
    assert kinds.isdisjoint(ours)


MORE = {
    "an unknown path": request(GOOD, url="/v1/nothing"),
    "many of one visitor": request(json.dumps([{**EVENT, "id": f"m-{number}"} for number in range(12)]).encode()),
}


@pytest.mark.parametrize("name", [*PLAIN, *SPECIAL, *MORE])
def test_a_request_is_gone_with_its_answer(served: Served, name: str) -> None:
    sent = {**PLAIN, **SPECIAL, **MORE}[name]
    head, _, body = sent.partition(b"\r\n\r\n")
    sent = head + f"\r\nuser-agent: {CANARY}\r\n\r\n".encode() + body
    with nothing_left(served, 2):
        served.ask(sent)
        served.ask(sent if b"chunked" in sent else chunked(sent))


def test_so_is_what_came_half(served: Served) -> None:
    with nothing_left(served, 1):
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
            client.sendall(request(GOOD, f"user-agent: {CANARY}")[:-5])
            wait_until(lambda: bool(served.server.server_state.connections))
        served.ask(request(GOOD))
    with nothing_left(served, 1):
        served.app.draining = True  # the connection is closed behind the first one
        served.ask(request(GOOD) + request(GOOD, f"user-agent: {CANARY}")[:-5])


@pytest.fixture
def collecting(tmp_path: Path) -> Iterator[Served]:
    yield from serving(Served(tmp_path, f"collect.trackers={json.dumps(INSTALLED)}"))


def test_so_is_what_trackers_send(collecting: Served) -> None:
    """A request of each kind, as it is and with half of its body."""
    kinds = {(one.path, one.body == b""): one for one in captured() if collecting.app.collector.tracked(one.path)}
    sent = [
        request(body, f"user-agent: {CANARY}", f"referer: {CANARY}", method=one.method, url=f"{one.path}?{one.query}")
        for one in kinds.values()
        for body in (one.body, one.body[: len(one.body) // 2])
    ]
    assert len(sent) > 20
    with nothing_left(collecting, len(sent)):
        for one in sent:
            collecting.ask(one)

"""Requests are passed on to the original collector, a process of its own that may be slow, broken or away."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from features.settings import SettingsError
from serving.app import App
from serving.collect import Collected, Endpoint, Hit
from serving.http.call import Reply
from serving.intake import EventIn
from serving.settings import load_serving
from tests.server_process import free_ports, running
from tests.serving.in_process import ask, engine_of, start
from tests.serving.original import Original
from tests.workspace import ROOT, Service, wait_until

pytestmark = pytest.mark.anyio
AGENT = b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
SENT = ("plausible", "200")
Starts = Callable[..., App]


@pytest.fixture
def original(tmp_path: Path) -> Iterator[Original]:
    folder = tmp_path / "original"
    folder.mkdir()
    with running(Original(folder, *free_ports(1))) as started:
        yield started


@pytest.fixture
async def forwarding(original: Original, tmp_path: Path) -> AsyncIterator[Starts]:
    """Makes applications that pass on to the original; at the end they let go of their connections."""
    async with AsyncExitStack() as stack:

        def started(*overrides: str) -> App:
            app = start(tmp_path, f"collect.forward.plausible={original.url}", *overrides)
            assert app.collector is not None
            stack.push_async_callback(app.collector.close, 0)
            return app

        yield started


def view(number: int = 0) -> bytes:
    return json.dumps({"n": "pageview", "u": f"https://shop.example/p/{number}", "d": "shop.example"}).encode()


async def send(app: App, body: bytes, *headers: tuple[bytes, bytes], address: str = "203.0.113.7") -> int:
    status, _ = await ask(app, "POST", b"/api/event", [(b"user-agent", AGENT), *headers], body, address)
    return status


async def until(true: Callable[[], bool]) -> None:
    """Wait for what must come; the time is that of a test that has failed."""
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


def pages(original: Original) -> list[int]:
    """The numbers of the views that arrived, in their order."""
    return [int(json.loads(got.body)["u"].rpartition("/")[2]) for got in original.got()]


def counted(app: App) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], int], int]:
    metrics = engine_of(app).metrics
    return dict(metrics.forwarded), dict(metrics.forward_dropped), metrics.forward_queue["plausible"]


async def test_the_request_arrives_as_it_came(original: Original, forwarding: Starts) -> None:
    app = forwarding('limits.trusted_proxies=["10.0.0.0/8"]')
    body = gzip.compress(view())
    headers = [
        (b"host", b"collect.shop.example"), (b"user-agent", AGENT), (b"content-type", b"text/plain"),
        (b"content-encoding", b"gzip"), (b"content-length", b"%d" % len(body)), (b"origin", b"https://shop.example"),
        (b"referer", b"https://shop.example/p/0"), (b"accept-language", b"de"), (b"x-own", "Grüße".encode()),
        (b"authorization", b"Basic a2V5Og=="),
        # the shop's own cookie is nobody else's business, that of the tracker is its own
        (b"cookie", b"session=secret; _pk_id.1.1fff=79ad93e49e3f3a55.1800000000.; sp=1; spy=2"),
        # about this connection only
        (b"connection", b"keep-alive, X-Hop"), (b"x-hop", b"1"), (b"keep-alive", b"timeout=5"), (b"te", b"trailers"),
        # the first is made up by the client, the second is of our proxy
        (b"x-forwarded-for", b"192.0.2.1, 203.0.113.7"), (b"x-real-ip", b"192.0.2.1"),
    ]  # fmt: skip
    target = b"/api/event?a=%zz&b=%C3%A9&c=a+b&a=%2F&x={}"
    assert (await ask(app, "POST", target, headers, body, "10.1.2.3"))[0] == 202
    await until(lambda: counted(app) == ({SENT: 1}, {}, 0))
    (got,) = original.got()
    assert (got.method, got.target.encode(), got.body) == ("POST", target, body)
    assert got.headers == {
        "host": f"127.0.0.1:{original.port}", "user-agent": AGENT.decode(), "content-type": "text/plain",
        "content-encoding": "gzip", "content-length": str(len(body)), "origin": "https://shop.example",
        "referer": "https://shop.example/p/0", "accept-language": "de", "x-own": "Grüße".encode().decode("latin-1"),
        "authorization": "Basic a2V5Og==", "cookie": "_pk_id.1.1fff=79ad93e49e3f3a55.1800000000.; sp=1",
        "x-forwarded-for": "203.0.113.7", "via": "1.1 lotse",
    }  # fmt: skip
    assert engine_of(app).metrics.events == {"started": 1}


async def test_nothing_is_added(original: Original, forwarding: Starts) -> None:
    """A request without a body and with few headers gets none that its client did not send; a key of ours stays."""
    app = forwarding()
    await ask(app, "POST", b"/api/event", [(b"authorization", b"Bearer lotse_pub_1")])
    await until(lambda: len(original.got()) == 1)
    assert set(original.got()[0].headers) == {"host", "content-length", "via", "x-forwarded-for"}


async def test_what_is_refused_here_is_passed_on_all_the_same(original: Original, forwarding: Starts) -> None:
    """The original may understand more."""
    app = forwarding()
    assert await send(app, b"{") == 400
    await until(lambda: [got.body for got in original.got()] == [b"{"])


async def test_a_fault_of_ours_is_none_of_the_originals(original: Original, forwarding: Starts) -> None:
    class Broken:
        def endpoint(self, path: str) -> Endpoint | None:
            return Endpoint(("POST",), lambda hit: Collected(), self.answer) if path == "/api/event" else None

        def answer(self, hit: Hit, collected: Collected, answers: object) -> Reply:
            raise RuntimeError("broken")

    app = forwarding()
    assert app.collector is not None
    app.collector.trackers["plausible"] = Broken()
    assert await send(app, view()) == 500
    await until(lambda: pages(original) == [0])


async def test_nobody_waits_for_an_original_that_hangs(original: Original, forwarding: Starts) -> None:
    app = forwarding("forward.timeout_seconds=60")
    original.pause()
    assert [await send(app, view(number)) for number in range(100)] == [202] * 100
    assert counted(app) == ({}, {}, 100)
    original.resume()
    await until(lambda: counted(app) == ({SENT: 100}, {}, 0))
    assert sorted(pages(original)) == list(range(100))


async def test_an_outage_loses_and_doubles_nothing(original: Original, forwarding: Starts) -> None:
    app = forwarding("forward.connections=4")
    await send(app, view(0))
    await until(lambda: counted(app) == ({SENT: 1}, {}, 0))
    original.kill()
    assert [await send(app, view(number)) for number in range(1, 50)] == [202] * 49
    assert counted(app) == ({SENT: 1}, {}, 49)
    original.start()
    await until(lambda: counted(app) == ({SENT: 50}, {}, 0))
    assert sorted(pages(original)) == list(range(50))


async def test_what_stands_before_an_original_that_is_away_is_asked_again(
    original: Original, forwarding: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lotse.forward")
    app = forwarding("forward.connections=2")
    original.turn(503)
    for number in range(5):
        await send(app, view(number))
    await until(lambda: len(original.got()) >= 6)
    assert counted(app) == ({}, {}, 5)
    original.turn(200)
    await until(lambda: counted(app) == ({SENT: 5}, {}, 0))
    assert set(pages(original)) == set(range(5))
    told = [record.getMessage() for record in caplog.records if record.name == "lotse.forward"]
    assert told == [
        "the original collector of plausible does not take requests: it answers 503",
        "the original collector of plausible takes requests again",
    ]


async def test_an_error_of_the_original_is_tried_three_times(original: Original, forwarding: Starts) -> None:
    app = forwarding()
    original.turn(500)
    assert await send(app, view()) == 202
    await until(lambda: counted(app) == ({("plausible", "500"): 1}, {}, 0))
    assert pages(original) == [0, 0, 0]
    original.turn(404)
    await send(app, view())
    await until(lambda: counted(app)[0] == {("plausible", "500"): 1, ("plausible", "404"): 1})
    assert len(original.got()) == 4


async def test_what_may_have_been_counted_is_not_sent_again(original: Original, forwarding: Starts) -> None:
    app = forwarding("forward.timeout_seconds=0.5")
    original.turn(200, seconds=5)
    await send(app, view())
    await until(lambda: counted(app) == ({}, {("plausible", "timeout"): 1}, 0))
    assert pages(original) == [0]


async def test_who_cannot_be_reached_is_given_up(original: Original, forwarding: Starts) -> None:
    app = forwarding("forward.deadline_seconds=0.5")
    original.kill()
    await send(app, view())
    await until(lambda: counted(app) == ({}, {("plausible", "unreachable"): 1}, 0))


async def test_what_has_waited_too_long_is_given_up(original: Original, forwarding: Starts) -> None:
    """One connection, which the first request takes for longer than the others may wait."""
    app = forwarding("forward.connections=1", "forward.timeout_seconds=1.5", "forward.deadline_seconds=1")
    original.pause()
    for number in range(3):
        await send(app, view(number))
    await until(lambda: counted(app)[2] == 0)
    assert counted(app)[:2] == ({}, {("plausible", "timeout"): 1, ("plausible", "expired"): 2})


async def test_memory_is_bounded(original: Original, forwarding: Starts) -> None:
    app = forwarding("forward.queue_mib=0.1", "forward.timeout_seconds=60")
    original.pause()
    large = view().replace(b"/p/0", b"/p/0?" + b"x" * 9_000)
    assert [await send(app, large) for _ in range(20)] == [202] * 20
    _, dropped, waiting = counted(app)
    assert 5 < waiting < 12 and dropped == {("plausible", "overflow"): 20 - waiting}
    original.resume()
    await until(lambda: counted(app)[2] == 0)
    await send(app, large)
    await until(lambda: counted(app)[0] == {SENT: waiting + 1})


@pytest.mark.parametrize("header", [(b"sec-gpc", b"1"), (b"dnt", b"1")])
async def test_who_objects_is_passed_on_only_if_configured(
    original: Original, forwarding: Starts, header: tuple[bytes, bytes]
) -> None:
    app = forwarding()
    assert await send(app, view(1), header) == 202
    assert counted(app) == ({}, {("plausible", "objected"): 1}, 0)
    app = forwarding("forward.objected=true")
    await send(app, view(2), header)
    await until(lambda: counted(app) == ({SENT: 1}, {}, 0))
    (got,) = original.got()
    assert got.headers[header[0].decode()] == "1"  # the original may heed it
    assert pages(original) == [2]


@pytest.mark.parametrize(
    ("told", "lost"),
    [
        (Collected(objected=True), True),
        (Collected([EventIn(visitor="v", name="search", consent=[])]), True),
        (Collected([EventIn(visitor="v", name="search", consent=[]), EventIn(visitor="v", name="search")]), False),
        (Collected([EventIn(visitor="v", name="search", consent=["measure"])]), False),
    ],
)
async def test_an_objection_that_the_tracker_tells_counts(
    original: Original, forwarding: Starts, told: Collected, lost: bool
) -> None:
    class Telling:
        def endpoint(self, path: str) -> Endpoint | None:
            return Endpoint(("POST",), lambda hit: told, answer) if path == "/api/event" else None

    def answer(hit: Hit, collected: Collected, answers: object) -> Reply:
        return Reply(b"text/plain", b"ok", 202)

    app = forwarding()
    assert app.collector is not None
    app.collector.trackers["plausible"] = Telling()
    assert await send(app, view()) == 202
    await until(lambda: counted(app) == (({}, {("plausible", "objected"): 1}, 0) if lost else ({SENT: 1}, {}, 0)))


async def test_what_tells_nothing_is_not_passed_on(original: Original, tmp_path: Path) -> None:
    """Segment's client asks for its settings, which it has from us."""
    app = start(tmp_path, f"collect.forward.segment={original.url}")
    assert app.collector is not None
    status, _ = await ask(app, "GET", b"/v1/projects/shop/settings", [(b"user-agent", AGENT)])
    assert status == 200
    assert not engine_of(app).metrics.forward_queue["segment"]
    await app.collector.close(0)


async def test_a_secret_key_of_ours_stays_here(original: Original, forwarding: Starts) -> None:
    """Importers of Matomo's send it as token_auth."""
    app = forwarding()
    key = b"lotse_sec_0123456789ab_" + b"0" * 64
    await send(app, gzip.compress(view().replace(b"/p/0", key)), (b"content-encoding", b"gzip"))
    await ask(app, "POST", b"/api/event?token_auth=" + key, [(b"user-agent", AGENT)], view())
    assert counted(app) == ({}, {("plausible", "secret"): 2}, 0)


async def test_a_request_does_not_go_round(original: Original, forwarding: Starts) -> None:
    """The original's name may lead to us by mistake."""
    app = forwarding()
    await send(app, view(1))
    await until(lambda: len(original.got()) == 1)
    (got,) = original.got()
    await send(app, got.body, (b"via", got.headers["via"].encode()))
    assert counted(app)[1] == {("plausible", "loop"): 1}


async def test_an_end_waits_for_what_is_queued(original: Original, forwarding: Starts) -> None:
    app = forwarding("forward.connections=1")
    original.turn(200, seconds=0.05)
    for number in range(10):
        await send(app, view(number))
    assert app.collector is not None
    await app.collector.close(60)
    assert counted(app) == ({SENT: 10}, {}, 0)
    await send(app, view())
    assert counted(app) == ({SENT: 10}, {("plausible", "stopped"): 1}, 0)


async def test_an_end_does_not_wait_for_ever(original: Original, forwarding: Starts) -> None:
    app = forwarding("forward.connections=2")
    original.kill()
    for number in range(10):
        await send(app, view(number))
    assert app.collector is not None
    await app.collector.close(0.2)
    assert counted(app) == ({}, {("plausible", "stopped"): 10}, 0)


def test_addresses_are_checked_at_the_start() -> None:
    config = ROOT / "configs" / "serving.toml"
    for override, expected in (
        ("collect.forward.plausibel=https://x.example", "collect.trackers has no 'plausibel'"),
        ("collect.forward.plausible=collect.shop.example", "expected https://collector.shop.example"),
        ("collect.forward.plausible=https://a:b@x.example", "expected https://collector.shop.example"),
        ("collect.forward.plausible=https://x.example/?key=1", "expected https://collector.shop.example"),
    ):
        with pytest.raises(SettingsError, match=expected):
            load_serving(config, [override])


@pytest.mark.slow
def test_a_service_that_stops_passes_on_what_it_took(original: Original, own_service: Callable[..., Service]) -> None:
    """SIGTERM with forty requests in the queue: all arrive; of nobody is anything on disk or in a log."""
    service = own_service(
        f"collect.forward.plausible={original.url}", "forward.connections=2", "logs.sample=1", "store.size_gib=0.05",
        'limits.trusted_proxies=["127.0.0.1"]',
    )  # fmt: skip
    original.turn(200, seconds=0.1)
    for number in range(40):
        headers = {"user-agent": f"{AGENT.decode()} heron-77", "x-forwarded-for": f"198.51.100.{number}"}
        assert service.http.post("/api/event?heron-77", content=view(number), headers=headers).status_code == 202
    text = service.http.get("/metrics").text
    assert 'lotse_forward_queue{tracker="plausible"}' in text
    service.stop()
    assert sorted(pages(original)) == list(range(40))
    assert {got.headers["x-forwarded-for"] for got in original.got()} == {f"198.51.100.{n}" for n in range(40)}
    kept = [path for path in service.folder.rglob("*") if path.is_file() and original.folder not in path.parents]
    assert service.log in kept
    for path in kept:
        content = path.read_bytes()
        assert b"heron-77" not in content and b"198.51.100." not in content, path


@pytest.mark.slow
def test_metrics_tell_of_all_workers(original: Original, own_service: Callable[..., Service]) -> None:
    service = own_service(f"collect.forward.plausible={original.url}", "server.workers=2")
    for number in range(20):
        with service.client() as http:  # a connection each, which either worker may take
            http.post("/api/event", content=view(number), headers={"user-agent": AGENT.decode()})
    wait_until(lambda: len(original.got()) == 20)
    line = 'lotse_forwarded_requests_total{status="200",tracker="plausible"} 20.0'
    wait_until(lambda: line in service.http.get("/metrics").text)
    assert 'lotse_forward_queue{tracker="plausible"} 0.0' in service.http.get("/metrics").text

"""Server-sent events of a session: crossings, idle moments, the end; over workers, limits and disconnects."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.app import App
from serving.stream import IDLE_SECONDS, Listener, Threshold
from tests.redis_server import redis_server
from tests.serving.in_process import client, engine_of, listen, start
from tests.workspace import Service

pytestmark = pytest.mark.anyio
EVENT = {"visitor": "jane", "name": "view_item"}
QUICK = "stream.poll_seconds=0.02"
SLOW = "stream.poll_seconds=1000"


async def begun(app: App, **more: Any) -> str:
    """A session's token."""
    async with client(app) as http:
        token: str = (await http.post("/v1/events", json={**EVENT, **more})).json()["session"]
        return token


def ago(seconds: float) -> int:
    return int((time.time() - seconds) * 1000)


def events(text: str) -> list[tuple[str, dict[str, Any], str]]:
    """Name, data and id of each event of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"]), fields["id"]))
    return found


def test_a_score_at_its_threshold_is_told_once_and_not_when_it_trembles() -> None:
    listener = Listener([Threshold("exit", 0.5), Threshold("value", 20)], 0.1)
    told = [listener.crossings({"exit": score}) for score in (0.49, 0.5, 0.46, 0.5, 0.449, 0.49, 0.7)]
    assert [[way for _, way in one] for one in told] == [[], ["up"], [], [], ["down"], [], ["up"]]
    assert [way for _, way in listener.crossings({"exit": 0.7, "value": 25})] == ["up"]
    assert listener.id == "0-0-11"


def test_each_idle_moment_is_told_once_since_the_latest_event() -> None:
    listener = Listener([], 0)
    assert [listener.idled(1, seconds) for seconds in (0, 4.9, 5, 9, 31, 31, 400, 500)] == [
        None, None, 5, None, 30, None, 300, None,
    ]  # fmt: skip
    assert [listener.idled(2, seconds) for seconds in (1, 6)] == [None, 5]


def test_the_id_tells_what_was_told() -> None:
    thresholds = [Threshold("exit", 0.5), Threshold("exit", 0.6)]
    listener = Listener(thresholds, 0)
    listener.idled(4, 12)
    listener.crossings({"exit": 0.55})
    assert listener.id == "4-2-10"
    again = Listener(thresholds, 0, listener.id.encode())
    assert again.idled(4, 12) is None and again.crossings({"exit": 0.55}) == [] and again.id == listener.id
    for other in (b"", b"nonsense", b"4-2-1", b"4-9-10-"):  # of other thresholds, or none of ours
        assert Listener(thresholds, 0, other).id == "0-0-00"
    assert Listener(thresholds, 0, b"4-9-10").next_idle() == float("inf")


async def test_a_crossing_is_told_at_once_when_this_worker_folds_it(tmp_path: Path) -> None:
    """The store is not looked at again on its own: only the fold can wake the listener."""
    app = start(tmp_path, SLOW, "stream.heartbeat_seconds=1000")
    token = await begun(app, session="a", time=ago(400))
    async with listen(app, f"/v1/sessions/{token}/events", "threshold=exit:0.1&threshold=exit:0.9") as stream:
        await stream.until(lambda: "idle" in stream.text)
        assert stream.headers[b"content-type"] == b"text/event-stream" and stream.text.startswith("retry: 3000\n\n")
        (score, data, _), (idle, silent, identity) = events(stream.text)
        assert (score, data["head"], data["threshold"], data["direction"]) == ("score", "exit", 0.1, "up")
        assert (idle, silent["idle_seconds"], silent["events"], identity) == ("idle", 300, 1, "1-5-10")
        # another session begins, so this one is over
        await begun(app, session="b")
        await stream.until(lambda: stream.ended)
        assert events(stream.text)[-1][0] == "closed"
    assert app.streams.listening == 0


async def test_who_comes_back_is_told_what_is_new(tmp_path: Path) -> None:
    app = start(tmp_path, QUICK, "stream.heartbeat_seconds=0.05")
    token = await begun(app, session="a", time=ago(400))
    path = f"/v1/sessions/{token}/events"
    async with listen(app, path, "threshold=exit:0.1", last_event_id="1-5-1") as stream:
        await stream.until(lambda: ":\n\n" in stream.text)  # a heartbeat, and nothing else
        assert events(stream.text) == []
    async with listen(app, path, "threshold=exit:0.1", last_event_id="1-4-0") as stream:
        await stream.until(lambda: "idle" in stream.text)
        assert [name for name, _, _ in events(stream.text)] == ["score", "idle"]


async def test_events_that_come_to_another_worker_are_told(tmp_path: Path) -> None:
    with redis_server() as server:
        here, there = (start(tmp_path, f"store.url={server.url}", QUICK) for _ in range(2))
        token = await begun(here, session="a")
        async with listen(here, f"/v1/sessions/{token}/events") as stream:
            await stream.until(lambda: "retry" in stream.text)
            assert await begun(there, session="a") == token
            await begun(there, session="b")
            await stream.until(lambda: stream.ended)
            assert events(stream.text)[-1][0] == "closed"
        for app in (here, there):
            await engine_of(app).close()


@pytest.mark.parametrize(
    ("query", "status", "detail"),
    [
        ("threshold=exit", 422, "expected a head and a number"),
        ("threshold=exit:nan", 422, "expected a head and a number"),
        ("threshold=love:0.5", 422, "heads: bounce, conversion, exit"),
        ("&".join(["threshold=exit:0.1"] * 33), 422, "33 thresholds; at most 32"),
        ("limit=3", 422, "unknown query parameter"),
    ],
)
async def test_bad_wishes_are_told(tmp_path: Path, query: str, status: int, detail: str) -> None:
    app = start(tmp_path)
    async with client(app) as http:
        answer = await http.get(f"/v1/sessions/{await begun(app)}/events?{query}")
    assert answer.status_code == status and detail in answer.json()["detail"]


async def test_there_are_as_many_listeners_as_configured(tmp_path: Path) -> None:
    app = start(tmp_path, "stream.limit=1")
    token = await begun(app)
    path = f"/v1/sessions/{token}/events"
    async with client(app) as http:
        async with listen(app, path) as stream:
            await stream.until(lambda: "retry" in stream.text)
            refused = await http.get(path)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        head = await http.head(path)  # the place is free again, and a HEAD does not take it
        assert (head.status_code, app.streams.listening) == (200, 0)
        assert (await http.get("/v1/sessions/xyz/events")).status_code == 401


@pytest.fixture
def streaming(service: Service) -> Iterator[tuple[Service, str]]:
    first = {**EVENT, "visitor": f"streaming-{time.time_ns()}", "time": ago(400)}
    yield service, service.http.post("/v1/events", json=first).json()["session"]


def test_a_purchase_is_told_over_the_network(streaming: tuple[Service, str]) -> None:
    service, _ = streaming
    visitor = f"buyer-{time.time_ns()}"
    token = service.http.post("/v1/events", json={**EVENT, "visitor": visitor}).json()["session"]
    with service.http.stream("GET", f"/v1/sessions/{token}/events?threshold=conversion:0.999") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 3000"
        httpx.post(f"{service.http.base_url}/v1/events", json={**EVENT, "visitor": visitor, "name": "purchase"})
        while next(lines) != "event: score":
            pass
        next(lines)
        data = json.loads(next(lines).removeprefix("data: "))
    assert (data["head"], data["direction"], data["score"]) == ("conversion", "up", 1.0)
    assert len(IDLE_SECONDS) == 5


@pytest.mark.slow
def test_the_service_stops_although_somebody_listens(own_service: Callable[..., Service]) -> None:
    running = own_service(SLOW)
    token = running.http.post("/v1/events", json=EVENT).json()["session"]
    other = httpx.Client(base_url=running.http.base_url, timeout=60)
    with other.stream("GET", f"/v1/sessions/{token}/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 3000"
        running.stop()  # fails if it has to be killed
        assert [line for line in lines if line] == []
    other.close()

"""A request with an Idempotency-Key has its effect once: repeated, at the same time, after a crash, after a kill."""

from __future__ import annotations

import contextlib
import http.client
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.app import App
from serving.http.idempotency import LEASE_MS, Claim, Settlement
from serving.keys import KeyFile
from serving.requests import Request
from serving.stores import Visit
from tests.redis_server import redis_server
from tests.serving.in_process import client, engine_of, start
from tests.workspace import Service

pytestmark = pytest.mark.anyio
EVENT = {"visitor": "jane", "name": "view_item", "item": "sku-1"}
KEY = {"idempotency-key": '"8e03978e-40d5-43dd"'}
HOUR_MS = 3_600_000


@pytest.fixture(params=["memory", "embedded", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of each store in turn."""
    if request.param == "redis":
        with redis_server() as server:
            yield f"store.url={server.url}"
    else:
        yield f"store.url={request.param}:{tmp_path}/live"


def body_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_repeated_request_has_its_effect_once(tmp_path: Path, store: str) -> None:
    app = start(tmp_path, store)
    async with client(app) as http:
        events = [EVENT] * 20  # more than a record remembers ids
        first = await http.post("/v1/events", json=events, headers=KEY)
        assert [r["events"] for r in body_of(first)["results"]] == list(range(1, 21))
        assert "idempotency-replayed" not in first.headers
        await http.post("/v1/events", json=EVENT)
        again = await http.post("/v1/events", json=events, headers=KEY)
        assert again.headers["idempotency-replayed"] == "true"
        results = body_of(again)["results"]
        assert [(r["status"], r["events"]) for r in results] == [("duplicate", 21)] * 20
        assert results[0]["session"] == body_of(first)["results"][0]["session"] and results[0]["scores"]
        other = await http.post("/v1/events", json=[EVENT], headers=KEY)
        assert other.status_code == 422 and "another request" in other.json()["detail"]
        assert (await http.post("/v1/events?scores=none", json=events, headers=KEY)).status_code == 422
        assert body_of(await http.post("/v1/events", json=EVENT))["events"] == 22
    await engine_of(app).close()


async def test_a_refused_request_leaves_its_key_free(tmp_path: Path) -> None:
    http = client(start(tmp_path))
    assert (await http.post("/v1/events", json={**EVENT, "price": -1}, headers=KEY)).status_code == 422
    assert body_of(await http.post("/v1/events", json=EVENT, headers=KEY))["status"] == "started"


@pytest.mark.parametrize("key", ["", '""', "two words", "x" * 256, 'a"b'])
async def test_a_key_that_is_none_is_refused(tmp_path: Path, key: str) -> None:
    answer = await client(start(tmp_path)).post("/v1/events", json=EVENT, headers={"idempotency-key": key})
    assert answer.status_code == 400 and "1 to 255 visible ASCII" in answer.json()["detail"]


async def apply(app: Any, visit: Visit) -> None:
    done = engine_of(app).store.apply([visit])
    if inspect.isawaitable(done):
        await done


def claim_of(app: App, body: bytes, age_ms: int, query: bytes = b"") -> Claim:
    """What a worker has written that is at this request since then."""
    now = time.time_ns() // 1_000_000 - age_ms
    return Claim("8e03978e-40d5-43dd", engine_of(app).secret + query + b"\n" + body, now, 24 * HOUR_MS)


async def test_the_same_request_at_the_same_time_is_to_come_back(tmp_path: Path, store: str) -> None:
    app = start(tmp_path, store)
    body = b'{"visitor":"jane","name":"view_item"}'
    claim = claim_of(app, body, 0)
    await apply(app, claim)
    async with client(app) as http:
        answer = await http.post("/v1/events", content=body, headers=KEY)
        assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
        await apply(app, Settlement(claim, folded=False))
        assert body_of(await http.post("/v1/events", content=body, headers=KEY))["status"] == "started"
    await engine_of(app).close()


async def test_what_two_owners_call_alike_is_not_the_same(tmp_path: Path) -> None:
    """Also where they send the same: the other's event is no duplicate."""
    keys = KeyFile(tmp_path)
    owners = [{"authorization": f"Bearer {keys.create('secret', name)[1]}", **KEY} for name in ("shop", "import")]
    async with client(start(tmp_path)) as http:
        for number, owner in enumerate(owners, start=1):
            first = await http.post("/v1/events", json=EVENT, headers=owner)
            assert body_of(first)["events"] == number and "idempotency-replayed" not in first.headers
        for owner in owners:
            assert "idempotency-replayed" in (await http.post("/v1/events", json=EVENT, headers=owner)).headers
        other = await http.post("/v1/events", json={**EVENT, "item": "sku-2"}, headers=owners[0])
        assert other.status_code == 422


@pytest.mark.parametrize("count", [1, 3, 50])
async def test_a_worker_that_died_in_between_has_its_effect_once(tmp_path: Path, store: str, count: int) -> None:
    """The events are folded, the key is claimed and not settled: as after a kill -9."""
    app = start(tmp_path, store)
    body = b"[%s]" % b",".join([b'{"visitor":"jane","name":"view_item"}'] * count)
    await apply(app, claim_of(app, body, LEASE_MS + 1))
    request = Request(body, key="8e03978e-40d5-43dd")
    later = engine_of(app).take([request])
    if later is not None:
        await later
    async with client(app) as http:
        results = body_of(await http.post("/v1/events", content=body, headers=KEY))["results"]
        assert [(r["status"], r["events"]) for r in results] == [("duplicate", count)] * count
        again = await http.post("/v1/events", content=body, headers=KEY)
        assert again.headers["idempotency-replayed"] == "true"
        assert body_of(await http.post("/v1/events", json=EVENT))["events"] == count + 1
    await engine_of(app).close()


async def test_events_that_came_before_without_the_key_do_not_speak_for_the_others(tmp_path: Path, store: str) -> None:
    """The last one, on its own and under a key before; the first ones have no id, or one that nobody knows."""
    app = start(tmp_path, store)
    async with client(app) as http:
        last = {**EVENT, "id": "last"}
        await http.post("/v1/events", json=last)
        await http.post("/v1/events", json=last, headers={"idempotency-key": "other"})
        events = [{**EVENT, "id": "first"}, EVENT, last]
        first = body_of(await http.post("/v1/events", json=events, headers=KEY))["results"]
        assert [(r["status"], r["events"]) for r in first] == [("folded", 2), ("folded", 3), ("duplicate", 3)]
        for number in range(9):  # what came under a key takes no place among the ids
            await http.post("/v1/events", json=EVENT, headers={"idempotency-key": f"another-{number}"})
        assert body_of(await http.post("/v1/events", json=last))["status"] == "duplicate"
    await engine_of(app).close()


async def test_a_key_is_forgotten_when_it_is_due(tmp_path: Path, store: str) -> None:
    app = start(tmp_path, store)
    engine = engine_of(app)
    async with client(app) as http:
        await http.post("/v1/events", json=EVENT, headers=KEY)
        now = time.time_ns() // 1_000_000
        await engine.upkeep.sweep(now + 23 * HOUR_MS)  # the session is over by then, the key is not
        await engine.upkeep.count()
        assert engine.metrics.records == 1
        replayed = await http.post("/v1/events", json=EVENT, headers=KEY)
        assert body_of(replayed) == {"session": body_of(replayed)["session"], "status": "duplicate", "events": 0}
        await engine.upkeep.sweep(now + 25 * HOUR_MS)
        await engine.upkeep.count()
        assert engine.metrics.records == 0
        assert await engine.upkeep.hand_over(now + 25 * HOUR_MS) == 1  # the session, and no key
    await engine.close()


@pytest.mark.slow
def test_keys_hold_when_two_workers_are_killed_under_load(own_service: Callable[..., Service]) -> None:
    """Each visitor's requests are sent again until they are answered; in the end every event counts once."""
    running = own_service("server.workers=2")
    acknowledged = {f"visitor-{number}": 0 for number in range(8)}
    stopping = threading.Event()

    def browse(visitor: str) -> None:
        while not stopping.is_set():
            number = acknowledged[visitor]
            # a connection each: both workers are asked
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
            body = json.dumps([{**EVENT, "visitor": visitor}] * 10)
            status = 0
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("POST", "/v1/events", body, {"idempotency-key": f"{visitor}-{number}"})
                status = connection.getresponse().status
            connection.close()
            assert status in (0, 200, 409)
            acknowledged[visitor] += status == 200
            if status != 200:
                time.sleep(0.1)

    threads = [threading.Thread(target=browse, args=(visitor,)) for visitor in acknowledged]
    for thread in threads:
        thread.start()

    def sent(count: int) -> None:
        deadline = time.monotonic() + 90
        while min(acknowledged.values()) < count:
            assert time.monotonic() < deadline, acknowledged
            time.sleep(0.05)

    sent(5)
    running.kill()
    running.start()
    sent(max(acknowledged.values()) + 1)
    stopping.set()
    for thread in threads:
        thread.join()
    for visitor, count in acknowledged.items():
        # a request whose answer was not waited for may have had its effect, too
        answer = running.http.post("/v1/events", json={**EVENT, "visitor": visitor}).json()
        assert answer["events"] == 10 * count + 1

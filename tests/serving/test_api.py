"""What HTTP asks for around the scores: ids of requests, CORS, methods, wishes of a query, without a network."""

from __future__ import annotations

import gzip
import http.client
import json
from pathlib import Path

import httpx
import pytest

from tests.serving.in_process import client, engine_of, start
from tests.workspace import Service

pytestmark = pytest.mark.anyio
EVENT = {"visitor": "jane", "name": "view_item", "item": "sku-1"}
SHOP = "https://shop.example"


@pytest.fixture
def asked(tmp_path: Path) -> httpx.AsyncClient:
    return client(start(tmp_path))


@pytest.fixture
def shop(tmp_path: Path) -> httpx.AsyncClient:
    return client(start(tmp_path, f'cors.origins=["{SHOP}"]'))


async def test_a_request_has_an_id(asked: httpx.AsyncClient) -> None:
    made = [(await asked.get("/v1/features")).headers["x-request-id"] for _ in range(3)]
    assert len(set(made)) == 3
    given = await asked.post("/v1/events", json=EVENT, headers={"x-request-id": "01J8-abc"})
    assert given.headers["x-request-id"] == "01J8-abc"
    for bad in ("two words", "x" * 129, "é"):
        answer = await asked.get("/nowhere", headers={"x-request-id": bad.encode()})  # type: ignore[dict-item]
        assert answer.headers["x-request-id"] != bad
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_listed_origins_may_read_answers(shop: httpx.AsyncClient) -> None:
    for answer in (
        await shop.post("/v1/events", json=EVENT, headers={"origin": SHOP}),
        await shop.post("/v1/events", json={}, headers={"origin": SHOP}),
        await shop.get("/nowhere", headers={"origin": SHOP}),
    ):
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "origin"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://shop.example.evil.example", "http://shop.example", "null", None])
async def test_other_origins_get_no_header_of_cors(shop: httpx.AsyncClient, origin: str | None) -> None:
    headers = {"origin": origin} if origin else {}
    asks = {**headers, "access-control-request-method": "POST"}
    for answer in (
        await shop.post("/v1/events", json=EVENT, headers=headers),
        await shop.options("/v1/events", headers=asks),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["vary"] == "origin"  # else a cache would hand it to a listed one


async def test_a_preflight_is_answered(shop: httpx.AsyncClient) -> None:
    asks = {"origin": SHOP, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    answer = await shop.options("/v1/events", headers=asks)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert {"content-type", "idempotency-key"} <= set(answer.headers["access-control-allow-headers"].split(", "))
    assert answer.headers["access-control-max-age"] == "7200"


async def test_credentials_and_every_origin_are_configured(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with_cookies = client(start(tmp_path / "a", f'cors.origins=["{SHOP}"]', "cors.credentials=true"))
    answer = await with_cookies.get("/v1/features", headers={"origin": SHOP})
    assert answer.headers["access-control-allow-credentials"] == "true"
    everybody = client(start(tmp_path / "b", 'cors.origins=["*"]'))
    answer = await everybody.get("/v1/features", headers={"origin": "https://any.example"})
    assert answer.headers["access-control-allow-origin"] == "*" and "vary" not in answer.headers


async def test_without_configuration_there_is_no_cors(asked: httpx.AsyncClient) -> None:
    answer = await asked.get("/v1/features", headers={"origin": SHOP})
    assert not [name for name in answer.headers if name.startswith("access-control") or name == "vary"]
    answer = await asked.options("/v1/events", headers={"origin": SHOP, "access-control-request-method": "POST"})
    assert (answer.status_code, answer.headers["allow"]) == (204, "POST, OPTIONS")


async def test_head_is_get_without_its_body(asked: httpx.AsyncClient) -> None:
    for path in ("/v1/features", "/v1/openapi.json", "/nowhere", "/v1/sessions/x"):
        got, head = await asked.get(path), await asked.head(path)
        assert head.status_code == got.status_code
        assert head.headers["content-type"] == got.headers["content-type"]
    assert (await asked.head("/v1/events")).headers["allow"] == "POST, OPTIONS"


async def test_wrong_paths_and_methods_are_problems(asked: httpx.AsyncClient) -> None:
    for path in ("/v1", "/v1/sessions", "/v1/sessions/a/b", "/v1/events/", "/v2/events"):
        answer = await asked.post(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    answer = await asked.delete("/v1/sessions/x/events")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.json()["detail"] == "DELETE is not allowed here; use GET"


async def test_before_the_models_are_there_it_is_worth_asking_again() -> None:
    from serving.app import App  # noqa: PLC0415

    answer = await client(App()).post("/v1/events", json=EVENT)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["title"] == "Not ready"


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("score=none", "unknown query parameter 'score'; known: scores, explain"),
        ("scores=few", "query parameter scores: found 'few', expected all or none"),
        ("explain=yes", "query parameter explain: found 'yes', expected true or false"),
        ("explain=true&scores=none", "explain=true explains scores, and scores=none asks for none"),
        ("&".join(f"a{number}=" for number in range(200)), "too many parameters"),
    ],
)
async def test_a_wish_that_is_not_known_is_told(asked: httpx.AsyncClient, query: str, detail: str) -> None:
    answer = await asked.post(f"/v1/events?{query}", json=EVENT)
    assert answer.status_code == 422 and detail in answer.json()["detail"]


async def test_events_are_folded_without_scores(asked: httpx.AsyncClient) -> None:
    answer = (await asked.post("/v1/events?scores=none", json=[EVENT, {**EVENT, "name": "add_to_cart"}])).json()
    assert [set(result) for result in answer["results"]] == [{"status", "events"}] * 2
    scored = (await asked.post("/v1/events?scores=all", json=EVENT)).json()
    assert scored["events"] == 3 and scored["scores"] and scored["session"]


async def test_a_beacon_of_a_browser_is_taken(asked: httpx.AsyncClient) -> None:
    """sendBeacon sends text as text/plain; compressed it is as good."""
    body = json.dumps(EVENT).encode()
    sent = {"content-type": "text/plain;charset=UTF-8"}
    assert (await asked.post("/v1/events", content=body, headers=sent)).json()["events"] == 1
    packed = {**sent, "content-encoding": "gzip"}
    assert (await asked.post("/v1/events", content=gzip.compress(body), headers=packed)).json()["events"] == 2


async def test_a_failing_store_is_told_without_anything_of_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody has thought of: the answer names the request, the log names the code, nobody the visitor."""
    app = start(tmp_path)

    def fails(*_: object) -> None:
        raise RuntimeError("no one has thought of this")

    monkeypatch.setattr(engine_of(app).store, "apply", fails)
    answer = await client(app).post("/v1/events", json={**EVENT, "visitor": "secret-person"})
    assert answer.status_code == 500 and answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "no one has thought" not in answer.text and "secret-person" not in caplog.text
    assert "/v1/events" in caplog.text


def test_connections_are_kept(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.connect()
    socket = connection.sock
    for status, body in ((200, json.dumps(EVENT)), (422, "{}"), (200, json.dumps(EVENT))):
        connection.request("POST", "/v1/events", body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status and connection.sock is socket
    connection.close()

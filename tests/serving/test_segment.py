"""Segment's calls through the application: beside our own paths, compressed, again and again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.app import App
from tests.serving.in_process import client, engine_of, start

pytestmark = pytest.mark.anyio
SHOP = "https://shop.example"
VIEW = {"type": "track", "event": "Product Viewed", "anonymousId": "anon-1", "properties": {"product_id": "P1"}}
SUCCESS = {"success": True}


@pytest.fixture
def app(tmp_path: Path) -> App:
    return start(tmp_path)


async def post(http: httpx.AsyncClient, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    basic = {"authorization": "Basic V0s6", "origin": SHOP}
    return await http.post(path, content=content, headers={**basic, **headers})


async def test_a_call_that_is_sent_again_counts_once(app: App) -> None:
    http, metrics = client(app), engine_of(app).metrics
    for retry in range(3):
        answer = await post(http, "/v1/t", {**VIEW, "messageId": "m1"}, **{"x-retry-count": str(retry)})
        assert (answer.status_code, answer.json()) == (200, SUCCESS)
    order = {"products": [{"product_id": "P1"}, {"product_id": "P2"}], "total": 3}
    wire = {**VIEW, "event": "Order Completed", "messageId": "m2", "properties": order}
    for _ in range(2):
        await post(http, "/v1/batch", {"batch": [wire]})
    assert metrics.events == {"started": 1, "folded": 2, "duplicate": 4}


async def test_a_compressed_batch_with_a_bad_call_keeps_the_others(app: App) -> None:
    http, metrics = client(app), engine_of(app).metrics
    calls = [
        VIEW,
        {**VIEW, "timestamp": "yesterday"},
        {**VIEW, "type": "identify"},
        {**VIEW, "properties": {"price": "x"}},
    ]
    body = gzip.compress(json.dumps({"batch": [*calls, VIEW]}).encode())
    answer = await post(http, "/v1/batch", body, **{"content-encoding": "gzip"})
    assert answer.json() == SUCCESS
    assert metrics.events == {"started": 1, "folded": 1}
    reasons = ("bad time", "bad price", "identify: no step of a visitor")
    assert metrics.dropped == {("segment", reason): 1 for reason in reasons}


async def test_our_own_paths_stay_ours(app: App) -> None:
    http = client(app)
    answer = await http.post("/v1/events", json={"visitor": "anon-1", "name": "page_view"})
    assert answer.json()["status"] == "started"
    assert (await http.get("/v1/features")).status_code == 200
    assert (await http.get(f"/v1/sessions/{answer.json()['session']}")).json()["events"] == 1
    # the other way is the same visitor's
    await post(http, "/v1/s", {"anonymousId": "anon-1", "name": "Home"})
    assert (await http.get(f"/v1/sessions/{answer.json()['session']}")).json()["events"] == 2
    assert (await http.get("/v1/t")).status_code == 405
    assert (await http.post("/v1/unknown")).status_code == 404


async def test_a_browser_may_ask_and_read(app: App) -> None:
    http = client(app)
    asked = {"origin": SHOP, "access-control-request-method": "POST"}
    answer = await http.options(
        "/v1/t", headers={**asked, "access-control-request-headers": "authorization,x-retry-count"}
    )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-headers"] == "authorization,x-retry-count"
    for answer in (
        await http.get("/v1/projects/WK/settings", headers={"origin": SHOP}),
        await post(http, "/v1/t", VIEW),
        await post(http, "/v1/t", b"{"),
    ):
        assert answer.headers["access-control-allow-origin"] == SHOP
    assert (answer.status_code, answer.json()["message"]) == (400, "malformed JSON")


async def test_keys_of_ours_are_not_asked_for(app: App) -> None:
    gate = app.gate
    assert gate is not None
    gate._required = True
    http = client(app)
    assert (await http.post("/v1/events", json={"visitor": "x", "name": "page_view"})).status_code == 401
    assert (await post(http, "/v1/t", VIEW)).status_code == 200
    assert (await http.get("/v1/projects/WK/settings")).status_code == 200

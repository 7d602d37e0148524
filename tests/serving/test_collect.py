"""Trackers' requests through the application: folded like every event, answered their own way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.app import App
from serving.collect import Collected, Endpoint, Hit
from serving.http.call import Reply
from serving.intake import EventIn
from serving.requests import Request
from tests.serving.in_process import client, engine_of, start

pytestmark = pytest.mark.anyio
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
SHOP = "https://shop.example"
VIEW = {"n": "pageview", "u": f"{SHOP}/p/1", "d": "shop.example"}
HEADERS = {"user-agent": AGENT, "origin": SHOP, "content-type": "text/plain"}


@pytest.fixture
def app(tmp_path: Path) -> App:
    return start(tmp_path)


async def post(http: httpx.AsyncClient, wire: object, **headers: str) -> httpx.Response:
    return await http.post("/api/event", content=json.dumps(wire), headers={**HEADERS, **headers})


async def test_a_tracker_s_events_are_folded(app: App) -> None:
    http, metrics = client(app), engine_of(app).metrics
    answers = [await post(http, VIEW) for _ in range(3)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(202, "ok")] * 3
    assert metrics.events == {"started": 1, "folded": 2}
    assert metrics.requests == {("plausible", 202): 3}
    # another browser is another visitor
    await post(http, VIEW, **{"user-agent": AGENT.replace("156", "155")})
    assert metrics.events["started"] == 2


async def test_pages_read_answers_with_credentials(app: App) -> None:
    http = client(app)
    answer = await post(http, VIEW)
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-allow-credentials"] == "true"
    asked = {"origin": SHOP, "access-control-request-method": "POST", "access-control-request-headers": "x-own, b"}
    answer = await http.options("/api/event", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-headers"] == "x-own, b"
    assert answer.headers["access-control-allow-methods"] == "POST, OPTIONS"


async def test_listed_origins_hold_for_trackers_too(tmp_path: Path) -> None:
    http = client(start(tmp_path, 'cors.origins=["https://other.example"]'))
    answer = await post(http, VIEW)
    assert answer.status_code == 202
    assert [name for name in answer.headers if name.startswith("access-control")] == []
    assert answer.headers.get_list("vary") == ["origin"]


async def test_what_cannot_be_used_is_counted_by_reason(app: App) -> None:
    http, metrics = client(app), engine_of(app).metrics
    assert (await post(http, [])).status_code == 400
    dropped = await post(http, VIEW, **{"user-agent": "Googlebot/2.1"})
    assert (dropped.status_code, dropped.headers["x-plausible-dropped"]) == (202, "1")
    assert metrics.dropped == {("plausible", "no JSON object"): 1, ("plausible", "a program"): 1}
    assert not metrics.events
    text = metrics.text().decode()
    assert 'lotse_dropped_events_total{reason="a program",tracker="plausible"} 1.0' in text


async def test_one_bad_event_does_not_lose_the_others(app: App) -> None:
    """An adapter of the test's own: one event breaks the contract."""

    class Own:
        def endpoint(self, path: str) -> Endpoint | None:
            return Endpoint(("POST",), self.read, self.answer) if path == "/own" else None

        def read(self, hit: Hit) -> Collected:
            wires = [EventIn(visitor=f"v{number}", name=name) for number, name in enumerate(hit.body.decode().split())]
            return Collected(wires)

        def answer(self, hit: Hit, collected: Collected, answers: object) -> Reply:
            assert isinstance(answers, list)
            return Reply(b"text/plain", b"%d %d" % (len(answers), len(collected.dropped)))

    collector = app.collector
    assert collector is not None
    collector.trackers["own"] = Own()
    http, metrics = client(app), engine_of(app).metrics
    assert (await http.post("/own", content="page_view nonsense search")).text == "2 1"
    assert metrics.dropped == {("own", "bad name"): 1}
    assert metrics.events == {"started": 2}


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"price": float("nan")}, "bad price"),
        ({"quantity": -1.0}, "bad quantity"),
        ({"value": 1e12}, "bad value"),
        ({"value": "12"}, "bad event"),
        ({"utc_offset": 2_000}, "bad utc_offset"),
        ({"currency": "XXX"}, "bad currency"),
        ({"item": "\ud800"}, "bad event"),
        ({"time": "yesterday"}, "bad time"),
    ],
)
async def test_an_adapter_cannot_break_the_contract(app: App, made: dict[str, Any], reason: str) -> None:
    """What anybody sends may get into its events; the others of the request are kept."""
    request = Request(b"")
    request.wires = [EventIn(visitor="v", name="search"), EventIn(visitor="v", name="search", **made)]
    engine_of(app).take([request])
    assert (len(request.events), request.dropped) == (1, [reason])
    assert engine_of(app).metrics.events == {"started": 1}


async def test_other_methods_and_paths_are_refused_as_ever(app: App) -> None:
    http = client(app)
    assert (await http.get("/api/event")).status_code == 405
    assert (await http.get("/api/events")).status_code == 404


async def test_trackers_need_no_key(app: App) -> None:
    gate = app.gate
    assert gate is not None
    gate._required = True
    http = client(app)
    assert (await http.post("/v1/events", json={"visitor": "x", "name": "page_view"})).status_code == 401
    assert (await post(http, VIEW)).status_code == 202


async def test_pages_read_why_they_are_refused(tmp_path: Path) -> None:
    """Without the headers of CORS a page sees an error of the network, and cannot know when to try again."""
    limits = ('limits.trusted_proxies=["127.0.0.1"]', "limits.address_events_per_second=1", "limits.burst_seconds=1")
    app = start(tmp_path, *limits, "server.body_limit_bytes=1000")
    http, somebody = client(app), {"x-forwarded-for": "203.0.113.9"}
    assert (await post(http, VIEW, **somebody)).status_code == 202
    too_many = await post(http, VIEW, **somebody)
    assert too_many.headers["retry-after"] == "1"
    too_long = await post(http, {**VIEW, "r": "x" * 1_100})
    other_method = await http.get("/api/event", headers=HEADERS)
    app._engine = None
    starting = await post(http, VIEW)
    refusals = [too_many, too_long, other_method, starting]
    assert [each.status_code for each in refusals] == [429, 413, 405, 503]
    for each in refusals:
        assert each.headers["content-type"] == "application/problem+json"
        assert each.headers["access-control-allow-origin"] == SHOP
        assert each.headers["access-control-allow-credentials"] == "true"
        assert "Retry-After" in each.headers["access-control-expose-headers"]


async def test_pages_of_other_origins_do_not(tmp_path: Path) -> None:
    http = client(start(tmp_path, 'cors.origins=["https://other.example"]', "server.body_limit_bytes=1000"))
    refused = await post(http, {**VIEW, "r": "x" * 1_100})
    assert refused.status_code == 413
    assert [name for name in refused.headers if name.startswith("access-control")] == []

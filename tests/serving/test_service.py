"""The running service over HTTP: answers, errors, sessions, metrics, documents."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from features.definitions import CATALOGUE
from tests.workspace import Service

HEADS = {"bounce", "conversion", "exit"}
EVENT = {"visitor": "jane", "name": "view_item", "item": "sku-1"}


@pytest.fixture
def visitor() -> Iterator[str]:
    yield f"visitor-{time.time_ns()}"


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status and document["title"] and document["detail"]
    return document


def test_an_event_is_answered_with_its_sessions_scores(service: Service, visitor: str) -> None:
    first = service.http.post("/v1/events", json={**EVENT, "visitor": visitor})
    assert first.status_code == 200
    answer = first.json()
    assert set(answer["scores"]) == set(answer["models"]) == HEADS
    assert all(0 < score < 1 for score in answer["scores"].values())
    assert (answer["status"], answer["events"]) == ("started", 1)
    second = service.http.post("/v1/events", json={**EVENT, "visitor": visitor, "name": "add_to_cart"}).json()
    assert (second["status"], second["events"], second["session"]) == ("folded", 2, answer["session"])
    assert second["decided"] == ["bounce"] and second["scores"]["bounce"] == 0.0
    bought = service.http.post("/v1/events", json={**EVENT, "visitor": visitor, "name": "purchase"}).json()
    assert bought["scores"]["conversion"] == 1.0 and "conversion" in bought["decided"]


def test_an_array_is_answered_in_its_order(service: Service, visitor: str) -> None:
    events = [{**EVENT, "visitor": f"{visitor}-{i % 2}", "id": f"{visitor}{i}"} for i in range(6)]
    results = service.http.post("/v1/events", json=[*events, events[0]]).json()["results"]
    assert [r["events"] for r in results] == [1, 1, 2, 2, 3, 3, 3]
    assert [r["status"] for r in results] == ["started", "started", "folded", "folded", "folded", "folded", "duplicate"]
    assert service.http.post("/v1/events", json=[]).json() == {"results": []}


def test_array_and_single_events_score_alike(service: Service, visitor: str) -> None:
    now = time.time_ns() // 1_000_000
    events = [{**EVENT, "time": now - 60_000 + i * 7_000, "item": f"sku-{i}"} for i in range(8)]
    one_by_one = [service.http.post("/v1/events", json={**e, "visitor": f"{visitor}-a"}).json() for e in events]
    at_once = service.http.post("/v1/events", json=[{**e, "visitor": f"{visitor}-b"} for e in events]).json()["results"]
    assert [a["scores"] for a in one_by_one] == [a["scores"] for a in at_once]


def test_a_session_is_scored_as_of_now(service: Service, visitor: str) -> None:
    now = time.time_ns() // 1_000_000
    sent = service.http.post("/v1/events", json={**EVENT, "visitor": visitor, "time": now - 600_000}).json()
    looked = service.http.get(f"/v1/sessions/{sent['session']}").json()
    assert looked["status"] == "read" and looked["events"] == 1
    assert looked["scores"]["exit"] > sent["scores"]["exit"]  # ten minutes of silence


def test_tokens_are_the_only_way_to_a_session(service: Service, visitor: str) -> None:
    token = service.http.post("/v1/events", json={**EVENT, "visitor": visitor}).json()["session"]
    problem(service.http.get(f"/v1/sessions/{token[:-4]}AAAA"), 401)
    problem(service.http.get("/v1/sessions/"), 401)
    old = time.time_ns() // 1_000_000 - 3_600_000
    over = service.http.post("/v1/events", json={**EVENT, "visitor": f"{visitor}-old", "time": old}).json()["session"]
    assert "is over" in problem(service.http.get(f"/v1/sessions/{over}"), 404)["detail"]


def test_given_rows_are_scored(service: Service) -> None:
    row: dict[str, float | None] = dict.fromkeys(CATALOGUE.features, 1.0) | {"visits_before": None}
    answer = service.http.post("/v1/score", json={"rows": [row, row]}).json()
    assert set(answer["scores"][0]) == HEADS and answer["scores"][0] == answer["scores"][1]
    assert service.http.post("/score", json={"rows": [row]}).json() == [answer["scores"][0]]  # BentoML's own client
    assert service.http.post("/describe", json={}).json()["feature_digest"]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ("{}", 422, "no rows"),
        ("[]", 422, "no rows"),
        ('{"rows": [1]}', 422, "row 0: expected an object"),
        ('{"rows": [{}]}', 422, "row 0: the feature 'events' is missing"),
        ("nonsense", 400, "not JSON"),
    ],
)
def test_bad_rows_are_named(service: Service, body: str, status: int, detail: str) -> None:
    assert detail in problem(service.http.post("/v1/score", content=body), status)["detail"]


def test_a_bad_feature_is_named(service: Service) -> None:
    row: dict[str, object] = dict.fromkeys(CATALOGUE.features, 1.0)
    for bad, detail in (({"events": "many"}, "events is not a number"), ({"height": 3}, "unknown feature 'height'")):
        found = problem(service.http.post("/v1/score", json={"rows": [row, {**row, **bad}]}), 422)
        assert f"row 1: {detail}" in found["detail"]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "not JSON"),
        (b"not json", 400, "not JSON"),
        (b'{"visitor": "jane", "name": "page_view"', 400, "not JSON"),
        (b'"text"', 422, "event"),
        (b"7", 422, "event"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"visitor": "jane", "name": "page_view", "price": NaN}', 400, "not JSON"),
        (b'{"visitor": "jane", "name": "view_item", "quantity": -1}', 422, "field quantity: found -1"),
        (b'{"visitor": "jane", "name": "buy"}', 422, "map it in configs/shop.toml"),
        (b'{"visitor": "jane", "name": "view_item", "time": "soon"}', 422, "field time: found 'soon'"),
        (b'{"name": "view_item"}', 422, "field visitor"),
        (b'{"visitor": "jane", "name": "view_item", "ip": "10.1.2.3"}', 422, "field ip"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"visitor": "jane", "name": ' + b"[" * 50_000, 422, "field name"),
        (b'[{"visitor": "jane", "name": "page_view"}, 3]', 422, "event 1"),
    ],
)
def test_a_bad_body_is_refused_with_its_place(service: Service, body: bytes, status: int, detail: str) -> None:
    assert detail in problem(service.http.post("/v1/events", content=body), status)["detail"]


def test_every_bad_event_of_an_array_is_told_and_none_is_folded(service: Service, visitor: str) -> None:
    good = {**EVENT, "visitor": visitor}
    found = problem(service.http.post("/v1/events", json=[good, {**good, "price": -1}, good, {**good, "name": 7}]), 422)
    assert [(e["index"], e["field"]) for e in found["errors"]] == [(1, "price"), (3, "name")]
    assert service.http.post("/v1/events", json=good).json()["events"] == 1
    too_many = [good] * 1_001
    assert "at most 1000" in problem(service.http.post("/v1/events", json=too_many), 422)["detail"]


def test_ten_megabytes_are_refused_and_the_service_goes_on(service: Service, visitor: str) -> None:
    body = json.dumps({**EVENT, "visitor": visitor, "item": "x" * 10_000_000})
    problem(service.http.post("/v1/events", content=body), 413)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536].encode()

    with contextlib.suppress(httpx.TransportError):  # it may be closed before all is sent
        problem(service.http.post("/v1/events", content=chunks()), 413)  # without a length it is refused as it comes
    assert service.http.post("/v1/events", json={**EVENT, "visitor": visitor}).status_code == 200


def test_values_of_a_person_are_not_repeated(service: Service) -> None:
    for field in ("visitor", "session", "id"):
        bad = {**EVENT, field: "jane@example.org" * 100}
        assert "jane" not in service.http.post("/v1/events", json=bad).text


def test_wrong_methods_and_paths(service: Service) -> None:
    answer = service.http.get("/v1/events")
    assert "use POST" in problem(answer, 405)["detail"] and answer.headers["allow"] == "POST, OPTIONS"
    assert service.http.delete("/v1/sessions/x").headers["allow"] == "GET, HEAD, OPTIONS"
    problem(service.http.get("/v2/events"), 404)
    problem(service.http.post("/v1/events", content=b"x", headers={"content-encoding": "gzip"}), 400)
    problem(service.http.post("/v1/events", content=b"x", headers={"content-encoding": "zstd"}), 415)


def test_health_metrics_and_documents(service: Service, visitor: str) -> None:
    service.http.post("/v1/events", json={**EVENT, "visitor": visitor})
    assert service.http.get("/livez").status_code == service.http.get("/readyz").status_code == 200
    text = service.http.get("/metrics").text
    for line in (
        'lotse_events_total{status="started"}',
        'lotse_score_bucket{head="exit",le="0.1"}',
        "lotse_events_seconds_count",
        'lotse_model_info{head="bounce",version="1"} 1.0',
        'lotse_requests_total{path="/v1/events",status="200"}',
    ):
        assert line in text
    assert service.http.get("/v1/openapi.json").json()["openapi"] == "3.1.0"
    features = service.http.get("/v1/features").json()
    assert features["features"] == list(CATALOGUE.features) and set(features["heads"]) == HEADS


def test_requests_that_come_together_and_half_are_answered(service: Service, visitor: str) -> None:
    """Pipelined requests on one connection, and a client that goes away in the middle of its body."""
    body = json.dumps({**EVENT, "visitor": visitor}).encode()
    head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port)) as half:
        half.sendall(head % 500 + body)
    with socket.create_connection(("127.0.0.1", service.port)) as whole:
        whole.sendall((head % len(body) + body) * 3)
        received = b""
        while received.count(b'"session"') < 3:
            part = whole.recv(65_536)
            assert part
            received += part
    assert service.http.post("/v1/events", json={**EVENT, "visitor": visitor}).json()["events"] == 4


@pytest.mark.slow
def test_without_models_priors_are_answered_and_the_reason_is_told(tmp_path: Path) -> None:
    from tests.workspace import workspace  # noqa: PLC0415

    running = Service(workspace(tmp_path / "work")).start()
    try:
        answer = running.http.post("/v1/events", json=EVENT).json()
        assert answer["scores"] == {"bounce": 0.4, "conversion": 0.03, "exit": 0.2}
        assert answer["reasons"] == dict.fromkeys(sorted(HEADS), "no_model")
        assert "run lotse train" in running.log.read_text()
    finally:
        running.stop()

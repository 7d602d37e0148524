"""Nothing acknowledged is lost: kill -9 of every process, and an ordinary restart, in the middle of sessions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from tests.workspace import Service

pytestmark = pytest.mark.slow


def event(visitor: str, number: int) -> dict[str, object]:
    return {"visitor": visitor, "name": "view_item", "item": f"sku-{number}", "id": f"{visitor}-{number}"}


def test_a_session_survives_a_restart_and_a_kill(own_service: Callable[..., Service]) -> None:
    running = own_service()
    now = time.time_ns() // 1_000_000 - 600_000
    steps = [{**event("jane", n), "time": now + n * 9_000} for n in range(6)]
    whole = running.http.post("/v1/events", json=[{**s, "visitor": "john"} for s in steps]).json()["results"]
    found = [running.http.post("/v1/events", json=step).json() for step in steps[:2]]
    running.stop()
    running.start()
    found += [running.http.post("/v1/events", json=step).json() for step in steps[2:4]]
    running.kill()
    running.start()
    found += [running.http.post("/v1/events", json=step).json() for step in steps[4:]]
    assert [f["events"] for f in found] == [1, 2, 3, 4, 5, 6]
    assert [f["scores"] for f in found] == [w["scores"] for w in whole]
    assert len({f["session"] for f in found}) == 1


def test_no_acknowledged_event_is_lost_when_killed_under_load(own_service: Callable[..., Service]) -> None:
    """Eight clients send while the service is killed; each sends its open event again, and every event counts once."""
    running = own_service()
    acknowledged = dict.fromkeys((f"visitor-{n}" for n in range(8)), 0)

    def browse(visitor: str) -> None:
        with httpx.Client(base_url=running.http.base_url, timeout=5) as client:
            while True:
                try:
                    answer = client.post("/v1/events", json=event(visitor, acknowledged[visitor]))
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                acknowledged[visitor] += 1

    threads = [threading.Thread(target=browse, args=(visitor,)) for visitor in acknowledged]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    # on a busy machine it takes longer until there is enough to lose
    deadline = time.monotonic() + 60
    while sum(acknowledged.values()) <= 100 and time.monotonic() < deadline:
        time.sleep(0.05)
    running.kill()
    for thread in threads:
        thread.join(20)
    assert sum(acknowledged.values()) > 100
    running.start()
    for visitor, count in acknowledged.items():
        # the event whose answer never came: folded or not, it counts once
        answer = running.http.post("/v1/events", json=event(visitor, count)).json()
        assert answer["events"] == count + 1, (visitor, answer)


def test_closed_sessions_are_swept(own_service: Callable[..., Service]) -> None:
    running = own_service("store.sweep_seconds=0.5")
    old = time.time_ns() // 1_000_000 - 2_400_000
    running.http.post("/v1/events", json={**event("gone", 1), "time": old})
    running.http.post("/v1/events", json={**event("linked", 1), "time": old, "consent": ["measure", "link"]})
    running.http.post("/v1/events", json=event("here", 1))
    deadline = time.monotonic() + 10
    while "lotse_swept_records_total 1.0" not in (text := running.http.get("/metrics").text):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "lotse_session_records 2.0" in text


def test_nothing_personal_is_on_disk(own_service: Callable[..., Service]) -> None:
    """A canary in every text field is found in no file of the data folder and in no log."""
    running = own_service("store.size_gib=0.05")  # the file is as long as it may grow, and all of it is searched
    canary = "canary.jane@example.org"
    fields = {"visitor": canary, "session": canary, "id": canary, "item": canary, "category": canary}
    page = f"https://shop.example/u/{canary}?token={canary}#{canary}"
    answer = running.http.post("/v1/events", json={**fields, "page": page, "name": "page_view"})
    assert answer.status_code == 200 and canary not in answer.text
    for field in ("name", "channel", "currency", "email"):
        running.http.post("/v1/events", json={"visitor": "x", "name": "page_view", field: canary})
    assert canary not in running.http.get("/metrics").text
    running.stop()
    files = [path for path in running.folder.rglob("*") if path.is_file() and "configs" not in path.parts]
    assert any(path.name == "data.mdb" for path in files)
    for path in files:
        content = path.read_bytes()
        assert canary.encode() not in content and b"127.0.0.1:" not in content.replace(
            f"http://127.0.0.1:{running.port}".encode(), b""
        ), path

"""Nothing acknowledged is lost: kill -9 of every process, and an ordinary restart, in the middle of sessions."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pyarrow.parquet as pq
import pytest

from benchmarks.kills import service_rounds
from serving.stores import Batch
from serving.stores.restart import damaged_files_put_aside
from tests.serving.in_process import open_engine, post
from tests.workspace import ROOT, Service

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


def test_no_acknowledged_event_is_lost_when_a_worker_or_the_supervisor_is_killed(
    own_service: Callable[..., Service],
) -> None:
    """Eight clients go on sending, each its open event again, while one after the other is killed."""
    running = own_service("server.workers=2")
    assert service_rounds(running, running.folder, ["worker", "supervisor"]) > 100


def test_workers_killed_at_random_moments_and_power_cuts_lose_nothing() -> None:
    """The short version of what benchmarks/durability.py does a thousand times."""
    command = [sys.executable, "-m", "benchmarks.durability", "--rounds", "30", "--service-rounds", "0"]
    done = subprocess.run(
        [*command, "--cuts", "300", "--runs", "0"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    assert "27 rounds of kill -9 of workers, durability process" in told
    assert "3 rounds of kill -9 of workers, durability disk" in told
    assert "segments used again: 0 damaged stores, 0 without an acknowledged write" in told


MINUTE_MS = 60_000
START = 1_780_000_000_000


def handed_on(folder: Path) -> list[dict[str, Any]]:
    """Every line of every file of sessions that are over, the earliest first."""
    files = sorted((folder / "closed").rglob("*.parquet"))
    lines = [line for file in files for line in pq.ParquetFile(file).read().to_pylist()]
    return sorted(lines, key=lambda line: (line["started_at"], line["visitor"]))


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_session_is_handed_on_once_when_nothing_came_for_a_timeout(
    trained: Path, tmp_path: Path, durability: str
) -> None:
    async def run() -> None:
        engine = open_engine(trained, tmp_path, f'store.durability="{durability}"')
        linked = {**event("linked", 1), "consent": ["measure", "link"]}
        # old events arrive now: when they happened does not end a session
        gone = [{**event("gone", n), "time": START - 50 * MINUTE_MS + n} for n in range(2)]
        await post(engine, [gone, [linked]], START)
        await post(engine, [[{**event("here", 1), "name": "add_to_cart"}]], START + 20 * MINUTE_MS)
        over = START + 30 * MINUTE_MS
        assert await engine.upkeep.sweep(over - 1) == 0 and await engine.upkeep.hand_over(over - 1) == 0
        assert await engine.upkeep.sweep(over) == 1  # `gone` is forgotten, `linked` is kept for a later visit
        await engine.upkeep.count()
        assert engine.metrics.records == 2
        assert await engine.upkeep.hand_over(over) == 2
        lines = handed_on(tmp_path)
        assert [(line["started_at"], line["ended_at"], line["events"], line["item_views"]) for line in lines] == [
            (gone[0]["time"], gone[1]["time"], 2, 2), (START, START, 1, 1),
        ]  # fmt: skip
        assert [line["consent"] for line in lines] == [1, 3]
        assert await engine.upkeep.sweep(over) == 0 and await engine.upkeep.hand_over(over) == 0
        await engine.close()

        engine = open_engine(trained, tmp_path, f'store.durability="{durability}"')
        assert await engine.upkeep.sweep(over) == 0 and await engine.upkeep.hand_over(over) == 0
        assert handed_on(tmp_path) == lines
        # what a late event of the session that is over begins is another one, which knows the first
        ((again,),) = await post(engine, [[{**linked, "id": "late", "time": START + 1}]], over + 1)
        assert (again.status, again.events) == ("started", 1)
        later = over + 31 * MINUTE_MS
        assert await engine.upkeep.sweep(later) == 1 and await engine.upkeep.hand_over(later) == 2
        assert sorted((line["cart_adds"], line["visitor_visits"]) for line in handed_on(tmp_path)[2:]) == [
            (0, 2), (1, 1),
        ]  # fmt: skip
        assert len(handed_on(tmp_path)) == 4
        assert await engine.upkeep.sweep(later + 390 * 24 * 60 * MINUTE_MS) == 1
        await engine.upkeep.count()
        assert engine.metrics.records == 0
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("written", [False, True])
def test_a_worker_that_died_while_handing_on_loses_and_doubles_nothing(
    trained: Path, tmp_path: Path, written: bool
) -> None:
    async def run() -> None:
        engine = open_engine(trained, tmp_path)
        await post(engine, [[event(f"visitor-{n}", n)] for n in range(5)], START)
        over = START + 30 * MINUTE_MS
        assert await engine.upkeep.sweep(over) == 5
        batch = engine.store.claim(100, over, MINUTE_MS)
        assert isinstance(batch, Batch) and len(batch.sessions) == 5
        if written:
            engine.sink.write(batch)
        await engine.close()  # the batch was never settled
        engine = open_engine(trained, tmp_path)
        assert await engine.upkeep.hand_over(over + MINUTE_MS - 1) == 0  # its worker may still be at it
        assert await engine.upkeep.hand_over(over + MINUTE_MS) == 5
        assert await engine.upkeep.hand_over(over + 9 * MINUTE_MS) == 0
        assert len(handed_on(tmp_path)) == len({line["visitor"] for line in handed_on(tmp_path)}) == 5
        await engine.close()

    asyncio.run(run())


def test_a_file_that_a_power_cut_damaged_is_put_aside_at_the_next_start_of_the_machine(tmp_path: Path) -> None:
    with (
        damaged_files_put_aside(tmp_path, "one start"),
        lmdb.open(str(tmp_path), map_size=1_000_000) as store,
        store.begin(write=True) as transaction,
    ):
        for number in range(300):
            transaction.put(b"%d" % number, bytes(500))
    file = tmp_path / "data.mdb"
    with damaged_files_put_aside(tmp_path, "another start"):
        assert file.exists()  # it is whole
    content = bytearray(file.read_bytes())
    content[3 * 4096 : 20 * 4096] = bytes(17 * 4096)
    file.write_bytes(content)
    with damaged_files_put_aside(tmp_path, "another start"):
        assert file.exists()  # nobody looks where the machine did not start anew
    with damaged_files_put_aside(tmp_path, "a third start"):
        assert not file.exists()
    assert [path.read_bytes() for path in tmp_path.glob("damaged-*.mdb")] == [bytes(content)]


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

"""While the store is away the answer still comes, says so, and nothing acknowledged is lost or counted twice."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.engine import Engine
from serving.problems import Problem
from serving.replay import replay
from serving.requests import Answer
from tests.engine import open_engine, post
from tests.redis_server import RedisServer, redis_server
from tests.serving.in_process import client, engine_of, start
from tests.serving.proxy import Proxy

START = 1_780_000_000_000
VISITORS = ("jane", "john", "juan")
NAMES = ("page_view", "view_item", "add_to_cart", "search", "view_cart")
# An answer is due after half a second; a machine that is busy with other things may need ten times that.
DEADLINE_SECONDS = 0.5
PATIENCE_SECONDS = 10 * DEADLINE_SECONDS


def event(visitor: str, number: int) -> dict[str, Any]:
    """One of a visitor's events, without an id."""
    return {
        "visitor": visitor, "name": NAMES[number % len(NAMES)], "item": f"sku-{number % 3}", "price": 1 + number,
        "time": START + 3_000 * number,
    }  # fmt: skip


def received(number: int) -> int:
    return START + 3_000 * number + 500


async def one(engine: Engine, visitor: str, number: int) -> Answer:
    """The answer to one event."""
    ((answer,),) = await post(engine, [[event(visitor, number)]], received(number))
    return answer


async def several(engine: Engine, visitor: str, numbers: range) -> list[Answer]:
    """The answers to a visitor's events that came as an array."""
    (answers,) = await post(engine, [[event(visitor, number) for number in numbers]], received(numbers[-1]))
    return answers


async def drained(engine: Engine) -> None:
    """What the service does again and again, until the store has everything."""
    async with asyncio.timeout(60):
        while engine.metrics.buffered_events:
            await replay(engine)
            await asyncio.sleep(0.02)


LAST = 7


@pytest.fixture(scope="module")
def undisturbed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """What the last event of each visitor is answered with where nothing ever failed."""

    async def run() -> list[Answer]:
        engine = open_engine(trained, tmp_path_factory.mktemp("undisturbed"), "store.url=memory:")
        for number in range(LAST):
            for visitor in VISITORS:
                await one(engine, visitor, number)
        answers = [await one(engine, visitor, LAST) for visitor in VISITORS]
        await engine.close()
        return answers

    return asyncio.run(run())


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@asynccontextmanager
async def outage(kind: str, server: RedisServer, proxy: Proxy) -> AsyncIterator[None]:
    """The store is away in one way or another."""
    if kind == "paused":
        server.pause()
        yield
        server.resume()
    elif kind == "killed":
        server.kill()
        yield
        await asyncio.to_thread(server.start)
    else:
        proxy.turn(kind)  # type: ignore[arg-type]
        yield
        proxy.turn("well")


@pytest.mark.parametrize("kind", ["paused", "killed", "black hole", "mute", "slow", "reset"])
def test_events_are_answered_while_the_store_is_away_and_counted_once_when_it_is_back(
    trained: Path, tmp_path: Path, redis: RedisServer, undisturbed: list[Answer], kind: str
) -> None:
    async def run() -> None:
        proxy = Proxy(redis.port)
        await proxy.start()
        prefix = f"t{time.time_ns()}"
        engine = open_engine(
            trained, tmp_path, f"store.url=redis://127.0.0.1:{proxy.port}/0", f"store.prefix={prefix}",
            f"store.spool={tmp_path}/spool", f"store.deadline_seconds={DEADLINE_SECONDS}", "store.retry_seconds=0.05",
        )  # fmt: skip
        answers = [await one(engine, visitor, number) for number in range(3) for visitor in VISITORS]
        assert {answer.reason for answer in answers} == {""}
        longest = 0.0
        async with outage(kind, redis, proxy):
            for number in range(3, LAST):
                begin = time.perf_counter()
                found = await asyncio.gather(one(engine, VISITORS[0], number), one(engine, VISITORS[1], number))
                if number % 2:  # an array is one visit of two events
                    found += await several(engine, VISITORS[2], range(number, number + 2))
                longest = max(longest, time.perf_counter() - begin)
                assert {answer.reason for answer in found} == {"store_unreachable"}
                # each knows its own request's events only
                assert [answer.events for answer in found] == ([1, 1, 1, 2] if number % 2 else [1, 1])
                assert all(answer.scores.keys() == {"bounce", "conversion", "exit"} for answer in found)
            assert engine.metrics.buffered_events == 12
            assert engine.metrics.store_errors["/v1/events"] >= 1
            assert engine.metrics.fallbacks["exit", "store_unreachable"] == 12
            assert await replay(engine) == 0
        assert longest < PATIENCE_SECONDS
        await drained(engine)
        last = [await one(engine, visitor, LAST) for visitor in VISITORS]
        # the same number of events, and scores that depend on their order
        assert [(answer.events, answer.scores, answer.reason) for answer in last] == [
            (answer.events, answer.scores, "") for answer in undisturbed
        ]
        assert list((tmp_path / "spool").iterdir()) == []
        await engine.close()
        await proxy.close()

    asyncio.run(run())


def test_new_events_wait_behind_the_buffered_ones_and_the_buffer_gets_empty_under_load(
    trained: Path, tmp_path: Path, redis: RedisServer
) -> None:
    async def run() -> None:
        engine = open_engine(
            trained, tmp_path, f"store.url={redis.url}", f"store.prefix=t{time.time_ns()}",
            f"store.spool={tmp_path}/spool", "store.retry_seconds=0.05",
        )  # fmt: skip
        redis.pause()
        sent = 0
        for _ in range(200):
            await post(engine, [[event(f"visitor-{sent % 50}", sent // 50)]], received(sent // 50))
            sent += 1
        redis.resume()
        reasons = []
        while engine.metrics.buffered_events:
            found, _ = await asyncio.gather(
                post(engine, [[event(f"visitor-{sent % 50}", sent // 50)]], received(sent // 50)), replay(engine)
            )
            reasons.append(found[0][0].reason)
            sent += 1
            assert len(reasons) < 1_000
        assert reasons[0] == "store_unreachable"
        counts = []
        for visitor in range(50):
            ((answer,),) = await post(engine, [[event(f"visitor-{visitor}", 100)]], received(100))
            assert answer.reason == ""
            counts.append(answer.events)
        assert sum(counts) == sent + 50
        await engine.close()

    asyncio.run(run())


def _spools_and_waits(trained: Path, folder: Path, url: str, prefix: str, ready: Any) -> None:
    async def run() -> None:
        engine = open_engine(
            trained, folder, f"store.url={url}", f"store.prefix={prefix}", f"store.spool={folder}/spool",
        )  # fmt: skip
        answers = await several(engine, "jane", range(3)) + [await one(engine, "jane", 3)]
        ready.send([answer.reason for answer in answers])
        await asyncio.sleep(600)

    asyncio.run(run())


def test_what_a_killed_worker_had_buffered_is_replayed_by_another_one(
    trained: Path, tmp_path: Path, redis: RedisServer
) -> None:
    async def run() -> None:
        prefix = f"t{time.time_ns()}"
        redis.pause()
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        worker = context.Process(target=_spools_and_waits, args=(trained, tmp_path, redis.url, prefix, there))
        worker.start()
        assert await asyncio.to_thread(here.recv) == ["store_unreachable"] * 4
        redis.resume()
        engine = open_engine(
            trained, tmp_path, f"store.url={redis.url}", f"store.prefix={prefix}", f"store.spool={tmp_path}/spool",
            f'keys.folder="{tmp_path}/keys"',
        )  # fmt: skip
        assert await replay(engine) == 0  # it lives
        worker.kill()
        worker.join()
        assert await replay(engine) == 4
        assert (await one(engine, "jane", 4)).events == 5
        assert list((tmp_path / "spool").iterdir()) == []
        await engine.close()

    asyncio.run(run())


def test_what_cannot_be_buffered_is_refused_and_what_was_is_kept(
    trained: Path, tmp_path: Path, redis: RedisServer
) -> None:
    async def run() -> None:
        engine = open_engine(
            trained, tmp_path, f"store.url={redis.url}", f"store.prefix=t{time.time_ns()}",
            f"store.spool={tmp_path}/spool", "store.spool_mib=0.003", "store.retry_seconds=0.05",
        )  # fmt: skip
        redis.pause()
        kept = 0
        with pytest.raises(Problem) as refused:
            for number in range(100):
                await one(engine, "jane", number)
                kept += 1
        assert refused.value.status == 503 and (b"retry-after", b"1") in refused.value.headers
        assert 3 < kept < 100 and engine.metrics.buffered_events == kept
        redis.resume()
        await drained(engine)
        assert (await one(engine, "jane", kept)).events == kept + 1
        await engine.close()

    asyncio.run(run())


def test_reads_and_keyed_requests_are_refused_in_time(tmp_path: Path, redis: RedisServer) -> None:
    async def run() -> None:
        app = start(
            tmp_path, f"store.url={redis.url}", f"store.prefix=t{time.time_ns()}", f"store.spool={tmp_path}/spool",
            f"store.deadline_seconds={DEADLINE_SECONDS}", "store.retry_seconds=0.05", "keys.required=false",
        )  # fmt: skip
        engine = engine_of(app)
        async with client(app) as http:
            body = {"visitor": "jane", "name": "page_view"}
            known = (await http.post("/v1/events", json=body)).json()
            assert "reason" not in known
            redis.pause()
            begin = time.perf_counter()
            for refused in (
                await http.get(f"/v1/sessions/{known['session']}"),
                await http.get(f"/v1/sessions/{known['session']}/events"),
                await http.post("/v1/events", json=body, headers={"idempotency-key": "one"}),
            ):
                assert refused.status_code == 503 and refused.headers["retry-after"] == "1", refused.text
            assert time.perf_counter() - begin < 3 * PATIENCE_SECONDS
            assert (await http.post("/v1/events", json=body)).json()["reason"] == "store_unreachable"
            assert engine.metrics.store_errors["/v1/sessions/{token}"] == 1
            assert b"lotse_buffered_events 1" in (await http.get("/metrics")).content
            redis.resume()
            await drained(engine)
            again = await http.post("/v1/events", json=body, headers={"idempotency-key": "one"})
            assert (again.json()["events"], "reason" in again.json()) == (3, False)
            assert (await http.get(f"/v1/sessions/{known['session']}")).json()["events"] == 3
        await engine.close()

    asyncio.run(run())

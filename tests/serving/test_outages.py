"""While the store is away the answer still comes, says so, and nothing acknowledged is lost or counted twice."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pyarrow.parquet as pq
import pytest

from features.events import COLUMNS, Event
from serving.engine import Engine
from serving.memory import EVENT
from serving.problems import Problem
from serving.replay import replay
from serving.requests import Answer
from serving.spool import SpooledTurn, SpooledVisit, new_spool, orphans
from serving.stores.encryption import Seal
from tests.cassandra_server import cassandra_server, make_keyspace
from tests.redis_server import RedisServer, redis_cluster, redis_server
from tests.server_process import ServerProcess
from tests.serving.in_process import client, engine_of, open_engine, post, start
from tests.serving.proxy import Proxy
from tests.workspace import Service, packed, wait_until

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


@pytest.fixture(scope="module")
def redis_nodes() -> Iterator[tuple[str, Sequence[ServerProcess]]]:
    with redis_cluster("--appendonly", "yes", "--appendfsync", "always") as cluster:
        yield cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0"), cluster.nodes


@pytest.fixture(scope="module")
def cassandra() -> Iterator[tuple[str, Sequence[ServerProcess]]]:
    with cassandra_server(commitlog_sync="batch") as server:
        make_keyspace(server.port)
        yield server.url, [server]


def test_a_batch_that_comes_again_and_again_through_an_outage_counts_once(tmp_path: Path, redis: RedisServer) -> None:
    """Taken, taken without an answer, buffered, and after the outage: with what has come meanwhile."""

    async def run() -> None:
        proxy = Proxy(redis.port)
        await proxy.start()
        engine = open_engine(
            None, tmp_path, f"store.url=redis://127.0.0.1:{proxy.port}/0", f"store.prefix=t{time.time_ns()}",
            f"store.deadline_seconds={DEADLINE_SECONDS}", "store.retry_seconds=0.05",
        )  # fmt: skip

        async def sent(count: int) -> list[Answer]:
            batch = [{**event("jane", number), "id": f"event-{number}"} for number in range(count)]
            (answers,) = await post(engine, [batch], received(100))
            return answers

        await sent(20)
        async with outage("mute", redis, proxy):  # what is asked is done
            assert {answer.reason for answer in [*await sent(30), *await sent(40)]} == {"store_unreachable"}
        await drained(engine)
        assert {answer.status for answer in (await sent(45))[:40]} == {"duplicate"}
        assert (await sent(45))[-1].events == 45
        await engine.close()
        await proxy.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("store", "kind"), [("redis_nodes", "paused"), ("redis_nodes", "killed"), ("cassandra", "paused")]
)
def test_a_store_of_several_machines_that_was_away_has_every_event_once(
    trained: Path,
    tmp_path: Path,
    undisturbed: list[Answer],
    store: str,
    kind: str,
    request: pytest.FixtureRequest,
) -> None:
    """What was sent to a process that stands still is done when it goes on, after it was given up."""
    url, nodes = request.getfixturevalue(store)
    deadline_seconds = 4 * DEADLINE_SECONDS  # Cassandra has only just started

    async def run() -> None:
        engine = open_engine(
            trained, tmp_path, f"store.url={url}", f"store.prefix=t{time.time_ns()}",
            f"store.deadline_seconds={deadline_seconds}", "store.timeout_seconds=1", "store.retry_seconds=0.05",
        )  # fmt: skip
        for number in range(3):
            answers = [await one(engine, visitor, number) for visitor in VISITORS]
            assert [(answer.events, answer.reason) for answer in answers] == [(number + 1, "")] * 3
        for node in nodes:
            node.pause() if kind == "paused" else node.kill()
        longest = 0.0
        for number in range(3, LAST):
            begin = time.perf_counter()
            answers = await asyncio.gather(*(one(engine, visitor, number) for visitor in VISITORS))
            longest = max(longest, time.perf_counter() - begin)
            assert [(answer.events, answer.reason) for answer in answers] == [(1, "store_unreachable")] * 3
        assert engine.metrics.buffered_events == 3 * (LAST - 3)
        assert longest < 10 * deadline_seconds
        for node in nodes:
            await asyncio.to_thread(node.resume if kind == "paused" else node.start)
        await drained(engine)
        last = [await one(engine, visitor, LAST) for visitor in VISITORS]
        assert [(answer.events, answer.scores, answer.reason) for answer in last] == [
            (answer.events, answer.scores, "") for answer in undisturbed
        ]
        await engine.close()

    asyncio.run(run())


def test_a_write_whose_answer_was_lost_is_known_after_others_and_keeps_no_id_from_being_known(
    trained: Path, tmp_path: Path, redis: RedisServer
) -> None:
    async def run() -> None:
        proxy = Proxy(redis.port)
        await proxy.start()
        own = (
            f"store.prefix=t{time.time_ns()}", f"store.deadline_seconds={DEADLINE_SECONDS}",
            "store.retry_seconds=0.05",
        )  # fmt: skip
        cut_off = open_engine(trained, tmp_path, *own, f"store.url=redis://127.0.0.1:{proxy.port}/0")
        other = open_engine(trained, tmp_path, *own, f"store.url={redis.url}", f"store.spool={tmp_path}/other")
        named = {**event("jane", 0), "id": "given by the tracker"}
        await post(cut_off, [[named]], received(0))
        proxy.turn("mute")
        assert (await one(cut_off, "jane", 1)).reason == "store_unreachable"
        # the other worker sees that it was done, and writes as often as a record remembers less one
        assert [(await one(other, "jane", number)).events for number in range(2, 9)] == list(range(3, 10))
        proxy.turn("well")
        await drained(cut_off)
        ((answer,),) = await post(other, [[named]], received(9))
        assert (answer.status, answer.events) == ("duplicate", 9)
        assert (await one(cut_off, "jane", 9)).events == 10
        for engine in (cut_off, other):
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


def test_what_a_worker_had_buffered_is_replayed_by_the_next_one(
    trained: Path, tmp_path: Path, redis: RedisServer
) -> None:
    async def run() -> None:
        own = (f"store.url={redis.url}", f"store.prefix=t{time.time_ns()}", f"store.spool={tmp_path}/spool")
        redis.pause()
        first, second = open_engine(trained, tmp_path, *own), open_engine(trained, tmp_path, *own)
        answers = await several(first, "jane", range(9)) + [await one(first, "jane", 9)]
        assert {answer.reason for answer in answers} == {"store_unreachable"}
        redis.resume()
        await asyncio.sleep(0)
        assert await replay(second) == 0  # its worker lives
        await first.close()
        assert await replay(second) == 10
        assert (await one(second, "jane", 10)).events == 11
        assert list((tmp_path / "spool").iterdir()) == []
        await second.close()

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


def test_reads_and_keyed_requests_are_refused_in_time(trained: Path, tmp_path: Path, redis: RedisServer) -> None:
    async def run() -> None:
        app = start(
            tmp_path, *packed(trained), f"store.url={redis.url}", f"store.prefix=t{time.time_ns()}",
            f"store.spool={tmp_path}/spool", f"store.deadline_seconds={DEADLINE_SECONDS}", "store.retry_seconds=0.05",
            "keys.required=false",
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


def test_a_full_embedded_store_is_an_outage_that_ends_when_sessions_are_forgotten(
    trained: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        engine = open_engine(
            trained, tmp_path, "store.size_gib=0.001", f"store.spool={tmp_path}/spool",
        )  # fmt: skip
        visitors = 0
        reason = ""
        while not reason:
            ((answer,),) = await post(engine, [[event(f"visitor-{visitors}", 0)]], received(0))
            reason, visitors = answer.reason, visitors + 1
            assert visitors < 5_000
        assert visitors > 100 and engine.metrics.buffered_events == 1
        ((answer,),) = await post(engine, [[event("jane", 1)]], received(1))
        assert answer.reason == "store_unreachable"
        over = received(0) + 30 * 60_000
        await engine.upkeep.sweep(over)
        await engine.upkeep.hand_over(over)
        await drained(engine)
        assert (await one(engine, "jane", 2)).events == 2
        ((answer,),) = await post(engine, [[event(f"visitor-{visitors - 1}", 1)]], received(1))
        assert (answer.events, answer.reason) == (2, "")
        await engine.close()

    asyncio.run(run())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is left of a disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    return ballast


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_full_disk_refuses_events_and_loses_none(
    trained: Path, tmp_path: Path, small_disk: Path, durability: str
) -> None:
    async def run() -> None:
        engine = open_engine(
            trained, tmp_path, f'store.durability="{durability}"', f"store.url=embedded:{small_disk}/live",
            f"store.spool={small_disk}/spool", "store.retry_seconds=0.05", "store.size_gib=0.1",
        )  # fmt: skip
        acknowledged: dict[str, int] = {}

        async def send(rounds: range) -> int:
            refused = 0
            for number in rounds:
                batch = [f"visitor-{number % 500}-{place}" for place in range(100)]
                try:
                    await post(engine, [[event(visitor, 1) for visitor in batch]], received(1))
                except Problem as problem:
                    assert problem.status == 503 and (b"retry-after", b"1") in problem.headers
                    refused += 1
                else:
                    for visitor in batch:
                        acknowledged[visitor] = acknowledged.get(visitor, 0) + 1
            return refused

        assert await send(range(5)) == 0
        ballast = fill(small_disk)
        assert await send(range(5, 400)) > 100
        ballast.unlink()
        await drained(engine)
        await asyncio.sleep(0.05)  # until the breaker lets a trial through
        assert await send(range(400, 410)) == 0
        names = list(acknowledged)
        answers: list[Answer] = []
        for place in range(0, len(names), 500):
            sent = [event(visitor, 2) for visitor in names[place : place + 500]]
            answers += (await post(engine, [sent], received(2)))[0]
        assert [answer.events for answer in answers] == [acknowledged[visitor] + 1 for visitor in names]
        await engine.close()

    asyncio.run(run())


def test_a_day_whose_key_cannot_be_written_refuses_events_and_loses_no_session(
    trained: Path, tmp_path: Path, small_disk: Path
) -> None:
    async def run() -> None:
        engines = [open_engine(trained, tmp_path, "store.url=memory:", f"keys.folder={small_disk}/keys")]
        # another worker, as far as pseudonyms go
        engines.append(open_engine(trained, tmp_path, "store.url=memory:", f"keys.folder={small_disk}/keys"))
        midnight = (START // 86_400_000 + 1) * 86_400_000
        jane, linked = {"visitor": "jane", "name": "page_view"}, {"consent": ["measure", "link"]}

        async def sent(received_ms: int, **more: Any) -> list[tuple[str, int]]:
            found = []
            for engine in engines:
                ((answer,),) = await post(engine, [[{**jane, **more}]], received_ms)
                found.append((engine.tokens.open(answer.session)[0], answer.events))
            return found

        assert [events for _, events in await sent(midnight - 1_000)] == [1, 1]
        ballast = fill(small_disk)
        before = sorted(small_disk.rglob("*"))
        for again in range(2):
            with pytest.raises(Problem) as refused:
                await sent(midnight + again)
            assert refused.value.status == 503 and (b"retry-after", b"1") in refused.value.headers
            assert "keys.folder" in str(refused.value)
        with pytest.raises(Problem):  # all of a request or nothing
            await post(engines[0], [[{**jane, "visitor": "john", **linked}, jane]], midnight + 2)
        assert sorted(small_disk.rglob("*")) == before
        # who may be linked has a key that was there
        assert [events for _, events in await sent(midnight + 3, visitor="john", **linked)] == [1, 1]
        ballast.unlink()
        (first, events), other = await sent(midnight + 4)
        assert ((first, events), other) == ((first, 2), (first, 2))
        for engine in engines:
            await engine.close()

    asyncio.run(run())


def test_sessions_are_handed_on_once_after_the_disk_was_full(trained: Path, tmp_path: Path, small_disk: Path) -> None:
    async def run() -> None:
        engine = open_engine(trained, tmp_path, f"store.closed={small_disk}/closed")
        for visitor in VISITORS:
            await one(engine, visitor, 0)
        over = received(0) + 30 * 60_000
        assert await engine.upkeep.sweep(over) == 3
        ballast = fill(small_disk)
        with pytest.raises(OSError, match="No space left"):
            await engine.upkeep.hand_over(over)
        assert [path for path in small_disk.rglob("*") if path.is_file()] == [ballast]
        ballast.unlink()
        assert await engine.upkeep.hand_over(over + 60_000) == 3
        assert await engine.upkeep.hand_over(over + 120_000) == 0
        (file,) = small_disk.rglob("*.parquet")
        assert pq.ParquetFile(file).metadata.num_rows == 3
        await engine.close()

    asyncio.run(run())


def test_a_spool_is_read_by_a_release_with_other_columns_and_only_with_its_key(tmp_path: Path) -> None:
    how: dict[str, Any] = {"limit_bytes": 2**20, "sync": False}
    seal = Seal(b"k" * 32)
    spool = new_spool(tmp_path, **how, seal=seal)
    secret = 0x1122334455667788
    visit = SpooledVisit(EVENT.pack(*Event(visitor=secret, time=START, price=2.5)), [b"otherkey"])
    spool.add(SpooledTurn(START, [visit])).write()
    spool.close()
    (file,) = tmp_path.glob("*/data.mdb")
    assert secret.to_bytes(8, "little") not in file.read_bytes() and b"otherkey" not in file.read_bytes()
    assert list(orphans(tmp_path, **how, seal=Seal(b"x" * 32))) == [] and file.exists()
    (found,) = orphans(tmp_path, **how, seal=seal)
    assert (found.turns, found.events) == (1, 1)
    assert list(orphans(tmp_path, **how, seal=seal)) == []  # it has an owner
    found.close()

    # as if the release that wrote it had called the last column another name
    columns = {name: column.dtype for name, column in COLUMNS.items()}
    gone = list(columns)[-1]
    columns = {"unheard_of" if name == gone else name: dtype for name, dtype in columns.items()}
    with lmdb.open(str(file.parent), max_dbs=2) as env, env.begin(write=True) as transaction:
        transaction.put(b"columns", msgspec.json.encode(columns), db=env.open_db(b"about", txn=transaction))
    (found,) = orphans(tmp_path, **how, seal=seal)
    turns = found.first(10, 10)
    assert [found.events_of(visit) for turn in turns.values() for visit in turn.visits] == [
        [Event(visitor=secret, time=START, price=2.5)]
    ]
    assert found.drop(turns) == 1
    found.close()
    assert list(tmp_path.iterdir()) == []
    # one that named no writes has left its turns without tokens
    before = msgspec.msgpack.encode([START, [[visit.events, visit.others]]])
    assert msgspec.msgpack.decode(before, type=SpooledTurn) == SpooledTurn(START, [visit])


@pytest.mark.slow
def test_a_service_answers_through_an_outage_in_which_it_is_killed(
    own_service: Callable[..., Service], redis: RedisServer
) -> None:
    """The store is killed, then the service: what it had buffered is counted by the one that comes after."""
    running = own_service(f"store.url={redis.url}", f"store.prefix=t{time.time_ns()}")

    def send(rounds: int) -> list[tuple[int, str]]:
        answers = [
            running.http.post("/v1/events", json={"visitor": visitor, "name": "view_item", "item": "sku-1"})
            for _ in range(rounds) for visitor in VISITORS
        ]  # fmt: skip
        assert {answer.status_code for answer in answers} == {200}
        return [(answer.json()["events"], answer.json().get("reason", "")) for answer in answers]

    def buffered() -> float:
        text = running.http.get("/metrics").text
        (line,) = [line for line in text.splitlines() if line.startswith("lotse_buffered_events ")]
        return float(line.split()[1])

    assert send(1) == [(1, "")] * 3
    redis.kill()
    assert send(10) == [(1, "store_unreachable")] * 30
    assert buffered() == 30
    running.kill()
    redis.start()
    running.start()
    spool = running.folder / "lotse-data" / "spool"
    wait_until(lambda: buffered() == 0 and not list(spool.iterdir()))
    assert send(1) == [(12, "")] * 3

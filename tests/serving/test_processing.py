"""The record of processing activities says what a running service has on the disk, and nothing else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from features.compiler import compile_fold
from features.events import COLUMNS, Event
from features.generate import layout_of
from features.sessions import HEADER_WORDS
from serving.processing import record_of
from serving.sessions import STATE_BYTES
from serving.settings import ServingSettings, StoreSettings
from serving.spool import SpooledTurn
from serving.turn import Turn
from tests.serving.in_process import open_engine, post
from tests.workspace import Service, lotse, wait_until

DAY = 86_400_000
ACCOUNT = b"account."


def holding(record: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in record["holdings"] if one["name"] == name]
    return found


@pytest.mark.slow
def test_every_file_of_a_running_service_is_in_the_record(own_service: Callable[..., Service]) -> None:
    overrides = ["decisions.sample=1", "store.closed_seconds=0.2", "store.sweep_seconds=0.2", 'store.durability="disk"',
                 'logs.format="json"']  # fmt: skip
    service = own_service(*overrides)
    data = service.folder / "lotse-data"
    old = {"time": time.time_ns() // 1_000_000 - 3 * 3_600_000}
    for number in range(3):
        event = {"visitor": f"v{number}", "name": "page_view", "session": f"s{number}", **old}
        assert (
            service.http.post("/v1/events", json=event, headers={"Idempotency-Key": f"k-{number}"}).status_code == 200
        )
        ended = {**event, "session": "another", "consent": ["measure", "link"]}
        token = service.http.post("/v1/events", json=ended).json()["session"]
    service.http.post("/v1/events", json={**event, "session": "yet another", "consent": ["measure", "link"]})
    wait_until(lambda: len(list(data.glob("closed/day=*/*.parquet"))) > 0)
    assert service.http.delete(f"/v1/visitors/me?token={token}").status_code == 200
    wait_until(lambda: len(list(data.glob("decisions/*.jsonl"))) > 0)

    sets = [argument for override in (*service.overrides, *overrides) for argument in ("--set", override)]
    done = lotse(service.folder, "privacy", "report", "--out", str(service.folder / "record"), *sets)
    assert done.returncode == 0, done.stderr
    record = json.loads((service.folder / "record.json").read_text())
    page = (service.folder / "record.md").read_text()
    patterns = {pattern: one["name"] for one in record["holdings"] for pattern in one["files"]}
    files = [str(path.relative_to(service.folder)) for path in data.rglob("*") if path.is_file()]
    assert len(files) > 10
    for file in files:
        owners = {name for pattern, name in patterns.items() if fnmatch(file, pattern)}
        assert len(owners) == 1, (file, owners)
    for one in record["holdings"]:
        for name in (one["name"], *one["holds"]):
            assert name in page

    # what is in them
    live, closed, decisions = (
        holding(record, name) for name in ("live store", "handed-on sessions", "log of decisions")
    )
    service.stop()
    with (
        lmdb.open(str(data / "live"), max_dbs=8, map_size=2**34) as env,
        env.begin() as transaction,
        transaction.cursor() as cursor,
    ):
        assert {name.decode() for name in cursor.iternext(values=False)} == set(live["holds"])
    for path in data.glob("closed/day=*/*.parquet"):
        assert set(pq.ParquetFile(path).schema_arrow.names) == set(closed["holds"])
    for path in data.glob("decisions/*.jsonl"):
        for line in path.read_text().splitlines():
            assert set(json.loads(line)) == set(decisions["holds"])


# What may follow a record: `serving.drawn`, `serving.experiments.assignments`, `serving.tails`.
TAIL = ("header.row", "header.assignments", "header.writes", "header.batches")


def test_the_record_of_a_session_is_told_word_by_word() -> None:
    told = holding(record_of(ServingSettings()), "session record")["holds"]
    fields = compile_fold().catalogue.fields
    assert {*fields, *TAIL} < set(told)
    width = layout_of(fields.values())
    sizes = sum(np.dtype(field.dtype).itemsize for field in fields.values())
    # nothing but the header, the fields and less than a word of padding after each scope
    assert 0 <= width.record_bytes - 8 * HEADER_WORDS - sizes < 16
    words = [name for name in told if name not in fields and name not in ("header.state", *TAIL)]
    assert len(words) == HEADER_WORDS - 7 + 1 and STATE_BYTES == 16  # the seven event ids are one line


def test_columns_of_files_and_spools_are_those_that_are_written(tmp_path: Path) -> None:
    record = record_of(ServingSettings())
    told = holding(record, "events that wait for the store")["holds"]
    assert set(told) == {*COLUMNS, "others", "unlinked"}

    async def run() -> None:
        engine = open_engine(None, tmp_path)
        await engine.outage.keep(_turn(engine), 20_000 * DAY)
        ((path,),) = [list((tmp_path / "spool").glob("*/data.mdb"))]
        engine.outage.close()
        with lmdb.open(str(path.parent), max_dbs=2) as env, env.begin() as transaction:
            about = transaction.get(b"columns", db=env.open_db(b"about", transaction))
            (value,) = [value for _, value in transaction.cursor(env.open_db(b"turns", transaction))]
        assert set(msgspec.json.decode(about)) | {"others", "unlinked"} == set(told)
        turn = msgspec.msgpack.decode(value, type=SpooledTurn)
        # no key of the visitor's but the day's: others are veiled
        events = turn.visits[0].events
        lasting = engine.pseudonyms.at(20_000 * DAY)("jane", True).to_bytes(8, "little", signed=True)
        assert lasting not in value and len(turn.visits[0].others) == 1 and turn.visits[0].others != [lasting]
        key = events[:8]
        assert engine.pseudonyms.veiled(key, turn.visits[0].others, 20_000 * DAY) == [lasting]
        drawn, veiled = turn.unlinked
        assert ACCOUNT not in value and engine.pseudonyms.veiled(drawn, [veiled], 20_000 * DAY) == [ACCOUNT]
        engine.pseudonyms.forget(20_004 * DAY)
        assert engine.pseudonyms.veiled(key, turn.visits[0].others, 20_000 * DAY) == []
        assert engine.pseudonyms.veiled(drawn, [veiled], 20_000 * DAY) == []
        await engine.close()

    def _turn(engine: Any) -> Any:
        turn = Turn(engine.lineup, 1, 20_000 * DAY, engine._earlier)
        turn.add([Event(visitor=engine.pseudonyms.at(20_000 * DAY)("jane", False), time=20_000 * DAY)], ["jane"])
        turn.unlinked.append(ACCOUNT)
        return turn

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["redis", "cassandra"])
def test_what_lies_in_a_store_elsewhere_is_in_the_record(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(kind)
    settings = ServingSettings(store=StoreSettings(url=url, prefix="told"))
    told = holding(record_of(settings), "live store")["holds"]

    async def run() -> None:
        engine = open_engine(None, tmp_path, f'store.url="{url}"', 'store.prefix="told"', "store.timeout_seconds=5")
        event = {"visitor": "jane", "name": "page_view", "session": "a"}
        for name in "abc":
            await post(engine, [[{**event, "session": name}]], 20_000 * DAY)
        found = engine.store.claim(1, 0, 1_000)
        assert await found is not None  # type: ignore[misc]
        if kind == "redis":
            names = [key.decode(errors="replace") async for key in engine.store._client.scan_iter("*")]  # type: ignore[attr-defined]
            assert names
            for name in names:
                pattern = f"told:{{part}}{name[len('told:{00}') :]}"
                assert sum(fnmatch(pattern, known.replace("{part}", "{part}")) for known in told) == 1, name
        else:
            rows = engine.store._session.execute(  # type: ignore[attr-defined]
                "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s", [url.rpartition("/")[2]]
            )
            assert {row.table_name for row in rows if row.table_name.startswith("told")} == set(told)
        await engine.close()

    asyncio.run(run())

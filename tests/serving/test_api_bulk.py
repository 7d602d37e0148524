"""Rows in bulk: NDJSON and Arrow say what JSON says, bad rows are named, limits hold."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from features.definitions import CATALOGUE
from serving.bulk import ARROW, NDJSON, is_compressed
from tests.serving.in_process import client, engine_of, start
from tests.workspace import Service

pytestmark = pytest.mark.anyio
NAMES = list(CATALOGUE.features)
ROW: dict[str, Any] = dict.fromkeys(NAMES, 1.0)


def some_rows(count: int) -> np.ndarray:
    """Random rows, a tenth of their values missing: float64 (count, F)."""
    random = np.random.default_rng(0)
    rows = random.integers(0, 5, (count, len(NAMES))).astype(float)
    rows[random.random(rows.shape) < 0.1] = np.nan
    return rows


def objects(rows: np.ndarray) -> list[dict[str, float | None]]:
    return [{n: None if v != v else v for n, v in zip(NAMES, row, strict=True)} for row in rows.tolist()]  # noqa: PLR0124


def lines(found: list[dict[str, Any]]) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in found)


def table(rows: np.ndarray) -> pa.Table:
    return pa.table({name: pa.array(column, from_pandas=True) for name, column in zip(NAMES, rows.T, strict=True)})


def stream(content: pa.Table, rows: int = 1_000, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, content.schema, options=options) as writer:
        writer.write_table(content, max_chunksize=rows)
    return sink.getvalue()


def test_all_formats_say_the_same(service: Service) -> None:
    rows = some_rows(5_000)
    sent = {"content-type": NDJSON, "content-encoding": "gzip"}
    answer = service.http.post("/v1/score", content=gzip.compress(lines(objects(rows)), 1), headers=sent)
    assert answer.status_code == 200 and answer.headers["content-type"] == NDJSON
    assert "exit=1" in answer.headers["lotse-models"]
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert len(found) == len(rows)
    answer = service.http.post("/v1/score", content=stream(table(rows)), headers={"content-type": ARROW})
    assert answer.headers["content-type"] == ARROW
    assert pa.ipc.open_stream(answer.content).read_all().to_pylist() == found
    plain = service.http.post("/v1/score", json={"rows": objects(rows[:300])}).json()
    assert plain["scores"] == found[:300]


@pytest.fixture
def asked(tmp_path: Path) -> httpx.AsyncClient:
    return client(start(tmp_path, "server.bulk_rows=100"))


async def refusal(asked: httpx.AsyncClient, content: bytes, kind: str, status: int) -> str:
    answer = await asked.post("/v1/score", content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    detail: str = answer.json()["detail"]
    return detail


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [
        (b"", 422, "found no rows"),
        (b"\n \n", 422, "found no rows"),
        (lines([ROW, ROW]) + b"\n{}", 422, "row 2: Object missing required field"),
        (lines([ROW]) + b"\nnonsense", 422, "row 1: "),
        (lines([{**ROW, "height": 3}]), 422, "unknown field `height`"),
        (lines([{**ROW, "events": "3"}]), 422, "row 0: Expected `float | null`, got `str`"),
        (lines([ROW, {**ROW, "events": 1e300}]), 422, "row 1: events is out of the range of a 32-bit float"),
        (lines([ROW] * 101), 422, "more than 100 rows"),
        (b" " * 200_000, 422, "row 0 is longer than 100,000 bytes"),
    ],
)
async def test_a_bad_line_is_named(asked: httpx.AsyncClient, content: bytes, status: int, detail: str) -> None:
    assert detail in await refusal(asked, content, NDJSON, status)


SOUND = stream(table(some_rows(50)))


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [
        (b"", 400, "does not begin with a schema"),
        (b"nonsense" * 10, 422, "longer than 64,000,000 bytes"),  # so it says
        (b"\0\1\2\3" * 20, 400, "not an Arrow stream"),
        (SOUND[: len(SOUND) // 2], 400, "not an Arrow stream"),
        (stream(table(some_rows(1)).drop_columns(["events"])), 422, "'events' has no column"),
        (stream(table(some_rows(1)).append_column("height", pa.array([1.0]))), 422, "unknown feature 'height'"),
        (
            stream(table(some_rows(1)).drop_columns(["events"]).append_column("events", pa.array(["x"]))),
            422,
            "the column events is of type string",
        ),
        (stream(table(some_rows(101))), 422, "more than 100 rows"),
        (stream(table(some_rows(50)), compression="zstd"), 422, "compress the whole body instead"),
        (stream(table(some_rows(70_000)), rows=70_000), 422, "longer than 64,000,000 bytes"),
    ],
    ids=range(10),
)
async def test_a_bad_stream_is_refused(asked: httpx.AsyncClient, content: bytes, status: int, detail: str) -> None:
    assert detail in await refusal(asked, content, ARROW, status)


async def test_whole_numbers_and_priors_are_columns_too(asked: httpx.AsyncClient) -> None:
    """Without models every head answers its prior."""
    content = stream(pa.table({name: pa.array([1, None], pa.int32()) for name in NAMES}))
    answer = await asked.post("/v1/score", content=content, headers={"content-type": ARROW})
    rows = pa.ipc.open_stream(answer.content).read_all().to_pylist()
    assert rows == [{"bounce": 0.4, "conversion": 0.03, "exit": 0.2}] * 2


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_compressed_blocks_are_seen(compression: str | None) -> None:
    messages = pa.ipc.MessageReader.open_stream(stream(table(some_rows(3)), compression=compression))
    messages.read_next_message()
    assert is_compressed(messages.read_next_message().metadata) == (compression is not None)


async def test_one_job_at_a_time_and_one_that_ends_makes_place(tmp_path: Path) -> None:
    app = start(tmp_path)
    engine_of(app)
    going, sent = asyncio.Event(), asyncio.Event()

    async def body() -> Any:
        yield lines([ROW]) + b"\n"
        sent.set()
        await going.wait()
        yield lines([ROW])

    async with client(app) as http:
        headers = {"content-type": NDJSON}
        first = asyncio.create_task(http.post("/v1/score", content=body(), headers=headers))
        await sent.wait()
        refused = await http.post("/v1/score", content=lines([ROW]), headers=headers)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
        going.set()
        assert len((await first).text.splitlines()) == 2
        assert (await http.post("/v1/score", content=lines([ROW]), headers=headers)).status_code == 200


async def test_a_client_that_goes_away_makes_place(tmp_path: Path) -> None:
    """In the middle of its rows; and of the answer, whose rest is not made then."""
    app = start(tmp_path)
    content, gone, sent = stream(table(some_rows(20_000))), asyncio.Event(), list[dict[str, Any]]()

    async def ask(*messages: dict[str, Any]) -> None:
        coming = iter(messages)

        async def receive() -> dict[str, Any]:
            if (message := next(coming, None)) is None:
                await gone.wait()
                return {"type": "http.disconnect"}
            return message

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if message.get("body"):
                gone.set()

        headers = [(b"content-type", ARROW.encode())]
        scope = {"type": "http", "method": "POST", "path": "/v1/score", "query_string": b"", "headers": headers}
        await app({**scope, "client": None, "server": None}, receive, send)

    half = {"type": "http.request", "body": content[: len(content) // 2], "more_body": True}
    await ask(half, {"type": "http.disconnect"})
    assert sent[0]["status"] == 400 and "the connection ended" in sent[1]["body"].decode()
    sent.clear()
    gone.clear()
    await ask({"type": "http.request", "body": content})
    assert sent[0]["status"] == 200 and 2 <= len(sent) < 20 and all(message["more_body"] for message in sent[1:])
    answer = await client(app).post("/v1/score", content=lines([ROW]), headers={"content-type": NDJSON})
    assert answer.status_code == 200

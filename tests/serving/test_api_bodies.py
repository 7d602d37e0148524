"""Compressed bodies, chunk by chunk, and their limits."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import brotli
import pytest

from serving.http.bodies import chunks, read
from serving.problems import Problem

pytestmark = pytest.mark.anyio

# Repeats itself at all distances, and is longer than what is decompressed at once.
TEXT = bytes(random.Random(0).choices(b"abcdefgh", k=300_000)) + b"0" * 300_000
LIMIT = len(TEXT)


def raw_deflate(content: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(content) + deflate.flush()


COMPRESSED = {
    "gzip": gzip.compress(TEXT),
    "br": brotli.compress(TEXT, quality=4),
    "deflate": zlib.compress(TEXT),
    "raw deflate": raw_deflate(TEXT),
    "two members of gzip": gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:]),
}


def encoding_of(label: str) -> bytes:
    return label.rpartition("of ")[2].removeprefix("raw ").encode()


def sender(body: bytes, size: int) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Sends a body in parts, as a server hands them on."""
    parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    return receive


async def body_of(body: bytes, encoding: bytes = b"", limit: int = LIMIT, size: int = 10_000) -> bytes:
    headers = {b"content-encoding": encoding} if encoding else {}
    return await read(sender(body, size), {"headers": [*headers.items()]}, headers, limit)


@pytest.mark.parametrize("size", [7, 1_000, 1_000_000])
@pytest.mark.parametrize("label", COMPRESSED)
async def test_a_compressed_body_is_what_it_was(label: str, size: int) -> None:
    assert await body_of(COMPRESSED[label], encoding_of(label), size=size) == TEXT


@pytest.mark.parametrize("label", COMPRESSED)
async def test_the_limit_is_that_of_what_was_compressed(label: str) -> None:
    with pytest.raises(Problem) as refused:
        await body_of(COMPRESSED[label], encoding_of(label), limit=LIMIT - 1)
    assert refused.value.status == 413


@pytest.mark.parametrize("label", COMPRESSED)
@pytest.mark.parametrize("damage", ["cut", "changed", "followed by more"])
async def test_a_damaged_body_is_refused(label: str, damage: str) -> None:
    body = COMPRESSED[label]
    body = {"cut": body[:-5], "changed": b"\xff\xff" + body[2:], "followed by more": body + b"more of it"}[damage]
    with pytest.raises(Problem) as refused:
        await body_of(body, encoding_of(label))
    assert refused.value.status == 400


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_a_bomb_is_never_inflated(encoding: str) -> None:
    zeros = b"0" * 50_000_000
    bomb = gzip.compress(zeros, 1) if encoding == "gzip" else brotli.compress(zeros, quality=1)
    del zeros
    tracemalloc.start()
    with pytest.raises(Problem) as refused:
        await body_of(bomb, encoding.encode(), limit=1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.status == 413
    assert peak < 5_000_000


async def test_an_unknown_encoding_is_refused_with_the_known() -> None:
    with pytest.raises(Problem) as refused:
        await body_of(b"x", b"zstd")
    assert refused.value.status == 415
    assert dict(refused.value.headers) == {b"accept-encoding": b"gzip, br, deflate"}


@pytest.mark.parametrize("encoding", [b"", b"identity", b" Identity "])
async def test_a_plain_body_comes_in_parts_up_to_its_limit(encoding: bytes) -> None:
    assert await body_of(TEXT, encoding) == TEXT
    assert await body_of(TEXT, encoding, size=1_000_000) == TEXT
    for size in (10_000, 1_000_000):
        with pytest.raises(Problem) as refused:
            await body_of(TEXT, encoding, limit=LIMIT - 1, size=size)
        assert refused.value.status == 413


async def test_a_length_that_is_too_long_is_refused_before_the_body_comes() -> None:
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(Problem) as refused:
        await read(receive, {"headers": [(b"content-length", b"1000001")]}, {}, 1_000_000)
    assert (refused.value.status, asked) == (413, 1)


async def test_a_client_that_goes_away_is_a_bad_request() -> None:
    messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    with pytest.raises(Problem, match="ended before the body did"):
        await read(receive, {"headers": []}, {}, 100)


async def test_parts_come_before_the_body_is_whole() -> None:
    compressed = COMPRESSED["gzip"]
    sent = sender(compressed, 1_000)
    parts = chunks(sent, {"headers": []}, {b"content-encoding": b"gzip"}, LIMIT)
    assert (await anext(parts))[:100] == TEXT[:100]
    await parts.aclose()  # type: ignore[attr-defined]

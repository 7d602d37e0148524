"""Bytes that a live session takes in each store, its place in the schedule included.

    python -m benchmarks.sizing [--sessions 100000] [--redis] [--no-rows]

`--redis` starts a real server. Records are full of random bytes, so nothing is gained by compression.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import lmdb

from benchmarks.measure import report
from features.compiler import compile_fold
from serving.sessions import Sessions
from serving.settings import ServingSettings, StoreSettings
from serving.stores import Change, Store, Value, open_store


class Put:
    """A visit that leaves a record and its place in the schedule."""

    def __init__(self, size: int, due_ms: int) -> None:
        self.key, self.entry = os.urandom(8), None
        self._change = Change(os.urandom(size), due_ms)

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change:
        """The record."""
        del value, others
        return self._change


async def fill(store: Store, sessions: int, size: int) -> None:
    """So many records, in the order in which visitors come: none."""
    for start in range(0, sessions, 500):
        visits = [Put(size, 1_700_000_000_000 + number * 7) for number in range(start, start + 500)]
        later: Any = store.apply(visits)
        if later is not None:
            await later


def embedded(sessions: int, size: int, key: str) -> float:
    """Used pages of LMDB, for each session."""
    os.environ["LOTSE_STORE_KEY"] = key
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(StoreSettings(url=f"embedded:{folder}", size_gib=4))
        asyncio.run(fill(store, sessions, size))
        store.close()
        with lmdb.open(folder, readonly=True, lock=False, max_dbs=8) as env:
            return (env.info()["last_pgno"] + 1) * env.stat()["psize"] / sessions


def in_redis(sessions: int, size: int) -> float:
    """Growth of Redis' memory, for each session."""
    import redis  # noqa: PLC0415

    from tests.redis_server import redis_server  # noqa: PLC0415

    with ExitStack() as stack:
        server = stack.enter_context(redis_server())
        client = redis.Redis.from_url(server.url)
        before = client.info("memory")["used_memory"]

        async def run() -> None:
            store = open_store(StoreSettings(url=server.url, timeout_seconds=10, remembered=0))
            await fill(store, sessions, size)
            closing: Any = store.close()
            if closing is not None:
                await closing

        asyncio.run(run())
        after = client.info("memory")["used_memory"]
        return (after - before) / sessions


def main() -> None:
    """Fill, divide, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--no-rows", action="store_true", help="as with log.rows = 0")
    options = parser.parse_args()
    fold, log = compile_fold(), ServingSettings().log
    size = len(Sessions(fold, 1_800_000, 0, None if options.no_rows else log.silences_ms).empty)
    key = "a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2U="
    rows = [["record", f"{size}"], ["embedded", f"{embedded(options.sessions, size, ''):.0f}"]]
    rows.append(["embedded, encrypted", f"{embedded(options.sessions, size, key):.0f}"])
    if options.redis:
        rows.append(["redis", f"{in_redis(options.sessions, size):.0f}"])
    report("Bytes a live session takes", ["where", "bytes"], rows)


if __name__ == "__main__":
    main()

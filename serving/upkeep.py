"""What a worker does beside requests, again and again: sessions that are over are closed and handed on."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from serving.sessions import Expiry
from serving.stores import StoreError, done

if TYPE_CHECKING:
    from serving.engine import Engine

# Sweeping shares the interpreter with the hot path: it takes 0.1 ms at a time and then steps aside.
_SWEEP_STEP: Final = 100
_SWEEP_PAUSE_SECONDS: Final = 0.002
# Of sessions that are over: how many make a file, and how long a worker may take to write it.
_BATCH_SESSIONS: Final = 5_000
_LEASE_MS: Final = 60_000


class Upkeep:
    """Keeps the store of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def share_usage(self, now_ms: int | None = None) -> None:
        """Tell the other workers in which older generations sessions run, and hear it from them."""
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        await self._engine.usage.share(self._engine.lineup.generations[1:], now)

    async def sweep(self, now_ms: int | None = None) -> int:
        """Look at every record that is due: close sessions that are over, forget visitors. Returns how many it left."""
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        self._engine.pseudonyms.forget(now)
        urlsplit.cache_clear()  # type: ignore[attr-defined]  # it remembers the addresses of 128 pages
        forgotten, sessions = 0, [one.sessions for one in self._engine.lineup.generations]
        while entries := await done(self._engine.store.due(now, _SWEEP_STEP)):
            visits = [Expiry(sessions, entry, now) for entry in entries]
            await done(self._engine.store.apply(visits))
            forgotten += sum(visit.forgotten for visit in visits)
            # requests go first
            await asyncio.sleep(_SWEEP_PAUSE_SECONDS)
        self._engine.metrics.swept_records += forgotten
        return forgotten

    async def hand_over(self, now_ms: int | None = None) -> int:
        """Hand on the sessions that are over; returns how many."""
        handed = 0
        while True:
            now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
            batch = await done(self._engine.store.claim(_BATCH_SESSIONS, now, _LEASE_MS))
            if batch is None:
                self._engine.metrics.closed_sessions += handed
                await asyncio.to_thread(self._engine.closed.tidy, self._engine.histories, now)
                return handed
            if batch.sessions:
                await asyncio.to_thread(self._engine.sink.write, batch)
            await done(self._engine.store.settle(batch.name))
            handed += len(batch.sessions)

    async def log_decisions(self, now_ms: int | None = None) -> None:
        """Write down the decisions that were noted."""
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        if self._engine.decisions.sample:
            await asyncio.to_thread(self._engine.decisions.write, now)

    async def count(self) -> None:
        """Note for the metrics how many records there are, if the store tells."""
        with suppress(StoreError):
            self._engine.metrics.records = await self._engine.outage.ask(self._engine.store.count)

"""The BentoML service: typed methods for BentoML's own clients, and the ASGI application for everybody else.

Switched off in the decorator, because each costs more than a score: OpenTelemetry's middleware, the access log (which
would also hold addresses) and BentoML's metrics (ours are at /metrics).
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import bentoml

from serving.app import App
from serving.settings import from_environment

logger = logging.getLogger("lotse.service")

_settings, _shop = from_environment()
app = App()


async def _again_and_again(what: str, work: Callable[[], Awaitable[int]], seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            logger.exception("%s failed; it is tried again in %s s", what, seconds)


@bentoml.asgi_app(app, path="/")
@bentoml.service(
    name="lotse",
    workers=_settings.server.workers,
    tracing={"excluded_urls": ".*"},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Lotse:
    """Scores running sessions."""

    def __init__(self) -> None:
        # here and not above: BentoML's supervisor imports this module too and needs no models
        from serving.engine import Engine  # noqa: PLC0415

        self.engine = Engine(_settings, _shop)
        app.engine = self.engine
        self._housekeeping: list[asyncio.Task[None]] = []
        # what is loaded now lives as long as the process: collecting it again and again is where p99 goes
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)

    @bentoml.on_startup  # type: ignore[attr-defined,untyped-decorator,unused-ignore]
    async def start_housekeeping(self) -> None:
        """Close sessions that are over, and hand them on."""
        store = _settings.store
        self._housekeeping = [
            asyncio.create_task(_again_and_again("sweeping", self.engine.sweep, store.sweep_seconds)),
            asyncio.create_task(_again_and_again("handing on", self.engine.hand_over, store.closed_seconds)),
            asyncio.create_task(self.engine.follow_models()),
        ]

    @bentoml.on_shutdown  # type: ignore[attr-defined,untyped-decorator,unused-ignore]
    async def stop(self) -> None:
        """Let go of the store."""
        for task in self._housekeeping:
            task.cancel()
        await asyncio.gather(*self._housekeeping, return_exceptions=True)
        await self.engine.close()

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    def score(self, rows: list[dict[str, float | None]]) -> list[dict[str, float]]:
        """Scores of feature vectors: what POST /v1/score does, for BentoML's clients."""
        return self.engine.score_rows(rows)

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    def describe(self) -> dict[str, Any]:
        """Heads, versions and features: what GET /v1/features does."""
        return self.engine.describe()

    async def __is_ready__(self) -> bool:
        """Whether every head scores its golden row as in training."""
        # not in a thread, where BentoML would put a plain function: heads are scored by one at a time
        wrong = self.engine.scorer.ready()
        for message in wrong:
            logger.error(message)
        return not wrong

"""The BentoML service: typed methods for BentoML's own clients, and the ASGI application for everybody else.

Switched off in the decorator, because each costs more than a score: OpenTelemetry's middleware, the access log (which
would also hold addresses) and BentoML's metrics (ours are at /metrics).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import bentoml

from serving.app import App
from serving.connections import Watch, install, limit_handshakes
from serving.front import Front
from serving.logs import RequestLog, configure
from serving.replay import replay
from serving.settings import FOLDER, from_environment, go_where_it_was_started
from serving.shutdown import drain_on
from serving.supervision import end_with_supervisor
from serving.telemetry import Tracing
from serving.workers import WorkerFiles

logger = logging.getLogger("lotse.service")

_settings, _shop = from_environment()
app = App()
_watch = Watch(_settings.limits, _settings.server.workers)
install(_watch, lambda theirs: Front(app, theirs, _settings.server.body_limit_bytes), app)

_FOLLOW_SECONDS = 0.5
_TELL_SECONDS = 1.0
# A generation is let go after two timeouts without use, of which others hear so much later.
_SHARES_A_TIMEOUT = 4


async def _again_and_again(what: str, work: Callable[[], Awaitable[object]], seconds: float) -> None:
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
    # what takes long does so on purpose (a bulk job), and the rest has deadlines of its own
    traffic={"timeout": 86_400},
    logging={"access": {"enabled": False}},
)
class Lotse:
    """Scores running sessions."""

    @bentoml.on_deployment  # type: ignore[attr-defined,untyped-decorator,unused-ignore]
    @staticmethod
    def remember_the_folder() -> None:
        """In the supervisor, before the workers start: they find it in their environment."""
        os.environ[FOLDER] = str(Path.cwd())

    def __init__(self) -> None:
        go_where_it_was_started()  # BentoML has gone back to the code since this module was read
        end_with_supervisor()
        # here and not above: BentoML's supervisor imports this module too and needs no models
        from serving.engine import Engine  # noqa: PLC0415

        self.engine = Engine(_settings, _shop)
        app.engine = self.engine
        self.engine.metrics.watch = _watch
        self._files = self.engine.metrics.files = WorkerFiles(Path(_settings.server.run))
        configure(_settings.logs)
        app.log = RequestLog(_settings.logs.sample)
        app.tracing = Tracing(_settings.telemetry) if _settings.telemetry.enabled else None
        self._housekeeping: list[asyncio.Task[None]] = []
        # what is loaded now lives as long as the process: collecting it again and again is where p99 goes
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)

    @bentoml.on_startup  # type: ignore[attr-defined,untyped-decorator,unused-ignore]
    async def start_housekeeping(self) -> None:
        """Close sessions that are over, and hand them on."""
        loop, server = asyncio.get_running_loop(), _settings.server
        app.streams.end_on(loop, signal.SIGTERM, signal.SIGINT)
        limit_handshakes(loop, _settings.limits.header_seconds)  # nothing is listened to yet
        drain_on(loop, server.drain_seconds, self._drain, signal.SIGTERM, signal.SIGINT)
        store, again = _settings.store, partial(replay, self.engine)
        share_seconds = _settings.session.timeout_minutes * 60 / _SHARES_A_TIMEOUT
        self._housekeeping = [
            asyncio.create_task(_again_and_again("replaying buffered events", again, store.retry_seconds)),
            asyncio.create_task(_again_and_again("sweeping", self.engine.sweep, store.sweep_seconds)),
            asyncio.create_task(_again_and_again("handing on", self.engine.hand_over, store.closed_seconds)),
            asyncio.create_task(_again_and_again("telling of old sessions", self.engine.share_usage, share_seconds)),
            asyncio.create_task(_again_and_again("reading the keys", self._follow_keys, _FOLLOW_SECONDS)),
            asyncio.create_task(_again_and_again("telling the metrics", self._tell_metrics, _TELL_SECONDS)),
            asyncio.create_task(_watch.run()),
            asyncio.create_task(self.engine.follow_models()),
        ]

    def _drain(self) -> None:
        app.draining = True

    async def _tell_metrics(self) -> None:
        self._files.write(self.engine.metrics.samples())

    async def _follow_keys(self) -> bool:
        return app.gate is not None and app.gate.keys.follow()

    @bentoml.on_shutdown  # type: ignore[attr-defined,untyped-decorator,unused-ignore]
    async def stop(self) -> None:
        """Let go of the store."""
        for task in self._housekeeping:
            task.cancel()
        await asyncio.gather(*self._housekeeping, return_exceptions=True)
        with suppress(OSError):  # a full disk must not keep the store from being closed
            await self._tell_metrics()
        await self.engine.close()
        if app.tracing is not None:
            app.tracing.close()

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    def score(self, rows: list[dict[str, float | None]]) -> list[dict[str, float]]:
        """Scores of feature vectors: what POST /v1/score does, for BentoML's clients."""
        return self.engine.score_rows(rows)

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    def describe(self) -> dict[str, Any]:
        """Heads, versions and features: what GET /v1/features does."""
        return self.engine.describe()

    async def __is_ready__(self) -> bool:
        """Whether every head scores its golden row as in training.

        Asynchronous, so that BentoML asks in the event loop: in a thread of its own the golden row and an event that is
        scored at the same time would write over each other's score.
        """
        wrong = self.engine.scorer.ready()
        for message in wrong:
            logger.error(message)
        return not wrong and not app.draining

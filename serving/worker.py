"""What a worker process consists of: the application, the engine behind it, and what it does beside answering."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from features.shop import ShopSettings
from serving.accepting import take_connections
from serving.app import App
from serving.connections import Watch, install
from serving.engine import Engine
from serving.front import Front
from serving.logs import RequestLog, configure
from serving.replay import replay
from serving.settings import ServingSettings
from serving.shutdown import drain_on
from serving.supervision import end_with_supervisor
from serving.telemetry import Tracing
from serving.workers import WorkerFiles

logger = logging.getLogger("lotse.service")

_FOLLOW_SECONDS = 0.5
_TELL_SECONDS = 1.0
_SWITCH_SECONDS = 0.0005
_TIDY_SECONDS = 60.0
# Requests to other collectors get so long at an end, even if those of clients have taken all of stop_seconds.
_LEAST_FLUSH_SECONDS = 1.0
# A generation is let go after two timeouts without use, of which others hear so much later.
_SHARES_A_TIMEOUT = 4


async def _again_and_again(what: str, work: Callable[[], Awaitable[object]], seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            logger.exception("%s failed; it is tried again in %s s", what, seconds)


class Worker:
    """One of the service's processes; made before uvicorn is set up, whose protocol it extends."""

    def __init__(self, settings: ServingSettings, shop: ShopSettings) -> None:
        self._settings, self._shop = settings, shop
        self.app = app = App()
        self._watch = Watch(settings.limits, settings.server.workers)
        install(self._watch, lambda theirs: Front(app, theirs, settings.server.body_limit_bytes), app)
        self._housekeeping: list[asyncio.Task[None]] = []
        self._stops_at = 0.0

    def load(self) -> None:
        """Have everything that answers."""
        end_with_supervisor()
        settings, app = self._settings, self.app
        self.engine = Engine(settings, self._shop)
        app.engine = self.engine
        self.engine.metrics.watch = self._watch
        self._files = self.engine.metrics.files = WorkerFiles(Path(settings.server.run))
        if settings.server.workers > 1:
            self._watch.shares = self._files.shares()
        configure(settings.logs)
        app.log = RequestLog(settings.logs.sample)
        app.tracing = Tracing(settings.telemetry) if settings.telemetry.enabled else None
        # what is loaded now lives as long as the process: collecting it again and again is where p99 goes
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)
        # threads that work beside the loop (a checkpoint, an explanation) keep Python's lock for 5 ms otherwise
        sys.setswitchinterval(_SWITCH_SECONDS)

    def start_housekeeping(self) -> None:
        """Close sessions that are over, and hand them on; called in the event loop."""
        loop, server, store = asyncio.get_running_loop(), self._settings.server, self._settings.store
        self.app.streams.end_on(loop, signal.SIGTERM, signal.SIGINT)
        # nothing is listened to yet
        take_connections(loop, self._settings.limits.header_seconds, self._watch.shares)
        drain_on(loop, server.drain_seconds, self._drain, signal.SIGTERM, signal.SIGINT)
        share_seconds = self._settings.session.timeout_minutes * 60 / _SHARES_A_TIMEOUT
        engine, upkeep = self.engine, self.engine.upkeep
        again: list[tuple[str, Callable[[], Awaitable[object]], float]] = [
            ("replaying buffered events", partial(replay, engine), store.retry_seconds),
            ("sweeping", upkeep.sweep, store.sweep_seconds),
            ("handing on", upkeep.hand_over, store.closed_seconds),
            ("logging decisions", upkeep.log_decisions, _TELL_SECONDS),
            ("telling of old sessions", upkeep.share_usage, share_seconds),
            ("reading the keys", self._follow_keys, _FOLLOW_SECONDS),
            ("reading experiments", engine.experiments.follow, _FOLLOW_SECONDS),
            ("learning", engine.learning.keep, _FOLLOW_SECONDS),
            ("telling the metrics", self._tell_metrics, _TELL_SECONDS),
        ]
        if engine.outbound is not None:
            again.append(("tidying dead letters", engine.outbound.tidy, _TIDY_SECONDS))
        works = [self._watch.run(), engine.follow_models(), *(_again_and_again(*one) for one in again)]
        self._housekeeping = [asyncio.create_task(work) for work in works]

    async def stop(self) -> None:
        """Send what waits for others, and let go of the store."""
        for task in self._housekeeping:
            task.cancel()
        await asyncio.gather(*self._housekeeping, return_exceptions=True)
        left = max(self._stops_at - asyncio.get_running_loop().time(), _LEAST_FLUSH_SECONDS)
        sending = (self.app.collector, self.engine.outbound)
        await asyncio.gather(*(each.close(left) for each in sending if each is not None))
        with suppress(OSError):  # a full disk must not keep the store from being closed
            await self._tell_metrics()
        await self.engine.close()
        if self.app.tracing is not None:
            self.app.tracing.close()

    def is_ready(self) -> bool:
        """Whether every head scores its golden row as in training, and it does not drain."""
        wrong = self.engine.scorer.ready()
        for message in wrong:
            logger.error(message)
        return not wrong and not self.app.draining

    def _drain(self) -> None:
        self.app.draining = True
        server = self._settings.server
        self._stops_at = asyncio.get_running_loop().time() + server.drain_seconds + server.stop_seconds

    async def _tell_metrics(self) -> None:
        self._files.write(self.engine.metrics.samples())

    async def _follow_keys(self) -> bool:
        return self.app.gate is not None and self.app.gate.keys.follow()

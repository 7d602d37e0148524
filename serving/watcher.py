"""A worker's side of following models: starts the follower where nobody has, and swaps when its state is another one.

The registry may hang, be slow or be gone: that is the follower's business. A worker looks at one file.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric

from features.compiler import Fold
from serving.companion import Companion
from serving.follow import Orders
from serving.lineup import Lineup
from serving.model_cache import ModelCache, State
from serving.models import Models
from serving.settings import ServingSettings
from serving.shadow import Comparison

logger = logging.getLogger("lotse.models")

LOOK_SECONDS: Final = 0.05
# A first start has nothing to score with: the follower's import and its first downloads are waited for.
_FIRST_WAIT_SECONDS: Final = 120
# A follower that is silent for so long after it should have asked hangs, and is started again.
_SILENT_SECONDS: Final = 60


class Watcher:
    """Follows the models of one worker."""

    def __init__(self, settings: ServingSettings) -> None:
        self.cache = ModelCache(Path(settings.models.cache))
        self.comparison = Comparison()
        self._settings = settings
        self._follower = Companion(
            "serving.follow", self.cache.lock, lambda: self.cache.polled_ms() / 1000,
            settings.models.poll_seconds + _SILENT_SECONDS,
        )  # fmt: skip
        # one thread: versions are loaded one after the other, and the allocator needs one arena for them
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lotse-models")
        self._mark = (0, 0)
        self._swaps = 0
        self._state = State()
        self._state = self.cache.state()
        if not self._knows_all():
            # it has MLflow to import, which takes seconds, while the fold is compiled here
            self._follow()

    def start(self, fold: Fold) -> Lineup:
        """What scores first: what the cache has, at once; where that lacks a head, what the registry says."""
        self._follower.order(self._orders)
        self._models = Models(self._settings, self.cache, fold, self.comparison)
        heads, uri = self._settings.models.heads, self._settings.models.uri
        lineup = self._look()
        begin = time.monotonic()
        while uri and not (self._knows_all() and all(head in lineup.champions.heads for head in heads)):
            self._follow()
            if self.cache.state().run == self.cache.run() != "":
                return self._look()
            if time.monotonic() - begin > _FIRST_WAIT_SECONDS:
                logger.warning("the registry has not answered for %d s", _FIRST_WAIT_SECONDS)
                break
            time.sleep(LOOK_SECONDS)
        return lineup

    def _knows_all(self) -> bool:
        """Whether every head has a champion in the cache."""
        found = self._state.heads
        return all(head in found and found[head].champion for head in self._settings.models.heads)

    def _look(self) -> Lineup:
        self._mark, self._state = self.cache.mark(), self.cache.state()
        return self._thread.submit(self._models.lineup, self._state).result()

    async def run(self, swap: Callable[[Lineup], None]) -> None:
        """Call `swap` with each new lineup, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._follow()
                mark = self.cache.mark()
                if mark == self._mark and not self._models.outlived():
                    continue
                state = self.cache.state()
                if state.serves_as(self._state) and not self._models.outlived():
                    self._mark, self._state = mark, state
                    continue
                lineup = await loop.run_in_executor(self._thread, self._models.lineup, state)
                # no other task runs between here and the end of `swap`
                swap(lineup)
                self._mark, self._state = mark, state
                self._swaps += 1
            except Exception:
                logger.exception("the models cannot be followed; it is tried again")

    def status(self) -> dict[str, Any]:
        """The registry, and what its aliases lead to that cannot be used."""
        state = self._state
        refused = {
            head: {alias: {"version": one.number, "reason": one.reason, "detail": one.detail}}
            for head, followed in state.heads.items()
            for alias, one in followed.refused.items()
        }
        since = state.unreachable_since_ms
        registry = {"reachable": not since, "unreachable_since_ms": since} if since else {"reachable": True}
        return {"registry": {**registry, "asked_ms": self.cache.polled_ms()}, "refused": refused}

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before it is collected."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Called by Prometheus' registry."""
        since = self._state.unreachable_since_ms / 1000
        return [
            GaugeMetricFamily(
                "lotse_registry_unreachable_since_seconds", "Since when (Unix time); 0: it answers.", value=since
            ),
            GaugeMetricFamily(
                "lotse_registry_asked_seconds", "When it was last asked (Unix time).",
                value=self.cache.polled_ms() / 1000,
            ),
            GaugeMetricFamily("lotse_model_swaps", "Lineups that this worker has swapped in.", value=self._swaps),
        ]  # fmt: skip

    def close(self) -> None:
        """End the follower, if this worker started it."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._follower.close()

    def _follow(self) -> None:
        """See to it that there is a follower, if there is a registry."""
        if self._settings.models.uri:
            self._follower.keep()

    def _orders(self, run: str) -> bytes:
        """What a follower is told."""
        models = self._settings.models
        orders = Orders(
            run=run,
            cache=models.cache,
            uri=models.uri,
            prefix=models.prefix,
            champion=models.alias,
            challenger=models.challenger,
            heads=list(models.heads),
            poll_seconds=models.poll_seconds,
            kept=models.kept,
        )
        return msgspec.json.encode(orders)

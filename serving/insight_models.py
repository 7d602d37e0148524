"""GET /v1/insight/models: how the models are, as MLflow knows it (`serving.model_health`).

In: nothing but the request. Out: the document, read by a process beside the worker at low priority, which is there
only while somebody asks, and kept for `insight.cache_seconds`. It needs a secret key, as all that the gate opens to no
others.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from serving.http.call import Call, Reply
from serving.insight import Counter
from serving.model_health.asked import Asked
from serving.problems import Problem

if TYPE_CHECKING:
    from serving.settings import ServingSettings

PATH: Final = "/v1/insight/models"
_JSON: Final = b"application/json"
# Requests that wait for one that reads.
_WAITING: Final = 8
# Longer answers are documents; decoding one takes milliseconds that requests would wait for.
_MOST_PROBLEM: Final = 1_000


class Models:
    """The document, as long as it is known."""

    def __init__(self) -> None:
        self._counter = Counter("serving.model_health", "is the model registry slow?")
        self._one = asyncio.Lock()
        self._waiting = 0
        self._known, self._known_at = b"", float("-inf")

    async def get(self, call: Call) -> Reply:
        """The document.

        Raises
        ------
        Problem
            503: the registry does not answer, it took too long, or too many ask.
        """
        call.query()
        settings = call.engine.settings
        if not self._fresh(settings):
            if self._waiting >= _WAITING:
                raise Problem(503, "others are asking for the models; try again", retry_after_seconds=5)
            self._waiting += 1
            try:
                async with self._one:
                    if not self._fresh(settings):
                        await self._read(settings)
            finally:
                self._waiting -= 1
        return Reply(_JSON, self._known)

    def _fresh(self, settings: ServingSettings) -> bool:
        return time.monotonic() - self._known_at < settings.insight.cache_seconds

    async def _read(self, settings: ServingSettings) -> None:
        question = json.dumps(asdict(Asked.of(settings))).encode()
        answer = await self._counter.ask(question, settings.insight.timeout_seconds)
        found = json.loads(answer) if len(answer) < _MOST_PROBLEM else {}
        if "problem" in found:
            raise Problem(503, found["problem"], retry_after_seconds=5)
        self._known, self._known_at = answer, time.monotonic()

    async def close(self) -> None:
        """End the process that reads."""
        await self._counter.close()

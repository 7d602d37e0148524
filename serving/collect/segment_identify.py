"""Scores back to Segment: an `identify` call with a visitor's scores as traits, sent by us, off the hot path.

A visitor's scores are told when one crosses a threshold or is a step away from what was told, at most once in a while;
what waits is told as of then. What was told is known by a keyed hash whose key ends with the process; the visitor's
own id is kept only while a call waits or is on its way, and for `kept_seconds` at most in each of the two.

Calls that are due go in one request to Segment's HTTP API. While that cannot be reached they are tried again, and newer
scores of the same visitors replace those that wait. Nothing is written to disk: what waits when a worker ends is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_bytes
from typing import Any, Final
from uuid import uuid4

import httpx
import msgspec
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_before_delay,
    wait_exponential,
    wait_random,
)

from serving.collect.segment_options import IdentifyOptions
from serving.requests import Answer

logger = logging.getLogger("lotse.segment")

# Of Segment's API: calls in a request, with much room below its 500 kB.
_AT_ONCE: Final = 100
# What was told is forgotten after as long as a session may be silent by default, or where there is more than this.
_TOLD: Final = 100_000
_TOLD_SECONDS: Final = 1_800.0
_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 60.0


class RefusedError(Exception):
    """The API does not take the calls."""

    def __init__(self, status: int) -> None:
        super().__init__(f"it answered {status}")


class UnavailableError(RefusedError):
    """The API may take them later; seconds: not before, as it says itself."""

    def __init__(self, status: int, seconds: float) -> None:
        super().__init__(status)
        self.seconds = seconds


@dataclass(slots=True)
class _Waiting:
    """A call to come. who: the visitor as Segment knows it; due: when it may go, of `time.monotonic`."""

    who: Mapping[str, str]
    scores: dict[str, float]
    versions: dict[str, str]
    due: float


class Identify:
    """Tells Segment scores.

    count: told of what became of a call: sent, refused (by the API, or the API could not be reached for too long) or
    given up (too many wait).
    """

    def __init__(self, options: IdentifyOptions, count: Callable[[str], None]) -> None:
        self._options, self._count = options, count
        self._salt = token_bytes(16)
        self._told: dict[int, tuple[float, dict[str, float]]] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._sender: asyncio.Task[None] | None = None
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells every request otherwise
        self._http = httpx.AsyncClient(timeout=options.timeout_seconds, auth=(options.write_key, ""))
        self._retrying = AsyncRetrying(
            retry=retry_if_exception_type((UnavailableError, httpx.TransportError)),
            wait=_wait,
            stop=stop_before_delay(options.kept_seconds),
            reraise=True,
        )

    def offer(self, who: Mapping[str, str], answer: Answer) -> None:
        """A visitor's scores as they are now; called in the event loop.

        Those that no model gave, or that know less than they should, are not told.
        """
        if answer.reason:
            return
        scores = {head: round(score, 4) for head, score in answer.scores.items() if head not in answer.reasons}
        versions = {head: answer.models[head] for head in scores if head in answer.models}
        key, now = self._key(who), time.monotonic()
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.scores, waiting.versions = scores, versions
            return
        at, told = self._told.get(key, (0.0, {}))
        if not self._is_news(told, scores):
            return
        if len(self._waiting) >= self._options.waiting:
            del self._waiting[next(iter(self._waiting))]
            self._count("given up")
        due = max(now, at + self._options.seconds) if told else now
        self._waiting[key] = _Waiting(who, scores, versions, due)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())

    def forget(self, who: Mapping[str, str]) -> None:
        """A visitor does not consent (any more): what waits is not told."""
        if self._waiting:
            self._waiting.pop(self._key(who), None)

    def _key(self, who: Mapping[str, str]) -> int:
        # SipHash of Python, 0.1 us: all that is needed of a hash that never leaves this process
        return hash((self._salt, *who.items()))

    def _is_news(self, told: Mapping[str, float], scores: Mapping[str, float]) -> bool:
        """Whether a score crossed a threshold or is a step away from what was told; who was told nothing was told 0."""
        step = self._options.step
        for head, score in scores.items():
            before, thresholds = told.get(head, 0.0), self._options.thresholds.get(head, ())
            if bisect_right(thresholds, before) != bisect_right(thresholds, score):
                return True
            if step and abs(score - before) >= step:
                return True
        return False

    async def _send(self) -> None:
        """Send what is due, as long as something waits."""
        while self._waiting:
            await asyncio.sleep(self._options.pause_seconds)
            now = time.monotonic()
            due = [key for key, waiting in self._waiting.items() if waiting.due <= now][:_AT_ONCE]
            calls = {key: self._waiting.pop(key) for key in due}
            late = [key for key, call in calls.items() if now - call.due > self._options.kept_seconds]
            for key in late:
                del calls[key]
                self._count("given up")
            if calls:
                await self._deliver(calls, now)

    async def _deliver(self, calls: Mapping[int, _Waiting], now: float) -> None:
        for key, call in calls.items():
            self._told.pop(key, None)
            self._told[key] = (now, call.scores)
        self._forget_told(now)
        batch = [_identify(call) for call in calls.values()]
        outcome = "sent"
        try:
            await self._retrying(self._post, batch)
        except (RefusedError, httpx.TransportError) as error:
            why = str(error) or type(error).__name__
            logger.warning("the scores of %d visitors were not taken by Segment: %s", len(batch), why)
            outcome = "refused"
            for key in calls:
                self._told.pop(key, None)
        for _ in batch:
            self._count(outcome)

    def _forget_told(self, now: float) -> None:
        """The oldest come first."""
        kept = max(_TOLD_SECONDS, self._options.seconds)
        for key, (at, _) in list(self._told.items()):
            if len(self._told) <= _TOLD and now - at <= kept:
                return
            del self._told[key]

    async def _post(self, batch: Sequence[Mapping[str, Any]]) -> None:
        body = msgspec.json.encode({"batch": batch, "sentAt": _now()})
        answer = await self._http.post(
            self._options.endpoint, content=body, headers={"content-type": "application/json"}
        )
        if answer.status_code == 429 or answer.status_code >= 500:
            after = answer.headers.get("retry-after", "")
            raise UnavailableError(answer.status_code, float(after) if after.isascii() and after.isdigit() else 0.0)
        if answer.status_code >= 300:
            raise RefusedError(answer.status_code)


# some chance, so that workers do not come back all at once
_backoff: Final = wait_exponential(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS) + wait_random(0, _FIRST_WAIT_SECONDS)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_backoff(state), error.seconds if isinstance(error, UnavailableError) else 0.0)


def _identify(call: _Waiting) -> dict[str, Any]:
    """The call; its messageId stays the same however often it is sent."""
    versions = {f"lotse_{head}_version": version for head, version in call.versions.items()}
    return {
        "type": "identify",
        "messageId": f"lotse-{uuid4()}",
        "timestamp": _now(),
        **call.who,
        "traits": {**{f"lotse_{head}": score for head, score in call.scores.items()}, **versions},
        "context": {"library": {"name": "lotse"}},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

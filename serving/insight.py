"""GET /v1/insight/journeys: paths, funnels, endings and the rest over the sessions that were handed on.

In: a query. Out: the document of `features.journeys.report`, counted by a process beside the worker at low priority,
one question at a time, and kept for `insight.cache_seconds`. It needs a secret key, as all that the gate opens to no
others.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from features.errors import EventError
from serving.beside import ended, started
from serving.http.call import Call, Reply
from serving.problems import Problem

if TYPE_CHECKING:
    from serving.settings import ServingSettings

logger = logging.getLogger("lotse.insight")

PATH: Final = "/v1/insight/journeys"
QUERY: Final = ("begin", "goal", "funnel", "without", "depth", "since_ms", "until_ms")
_JSON: Final = b"application/json"
_MOST_STEPS: Final = 10
_MOST_FUNNELS: Final = 8
_MOST_TEXT: Final = 300
_MOST_DEPTH: Final = 12
# Answers that are known, and requests that wait for others.
_KEPT: Final = 32
_WAITING: Final = 8
# An answer is tens of kilobytes.
_MOST_BYTES: Final = 2**24
# It holds the sessions that were asked for last in memory.
_IDLE_SECONDS: Final = 60.0


class Journeys:
    """Answers, and those that are known still."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._counter = Counter()
        self._one = asyncio.Lock()
        self._waiting = 0

    async def get(self, call: Call) -> Reply:
        """The document.

        Raises
        ------
        Problem
            422: a parameter or a step that is not known; 503: too many ask, or it took too long.
        """
        settings = call.engine.settings
        question = _question(call.query(*QUERY), settings)
        known = self._fresh(question, settings.insight.cache_seconds)
        if known is None:
            if self._waiting >= _WAITING:
                raise Problem(503, "others are asking for journeys; try again", retry_after_seconds=5)
            self._waiting += 1
            try:
                async with self._one:
                    known = self._fresh(question, settings.insight.cache_seconds)
                    if known is None:
                        known = await self._counter.ask(question, settings.insight.timeout_seconds)
                        self._keep(question, known)
            finally:
                self._waiting -= 1
        return Reply(_JSON, known)

    async def close(self) -> None:
        """End the process that counts."""
        await self._counter.close()

    def _fresh(self, question: bytes, seconds: float) -> bytes | None:
        at, answer = self._known.get(question, (float("-inf"), b""))
        return answer if time.monotonic() - at < seconds else None

    def _keep(self, question: bytes, answer: bytes) -> None:
        self._known[question] = (time.monotonic(), answer)
        self._known.move_to_end(question)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)


class Counter:
    """`python -m <module>`, while there is something to ask; one question at a time."""

    def __init__(self, module: str = "features.journeys", advice: str = "ask for fewer days") -> None:
        self._module, self._advice = module, advice
        self._process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    async def ask(self, question: bytes, timeout_seconds: float) -> bytes:
        """The answer.

        Raises
        ------
        Problem
            503: it took too long, or the process ended.
        """
        if self._idle is not None:
            self._idle.cancel()
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._asked(question)
        except TimeoutError:
            await self.close()
            said = f"counting took longer than {timeout_seconds:g} s; {self._advice}"
            raise Problem(503, said, retry_after_seconds=60) from None
        except BaseException:
            # an answer that comes later would be taken for the next one's
            await self.close()
            raise
        if not answer.endswith(b"\n"):
            logger.error("the process %s has ended", self._module)
            await self.close()
            raise Problem(503, "counting broke off; try again", retry_after_seconds=5)
        self._idle = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._rest)
        return answer

    async def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            await ended(process)

    async def _asked(self, question: bytes) -> bytes:
        if self._process is None:
            self._process = await started(self._module, _MOST_BYTES)
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with suppress(ConnectionError):  # it has ended: there is no answer
            process.stdin.write(question + b"\n")
            await process.stdin.drain()
        return await process.stdout.readline()

    def _rest(self) -> None:
        self._closing = asyncio.get_running_loop().create_task(self.close())


def _question(found: dict[str, list[str]], settings: ServingSettings) -> bytes:
    """What is asked, checked, as `features.journeys.__main__` reads it."""
    from features.journeys.funnels import parsed  # noqa: PLC0415  (asked for once in a while)
    from features.journeys.report import Asked  # noqa: PLC0415

    depth = _number(found, "depth", 6, 1, _MOST_DEPTH)
    begin, goal, without = (tuple(found.get(name, ())) for name in ("begin", "goal", "without"))
    texts = found.get("funnel", [])
    try:
        if max(len(begin), len(goal), len(without)) > _MOST_STEPS:
            raise EventError(f"at most {_MOST_STEPS} steps")
        if len(texts) > _MOST_FUNNELS or any(len(text) > _MOST_TEXT for text in texts):
            raise EventError(f"at most {_MOST_FUNNELS} funnels of {_MOST_TEXT} characters")
        asked = Asked(
            tuple(map(parsed, texts)), begin, goal, without, depth, least_visitors=settings.insight.least_visitors
        )
        if any(len(one.steps) > _MOST_STEPS for one in asked.funnels):
            raise EventError(f"a funnel has at most {_MOST_STEPS} steps")
    except EventError as error:
        raise Problem(422, f"{error}"[:300]) from None
    question: dict[str, Any] = {
        "folder": settings.store.closed,
        "since_ms": _number(found, "since_ms", 0, 0, 2**53),
        "until_ms": _number(found, "until_ms", 2**53, 0, 2**53),
        "asked": asdict(asked),
    }
    return json.dumps(question).encode()


def _number(found: dict[str, list[str]], name: str, usual: int, least: int, most: int) -> int:
    text = found.get(name, [str(usual)])[-1]
    if not text.isascii() or not text.isdigit() or len(text) > 16 or not least <= int(text) <= most:
        raise Problem(422, f"query parameter {name}: found {text[:80]!r}, expected a number from {least} to {most}")
    return int(text)

"""GET /v1/insight/live: server-sent events of all sessions that run, for the console.

In: which list is looked at. Out: `health`, `totals` and `rows` about once a second. A process beside the worker looks
at the store and scores (`python -m serving.console`), one for all listeners; the worker only passes on its lines.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving.beside import ended, started
from serving.console.orders import RECENT, Wanted, lists_of, orders_of
from serving.http.call import Call, Reply
from serving.problems import Problem

if TYPE_CHECKING:
    from serving.engine import Engine

logger = logging.getLogger("lotse.console")

LIVE: Final = "/v1/insight/live"
_EVENTS: Final = b"text/event-stream"
_RETRY: Final = b"retry: 3000\n\n"
_MODULE: Final = "serving.console"
# All rows of a list are some tens of kilobytes.
_MOST_BYTES: Final = 2**24
# A listener that is so far behind is told anew how things stand.
_MOST_WAITING: Final = 32
# A page that is loaded again finds the process still there: it takes two seconds to start.
_IDLE_SECONDS: Final = 20.0
_AGAIN_SECONDS: Final = 2.0
# Numerical libraries would take a thread a core.
_ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


class Listener:
    """One console, and what it was not sent yet."""

    def __init__(self, name: str) -> None:
        self.list = name
        self.waiting: deque[bytes] = deque()
        self.awake = asyncio.Event()


class Live:
    """All consoles of this worker, and the process that looks for them."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._process: asyncio.subprocess.Process | None = None
        self._relaying: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._ending = False

    async def get(self, call: Call) -> Reply:
        """The stream.

        Raises
        ------
        Problem
            404: the console is switched off; 422: a list that there is not; 503: too many listen.
        """
        settings = call.engine.settings
        if not settings.console.enabled:
            raise Problem(404, "the console is switched off; see console.enabled in configs/serving.toml")
        known = lists_of(settings)
        name = call.query("list").get("list", [RECENT])[-1]
        if name not in known:
            raise Problem(422, f"query parameter list: found {name[:80]!r}, expected one of {', '.join(known)}")
        limit = settings.console.listeners
        if len(self._listeners) >= limit or self._ending:
            raise Problem(503, f"{limit} consoles are served at a time", retry_after_seconds=10)
        parts = self._parts(call, Listener(name))
        return Reply(_EVENTS, parts, headers=((b"x-accel-buffering", b"no"),))

    def end(self) -> None:
        """End every stream, because the service stops."""
        self._ending = True
        for listener in self._listeners:
            listener.awake.set()

    async def close(self) -> None:
        """End the process."""
        await self._taken()

    async def _parts(self, call: Call, listener: Listener) -> AsyncIterator[bytes]:
        self._listeners.append(listener)
        try:
            yield _RETRY
            if self._idle is not None:
                self._idle.cancel()
            if self._relaying is None or self._relaying.done():
                self._relaying = asyncio.get_running_loop().create_task(self._relay(call.engine))
            self._want(listener.list)
            heartbeat = call.engine.settings.stream.heartbeat_seconds
            while not self._ending and call.admission.holds():
                while listener.waiting:
                    yield listener.waiting.popleft()
                try:
                    async with asyncio.timeout(heartbeat):
                        await listener.awake.wait()
                except TimeoutError:
                    yield b":\n\n"
                listener.awake.clear()
        finally:
            self._listeners.remove(listener)
            if self._listeners:
                self._want()
            else:
                self._idle = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._rest)

    def _want(self, *anew: str) -> None:
        """Tell the process what is looked at; anew: lists of which somebody has no rows yet."""
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            return  # it is told when it starts
        lists = sorted({listener.list for listener in self._listeners})
        process.stdin.write(msgspec.json.encode(Wanted(lists, list(anew))) + b"\n")

    async def _relay(self, engine: Engine) -> None:
        """Keep a process and pass its lines on, as long as somebody listens."""
        while self._listeners and not self._ending:
            files = engine.metrics.files
            orders = orders_of(engine.settings, str(files.folder.resolve()) if files is not None else "")
            self._process = process = await started(_MODULE, _MOST_BYTES, environment=_ONE_THREAD, told=True)
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(msgspec.json.encode(orders) + b"\n")
            self._want()
            while line := await process.stdout.readline():
                self._pass_on(line)
            if self._process is not process:
                return  # it was told to end
            await ended(process)
            self._process = None
            if self._listeners and not self._ending:
                logger.error("the process that looks for consoles has ended; it is started again")
                await asyncio.sleep(_AGAIN_SECONDS)

    def _pass_on(self, line: bytes) -> None:
        what, _, data = line.rstrip(b"\n").partition(b" ")
        name, _, of = what.partition(b":")
        part, whose = b"event: %s\ndata: %s\n\n" % (name, data), of.decode()
        for listener in self._listeners:
            if whose and listener.list != whose:
                continue
            if len(listener.waiting) >= _MOST_WAITING:
                listener.waiting.clear()
                self._want(listener.list)
            listener.waiting.append(part)
            listener.awake.set()

    def _rest(self) -> None:
        if not self._listeners:
            self._closing = asyncio.get_running_loop().create_task(self._taken())

    def _taken(self) -> Coroutine[Any, Any, None]:
        """What ends the process; who comes from now on starts another one."""
        relaying, process = self._relaying, self._process
        self._relaying = self._process = None
        return _let_go(relaying, process)


async def _let_go(relaying: asyncio.Task[None] | None, process: asyncio.subprocess.Process | None) -> None:
    if relaying is not None:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)
    if process is not None:
        await ended(process, gently=True)

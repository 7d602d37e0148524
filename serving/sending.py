"""Sending behind the answer: a bounded queue in memory, and senders that try what they take from it until it is taken.

In: items with a moment after which they are given up. Out: each item ends once, taken or lost for a reason.

Nobody waits for a receiver. What it cannot take is tried again with growing pauses, by the sender that has it: while it
is away, no more tries are made than there are senders.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, Protocol, TypeVar

from aiohttp import ClientConnectionError, ClientSession, SocketTimeoutError
from tenacity import RetryCallState, wait_exponential, wait_random

# The receiver, or what stands before it, could not take it.
AWAY: Final = frozenset({429, 502, 503, 504})


class Item(Protocol):
    """What is sent. due: when it is given up, by the loop's clock; size: what it takes of the queue's room."""

    @property
    def due(self) -> float: ...

    @property
    def size(self) -> int: ...


AnyItem = TypeVar("AnyItem", bound=Item)


class DeclinedError(Exception):
    """The receiver answered that it has not taken something; after_seconds: not to be asked before, as it says."""

    def __init__(self, status: int, after_seconds: float = 0.0) -> None:
        super().__init__(status)
        self.status, self.after_seconds = status, after_seconds


class Sending(ABC, Generic[AnyItem]):
    """A queue and its senders, which begin with the first item, in the loop that serves.

    senders: tasks, each with one request on its way; room: sum of the items' sizes; together: most items of a request.
    """

    def __init__(self, senders: int, room: int, together: int = 1) -> None:
        self._count, self._room, self._together = senders, room, together
        self._used = 0
        self._queue: asyncio.Queue[AnyItem] = asyncio.Queue()
        self._senders: list[asyncio.Task[None]] = []
        self._session: ClientSession | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    def enqueue(self, item: AnyItem) -> str:
        """Have an item sent; returns why it is not: overflow, or stopped."""
        if self._closed:
            return "stopped"
        if self._used + item.size > self._room:
            return "overflow"
        if self._session is None:
            session = self._session = self._client()
            self._senders = [asyncio.create_task(self._send(session)) for _ in range(self._count)]
        self._used += item.size
        self._queued(1)
        self._queue.put_nowait(item)
        return ""

    async def close(self, seconds: float) -> None:
        """Send what waits, for so long; what is left is lost."""
        self._closed = True
        if self._session is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._queue.join()
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        while not self._queue.empty():
            self.finish(self._queue.get_nowait(), "stopped")
        await self._session.close()

    def finish(self, item: AnyItem, lost: str) -> None:
        """An item that was taken from the queue has come to its end; lost: why, empty if it has arrived."""
        self._used -= item.size
        self._queued(-1)
        self._ended(item, lost)
        self._queue.task_done()

    @abstractmethod
    def _client(self) -> ClientSession:
        """What sends."""

    @abstractmethod
    async def _deliver(self, session: ClientSession, items: list[AnyItem]) -> str:
        """Send some items; returns why they are lost, empty if they are not. Those that it finishes it takes out."""

    @abstractmethod
    def _queued(self, change: int) -> None:
        """So many more items wait or are under way."""

    @abstractmethod
    def _ended(self, item: AnyItem, lost: str) -> None:
        """Count an item that was sent or lost."""

    async def _send(self, session: ClientSession) -> None:
        """One after the other, for ever; between two, nothing is held of either."""
        while True:
            await self._send_with(session, await self._queue.get())

    async def _send_with(self, session: ClientSession, first: AnyItem) -> None:
        items = [first]
        del first
        while len(items) < self._together and not self._queue.empty():
            items.append(self._queue.get_nowait())
        lost = "stopped"  # unless this task gets to the end of it
        try:
            # aiohttp takes ten times as long for a request as we do for an answer: what came together goes one by one,
            # and what comes meanwhile is answered in between
            async with self._turn:
                await asyncio.sleep(0)
            lost = await self._deliver(session, items)
        finally:
            for item in items:
                self.finish(item, lost)


def backoff(first_seconds: float, longest_seconds: float) -> Callable[[RetryCallState], float]:
    """Pauses between tries, from twice the first on: growing, with some chance, so that workers do not come back all at
    once, and as long as the receiver asks for.
    """
    growing = wait_exponential(2 * first_seconds, longest_seconds) + wait_random(0, first_seconds)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        return max(growing(state), error.after_seconds if isinstance(error, DeclinedError) else 0.0)

    return wait


def forget_where(error: BaseException | None) -> None:
    """Let go of the frames in which an error was raised, and those that caused it.

    What was to be sent is in them; and some frames hold their error (aiohttp's do, and who tries again does): these
    cycles would outlive the sending by hours.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def is_late(error: BaseException) -> bool:
    """Whether something was sent and not answered in time; where no connection was made, nothing was sent."""
    if isinstance(error, ClientConnectionError):
        return isinstance(error, SocketTimeoutError)
    return isinstance(error, TimeoutError)

"""The way out to one target: a queue in memory, senders, tries, and at the end a dead letter or a count.

Whether the visitor still allows it is asked before each try. A receiver that answers 408, 425, 429 or 5xx, breaks the
connection or does not answer in time is tried again until the message is too old, with growing pauses and not before
its `Retry-After`; it knows a message that comes twice by its id. Any other answer but 2xx is final.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from aiohttp import ClientConnectionError, ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from yarl import URL

from serving.outbound.dead_letters import DeadLetter, DeadLetters, letter_of
from serving.sending import DeclinedError, Sending, backoff, forget_where
from serving.stores import StoreError

if TYPE_CHECKING:
    from serving.metrics import Metrics
    from serving.outbound import Message, Parcel, Target
    from serving.outbound.configuration import OutboundSettings

logger = logging.getLogger("lotse.outbound")

_LATER: Final = frozenset({408, 425, 429})
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 60
_wait: Final = backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
# Why something is not told although it could be.
_WITHDRAWN: Final = "withdrawn"


class Outlet(Sending["Message"]):
    """The way to one target.

    Every message that is put in ends in one count: `outbound_sent` by type, or `outbound_dropped` by reason: overflow,
    expired (it waited too long), unreachable (the receiver was, until then), refused (by it), withdrawn (the visitor
    does not allow it any more, or was erased), stopped (the service has), failed (what was answered is no HTTP). What
    is dropped for another reason than the visitor's will is a dead letter, where the target needs no ids of trackers.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        settings: OutboundSettings,
        metrics: Metrics,
        allowed: Callable[[int], Awaitable[bool]],
        letters: DeadLetters,
    ) -> None:
        super().__init__(settings.connections, settings.queue, target.together)
        self.name, self.target = name, target
        self._settings, self._metrics, self._allowed, self._letters = settings, metrics, allowed, letters
        self._dead: list[DeadLetter] = []
        self._writing: asyncio.Task[None] | None = None
        self._reached = True
        metrics.outbound_queue[name] = 0

    def put(self, message: Message) -> None:
        """Have a message told, if the target wants it."""
        if self.target.wants(message) and (lost := self.enqueue(message)):
            self._lose(message, lost)

    async def close(self, seconds: float) -> None:
        """Send what waits, for so long; what is left is a dead letter, or lost."""
        await super().close(seconds)
        if self._writing is not None:
            await self._writing
        await self._write_soon()

    def _client(self) -> ClientSession:
        return client(self._settings)

    def _queued(self, change: int) -> None:
        self._metrics.outbound_queue[self.name] += change

    def _ended(self, item: Message, lost: str) -> None:
        if lost:
            self._lose(item, lost)
        else:
            self._metrics.outbound_sent[self.name, item.type] += 1

    def _lose(self, message: Message, reason: str) -> None:
        self._metrics.outbound_dropped[self.name, reason] += 1
        if self.target.tracker or reason == _WITHDRAWN:
            return
        self._dead.append(letter_of(message, reason))
        if not self._closed and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write_soon())

    async def _write_soon(self) -> None:
        """Beside the loop, until nothing is left; nothing of those who were erased meanwhile."""
        while self._dead:
            letters, self._dead = self._dead, []
            with suppress(StoreError):  # nobody knows then, and it is asked again before any is sent
                letters = [letter for letter in letters if await self._allowed(letter.visitor)]
            if letters:
                await asyncio.to_thread(self._write, letters)

    def _write(self, letters: list[DeadLetter]) -> None:
        try:
            left = self._letters.add(self.name, letters)
        except OSError as error:
            left = len(letters)
            logger.error("messages to %s that could not be delivered are lost: %s", self.name, type(error).__name__)
        self._metrics.outbound_dead[self.name] += len(letters) - left
        if left:
            self._metrics.outbound_dropped[self.name, "no room for dead letters"] += left

    async def _deliver(self, session: ClientSession, items: list[Message]) -> str:
        """Why the messages are lost, empty if they are not; those that may not be told are taken out."""
        due, loop = min(item.due for item in items), asyncio.get_running_loop()
        if loop.time() > due:
            return "expired"

        def note(state: RetryCallState) -> None:
            self._metrics.outbound_retries[self.name] += 1
            self._note(state.outcome.exception() if state.outcome is not None else None)

        trying = AsyncRetrying(
            retry=retry_if_exception(_again),
            stop=lambda state: loop.time() + state.upcoming_sleep > due,
            wait=_wait, before_sleep=note, reraise=True,
        )  # fmt: skip
        try:
            await trying(self._ask, session, items)
        except Exception as error:
            forget_where(error)
            return self._why(error)
        if items and not self._reached:
            self._reached = True
            logger.info("%s takes messages again", self.name)
        return ""

    async def _ask(self, session: ClientSession, items: list[Message]) -> None:
        """Have the messages told that may be.

        Raises
        ------
        DeclinedError, ClientError, TimeoutError
            As of `post`.
        StoreError
            Nobody knows whether they may.
        """
        for item in [item for item in items if not await self._allowed(item.visitor)]:
            items.remove(item)
            self.finish(item, _WITHDRAWN)
        if not items:
            return
        try:
            await post(session, self.target.parcel(items, time.time_ns() // 1_000_000))
        except Exception as error:
            forget_where(error)
            raise

    def _why(self, error: Exception) -> str:
        """Why messages are lost whose last try has failed."""
        if isinstance(error, DeclinedError | ClientConnectionError | OSError | StoreError):  # timeouts are OSErrors
            self._note(error)
            return "refused" if isinstance(error, DeclinedError) and not _again(error) else "unreachable"
        # its words may hold what was to be sent
        logger.error("a request to %s failed: %s", self.name, type(error).__name__)
        return "failed"

    def _note(self, error: BaseException | None) -> None:
        """Say that the receiver does not take messages, where it is news."""
        if self._reached:
            self._reached = False
            why = f"it answers {error.status}" if isinstance(error, DeclinedError) else type(error).__name__
            logger.warning("%s does not take messages: %s", self.name, why)


def client(settings: OutboundSettings) -> ClientSession:
    """What sends."""
    return ClientSession(
        connector=TCPConnector(limit=settings.connections), cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=settings.timeout_seconds), headers={"user-agent": "lotse"},
    )  # fmt: skip


async def post(session: ClientSession, parcel: Parcel) -> None:
    """Send a request.

    Raises
    ------
    DeclinedError
        The receiver has not taken it.
    ClientError, TimeoutError
        It has not answered.
    """
    async with session.post(
        URL(parcel.url, encoded=True), data=parcel.body, headers=parcel.headers, allow_redirects=False
    ) as response:
        with suppress(ClientError, TimeoutError):
            await response.read()  # only so that the connection can be used again
        if not 200 <= response.status < 300:
            raise DeclinedError(response.status, _seconds(response.headers.get("retry-after", "")))


def _again(error: BaseException) -> bool:
    if isinstance(error, DeclinedError):
        return error.status in _LATER or error.status >= 500
    return isinstance(error, ClientConnectionError | TimeoutError | StoreError)


def _seconds(after: str) -> float:
    """What `Retry-After` says: seconds, or a date.

    >>> _seconds("120"), _seconds(""), _seconds("Fri, 31 Dec 1999 23:59:59 GMT")
    (120.0, 0.0, 0.0)
    """
    if after.isascii() and after.isdigit():
        return float(after)
    try:
        return max(parsedate_to_datetime(after).timestamp() - time.time(), 0.0)
    except ValueError:
        return 0.0

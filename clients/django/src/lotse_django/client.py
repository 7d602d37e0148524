"""One process's connection to the service: questions with a deadline, and events that are delivered in any case.

A page asks, and waits until the deadline at most. After some failures in a row nobody waits any more for a while
(pybreaker). The event of a page that gave up waiting is not lost: its request goes on for a moment, and if nothing
comes of it, the event goes to the outbox with the same id, which the service counts once.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import random
import time
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from threading import Lock
from typing import Any, Final, NamedTuple

import httpx
from pybreaker import CircuitBreaker, CircuitBreakerError, CircuitBreakerListener

from lotse_django.background import Background
from lotse_django.outbox import LATER, Outbox, verdict_of
from lotse_django.settings import Settings
from lotse_django.wire import NO_ANSWER, Answer, Event, decode_answer, encode

logger: Final = logging.getLogger("lotse")

# A request that nobody waits for any more is given up after so long; so is each delivery from the outbox.
_LATEST_SECONDS: Final = 2.0
_DELIVERY_SECONDS: Final = 5.0
# Less than the service keeps idle connections (server.keep_alive_seconds, 60), so that none is used as it is closed.
_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30)
_FIRST_PAUSE_SECONDS: Final = 0.25
_JSON: Final = {"content-type": "application/json"}


class Told(NamedTuple):
    """What a page was told: the answer, and `ok` or why there is none."""

    answer: Answer
    reason: str


class Response(NamedTuple):
    """Any answer of the service."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class UnavailableError(Exception):
    """No answer in time: `timeout` or `unavailable`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Listener(CircuitBreakerListener):
    """Says once what would otherwise be said of every page."""

    def state_change(self, cb: CircuitBreaker, old_state: Any, new_state: Any) -> None:
        """Pages wait again, or do not."""
        if new_state.name == "open" and old_state.name == "closed":
            logger.warning("the service has failed %d times in a row; no page waits for it", cb.fail_max)
        elif new_state.name == "closed":
            logger.info("the service is back")


class Client:
    """The connection; it begins with the first question, in each process anew.

    Attributes
    ----------
    counts: events by what became of them: `answered` at once, `delivered` from the outbox, `dropped` because it was
    full, `refused` by the service, `lost` at the process's end.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self._seconds = settings.timeout_ms / 1000
        self._headers = {"authorization": f"Bearer {settings.key}"} if settings.key else {}
        self._url = settings.url.rstrip("/")
        # read once: an address takes httpx longer to take apart than an event to write
        self._asking, self._telling = (
            httpx.URL(f"{self._url}/v1/events{query}") for query in (settings.query, "?scores=none")
        )
        # certificates are read once, and not in the first page's time
        self._verify = httpx.create_ssl_context()
        self._begin()
        # neither keeps a client alive that is not used any more
        os.register_at_fork(after_in_child=_weakly(self._begin))
        atexit.register(_weakly(self.close))

    def _begin(self) -> None:
        """As new: threads, connections and locks are not those of another process."""
        settings = self.settings
        self._lock, self._background = Lock(), None
        self._running, self._status = set[asyncio.Task[Any]](), 0
        self.outbox = Outbox(settings.queue, self.counts, self._wake)
        self._breaker = CircuitBreaker(
            settings.failures, settings.retry_seconds, name="lotse", throw_new_error_on_trip=False,
            exclude=[asyncio.CancelledError], listeners=[_Listener()],
        )  # fmt: skip

    _background: Background | None

    def ask(self, event: Event, headers: Mapping[str, str]) -> Told:
        """Send a page's event and wait for the answer, until the deadline."""
        if self.outbox.must_wait(event.visitor):
            return self._postponed(event)
        try:
            with self._breaker.calling():
                future = self._sending(event, headers)
                try:
                    return _checked(future.result(self._seconds))
                except TimeoutError:
                    raise self._late(event) from None
        except CircuitBreakerError:
            return self._postponed(event)
        except UnavailableError as error:
            return Told(NO_ANSWER, error.reason)

    async def ask_async(self, event: Event, headers: Mapping[str, str]) -> Told:
        """The same, where other requests go on meanwhile."""
        if self.outbox.must_wait(event.visitor):
            return self._postponed(event)
        try:
            with self._breaker.calling():
                future = asyncio.wrap_future(self._sending(event, headers))
                # wait_for would take back a request that may be answered a moment later
                await asyncio.wait([future], timeout=self._seconds)
                if not future.done():
                    raise self._late(event)
                return _checked(future.result())
        except CircuitBreakerError:
            return self._postponed(event)
        except UnavailableError as error:
            return Told(NO_ANSWER, error.reason)

    def _sending(self, event: Event, headers: Mapping[str, str]) -> Future[Told]:
        self.outbox.begin(event)
        return self._submit(self._told(event, headers))

    def _late(self, event: Event) -> UnavailableError:
        self.outbox.doubt(event)
        return UnavailableError("timeout")

    def _postponed(self, event: Event) -> Told:
        """Nobody asks: the service is away, or this would go before what the visitor did earlier."""
        self.put([event])
        return Told(NO_ANSWER, "unavailable")

    def fetch(self, method: str, url: str, content: bytes, headers: Mapping[str, str]) -> Response:
        """Any request to the service within the deadline, such as OpenFeature's.

        Raises
        ------
        UnavailableError
            There was no answer in time, or nobody is asked at the moment.
        """
        try:
            with self._breaker.calling():
                future = self._submit(self._fetched(method, url, content, headers))
                try:
                    found = future.result(self._seconds)
                except TimeoutError:
                    future.cancel()
                    raise UnavailableError("timeout") from None
                if found is None:
                    raise UnavailableError("unavailable")
                return found
        except CircuitBreakerError:
            raise UnavailableError("unavailable") from None

    def put(self, events: Iterable[Event]) -> None:
        """Deliver events in the background."""
        self.outbox.put(events)
        self._started()

    def start(self) -> None:
        """Begin, and connect, before the first question, where there is time."""
        self._submit(self._fetched("GET", f"{self._url}/livez", b"", {}))

    def close(self) -> None:
        """Send what waits, within `flush_seconds`, and end; what is left is lost, and counted. May be called again."""
        with self._lock:
            background, self._background = self._background, None
        if background is None:
            return
        deadline = time.monotonic() + self.settings.flush_seconds
        try:
            background.submit(self._finish(self.settings.flush_seconds)).result(self.settings.flush_seconds + 1)
        except Exception as error:
            logger.warning("the service's connections could not be closed: %s", type(error).__name__)
        background.stop()
        self.outbox.free()
        self._flush(deadline)
        if left := len(self.outbox):
            self.counts["lost"] += left
            logger.warning("%d events could not be delivered before the end of the process", left)
            self.outbox = Outbox(self.settings.queue, self.counts, self._wake)

    def _flush(self, deadline: float) -> None:
        """Send what waits from this thread: when a process ends, no loop can begin one to look up a name."""
        seconds = max(deadline - time.monotonic(), 0)
        if not len(self.outbox) or not seconds:
            return
        with httpx.Client(verify=self._verify, headers=self._headers, timeout=seconds) as http:
            while (batch := self.outbox.batch()) and time.monotonic() < deadline:
                try:
                    response = http.post(self._telling, content=batch.body, headers=_headers_of(batch.key))
                except httpx.HTTPError:
                    response = None
                verdict = verdict_of(response, batch)
                self.outbox.settle(batch, verdict)
                if not verdict.is_final:
                    time.sleep(max(min(_FIRST_PAUSE_SECONDS, deadline - time.monotonic()), 0))

    # what follows runs in the loop

    async def _told(self, event: Event, headers: Mapping[str, str]) -> Told:
        """Ask, and see to it that the event arrives."""
        self._note()
        try:
            async with asyncio.timeout(_LATEST_SECONDS):
                response = await self._http.post(self._asking, content=encode(event), headers={**_JSON, **headers})
            if response.is_success:
                answer = decode_answer(response.content)
                self.outbox.answered(event)
                self.counts["answered"] += 1
                self._status = response.status_code
                return Told(answer, answer.reason or "ok")
            self._said(response.status_code)
            if response.is_client_error and response.status_code not in LATER:
                # the outbox finds out whether the event is refused, or only the question
                self.outbox.failed(event)
                return Told(NO_ANSWER, "refused")
        except asyncio.CancelledError:
            self.outbox.failed(event)
            raise
        except Exception as error:  # whatever it was: the page goes on, and the event is kept
            logger.debug("a page's event was not answered: %s", type(error).__name__)
        self.outbox.failed(event)
        return Told(NO_ANSWER, "unavailable")

    async def _fetched(self, method: str, url: str, content: bytes, headers: Mapping[str, str]) -> Response | None:
        self._note()
        try:
            async with asyncio.timeout(_LATEST_SECONDS):
                response = await self._http.request(method, url, content=content, headers=dict(headers))
        except Exception:  # who asked has a default
            return None
        return Response(response.status_code, response.headers, response.content)

    def _said(self, status: int) -> None:
        """Say once what the service answers to all pages."""
        if status != self._status:
            self._status = status
            logger.warning("the service answers pages with status %d; are LOTSE['KEY'] and ['FLAGS'] right?", status)

    def _note(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _deliver(self) -> None:
        """Empty the outbox, again and again; after a failure with a pause that grows up to `retry_seconds`."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._something.wait()
            self._something.clear()
            while batch := self.outbox.batch():
                began = time.monotonic()
                verdict = verdict_of(await self._sent(batch.body, batch.key), batch)
                in_time = time.monotonic() - began < self._seconds
                self.outbox.settle(batch, verdict)
                if verdict.why:
                    what = "refused" if verdict.is_final else "not taken yet"
                    logger.warning("events were %s: %s", what, verdict.why)
                if verdict.is_final:
                    pause = _FIRST_PAUSE_SECONDS
                    if in_time and self._breaker.current_state != "closed":
                        self._breaker.close()  # a page would have its answer, too, and need not find that out
                    continue
                # not all processes of a shop at once
                await asyncio.sleep(max(pause * random.uniform(0.5, 1.0), verdict.after_seconds))
                pause = min(pause * 2, self.settings.retry_seconds)

    async def _sent(self, body: bytes, key: str) -> httpx.Response | None:
        try:
            async with asyncio.timeout(_DELIVERY_SECONDS):
                return await self._http.post(self._telling, content=body, headers=_headers_of(key))
        except Exception:  # it is tried again, whatever it was
            return None

    async def _finish(self, seconds: float) -> None:
        """Let questions that are under way end, and stop."""
        self._delivery.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=seconds / 2)
        left = list(self._running)
        for task in left:
            task.cancel()
        await asyncio.gather(self._delivery, *left, return_exceptions=True)
        await self._http.aclose()

    async def _open(self) -> None:
        self._something = asyncio.Event()
        self._http = httpx.AsyncClient(
            verify=self._verify, headers=self._headers, limits=_LIMITS, timeout=_DELIVERY_SECONDS
        )
        self._delivery = asyncio.create_task(self._deliver())
        self._something.set()

    # and what any thread may do

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return self._started().submit(work)

    def _started(self) -> Background:
        with self._lock:
            if self._background is None:
                self._background = Background()
                self._background.submit(self._open())  # before anything else in the loop
            return self._background

    def _wake(self) -> None:
        if self._background is not None:
            self._background.call(self._look)

    def _look(self) -> None:
        self._something.set()  # which _open has made by then


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """The method, as long as somebody else holds its object."""
    found = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := found()) is not None:
            alive()

    return call


def _headers_of(key: str) -> dict[str, str]:
    return {**_JSON, "idempotency-key": key}


def _checked(told: Told) -> Told:
    """What was told.

    Raises
    ------
    UnavailableError
        There was no answer.
    """
    if told.reason == "unavailable":
        raise UnavailableError(told.reason)
    return told

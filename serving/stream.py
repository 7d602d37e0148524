"""Server-sent events of one session: a score crosses a threshold, the visitor idles, the session is over.

The session is read from the store once in a while, because its events may come to another worker, and at once when this
worker folded one of them. Nothing is remembered for a listener that is gone: the id of every event says what was
told so far, and a listener that comes back with it (`Last-Event-ID`) is told only what is new since then.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from serving.http.call import Call, Reply
from serving.problems import Problem
from serving.sessions import key_of
from serving.stores import StoreError

if TYPE_CHECKING:
    from serving.engine import Engine
    from serving.requests import View
    from serving.settings import StreamSettings

# When a silent visitor is told of: the idle moments that models are trained on.
IDLE_SECONDS: Final = (5, 10, 30, 60, 300)
_MOST_THRESHOLDS: Final = 32
# session's events, idle moments told, thresholds that the scores are above
_ID: Final = re.compile(rb"(\d{1,12})-(\d)-([01]{0,32})")
_LEAST_WAIT_SECONDS: Final = 0.01

_encode = msgspec.json.Encoder().encode


class Teller(Protocol):
    """What a stream tells of its session."""

    def told(self, view: View) -> bytes:
        """The events that there are to tell of the session as it is now, mostly none."""

    def closed(self) -> bytes:
        """What to tell at its end."""

    def seconds(self, view: View) -> float:
        """How long until there is something to tell even if nothing happens."""


class Threshold(NamedTuple):
    """A score of a head that is worth telling."""

    head: str
    value: float


class Listener:
    """What one listener was told.

    >>> listener = Listener([Threshold("exit", 0.5)], 0.1)
    >>> listener.crossings({"exit": 0.6}), listener.crossings({"exit": 0.47}), listener.crossings({"exit": 0.44})
    ([(Threshold(head='exit', value=0.5), 'up')], [], [(Threshold(head='exit', value=0.5), 'down')])
    """

    def __init__(self, thresholds: Sequence[Threshold], hysteresis: float, last_id: bytes = b"") -> None:
        self._thresholds, self._hysteresis = thresholds, hysteresis
        self._above = [False] * len(thresholds)
        self._events = self._idle = 0
        found = _ID.fullmatch(last_id)
        if found and len(found[3]) == len(thresholds):
            self._events, self._idle = int(found[1]), min(int(found[2]), len(IDLE_SECONDS))
            self._above = [bit == ord("1") for bit in found[3]]

    @property
    def id(self) -> str:
        """What was told so far."""
        return f"{self._events}-{self._idle}-{''.join('01'[above] for above in self._above)}"

    def crossings(self, scores: dict[str, float]) -> list[tuple[Threshold, str]]:
        """The thresholds that the scores have crossed, up or down; a score that is missing stays where it was."""
        found = []
        for place, threshold in enumerate(self._thresholds):
            score, above = scores.get(threshold.head), self._above[place]
            if score is None:
                continue
            if not above and score >= threshold.value:
                self._above[place] = True
                found.append((threshold, "up"))
            elif above and score < threshold.value * (1 - self._hysteresis):
                self._above[place] = False
                found.append((threshold, "down"))
        return found

    def idled(self, events: int, idle_seconds: float) -> int | None:
        """The latest idle moment that the visitor has reached and that was not told since the latest event."""
        if events != self._events:
            self._events, self._idle = events, 0
        reached = sum(idle_seconds >= moment for moment in IDLE_SECONDS)
        if reached <= self._idle:
            return None
        self._idle = reached
        return IDLE_SECONDS[reached - 1]

    def next_idle(self) -> float:
        """The idle moment that comes next, in seconds; infinite after the last."""
        return IDLE_SECONDS[self._idle] if self._idle < len(IDLE_SECONDS) else float("inf")


class Crossings:
    """Tells of scores that cross a threshold, and of idle moments; token: the session's."""

    def __init__(self, listener: Listener, token: str) -> None:
        self._listener, self._token = listener, token

    def told(self, view: View) -> bytes:
        """`score` and `idle`."""
        listener = self._listener
        idle_seconds = listener.idled(view.events, view.idle_seconds)
        crossings = listener.crossings(view.scores)
        about = {"session": self._token, "events": view.events, "scores": view.scores, "models": view.models}
        parts = [
            _event(
                "score",
                listener.id,
                {"head": head, "threshold": value, "direction": direction, "score": view.scores[head], **about},
            )
            for (head, value), direction in crossings
        ]
        if idle_seconds is not None:
            parts.append(_event("idle", listener.id, {"idle_seconds": idle_seconds, **about}))
        return b"".join(parts)

    def closed(self) -> bytes:
        """`closed`."""
        return _event("closed", self._listener.id, {"session": self._token})

    def seconds(self, view: View) -> float:
        """Until the next idle moment."""
        return self._listener.next_idle() - view.idle_seconds


class Streams:
    """All listeners of this worker."""

    def __init__(self) -> None:
        self.listening = 0
        self._awake: dict[bytes, set[asyncio.Event]] = {}
        self._ending = asyncio.Event()
        # other streams than those of sessions, to be told of the end
        self.also: list[Callable[[], None]] = []

    def wake(self, key: bytes) -> None:
        """The session under this key went on."""
        for awake in self._awake.get(key, ()):
            awake.set()

    def end(self) -> None:
        """End every stream, because the service stops: the server waits for its connections."""
        self._ending.set()
        for tell in self.also:
            tell()
        for listeners in self._awake.values():
            for awake in listeners:
                awake.set()

    def end_on(self, loop: asyncio.AbstractEventLoop, *signals: signal.Signals) -> None:
        """End every stream at a signal, before its handler so far: uvicorn's waits for open connections."""

        def chained(before: Any) -> Callable[[int, FrameType | None], None]:
            def handle(number: int, frame: FrameType | None) -> None:
                loop.call_soon_threadsafe(self.end)
                if callable(before):
                    before(number, frame)

            return handle

        for number in signals:
            signal.signal(number, chained(signal.getsignal(number)))

    async def listen(self, call: Call) -> Reply:
        """GET /v1/sessions/<token>/events.

        Raises
        ------
        Problem
            401, 404: as of a look at the session; 422: a threshold that is none; 503: too many listen.
        """
        settings = call.engine.settings
        thresholds = _thresholds(call.query("threshold").get("threshold", []), settings.models.heads)
        listener = Listener(thresholds, settings.stream.hysteresis, call.header(b"last-event-id"))
        return await self.open(call, lambda _: Crossings(listener, call.rest))

    async def open(self, call: Call, teller_of: Callable[[View], Teller]) -> Reply:
        """A stream of the session whose token the path ends with; teller_of: as it is at the beginning.

        Raises
        ------
        Problem
            401, 404: as of a look at the session; 503: too many listen.
        """
        engine = call.engine
        visitor, started_at = engine.looks.opened(call.rest)
        view = await engine.looks.running(visitor, started_at)
        limit = engine.settings.stream.limit
        if self.listening >= limit or self._ending.is_set():
            raise Problem(503, f"{limit} listeners are served at a time", retry_after_seconds=10)
        parts = self._parts(engine, visitor, view, teller_of(view))
        return Reply(b"text/event-stream", parts, headers=((b"x-accel-buffering", b"no"),))

    async def _parts(self, engine: Engine, visitor: int, view: View | None, teller: Teller) -> AsyncIterator[bytes]:
        settings, key, awake = engine.settings.stream, key_of(visitor), asyncio.Event()
        self.listening += 1
        self._awake.setdefault(key, set()).add(awake)
        try:
            yield b"retry: %d\n\n" % round(settings.retry_seconds * 1000)
            assert view is not None
            started_at, told = view.started_at, time.monotonic()
            while view is not None:
                part = teller.told(view)
                if not part and time.monotonic() - told >= settings.heartbeat_seconds:
                    part = b":\n\n"
                if part:
                    told = time.monotonic()
                    yield part
                await _wait(awake, _seconds(settings, teller.seconds(view)))
                if self._ending.is_set():
                    return
                awake.clear()
                try:
                    view = await engine.looks.view(visitor, started_at)
                except StoreError:
                    continue  # what was seen last stands until the store is back
            yield teller.closed()
        finally:
            self.listening -= 1
            listeners = self._awake[key]
            listeners.discard(awake)
            if not listeners:
                del self._awake[key]


def _seconds(settings: StreamSettings, until_next: float) -> float:
    """How long to wait: not beyond the moment that is to be told next."""
    return max(min(settings.poll_seconds, settings.heartbeat_seconds, until_next), _LEAST_WAIT_SECONDS)


async def _wait(awake: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await awake.wait()
    except TimeoutError:
        pass


def _event(name: str, identity: str, data: dict[str, object]) -> bytes:
    return b"event: %s\nid: %s\ndata: %s\n\n" % (name.encode(), identity.encode(), _encode(data))


def _thresholds(found: Sequence[str], heads: Sequence[str]) -> list[Threshold]:
    """The thresholds of a query.

    Raises
    ------
    Problem
        422: no head and number, or too many.
    """
    if len(found) > _MOST_THRESHOLDS:
        raise Problem(422, f"{len(found)} thresholds; at most {_MOST_THRESHOLDS}")
    thresholds = []
    for text in found:
        head, _, number = text.rpartition(":")
        # plain decimals only: float() takes nan, inf and underscores, too
        if head not in heads or not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", number, re.ASCII):
            raise Problem(
                422,
                f"query parameter threshold: found {text[:80]!r}, expected a head and a number such as conversion:0.3; "
                f"heads: {', '.join(heads)}",
            )
        thresholds.append(Threshold(head, float(number)))
    return thresholds

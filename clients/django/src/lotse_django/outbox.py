"""Events that wait for the service: bounded, in order, from any thread; and what an answer means for them."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, NamedTuple

import httpx
import msgspec

from lotse_django.wire import Event, encode

# So many events are one request: few enough to be answered at once, and far below the service's own limit.
TOGETHER: Final = 100
# So many events of one visitor may be under way or wait when a page asks; the service remembers seven.
_AT_ONCE: Final = 4
# The request may be made again as it is.
LATER: Final = frozenset({401, 403, 408, 409, 425, 429})
_UNPROCESSABLE: Final = 422


@dataclass(frozen=True)
class Batch:
    """Events of one request. It is sent with the same key and bytes until it is answered, so it has its effect once."""

    events: tuple[Event, ...]
    key: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def body(self) -> bytes:
        """As JSON."""
        return encode(self.events)


class Outbox:
    """A queue of events, each once. When it is full, new events are forgotten and counted as `dropped`.

    The service knows an event again by its id as long as its visitor has had fewer than seven others since. So a page
    does not ask while it is not known of an earlier one if it arrived, nor past more than a few events that wait: when
    it is sent again, the service would have forgotten it.

    counts: where to count; wake: told when something can be sent.
    """

    def __init__(self, limit: int, counts: Counter[str], wake: Callable[[], None]) -> None:
        self._limit, self._counts, self._wake = limit, counts, wake
        self._lock, self._events = Lock(), dict[str, Event]()
        self._under_way = set[str]()
        self._doubtful = dict[str, str]()
        self._doubts, self._kept = Counter[str](), Counter[str]()
        self._batch: Batch | None = None

    def __len__(self) -> int:
        return len(self._events)

    def put(self, events: Iterable[Event]) -> None:
        """Have events sent when it can be."""
        with self._lock:
            for event in events:
                if not self._keep(event):
                    self._counts["dropped"] += 1
        self._wake()

    def begin(self, event: Event) -> None:
        """A page asks with its event; until something came of it, it is kept."""
        with self._lock:
            if self._keep(event):
                self._under_way.add(event.id)

    def answered(self, event: Event) -> None:
        """The service has it; what waited for that may be sent."""
        with self._lock:
            self._forget(event)
            is_empty = not self._events
        if not is_empty:
            self._wake()

    def doubt(self, event: Event) -> None:
        """Nobody knows yet whether the service has it."""
        with self._lock:
            self._note_doubt(event)

    def failed(self, event: Event) -> None:
        """Its own request came to nothing, or to nothing that anybody knows: it is sent again."""
        with self._lock:
            if event.id not in self._events:
                self._counts["dropped"] += 1
                return
            self._under_way.discard(event.id)
            self._note_doubt(event)
        self._wake()

    def must_wait(self, visitor: str) -> bool:
        """Whether a page of a visitor has to wait for what came before it."""
        return visitor in self._doubts or self._kept[visitor] >= _AT_ONCE

    def batch(self) -> Batch | None:
        """What to send next: the same until `settle` has been told what became of it; None if nothing can be sent."""
        with self._lock:
            if self._batch is None:
                before, chosen = set[str](), list[Event]()
                for event in self._events.values():
                    if event.id in self._under_way:
                        before.add(event.visitor)
                    elif event.visitor not in before:
                        chosen.append(event)
                    if len(chosen) == TOGETHER:
                        break
                self._batch = Batch(tuple(chosen)) if chosen else None
            return self._batch

    def settle(self, batch: Batch, verdict: Verdict) -> None:
        """Take out what was answered; of a refused batch the sound events stay, and go as another."""
        with self._lock:
            if batch is not self._batch or not verdict.is_final:
                return
            self._batch = None
            for place, event in enumerate(batch.events):
                if not verdict.refused:
                    self._counts["delivered"] += 1
                elif place in verdict.refused:
                    self._counts["refused"] += 1
                else:
                    continue
                self._forget(event)

    def free(self) -> None:
        """Nothing is under way any more."""
        with self._lock:
            self._under_way.clear()

    def _keep(self, event: Event) -> bool:
        if len(self._events) >= self._limit:
            return False
        self._events[event.id] = event
        self._kept[event.visitor] += 1
        return True

    def _note_doubt(self, event: Event) -> None:
        if event.id in self._events and event.id not in self._doubtful:
            self._doubtful[event.id] = event.visitor
            self._doubts[event.visitor] += 1

    def _forget(self, event: Event) -> None:
        self._under_way.discard(event.id)
        if self._events.pop(event.id, None) is not None:
            _take(self._kept, event.visitor)
        if self._doubtful.pop(event.id, None) is not None:
            _take(self._doubts, event.visitor)


def _take(counter: Counter[str], visitor: str) -> None:
    counter[visitor] -= 1
    if not counter[visitor]:
        del counter[visitor]


class Verdict(NamedTuple):
    """What became of a batch: whether it is done with, which places were refused, and why; else when to ask again."""

    is_final: bool
    refused: Collection[int] = ()
    why: str = ""
    after_seconds: float = 0.0


class _Place(msgspec.Struct):
    index: int
    field: str = ""
    expected: str = ""


class _Problem(msgspec.Struct):
    """Of `application/problem+json`, what is not personal in any case."""

    errors: list[_Place] = []


def verdict_of(response: httpx.Response | None, batch: Batch) -> Verdict:
    """What a response, or None where there was none, means for a batch."""
    if response is None:
        return Verdict(is_final=False, why="no answer")
    status = response.status_code
    if response.is_success:
        return Verdict(is_final=True)
    if status in LATER or status >= 500:
        return Verdict(is_final=False, why=f"status {status}", after_seconds=_seconds(response))
    problem = _Problem()
    if status == _UNPROCESSABLE:
        with suppress(msgspec.DecodeError):
            problem = msgspec.json.decode(response.content, type=_Problem)
    places = {place.index for place in problem.errors if 0 <= place.index < len(batch.events)}
    why = "; ".join(sorted({f"{place.field}: expected {place.expected}" for place in problem.errors}))
    return Verdict(is_final=True, refused=places or range(len(batch.events)), why=why or f"status {status}")


def _seconds(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0

"""Where session records live: what every store does, whatever it is made of.

In: *visits*, the events of one visitor that came at the same time. The store reads the visitor's record, lets the visit
fold its events into it, and keeps what came of it: all of it or nothing, and as if no other worker had been at it
meanwhile. A store that cannot lock asks the visit again where another worker was faster, so a visit can be asked often.

A record that is over is handed on: it leaves the visit as *closed*, waits in the store, is claimed in batches, and is
forgotten once the batch is settled. A batch whose claimer died is claimed again, with the same name and content, so
who writes each batch under its name has every session once.

A store is found by the scheme of its URL in the entry-point group `lotse.stores`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol

from features.settings import SettingsError
from serving.settings import StoreSettings

KEY_BYTES = 8
Value = bytes | memoryview


class StoreError(Exception):
    """The store cannot be reached, does not answer in time, or is full; nothing of the visit was kept."""


class Closed(NamedTuple):
    """A session that is over: a name that no other session has, and its record."""

    name: bytes
    value: bytes


class Entry(NamedTuple):
    """A key whose record is to be looked at, and when, ms UTC."""

    due_ms: int
    key: bytes


class Moved(NamedTuple):
    """A record that goes on under another key, or ends with the change.

    value: what lies there until that is done, where it takes two steps; due_ms: its entry of the schedule.
    """

    key: bytes
    value: bytes
    due_ms: int = 0


class Change(NamedTuple):
    """What came of a visit.

    value: kept under the visit's key, None to forget it; the bytes are copied before the store returns.
    due_ms: when the record is to be looked at, None if that is scheduled already.
    moved: another record, which is forgotten where it is.
    closed: sessions that are over.
    """

    value: Value | None
    due_ms: int | None = None
    moved: Moved | None = None
    closed: Sequence[Closed] = ()


class Visit(Protocol):
    """What is to be done with one record.

    key: of the record; entry: of the schedule, which is taken from it with the change, None if the visit does not come
    from there.
    """

    key: bytes
    entry: Entry | None

    def others(self) -> Sequence[bytes]:
        """Keys under which the visitor's record may lie if there is none under the visit's own."""

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """What is to be changed, None for nothing; value: the record; others: those under other keys.

        Called again with newer values if another worker was faster.
        """


class Found(NamedTuple):
    """What lies in the store for a visit: its record, and those under other keys; valid until the visit is advanced."""

    visit: Visit
    value: Value | None
    others: Sequence[tuple[bytes, Value]]


Advance = Callable[[Sequence[Found]], Sequence[Change | None]]


def one_by_one(found: Sequence[Found]) -> list[Change | None]:
    """Advance each visit by itself."""
    return [visit.advance(value, others) for visit, value, others in found]


class Batch(NamedTuple):
    """Sessions to be handed on together."""

    name: str
    sessions: Sequence[Closed]


class Store(Protocol):
    """Where session records live.

    Methods return an awaitable where the store needs to wait, and otherwise have done all they do. They raise (or the
    awaitable does) StoreError.

    Attributes
    ----------
    waits: whether `apply` does; then it may have been done although it failed or was given up.
    """

    waits: bool

    def apply(
        self, visits: Sequence[Visit], advance: Advance = one_by_one, *, alone: bool = False
    ) -> Awaitable[None] | None:
        """Advance visits of different keys; what was acknowledged survives the end of any process.

        advance: does it for as many of them as the store can ask about at once; changes in the order of what was found.
        alone: nobody else asks in this turn of the event loop, so there is nothing to gather: of a store that does not
            wait, it is done on return, also if that has just changed.
        """

    def read(self, key: bytes) -> Awaitable[bytes | None] | bytes | None:
        """One record as it is now."""

    def read_many(self, keys: Sequence[bytes]) -> Awaitable[Sequence[bytes | None]] | Sequence[bytes | None]:
        """Records as they are now, in the order of the keys; some hundred at a time, or others wait for that."""

    def waiting(self, key: bytes) -> Awaitable[Sequence[Closed]] | Sequence[Closed]:
        """Sessions of a record that are over and not settled yet."""

    def drop(self, key: bytes) -> Awaitable[None] | None:
        """Forget these sessions. A worker that has claimed some may hand them on all the same."""

    def due(self, now_ms: int, limit: int) -> Awaitable[Sequence[Entry]] | Sequence[Entry]:
        """Of the records to be looked at by now, the earliest."""

    def claim(self, limit: int, now_ms: int, lease_ms: int) -> Awaitable[Batch | None] | Batch | None:
        """Sessions to hand on: a batch whose lease is over, or a new one; nobody else gets it during the lease."""

    def settle(self, name: str) -> Awaitable[None] | None:
        """Forget a batch that was handed on."""

    def count(self) -> Awaitable[int] | int:
        """How many records there are."""

    def close(self) -> Awaitable[None] | None:
        """Let go of files and connections."""


async def done(result: Any) -> Any:
    """What a store gives, which some give at once and others after a while."""
    return await result if isinstance(result, Awaitable) else result


def open_store(settings: StoreSettings) -> Store:
    """The store that the URL names.

    Raises
    ------
    SettingsError
        There is no store for the scheme, or the rest of the URL cannot be understood.
    """
    scheme, _, place = settings.url.partition(":")
    known = {point.name: point for point in entry_points(group="lotse.stores")}
    if scheme not in known:
        raise SettingsError(f"store.url = {settings.url!r}: unknown store {scheme!r}; installed: {', '.join(known)}")
    store: Store = known[scheme].load()(place, settings)
    return store

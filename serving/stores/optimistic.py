"""What stores on other machines have in common: they cannot lock a record while the service folds, so they compare.

Each record lies there with a stamp, drawn at random with every write. A visit is folded from what this worker saw last,
and written only if the stamp is still the same; otherwise the answer is what lies there now, and the visit is folded
anew. A worker that keeps getting a visitor's events needs one round trip for each, and so does a new visitor.

A record that goes on under another key lies at two places for a moment, and no store changes two at once: first the old
one is marked with where it goes, then the new one is written, then the old one is forgotten. Whoever finds a marked
record looks there: if the new one exists, the old one is only forgotten.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from serving.stores import Advance, Batch, Change, Closed, Entry, Found, Moved, StoreError, Visit, one_by_one

STAMP_BYTES: Final = 8
NOWHERE: Final = b""
_ROUNDS: Final = 20


class Lying(NamedTuple):
    """A record as it lies in the store: its stamp, the key that it goes to or NOWHERE, its value."""

    stamp: bytes
    to: bytes
    value: bytes


class Swap(NamedTuple):
    """A write that is done only if the stamp is still that; stamp: None if no record must lie there.

    lying: what to write, None to forget it; due_ms: when it is to be looked at, None if that is scheduled already.
    entry: of the schedule, no longer needed; closed: sessions to keep for handing on. All of it or nothing.
    """

    key: bytes
    stamp: bytes | None
    lying: Lying | None
    due_ms: int | None
    entry: Entry | None
    closed: Sequence[Closed]


class OptimisticStore(ABC):
    """Visits by compare and swap."""

    waits = True

    def __init__(self, remembered: int) -> None:
        self._seen: OrderedDict[bytes, Lying] = OrderedDict()
        self._remembered = remembered
        self._busy: dict[bytes, asyncio.Future[None]] = {}

    @abstractmethod
    async def fetch(self, keys: Sequence[bytes]) -> list[Lying | None]:
        """What lies under the keys, in one round trip."""

    @abstractmethod
    async def swap(self, swaps: Sequence[Swap]) -> list[tuple[bool, Lying | None]]:
        """Try writes, each by itself, in one round trip: whether it was done, and if not, what lies there."""

    @abstractmethod
    async def waiting(self, key: bytes) -> Sequence[Closed]:
        """As in `Store`."""

    @abstractmethod
    async def drop(self, key: bytes) -> None:
        """As in `Store`."""

    @abstractmethod
    async def due(self, now_ms: int, limit: int) -> Sequence[Entry]:
        """As in `Store`."""

    @abstractmethod
    async def claim(self, limit: int, now_ms: int, lease_ms: int) -> Batch | None:
        """As in `Store`."""

    @abstractmethod
    async def settle(self, name: str) -> None:
        """As in `Store`."""

    @abstractmethod
    async def count(self) -> int:
        """As in `Store`."""

    async def read(self, key: bytes) -> bytes | None:
        """One record."""
        (found,) = await self.fetch([key])
        return found.value if found else None

    async def read_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Some records; where they go, nobody asks who only looks."""
        return [found.value if found else None for found in await self.fetch(keys)] if keys else []

    async def apply(self, visits: Sequence[Visit], advance: Advance = one_by_one, *, alone: bool = False) -> None:
        """Advance visits, each until nobody was faster."""
        del alone
        keys = [visit.key for visit in visits]
        # this worker's own visits of a visitor wait for each other instead of being folded in vain
        while busy := [self._busy[key] for key in keys if key in self._busy]:
            await asyncio.wait(busy)
        done = asyncio.get_running_loop().create_future()
        self._busy.update(dict.fromkeys(keys, done))
        try:
            for together in [[visit] for visit in visits] if self._depend(visits) else [list(visits)]:
                await self._rounds(together, advance)
        finally:
            for key in keys:
                del self._busy[key]
            done.set_result(None)

    def _depend(self, visits: Sequence[Visit]) -> bool:
        """Whether one visit may go on with the record of another: then they are done one after the other."""
        if len(visits) == 1:
            return False
        keys = {visit.key for visit in visits}
        return any(not keys.isdisjoint(visit.others()) for visit in visits if visit.key not in self._seen)

    async def _rounds(self, visits: list[Visit], advance: Advance) -> None:
        left = visits
        for _ in range(_ROUNDS):
            left = await self._round(left, advance)
            if not left:
                return
        raise StoreError(f"others changed a record {_ROUNDS} times while a visit was folded")

    async def _round(self, visits: Sequence[Visit], advance: Advance) -> list[Visit]:
        """Try each visit once; returns those that are to be tried again."""
        others = await self._look(visits)
        tried: list[tuple[Visit, Change]] = []
        swaps: list[Swap] = []
        known = [self._seen.get(visit.key) for visit in visits]
        changes = advance(
            [
                Found(visit, seen.value if seen else None, [(key, one.value) for key, one in found.items()])
                for visit, seen, found in zip(visits, known, others, strict=True)
            ]
        )
        for visit, seen, found, wanted in zip(visits, known, others, changes, strict=True):
            if wanted is None and visit.entry is None:
                continue
            change = wanted or Change(seen.value if seen else None)
            if change.moved:
                await self._mark(found[change.moved.key], change.moved, visit.key)
            lying = None if change.value is None else Lying(_stamp(), NOWHERE, bytes(change.value))
            tried.append((visit, change))
            stamp = seen.stamp if seen else None
            swaps.append(Swap(visit.key, stamp, lying, change.due_ms, visit.entry, change.closed))
        again: list[Visit] = []
        for (visit, change), swap, (accepted, lies) in zip(tried, swaps, await self.swap(swaps), strict=True):
            # the client tries again by itself where an answer was lost: then what lies there is what we wrote
            done = accepted or (lies is not None and swap.lying is not None and lies.stamp == swap.lying.stamp)
            self._remember(visit.key, swap.lying if done else lies)
            if not done:
                again.append(visit)
            elif change.moved:
                await self._forget(change.moved.key, due_ms=change.moved.due_ms)
        return again

    async def _look(self, visits: Sequence[Visit]) -> list[dict[bytes, Lying]]:
        """The records under other keys, for each visit; and what must not be guessed is read.

        A visitor of whom nothing was seen is taken for a new one, which the store denies if it is not so. But where
        other keys come into question, or the schedule asks, what lies there must be known.
        """
        others = [visit.others() if visit.key not in self._seen else () for visit in visits]
        asked = [visit.key for visit, keys in zip(visits, others, strict=True) if keys or visit.entry is not None]
        wanted = list(dict.fromkeys([*asked, *(key for keys in others for key in keys)]))
        if not wanted:
            return [{} for _ in visits]
        found = dict(zip(wanted, await self.fetch(wanted), strict=True))
        for key, lying in found.items():
            if lying is not None and lying.to and (await self.fetch([lying.to]))[0] is not None:
                # whoever moved it came no further than that
                await self._forget(key, lying)
                found[key] = None
        for key in asked:
            self._remember(key, found[key])
        return [
            {} if visit.key in self._seen else {key: one for key in keys if (one := found[key]) is not None}
            for visit, keys in zip(visits, others, strict=True)
        ]

    async def _mark(self, lying: Lying, moved: Moved, to: bytes) -> None:
        """Note at a record where it goes.

        Raises
        ------
        StoreError
            It is not what it was any more: nothing was done.
        """
        marked = Lying(_stamp(), to, moved.value)
        ((done, _),) = await self.swap([Swap(moved.key, lying.stamp, marked, None, None, ())])
        if not done:
            raise StoreError("the record that was to be moved has changed meanwhile; try again")
        self._remember(moved.key, marked)

    async def _forget(self, key: bytes, lying: Lying | None = None, due_ms: int = 0) -> None:
        lying = lying or self._seen.get(key)
        if lying is not None:
            entry = Entry(due_ms, key) if due_ms else None
            await self.swap([Swap(key, lying.stamp, None, None, entry, ())])
        self._seen.pop(key, None)

    def _remember(self, key: bytes, lying: Lying | None) -> None:
        self._seen.pop(key, None)
        if lying is not None:
            self._seen[key] = lying
            if len(self._seen) > self._remembered:
                self._seen.popitem(last=False)


def _stamp() -> bytes:
    return secrets.token_bytes(STAMP_BYTES)

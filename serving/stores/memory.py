"""A store in this process's memory, for tests and for trying out: gone with the process, one worker only."""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Sequence
from typing import Final

from serving.settings import StoreSettings
from serving.stores import Advance, Batch, Closed, Entry, Found, Visit, one_by_one

HELD: Final = {"memory": "all of it, gone with the process"}


class MemoryStore:
    """Session records in a dictionary."""

    waits = False

    def __init__(self, place: str = "", settings: StoreSettings | None = None) -> None:
        del place, settings
        self._records: dict[bytes, bytes] = {}
        self._schedule: list[Entry] = []
        self._closed: dict[bytes, bytes] = {}
        self._batches: dict[str, tuple[int, list[Closed]]] = {}

    def apply(self, visits: Sequence[Visit], advance: Advance = one_by_one, *, alone: bool = False) -> None:
        """Advance visits, one after the other: one may go on with the record of another."""
        del alone
        for visit in visits:
            key, value = visit.key, self._records.get(visit.key)
            others = [] if value else [(k, found) for k in visit.others() if (found := self._records.get(k))]
            (change,) = advance([Found(visit, value, others)])
            if visit.entry is not None and visit.entry in self._schedule:
                self._schedule.remove(visit.entry)
                heapq.heapify(self._schedule)
            if change is None:
                continue
            if change.value is None:
                self._records.pop(key, None)
            else:
                self._records[key] = bytes(change.value)
            if change.moved:
                del self._records[change.moved.key]
                entry = Entry(change.moved.due_ms, change.moved.key)
                if entry in self._schedule:
                    self._schedule.remove(entry)
                    heapq.heapify(self._schedule)
            if change.due_ms is not None:
                heapq.heappush(self._schedule, Entry(change.due_ms, key))
            self._closed.update(change.closed)

    def read(self, key: bytes) -> bytes | None:
        """One record."""
        return self._records.get(key)

    def read_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Some records."""
        return [self._records.get(key) for key in keys]

    def waiting(self, key: bytes) -> Sequence[Closed]:
        """Sessions of a record."""
        claimed = [one for _, sessions in self._batches.values() for one in sessions]
        return [one for one in (*map(Closed._make, self._closed.items()), *claimed) if one.name.startswith(key)]

    def drop(self, key: bytes) -> None:
        """Forget them."""
        for name in [name for name in self._closed if name.startswith(key)]:
            del self._closed[name]
        for _, sessions in self._batches.values():
            sessions[:] = [one for one in sessions if not one.name.startswith(key)]

    def due(self, now_ms: int, limit: int) -> Sequence[Entry]:
        """The earliest."""
        return [entry for entry in heapq.nsmallest(limit, self._schedule) if entry.due_ms <= now_ms]

    def claim(self, limit: int, now_ms: int, lease_ms: int) -> Batch | None:
        """A batch."""
        for name, (until_ms, sessions) in self._batches.items():
            if until_ms <= now_ms:
                self._batches[name] = now_ms + lease_ms, sessions
                return Batch(name, sessions)
        if not self._closed:
            return None
        names = list(self._closed)[:limit]
        batch = Batch(uuid.uuid4().hex, [Closed(name, self._closed.pop(name)) for name in names])
        self._batches[batch.name] = now_ms + lease_ms, list(batch.sessions)
        return batch

    def settle(self, name: str) -> None:
        """Forget a batch."""
        self._batches.pop(name, None)

    def count(self) -> int:
        """How many records there are."""
        return len(self._records)

    def close(self) -> None:
        """Nothing to let go of."""

"""Which generations have running sessions, by what all workers tell each other through the store.

A worker sees the events of some visitors only, and an older generation is kept as long as a session may run in it. So
each notes in the store what it has used since it noted that last, and takes a newer note for use of its own. A note's
moment is compared with its earlier one and with no clock, which may be off on another machine.

A note lies beside the visitors' records and looks to the sweeper like one that was handed on, so every store forgets it
when it is due without knowing of notes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from features.sessions import HEADER_WORDS
from serving.sessions import STATE
from serving.stores import KEY_BYTES, Change, Entry, Store, StoreError, Value

if TYPE_CHECKING:
    from serving.lineup import Generation

# A visitor's record has a digest of fields and the consent to link where this has nothing.
_NO_RECORD: Final = bytes(8 * HEADER_WORDS)


class Note:
    """Write down that a generation was used."""

    def __init__(self, key: bytes, now_ms: int, kept_ms: int) -> None:
        self.key = key
        self.entry: Entry | None = None
        self._now, self._kept = now_ms, kept_ms

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change | None:
        """In place of the note that is there."""
        del others
        # unlike the one before also where two workers note at the same time
        used = self._now if value is None else max(self._now, _used(value) + 1)
        due = used + self._kept
        return Change(STATE.pack(due << 1 | 1, used) + _NO_RECORD, due)


class Usage:
    """What one worker notes and reads."""

    def __init__(self, store: Store, ask: Callable[[Callable[[], Any]], Awaitable[Any]], kept_ms: int) -> None:
        self._store, self._ask, self._kept = store, ask, kept_ms
        self._seen: dict[bytes, int] = {}

    async def share(self, generations: Iterable[Generation], now_ms: int) -> None:
        """Note which of them were used, and mark as used what others have noted."""
        for generation in generations:
            key = _key(generation.fold.digest)
            try:
                if generation.untold:
                    await self._note(key, now_ms)
                    generation.untold = False
                used = await self._noted(key)
            except StoreError:
                generation.used = True  # nobody can tell
                continue
            if used and used != self._seen.get(key):
                self._seen[key] = used
                generation.used = True

    async def _note(self, key: bytes, now_ms: int) -> None:
        await self._ask(lambda: self._store.apply([Note(key, now_ms, self._kept)]))

    async def _noted(self, key: bytes) -> int:
        value = await self._ask(lambda: self._store.read(key))
        return 0 if value is None else _used(value)


def _key(digest: str) -> bytes:
    return hashlib.blake2b(digest.encode(), digest_size=KEY_BYTES, person=b"lotse-usage").digest()


def _used(value: Value) -> int:
    used: int = STATE.unpack_from(value)[1]
    return used

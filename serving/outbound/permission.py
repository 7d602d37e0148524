"""Whether anything may be told of a session, by what its visitor said last: consent to personalise, and no objection.

Personalise, for arms as well as for scores: it is what GPC and DNT take away wherever a request comes from, and what an
arm is chosen for. It is looked up each time something is about to be sent: what was withdrawn meanwhile, and what was
erased, is not sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from features.events import CONSENT_PERSONALISE
from features.sessions import HEADER_CONSENT, HEADER_STARTED_AT
from serving.closed import ClosedFiles
from serving.sessions import OBJECTS, key_of, word_of
from serving.stores import Store, done

Ask = Callable[[Callable[[], Any]], Awaitable[Any]]


def allows(consent: int) -> bool:
    """Whether a record's consent word does."""
    return bool(consent & CONSENT_PERSONALISE) and not consent & OBJECTS


async def plain(call: Callable[[], Any]) -> Any:
    """Asks a store without a deadline."""
    return await done(call())


class Permission:
    """Looks it up in the store; ask: asks it."""

    def __init__(self, store: Store, ask: Ask) -> None:
        self._store, self._ask = store, ask

    async def of(self, visitor: int) -> bool:
        """Whether a visitor allows it; of whom nothing is held does not: erased, or over for longer than a timeout.

        Raises
        ------
        StoreError
            The store is away: nobody knows.
        """
        value = await self._ask(partial(self._store.read, key_of(visitor)))
        return value is not None and allows(word_of(value, HEADER_CONSENT))

    async def of_earlier(self, sessions: Iterable[tuple[int, int]], closed: ClosedFiles) -> set[tuple[int, int]]:
        """Of some sessions, (visitor, started_at), those that allow it, by their records or by how they were handed on.

        Raises
        ------
        StoreError
            The store is away.
        """
        allowed, left = set(), set()
        for session in sessions:
            value = await self._ask(partial(self._store.read, key_of(session[0])))
            if value is None:
                left.add(session)
            elif allows(word_of(value, HEADER_CONSENT)):
                allowed.add(session)
        for session in left:
            for one in await self._ask(partial(self._store.waiting, key_of(session[0]))):
                if word_of(one.value, HEADER_STARTED_AT) == session[1] and allows(word_of(one.value, HEADER_CONSENT)):
                    allowed.add(session)
        for row in closed.rows({visitor for visitor, _ in left}) if left else []:
            if allows(row["consent"]) and (row["visitor"], row["started_at"]) in left:
                allowed.add((row["visitor"], row["started_at"]))
        return allowed

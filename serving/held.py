"""What is held of a visitor, wherever it lies, to be shown and erased: the rights of access and erasure (GDPR 15, 17).

In: pseudonyms. Out: the live record, its sessions that are over and not handed on yet, handed-on rows, events that wait
for the store, and lines of the log of decisions, with names and meanings from the catalogue of the fold that made them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from features.compiler import compile_fold
from features.events import COLUMNS, CONSENTS, EVENT_NAMES
from features.generate import layout_of
from features.sessions import (
    HEADER_CONSENT,
    HEADER_EVENTS,
    HEADER_LAST_AT,
    HEADER_RECENT,
    HEADER_STARTED_AT,
    HEADER_WORDS,
    RECENT_IDS,
)
from serving.closed import ClosedFiles
from serving.collect.carts import erasures_of
from serving.decisions import noted
from serving.drawn import HEAD, HEAD_BYTES
from serving.experiments.assignments import unpack
from serving.handover import ROW
from serving.outbound.dead_letters import DeadLetters
from serving.sessions import (
    STATE,
    STATE_BYTES,
    Sessions,
    history_of,
    is_handed_on,
    key_of,
    objects,
    word_of,
)
from serving.spool import Spool, of_others
from serving.stores import Store, Value, done, open_store
from serving.stores.encryption import seal_from_environment

if TYPE_CHECKING:
    from serving.engine import Engine
    from serving.settings import ServingSettings

# Of rows and events, what is a moment.
_MOMENTS: Final = frozenset({"time", "started_at", "ended_at", "at", "exposed_at", "last_at", "until"})
_ROW: Final = {
    "visitor": "pseudonym",
    "field_digest": "which fields these are",
    "started_at": "start of the session",
    "ended_at": "latest event of the session",
    "events": "events of the session",
    "consent": "what may be done with it",
    "assignments": "what experiments have assigned: which (a hash), arm, probability, scores then",
    "row": "the session as it was at a moment drawn at random; of sessions that are over, the columns row/...",
}


class Held:
    """Everything that one service holds on this machine, and in the store that it shares with others.

    sessions: of each fold that records may have been folded with; spools: all that are there; ask: asks the store.
    """

    def __init__(
        self,
        store: Store,
        sessions: Sequence[Sessions],
        closed: ClosedFiles,
        spools: Callable[[], Iterable[Spool]],
        decisions: Path,
        letters: DeadLetters,
        ask: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._store, self._sessions, self._closed, self._spools = store, sessions, closed, spools
        self._decisions, self._letters, self._ask = decisions, letters, ask

    async def show(self, visitors: Sequence[int]) -> dict[str, Any]:
        """All that is held under these pseudonyms, as JSON-ready dicts.

        Raises
        ------
        StoreError
            The store is away.
        """
        records, waiting = [], []
        for key in map(key_of, visitors):
            value = await self._ask(partial(self._store.read, key))
            if value is not None:
                records.append(self._described(value))
            sessions = await self._ask(partial(self._store.waiting, key))
            waiting += [self._described(session.value) for session in sessions]
        buffered = [event for spool in self._spools() for event in spool.of(visitors)]
        handed_on = await asyncio.to_thread(self._closed.rows, visitors)
        decisions = await asyncio.to_thread(noted, self._decisions, visitors)
        undelivered = await asyncio.to_thread(self._letters.held, visitors)
        fields = self._sessions[0].fold.catalogue.fields
        return {
            "records": records,
            "waiting": waiting,
            "handed_on": [_row(row) for row in handed_on],
            "buffered": [_row(event._asdict()) for event in buffered],
            "decisions": [_row(one) for one in decisions],
            "undelivered": [_row(one) for one in undelivered],
            "meanings": {
                **{name: column.meaning for name, column in COLUMNS.items()},
                **_ROW,
                **{name: " ".join(field.doc.split()) for name, field in fields.items()},
            },
        }

    async def erase(self, visitors: Sequence[int]) -> dict[str, int]:
        """Erase all of it but the log of decisions; returns how many of each there were.

        The log shows that rights were kept to, and knows visitors by pseudonyms that nobody can make again after two
        days.

        Raises
        ------
        StoreError
            The store is away, or a spool cannot be written: ask again.
        """
        buffered = sum(spool.erase(visitors) for spool in self._spools())
        records = waiting = 0
        for key in map(key_of, visitors):
            erasures = erasures_of(key)
            await self._ask(partial(self._store.apply, erasures))
            records += erasures[0].found
            waiting += len(await self._ask(partial(self._store.waiting, key)))
            await self._ask(partial(self._store.drop, key))
        handed_on = await asyncio.to_thread(self._closed.erase, visitors)
        return {
            "records": records,
            "waiting": waiting,
            "handed_on": handed_on,
            "buffered": buffered,
            "undelivered": await asyncio.to_thread(self._letters.erase, visitors),
        }

    def _described(self, value: Value) -> dict[str, Any]:
        """A record in words."""
        state, received = STATE.unpack_from(value)
        told: dict[str, Any] = {
            "state": "kept for later visits" if is_handed_on(value) else "running",
            "started_at": _moment(word_of(value, HEADER_STARTED_AT)),
            "last_event_at": _moment(word_of(value, HEADER_LAST_AT)),
            "arrived_at": _moment(received),
            "looked_at_again": _moment(state >> 1),
            "events": word_of(value, HEADER_EVENTS),
            "consent": _consents(word_of(value, HEADER_CONSENT)),
            "automated": not objects(value),
            "event_ids": sum(word_of(value, place) != 0 for place in range(HEADER_RECENT, HEADER_RECENT + RECENT_IDS)),
        }
        sessions = next((one for one in self._sessions if one.fits(value)), None)
        if sessions is None:
            return told | {"fields": f"{len(value)} bytes of fields that this release does not know"}
        history = history_of(sessions.fold)
        places = layout_of(sessions.fold.catalogue.fields.values()).places
        values = _fields(value, places, STATE_BYTES)
        if drawn := sessions.drawn(value):
            head = dict(zip(HEAD, np.frombuffer(drawn, np.int64, len(HEAD)).tolist(), strict=True))
            told["row"] = _fields(drawn, places, HEAD_BYTES - 8 * HEADER_WORDS) | _row(head)
        return told | {
            "assignments": [_row(one._asdict()) for one in unpack(sessions.assigned(value))],
            "session": {name: number for name, number in values.items() if name not in history},
            "history": {name: number for name, number in values.items() if name in history},
        }


def held_by(engine: Engine) -> Held:
    """What a running service holds."""
    sessions = [one.sessions for one in engine.lineup.generations]
    folder, letters = Path(engine.settings.decisions.folder), DeadLetters(engine.settings.outbound)
    return Held(engine.store, sessions, engine.closed, engine.outage.spools, folder, letters, engine.outage.ask)


def open_held(settings: ServingSettings) -> tuple[Held, Store]:
    """What lies there, whether a service runs or not; and the store, to be closed.

    Raises
    ------
    SettingsError, StoreError
        The store cannot be opened.
    """
    store = open_store(settings.store)
    fold = compile_fold()
    minute_ms, day_ms = 60_000, 86_400_000
    linked_ms = round(settings.store.linked_days * day_ms)
    timeout_ms, log = round(settings.session.timeout_minutes * minute_ms), settings.log
    sessions = [Sessions(fold, timeout_ms, linked_ms, log.silences_ms if log.rows else None)]
    how = {
        "limit_bytes": int(settings.store.spool_mib * 2**20),
        "sync": settings.store.durability == "disk",
        "seal": seal_from_environment(),
    }

    async def ask(call: Callable[[], Any]) -> Any:
        return await done(call())

    def spools() -> Iterable[Spool]:
        return of_others(Path(settings.store.spool), (), **how)  # type: ignore[arg-type]

    folder, letters = Path(settings.decisions.folder), DeadLetters(settings.outbound)
    return Held(store, sessions, ClosedFiles(settings.store), spools, folder, letters, ask), store


def _fields(value: Value, places: Mapping[str, tuple[str, int]], further: int) -> dict[str, Any]:
    """Fields that lie so much further than in a record."""
    return {
        name: _number(np.frombuffer(value, dtype, 1, further + offset)[0].item())
        for name, (dtype, offset) in places.items()
    }


def _row(row: Any) -> dict[str, Any]:
    """A row, an event or a line in words."""
    told: dict[str, Any] = {}
    for name, value in row.items():
        if name.removeprefix(ROW) in _MOMENTS:
            told[name] = _moment(value)
        elif name.removeprefix(ROW) == "consent":
            told[name] = _consents(value)
        elif name == "name":
            told[name] = EVENT_NAMES[value]
        elif name == "assignments":
            told[name] = [_row(one) for one in value]
        else:
            told[name] = _number(value)
    return told


def _moment(ms: int) -> str | None:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds") if ms > 0 else None


def _consents(bits: int) -> list[str]:
    return [name for name, bit in CONSENTS.items() if bits & bit]


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

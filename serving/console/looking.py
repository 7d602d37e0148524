"""All sessions that run, read from the store and scored as of now, by what reads and scores them in a worker.

In: the store's schedule and records, the models in the cache. Out: columns over the sessions. The store is asked
through its Protocol, a few hundred records at a time, and nothing is written.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from features.compiler import Fold, compile_fold
from features.generate import layout_of
from features.sessions import HEADER_CONSENT, HEADER_EVENTS, HEADER_LAST_AT, HEADER_STARTED_AT
from serving.experiments.assignments import unpack
from serving.experiments.flags import Subject
from serving.lineup import Generation, Lineup
from serving.model_cache import ModelCache
from serving.models import Models
from serving.scorer import Scorer
from serving.sessions import OBJECTS, STATE_BYTES, is_handed_on, visitor_of
from serving.settings import ServingSettings
from serving.shadow import Comparison
from serving.stores import Store, done, open_store

# Records read at a time, and rows scored at a time: a reader that stays long keeps the store's old pages.
_READ: Final = 500
_SCORED: Final = 1_024
# More entries than any service has; beyond, the latest of the schedule are not known of.
_MOST_ENTRIES: Final = 2_000_000
# Clocks of several machines that share a store differ.
_SLACK_MS: Final = 60_000
_WORD: Final = 8


@dataclass
class Look:
    """n sessions that run, as of a moment.

    Attributes
    ----------
    at_ms: the moment; took_seconds: of this process; entries: records that may be sessions that run, looked_at: of them
    those that were read (n of these do run).
    keys: of the records; started, last, received (ms UTC), events, steps (of `features.steps`): int64 (n,).
    scores: by head float64 (n,), NaN where there is none; decided: by place, heads whose answer was known already.
    assigned: by place, what experiments have assigned, as it lies in the store.
    consent: bits, int64 (n,); rows: of each its features, float32 (F,), folds: which fold's.
    """

    at_ms: int
    entries: int = 0
    looked_at: int = 0
    took_seconds: float = 0.0
    keys: list[bytes] = field(default_factory=list)
    started: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    last: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    received: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    events: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    decided: dict[int, list[str]] = field(default_factory=dict)
    assigned: dict[int, bytes] = field(default_factory=dict)
    consent: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: list[np.ndarray] = field(default_factory=list)
    folds: list[Fold] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def idle_seconds(self) -> np.ndarray:
        """Since the latest event, float64 (n,)."""
        return np.maximum(self.at_ms - self.last, 0) / 1000

    @property
    def age_seconds(self) -> np.ndarray:
        """Since the first event, float64 (n,)."""
        return np.maximum(self.at_ms - self.started, 0) / 1000

    def subject(self, place: int) -> Subject:
        """A session as flags see it."""
        scores = {name: float(column[place]) for name, column in self.scores.items() if not np.isnan(column[place])}
        return Subject(
            visitor_of(self.keys[place]), int(self.started[place]), int(self.events[place]),
            float(self.idle_seconds[place]), float(self.age_seconds[place]), scores, self.rows[place],
            int(self.consent[place]), unpack(self.assigned.get(place, b"")),
        )  # fmt: skip


class Looker:
    """Looks again and again, with the models that serve."""

    def __init__(self, settings: ServingSettings, store: Store | None = None) -> None:
        """Open the store, unless one is given, and load the models; takes seconds."""
        self._settings = settings
        self.store = open_store(settings.store) if store is None else store
        self._cache = ModelCache(Path(settings.models.cache))
        self._models = Models(settings, self._cache, compile_fold(), Comparison())
        self._mark = self._cache.mark()
        self.lineup: Lineup = self._models.lineup(self._cache.state())
        self._timeout_ms = round(settings.session.timeout_minutes * 60_000)
        self._priors = {name: prior for name, prior in settings.prior.items() if name in settings.models.heads}

    def follow(self) -> None:
        """Use the models that the cache has now."""
        mark = self._cache.mark()
        if mark != self._mark or self._models.outlived():
            self.lineup, self._mark = self._models.lineup(self._cache.state()), mark

    async def look(self, now_ms: int | None = None) -> Look:
        """Every session that runs, or a part that is always the same where there are more than `console.sessions`.

        Raises
        ------
        StoreError
            The store is away.
        """
        begin = time.perf_counter()
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        # a session that runs is looked at within a timeout; records of linked visitors, years later, are not read
        entries = await done(self.store.due(now + self._timeout_ms + _SLACK_MS, _MOST_ENTRIES))
        keys = list(dict.fromkeys(entry.key for entry in entries))
        read = _part(keys, self._settings.console.sessions)
        whose: dict[tuple[Generation, Scorer], list[tuple[bytes, bytes]]] = defaultdict(list)
        for place in range(0, len(read), _READ):
            some = read[place : place + _READ]
            for key, value in zip(some, await done(self.store.read_many(some)), strict=True):
                if value is None or is_handed_on(value):
                    continue
                generation = self.lineup.generation(value)
                if generation is not None:
                    generation.used = True
                    whose[generation, generation.scorer(visitor_of(key))].append((key, value))
            await asyncio.sleep(0)
        parts = [self._scored(generation, scorer, found, now) for (generation, scorer), found in whose.items()]
        look = _joined(parts, now)
        look.entries, look.looked_at = len(keys), len(read)
        look.took_seconds = time.perf_counter() - begin
        return look

    async def close(self) -> None:
        """Let go of the store."""
        await done(self.store.close())

    def _scored(self, generation: Generation, scorer: Scorer, found: list[tuple[bytes, bytes]], now: int) -> Look:
        """Those of some records, all of one fold, whose sessions are not over, scored by one scorer."""
        sessions, fold = generation.sessions, generation.fold
        width = len(sessions.empty)
        # writable, and each in one piece: what the compiled code was compiled for
        records = np.frombuffer(bytearray(b"".join(value[:width] for _, value in found)), np.uint8).reshape(-1, width)
        last = _header(records, HEADER_LAST_AT)
        runs = np.flatnonzero(now - last <= self._timeout_ms)
        if len(runs) < len(found):
            records, found = np.ascontiguousarray(records[runs]), [found[place] for place in runs]
        look = Look(
            at_ms=now,
            keys=[key for key, _ in found],
            started=_header(records, HEADER_STARTED_AT),
            last=_header(records, HEADER_LAST_AT),
            received=records[:, _WORD : 2 * _WORD].copy().view(np.int64)[:, 0],
            events=_header(records, HEADER_EVENTS),
            steps=_steps(records, fold),
            scores={name: np.full(len(found), np.nan) for name in self._settings.models.heads},
            consent=_header(records, HEADER_CONSENT),
            folds=[fold] * len(found),
        )
        objecting = (look.consent & OBJECTS) != 0
        for begin in range(0, len(found), _SCORED):
            self._score(scorer, fold, records[begin : begin + _SCORED], objecting[begin : begin + _SCORED], begin, look)
        for place, (_, value) in enumerate(found):
            if len(value) > width and (assigned := sessions.assigned(value)):
                look.assigned[place] = assigned
        return look

    def _score(
        self, scorer: Scorer, fold: Fold, records: np.ndarray, objecting: np.ndarray, begin: int, look: Look
    ) -> None:
        """Score some records into the columns, from a place on: what `GET /v1/sessions/{token}` answers."""
        sheet = scorer.sheet(_SCORED)
        for place, record in enumerate(records):
            sheet.read(fold, record[STATE_BYTES:], look.at_ms, place)
        look.rows += list(sheet.rows[0, : len(records)].copy())
        sheet.score(len(records))
        for place in range(len(records)):
            scores, decided, _ = sheet.scores(place)
            if objecting[place]:
                scores, decided = self._priors, []
            for name, score in scores.items():
                look.scores[name][begin + place] = score
            if decided:
                look.decided[begin + place] = decided
        scorer.give_back(sheet)


def _part(keys: Sequence[bytes], most: int) -> Sequence[bytes]:
    """All keys, or about so many of them: always the same ones, as pseudonyms are as good as drawn.

    >>> len(_part([bytes([number] * 8) for number in range(256)], 64))
    64
    """
    if len(keys) <= most:
        return keys
    below = 2**32 * most // len(keys)
    return [key for key in keys if int.from_bytes(key[:4], "little") < below][:most]


def _header(records: np.ndarray, word: int) -> np.ndarray:
    """A word of the header of each record, int64 (n,)."""
    at = STATE_BYTES + _WORD * word
    found: np.ndarray = records[:, at : at + _WORD].copy().view(np.int64)[:, 0]
    return found


def _steps(records: np.ndarray, fold: Fold) -> np.ndarray:
    """The latest step of each record, int64 (n,); 0 where the fold keeps none."""
    places: Mapping[str, tuple[str, int]] = layout_of(fold.catalogue.fields.values()).places
    if "last_step" not in places:
        return np.zeros(len(records), np.int64)
    dtype, offset = places["last_step"]
    begin = STATE_BYTES + offset
    column = records[:, begin : begin + np.dtype(dtype).itemsize].copy().view(dtype)[:, 0]
    return column.astype(np.int64)


def _joined(parts: Sequence[Look], now: int) -> Look:
    """All of them."""
    if not parts:
        return Look(now)
    if len(parts) == 1:
        return parts[0]
    whole, begin = Look(now), 0
    for name in ("started", "last", "received", "events", "steps", "consent"):
        setattr(whole, name, np.concatenate([getattr(part, name) for part in parts]))
    whole.scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores}
    for part in parts:
        whole.keys += part.keys
        whole.rows += part.rows
        whole.folds += part.folds
        whole.decided |= {begin + place: heads for place, heads in part.decided.items()}
        whole.assigned |= {begin + place: assigned for place, assigned in part.assigned.items()}
        begin += len(part)
    return whole

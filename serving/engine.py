"""The pure middle of the service: wire events in, folded sessions and scores out. No HTTP here.

Read your writes: an answer to event N is scored with event N in it. All events of a request are folded in one
transaction of the store, and nothing is answered before it is committed; a request with a bad event folds none.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from features.compiler import compile_fold
from features.pseudonyms import load_key
from features.sessions import HEADER_EVENTS, HEADER_LAST_AT, HEADER_STARTED_AT, STATUS_NAMES
from features.shop import ShopSettings
from serving.handover import ParquetSink
from serving.intake import FieldError, Intake
from serving.lineup import Generation, Lineup
from serving.metrics import Metrics
from serving.problems import Problem
from serving.pseudonyms import RotatingPseudonyms
from serving.requests import Answer, Request
from serving.scorer import Scorer, size_for
from serving.sessions import Expiry, Sessions, is_handed_on, key_of
from serving.settings import ServingSettings
from serving.shadow import Beside
from serving.split import Split
from serving.stores import open_store
from serving.tokens import BadTokenError, Tokens
from serving.turn import Turn
from serving.watcher import Watcher

# Sweeping shares the interpreter with the hot path: it takes 0.1 ms at a time and then steps aside.
_SWEEP_STEP: Final = 100
_SWEEP_PAUSE_SECONDS: Final = 0.002
# Of sessions that are over: how many make a file, and how long a worker may take to write it.
_BATCH_SESSIONS: Final = 5_000
_LEASE_MS: Final = 60_000


class Engine:
    """Everything one worker process needs to answer."""

    def __init__(self, settings: ServingSettings, shop: ShopSettings) -> None:
        folder = Path(settings.keys.folder)
        self.settings = settings
        self.watcher = Watcher(settings)
        self.lineup = self.watcher.start(compile_fold())
        self.metrics = Metrics(lambda: self.lineup)
        self._swap(self.lineup)
        self.store = open_store(settings.store)
        self.metrics.register(self.watcher)
        self.metrics.register(self.watcher.comparison)
        self._pseudonyms = RotatingPseudonyms(folder)
        self._tokens = Tokens(load_key(folder / "token.key"))
        self._intake = Intake(shop, settings.session.consent, round(settings.session.max_age_hours * 3_600_000))
        self._free: dict[tuple[Sessions, int], list[Turn]] = {}

    @property
    def scorer(self) -> Scorer:
        """The champions."""
        return self.lineup.champions

    async def follow_models(self) -> None:
        """Swap in what the registry says, for ever. What has begun ends with what it began with."""
        await self.watcher.run(self._swap)

    def _swap(self, lineup: Lineup) -> None:
        for generation in self.lineup.generations:
            self.metrics.scored(generation.tally())
        self.lineup, self.fold, self.sessions = lineup, lineup.fold, lineup.newest.sessions
        self._free = {}
        store = self.settings.store
        self._sink = ParquetSink(Path(store.closed), self.fold, sync=store.durability == "disk")

    def take(self, requests: Sequence[Request], received_ms: int | None = None) -> Awaitable[None] | None:
        """Fold the events of some requests and score their sessions: each gets its answer or its problem.

        All events of a request are folded or none; requests that come together are folded together. Returns an
        awaitable where the store takes time.
        """
        received = time.time_ns() // 1_000_000 if received_ms is None else received_ms
        count = 0
        for request in requests:
            try:
                self._read(request, received)
                count += len(request.events)
            except Exception as problem:
                request.problem = problem
                request.events.clear()
        lineup = self.lineup

        def begin(generation: Generation) -> tuple[Turn, Scorer]:
            turn, scorer = self._turn(generation.sessions, count), generation.scorer()
            turn.begin(scorer.sheet(count), received)
            for request in requests:
                request.first = len(turn)
                turn.add(request.events, request.raws)
            return turn, scorer

        turn, scorer = begin(lineup.newest)
        split, advance = None, turn.advance
        if len(lineup.generations) > 1:
            split = Split(lineup, turn, begin, [event for request in requests for event in request.events])
            advance = split.advance
        waiting = self.store.apply(list(turn.visits.values()), advance) if count else None
        if waiting is None:
            self._answer_all(requests, scorer, turn, split)
            return None
        return self._answer_later(waiting, requests, scorer, turn, split)

    def _turn(self, sessions: Sessions, events: int) -> Turn:
        """A turn with room for so many events."""
        size = size_for(events)
        free = self._free.get((sessions, size))
        return free.pop() if free else Turn(sessions, size, self._earlier)

    async def _answer_later(
        self, waiting: Awaitable[None], requests: Sequence[Request], scorer: Scorer, turn: Turn, split: Split | None
    ) -> None:
        await waiting
        self._answer_all(requests, scorer, turn, split)

    def _answer_all(self, requests: Sequence[Request], scorer: Scorer, turn: Turn, split: Split | None) -> None:
        sheet = turn.score()
        elsewhere = split.score() if split is not None else {}
        beside = scorer if isinstance(scorer, Beside) else None
        self.metrics.folded(turn.statuses)
        self.metrics.retired_records += turn.retired
        starts, counts, statuses = turn.starts, turn.counts, turn.statuses
        sign, versions, scores_of = self._tokens.sign, scorer.versions, sheet.scores
        for request in requests:
            if request.problem is not None:
                continue
            answers = []
            for place, event in enumerate(request.events, request.first):
                said, named = scores_of(place), versions
                if place in elsewhere:
                    away, named = elsewhere[place]
                    said = away.scores(place)
                elif beside is not None:
                    said, named = beside.part(event.visitor, said)
                scores, decided, reasons = said
                token = sign(event.visitor, starts[place])
                status = STATUS_NAMES[statuses[place]]
                answers.append(Answer(token, status, counts[place], scores, named, decided, reasons))
            request.answer = answers if request.many else answers[0]
        scorer.give_back(sheet)
        for one in (turn, *(away for away, _ in (split.away.values() if split is not None else ()))):
            self._free.setdefault((one.sessions, one.size), []).append(one)

    def _earlier(self, raw: str, linked: bool) -> list[bytes]:
        """Keys under which a visitor's open session may lie; raw ids live as long as the request."""
        now = time.time_ns() // 1_000_000
        return [key_of(visitor) for visitor in self._pseudonyms.earlier(raw, now, linked=linked)]

    def _read(self, request: Request, received: int) -> None:
        """The events of a body.

        Raises
        ------
        Problem
            It cannot be read, is too long, or holds a bad event: 400 or 422.
        """
        try:
            raws, request.many = self._intake.split(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem(400, f"the body is not JSON: {error}") from None
        except RecursionError:
            raise Problem(400, "the body is nested too deeply for an event") from None
        limit = self.settings.server.batch_limit
        if len(raws) > limit:
            raise Problem(422, f"{len(raws)} events in one request; at most {limit}: send them in several")

        note = request.raws.append
        current = self._pseudonyms.at(received)

        def pseudonym(raw: str, linked: bool) -> int:
            note(raw)
            return current(raw, linked)

        errors = []
        for index, raw in enumerate(raws):
            try:
                request.events.append(self._intake.event(raw, received, pseudonym))
            except FieldError as error:
                errors.append({"index": index, "field": error.field, "found": error.found, "expected": error.expected})
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if not request.many:
                    raise Problem(400, f"the body is not JSON: {error}") from None
                errors.append({"index": index, "field": "event", "found": "no JSON object", "expected": str(error)})
        if errors:
            first = errors[0]
            raise Problem(
                422,
                f"event {first['index']}, field {first['field']}: found {first['found']}, expected {first['expected']}",
                errors=errors,
            )

    async def look(self, token: str, now_ms: int | None = None) -> Answer:
        """A session scored as of now: idle time counts.

        Raises
        ------
        Problem
            401 for a token that is not ours, 404 for a session that is over or forgotten.
        """
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        try:
            visitor, started = self._tokens.open(token)
        except BadTokenError as error:
            raise Problem(401, f"{error}; use the token that POST /v1/events answered with") from None
        found = self.store.read(key_of(visitor))
        value = await found if isinstance(found, Awaitable) else found
        over = Problem(404, "the session is over or was never here; a new event begins another one")
        generation = None if value is None else self.lineup.generation(value)
        if value is None or generation is None or is_handed_on(value):
            raise over
        sessions = generation.sessions
        sessions.value[:] = value
        header = sessions.header
        if header[HEADER_STARTED_AT] != started or now - header[HEADER_LAST_AT] > sessions.timeout_ms:
            raise over
        scorer = generation.scorer()
        sheet = scorer.sheet()
        sheet.read(sessions.fold, sessions.record, now)
        sheet.score(1)
        said, versions = sheet.scores(), scorer.versions
        if isinstance(scorer, Beside):
            said, versions = scorer.part(visitor, said)
        scorer.give_back(sheet)
        return Answer(token, "read", int(header[HEADER_EVENTS]), said.scores, versions, said.decided, said.reasons)

    def score_rows(self, rows: Any) -> list[dict[str, float]]:
        """Scores of given feature vectors: a list of {feature: number or null}.

        Raises
        ------
        Problem
            422: a row is no object, or a feature is missing, unknown or not a number.
        """
        if not isinstance(rows, list) or not rows:
            raise Problem(422, 'found no rows; expected {"rows": [{"<feature>": number, ...}, ...]}')
        if len(rows) > self.settings.server.batch_limit:
            raise Problem(422, f"{len(rows)} rows; at most {self.settings.server.batch_limit} in one request")
        matrix = np.empty((len(rows), len(self.fold.names)), np.float32)
        for index, row in enumerate(rows):
            matrix[index] = self._vector(index, row)
        scorer = self.scorer  # BentoML calls in a thread: it may be another one in the next line
        columns = {name: head.scores(matrix).tolist() for name, head in scorer.heads.items()}
        scores = [
            {name: column[index] for name, column in columns.items() if not math.isnan(column[index])}
            for index in range(len(rows))
        ]
        priors = {name: prior for name, prior in self.settings.prior.items() if name in scorer.reasons}
        for line in scores:
            line.update(priors)
        return scores

    def _vector(self, index: int, row: Any) -> list[float]:
        if not isinstance(row, dict):
            raise Problem(422, f"row {index}: expected an object of feature names and numbers")
        values = []
        for name in self.fold.names:
            if name not in row:
                raise Problem(
                    422, f"row {index}: the feature {name!r} is missing; give every feature, null for missing"
                )
            value = row[name]
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise Problem(422, f"row {index}: {name} is not a number; expected a number or null")
            if value is not None and not abs(value) < 3.4e38:
                raise Problem(422, f"row {index}: {name} is out of the range of a 32-bit float")
            values.append(np.nan if value is None else float(value))
        strangers = set(row) - set(self.fold.names)
        if strangers:
            raise Problem(422, f"row {index}: unknown feature {sorted(strangers)[0][:80]!r}; see GET /v1/features")
        return values

    def describe(self) -> dict[str, Any]:
        """What scores here: heads, versions, features."""
        return {
            "heads": self.lineup.newest.describe(),
            "reasons": self.scorer.reasons,
            **self.watcher.status(),
            "feature_digest": self.fold.digest,
            "features": list(self.fold.names),
            "record_bytes": self.fold.record_bytes,
        }

    async def sweep(self, now_ms: int | None = None) -> int:
        """Look at every record that is due: close sessions that are over, forget visitors. Returns how many it left."""
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        self._pseudonyms.forget(now)
        forgotten = 0
        while entries := await _done(self.store.due(now, _SWEEP_STEP)):
            visits = [Expiry(self.sessions, entry, now) for entry in entries]
            await _done(self.store.apply(visits))
            forgotten += sum(visit.forgotten for visit in visits)
            # requests go first
            await asyncio.sleep(_SWEEP_PAUSE_SECONDS)
        self.metrics.swept_records += forgotten
        return forgotten

    async def hand_over(self, now_ms: int | None = None) -> int:
        """Hand on the sessions that are over; returns how many."""
        handed = 0
        while True:
            now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
            batch = await _done(self.store.claim(_BATCH_SESSIONS, now, _LEASE_MS))
            if batch is None:
                self.metrics.closed_sessions += handed
                return handed
            if batch.sessions:
                await asyncio.to_thread(self._sink.write, batch)
            await _done(self.store.settle(batch.name))
            handed += len(batch.sessions)

    async def count(self) -> None:
        """Note for the metrics how many records there are."""
        self.metrics.records = await _done(self.store.count())

    async def close(self) -> None:
        """Let go of the store and the models."""
        self.watcher.close()
        await _done(self.store.close())


async def _done(result: Any) -> Any:
    return await result if isinstance(result, Awaitable) else result

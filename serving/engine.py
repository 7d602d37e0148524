"""The pure middle of the service: wire events in, folded sessions and scores out. No HTTP here.

Read your writes: an answer to event N is scored with event N in it. All events of a request are folded in one
transaction of the store, and nothing is answered before it is committed; a request with a bad event folds none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from struct import Struct
from typing import Any, Final

import msgspec
import numpy as np

from features.compiler import compile_fold
from features.events import CONSENT_LINK, Event
from features.pseudonyms import load_key
from features.sessions import HEADER_EVENTS, HEADER_LAST_AT, HEADER_STARTED_AT, STATUS_NAMES
from features.shop import ShopSettings
from serving.intake import FieldError, Intake
from serving.metrics import Metrics
from serving.models import load_scorer
from serving.problems import Problem
from serving.pseudonyms import DAY_MS, RotatingPseudonyms
from serving.settings import ServingSettings
from serving.stores import open_store
from serving.tokens import BadTokenError, Tokens

# Sweeping shares the interpreter with the hot path: it takes 0.1 ms at a time and then steps aside.
_SWEEP_STEP: Final = 100
_SWEEP_PAUSE_SECONDS: Final = 0.002
_LAST_AT_TO_CONSENT: Final = Struct("<q24xq")  # header words 4 and 8
_STARTED_TO_EVENTS: Final = Struct("<qqq")  # three neighbours of the header: started at, last at, events


class Answer(msgspec.Struct, omit_defaults=True):
    """What an event, or a look at a session, is answered with."""

    session: str
    status: str
    events: int
    scores: dict[str, float]
    models: dict[str, str]
    decided: list[str] = []
    reasons: dict[str, str] = {}


class Engine:
    """Everything one worker process needs to answer."""

    def __init__(self, settings: ServingSettings, shop: ShopSettings) -> None:
        folder = Path(settings.keys.folder)
        self.settings = settings
        self.fold = compile_fold()
        self.scorer = load_scorer(settings, self.fold)
        self._first, *self._others = self.scorer.readings
        self.store = open_store(settings.store)
        self.metrics = Metrics(self.store.count, lambda: self.scorer.versions)
        self._pseudonyms = RotatingPseudonyms(folder)
        self._tokens = Tokens(load_key(folder / "token.key"))
        self._intake = Intake(shop, settings.session.consent, round(settings.session.max_age_hours * 3_600_000))
        self._timeout_ms = round(settings.session.timeout_minutes * 60_000)
        self._linked_ms = round(settings.store.linked_days * DAY_MS)
        # one record, used for every event: its views and its bytes stay the same objects
        self._record = self.fold.new_record()
        self._header = self._record[:128].view(np.int64)
        self._bytes = memoryview(self._record.data)
        self._empty = bytes(self._bytes)
        self._digest = self._empty[:8]
        self._warm_up()

    def take(self, body: bytes, received_ms: int | None = None) -> Answer | list[Answer]:
        """Fold the events of a body and score their sessions; an array is answered by a list in its order.

        Raises
        ------
        Problem
            The body cannot be read, is too long, or holds a bad event: 400 or 422, nothing was folded.
        """
        received = time.time_ns() // 1_000_000 if received_ms is None else received_ms
        try:
            raws, many = self._intake.split(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem(400, f"the body is not JSON: {error}") from None
        except RecursionError:
            raise Problem(400, "the body is nested too deeply for an event") from None
        limit = self.settings.server.batch_limit
        if len(raws) > limit:
            raise Problem(422, f"{len(raws)} events in one request; at most {limit}: send them in several")
        # raw ids live as long as the request: an event may continue a session of another pseudonym
        visitors: list[str] = []

        def pseudonym(raw: str, linked: bool) -> int:
            visitors.append(raw)
            return self._pseudonyms.current(raw, received, linked=linked)

        events, errors = [], []
        for index, raw in enumerate(raws):
            try:
                events.append(self._intake.event(raw, received, pseudonym))
            except FieldError as error:
                errors.append({"index": index, "field": error.field, "found": error.found, "expected": error.expected})
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if not many:
                    raise Problem(400, f"the body is not JSON: {error}") from None
                errors.append({"index": index, "field": "event", "found": "no JSON object", "expected": str(error)})
        if errors:
            first = errors[0]
            raise Problem(
                422,
                f"event {first['index']}, field {first['field']}: found {first['found']}, expected {first['expected']}",
                errors=errors,
            )
        answers = self._fold(events, visitors, received)
        return answers if many else answers[0]

    def _fold(self, events: Sequence[Event], visitors: Sequence[str], received: int) -> list[Answer]:
        if len(events) == 1:
            with self.store.transaction() as transaction:
                folded = self._advance(transaction, events[0], visitors[0], received)
            return [self._answer(events[0].visitor, *folded)]
        answers: list[Answer] = []
        readings = self.scorer.readings
        vectors = np.empty((len(events), len(readings), len(self._first.row)), np.float32)
        with self.store.transaction() as transaction:
            done = []
            for index, (event, raw) in enumerate(zip(events, visitors, strict=True)):
                done.append(self._advance(transaction, event, raw, received))
                for place, reading in enumerate(readings):
                    vectors[index, place] = reading.row
        for event, folded, vector in zip(events, done, vectors, strict=True):
            for reading, row in zip(readings, vector, strict=True):
                reading.row[:] = row
            answers.append(self._answer(event.visitor, *folded))
        return answers

    def _advance(self, transaction: Any, event: Event, raw: str, received: int) -> tuple[int, str, int]:
        """Fold one event into the visitor's record; returns start of the session, status and number of events."""
        key = event.visitor.to_bytes(8, "little", signed=True)
        self._load(transaction, key, event, raw, received)
        tables, row = self._first
        status = STATUS_NAMES[self.fold.advance(self._record, row, self._timeout_ms, tables, *event)]
        for tables, row in self._others:
            self.fold.read(self._record, int(self._header[HEADER_LAST_AT]), row, tables)
        transaction.put(key, self._bytes)
        self.metrics.events[status] += 1
        started, _, count = _STARTED_TO_EVENTS.unpack_from(self._bytes, 8 * HEADER_STARTED_AT)
        return started, status, count

    def _load(self, transaction: Any, key: bytes, event: Event, raw: str, received: int) -> None:
        """Bring the visitor's record into the buffer; an empty one if there is none."""
        found = transaction.get(key)
        if found is None:
            linked = bool(event.consent & CONSENT_LINK)
            for earlier in self._pseudonyms.earlier(raw, received, linked=linked):
                other = earlier.to_bytes(8, "little", signed=True)
                old = transaction.get(other)
                if old is not None and self._fits(old):
                    self._bytes[:] = old
                    if event.time - self._header[HEADER_LAST_AT] <= self._timeout_ms:
                        transaction.delete(other)  # the open session goes on under today's pseudonym
                        return
        elif self._fits(found):
            self._bytes[:] = found
            return
        else:
            self.metrics.retired_records += 1
        self._bytes[:] = self._empty

    def _fits(self, record: bytes | memoryview) -> bool:
        """Whether a record was folded with these fields: others are put away, their session begins anew."""
        return len(record) == len(self._empty) and record[:8] == self._digest

    def look(self, token: str, now_ms: int | None = None) -> Answer:
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
        record = self.store.read(visitor.to_bytes(8, "little", signed=True))
        over = Problem(404, "the session is over or was never here; a new event begins another one")
        if record is None or not self._fits(record):
            raise over
        self._bytes[:] = record
        if self._header[HEADER_STARTED_AT] != started or now - self._header[HEADER_LAST_AT] > self._timeout_ms:
            raise over
        for tables, row in self.scorer.readings:
            self.fold.read(self._record, now, row, tables)
        return self._answer(visitor, started, "read", int(self._header[HEADER_EVENTS]))

    def _answer(self, visitor: int, started: int, status: str, count: int) -> Answer:
        scores, decided, reasons = self.scorer.score()
        self.metrics.scored(scores)
        token = self._tokens.sign(visitor, started)
        return Answer(token, status, count, scores, self.scorer.versions, decided, reasons)

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
        columns = {name: head.scores(matrix).tolist() for name, head in self.scorer.heads.items()}
        scores = [
            {name: column[index] for name, column in columns.items() if not math.isnan(column[index])}
            for index in range(len(rows))
        ]
        priors = {name: prior for name, prior in self.settings.prior.items() if name in self.scorer.reasons}
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
            "heads": self.scorer.describe(),
            "reasons": self.scorer.reasons,
            "feature_digest": self.fold.digest,
            "features": list(self.fold.names),
            "record_bytes": self.fold.record_bytes,
        }

    def sweep(self, now_ms: int | None = None) -> int:
        """Remove records of sessions that are over; linked visitors stay for `store.linked_days`. Returns how many."""
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        self._pseudonyms.forget(now)
        removed = 0
        for step in self.store.records(_SWEEP_STEP):
            removed += self._remove([key for key, record in step if self._over(record, now)], now)
            time.sleep(_SWEEP_PAUSE_SECONDS)
        self.metrics.swept_records += removed
        return removed

    def _remove(self, keys: Sequence[bytes], now: int) -> int:
        """Delete what is still over: an event may have come since it was looked at."""
        removed = 0
        if keys:
            with self.store.transaction() as transaction:
                for key in keys:
                    record = transaction.get(key)
                    if record is not None and self._over(record, now):
                        transaction.delete(key)
                        removed += 1
        return removed

    def _over(self, record: bytes | memoryview, now: int) -> bool:
        last_at, consent = _LAST_AT_TO_CONSENT.unpack_from(record, 8 * HEADER_LAST_AT)
        return bool(now - last_at > (self._linked_ms if consent & CONSENT_LINK else self._timeout_ms))

    def _warm_up(self) -> None:
        """Compile what the first request would otherwise wait for."""
        record = self.fold.new_record()
        tables, row = self._first
        self.fold.advance(record, row, self._timeout_ms, tables, *Event(visitor=1, time=1_700_000_000_000))
        self.fold.read(record, 1_700_000_001_000, row, tables)
        self.scorer.score()

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

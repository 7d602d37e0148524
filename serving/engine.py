"""The pure middle of the service: wire events in, folded sessions and scores out. No HTTP here.

Read your writes: an answer to event N is scored with event N in it. All events of a request are folded in one
transaction of the store, and nothing is answered before it is committed; a request with a bad event folds none.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from features.compiler import compile_fold
from features.events import hash64
from features.pseudonyms import load_key
from features.sessions import STATUS_NAMES
from features.shop import ShopSettings
from serving.closed import ClosedFiles
from serving.collect.carts import cart_key, erasures_of
from serving.consent import Consent
from serving.decisions import OPTED_OUT, DecisionLog
from serving.experiments.learning import Learning
from serving.experiments.live import Experiments
from serving.handover import ParquetSink
from serving.lineup import Lineup
from serving.looks import Looks
from serving.metrics import Metrics
from serving.outage import STORE_UNREACHABLE, Outage
from serving.outbound import open_outbound
from serving.problems import Problem
from serving.pseudonyms import RotatingPseudonyms
from serving.reading import Reader
from serving.requests import Answer, Request
from serving.rows import matrix_of
from serving.scorer import Scorer, Scores
from serving.sessions import (
    Assigning,
    Ending,
    Erasure,
    Joining,
    history_of,
    key_of,
    visitor_of,
)
from serving.settings import ServingSettings
from serving.stores import Found, StoreError, done, open_store
from serving.tokens import Tokens
from serving.turn import Turn
from serving.upkeep import Upkeep
from serving.usage import Usage
from serving.watcher import Watcher

_EVENTS: Final = "/v1/events"

logger = logging.getLogger("lotse.engine")


class Engine:
    """Everything one worker process needs to answer."""

    def __init__(self, settings: ServingSettings, shop: ShopSettings) -> None:
        folder = Path(settings.keys.folder)
        self.settings, self.shop = settings, shop
        self.watcher = Watcher(settings)
        self.metrics = Metrics(lambda: self.lineup)
        self.experiments = Experiments(settings.experiments, settings.models.heads, compile_fold())
        self.learning = Learning(settings, self.experiments)
        self._swap(self.watcher.start(compile_fold()))
        self.store = open_store(settings.store)
        self.metrics.register(self.watcher)
        self.metrics.register(self.watcher.comparison)
        self.metrics.register(self.learning)
        self.pseudonyms = RotatingPseudonyms(folder)
        self.of_day = self.pseudonyms.of_day
        self.outage = Outage(settings.store, self.metrics, self.pseudonyms.veiled)
        self.decisions = DecisionLog(settings.decisions, self.of_day)
        self.closed = ClosedFiles(settings.store)
        priors = {name: prior for name, prior in settings.prior.items() if name in settings.models.heads}
        # what is said of a visitor who objects to automated decisions
        self.neutral = Scores(priors, [], dict.fromkeys(priors, OPTED_OUT))
        self.secret = load_key(folder / "token.key")
        self.tokens = Tokens(self.secret)
        self.consent = Consent(settings.privacy, settings.session.consent)
        self.reader = Reader(settings, shop, self.pseudonyms)
        self.outbound = open_outbound(self)
        self.usage = Usage(self.store, self.outage.ask, 2 * self.sessions.timeout_ms)
        self.looks, self.upkeep = Looks(self), Upkeep(self)

    @property
    def scorer(self) -> Scorer:
        """The champions."""
        return self.lineup.champions

    async def follow_models(self) -> None:
        """Swap in what the registry says, for ever. What has begun ends with what it began with."""
        await self.watcher.run(self._swap)

    def _swap(self, lineup: Lineup) -> None:
        self.lineup, self.fold, self.sessions = lineup, lineup.fold, lineup.newest.sessions
        self.metrics.registered = lineup.registered
        store, folds = self.settings.store, [one.fold for one in lineup.generations]
        self.histories = frozenset[str]().union(*(history_of(fold) for fold in folds))
        self.sink = ParquetSink(
            Path(store.closed), folds, sync=store.durability == "disk",
            silences_ms=self.settings.log.silences_ms, timeout_ms=self.sessions.timeout_ms,
        )  # fmt: skip

    def take(self, requests: Sequence[Request], received_ms: int | None = None) -> Awaitable[None] | None:
        """Fold the events of some requests and score their sessions: each gets its answer or its problem.

        All events of a request are folded or none; requests that come together are folded together. Returns an
        awaitable where the store takes time.
        """
        received = time.time_ns() // 1_000_000 if received_ms is None else received_ms
        count = work = 0
        for request in requests:
            try:
                self.reader.read(request, received)
                count += len(request.events)
                work += len(request.events) + len(request.unlinked)
            except Exception as problem:
                request.problem = problem
        # a store that does not wait has done it or not, and nobody asks the record whether it was; only a disk that
        # fails while it is synced has done what it says it has not
        write = _drawn() if self.store.waits else 0
        if requests and requests[0].key:  # then it is the only one
            write = hash64(requests[0].key)
        if work and self.outage.active:
            return self._answer_without(requests, count, received, write or _drawn())
        turn = self._turn(requests, count, received, write)
        if work and self.store.waits:
            return self._answer_later(requests, turn, received, write)
        try:
            if count:
                self.store.apply(list(turn.visits.values()), turn.advance, alone=True)
            if work and (erasures := _left_by(turn)):
                self.store.apply(erasures, alone=True)
                self._note_erased(turn, erasures)
        except StoreError as error:
            self.outage.failed(_EVENTS, error)
            return self._answer_without(requests, count, received, write or _drawn())
        if assignings := self._answer_all(requests, turn, received=received):
            try:
                self.store.apply(assignings, alone=True)
            except StoreError as error:
                self._unassigned(error)
            else:
                self.tell_arms(assignings)
        return None

    def _unassigned(self, error: StoreError) -> None:
        """An exposure could not be noted: the next request will, with the same arm by the same table."""
        self.outage.failed(_EVENTS, error)
        self.metrics.store_errors[_EVENTS] += 1

    def tell_arms(self, assignings: Iterable[Assigning]) -> None:
        """Tell others what experiments have assigned."""
        if self.outbound is not None:
            for assigning in assignings:
                self.outbound.assigned(assigning)

    async def _answer_later(self, requests: Sequence[Request], turn: Turn, received: int, write: int) -> None:
        if not self.outage.active:
            try:
                await self.fold_turn(turn)
            except StoreError as error:
                self.outage.failed(_EVENTS, error)
            else:
                if assignings := self._answer_all(requests, turn, received=received):
                    try:
                        await self.outage.ask(lambda: self.store.apply(assignings))
                    except StoreError as error:
                        self._unassigned(error)
                    else:
                        self.tell_arms(assignings)
                return
        await self._answer_without(requests, sum(len(request.events) for request in requests), received, write)

    async def fold_turn(self, turn: Turn) -> None:
        """Have the store fold a turn, and erase what visitors without consent to link have left under their lasting
        keys: records that nobody looked for, and carts.

        Raises
        ------
        StoreError
            It may have done some of it.
        """
        if turn.visits:
            await self.outage.ask(lambda: self.store.apply(list(turn.visits.values()), turn.advance))
        if erasures := _left_by(turn):
            await self.outage.ask(lambda: self.store.apply(erasures))
            self._note_erased(turn, erasures)

    def _note_erased(self, turn: Turn, erasures: Sequence[Erasure]) -> None:
        """Have handed-on rows of visitors who withdrew unlinked."""
        found = {erasure.key for erasure in erasures if erasure.found}
        self.closed.unlink(visitor_of(key) for key in (*turn.doubtful, *turn.unlinked) if key in found)

    async def _answer_without(self, requests: Sequence[Request], count: int, received: int, write: int) -> None:
        """Keep the events until the store is back, and score them as if there were none before.

        The turn that failed is left as it is: a thread of the store may still be at it.
        """
        turn = self._turn(requests, count, received, write)
        try:
            await self.outage.keep(turn, received)
        except StoreError as error:
            logger.error("events are refused: %s", error)
            for request in requests:
                if (request.events or request.unlinked) and request.problem is None:
                    request.problem = Problem(
                        503, "the store does not answer, and the events cannot be buffered", retry_after_seconds=1
                    )
            turn.close()
            return
        turn.advance([Found(visit, None, ()) for visit in turn.visits.values()])
        self._answer_all(requests, turn, STORE_UNREACHABLE, received=received)

    def _answer_all(
        self, requests: Sequence[Request], turn: Turn, reason: str = "", *, received: int
    ) -> list[Assigning]:
        """Have every answer ready; returns what its experiments assign."""
        assignings: list[Assigning] = []
        turn.finish(scored=any(request.scored for request in requests))
        self.closed.unlink(turn.withdrawn)
        sign, counts, logged = self.tokens.sign, self.metrics.events, self.decisions.sample > 0
        for request in requests:
            if request.problem is not None:
                continue
            if not request.scored:
                self._answer_unscored(request, reason)
                continue
            answers: list[Answer] = []
            for event, (visit, number) in zip(request.events, request.seats, strict=True):
                group, place = visit.group, visit.events[number]
                status = STATUS_NAMES[group.statuses[place]]
                counts[status] += 1
                objecting = bool(group.objecting) and bool(group.objecting[visit.number])
                scores, decided, reasons = self.neutral if objecting else group.sheet.scores(place)
                answer = Answer(
                    status=status,
                    events=group.counts[place],
                    session=sign(event.visitor, group.starts[place]),
                    scores=scores,
                    models={} if objecting else group.scorer.versions,
                    decided=decided,
                    reasons=reasons,
                )
                answers.append(answer)
                if reasons:
                    self.metrics.fell_back(reasons)
                if request.explained:
                    request.asked.append([] if objecting else group.sheet.asked(place))
                if logged and self.decisions.drawn():
                    asked = [] if objecting else group.sheet.asked(place)
                    self.decisions.note(request.raws[len(answers) - 1], answer, asked, received)
            if request.flags is not None:
                assignings += self.experiments.flag(request, answers, received)
            if reason:
                self._fall_back(answers, reason)
            elif self.outbound is not None:
                self.outbound.scored(request, answers, received)
            request.answer = answers if request.many else answers[0]
        self.metrics.retired_records += sum(group.retired for group in turn.groups.values())
        turn.close()
        if turn.lineup is not self.lineup:
            self.metrics.scored(turn.lineup.tally())
        return assignings

    def _answer_unscored(self, request: Request, reason: str) -> None:
        """What became of each event, and no more: for imports and servers that only tell."""
        answers, counts = [], self.metrics.events
        for visit, number in request.seats:
            group, place = visit.group, visit.events[number]
            status = STATUS_NAMES[group.statuses[place]]
            counts[status] += 1
            answers.append(Answer(status=status, events=group.counts[place], reason=reason))
        request.answer = answers if request.many else answers[0]

    def _fall_back(self, answers: Sequence[Answer], reason: str) -> None:
        for answer in answers:
            answer.reason = reason
            self.metrics.fell_back(dict.fromkeys(answer.scores, reason))

    def _turn(self, requests: Sequence[Request], count: int, received: int, write: int) -> Turn:
        """The turn of some requests, so many events."""
        turn = Turn(self.lineup, count, received, self._earlier, write)
        for request in requests:
            request.seats = turn.add(request.events, request.raws)
            if request.unlinked and request.problem is None:
                turn.unlinked += request.unlinked
        return turn

    def _earlier(self, raw: str, linked: bool, now_ms: int) -> list[bytes]:
        """Keys under which a visitor's open session may lie; raw ids live as long as the request."""
        return [key_of(visitor) for visitor in self.pseudonyms.earlier(raw, now_ms, linked=linked)]

    def keys_of(self, raw: str, *, linked: bool) -> list[bytes]:
        """Keys of a visitor's record: where it belongs now, and where one may lie that began earlier."""
        now = time.time_ns() // 1_000_000
        return [key_of(self.pseudonyms.at(now)(raw, linked)), *self._earlier(raw, linked, now)]

    def lasting_keys(self, raws: Iterable[str]) -> list[bytes]:
        """Keys of the records that visitors have with consent to link."""
        pseudonym, found = self.pseudonyms.at(time.time_ns() // 1_000_000), []
        for raw in raws:
            with suppress(UnicodeEncodeError):  # half a character: no visitor has it
                found.append(key_of(pseudonym(raw, True)))
        return found

    async def end(self, raw: str, unless: str, *, linked: bool) -> None:
        """End a visitor's session, because the tracker says so; unless: an event that may have begun it already."""
        sessions = [one.sessions for one in self.lineup.generations]
        event = hash64(unless)
        for key in dict.fromkeys(self.keys_of(raw, linked=linked)):
            await self.outage.ask(partial(self.store.apply, [Ending(sessions, key, event)]))

    async def join(self, raw: str, former: str, *, linked: bool) -> None:
        """Have a visitor go on with the session of another: the same person, under the id that there was before."""
        sessions = [one.sessions for one in self.lineup.generations]
        key, *_ = self.keys_of(raw, linked=linked)
        others = [*self.keys_of(former, linked=False), *self.keys_of(former, linked=True)]
        visit = Joining(sessions, key, list(dict.fromkeys(others)))
        await self.outage.ask(partial(self.store.apply, [visit]))

    def score_rows(self, rows: Any) -> list[dict[str, float]]:
        """Scores of given feature vectors: a list of {feature: number or null}.

        Raises
        ------
        Problem
            422, as of `matrix_of`.
        """
        matrix = matrix_of(rows, self.fold.names, self.settings.server.batch_limit)
        scorer = self.scorer  # BentoML calls in a thread: it may be another one in the next line
        columns = {name: said.tolist() for name, said in scorer.said(matrix).items()}
        scores = [
            {name: column[index] for name, column in columns.items() if not math.isnan(column[index])}
            for index in range(len(rows))
        ]
        priors = {name: prior for name, prior in self.settings.prior.items() if name in scorer.reasons}
        for line in scores:
            line.update(priors)
        return scores

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

    async def close(self) -> None:
        """Let go of the store and the models."""
        self.watcher.close()
        self.learning.close()
        self.outage.close()
        with suppress(OSError):
            await self.upkeep.log_decisions()
        await done(self.store.close())


def _left_by(turn: Turn) -> list[Erasure]:
    """What erases what visitors without consent to link have left under their lasting keys.

    The turn itself took the records of those who withdrew, and may have written new ones since.
    """
    erasures = [Erasure(cart_key(key_of(visitor))) for visitor in turn.withdrawn]
    for key in (*turn.doubtful, *turn.unlinked):
        erasures += erasures_of(key)
    return list({erasure.key: erasure for erasure in erasures}.values()) if turn.unlinked else erasures


def _drawn() -> int:
    """What tells one turn's writes from all others."""
    return random.getrandbits(64) or 1

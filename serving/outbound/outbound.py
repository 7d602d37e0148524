"""What one worker tells others: crossings into and out of segments, and arms of experiments.

Called behind each answer, in the event loop; sending is beside it. The id of a message is a keyed hash of the session,
of what is told and of how often it came to that: another worker, or this one after a restart, tells it under the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from features.events import CONSENT_PERSONALISE, Event
from features.experiments import FORCED, HOLDBACK
from serving.experiments.assignments import Assignment, unpack
from serving.outbound import ASSIGNED, Message, targets
from serving.outbound.crossings import Segments, Session
from serving.outbound.dead_letters import DeadLetters
from serving.outbound.outlet import Outlet
from serving.outbound.permission import Permission
from serving.sessions import visitor_of

if TYPE_CHECKING:
    from serving.engine import Engine
    from serving.experiments.configuration import Configuration
    from serving.requests import Answer, Request
    from serving.sessions import Assigning

logger = logging.getLogger("lotse.outbound")

_ID_BYTES: Final = 16


class Outbound:
    """What one worker tells."""

    def __init__(self, engine: Engine) -> None:
        settings = self._settings = engine.settings.outbound
        self._sign = engine.tokens.sign
        self._experiments: Callable[[], Configuration] = lambda: engine.experiments.configuration
        self._segments = Segments(settings.segments, engine.fold.names, engine.settings.models.heads, settings.sessions)
        self.letters = DeadLetters(settings)
        allowed = Permission(engine.store, engine.outage.ask).of
        self._outlets = [
            Outlet(name, target, settings, engine.metrics, allowed, self.letters)
            for name, target in targets(settings).items()
        ]
        self.trackers = frozenset(outlet.target.tracker for outlet in self._outlets if outlet.target.tracker)
        self._hash = hashlib.blake2b(digest_size=_ID_BYTES, key=engine.secret[:64], person=b"lotse-message")
        # of sessions, assignments that trackers' targets were told, as they lie in the record
        self._exposed: OrderedDict[Session, bytes] = OrderedDict()

    def scored(self, request: Request, answers: Sequence[Answer], at_ms: int) -> None:
        """The events of a request were folded, and their sessions scored; at_ms: UTC."""
        for place, (event, answer) in enumerate(zip(request.events, answers, strict=True)):
            if event.consent & CONSENT_PERSONALISE:
                self._scored(request, place, event, answer, at_ms)

    def _scored(self, request: Request, place: int, event: Event, answer: Answer, at_ms: int) -> None:
        visit, number = request.seats[place]
        group, row = visit.group, visit.events[number]
        if group.objecting and group.objecting[visit.number]:
            return
        session = event.visitor, group.starts[row]
        scores = answer.scores
        if answer.reasons:  # a prior says nothing of a session
            scores = {head: score for head, score in scores.items() if head not in answer.reasons}
        crossings = self._segments.crossed(session, scores, group.sheet.rows[0, row], group.sessions.fold)
        if not crossings and not visit.assigned:
            return
        tracker, who = request.tracker, None
        if tracker in self.trackers:
            who = request.whos[place] if request.whos else {"id": request.raws[place]}
        told = {head: round(score, 4) for head, score in scores.items()}
        versions = {head: answer.models[head] for head in told if head in answer.models}
        for segment, type_, count in crossings:
            data = {"segment": segment, "number": count, "events": answer.events, "scores": told, "models": versions}
            self._tell(type_, session, f"{segment} {count}", data, at_ms, tracker, who)
        if visit.assigned and who:
            self._expose(session, visit.assigned, at_ms, tracker, who)

    def assigned(self, assigning: Assigning) -> None:
        """Experiments have assigned arms to a session. What another request has assigned before it is not told."""
        if assigning.assigned is None or not assigning.consent & CONSENT_PERSONALISE:
            return
        there = {(one.experiment, one.exposed_at, one.arm) for one in unpack(assigning.assigned)}
        session = visitor_of(assigning.key), assigning.started_at
        for one in assigning.more:
            if (one.experiment, one.exposed_at, one.arm) in there:
                self._tell_arm(session, one, one.exposed_at)

    async def close(self, seconds: float) -> None:
        """Send what waits, for so long."""
        await asyncio.gather(*(outlet.close(seconds) for outlet in self._outlets))

    async def tidy(self) -> None:
        """Delete dead letters that are too old."""
        await asyncio.to_thread(self.letters.tidy)

    def _expose(self, session: Session, assigned: bytes, at_ms: int, tracker: str, who: Mapping[str, str]) -> None:
        """Tell a tracker's target what experiments have assigned: its ids are known with its own requests only."""
        before = self._exposed.get(session, b"")
        if before != assigned:
            known = {one.experiment for one in unpack(before)}
            for one in unpack(assigned):
                if one.experiment not in known:
                    self._tell_arm(session, one, at_ms, tracker, who)
            self._exposed[session] = assigned
            if len(self._exposed) > self._settings.sessions:
                self._exposed.popitem(last=False)
        self._exposed.move_to_end(session)

    def _tell_arm(
        self, session: Session, one: Assignment, at_ms: int, tracker: str = "", who: Mapping[str, str] | None = None
    ) -> None:
        trials = self._experiments().trials.values()
        trial = next((trial for trial in trials if trial.number == one.experiment), None)
        # a person's own look at a variant tells nothing; and arms may have been taken away since
        if trial is None or one.flags & FORCED or one.arm >= len(trial.definition.arms):
            return
        data = {"experiment": trial.key, "arm": trial.definition.arms[one.arm], "phase": one.phase,
                "holdback": bool(one.flags & HOLDBACK)}  # fmt: skip
        self._tell(ASSIGNED, session, f"{trial.key} {one.phase}", data, at_ms, tracker, who)

    def _tell(
        self,
        type_: str,
        session: Session,
        what: str,
        data: Mapping[str, Any],
        at_ms: int,
        tracker: str = "",
        who: Mapping[str, str] | None = None,
    ) -> None:
        """Hand a message to whoever wants it."""
        visitor, started_at = session
        state = self._hash.copy()
        state.update(f"{visitor} {started_at} {type_} {what}".encode())
        due = asyncio.get_running_loop().time() + self._settings.deadline_seconds
        token = self._sign(visitor, started_at)
        identity = f"msg_{state.hexdigest()}"
        plain = Message(identity, type_, at_ms, visitor, started_at, token, data, due=due)
        for outlet in self._outlets:
            theirs = outlet.target.tracker
            # of an arm, all others were told when it was assigned
            if theirs != tracker and (theirs or type_ == ASSIGNED):
                continue
            try:
                outlet.put(plain._replace(tracker=tracker, who=who) if theirs else plain)
            except Exception as error:  # of a target that is somebody's plug-in; the answer must not suffer
                logger.error("a message to %s failed: %s", outlet.name, type(error).__name__)

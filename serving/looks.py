"""Sessions as of a moment: looked at, with flags, and recalled for requests that are sent again. No events here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from features.events import CONSENT_LINK
from features.sessions import DUPLICATE, HEADER_CONSENT, HEADER_EVENTS, HEADER_LAST_AT, HEADER_STARTED_AT, STATUS_NAMES
from serving.experiments.assignments import unpack
from serving.experiments.flags import Flag, Subject
from serving.explain import Asked
from serving.problems import Problem
from serving.requests import Answer, Request, View
from serving.sessions import Assigning, is_handed_on, key_of, objects
from serving.tokens import BadTokenError

if TYPE_CHECKING:
    from serving.engine import Engine


class Looks:
    """Looks at the sessions of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def opened(self, token: str) -> tuple[int, int]:
        """(visitor, started_at) of a session's token.

        Raises
        ------
        Problem
            401: it is not ours.
        """
        try:
            return self._engine.tokens.open(token)
        except BadTokenError as error:
            raise Problem(401, f"{error}; use the token that POST /v1/events answered with") from None

    def token_of(self, view: View) -> str:
        """The token of a session that was looked at."""
        return self._engine.tokens.sign(view.subject.visitor, view.started_at)

    async def look(self, token: str, now_ms: int | None = None, *, explained: bool = False) -> tuple[Answer, View]:
        """A session scored as of now: idle time counts; explained: whether to keep what its scores were made of.

        Raises
        ------
        Problem
            401 for a token that is not ours, 404 for a session that is over or forgotten.
        """
        view = await self.running(*self.opened(token), now_ms=now_ms, explained=explained)
        answer = Answer(
            session=token, status="read", events=view.events,
            scores=view.scores, models=view.models, decided=view.decided, reasons=view.reasons,
        )  # fmt: skip
        return answer, view

    async def running(
        self, visitor: int, started_at: int, *, now_ms: int | None = None, explained: bool = False
    ) -> View:
        """The session that a token names, as of now.

        Raises
        ------
        Problem
            404: it is over or forgotten.
        """
        view = await self.view(visitor, started_at, now_ms=now_ms, explained=explained)
        if view is None:
            raise Problem(404, "the session is over or was never here; a new event begins another one")
        return view

    async def view(
        self, visitor: int, started_at: int | None = None, *, now_ms: int | None = None, explained: bool = False
    ) -> View | None:
        """A visitor's running session as of now, None if there is none or another one than that."""
        value = await self._engine.outage.ask(lambda: self._engine.store.read(key_of(visitor)))
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        generation = None if value is None else self._engine.lineup.generation(value)
        if value is None or generation is None or is_handed_on(value):
            return None
        sessions = generation.sessions
        sessions.value[:] = value[: len(sessions.value)]
        header = sessions.header
        started, idle_ms = int(header[HEADER_STARTED_AT]), now - int(header[HEADER_LAST_AT])
        if started_at not in (None, started) or idle_ms > sessions.timeout_ms:
            return None
        events, idle_seconds = int(header[HEADER_EVENTS]), max(idle_ms, 0) / 1000
        scorer = generation.scorer(visitor)
        sheet = scorer.sheet()
        sheet.read(sessions.fold, sessions.record, now)
        row = sheet.rows[0, 0].copy()
        if objects(value):
            said, versions, asked = self._engine.neutral, {}, []
        else:
            sheet.score(1)
            said, versions = sheet.scores(), scorer.versions
            asked = sheet.asked() if explained else []
        scorer.give_back(sheet)
        subject = Subject(
            visitor, started, events, idle_seconds, max(now - started, 0) / 1000, said.scores, row,
            int(header[HEADER_CONSENT]), unpack(sessions.assigned(value)),
        )  # fmt: skip
        return View(
            started, events, idle_seconds, said.scores, versions, said.decided, said.reasons, asked, subject, sessions
        )

    async def evaluated(
        self,
        view: View,
        keys: Sequence[str],
        now_ms: int,
        more: Mapping[str, Any] | None = None,
        forced: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Flag], View]:
        """Flags of a session that was looked at, all if no keys are named, and how it looks with what they assign."""
        flags, new = self._engine.experiments.flags_of(view, keys, now_ms, more, forced)
        if new:
            subject = view.subject
            assigning = Assigning([view.sessions], key_of(subject.visitor), subject.started_at, new, subject.consent)
            await self._engine.outage.ask(partial(self._engine.store.apply, [assigning]))
            self._engine.tell_arms([assigning])
            view = view._replace(subject=subject._replace(assigned=[*subject.assigned, *new]))
        return flags, view

    async def look_at(self, raw: str, at_ms: int | None = None) -> View | None:
        """The running session of a visitor (a tracker's id), whatever the consent; None if there is none.

        at_ms: the moment at which it must run, now if None.
        """
        now = time.time_ns() // 1_000_000
        pseudonym = self._engine.pseudonyms.at(now)
        visitors = dict.fromkeys((pseudonym(raw, True), pseudonym(raw, False)))
        for visitor in dict.fromkeys((*visitors, *self._engine.pseudonyms.earlier(raw, now, linked=True))):
            view = await self.view(visitor, now_ms=now if at_ms is None else at_ms)
            if view is not None:
                return view
        return None

    async def recall(self, request: Request, received_ms: int | None = None) -> None:
        """Answer a request whose events were folded before: as duplicates, with their sessions' scores as of now.

        A session that is over meanwhile is answered with no events and no scores.

        Raises
        ------
        Problem
            As of `take`.
        """
        received = time.time_ns() // 1_000_000 if received_ms is None else received_ms
        self._engine.reader.read(request, received)
        answers = []
        for event, raw in zip(request.events, request.raws, strict=True):
            linked = bool(event.consent & CONSENT_LINK)
            visitors = [event.visitor, *self._engine.pseudonyms.earlier(raw, received, linked=linked)]
            asked: list[Asked] = []
            answer = Answer(status=STATUS_NAMES[DUPLICATE], events=0)
            whose, started_at = event.visitor, 0
            for visitor in visitors:
                view = await self.view(visitor, now_ms=received, explained=request.explained)
                if view is None:
                    continue
                answer.events, whose, started_at = view.events, visitor, view.started_at
                if request.scored:
                    answer.scores, answer.models = view.scores, view.models
                    answer.decided, answer.reasons, asked = view.decided, view.reasons, view.asked
                if request.flags is not None:
                    answer.flags, _ = await self.evaluated(view, request.flags, received)
                break
            if request.scored:
                answer.session = self._engine.tokens.sign(whose, started_at)
            answers.append(answer)
            request.asked.append(asked)
        request.answer = answers if request.many else answers[0]

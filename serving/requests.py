"""A request of events on its way through the engine, and what it is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from serving.experiments.flags import Flag
from serving.explain import Asked, Explanation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from features.events import Event
    from serving.experiments.flags import Subject
    from serving.intake import EventIn
    from serving.sessions import Sessions
    from serving.turn import Seat


class Answer(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What an event, or a look at a session, is answered with.

    session: its token, if scores were asked for; reason: why they know less than they should.
    """

    session: str = ""
    status: str
    events: int
    scores: dict[str, float] = {}
    models: dict[str, str] = {}
    decided: list[str] = []
    reasons: dict[str, str] = {}
    reason: str = ""
    flags: dict[str, Flag] = {}
    explanations: dict[str, Explanation] = {}


class View(NamedTuple):
    """A session as of a moment.

    started_at: ms UTC; idle_seconds: since its latest event; asked: what its scores were made of, if that was wanted.
    subject: as experiments see it; sessions: of the fold that folds it.
    """

    started_at: int
    events: int
    idle_seconds: float
    scores: dict[str, float]
    models: dict[str, str]
    decided: list[str]
    reasons: dict[str, str]
    asked: list[Asked]
    subject: Subject
    sessions: Sessions


_NOBODY: Final[Sequence[Mapping[str, str]]] = ()


class Request:
    """A body of events on its way through the engine.

    Attributes
    ----------
    events: canonical; raws: their visitors' ids as the tracker gave them; seats: of each event its place in a turn.
    scored: whether scores are asked for, else the events are only folded; explained: whether to keep in `asked`, for
    each event, what its scores were made of.
    key: the Idempotency-Key, by which records know its writes again.
    flags: keys of the flags that are asked for, all if it is empty; None if none are.
    objected: whether the browser objects (GPC, DNT), which narrows the consent of the body's events.
    unlinked: lasting keys of visitors without consent to link who have no event of their own in it.
    wires: its events if a tracker's adapter has read them; then a bad one does not keep the others out, and `dropped`
    holds why it was.
    tracker: whose request it is, empty for our own; whos: the tracker's ids of each event's visitor, if a target of
    `serving.outbound` needs them and the raw ones are not those.
    answer, problem: what came of it, one of them.
    """

    __slots__ = (
        "answer",
        "asked",
        "body",
        "dropped",
        "events",
        "explained",
        "flags",
        "key",
        "many",
        "objected",
        "problem",
        "raws",
        "scored",
        "seats",
        "tracker",
        "unlinked",
        "whos",
        "wires",
    )

    def __init__(
        self,
        body: bytes,
        *,
        objected: bool = False,
        scored: bool = True,
        explained: bool = False,
        key: str = "",
        flags: Sequence[str] | None = None,
    ) -> None:
        self.body, self.objected, self.many = body, objected, False
        self.wires: Sequence[EventIn] | None = None
        self.unlinked: Sequence[bytes] = ()
        self.tracker, self.whos = "", _NOBODY
        self.dropped: list[str] = []
        self.scored, self.explained, self.key, self.flags = scored, explained, key, flags
        self.asked: list[list[Asked]] = []
        self.events: list[Event] = []
        self.raws: list[str] = []
        self.seats: list[Seat] = []
        self.answer: Answer | list[Answer] | None = None
        self.problem: Exception | None = None

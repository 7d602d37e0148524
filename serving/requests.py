"""A request of events on its way through the engine, and what it is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from features.events import Event
    from serving.sessions import EventVisit


class Answer(msgspec.Struct, omit_defaults=True):
    """What an event, or a look at a session, is answered with."""

    session: str
    status: str
    events: int
    scores: dict[str, float]
    models: dict[str, str]
    decided: list[str] = []
    reasons: dict[str, str] = {}


class Request:
    """A body of events on its way through the engine.

    Attributes
    ----------
    events: canonical; visits: of each event the visit it is part of and its number there.
    answer, problem: what came of it, one of them.
    """

    __slots__ = ("answer", "body", "events", "many", "problem", "raws", "visits")

    def __init__(self, body: bytes) -> None:
        self.body, self.many = body, False
        self.events: list[Event] = []
        self.raws: list[str] = []
        self.visits: list[tuple[EventVisit, int]] = []
        self.answer: Answer | list[Answer] | None = None
        self.problem: Exception | None = None

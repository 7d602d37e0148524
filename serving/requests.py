"""A request of events on its way through the engine, and what it is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from features.events import Event


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
    events: canonical; raws: their visitors' ids as the tracker gave them; first: place of the first one in its turn.
    answer, problem: what came of it, one of them.
    """

    __slots__ = ("answer", "body", "events", "first", "many", "problem", "raws")

    def __init__(self, body: bytes) -> None:
        self.body, self.many, self.first = body, False, 0
        self.events: list[Event] = []
        self.raws: list[str] = []
        self.answer: Answer | list[Answer] | None = None
        self.problem: Exception | None = None

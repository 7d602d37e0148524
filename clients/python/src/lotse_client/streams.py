"""What streams of server-sent events tell."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """A score has crossed a threshold."""

    head: str
    threshold: float
    direction: Literal["up", "down"]
    score: float
    session: str
    events: int
    scores: dict[str, float]
    models: dict[str, str]


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """So long nothing has happened."""

    idle_seconds: float
    session: str
    events: int
    scores: dict[str, float]
    models: dict[str, str]


class Closed(msgspec.Struct, frozen=True):
    """The session is over, or goes on under another token."""

    session: str


class Refetch(msgspec.Struct, frozen=True, rename="camel"):
    """A flag of the session may be another one."""

    type: Literal["refetchEvaluation"]
    etag: str
    last_modified: int


class Look(msgspec.Struct, frozen=True):
    """What the console is told of all sessions: `health`, `totals` (None while nobody can look), or `rows`."""

    event: str
    data: dict[str, Any] | None


Told = Crossing | Idle | Closed
# By the event's name.
SESSION_EVENTS: Final[dict[str, type[Crossing] | type[Idle] | type[Closed]]] = {
    "score": Crossing,
    "idle": Idle,
    "closed": Closed,
}

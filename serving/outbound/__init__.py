"""What sessions are about to do, told to others; each kind of receiver is a file (entry points `lotse.targets`).

In: a message for each crossing into or out of a segment, and for each arm that an experiment assigned. Out: a target
says whether it wants a message, and what request some messages become. Queues, tries, consent and dead letters are the
same for all of them (`serving.outbound.outlet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from features.settings import SettingsError

if TYPE_CHECKING:
    from serving.engine import Engine
    from serving.outbound.configuration import OutboundSettings
    from serving.outbound.outbound import Outbound

ENTERED: Final = "segment.entered"
LEFT: Final = "segment.left"
ASSIGNED: Final = "experiment.assigned"
TYPES: Final = (ENTERED, LEFT, ASSIGNED)


class Message(NamedTuple):
    """One thing to tell.

    id: the same whoever tells it, and however often; type: one of TYPES; at_ms: UTC.
    visitor, started_at: the session, by its pseudonym; session: its token.
    data: what is told, JSON-ready. Of a crossing: segment, number (of the crossings of this session and segment),
    events, scores, models. Of an assignment: experiment, arm, phase, holdback.
    tracker, who: whose request it was, and its own ids of the visitor; in memory only, and for that tracker's target.
    due: when it is given up, by the loop's clock; size: what it takes of a queue's room.
    """

    id: str
    type: str
    at_ms: int
    visitor: int
    started_at: int
    session: str
    data: Mapping[str, Any]
    tracker: str = ""
    who: Mapping[str, str] | None = None
    due: float = 0.0
    size: int = 1


class Parcel(NamedTuple):
    """A POST request. url: with its query; body: JSON."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Target(Protocol):
    """One receiver; made with its name and its options, a table of `outbound.targets`.

    tracker: whose ids it needs, empty if it needs none: then what cannot be delivered is kept as a dead letter, because
    it holds no id. together: most messages of a request. where: it sends to, for people: no secret is in it. told: what
    of a message it sends, in words, for the record of processing.
    """

    tracker: str
    together: int
    where: str
    told: str

    def open(self) -> None:
        """Read what is secret, before the first request is made.

        Raises
        ------
        SettingsError
            It does not lie where it should.
        """

    def wants(self, message: Message) -> bool:
        """Whether a message, of its own tracker if it has one, is to be told."""

    def parcel(self, messages: Sequence[Message], now_ms: int) -> Parcel:
        """The request that tells some messages."""


def targets(settings: OutboundSettings, *, opened: bool = True) -> dict[str, Target]:
    """The configured targets, by name; opened: whether anything is to be sent, for which secrets must be at hand.

    Raises
    ------
    SettingsError
        One is of a kind that is not installed, or its options cannot be used.
    """
    known = {point.name: point for point in entry_points(group="lotse.targets")}
    made: dict[str, Target] = {}
    for name, table in settings.targets.items():
        options = dict(table)
        kind = options.pop("kind", None)
        if kind not in known:
            raise SettingsError(f"outbound.targets.{name}.kind: found {kind!r}; installed: {', '.join(sorted(known))}")
        target: Target = known[str(kind)].load()(f"outbound.targets.{name}", options)
        for segment in options.get("segments", ()):
            if segment not in settings.segments:
                configured = ", ".join(settings.segments) or "none"
                raise SettingsError(
                    f"outbound.targets.{name}.segments: unknown segment {segment!r}; configured: {configured}"
                )
        if opened:
            target.open()
        made[name] = target
    return made


def open_outbound(engine: Engine) -> Outbound | None:
    """What a worker tells others, None if there is nobody to tell.

    Raises
    ------
    SettingsError
        As of `targets`, or a segment asks for a head or a feature that there is not.
    """
    if not engine.settings.outbound.targets:
        return None
    from serving.outbound.outbound import Outbound  # noqa: PLC0415  (its client is loaded where it is needed)

    return Outbound(engine)

"""What trackers send, as our events: one file a tracker, each a `Tracker`, found by entry points (`lotse.trackers`).

A tracker is asked which of its endpoints a path is. The endpoint *reads* the request into wire events, the same as of
`POST /v1/events`, which then go the same way: one intake, one fold. What cannot be used is named by a reason and
counted (`lotse_dropped_events`), without any of its content. Then the endpoint *answers* as its client expects it.

The path chooses the parser, never the content type: those of most clients lie.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from features.settings import SettingsError
from serving.http.call import Reply
from serving.intake import TEXT_LIMIT

if TYPE_CHECKING:
    from features.shop import ShopSettings
    from serving.collect.carts import Carts
    from serving.collect.visitors import Anonymous
    from serving.consent import Consent
    from serving.intake import EventIn
    from serving.requests import Answer, View
    from serving.settings import CollectSettings

# Why the events of a hit of too many are dropped.
TOO_MANY: Final = "too many events"
GIF: Final = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00"
    b"\x01\x00\x00\x02\x02D\x01\x00;"
)


class Hit(NamedTuple):
    """One request of a tracker.

    query: raw, as text; headers: by lower-case name; body: decompressed; received_ms: UTC; address: of the client, to
    be looked at and forgotten.
    """

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]
    body: bytes
    received_ms: int
    address: str

    def header(self, name: bytes) -> str:
        """A header's value, empty if it did not come."""
        return self.headers.get(name, b"").decode("latin-1")


class Collected(msgspec.Struct):
    """What was read of a hit.

    Attributes
    ----------
    events: in their order; dropped: a reason, in words of ours, for each event that cannot be used.
    about: what the endpoint's answer has to know.
    objected: whether the request tells an opt-out, where the consent of its events does not; then it goes on to the
    original collector only if that is configured. Not of a request that is there to tell the original so.
    whos: the tracker's own ids of each event's visitor, where they are wanted (`Tools.identifies`); an empty one where
    there is none that may be told.
    unlinked: raw ids of visitors of whom the request says that their visits may not be linked, though its events, if
    there are any, are not theirs: accounts, whose devices' events they are. What is linked of them is erased.
    """

    events: list[EventIn] = []
    dropped: list[str] = []
    about: Any = None
    objected: bool = False
    whos: list[Mapping[str, str]] = []
    unlinked: set[str] = set()

    def unlink(self, *raws: str) -> None:
        """Note them in `unlinked`, but for empty ones."""
        self.unlinked.update(raw[:TEXT_LIMIT] for raw in raws if raw)


class Refused(Exception):  # noqa: N818  (it is no error of ours)
    """A request that its tracker's own server would refuse, answered as that would; reason: as in `dropped`."""

    def __init__(self, reason: str, reply: Reply) -> None:
        super().__init__(reason)
        self.reason, self.reply = reason, reply


class Endpoint(NamedTuple):
    """What a tracker's client asks.

    read: the events of a hit, or raises Refused; it may wait for what the store knows of the visitor. answer: given the
    hit, what was read of it and the answers to its events, as many as could be used. too_many: what a hit of more
    events than `server.batch_limit` is answered with, given what was read of it; none of them is taken. Of a hit that
    holds one event nothing has to be said.
    """

    methods: tuple[str, ...]
    read: Callable[[Hit], Collected | Awaitable[Collected]]
    answer: Callable[[Hit, Collected, Sequence[Answer]], Reply | Awaitable[Reply]]
    too_many: Callable[[Hit, Collected], Reply] | None = None


class Tools(NamedTuple):
    """What every tracker works with.

    options: its table of `collect.options`; look: the running session of a visitor (raw id), whatever the consent.
    carts: what changed in a cart. end: end a visitor's session (raw id), unless an event (id) has begun it; join: have
    a visitor (raw id) go on with the session of another; both with `linked=`. is_secret: whether a text is a secret key
    of this service. sent_back: told the outcome for each visitor whose scores were sent back to the tracker's own
    server. identifies: whether scores are told to the tracker's own server by its own ids (`serving.outbound`).
    """

    shop: ShopSettings
    options: Mapping[str, Any]
    consent: Consent
    anonymous: Anonymous
    look: Callable[[str], Awaitable[View | None]]
    carts: Carts
    end: Callable[..., Awaitable[None]]
    join: Callable[..., Awaitable[None]]
    is_secret: Callable[[str], bool]
    sent_back: Callable[[str], None] = lambda outcome: None
    identifies: bool = False


class Tracker(Protocol):
    """One tracker's wire format; made with `Tools`."""

    def endpoint(self, path: str) -> Endpoint | None:
        """The endpoint that a path is, None if it is none of this tracker's."""


def trackers(settings: CollectSettings, tools: Callable[[str], Tools]) -> dict[str, Tracker]:
    """The trackers that are switched on, by name.

    Raises
    ------
    SettingsError
        One is not installed.
    """
    known = {point.name: point for point in entry_points(group="lotse.trackers")}
    for name in settings.trackers:
        if name not in known:
            raise SettingsError(f"collect.trackers: unknown tracker {name!r}; installed: {', '.join(sorted(known))}")
    return {name: known[name].load()(tools(name)) for name in settings.trackers}

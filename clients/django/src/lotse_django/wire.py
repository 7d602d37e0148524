"""What goes over the wire: events, and answers of `POST /v1/events`, as the service's docs/api.md has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

Text = Annotated[str, Meta(max_length=512)]
Address = Annotated[str, Meta(max_length=4096)]
Amount = Annotated[float, Meta(ge=0, lt=1e12)]


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an event may tell. Money is in `currency`, without it in the shop's own."""

    page: Address = ""
    referrer: Address | None = None
    item: Text = ""
    category: Text = ""
    campaign: Text = ""
    price: Amount = 0.0
    quantity: Amount = 1.0
    value: Amount = 0.0
    currency: Text = ""
    channel: Text = "unknown"
    device: Text = "unknown"
    interactive: bool | None = None
    declared: Annotated[list[float], Meta(max_length=4)] = []


class Event(Fields, frozen=True, kw_only=True):
    """An event as it is sent; `id`: sent again, it changes nothing.

    There is no `sent_at`: a server's clock is right, and an event that waits is sent with the same bytes each time.
    """

    visitor: Annotated[str, Meta(min_length=1, max_length=512)]
    name: Annotated[str, Meta(min_length=1, max_length=512)]
    id: Text
    time: int
    consent: tuple[str, ...]


class Flag(msgspec.Struct, frozen=True):
    """A flag's value for a session, which arm of an experiment it is, and why."""

    value: Any = None
    variant: str = ""
    reason: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What the service answers to an event; fields that this package does not know are passed over."""

    session: str = ""
    scores: dict[str, float] = {}
    models: dict[str, str] = {}
    flags: dict[str, Flag] = {}
    reason: str = ""


NO_ANSWER: Final = Answer()
encode: Final = msgspec.json.Encoder().encode
decode_answer: Final = msgspec.json.Decoder(Answer).decode


def events_of(common: Mapping[str, Any], details: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The fields of each event that some details are: with `items`, one a product, the value on the first."""
    items = details.get("items") or [{}]
    rest = {name: value for name, value in details.items() if name != "items"}
    for place, item in enumerate(items):
        yield {**common, **rest, **item, **({"value": 0.0} if place else {})}


def checked(fields: Mapping[str, Any]) -> Event:
    """An event from fields that a shop's code gave.

    Raises
    ------
    msgspec.ValidationError
        A field is unknown or has another type; the message names the field and what is expected, and repeats nothing.
    """
    return msgspec.convert(dict(fields), Event)

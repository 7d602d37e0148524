"""JSON in, canonical events out: the native wire format of POST /v1/events.

Raw identities (visitor, session, event id) are hashed here and go no further. An error names the field and what is
expected; it repeats what was found only for fields that identify nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from features.channels import entry_of
from features.events import (
    CHANNELS,
    CONSENT_LINK,
    CONSENTS,
    DEVICES,
    EVENT_NAMES,
    PASSIVE,
    Event,
    hash64,
    page_template,
)
from features.shop import ShopSettings

ANY: Final = sum(CONSENTS.values())
TEXT_LIMIT: Final = 512
PAGE_LIMIT: Final = 8 * TEXT_LIMIT
_MOST: Final = 1e12  # of a price, a quantity, a value
_OFFSET_LIMIT: Final = 18 * 60
_REMEMBERED: Final = 50_000
_PRIVATE: Final = frozenset({"visitor", "session", "id", "page", "referrer"})
# What an error repeats: a small number or a word of lower case. Names, addresses and numbers of cards look otherwise.
_HARMLESS: Final = re.compile(r"'?[a-z][a-z_-]{0,39}'?|-?\d{1,6}(\.\d{1,6})?|True|False|None")
_OURS: Final = frozenset({"an unknown field", "another type", "no JSON object", "a long text"})

Text = Annotated[str, Meta(max_length=TEXT_LIMIT)]
Amount = Annotated[float, Meta(ge=0, lt=_MOST)]


class EventIn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One event on the wire. Only `visitor` and `name` must be there."""

    visitor: Annotated[str, Meta(min_length=1, max_length=TEXT_LIMIT)]
    name: Text
    id: Text = ""
    session: Text = ""
    time: int | str | None = None
    sent_at: int | str | None = None
    page: Annotated[str, Meta(max_length=PAGE_LIMIT)] = ""
    referrer: Annotated[str, Meta(max_length=PAGE_LIMIT)] | None = None
    item: Text = ""
    category: Text = ""
    campaign: Text = ""
    price: Amount = 0.0
    quantity: Amount = 1.0
    value: Amount = 0.0
    currency: Text = ""
    channel: str = "unknown"
    device: str = "unknown"
    interactive: bool | None = None
    consent: list[str] | None = None
    utc_offset: Annotated[int, Meta(ge=-_OFFSET_LIMIT, le=_OFFSET_LIMIT)] | None = None
    declared: Annotated[list[float], Meta(max_length=4)] = []


class HashedItem(EventIn, gc=False):
    """An event of a product that is known by its hash only, because its text was not kept; never on the wire.

    item_hash, category_hash: as of `features.events.hash64`, in place of item and category.
    """

    item_hash: int = 0
    category_hash: int = 0


class FieldError(Exception):
    """One field of one event: what was found and what is expected."""

    def __init__(self, field: str, found: object, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        shown = repr(found)
        ours = isinstance(found, str) and found in _OURS
        told = field not in _PRIVATE and (ours or _HARMLESS.fullmatch(shown))
        self.found = shown if told else "(not repeated)"
        self.expected = expected


_NONE_DECLARED: Final = (0.0,) * 4
# Event's own takes twice as long to call: it has 21 parameters
_new: Final = tuple.__new__

_decode_one = msgspec.json.Decoder(EventIn).decode
_decode_many = msgspec.json.Decoder(list[EventIn]).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Intake:
    """Turns wire events into canonical ones, by the shop's configuration."""

    def __init__(self, shop: ShopSettings, default_consent: tuple[str, ...], max_age_ms: int) -> None:
        codes = {name: code for code, name in enumerate(EVENT_NAMES)}
        self._names = codes | {own: codes[ours] for own, ours in shop.events.items()}
        self._unknown_is_custom = shop.unknown_events == "custom"
        self._shop = shop
        self._consent = sum(CONSENTS[name] for name in default_consent)
        self._max_age_ms = max_age_ms
        self._zone = ZoneInfo(shop.timezone)
        self._channels = {name: code for code, name in enumerate(CHANNELS)}
        self._devices = {name: code for code, name in enumerate(DEVICES)}
        self._offset_hour, self._offset = -1, 0
        # no text is remembered, only its hash: whatever a shop puts into a field, it is gone with the request
        self._pages: dict[int, int] = {}
        self._products: dict[int, int] = {}

    def split(self, body: bytes) -> tuple[Sequence[EventIn | bytes | msgspec.Raw], bool]:
        """The events of a body, and whether they came as an array; those of a bad body as they are, for `event`.

        Raises
        ------
        msgspec.DecodeError
            Not JSON.
        """
        try:
            if body[:1] == b"[" or body.lstrip()[:1] == b"[":
                try:
                    return _decode_many(body), True
                except msgspec.ValidationError:
                    return _decode_raws(body), True
            return [_decode_one(body)], False
        except msgspec.ValidationError:
            return [body], False

    def event(
        self,
        raw: EventIn | bytes | msgspec.Raw,
        received_ms: int,
        pseudonym: Callable[[str, bool], int],
        allowed: int = ANY,
    ) -> Event:
        """One canonical event. `pseudonym` maps (raw visitor id, may visits be linked) to 64 bits.

        allowed: bits of CONSENTS; others are taken away, whatever the event says.

        Raises
        ------
        FieldError
            A field breaks the contract.
        msgspec.DecodeError
            Not JSON.
        """
        if isinstance(raw, EventIn):
            wire = raw
        else:
            try:
                wire = _decode_one(raw)
            except msgspec.ValidationError as error:
                raise _field_error(error, raw) from None
        name = self._names.get(wire.name)
        if name is None:
            if not self._unknown_is_custom:
                known = ", ".join(self._names)
                raise FieldError("name", wire.name, f"one of {known}; or map it in configs/shop.toml [events]")
            name = 0
        consent = (self._consent if wire.consent is None else self._consent_bits(wire.consent)) & allowed
        price, value = wire.price, wire.value
        if wire.currency:
            try:
                rate = self._shop.rate(wire.currency)
            except ValueError:
                known = ", ".join((self._shop.currency, *self._shop.rates))
                raise FieldError("currency", wire.currency, f"one of {known}; or a rate in shop.toml [rates]") from None
            price, value = price * rate, value * rate
        time = received_ms if wire.time is None and wire.sent_at is None else self._time(wire, received_ms)
        offset = wire.utc_offset
        if offset is None:
            offset = self._offset if time // 3_600_000 == self._offset_hour else self._utc_offset(time)
        named, campaign = wire.channel, wire.campaign
        if wire.referrer is not None:
            # what the event does not say itself, as in the logs; both addresses are looked at and forgotten
            entry = entry_of(wire.page, wire.referrer)
            named = entry.channel if named == "unknown" else named
            campaign = campaign or entry.campaign[:TEXT_LIMIT]
        channel, device = self._channels.get(named), self._devices.get(wire.device)
        if channel is None:
            raise FieldError("channel", wire.channel, f"one of {', '.join(self._channels)}")
        if device is None:
            raise FieldError("device", wire.device, f"one of {', '.join(self._devices)}")
        declared, pages, products = wire.declared, self._pages, self._products
        values = (
            pseudonym(wire.visitor, consent & CONSENT_LINK != 0),
            hash64(wire.session) if wire.session else 0,
            hash64(wire.id) if wire.id else 0,
            time,
            name,
            (pages.get(hash(wire.page)) or _remembered(pages, wire.page, page_template(wire.page))) if wire.page else 0,
            (products.get(hash(wire.item)) or _remembered(products, wire.item, wire.item)) if wire.item else 0,
            (products.get(hash(wire.category)) or _remembered(products, wire.category, wire.category))
            if wire.category
            else 0,
            hash64(campaign) if campaign else 0,
            price,
            wire.quantity,
            value,
            channel,
            device,
            int(name not in PASSIVE if wire.interactive is None else wire.interactive),
            consent,
            offset,
        )
        rest = (*declared, *_NONE_DECLARED[len(declared) :]) if declared else _NONE_DECLARED
        return _new(Event, values + rest)

    def _time(self, wire: EventIn, received_ms: int) -> int:
        """The client's time, corrected by how far its clock was off when it sent, within what is believed."""
        late_ms = 0 if wire.sent_at is None else received_ms - _milliseconds("sent_at", wire.sent_at)
        if wire.time is None:
            return received_ms
        time = _milliseconds("time", wire.time) + late_ms
        return min(max(time, received_ms - self._max_age_ms), received_ms)

    def _consent_bits(self, names: list[str]) -> int:
        bits = 0
        for name in names:
            bit = CONSENTS.get(name)
            if bit is None:
                raise FieldError("consent", name, f"names out of {', '.join(CONSENTS)}")
            bits |= bit
        return bits

    def _utc_offset(self, time_ms: int) -> int:
        """The shop's offset at this time; worked out once an hour, because a zone changes on the hour."""
        hour = time_ms // 3_600_000
        if hour != self._offset_hour:
            local = datetime.fromtimestamp(hour * 3600, self._zone).utcoffset()
            self._offset_hour, self._offset = hour, int(local.total_seconds() // 60) if local else 0
        return self._offset


def _remembered(known: dict[int, int], text: str, public: str) -> int:
    """The hash of what a text says publicly. Texts may tell a person, so it is remembered by the text's hash only."""
    if len(known) >= _REMEMBERED:
        known.clear()
    found = known[hash(text)] = hash64(public)
    return found


def check_bounds(wire: EventIn) -> None:
    """Check an event that was made in Python; those that are decoded are checked by the decoder.

    Raises
    ------
    FieldError
        A number is out of its bounds, or none.
    TypeError
        It is no number at all.
    """
    most, offset = _MOST, wire.utc_offset
    if 0 <= wire.price < most and 0 <= wire.quantity < most and 0 <= wire.value < most and offset is None:
        return
    for field in ("price", "quantity", "value"):
        amount = getattr(wire, field)
        if not 0 <= amount < most:
            raise FieldError(field, amount, _BOUNDS[field])
    if offset is not None and not -_OFFSET_LIMIT <= offset <= _OFFSET_LIMIT:
        raise FieldError("utc_offset", offset, _BOUNDS["utc_offset"])


# From 1990 to 2100: outside it is seconds or microseconds taken for milliseconds.
_FIRST_MS: Final = 631_152_000_000
_LAST_MS: Final = 4_102_444_800_000


def _milliseconds(field: str, value: int | str) -> int:
    expected = "milliseconds since 1970, or text like 2026-01-31T12:00:00Z"
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise FieldError(field, value, expected) from None
        value = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if not _FIRST_MS <= value < _LAST_MS:
        raise FieldError(field, value, expected)
    return value


def _field_error(error: msgspec.ValidationError, raw: bytes | msgspec.Raw) -> FieldError:
    """msgspec's own words, without the value: "Expected `str`, got `int` - at `$.name`"."""
    message, _, place = str(error).partition(" - at `$")
    field = place.strip("`.").partition("[")[0] or "event"
    if "unknown field" in message:
        unknown = message.rpartition("`")[0].rpartition("`")[2]
        known = ", ".join(EventIn.__struct_fields__)
        place = unknown if field == "event" and _HARMLESS.fullmatch(unknown) else field
        return FieldError(place, "an unknown field", f"only the fields {known}")
    if "missing required field" in message:
        field = message.rpartition("`")[0].rpartition("`")[2]
        return FieldError(field, "nothing", "a value; visitor and name are required")
    if field in _BOUNDS and ("length" in message or "<" in message or ">" in message):
        found = msgspec.json.decode(raw)[field]
        return FieldError(field, "a long text" if isinstance(found, str) else found, _BOUNDS[field])
    return FieldError(field, "another type", message.removeprefix("Expected ").removeprefix("expected "))


# What is expected where a bound of a field is broken.
_BOUNDS: Final = {
    "visitor": f"an id of 1 to {TEXT_LIMIT} characters",
    **dict.fromkeys(
        ("name", "id", "session", "item", "category", "campaign", "currency"), f"at most {TEXT_LIMIT} characters"
    ),
    "page": f"a path of at most {PAGE_LIMIT} characters",
    "referrer": f"an address of at most {PAGE_LIMIT} characters",
    **dict.fromkeys(("price", "quantity", "value"), "a finite number, 0 or more"),
    "utc_offset": "minutes ahead of UTC between -1080 and 1080",
    "declared": "up to 4 finite numbers",
}

"""JSON in, canonical events out: the native wire format of POST /v1/events.

Raw identities (visitor, session, event id) are hashed here and go no further. An error names the field and what is
expected; it repeats what was found only for fields that identify nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

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

TEXT_LIMIT: Final = 512
_MOST: Final = 1e12  # of a price, a quantity, a value
_PRIVATE: Final = frozenset({"visitor", "session", "id", "page"})


class EventIn(msgspec.Struct, forbid_unknown_fields=True):
    """One event on the wire. Only `visitor` and `name` must be there."""

    visitor: str
    name: str
    id: str = ""
    session: str = ""
    time: int | str | None = None
    sent_at: int | str | None = None
    page: str = ""
    item: str = ""
    category: str = ""
    campaign: str = ""
    price: float = 0.0
    quantity: float = 1.0
    value: float = 0.0
    currency: str = ""
    channel: str = "unknown"
    device: str = "unknown"
    interactive: bool | None = None
    consent: list[str] | None = None
    utc_offset: int | None = None
    declared: list[float] = []


class FieldError(Exception):
    """One field of one event: what was found and what is expected."""

    def __init__(self, field: str, found: object, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field
        shown = repr(found)[:80]
        self.found = "(not repeated)" if field in _PRIVATE else shown
        self.expected = expected


_decode_one = msgspec.json.Decoder(EventIn)
_decode_many = msgspec.json.Decoder(list[msgspec.Raw])


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

    def split(self, body: bytes) -> tuple[list[Any], bool]:
        """The raw events of a body, and whether they came as an array.

        Raises
        ------
        msgspec.DecodeError
            Not JSON.
        """
        if body.lstrip()[:1] == b"[":
            return _decode_many.decode(body), True
        return [body], False

    def event(self, raw: Any, received_ms: int, pseudonym: Callable[[str, bool], int]) -> Event:
        """One canonical event. `pseudonym` maps (raw visitor id, may visits be linked) to 64 bits.

        Raises
        ------
        FieldError
            A field breaks the contract.
        msgspec.DecodeError
            Not JSON.
        """
        try:
            wire = _decode_one.decode(raw)
        except msgspec.ValidationError as error:
            raise _shape_error(error) from None
        self._check(wire)
        name = self._names.get(wire.name)
        if name is None:
            if not self._unknown_is_custom:
                known = ", ".join(self._names)
                raise FieldError("name", wire.name, f"one of {known}; or map it in configs/shop.toml [events]")
            name = 0
        consent = self._consent if wire.consent is None else self._consent_bits(wire.consent)
        rate = 1.0
        if wire.currency:
            try:
                rate = self._shop.rate(wire.currency)
            except ValueError as error:
                raise FieldError("currency", wire.currency, str(error)) from None
        time = self._time(wire, received_ms)
        declared = wire.declared
        interactive = (name not in PASSIVE) if wire.interactive is None else wire.interactive
        offset = self._utc_offset(time) if wire.utc_offset is None else wire.utc_offset
        return Event(
            pseudonym(wire.visitor, bool(consent & CONSENT_LINK)),
            hash64(wire.session),
            hash64(wire.id),
            time,
            name,
            hash64(page_template(wire.page)) if wire.page else 0,
            hash64(wire.item),
            hash64(wire.category),
            hash64(wire.campaign),
            wire.price * rate,
            wire.quantity,
            wire.value * rate,
            self._code(self._channels, "channel", wire.channel),
            self._code(self._devices, "device", wire.device),
            int(interactive),
            consent,
            offset,
            declared[0] if declared else 0.0,
            declared[1] if len(declared) > 1 else 0.0,
            declared[2] if len(declared) > 2 else 0.0,
            declared[3] if len(declared) > 3 else 0.0,
        )

    @staticmethod
    def _check(wire: EventIn) -> None:
        if not wire.visitor or len(wire.visitor) > TEXT_LIMIT:
            raise FieldError("visitor", wire.visitor, f"an id of 1 to {TEXT_LIMIT} characters")
        # one sum instead of six comparisons: nearly every event is short
        texts = len(wire.item) + len(wire.category) + len(wire.campaign)
        if len(wire.id) + len(wire.session) + len(wire.name) + texts > TEXT_LIMIT:
            for field in ("id", "session", "item", "category", "campaign", "name"):
                if len(getattr(wire, field)) > TEXT_LIMIT:
                    raise FieldError(field, "a long text", f"at most {TEXT_LIMIT} characters")
        if len(wire.page) > 8 * TEXT_LIMIT:
            raise FieldError("page", wire.page, f"a path of at most {8 * TEXT_LIMIT} characters")
        if not (0 <= wire.price < _MOST and 0 <= wire.quantity < _MOST and 0 <= wire.value < _MOST):
            for field in ("price", "quantity", "value"):
                if not 0 <= getattr(wire, field) < _MOST:
                    raise FieldError(field, getattr(wire, field), "a finite number, 0 or more")
        if wire.utc_offset is not None and abs(wire.utc_offset) > 18 * 60:
            raise FieldError("utc_offset", wire.utc_offset, "minutes ahead of UTC between -1080 and 1080")
        if wire.declared and (len(wire.declared) > 4 or not all(map(math.isfinite, wire.declared))):
            raise FieldError("declared", wire.declared, "up to 4 finite numbers")

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

    @staticmethod
    def _code(codes: dict[str, int], field: str, name: str) -> int:
        code = codes.get(name)
        if code is None:
            raise FieldError(field, name, f"one of {', '.join(codes)}")
        return code

    def _utc_offset(self, time_ms: int) -> int:
        """The shop's offset at this time; worked out once an hour, because a zone changes on the hour."""
        hour = time_ms // 3_600_000
        if hour != self._offset_hour:
            local = datetime.fromtimestamp(hour * 3600, self._zone).utcoffset()
            self._offset_hour, self._offset = hour, int(local.total_seconds() // 60) if local else 0
        return self._offset


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


def _shape_error(error: msgspec.ValidationError) -> FieldError:
    """msgspec's own words, without the value: "Expected `str`, got `int` - at `$.name`"."""
    message, _, place = str(error).partition(" - at `$")
    field = place.strip("`.") or "event"
    if "unknown field" in message:
        unknown = message.rpartition("`")[0].rpartition("`")[2]
        known = ", ".join(EventIn.__struct_fields__)
        return FieldError(unknown[:80] if field == "event" else field, "an unknown field", f"only the fields {known}")
    if "missing required field" in message:
        field = message.rpartition("`")[0].rpartition("`")[2]
        return FieldError(field, "nothing", "a value; visitor and name are required")
    return FieldError(field, "another type", message.removeprefix("Expected ").removeprefix("expected "))

"""Records as the histories' readers make them, as wire events: what is one event there is the same one here.

In: a dict of our columns, None where nothing is said, numbers perhaps as text. Out: the event, or the column that
holds no possible value, for which a reader would refuse its row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from features.events import CONSENTS, DECLARED_SLOTS, DEVICES
from serving.intake import PAGE_LIMIT, TEXT_LIMIT, EventIn

_MOST: Final = 1e12
_DEVICES: Final = frozenset(DEVICES)
_DECLARED: Final = tuple(f"declared_{slot}" for slot in range(DECLARED_SLOTS))
_NOTHING: Final = [None] * DECLARED_SLOTS


class BadValueError(Exception):
    """A column's value that no event can have; its text is a reason to drop the event."""


def event_of(record: Mapping[str, Any], name: str, consent: list[str]) -> EventIn:
    """The event of a record, under a name of ours.

    Raises
    ------
    BadValueError
        A number is none, is negative, or is not finite; a time is none.
    """
    found = record.get
    device, session, page, time = found("device"), found("session"), found("page"), found("time")
    if time is not None and not isinstance(time, int | str):
        raise BadValueError("bad time")
    event = EventIn(
        visitor=str(found("visitor"))[:TEXT_LIMIT],
        name=name,
        id=found("id") or "",
        session=str(session) if session else "",
        time=time,
        sent_at=found("sent_at"),
        page=str(page)[:PAGE_LIMIT] if page else "",
        channel=found("channel") or "unknown",
        device=device if device in _DEVICES else "unknown",
        consent=consent,
        utc_offset=found("utc_offset"),
    )
    # most events are about no product and no money: what they do not say takes nothing
    if (item := found("item")) is not None:
        event.item = str(item)[:TEXT_LIMIT]
    if (category := found("category")) is not None:
        event.category = str(category)[:TEXT_LIMIT]
    if (campaign := found("campaign")) is not None:
        event.campaign = str(campaign)[:TEXT_LIMIT]
    if (price := found("price")) is not None:
        event.price = amount(price, 0.0, "price")
    if (quantity := found("quantity")) is not None:
        event.quantity = amount(quantity, 1.0, "quantity")
    if (value := found("value")) is not None:
        event.value = amount(value, 0.0, "value")
    if (currency := found("currency")) is not None:
        event.currency = str(currency)[:TEXT_LIMIT]
    if (interactive := found("interactive")) is not None:
        event.interactive = bool(interactive)
    if _DECLARED[0] in record and (declared := [found(slot) for slot in _DECLARED]) != _NOTHING:
        event.declared = [_preference(value) for value in declared]
    return event


def amount(value: Any, default: float, column: str) -> float:
    """A number that an event may hold; the default where there is none.

    Raises
    ------
    BadValueError
        It is no such number.
    """
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadValueError(f"bad {column}") from None
    if not 0 <= number < _MOST:  # nor NaN
        raise BadValueError(f"bad {column}")
    return number


def names_of(bits: int) -> list[str]:
    """The consents of a bit set."""
    return [name for name, bit in CONSENTS.items() if bits & bit]


def _preference(value: Any) -> float:
    """A declared preference, which may be negative."""
    try:
        number = float(value or 0)
    except (TypeError, ValueError, OverflowError):
        raise BadValueError("bad declared") from None
    if not math.isfinite(number):
        raise BadValueError("bad declared")
    return number

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
    device, interactive = found("device") or "unknown", found("interactive")
    declared, time = [found(slot) for slot in _DECLARED], found("time")
    if not isinstance(time, int | str | None):
        raise BadValueError("bad time")
    return EventIn(
        visitor=str(found("visitor"))[:TEXT_LIMIT],
        name=name,
        id=found("id") or "",
        session=str(found("session") or ""),
        time=time,
        sent_at=found("sent_at"),
        page=str(found("page") or "")[:PAGE_LIMIT],
        item=_text(found("item")),
        category=_text(found("category")),
        campaign=_text(found("campaign")),
        price=amount(found("price"), 0.0, "price"),
        quantity=amount(found("quantity"), 1.0, "quantity"),
        value=amount(found("value"), 0.0, "value"),
        currency=_text(found("currency")),
        channel=found("channel") or "unknown",
        device=device if device in _DEVICES else "unknown",
        interactive=None if interactive is None else bool(interactive),
        consent=consent,
        utc_offset=found("utc_offset"),
        declared=[] if declared == _NOTHING else [_preference(value) for value in declared],
    )


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


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:TEXT_LIMIT]

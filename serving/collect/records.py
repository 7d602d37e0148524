"""From records of `features.trackers`, which speak of events in our columns and their own names, to events on the wire.

What clients send may be anything: text is cut, a number that is none is taken for missing. Only what is our contract's
to judge (an unknown currency) is left to the intake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote_plus

from pydantic import ValidationError

from features.channels import Entry, entry_of
from features.events import CONSENTS, EVENT_NAMES, hash64
from features.settings import Settings, SettingsError
from serving.intake import TEXT_LIMIT, EventIn

if TYPE_CHECKING:
    from features.shop import ShopSettings

Options = TypeVar("Options", bound=Settings)

PAGE_LIMIT: Final = 2_000
_MOST: Final = 1e12
_REMEMBERED: Final = 50_000
_OURS: Final = frozenset(EVENT_NAMES)


class UnusableError(Exception):
    """One event that cannot be used; its text is the reason, in words of ours."""


class Entries:
    """Channel and campaign of addresses and their referrers, which every event of a page repeats.

    Addresses may tell a person, so they are remembered by their hash only. 6 us the first time, then 0.5 us.
    """

    def __init__(self) -> None:
        self._found: dict[int, Entry] = {}

    def __call__(self, url: str, referrer: str) -> Entry:
        """As `features.channels.entry_of`."""
        key = hash64(f"{url} {referrer}")
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[key] = entry_of(url, referrer)
        return found


def own_names(shop: ShopSettings, source: str, names: Mapping[str, str]) -> dict[str, str]:
    """The tool's names -> ours, of the same rank as for its history: the shop's `[sources.<source>.events]` first."""
    section = shop.sources.get(source)
    return {**shop.events, **names, **(section.events if section else {})}


def source_options(shop: ShopSettings, source: str, model: type[Options]) -> Options:
    """`[sources.<source>.options]`, which hold for the history and for live events.

    Raises
    ------
    SettingsError
        An unknown option, or a value of the wrong type.
    """
    section = shop.sources.get(source)
    return options(model, section.options if section else {}, f"sources.{source}.options")


def options(model: type[Options], given: Mapping[str, Any], where: str) -> Options:
    """A table of options as its own settings; where: its name, for messages.

    Raises
    ------
    SettingsError
        An unknown option, or a value of the wrong type.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        known = ", ".join(model.model_fields) or "none"
        raise SettingsError(f"{where}.{key}: {problem['msg']}; known options: {known}") from None


def event_of(record: Mapping[str, Any], names: Mapping[str, str], visitor: str, consent: list[str]) -> EventIn:
    """The event of a record; a name that nothing is known of is a custom event's."""
    get = record.get
    theirs = text(get("name"))
    name = names.get(theirs, theirs)
    return EventIn(
        visitor=visitor[:TEXT_LIMIT],
        name=name if name in _OURS else "custom",
        id=text(get("id")),
        session=text(get("session")),
        time=get("time"),
        page=text(get("page"), PAGE_LIMIT),
        item=text(get("item")),
        category=text(get("category")),
        campaign=text(get("campaign")),
        price=number(get("price"), 0.0),
        quantity=number(get("quantity"), 1.0),
        value=number(get("value"), 0.0),
        currency=text(get("currency")),
        channel=get("channel") or "unknown",
        device=get("device") or "unknown",
        interactive=None if get("interactive") is None else bool(get("interactive")),
        consent=consent,
        utc_offset=get("utc_offset"),
    )


def text(value: Any, longest: int = TEXT_LIMIT) -> str:
    """A text, or a number as text; of anything else nothing."""
    if type(value) is str:
        return value if len(value) <= longest else value[:longest]
    return str(value)[:longest] if isinstance(value, int | float) and not isinstance(value, bool) else ""


def number(value: Any, default: float) -> float:
    """A number that a price, a quantity or a value may be; of anything else the default."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return found if 0 <= found < _MOST and math.isfinite(found) else default


def names_of(bits: int) -> list[str]:
    """A bit set of CONSENTS as its names."""
    return [name for name, bit in CONSENTS.items() if bits & bit]


def fields(form: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Of a query or url-encoded form the wanted fields under our names for them; the first of those with one name.

    Only what is wanted is decoded: trackers send some thirty fields, and decoding them all takes 30 us.

    >>> fields("dl=https%3A%2F%2Fa%2F&sr=1x1&dt=A+b", {"dl": "url", "dt": "title"})
    {'url': 'https://a/', 'title': 'A b'}
    """
    found: dict[str, str] = {}
    for pair in form.split("&"):
        key, _, value = pair.partition("=")
        name = wanted.get(key)
        if name is not None and value and name not in found:
            if "%" in value or "+" in value:
                value = unquote_plus(value)
            found[name] = value
    return found

"""A tool's names and options as its history is read by them, so that the same holds live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from features.events import EVENT_NAMES
from features.settings import Settings, options_of
from serving.intake import TEXT_LIMIT

if TYPE_CHECKING:
    from features.shop import ShopSettings

Options = TypeVar("Options", bound=Settings)

_OURS: Final = frozenset(EVENT_NAMES)


class UnusableError(Exception):
    """One event that cannot be used; its text is the reason, in words of ours."""


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
    return options_of(f"sources.{source}.options", section.options if section else {}, model)


def name_of(own: Mapping[str, str], theirs: Any) -> str:
    """Our name of an event; one that nothing is known of is a custom event's."""
    name = own.get(theirs, theirs) if type(theirs) is str else ""
    return name if name in _OURS else "custom"


def text(value: Any, longest: int = TEXT_LIMIT) -> str:
    """A text, or a number as text; of anything else nothing."""
    if type(value) is str:
        return value if len(value) <= longest else value[:longest]
    return str(value)[:longest] if isinstance(value, int | float) and not isinstance(value, bool) else ""

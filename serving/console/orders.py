"""What a worker and the process that looks for its consoles say to each other, a line each.

The worker first says `Orders`, then `Wanted` whenever it is another one. The process answers with lines such as
`totals {...}` or `rows:recent {...}`: what it is, of which list, and JSON that goes to the consoles as it is.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from serving.settings import ServingSettings

# Lists of sessions beside those by score: which events came last, which visitors are silent for longest.
RECENT: Final = "recent"
IDLE: Final = "idle"
_SECTIONS: Final = {"session", "store", "log", "models", "prior", "experiments", "console"}


class Orders(msgspec.Struct):
    """What to look at. settings: the sections that are needed; counted: where the workers tell what they count."""

    settings: dict[str, Any]
    counted: str = ""

    def parsed(self) -> ServingSettings:
        """The settings; others are the defaults, and not looked at."""
        return ServingSettings.model_validate(self.settings)


class Wanted(msgspec.Struct):
    """Which lists somebody looks at; anew: of which all rows are to be told, because somebody has none yet."""

    lists: list[str] = []
    anew: list[str] = []


def orders_of(settings: ServingSettings, counted: str) -> Orders:
    """What a process is told of a service's settings; secrets are in none of these sections."""
    return Orders(settings.model_dump(mode="json", include=_SECTIONS), counted)


def lists_of(settings: ServingSettings) -> tuple[str, ...]:
    """The lists that can be asked for: recent and idle ones, and of each head those with the highest score."""
    return (RECENT, IDLE, *settings.models.heads)

"""Flags and arms of sessions that run, as rows of the console show them.

In: a look. Out: by key the values that a request of the session would be answered with now, in a few characters.
Nothing is assigned by looking; what a rule asks of callers is not known here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from features.events import hash64
from features.settings import SettingsError
from serving.console.listing import Arms
from serving.console.looking import Look, Looker
from serving.experiments.live import Experiments
from serving.settings import ServingSettings

# OFREP's reason of a flag that no rule has changed.
_DEFAULT: Final = "STATIC"
_MOST_TEXT: Final = 40


class ShownFlags:
    """Follows the configuration. There are none where it cannot be used, of which the worker tells.

    Attributes
    ----------
    arms: by experiment, as `serving.console.listing` takes them.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self.arms: Arms = {}
        self._settings = settings
        self._live: Experiments | None = None
        self._of: object = None

    async def follow(self, looker: Looker) -> None:
        """As the file is now."""
        try:
            if self._live is None:
                own, heads = self._settings.experiments, self._settings.models.heads
                self._live = Experiments(own, heads, looker.lineup.fold)
            await self._live.follow()
        except SettingsError:
            return
        configuration = self._live.configuration
        if configuration is not self._of:
            self._of = configuration
            self.arms = {hash64(key): (key, one.arms) for key, one in configuration.definitions.items()}

    def flags(self, look: Look, place: int) -> dict[str, str]:
        """What a request of the session would be answered now, without the defaults; nothing is assigned by it."""
        if self._live is None:
            return {}
        evaluator = self._live.evaluator(look.folds[place])
        found, _ = evaluator.evaluate(look.subject(place), self._live.keys(()), look.at_ms)
        return {key: _said(flag.value) for key, flag in found.items() if flag.reason != _DEFAULT}


def _said(value: Any) -> str:
    """A flag's value in a few characters."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"

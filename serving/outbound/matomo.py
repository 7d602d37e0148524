"""Matomo: custom dimensions of the visit that runs, by its bulk tracking API.

A ping sets dimensions of the scope *visit*, and neither begins a visit nor counts as an action. The visitor is named by
Matomo's own id (`cid`), that of the account where one is logged in, as Matomo makes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from pydantic import Field

from features.settings import SettingsError, options_of
from serving.outbound import ASSIGNED, ENTERED, Message, Parcel
from serving.outbound.configuration import TargetOptions, address, place_of

_ID: Final = re.compile(r"[0-9a-f]{16}")


class MatomoTargetOptions(TargetOptions):
    """Options of Matomo. url: of matomo.php; site: its id. dimensions, experiments, scores: numbers of dimensions by
    segment, by experiment and by head; they hold yes or no, the arm, the score.
    """

    url: str
    site: int = Field(ge=1)
    dimensions: dict[str, int] = Field(default_factory=dict)
    experiments: dict[str, int] = Field(default_factory=dict)
    scores: dict[str, int] = Field(default_factory=dict)


class MatomoTarget:
    """One site of a Matomo."""

    tracker = "matomo"
    together = 100
    told = "Matomo's own id of the visitor, segment, scores; arm"

    def __init__(self, section: str, options: Mapping[str, Any]) -> None:
        found = self._options = options_of(section, options, MatomoTargetOptions)
        numbers = [*found.dimensions.values(), *found.experiments.values(), *found.scores.values()]
        if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
            raise SettingsError(
                f"{section}: found the dimensions {numbers}; give dimensions, experiments or scores, each with a "
                "number of its own, 1 or more, as Matomo's administration shows it"
            )
        self._url = address(f"{section}.url", self._options.url)
        self.where = place_of(self._url)

    def open(self) -> None:
        """There is no secret: it sends what anybody may send."""

    def wants(self, message: Message) -> bool:
        """Whether its type and segment are configured, there is a dimension for it, and an id of Matomo's."""
        return (
            self._options.wants(message.type, message.data.get("segment"))
            and bool(message.who and _ID.fullmatch(message.who["id"]))
            and bool(self._dimensions(message))
        )

    def parcel(self, messages: Sequence[Message], now_ms: int) -> Parcel:
        """A bulk request; its times are those of its arrival, since older ones need an administrator's token."""
        del now_ms
        requests = []
        for message in messages:
            assert message.who is not None
            # who sends it is a program, which does not make the visitor one
            query = {"idsite": self._options.site, "rec": 1, "ping": 1, "bots": 1, "cid": message.who["id"]}
            requests.append(f"?{urlencode(query | self._dimensions(message))}")
        body = msgspec.json.encode({"requests": requests})
        return Parcel(self._url, {"content-type": "application/json"}, body)

    def _dimensions(self, message: Message) -> dict[str, Any]:
        options, data = self._options, message.data
        if message.type == ASSIGNED:
            found: dict[int | None, Any] = {options.experiments.get(data["experiment"]): data["arm"]}
        else:
            inside = "yes" if message.type == ENTERED else "no"
            found = {options.dimensions.get(data["segment"]): inside}
            found |= {options.scores.get(head): score for head, score in data["scores"].items()}
        return {f"dimension{number}": value for number, value in found.items() if number is not None}

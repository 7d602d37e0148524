"""Google Analytics 4: an event a message, by the Measurement Protocol, in the visitor's own session.

Names and parameters keep to its limits. The visitor is named by Google's own `client_id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from pydantic import Field

from features.settings import options_of
from serving.outbound import ASSIGNED, ENTERED, LEFT, Message, Parcel
from serving.outbound.configuration import TargetOptions, address, place_of, secret

_EVENTS: Final = {
    ENTERED: "lotse_segment_entered",
    LEFT: "lotse_segment_left",
    ASSIGNED: "lotse_experiment_assigned",
}
# An event that took no time is in none of Google's reports of a session.
_ENGAGED_MS: Final = 1
_LONGEST: Final = 100


class Ga4TargetOptions(TargetOptions):
    """Options of Google Analytics. api_secret: where that of the data stream lies; endpoint: takes measurements."""

    measurement_id: str = Field(min_length=1)
    api_secret: str
    endpoint: str = "https://www.google-analytics.com/mp/collect"


class Ga4Target:
    """One data stream."""

    tracker = "ga4"
    # a request is about one visitor
    together = 1
    told = "Google's own id of the visitor and of the session, segment, scores; experiment and arm"

    def __init__(self, section: str, options: Mapping[str, Any]) -> None:
        self._options = options_of(section, options, Ga4TargetOptions)
        self._url = address(f"{section}.endpoint", self._options.endpoint)
        self.where, self._secret_at = place_of(self._url), f"{section}.api_secret"

    def open(self) -> None:
        """Read the API secret."""
        key, endpoint = secret(self._secret_at, self._options.api_secret), self._options.endpoint
        query = urlencode({"measurement_id": self._options.measurement_id, "api_secret": key})
        self._url = f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    def wants(self, message: Message) -> bool:
        """Whether its type and segment are configured, and there is an id."""
        return bool(message.who) and self._options.wants(message.type, message.data.get("segment"))

    def parcel(self, messages: Sequence[Message], now_ms: int) -> Parcel:
        """A measurement."""
        del now_ms
        (message,) = messages
        assert message.who is not None
        data = message.data
        parameters: dict[str, Any] = {"engagement_time_msec": _ENGAGED_MS}
        if message.who["session_id"]:
            parameters["session_id"] = message.who["session_id"]
        if message.type == ASSIGNED:
            parameters |= {"experiment": data["experiment"][:_LONGEST], "arm": data["arm"][:_LONGEST]}
        else:
            parameters |= {"segment": data["segment"]}
            parameters |= {f"score_{head}": score for head, score in data["scores"].items()}
        body = {
            "client_id": message.who["client_id"],
            "timestamp_micros": message.at_ms * 1000,
            "events": [{"name": _EVENTS[message.type], "params": parameters}],
        }
        return Parcel(self._url, {"content-type": "application/json"}, msgspec.json.encode(body))

"""Segment: `identify` with traits and `track`, through its HTTP API or anything that takes the same batches.

A visitor is who Segment's own clients said it was, by `anonymousId`, or by `userId` where a call had no other.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from features.settings import options_of
from serving.outbound import ASSIGNED, ENTERED, LEFT, Message, Parcel
from serving.outbound.configuration import TargetOptions, address, place_of, secret

# Names of Segment's own specification where it has one (A/B testing).
_EVENTS: Final = {ENTERED: "Segment Entered", LEFT: "Segment Left", ASSIGNED: "Experiment Viewed"}


class SegmentTargetOptions(TargetOptions):
    """Options of Segment. write_key: where that of a source lies; endpoint: takes batches; calls: which are made."""

    write_key: str
    endpoint: str = "https://api.segment.io/v1/batch"
    calls: tuple[Literal["identify", "track"], ...] = ("identify", "track")


class SegmentTarget:
    """One source of Segment's."""

    tracker = "segment"
    # Segment takes 500 kB at once; two calls of a message have about 1 kB
    together = 100
    told = "Segment's own id of the visitor, segment, scores and versions of models; experiment and arm"

    def __init__(self, section: str, options: Mapping[str, Any]) -> None:
        self._options = options_of(section, options, SegmentTargetOptions)
        self._url = address(f"{section}.endpoint", self._options.endpoint)
        self.where = place_of(self._url)
        self._secret_at, self._headers = f"{section}.write_key", {"content-type": "application/json"}

    def open(self) -> None:
        """Read the write key."""
        key = secret(self._secret_at, self._options.write_key)
        self._headers["authorization"] = f"Basic {b64encode(f'{key}:'.encode()).decode()}"

    def wants(self, message: Message) -> bool:
        """Whether its type and segment are configured, and there is an id."""
        return bool(message.who) and self._options.wants(message.type, message.data.get("segment"))

    def parcel(self, messages: Sequence[Message], now_ms: int) -> Parcel:
        """A batch."""
        batch = [call for message in messages for call in self._calls(message)]
        return Parcel(self._url, self._headers, msgspec.json.encode({"batch": batch, "sentAt": _text(now_ms)}))

    def _calls(self, message: Message) -> Iterator[dict[str, Any]]:
        data = message.data
        if "identify" in self._options.calls:
            if message.type == ASSIGNED:
                traits = {f"lotse_experiment_{data['experiment']}": data["arm"]}
            else:
                traits = {f"lotse_segment_{data['segment']}": message.type == ENTERED}
                traits |= {f"lotse_{head}": score for head, score in data["scores"].items()}
            yield self._call(message, "identify", traits=traits)
        if "track" in self._options.calls:
            properties = dict(data)
            if message.type == ASSIGNED:
                properties = {"experiment_id": data["experiment"], "experiment_name": data["experiment"],
                              "variation_id": data["arm"], "variation_name": data["arm"]}  # fmt: skip
            yield self._call(message, "track", event=_EVENTS[message.type], properties=properties)

    @staticmethod
    def _call(message: Message, kind: str, **more: Any) -> dict[str, Any]:
        return {
            "type": kind, "messageId": f"{message.id}-{kind}", "timestamp": _text(message.at_ms),
            **(message.who or {}), "context": {"library": {"name": "lotse"}}, **more,
        }  # fmt: skip


def _text(moment_ms: int) -> str:
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

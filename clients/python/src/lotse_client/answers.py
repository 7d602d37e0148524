"""What the service answers about sessions, models, flags and visitors."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Status = Literal["started", "folded", "duplicate", "late", "read"]


class Flag(msgspec.Struct, frozen=True):
    """The value of a feature for a session; variant: the arm of an experiment; reason: as OFREP has them."""

    value: Any
    variant: str = ""
    reason: str = "STATIC"


class Contribution(msgspec.Struct, frozen=True):
    """What a feature added to a margin; value: of the feature, None where it is missing."""

    feature: str
    value: float | None
    contribution: float


class Explanation(msgspec.Struct, frozen=True):
    """baseline + contributions + others = margin, in log-odds (of an amount: its logarithm), before calibration."""

    baseline: float
    contributions: list[Contribution]
    others: float
    margin: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A session after an event, or as it is now.

    session: its token, the right to see it. scores, models, reasons, explanations: by head. decided: heads whose answer
    was known already. reason: why the scores know less than they should. flags: by key, if they were asked for.
    """

    session: str = ""
    status: Status
    events: int
    scores: dict[str, float] = {}
    models: dict[str, str] = {}
    decided: list[str] = []
    reasons: dict[str, str] = {}
    reason: str = ""
    flags: dict[str, Flag] = {}
    explanations: dict[str, Explanation] = {}


class RowScores(msgspec.Struct, frozen=True):
    """Scores of feature vectors, in their order; a head that cannot be asked about a row is left out."""

    scores: list[dict[str, float]]
    models: dict[str, str]
    reasons: dict[str, str]


class Description(msgspec.Struct, frozen=True):
    """What the service scores with."""

    heads: dict[str, dict[str, Any]]
    reasons: dict[str, str]
    feature_digest: str
    features: list[str]
    record_bytes: int


class Models(msgspec.Struct, frozen=True):
    """How the models are, by head; docs/api.md says what is told of each. registry: whether there is one."""

    at_ms: int
    registry: bool
    least_visitors: int
    sessions_per_day: dict[str, Any] | None
    heads: dict[str, dict[str, Any]]


class Evaluated(msgspec.Struct, frozen=True):
    """A flag over OFREP; value: None where the caller's default holds; metadata: of `flag`, what configuration runs."""

    key: str
    reason: Literal["STATIC", "TARGETING_MATCH", "SPLIT", "UNKNOWN"]
    variant: str
    value: Any = None
    metadata: dict[str, str | float | bool] = {}


class Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    """An address on the origin that was asked."""

    request_uri: str


class EventStream(msgspec.Struct, frozen=True, rename="camel"):
    """Where a page hears that its flags may be others."""

    type: Literal["sse"]
    endpoint: Endpoint
    inactivity_delay_sec: int = 0


class Flags(msgspec.Struct, frozen=True, rename="camel"):
    """All flags of a session over OFREP; etag: for `if_none_match`. A secret key gets no event streams."""

    flags: list[Evaluated]
    metadata: dict[str, str | float | bool] = {}
    event_streams: list[EventStream] = []
    etag: str = ""


class SdkFeature(msgspec.Struct, frozen=True, rename="camel"):
    """A feature as GrowthBook's SDKs have it."""

    default_value: Any
    rules: list[dict[str, Any]]


class SdkFeatures(msgspec.Struct, frozen=True, rename="camel"):
    """Features for SDKs of GrowthBook that evaluate by themselves; etag: for `if_none_match`."""

    status: Literal[200]
    features: dict[str, SdkFeature]
    saved_groups: dict[str, Any]
    date_updated: str
    etag: str = ""


class SdkValue(msgspec.Struct, frozen=True, rename="camel"):
    """The value of a feature as GrowthBook's remote evaluation has it."""

    default_value: Any


class SdkValues(msgspec.Struct, frozen=True):
    """The same for SDKs that have the service evaluate."""

    status: Literal[200]
    features: dict[str, SdkValue]


class Held(msgspec.Struct, frozen=True):
    """All that is held of a visitor; meanings: of the fields' names."""

    records: list[dict[str, Any]]
    waiting: list[dict[str, Any]]
    handed_on: list[dict[str, Any]]
    buffered: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    undelivered: list[dict[str, Any]]
    meanings: dict[str, str]


class Erased(msgspec.Struct, frozen=True):
    """How much of each was erased."""

    records: int
    waiting: int
    handed_on: int
    buffered: int
    undelivered: int


class Decisions(msgspec.Struct, frozen=True):
    """Whether automated decisions may be made about a visitor."""

    automated: bool


class Asked(msgspec.Struct, frozen=True):
    """The registry is asked."""

    status: Literal["asked"]

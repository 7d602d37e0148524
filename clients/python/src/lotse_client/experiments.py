"""What the service answers about the configuration of flags and experiments, and what is learned."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import msgspec


class Configuration(TypedDict, total=False):
    """configs/experiments.json; docs/flags.md and docs/experiments.md say what is in it."""

    attributes: list[str]
    features: dict[str, Any]
    experiments: dict[str, Any]
    savedGroups: dict[str, Any]
    contextualBandits: dict[str, Any]


class Difference(msgspec.Struct, frozen=True):
    """What is another in a section of the configuration, by key."""

    added: list[str]
    changed: list[str]
    removed: list[str]


class Pushed(msgspec.Struct, frozen=True):
    """A push; version: the one that runs now, or that would."""

    version: str
    changes: dict[str, Difference]
    dry_run: bool


class ConfigurationVersion(msgspec.Struct, frozen=True):
    """A version that was pushed; at: ms since 1970; by: the id of the API key."""

    version: str
    at: int
    how: Literal["put", "patch", "rollback", "file"]
    by: str = ""
    configuration: Configuration = {}
    etag: str = ""


class Versions(msgspec.Struct, frozen=True):
    """What was pushed, the newest first; version: the one that runs."""

    version: str
    versions: list[ConfigurationVersion]


class Running(msgspec.Struct, frozen=True):
    """The configuration that runs; error: why the file as it is now does not."""

    version: str
    written_at: int
    error: str
    configuration: Configuration
    etag: str = ""


class Stopped(msgspec.Struct, frozen=True):
    """An arm whose guardrail was surely broken, and what was known then."""

    arm: str
    goal: str
    at_ms: int
    worst: float
    lift: float
    high: float


class Guardrail(msgspec.Struct, frozen=True):
    """A guardrail as of now: the lift in the wanted direction, with bounds that hold at every look."""

    arm: str
    goal: str
    worst: float
    state: Literal["ok", "watch", "broken"]
    lift: float | None
    low: float | None
    high: float | None


class SampleRatio(msgspec.Struct, frozen=True):
    """Whether the arms have the shares that they should."""

    p: float | None
    alarm: bool


class Table(msgspec.Struct, frozen=True):
    """Probabilities of the arms by bin of the score; the last of units without one."""

    from_ms: int
    edges: list[float]
    bins: list[list[float]]


class Result(msgspec.Struct, frozen=True):
    """A goal and an arm beside the control, with an interval that holds at every look.

    verdict: "invalid" where the sample ratio is wrong; "few" below 50 units, and then nothing else is told.
    """

    goal: str
    arm: str
    verdict: Literal["better", "worse", "open", "invalid", "few"]
    units: int | None
    control_units: int | None
    mean: float | None
    control_mean: float | None
    lift: float | None
    low: float | None
    high: float | None
    p: float | None
    adjusted_p: float | None


class Point(msgspec.Struct, frozen=True):
    """By bin of the score the probabilities of the arms outside the holdback, from a moment on."""

    from_ms: int
    bins: list[list[float]]


class ClosedArm(msgspec.Struct, frozen=True):
    """An arm that is given no longer; goal: of the guardrail."""

    arm: str
    at_ms: int
    why: Literal["killed", "guardrail"]
    goal: str


class History(msgspec.Struct, frozen=True):
    """How the allocation of the phase went."""

    began_ms: int
    until_ms: int
    edges: list[float]
    points: list[Point]
    closed: list[ClosedArm]


class ExperimentState(msgspec.Struct, frozen=True):
    """An experiment; units: by arm, None below 50; counted_ms: as of when; history: if it was asked for."""

    status: Literal["draft", "running", "stopped"]
    phase: int
    allocation: str
    arms: list[str]
    killed: list[str]
    definition: dict[str, Any]
    counted_ms: int = 0
    units: dict[str, int | None] = {}
    stopped: list[Stopped] = []
    guardrails: list[Guardrail] = []
    sample_ratio: SampleRatio | None = None
    results: list[Result] = []
    table: Table | None = None
    history: History | None = None


class ExperimentsState(msgspec.Struct, frozen=True):
    """What runs and what was learned; counted_ms: when, 0 for never."""

    configuration: str
    error: str
    counted_ms: int
    experiments: dict[str, ExperimentState]

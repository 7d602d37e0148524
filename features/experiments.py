"""Experiments as they are defined, and the table that their analysis reads: a row for each unit and experiment.

In: the "experiments" of `configs/experiments.json`, beside GrowthBook's own "features". Out: frozen definitions. The
service assigns by them, the analysis judges by them. An outcome or a score that is not known is NaN in the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from features.settings import Settings, SettingsError

# Columns of the table of units, but one a goal; with the type and what each means.
UNIT_COLUMNS: Final[dict[str, tuple[str, str]]] = {
    "experiment": ("str", "its key"),
    "phase": ("int64", "1, 2, ...: a new one begins whenever allocation or targeting changes"),
    "arm": ("str", "the variant that was assigned; the first of the definition is the control"),
    "propensity": ("float64", "probability with which this arm was assigned, at the trigger"),
    "holdback": ("bool", "the unit is in the holdback, which is always assigned by fixed shares"),
    "forced": ("bool", "a person tested a variant: left out of every statistic"),
    "closed": ("int64", "how many arms were given no longer at the trigger; units before and after are compared apart"),
    "unit": ("int64", "pseudonym of the session or visitor that was assigned"),
    "visitor": ("int64", "its visitor's pseudonym: errors are clustered by it"),
    "exposed_at": ("int64", "the trigger, ms UTC"),
    "age_events": ("int64", "events of the session at the trigger"),
    "age_seconds": ("float64", "age of the session at the trigger"),
    "bounce": ("float64", "score at the trigger"),
    "conversion": ("float64", "score at the trigger"),
    "exit": ("float64", "score at the trigger"),
}
# Scores at the trigger: covariates, and what units are grouped by.
SCORES: Final = ("bounce", "conversion", "exit")
# Of so many the service notes with an exposure what there was of them before.
MOST_GOALS: Final = 4
# Flags of an assignment: it holds for the visitor's later sessions, too; the fixed shares decided; a person did.
VISITOR: Final = 1
HOLDBACK: Final = 2
FORCED: Final = 4
# And above these, how many arms were closed then (killed, or stopped by a guardrail): units are compared apart by it,
# because before and after other arms had other probabilities.
CLOSED_SHIFT: Final = 3
MOST_CLOSED: Final = 31
# Of an adaptive allocation, unless the definition says another one: what is never given cannot be measured.
ADAPTIVE_MINIMUM_SHARE: Final = 0.01
# No group of fewer units is told of.
LEAST_UNITS: Final = 50


class Goal(Settings):
    """What a unit may do after its exposure.

    column: of the table; the goal's name by default. better: whether more or less of it is wanted.
    primary: the experiment is decided by it.
    """

    name: str = Field(min_length=1)
    kind: Literal["binary", "numeric", "revenue"] = "binary"
    column: str = ""
    better: Literal["higher", "lower"] = "higher"
    primary: bool = False

    @model_validator(mode="before")
    @classmethod
    def _column_is_the_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("column"):
            values = {**values, "column": values.get("name", "")}
        return values

    @field_validator("column")
    @classmethod
    def _own_column(cls, column: str) -> str:
        if column in UNIT_COLUMNS:
            raise ValueError(f"the column {column!r} says something else; name one of the outcomes")
        return column

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.better == "higher" else -1


class Guardrail(Settings):
    """A goal that must not suffer: by more than `worst`, a relative change in the direction that is not wanted."""

    goal: str
    worst: float = Field(-0.05, gt=-1, lt=0)


class Allocation(BaseModel):
    """How units are allocated to arms; other keys belong to the allocation of that name."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = "fixed"

    @property
    def adaptive(self) -> bool:
        """Whether shares follow what was seen."""
        return self.name != "fixed"


class Experiment(Settings):
    """One experiment.

    shares: of the arms, in their order; equal by default. holdback: share of all units that is always assigned by them.
    minimum_share: no arm gets less, however it is allocated; 0, or 0.01 where the allocation is adaptive, by default.
    killed: arms that are shown no longer: their units get what the control gets, and all others keep what they have.
    winner: the arm that everybody gets once the experiment is stopped; nobody does if it is empty.
    phase: counted up with every change of targeting or allocation; phases are judged apart.
    planned_units: of two arms together, at which always-valid intervals shall be narrowest; see `lotse experiment
    plan`.
    alpha: errors allowed of the whole experiment, at any time.

    >>> Experiment(arms=["control", "banner"], goals=[{"name": "purchase", "primary": True}]).shares
    (0.5, 0.5)
    """

    name: str = ""
    hypothesis: str = ""
    unit: Literal["session", "visitor"] = "session"
    arms: tuple[str, ...] = Field(min_length=2)
    shares: tuple[float, ...] = ()
    holdback: float = Field(0.0, ge=0, le=1)
    minimum_share: float = Field(0.0, ge=0, lt=1)
    goals: tuple[Goal, ...] = Field(min_length=1)
    guardrails: tuple[Guardrail, ...] = ()
    allocation: Allocation = Allocation()
    status: Literal["draft", "running", "stopped"] = "running"
    killed: tuple[str, ...] = ()
    winner: str = ""
    phase: int = Field(1, ge=1, le=2**15)
    planned_units: int = Field(10_000, ge=2 * LEAST_UNITS)
    alpha: float = Field(0.05, gt=0, le=0.2)

    @model_validator(mode="before")
    @classmethod
    def _equal_shares(cls, values: Any) -> Any:
        arms = values.get("arms") if isinstance(values, dict) else None
        if arms and isinstance(arms, (list, tuple)) and not values.get("shares"):
            values = {**values, "shares": [1 / len(arms)] * len(arms)}
        return values

    @model_validator(mode="before")
    @classmethod
    def _every_arm_is_given(cls, values: Any) -> Any:
        if isinstance(values, dict) and "minimum_share" not in values:
            named, shares = values.get("allocation"), values.get("shares")
            adaptive = isinstance(named, dict) and named.get("name", "fixed") != "fixed"
            least = min((one for one in shares or () if isinstance(one, (int, float))), default=1.0)
            values = {**values, "minimum_share": min(ADAPTIVE_MINIMUM_SHARE, max(least, 0.0)) if adaptive else 0.0}
        return values

    @field_validator("arms")
    @classmethod
    def _different_arms(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(arms)) < len(arms) or "" in arms:
            raise ValueError("arms need names that differ")
        return arms

    @field_validator("goals")
    @classmethod
    def _different_goals(cls, goals: tuple[Goal, ...]) -> tuple[Goal, ...]:
        names = [goal.name for goal in goals]
        if len(set(names)) < len(names):
            raise ValueError("goals need names that differ")
        if not any(goal.primary for goal in goals):
            raise ValueError('no goal decides the experiment; give one of them "primary": true')
        return goals

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        if len(self.shares) != len(self.arms):
            raise ValueError(f"{len(self.shares)} shares for {len(self.arms)} arms; give one an arm, or none")
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"shares must be above 0 and add up to 1, not to {sum(self.shares):g}")
        if self.minimum_share * len(self.arms) > 1:
            raise ValueError(f"minimum_share {self.minimum_share:g} for {len(self.arms)} arms is more than there is")
        if min(self.shares) < self.minimum_share:
            raise ValueError(f"the share {min(self.shares):g} is below minimum_share {self.minimum_share:g}")
        for arm in (*self.killed, *([self.winner] if self.winner else [])):
            if arm not in self.arms:
                raise ValueError(f"unknown arm {arm!r}; arms: {', '.join(self.arms)}")
        if self.arms[0] in self.killed:
            raise ValueError(f"the control {self.arms[0]!r} cannot be killed; stop the experiment, or name a winner")
        if self.winner and self.status != "stopped":
            raise ValueError('a winner is named when the experiment is stopped; set "status": "stopped"')
        if self.allocation.adaptive and not 0 < self.holdback < 1:
            raise ValueError(
                f"holdback {self.holdback:g} with an adaptive allocation; set one above 0, such as 0.1: effects are "
                "measured by it"
            )
        known = [goal.name for goal in self.goals]
        for rail in self.guardrails:
            if rail.goal not in known:
                raise ValueError(f"guardrail of an unknown goal {rail.goal!r}; goals: {', '.join(known)}")
        return self

    @property
    def control(self) -> str:
        """The arm that the others are compared with."""
        return self.arms[0]

    def goal(self, name: str) -> Goal:
        """The goal of that name."""
        return next(goal for goal in self.goals if goal.name == name)


def load_experiments(path: Path | str = "configs/experiments.json") -> dict[str, Experiment]:
    """Experiments by key.

    Raises
    ------
    SettingsError
        No such file, not JSON, or a definition that cannot be used: with its place as a JSON path.
    """
    path = Path(path)
    try:
        tree = json.loads(path.read_text())
    except FileNotFoundError:
        raise SettingsError(f"no file {path}; experiments are defined in configs/experiments.json") from None
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    found = tree.get("experiments", {}) if isinstance(tree, dict) else None
    if not isinstance(found, dict):
        raise SettingsError(f'{path}: $.experiments must be an object such as {{"banner": {{"arms": [...]}}}}')
    return parse_experiments(found, str(path))


def parse_experiments(found: Mapping[str, Any], origin: str) -> dict[str, Experiment]:
    """Definitions by key.

    Raises
    ------
    SettingsError
        Names every place of `origin` that cannot be used, what was found there and what is allowed.
    """
    experiments: dict[str, Experiment] = {}
    problems: list[str] = []
    for key, definition in found.items():
        try:
            experiments[key] = Experiment.model_validate(definition)
        except ValidationError as error:
            problems += _explain(("experiments", key), error)
    if problems:
        raise SettingsError(f"{origin}: {'; '.join(problems)}")
    return experiments


def _explain(above: tuple[str | int, ...], error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False):
        place = _json_path(above + problem["loc"])
        if problem["type"] == "extra_forbidden":
            models: dict[str, type[Settings]] = {"goals": Goal, "guardrails": Guardrail}
            model = models.get(str(problem["loc"][0]), Experiment) if len(problem["loc"]) > 1 else Experiment
            lines.append(f"{place}: unknown key; allowed there: {', '.join(model.model_fields)}")
        elif problem["type"] == "missing":
            lines.append(f"{place}: is missing")
        else:
            shown = "" if isinstance(problem["input"], dict) else f" (found {problem['input']!r})"
            lines.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}{shown}")
    return lines


def _json_path(place: tuple[str | int, ...]) -> str:
    """A place as JSONPath writes it.

    >>> _json_path(("experiments", "banner", "goals", 0, "kind"))
    '$.experiments.banner.goals[0].kind'
    """
    return "".join(chain("$", (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)))

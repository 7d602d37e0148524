"""The shape of configs/experiments.json: which keys GrowthBook's SDK reads, and of which types.

Anything else is a mistake that the SDK would leave out in silence: a misspelt `conditon` is a rule for everybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from features.settings import Settings

_COMBINING: Final = ("$and", "$nor", "$not", "$or")
_GROUPS: Final = ("$savedGroup", "$savedGroups")
_OPERATORS: Final = (
    "$all", "$alli", "$elemMatch", "$eq", "$exists", "$gt", "$gte", "$in", "$inGroup", "$ini", "$lt", "$lte", "$ne",
    "$nin", "$nini", "$not", "$notInGroup", "$notRegex", "$notRegexi", "$regex", "$regexi", "$size", "$type", "$veq",
    "$vgt", "$vgte", "$vlt", "$vlte", "$vne",
)  # fmt: skip

Condition = dict[str, Any]
Span = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Shape(Settings):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)


class Filter(_Shape):
    """A part of all units, by a hash of its own."""

    seed: str
    ranges: list[Span]
    hash_version: int = 2
    attribute: str = "id"


class Parent(_Shape):
    """Another feature's value that a rule asks for."""

    id: str
    condition: Condition
    gate: bool = False


class Rule(_Shape):
    """One of a feature's."""

    id: str | None = None
    key: str = ""
    condition: Condition | None = None
    parent_conditions: list[Parent] | None = None
    force: Any = None
    variations: list[Any] | None = None
    weights: list[float] | None = None
    coverage: float | None = Field(None, ge=0, le=1)
    namespace: list[Any] | None = None
    filters: list[Filter] | None = None
    range: Span | None = None
    ranges: list[Span] | None = None
    seed: str | None = None
    hash_attribute: str = "id"
    fallback_attribute: str | None = None
    hash_version: Literal[1, 2] | None = None
    meta: list[dict[str, Any]] | None = None
    name: str | None = None
    phase: str | None = None
    tracks: list[dict[str, Any]] | None = None
    disable_sticky_bucketing: bool = False
    bucket_version: int | None = None
    min_bucket_version: int | None = None
    contextual_bandit_ref: str | None = None
    contextual_variations: list[Any] | None = None


class Feature(_Shape):
    """What everybody gets, and rules for some; the first that holds wins."""

    default_value: Any
    rules: list[Rule] = Field(default_factory=list)


class Context(_Shape):
    """A leaf of a contextual bandit."""

    leaf_id: str = ""
    condition: Condition = Field(default_factory=dict)
    weights: list[float] = Field(default_factory=list)


class Bandit(_Shape):
    """GrowthBook's contextual bandits, whose weights it makes itself."""

    bandit_version: int | str | None = None
    contexts: list[Context] = Field(default_factory=list)


class File(_Shape):
    """The whole."""

    attributes: list[str] = Field(default_factory=list)
    experiments: dict[str, dict[str, Any]] = Field(default_factory=dict)
    features: dict[str, Feature] = Field(default_factory=dict)
    saved_groups: dict[str, Any] = Field(default_factory=dict)
    contextual_bandits: dict[str, Bandit] = Field(default_factory=dict)


_MODELS: Final[dict[str, type[_Shape]]] = {
    "contextualBandits": Bandit,
    "contexts": Context,
    "rules": Rule,
    "filters": Filter,
    "parentConditions": Parent,
}
_EXPECTED: Final = {
    "attributes": 'the names of what callers pass, such as ["country"]',
    "features": 'an object such as {"help": {"defaultValue": "none", "rules": []}}',
    "experiments": 'an object such as {"banner": {"arms": ["control", "banner"], "goals": [...]}}',
}


def shape_problems(content: Mapping[str, Any]) -> Iterator[str]:
    """What in a configuration has another shape, each with its place and what is allowed there."""
    try:
        file = File.model_validate(content)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            yield _explained(problem["type"], problem["loc"], problem["msg"], problem["input"])
        return
    for key, feature in file.features.items():
        for number, rule in enumerate(feature.rules):
            place = f"$.features.{key}.rules[{number}].condition"
            yield from _of_condition(place, rule.condition or {})


def _explained(kind: str, loc: tuple[int | str, ...], message: str, found: Any) -> str:
    place = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    if kind == "missing":
        about = "; it is what everybody gets for whom no rule is" if loc[-1] == "defaultValue" else ""
        return f"{place}: is missing{about}"
    if kind == "extra_forbidden":
        allowed = _allowed(loc)
        near = get_close_matches(str(loc[-1]), allowed, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        what = "unknown section" if len(loc) == 1 else "unknown key"
        return f"{place}: {what}; {meant}known: {', '.join(allowed)}"
    if len(loc) == 1:
        return f"{place}: expected {_EXPECTED.get(str(loc[0]), 'an object')}"
    if loc[0] == "features" and len(loc) == 2:
        return f'{place}: expected an object such as {{"defaultValue": false, "rules": []}}'
    shown = "" if isinstance(found, (dict, list)) else f" (found {found!r})"
    return f"{place}: {message}{shown}"


def _allowed(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where `loc` leads."""
    above = [part for part in loc[:-1] if isinstance(part, str)]
    inner = [*above[:1], *above[2:]]  # what stands second is a name of somebody's choice
    models = [_MODELS[part] for part in reversed(inner) if part in _MODELS]
    models.append(Feature if above else File)
    return [field.alias or name for name, field in models[0].model_fields.items()]


def _of_condition(place: str, condition: Any) -> Iterator[str]:
    """Operators that GrowthBook has not: a condition with one never holds."""
    if not isinstance(condition, Mapping):
        yield f'{place}: expected an object such as {{"bounce": {{"$gt": 0.7}}}}'
        return
    for name, value in condition.items():
        if name in ("$and", "$nor", "$or"):
            if not isinstance(value, list):
                yield f"{place}.{name}: expected a list of conditions"
            else:
                for number, one in enumerate(value):
                    yield from _of_condition(f"{place}.{name}[{number}]", one)
        elif name == "$not":
            yield from _of_condition(f"{place}.{name}", value)
        elif name.startswith("$"):
            if name not in _GROUPS:
                known = (*_COMBINING, *_GROUPS)
                yield f"{place}.{name}: no operator between conditions; known: {', '.join(known)}"
        elif isinstance(value, Mapping) and any(operator.startswith("$") for operator in value):
            for operator in value:
                if operator not in _OPERATORS:
                    near = get_close_matches(operator, _OPERATORS, 1)
                    meant = f"did you mean {near[0]!r}? " if near else ""
                    yield f"{place}.{name}: unknown operator {operator!r}; {meant}known: {', '.join(_OPERATORS)}"

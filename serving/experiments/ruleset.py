"""GrowthBook's features, parsed once a version and evaluated by GrowthBook's own package.

The SDK takes 30 us to make its object and reads a feature's JSON each time; a global context that is made once a
version leaves about 15 us a flag, most of it for contexts, and for a hash where an experiment is none of its own. So
features whose rules are plain, a condition and a value or an experiment of ours, are gone through here, and only their
conditions are evaluated by the package.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from growthbook.common_types import (
    EvaluationContext,
    Feature,
    FeatureResult,
    GlobalContext,
    Options,
    StackContext,
    UserContext,
)
from growthbook.core import eval_feature, evalCondition

# It would write keys and attributes down that a caller has sent.
logging.getLogger("growthbook").setLevel(logging.ERROR)
_OPTIONS: Final = Options()
_GROUPS: Final = frozenset({"$inGroup", "$notInGroup", "$savedGroup", "$savedGroups"})
_COMBINING: Final = frozenset({"$and", "$nor", "$not", "$or"})


# What a plain rule has at most; hashes of our experiments are ours.
_OF_VALUES: Final = frozenset({"id", "condition", "force", "name"})
_OF_TRIALS: Final = frozenset(
    {"id", "key", "condition", "variations", "hashAttribute", "hashVersion", "name", "phase", "seed"}
)


class _Plain(NamedTuple):
    """A rule; unit: the attribute that an experiment of ours assigns by, empty for a value."""

    id: str | None
    condition: dict[str, Any] | None
    value: Any
    unit: str


class Ruleset:
    """One version of the features.

    Attributes
    ----------
    content: as GrowthBook's SDKs read it: features, savedGroups, contextualBandits.
    keys: of all features; attributes: that any condition or hash asks for, by the first part of their path.
    """

    def __init__(self, content: Mapping[str, Any], ours: Collection[tuple[str, str]] = ()) -> None:
        """Parse them; ours: feature and id of the rules that name an experiment of ours, which has no arm of this."""
        self.content = content
        features = content.get("features", {})
        self.keys = tuple(features)
        self._groups = content.get("savedGroups", {})
        self._plain: dict[str, list[_Plain]] = {}
        for key, feature in features.items():
            rules = [_plain(rule, ours=(key, rule.get("id")) in ours) for rule in feature.get("rules", ())]
            plain = [rule for rule in rules if rule is not None]
            if len(plain) == len(rules):
                self._plain[key] = plain
        self._global = GlobalContext(
            _OPTIONS,
            {key: Feature(**feature) for key, feature in features.items()},
            content.get("savedGroups", {}),
            content.get("contextualBandits", {}),
        )
        self.attributes = frozenset(_mentioned(content))

    def evaluate(
        self, key: str, attributes: dict[str, Any], forced: Mapping[str, int] | None = None
    ) -> FeatureResult[Any]:
        """What a feature is for these attributes; forced: variations by experiment that are settled already."""
        rules = self._plain.get(key) if not forced else None
        if rules is not None:
            for rule in rules:
                if rule.condition and not evalCondition(attributes, rule.condition, self._groups):
                    continue
                if not rule.unit:
                    return FeatureResult(rule.value, "force", ruleId=rule.id)
                if attributes.get(rule.unit):
                    return FeatureResult(None, "experiment", ruleId=rule.id)
            return FeatureResult(self.content["features"][key].get("defaultValue"), "defaultValue")
        user = UserContext(attributes=attributes, forced_variations=forced or {})  # type: ignore[arg-type]
        return eval_feature(key, EvaluationContext(user, self._global, StackContext()))


def _plain(rule: Mapping[str, Any], *, ours: bool) -> _Plain | None:
    """A rule if it is plain."""
    if ours and _OF_TRIALS.issuperset(rule):
        return _Plain(rule["id"], rule.get("condition"), None, rule["hashAttribute"])
    if rule.get("force") is not None and _OF_VALUES.issuperset(rule):
        return _Plain(rule.get("id"), rule.get("condition"), rule["force"], "")
    return None


def asked_by(rule: Mapping[str, Any]) -> Iterator[str]:
    """First parts of the paths of the attributes that a rule asks for."""
    yield from _in_condition(rule.get("condition"))
    if "force" not in rule or "coverage" in rule:
        yield rule.get("hashAttribute", "id")
        if "fallbackAttribute" in rule:
            yield rule["fallbackAttribute"]
    for one in rule.get("filters") or ():
        yield one.get("attribute", "id")


def asks_for_group(rule: Mapping[str, Any]) -> bool:
    """Whether a rule asks for a saved group."""
    return not _GROUPS.isdisjoint(_keys(rule.get("condition")))


def _keys(condition: Any) -> Iterator[str]:
    """Every key in a condition, at any depth."""
    if isinstance(condition, Mapping):
        for key, value in condition.items():
            yield key
            yield from _keys(value)
    elif isinstance(condition, list):
        for value in condition:
            yield from _keys(value)


def _mentioned(content: Mapping[str, Any]) -> Iterator[str]:
    """First parts of the paths of all attributes that are asked for."""
    for feature in content.get("features", {}).values():
        for rule in feature.get("rules", ()):
            yield from asked_by(rule)
    for condition in conditions_of(content):
        yield from _in_condition(condition)


def conditions_of(content: Mapping[str, Any]) -> Iterator[Any]:
    """Those of rules, of bandits and of groups."""
    for feature in content.get("features", {}).values():
        yield from (rule.get("condition") for rule in feature.get("rules", ()))
    for bandit in content.get("contextualBandits", {}).values():
        yield from (context.get("condition") for context in bandit.get("contexts", ()))
    for group in content.get("savedGroups", {}).values():
        if isinstance(group, Mapping):
            yield group.get("condition")


def _in_condition(condition: Any) -> Iterator[str]:
    """First parts of the paths in a condition."""
    for path, _ in parts_of(condition):
        yield path.partition(".")[0]


def parts_of(condition: Any) -> Iterator[tuple[str, Any]]:
    """Each path of a condition, and what is asked of it; what stands under a path are operators and values."""
    if not isinstance(condition, Mapping):
        return
    for name, value in condition.items():
        if name not in _COMBINING:
            yield name, value
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for one in value:
                yield from parts_of(one)
        else:
            yield from parts_of(value)

"""What a new configuration changes, and what of it must not change while an experiment runs.

Units of one phase are judged together. So their arms, shares, goals and targeting must be the same from the first to
the last of them; any other definition begins a new phase. What is no reason for one: killing an arm, stopping, naming a
winner, names and hypotheses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from serving.experiments.configuration import Configuration
from serving.experiments.ruleset import asks_for_group

# Of a definition all that must be the same; of a rule what says nothing of whom it is for.
_OF_DEFINITION: Final = ("unit", "arms", "shares", "holdback", "minimum_share", "allocation")
_APART: Final = ("id", "name", "meta", "phase", "force", "variations", "weights")
_BY_KEY: Final = ("features", "experiments", "savedGroups", "contextualBandits")
Difference = dict[str, list[str]]


def changes_between(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Difference]:
    """By section the keys that were added, changed or removed; sections that are alike are left out.

    >>> changes_between({"features": {"a": 1, "b": 2}}, {"features": {"a": 3, "c": 2}})
    {'features': {'added': ['c'], 'changed': ['a'], 'removed': ['b']}}
    """
    found = {}
    for section in _BY_KEY:
        one, other = old.get(section) or {}, new.get(section) or {}
        found[section] = {
            "added": [key for key in other if key not in one],
            "changed": [key for key in other if key in one and other[key] != one[key]],
            "removed": [key for key in one if key not in other],
        }
    one, other = old.get("attributes") or (), new.get("attributes") or ()
    found["attributes"] = {
        "added": [name for name in other if name not in one],
        "changed": [],
        "removed": [name for name in one if name not in other],
    }
    return {section: keys for section, keys in found.items() if any(keys.values())}


def phase_problems(old: Configuration, new: Configuration) -> Iterator[str]:
    """Experiments that have assigned and would go on as others in the same phase: with their places and what to do."""
    for key, before in old.definitions.items():
        after = new.definitions.get(key)
        if after is None or before.status == "draft" or after.status == "stopped":
            continue
        place = f"$.experiments.{key}.phase"
        if after.phase < before.phase:
            yield f"{place}: {after.phase} has been; the latest is {before.phase}, so the next is {before.phase + 1}"
        elif after.phase == before.phase:
            if after.status == "draft":
                yield f'$.experiments.{key}.status: it has assigned, so it is no draft again; set "status": "stopped"'
            elif changed := _changed(_judged(old, key), _judged(new, key)):
                yield (
                    f"{place}: changed since units were assigned: {', '.join(changed)}. Units from before and after "
                    f'must not be judged together; set "phase": {before.phase + 1}, or leave it as it was'
                )


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [name for name in new if old[name] != new[name]]


def _judged(configuration: Configuration, key: str) -> dict[str, Any]:
    """What must be the same for units that are judged together."""
    definition = configuration.definitions[key].model_dump()
    goals = [{name: value for name, value in goal.items() if name != "name"} for goal in definition["goals"]]
    rules = list(_rules(configuration, key))
    return {
        **{name: definition[name] for name in _OF_DEFINITION},
        "goals": goals,
        "variations": [rule["variations"] for _, rule, _ in rules],
        "targeting (and the rules before)": [(feature, _targeting(rule), before) for feature, rule, before in rules],
    }


def _rules(configuration: Configuration, key: str) -> Iterator[tuple[str, Mapping[str, Any], list[Any]]]:
    """Rules that name an experiment: the feature, the rule, and what else decides whom it is for."""
    compiled, content = configuration.ruleset.content["features"], configuration.content
    for feature, one in content.get("features", {}).items():
        for number, rule in enumerate(one.get("rules", ())):
            if (rule.get("key") or feature) != key or rule.get("variations") is None:
                continue
            first = [each for each in compiled[feature]["rules"] if int(each["id"]) < number]
            parents = [parent["id"] for each in (*first, rule) for parent in each.get("parentConditions") or ()]
            groups = content.get("savedGroups") if any(map(asks_for_group, (*first, rule))) else None
            yield feature, rule, [[*map(_targeting, first)], [compiled.get(parent) for parent in parents], groups]


def _targeting(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rule.items() if name not in _APART}

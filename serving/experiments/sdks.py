"""What GrowthBook's SDKs get that evaluate by themselves: features without rules that they cannot or must not evaluate.

An SDK has neither scores nor features of a session, and assigns arms by a hash of its own, of which no statistic would
hear. So rules of experiments of ours are left out for everybody, and with a public key, which every visitor can read,
all rules but those that ask for nothing but what a caller passes: the others' thresholds and groups are nobody's
business. What is left is what OFREP answers for a context without a session.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

from serving.experiments.configuration import Configuration
from serving.experiments.ruleset import asked_by, asks_for_group


@lru_cache(maxsize=4)
def for_sdks(configuration: Configuration, *, secret: bool) -> dict[str, Any]:
    """`features` and `savedGroups` as GrowthBook's endpoint has them; secret: for a server."""
    content = configuration.ruleset.content
    features: Mapping[str, Any] = content.get("features", {})
    asked = frozenset(content.get("attributes", ())) - configuration.ours
    given = {
        key: [rule for rule in feature["rules"] if _is_given(rule, key, configuration, None if secret else asked)]
        for key, feature in features.items()
    }
    whole = _whole(features, given)
    return {
        "features": {
            key: {**feature, "rules": [rule for rule in given[key] if whole.issuperset(_parents(rule))]}
            for key, feature in features.items()
        },
        "savedGroups": content.get("savedGroups", {}) if secret else {},
    }


def _is_given(rule: Mapping[str, Any], key: str, configuration: Configuration, asked: Collection[str] | None) -> bool:
    """Whether a rule may go out; asked: the attributes that it may ask for, None for any."""
    if any(rule["id"] == str(trial.rule) for trial in configuration.by_feature[key]) or "contextualBanditRef" in rule:
        return False
    if asked is None:
        return True
    return all(name in asked for name in asked_by(rule)) and not asks_for_group(rule)


def _whole(features: Mapping[str, Any], given: Mapping[str, list[Mapping[str, Any]]]) -> frozenset[str]:
    """Features that an SDK evaluates as we do, those included that their rules ask for."""
    whole = {key for key, feature in features.items() if len(given[key]) == len(feature["rules"])}
    while lacking := {key for key in whole for rule in given[key] if not whole.issuperset(_parents(rule))}:
        whole -= lacking
    return frozenset(whole)


def _parents(rule: Mapping[str, Any]) -> Iterator[str]:
    for parent in rule.get("parentConditions") or ():
        yield parent["id"]

"""configs/experiments.json as the service runs it: checked whole, then made into rules once a version.

In: GrowthBook's features, and experiments (`features.experiments`) that some of their rules name by `key`. Such a rule
says whom an experiment is for; which arm a unit gets, the experiment's allocation says. Out: a `Configuration`, or an
error that names every place and what to do there.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec

from features.allocation import Goal, Plan, allocation_of
from features.events import hash64
from features.experiments import MOST_GOALS, SCORES, Experiment, parse_experiments
from features.settings import SettingsError
from serving.experiments.attributes import OWN, Names
from serving.experiments.ruleset import Ruleset, asked_by
from serving.experiments.schema import shape_problems
from serving.experiments.watched import Watched

FILE: Final = "configs/experiments.json"
# As far as GrowthBook's SDKs let weights be off.
_WHOLE: Final = 0.01
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Trial(NamedTuple):
    """An experiment as it runs: its definition, and the rule of a feature that names it.

    number: `hash64` of its key; feature, rule: which rule, and its place there; variations: values of its arms, the
    control's for those that were killed. score: the head that a contextual allocation asks, empty for others.
    """

    key: str
    number: int
    definition: Experiment
    plan: Plan
    feature: str
    rule: int
    variations: tuple[Any, ...]
    seed: str
    score: str


class Configuration:
    """One version.

    Attributes
    ----------
    ours: names of all that we know of a session.
    content: as it was written; version: of that, the same wherever it is the same.
    definitions: of all experiments, by key; ruleset: for GrowthBook's package; trials: by key, those that run;
    by_feature: the same by feature, in the order of the rules; watched: what of a session its flags depend on.
    """

    def __init__(self, content: Mapping[str, Any], known: Names, origin: str = FILE) -> None:
        """Check and make one.

        Raises
        ------
        SettingsError
            Names every place that cannot be used, and what to do there.
        """
        self.ours = frozenset((*known.asked, *OWN))
        problems = list(shape_problems(content)) or list(_problems(content, self.ours))
        if problems:
            raise SettingsError(f"{origin}: {'; '.join(problems)}")
        definitions = parse_experiments(content.get("experiments", {}), origin)
        problems = list(_goal_problems(definitions, known.kept))
        if problems:
            raise SettingsError(f"{origin}: {'; '.join(problems)}")
        self.content, self.version, self.definitions = content, version_of(content), definitions
        self.trials: dict[str, Trial] = {}
        self.by_feature: dict[str, list[Trial]] = defaultdict(list)
        features = {}
        for key, feature in content.get("features", {}).items():
            features[key], found = _compiled(key, _of_one_kind(feature), definitions, origin)
            self.by_feature[key] = found
            self.trials |= {trial.key: trial for trial in found}
        _check_all_used(definitions, self.trials, origin)
        _check_namespaces(content.get("features", {}), self.trials, origin)
        ours = {(trial.feature, str(trial.rule)) for found in self.by_feature.values() for trial in found}
        self.ruleset = Ruleset({**content, "features": features}, ours)
        _check_runs(self.ruleset, origin)
        self.watched = Watched(self.ruleset.content, self.ours)


def version_of(content: Mapping[str, Any]) -> str:
    """What a configuration is called: by what it says, not by how it is written down."""
    return hashlib.sha256(_encode(content)).hexdigest()[:16]


def parse(text: bytes, known: Names, origin: str = FILE) -> Configuration:
    """A configuration out of JSON.

    Raises
    ------
    SettingsError
        Not JSON, or as of `Configuration`.
    """
    try:
        content = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{origin} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f'{origin}: expected an object such as {{"features": {{...}}, "experiments": {{...}}}}')
    return Configuration(content, known, origin)


def _problems(content: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """What is wrong with the features, each with its place."""
    declared = content.get("attributes", [])
    spans: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for key, feature in content.get("features", {}).items():
        for number, rule in enumerate(feature.get("rules", [])):
            yield from _of_rule(f"$.features.{key}.rules[{number}]", key, rule, {*known, *declared}, content, spans)
    for name, taken in spans.items():
        for (begin, end, one), (later, _, other) in pairwise(sorted(taken)):
            if later < end and one != other:
                yield (
                    f"namespace {name!r}: {one} has {begin:g} to {end:g} and {other} begins at {later:g}, which some "
                    f"would be in both of; let {other} begin at {end:g}"
                )


def _of_rule(
    place: str,
    feature: str,
    rule: Mapping[str, Any],
    known: Collection[str],
    content: Mapping[str, Any],
    spans: dict[str, list[tuple[float, float, str]]],
) -> Iterator[str]:
    named = content.get("experiments", {}).get(rule.get("key") or feature)
    draft = rule.get("variations") is not None and named is not None and named.get("status") == "draft"
    for name in asked_by(rule):
        if name not in known and not draft:
            yield (
                f"{place}: unknown attribute {name!r}; known are the scores, every feature (`lotse features list`), "
                f"{', '.join(OWN)}, and what is named in $.attributes"
            )
    yield from _of_variations(place, feature, rule, content.get("experiments", {}))
    span = rule.get("namespace")
    if span is not None:
        if not _is_span(span):
            yield f'{place}.namespace: expected a name and a part of 0 to 1, such as ["checkout", 0, 0.5]'
        else:
            spans[span[0]].append((span[1], span[2], rule.get("key") or feature))


def _is_span(span: list[Any]) -> bool:
    if len(span) != 3 or not isinstance(span[0], str) or not all(isinstance(one, (int, float)) for one in span[1:]):
        return False
    return bool(0 <= span[1] < span[2] <= 1)


def _of_variations(place: str, feature: str, rule: Mapping[str, Any], experiments: Mapping[str, Any]) -> Iterator[str]:
    variations, weights = rule.get("variations"), rule.get("weights")
    if variations is None:
        return
    experiment = experiments.get(rule.get("key") or feature)
    if experiment is not None:
        arms = experiment.get("arms", ())
        if isinstance(arms, list) and len(variations) != len(arms):
            yield f"{place}.variations: expected one for each arm of the experiment: {', '.join(map(str, arms))}"
        if weights is not None:
            yield f"{place}.weights: the shares of the experiment decide; leave the weights out"
    elif weights is not None:
        if len(weights) != len(variations):
            yield f"{place}.weights: {len(weights)} for {len(variations)} variations; give one for each"
        elif abs(sum(weights) - 1) > _WHOLE:
            yield f"{place}.weights: they add up to {sum(weights):g}; they must add up to 1"


def _compiled(
    key: str, feature: Mapping[str, Any], definitions: Mapping[str, Experiment], origin: str
) -> tuple[dict[str, Any], list[Trial]]:
    """A feature for GrowthBook's package, and its trials, whose rules stay: they say whom an experiment is for."""
    rules, trials = [], []
    for number, rule in enumerate(feature.get("rules", [])):
        name = rule.get("key") or key
        definition = definitions.get(name) if rule.get("variations") is not None else None
        if definition is None:
            rules.append({**rule, "id": str(number)})
        elif definition.status == "running":
            rules.append({**rule, "id": str(number), "hashAttribute": definition.unit, "hashVersion": 2})
            trials.append(_trial(name, key, number, rule, definition, origin))
        elif definition.winner:
            value = rule["variations"][definition.arms.index(definition.winner)]
            kept = {part: rule[part] for part in ("condition", "parentConditions") if part in rule}
            rules.append({**kept, "force": value, "id": str(number)})
    return {**feature, "rules": rules}, trials


def _of_one_kind(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    """A feature of which one value has a fraction, with all its numbers as such: to a typed client 1 is no 1.0."""
    rules = feature.get("rules", ())
    values = [feature["defaultValue"], *(rule.get("force") for rule in rules)]
    values += [value for rule in rules for value in rule.get("variations") or ()]
    if not any(isinstance(value, float) for value in values):
        return feature
    return {
        **feature,
        "defaultValue": _number(feature["defaultValue"]),
        "rules": [
            {
                **rule,
                **({"force": _number(rule["force"])} if "force" in rule else {}),
                **({"variations": list(map(_number, rule["variations"]))} if rule.get("variations") else {}),
            }
            for rule in rules
        ],
    }


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else value


def _trial(name: str, feature: str, number: int, rule: Mapping[str, Any], definition: Experiment, origin: str) -> Trial:
    goal = next(goal for goal in definition.goals if goal.primary)
    try:
        plan = Plan(
            definition.arms, definition.shares, allocation_of(definition.allocation.model_dump()),
            Goal(goal.kind, goal.better), definition.holdback, definition.minimum_share,
        )  # fmt: skip
    except SettingsError as error:
        raise SettingsError(f"{origin}: $.experiments.{name}: {error}") from None
    shown = [0 if arm in definition.killed else place for place, arm in enumerate(definition.arms)]
    variations = tuple(rule["variations"][place] for place in shown)
    score = getattr(plan.allocation, "score", "")
    if score and score not in SCORES:
        raise SettingsError(
            f"{origin}: $.experiments.{name}.allocation.score: {score!r} is not noted with an exposure, so nothing "
            f"can be learned by it; use one of {', '.join(SCORES)}"
        )
    seed = str(rule.get("seed") or name)
    return Trial(name, hash64(name), definition, plan, feature, number, variations, seed, score)


def _goal_problems(definitions: Mapping[str, Experiment], kept: Collection[str]) -> Iterator[str]:
    for key, definition in definitions.items():
        if len(definition.goals) > MOST_GOALS:
            yield f"$.experiments.{key}.goals: {len(definition.goals)} are too many; a session notes up to {MOST_GOALS}"
        for number, goal in enumerate(definition.goals):
            if goal.column not in kept:
                yield (
                    f"$.experiments.{key}.goals[{number}].column: {goal.column!r} is not what a session "
                    "is handed on with; name what is counted in it, such as purchases, revenue or events"
                )


def _check_all_used(definitions: Mapping[str, Experiment], trials: Mapping[str, Trial], origin: str) -> None:
    for key, definition in definitions.items():
        if definition.status == "running" and key not in trials:
            raise SettingsError(
                f'{origin}: $.experiments.{key}: no rule of any feature names it; add a rule with "key": {key!r} and a '
                "variation for each arm, or make it a draft"
            )


def _check_runs(ruleset: Ruleset, origin: str) -> None:
    """Evaluate each feature once: what GrowthBook's package cannot read is told here, and not by the first visitor."""
    for key in ruleset.keys:
        try:
            ruleset.evaluate(key, dict.fromkeys(ruleset.attributes, "1"))
        except Exception as error:
            raise SettingsError(
                f"{origin}: $.features.{key}: GrowthBook's package cannot evaluate it: {error}"
            ) from None


def started(configuration: Configuration, known: Names, origin: str = FILE) -> Configuration:
    """The same with every draft started.

    Raises
    ------
    SettingsError
        A draft could not run, or no rule names it.
    """
    experiments = {
        key: {**one, "status": "running"} if one.get("status") == "draft" else one
        for key, one in configuration.content.get("experiments", {}).items()
    }
    return Configuration({**configuration.content, "experiments": experiments}, known, f"{origin}, drafts started")


def _check_namespaces(features: Mapping[str, Any], trials: Mapping[str, Trial], origin: str) -> None:
    """Experiments that share a namespace exclude one another only if all of them look for the same unit there."""
    units: dict[str, Trial] = {}
    for key, trial in trials.items():
        span = features[trial.feature]["rules"][trial.rule].get("namespace")
        if span is None:
            continue
        other = units.setdefault(str(span[0]), trial)
        if other.definition.unit != trial.definition.unit:
            raise SettingsError(
                f"{origin}: $.experiments.{key}.unit: {trial.definition.unit!r} beside {other.definition.unit!r} of "
                f"{other.key} in namespace {span[0]!r}, so that some would be in both; give both the same unit"
            )


def nothing(known: Names) -> Configuration:
    """No features and no experiments."""
    return Configuration({}, known)

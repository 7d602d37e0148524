"""Flags of a session: which value each feature has for it, and what its experiments assign.

A rule that names an experiment says whom it is for, whatever the arm: its conditions on scores are evaluated for the
control, too. At the moment when one holds for the first time the session is exposed: its arm is chosen by the
experiment's table of probabilities, and noted with that probability and with what the session looked like. From then on
it keeps its arm, whatever its scores become.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from growthbook.core import gbhash

from features.events import CONSENT_LINK
from features.experiments import CLOSED_SHIFT, FORCED, HOLDBACK, MOST_CLOSED, SCORES, VISITOR
from serving.experiments.assignments import Assignment
from serving.experiments.attributes import OWN
from serving.experiments.configuration import Configuration, Trial
from serving.experiments.learned import Standing

# GrowthBook's sources as OFREP's reasons.
_REASONS: Final = {"force": "TARGETING_MATCH", "experiment": "SPLIT", "defaultValue": "STATIC"}
_HASH_VERSION: Final = 2


class Flag(msgspec.Struct, omit_defaults=True):
    """What a feature is for a session; variant: the arm of an experiment; reason: as OFREP has them."""

    value: Any
    variant: str = ""
    reason: str = "STATIC"


class Subject(NamedTuple):
    """Who asks.

    visitor: a pseudonym; started_at: of the session, ms UTC; row: its features, float32 (F,); scores: by head.
    consent: bits; assigned: what it has already; age_seconds: of the session.
    """

    visitor: int
    started_at: int
    events: int
    idle_seconds: float
    age_seconds: float
    scores: Mapping[str, float]
    row: np.ndarray
    consent: int
    assigned: Sequence[Assignment]


class Evaluator:
    """Evaluates by one configuration and one fold."""

    def __init__(self, configuration: Configuration, standings: Mapping[str, Standing], names: Sequence[str]) -> None:
        self.configuration = configuration
        self._standings = standings
        places = {name: place for place, name in enumerate(names)}
        asked = configuration.ruleset.attributes
        self._features = [(name, places[name]) for name in asked if name in places]
        self._goals = {
            key: [places[goal.column] for goal in trial.definition.goals] for key, trial in configuration.trials.items()
        }
        self._own: list[tuple[str, Callable[[Subject], Any]]] = [
            (name, make) for name, make in OWN.items() if name in asked
        ]
        features = configuration.ruleset.content.get("features", {})
        self._constant = {key: Flag(one["defaultValue"]) for key, one in features.items() if not one["rules"]}
        # by experiment what each arm is shown: of one that is closed the control's
        self._arms = {
            key: [
                Flag(trial.variations[0 if place in standings[key].closed else place], arm, "SPLIT")
                for place, arm in enumerate(trial.definition.arms)
            ]
            for key, trial in configuration.trials.items()
        }
        closed = {key: sorted(standing.closed) for key, standing in standings.items()}
        self._version = f"{configuration.version} {closed}"

    def attributes(self, subject: Subject, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What conditions may ask for; more: what a caller passes, which cannot say otherwise than we know."""
        found: dict[str, Any] = dict(more or {})
        for name, make in self._own:
            found[name] = make(subject)
        row = subject.row
        for name, place in self._features:
            value = float(row[place])
            if value == value:  # noqa: PLR0124  (NaN: without its consent a feature is missing)
                found[name] = value
            else:
                found.pop(name, None)
        found.update(subject.scores)
        return found

    def state(self, subject: Subject) -> str:
        """A text that is another one when a flag of the session may be."""
        assigned = (one.experiment for one in subject.assigned)
        return self.configuration.watched.state(self._version, self.attributes(subject), assigned)

    def evaluate(
        self,
        subject: Subject,
        keys: Iterable[str],
        now_ms: int,
        more: Mapping[str, Any] | None = None,
        forced: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Flag], list[Assignment]]:
        """Flags by key, and what is assigned now for the first time; forced: arms by experiment that a person chose."""
        attributes: dict[str, Any] = {}
        new: list[Assignment] = []
        assigned = {one.experiment: one for one in subject.assigned}
        flags = {}
        for key in keys:
            settled = self._constant.get(key) or self._settled(key, assigned)
            if settled is not None:
                flags[key] = settled
                continue
            attributes = attributes or self.attributes(subject, more)
            result = self.configuration.ruleset.evaluate(key, attributes)
            rule = int(result.ruleId) if result.ruleId else math.inf
            trials = self.configuration.by_feature[key]
            trial = next((one for one in trials if one.rule < rule and one.number in assigned), None)
            if trial is None and result.source == "experiment":
                trial = next((one for one in trials if one.rule == rule), None)
            if trial is None:
                variant = str(result.experimentResult.key) if result.experimentResult else ""
                flags[key] = Flag(result.value, variant, _REASONS.get(result.source, "UNKNOWN"))
                continue
            if trial.number not in assigned:
                if len(self._standings[trial.key].closed) + 1 >= len(trial.definition.arms):
                    # nothing is left to choose from: everybody gets what the control gets
                    flags[key] = Flag(trial.variations[0], reason="TARGETING_MATCH")
                    continue
                new.append(self._assign(trial, subject, now_ms, (forced or {}).get(trial.key)))
                assigned[trial.number] = new[-1]
            flags[key] = self._shown(trial, assigned[trial.number])
        return flags, new

    def _settled(self, key: str, assigned: Mapping[int, Assignment]) -> Flag | None:
        """What a feature's first rule has assigned: nothing goes before it, so nothing need be evaluated."""
        trials = self.configuration.by_feature[key]
        if not trials or trials[0].rule or trials[0].number not in assigned:
            return None
        return self._shown(trials[0], assigned[trials[0].number])

    def _shown(self, trial: Trial, assigned: Assignment) -> Flag:
        """The value of an arm; of one that a later phase has not, the control's."""
        arms = self._arms[trial.key]
        return arms[assigned.arm] if assigned.arm < len(arms) else arms[0]

    def _assign(self, trial: Trial, subject: Subject, now_ms: int, forced: str | None) -> Assignment:
        definition, standing = trial.definition, self._standings[trial.key]
        lasting = definition.unit == "visitor" and bool(subject.consent & CONSENT_LINK)
        unit = OWN[definition.unit](subject)
        flags = VISITOR if lasting else 0
        if forced is not None:
            arm, propensity, flags = definition.arms.index(forced), 1.0, flags | FORCED
        else:
            held = _number(f"{trial.seed} holdback", unit) < definition.holdback
            flags |= HOLDBACK if held else 0
            flags |= min(len(standing.closed), MOST_CLOSED) << CLOSED_SHIFT
            number, score = _number(trial.seed, unit), subject.scores.get(trial.score)
            arm, propensity = standing.choose(number, score, now_ms, held=held)
        before = [_before(subject, place) for place in self._goals[trial.key]]
        bounce, conversion, leaving = (subject.scores.get(head, math.nan) for head in SCORES)
        return Assignment(
            trial.number, now_ms, propensity, subject.age_seconds, bounce, conversion, leaving,
            subject.events, arm, definition.phase, flags, *before,
        )  # fmt: skip


def flags_without_session(
    configuration: Configuration, context: Mapping[str, Any], keys: Iterable[str]
) -> dict[str, Flag]:
    """Flags by what a caller says alone. No session is known to experiments, so nobody is in one."""
    attributes = {name: value for name, value in context.items() if name not in OWN}
    found = {}
    for key in keys:
        result = configuration.ruleset.evaluate(key, attributes)
        found[key] = Flag(result.value, reason=_REASONS.get(result.source, "UNKNOWN"))
    return found


def _before(subject: Subject, place: int) -> float:
    """What a session has of a goal."""
    value = float(subject.row[place])
    return 0.0 if math.isnan(value) else value


def _number(seed: str, unit: str) -> float:
    """A unit's own number in [0, 1), as GrowthBook hashes."""
    number = gbhash(seed, unit, _HASH_VERSION)
    assert number is not None
    return number

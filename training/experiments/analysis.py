"""A whole experiment judged: every goal and arm, guardrails, ratios, looks over time, deciles of risk, and what to do.

In: `Units`. Out: `Analysis`, which the report draws and the JSON holds. Whatever rests on fewer than 50 units of an arm
is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from statsmodels.stats.meta_analysis import combine_effects

from features.experiments import LEAST_UNITS, Experiment, Goal
from features.judging.effects import Effect
from features.judging.rails import Rail, guard
from training.experiments.advice import advice_of, notes_on
from training.experiments.effects import effects
from training.experiments.srm import Ratio, sample_ratios
from training.experiments.table import Units
from training.experiments.verdicts import (
    Judged,
    Verdicts,
    correct,
    invalidated,
    judge,
    judge_all,
    judged_json,
    with_holdback,
)

# Looks that are drawn: the first so many parts of the units.
_LOOKS: Final = 20
_GROUPS: Final = 10


@dataclass(frozen=True)
class Group:
    """Units of about the same score at the trigger, and the effect among them; None where there are too few.

    p: always valid; adjusted_p: corrected for all groups of this score and arm (Holm).
    """

    score: str
    least: float
    most: float
    judged: Judged | None


@dataclass(frozen=True)
class Differing:
    """The groups of one score, goal and arm; p: whether the effect differs between them (Cochran's Q, this look)."""

    score: str
    goal: str
    arm: str
    p: float
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Look:
    """What was known when the first so many units had come."""

    units: int
    until: float
    lift: float
    low: float
    high: float


@dataclass(frozen=True)
class Analysis:
    """Everything that is told of an experiment.

    counts: units of each arm, None below 50; unknown: goal -> units of each arm whose outcome is not known yet.
    judged: goal -> arm -> result; looks: the same over time, of primary goals.
    advice: stop, decide or go on, and why.
    """

    key: str
    definition: Experiment
    counts: tuple[int | None, ...]
    phases: int
    clusters: int | None
    forced: int
    first: float | None
    last: float | None
    unknown: dict[str, tuple[int | None, ...]]
    ratios: tuple[Ratio, ...]
    judged: Verdicts
    rails: tuple[Rail, ...]
    looks: dict[str, dict[str, tuple[Look, ...]]]
    differing: tuple[Differing, ...]
    advice: tuple[str, str]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values: what is not defined is null."""
        tree = {
            "experiment": self.key, "definition": self.definition.model_dump(mode="json"),
            "advice": {"do": self.advice[0], "why": self.advice[1]}, "notes": list(self.notes),
            "units": dict(zip(self.definition.arms, self.counts, strict=True)),
            "phases": self.phases, "clusters": self.clusters, "forced": self.forced,
            "first": self.first, "last": self.last,
            "unknown": {goal: dict(zip(self.definition.arms, of, strict=True)) for goal, of in self.unknown.items()},
            "sample_ratio": [_ratio_json(one) for one in self.ratios],
            "goals": {goal: {arm: judged_json(one) for arm, one in of.items()} for goal, of in self.judged.items()},
            "guardrails": [asdict(one) for one in self.rails],
            "looks": {goal: {a: [asdict(x) for x in xs] for a, xs in of.items()} for goal, of in self.looks.items()},
            "by_risk": [
                {**{k: getattr(one, k) for k in ("score", "goal", "arm", "p")}, "groups": [
                    {"least": g.least, "most": g.most, "effect": judged_json(g.judged)} for g in one.groups
                ]} for one in self.differing
            ],
        }  # fmt: skip
        return {name: _finite(value) for name, value in tree.items()}


def analyse(units: Units, key: str, *, looks: bool = True, by_risk: bool = True) -> Analysis:
    """Judge an experiment by its units; `looks` and `by_risk` take most of the time."""
    definition = units.definition
    judged = judge_all(units)
    if definition.allocation.adaptive and units.frame["holdback"].any():
        judged = with_holdback(judged, judge_all(units.take(units.frame["holdback"].to_numpy())))
    ratios = tuple(sample_ratios(units))
    if any(one.alarm for one in ratios):
        judged = {goal: {arm: invalidated(one) for arm, one in of.items()} for goal, of in judged.items()}
    rails = tuple(_rails(definition, judged))
    primary = [goal for goal in definition.goals if goal.primary]
    counts = np.bincount(units.arm, minlength=len(definition.arms))
    frame = units.frame
    return Analysis(
        key=key,
        definition=definition,
        counts=tuple(_told(count) for count in counts),
        phases=frame["phase"].nunique(),
        clusters=frame["visitor"].nunique() if units.clustered else None,
        forced=units.forced,
        first=float(frame["exposed_at"].iloc[0]) if units.timed else None,
        last=float(frame["exposed_at"].iloc[-1]) if units.timed else None,
        unknown={goal.name: _unknown(units, goal) for goal in definition.goals},
        ratios=ratios,
        judged=judged,
        rails=rails,
        looks={goal.name: _looks(units, goal) for goal in primary} if looks and units.timed else {},
        differing=tuple(_by_risk(units, primary)) if by_risk else (),
        advice=advice_of(definition, judged, ratios, rails, int(counts.sum())),
        notes=tuple(notes_on(units)),
    )


def _rails(definition: Experiment, judged: Verdicts) -> Iterator[Rail]:
    for rail in definition.guardrails:
        for arm, one in judged[rail.goal].items():
            yield guard(rail, one.effect if one else None, arm, definition)


def _looks(units: Units, goal: Goal) -> dict[str, tuple[Look, ...]]:
    arms = units.definition.arms[1:]
    found: dict[str, list[Look]] = {arm: [] for arm in arms}
    for size in np.linspace(0, len(units), _LOOKS + 1)[1:].astype(int):
        until = float(units.frame["exposed_at"].iloc[size - 1])
        for effect in effects(units.take(slice(0, size)), goal):
            if effect is None:
                continue
            judged = judge(effect, None, units.definition)
            found[effect.arm].append(Look(int(size), until, effect.lift, judged.low, judged.high))
    return {arm: tuple(looks) for arm, looks in found.items()}


def _by_risk(units: Units, goals: list[Goal]) -> Iterator[Differing]:
    """Groups of ten equal parts of the units by each score at the trigger."""
    definition = units.definition
    for score in units.scored:
        values = units.frame[score]
        cut = pd.qcut(values, _GROUPS, labels=False, duplicates="drop").to_numpy(float)
        parts = [
            (values[cut == place], units.take(cut == place)) for place in range(int(np.nanmax(cut, initial=-1)) + 1)
        ]
        for goal in goals:
            compared = [effects(part, goal) for _, part in parts]
            for place, arm in enumerate(definition.arms[1:]):
                here = [of[place] for of in compared]
                groups = [
                    judge(one, None, definition, definition.planned_units / len(parts)) if one else None for one in here
                ]
                family = {str(at): one for at, one in enumerate(groups)}
                correct([family], "holm", definition.alpha)
                yield Differing(
                    score, goal.name, arm, _differ([one for one in here if one]),
                    tuple(
                        Group(score, *_rounded(of), family[str(at)])
                        for at, (of, _) in enumerate(parts)
                    ),
                )  # fmt: skip


def _rounded(scores: pd.Series) -> tuple[float, float]:
    """The ends of a group, so rounded that they are nobody's score."""
    return round(float(scores.min()), 2), round(float(scores.max()), 2)


def _differ(found: list[Effect]) -> float:
    """Whether the lifts differ (of differences they would: what adds a tenth adds more where there is more), on the log
    scale."""
    sure = np.array([one.log_ratio for one in found if one.log_ratio[1] > 0])
    if len(sure) < 2:
        return float("nan")
    return float(combine_effects(sure[:, 0], sure[:, 1] ** 2).test_homogeneity().pvalue)


def _unknown(units: Units, goal: Goal) -> tuple[int | None, ...]:
    missing = np.isnan(units.frame[goal.column].to_numpy())
    counts = np.bincount(units.arm[missing], minlength=len(units.definition.arms))
    return tuple(0 if not count else _told(count) for count in counts)


def _told(count: int) -> int | None:
    return int(count) if count >= LEAST_UNITS else None


def _ratio_json(one: Ratio) -> dict[str, Any]:
    """Without what a small arm's units could be worked out from: the total, and p-values."""
    return {
        "phase": one.phase, "holdback": one.holdback, "closed": one.closed,
        "units": [_told(count) for count in one.units],
        "expected": None if one.small else list(one.expected), "p": None if one.small else one.p,
        "always_valid_p": None if one.small else one.always_valid_p, "alarm": one.alarm,
    }  # fmt: skip


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value

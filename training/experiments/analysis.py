"""A whole experiment judged: every goal and arm, guardrails, ratios, looks over time, deciles of risk, and what to do.

In: `Units`. Out: `Analysis`, which the report draws and the JSON holds. Whatever rests on fewer than 50 units of an arm
is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests

from features.experiments import LEAST_UNITS, Experiment, Goal
from features.judging.effects import Effect
from features.judging.rails import Rail, guard
from features.judging.sequential import always_valid_p, critical_value, fixed_p
from training.experiments.bayes import Belief, beliefs
from training.experiments.effects import effects
from training.experiments.srm import Ratio, sample_ratios
from training.experiments.table import Units

# Looks that are drawn: the first so many parts of the units.
_LOOKS: Final = 20
_GROUPS: Final = 10
_SINGLE_LOOK: Final = 1.959963984540054


Verdict = Literal["better", "worse", "open", "invalid"]


@dataclass(frozen=True)
class Judged:
    """One arm and one goal.

    low, high: the lift's always-valid interval; fixed_low, fixed_high: that of one look, planned before.
    p: always valid; adjusted_p: corrected for all arms and goals that are asked (primary: Holm, others:
    Benjamini-Hochberg);
        fixed_p: of one look, not corrected.
    verdict: what the adjusted p-value says at the experiment's alpha, in the wanted direction; invalid if the sample
        ratio is wrong.
    holdback: the same effect among the holdback alone, under adaptive allocation; None otherwise.
    """

    effect: Effect
    low: float
    high: float
    fixed_low: float
    fixed_high: float
    p: float
    adjusted_p: float
    fixed_p: float
    verdict: Verdict
    belief: Belief | None
    holdback: Judged | None = None


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
    judged: dict[str, dict[str, Judged | None]]
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
    judged = _judge_all(units)
    if definition.allocation.adaptive and units.frame["holdback"].any():
        judged = _with_holdback(judged, _judge_all(units.take(units.frame["holdback"].to_numpy())))
    ratios = tuple(sample_ratios(units))
    if any(one.alarm for one in ratios):
        judged = {goal: {arm: _invalid(one) for arm, one in of.items()} for goal, of in judged.items()}
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
        advice=_advice(definition, judged, ratios, rails, int(counts.sum())),
        notes=tuple(_notes(units)),
    )


def judge(effect: Effect, belief: Belief | None, definition: Experiment, planned_units: float | None = None) -> Judged:
    """One effect by itself, not corrected for others yet."""
    planned, alpha = planned_units or definition.planned_units, definition.alpha
    critical = float(critical_value(effect.effective_units, planned, alpha))
    low, high = effect.lift_interval(critical)
    fixed_low, fixed_high = effect.lift_interval(_SINGLE_LOOK)
    p = float(always_valid_p(effect.z, effect.effective_units, planned, alpha))
    return Judged(
        effect, low, high, fixed_low, fixed_high, p, p, float(fixed_p(effect.z)), _verdict(effect, p, alpha), belief
    )


def _verdict(effect: Effect, p: float, alpha: float) -> Verdict:
    if p > alpha:
        return "open"
    return "better" if effect.difference * effect.goal.sign > 0 else "worse"


def _judge_all(units: Units) -> dict[str, dict[str, Judged | None]]:
    definition = units.definition
    found: dict[str, dict[str, Judged | None]] = {}
    for goal in definition.goals:
        compared = effects(units, goal)
        held = beliefs(compared, definition.alpha)
        found[goal.name] = {
            arm: judge(effect, belief, definition) if effect else None
            for arm, effect, belief in zip(definition.arms[1:], compared, held, strict=True)
        }
    for primary, method in ((True, "holm"), (False, "fdr_bh")):
        _correct([found[goal.name] for goal in definition.goals if goal.primary == primary], method, definition.alpha)
    return found


def _correct(families: list[dict[str, Judged | None]], method: str, alpha: float) -> None:
    """Adjust the p-values of all these results together."""
    places = [(family, arm) for family in families for arm, one in family.items() if one is not None]
    results = [family[arm] for family, arm in places]
    if not results:
        return
    adjusted = multipletests([one.p for one in results if one], method=method)[1]
    for (family, arm), one, p in zip(places, results, adjusted, strict=True):
        assert one is not None
        family[arm] = replace(one, adjusted_p=float(p), verdict=_verdict(one.effect, float(p), alpha))


def _with_holdback(
    judged: dict[str, dict[str, Judged | None]], held: dict[str, dict[str, Judged | None]]
) -> dict[str, dict[str, Judged | None]]:
    return {
        goal: {arm: replace(one, holdback=held[goal][arm]) if one else None for arm, one in of.items()}
        for goal, of in judged.items()
    }


def _invalid(one: Judged | None) -> Judged | None:
    return replace(one, verdict="invalid", holdback=_invalid(one.holdback)) if one else None


def _rails(definition: Experiment, judged: dict[str, dict[str, Judged | None]]) -> Iterator[Rail]:
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
                _correct([family], "holm", definition.alpha)
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


def _advice(
    definition: Experiment,
    judged: dict[str, dict[str, Judged | None]],
    ratios: tuple[Ratio, ...],
    rails: tuple[Rail, ...],
    units: int,
) -> tuple[str, str]:
    """What to do and why, in the order in which things can go wrong."""
    if any(one.alarm for one in ratios):
        return "stop", (
            "Units were lost or doubled in some arm: the sample ratio is wrong, and no effect below can be trusted. "
            "Find out where they went before anything else."
        )
    broken = [one for one in rails if one.state == "broken"]
    if broken:
        return "stop", f"{broken[0].arm} surely makes {broken[0].goal} worse by more than is allowed."
    primary = {g.name: judged[g.name] for g in definition.goals if g.primary}
    better = [(arm, goal) for goal, of in primary.items() for arm, one in of.items() if one and one.verdict == "better"]
    worse = {(arm, goal) for goal, of in primary.items() for arm, one in of.items() if one and one.verdict == "worse"}
    winners = {arm for arm, _ in better} - {arm for arm, _ in worse}
    if winners:
        open_rails = sorted({one.goal for one in rails if one.state == "watch" and one.arm in winners})
        if open_rails:
            return "go on", (
                f"{' and '.join(sorted(winners))} is better, but it is not known yet whether "
                f"{' and '.join(open_rails)} suffers."
            )
        best = max(winners, key=lambda arm: max(one.belief.best for of in primary.values()
                                                if (one := of[arm]) and one.belief))  # fmt: skip
        return "decide", f"{best} is better: take it. The intervals hold whenever the experiment is stopped."
    if len({arm for arm, _ in worse}) == len(definition.arms) - 1:
        return "decide", f"No arm is better than {definition.control}: keep it."
    planned = definition.planned_units * len(definition.arms) / 2
    if units >= 3 * planned:
        return "decide", (
            f"No arm is told from {definition.control} after three times the planned units: the effect, if there is "
            f"one, lies "
            f"within the intervals. Keep {definition.control}, or what costs less."
        )
    return "go on", f"Nothing is decided yet: {units:,} units of {planned:,.0f} planned."


def _notes(units: Units) -> Iterator[str]:
    definition = units.definition
    varying = units.frame.groupby(["phase", "holdback", pd.Series(units.arm)])["propensity"].nunique().max() > 1
    if definition.allocation.adaptive:
        yield (
            f"Units were allocated adaptively ({definition.allocation.name}): each counts as one over the probability "
            "with which it got its arm (inverse propensity weights), arms are compared within phases only, and the "
            "phases are combined. Plain averages over the whole time would mix the arms with the times at which they "
            "were given."
        )
        if units.frame["holdback"].any():
            yield "The holdback was assigned by fixed shares throughout: its comparison is unbiased by design."
        else:
            yield "There is no holdback: nothing stands beside the weighted comparison to check it by."
    elif varying:
        yield "Propensities differ from unit to unit: each unit counts as one over its propensity."
    if units.frame["phase"].nunique() > 1:
        yield "Allocation or targeting changed: comparisons are made within phases and combined."
    if units.clustered:
        yield "Visitors have several units: errors are clustered by visitor."
    if units.scored:
        scores = ", ".join(units.scored)
        yield f"Scores before the exposure ({scores}) take away what they explain of the outcome (CUPED)."
    if units.forced:
        yield "Units for which a person tested a variant are left out."


def _unknown(units: Units, goal: Goal) -> tuple[int | None, ...]:
    missing = np.isnan(units.frame[goal.column].to_numpy())
    counts = np.bincount(units.arm[missing], minlength=len(units.definition.arms))
    return tuple(0 if not count else _told(count) for count in counts)


def _told(count: int) -> int | None:
    return int(count) if count >= LEAST_UNITS else None


def judged_json(one: Judged | None) -> dict[str, Any] | None:
    """A result as plain values; None where it rests on too few units."""
    if one is None:
        return None
    effect = one.effect
    return {
        "units": effect.units, "control_units": effect.control_units, "mean": effect.mean,
        "control_mean": effect.control_mean, "difference": effect.difference, "difference_error": effect.error,
        "lift": effect.lift, "always_valid": [one.low, one.high], "single_look": [one.fixed_low, one.fixed_high],
        "p": one.p, "adjusted_p": one.adjusted_p, "single_look_p": one.fixed_p, "verdict": one.verdict,
        "narrowed": effect.narrowed, "phases": effect.phases, "phases_differ_p": effect.differ_p,
        "belief": asdict(one.belief) if one.belief else None, "holdback": judged_json(one.holdback),
    }  # fmt: skip


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

"""One effect judged: intervals that hold at every look, p-values corrected for all that was asked, a verdict.

In: effects of `Units` by goal and arm. Out: `Judged`, or None for what rests on fewer than 50 units of an arm.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TypeAlias

from features.experiments import Experiment
from features.judging.effects import Effect
from features.judging.sequential import fixed_p
from features.judging.verdicts import Method, Verdict, corrected, interval, p_value, verdict
from training.experiments.bayes import Belief, beliefs
from training.experiments.effects import effects
from training.experiments.table import Units

_SINGLE_LOOK: Final = 1.959963984540054

# By goal and arm.
Verdicts: TypeAlias = "dict[str, dict[str, Judged | None]]"


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


def judge(effect: Effect, belief: Belief | None, definition: Experiment, planned_units: float | None = None) -> Judged:
    """One effect by itself, not corrected for others yet."""
    low, high = interval(effect, definition, planned_units)
    fixed_low, fixed_high = effect.lift_interval(_SINGLE_LOOK)
    p = p_value(effect, definition, planned_units)
    said = verdict(effect, p, definition.alpha)
    return Judged(effect, low, high, fixed_low, fixed_high, p, p, float(fixed_p(effect.z)), said, belief)


def judge_all(units: Units) -> Verdicts:
    """Every goal and arm, corrected for all that were asked."""
    definition = units.definition
    found: Verdicts = {}
    for goal in definition.goals:
        compared = effects(units, goal)
        held = beliefs(compared, definition.alpha)
        found[goal.name] = {
            arm: judge(effect, belief, definition) if effect else None
            for arm, effect, belief in zip(definition.arms[1:], compared, held, strict=True)
        }
    methods: dict[bool, Method] = {True: "holm", False: "fdr_bh"}
    for primary, method in methods.items():
        correct([found[goal.name] for goal in definition.goals if goal.primary == primary], method, definition.alpha)
    return found


def correct(families: list[dict[str, Judged | None]], method: Method, alpha: float) -> None:
    """Adjust the p-values of all these results together."""
    places = [(family, arm) for family in families for arm, one in family.items() if one is not None]
    results = [family[arm] for family, arm in places]
    adjusted = corrected([one.p for one in results if one], method)
    for (family, arm), one, p in zip(places, results, adjusted, strict=True):
        assert one is not None
        family[arm] = replace(one, adjusted_p=p, verdict=verdict(one.effect, p, alpha))


def with_holdback(judged: Verdicts, held: Verdicts) -> Verdicts:
    """Verdicts, each with the one among the holdback alone."""
    return {
        goal: {arm: replace(one, holdback=held[goal][arm]) if one else None for arm, one in of.items()}
        for goal, of in judged.items()
    }


def invalidated(one: Judged | None) -> Judged | None:
    """The same, not to be believed."""
    return replace(one, verdict="invalid", holdback=invalidated(one.holdback)) if one else None


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

"""What an effect says: an interval and a p-value that hold at every look, corrected for all that was asked, in a word.

In: effects of arms by goal. Out: `Result`s, or None for what rests on fewer than 50 units of an arm. A finished report
and a running service say the same of the same sums, because they say it by this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from features.experiments import Experiment
from features.judging.effects import Effect
from features.judging.sequential import always_valid_p, critical_value

Verdict = Literal["better", "worse", "open", "invalid"]
Method = Literal["holm", "fdr_bh"]
# Of primary goals, which decide, none may be wrong; of the others as few as possible among those that say something.
_METHODS: Final[Mapping[bool, Method]] = {True: "holm", False: "fdr_bh"}


@dataclass(frozen=True)
class Result:
    """One arm and one goal.

    low, high: the lift's interval, p: the p-value, both always valid; adjusted_p: corrected for all arms and goals that
    are asked (primary: Holm, others: Benjamini-Hochberg). verdict: what that says at the experiment's alpha, in the
    wanted direction.
    """

    effect: Effect
    low: float
    high: float
    p: float
    adjusted_p: float
    verdict: Verdict


# By goal and arm.
Results: TypeAlias = "dict[str, dict[str, Result | None]]"


def interval(effect: Effect, definition: Experiment, planned_units: float | None = None) -> tuple[float, float]:
    """The lifts that are not ruled out at any look; planned_units: where it is narrowest, the definition's if None."""
    planned = planned_units or definition.planned_units
    return effect.lift_interval(float(critical_value(effect.effective_units, planned, definition.alpha)))


def p_value(effect: Effect, definition: Experiment, planned_units: float | None = None) -> float:
    """The p-value that belongs to `interval`."""
    planned = planned_units or definition.planned_units
    return float(always_valid_p(effect.z, effect.effective_units, planned, definition.alpha))


def corrected(p_values: Sequence[float], method: Method) -> list[float]:
    """The p-values of questions that are asked together, each as if it was the only one.

    >>> corrected([0.01, 0.04], "holm"), corrected([0.02], "fdr_bh")
    ([0.02, 0.04], [0.02])
    """
    if len(p_values) < 2:
        return list(p_values)
    # a service that asks one question needs neither its 18 MB nor the time to load it
    from statsmodels.stats.multitest import multipletests  # noqa: PLC0415

    return [float(p) for p in multipletests(p_values, method=method)[1]]


def verdict(effect: Effect, p: float, alpha: float) -> Verdict:
    """What a p-value says."""
    if p > alpha:
        return "open"
    return "better" if effect.difference * effect.goal.sign > 0 else "worse"


def results(compared: Mapping[str, Mapping[str, Effect | None]], definition: Experiment) -> Results:
    """Every goal and arm, corrected for all that were asked; compared: by goal and arm."""
    found: Results = {goal: dict.fromkeys(of) for goal, of in compared.items()}
    for primary, method in _METHODS.items():
        asked = [
            (goal.name, arm, effect)
            for goal in definition.goals if goal.primary == primary
            for arm, effect in compared[goal.name].items() if effect is not None
        ]  # fmt: skip
        p_values = [p_value(effect, definition) for _, _, effect in asked]
        for (goal_name, arm, effect), p, adjusted in zip(asked, p_values, corrected(p_values, method), strict=True):
            low, high = interval(effect, definition)
            said = verdict(effect, adjusted, definition.alpha)
            found[goal_name][arm] = Result(effect, low, high, p, adjusted, said)
    return found

"""Guardrails: goals that must not suffer, each arm held to a bound on each side that holds at every look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from features.experiments import Experiment, Guardrail
from features.judging.effects import Effect
from features.judging.sequential import one_sided_critical_value


@dataclass(frozen=True)
class Rail:
    """A guardrail and an arm: lift in the wanted direction, and bounds each of which holds at all looks.

    state: ok, surely no worse than `worst`; broken, surely worse than that; watch, not known yet.
    """

    goal: str
    arm: str
    worst: float
    lift: float | None
    low: float | None
    high: float | None
    state: Literal["ok", "watch", "broken"]


def guard(rail: Guardrail, effect: Effect | None, arm: str, definition: Experiment) -> Rail:
    """One guardrail of one arm."""
    if effect is None:
        return Rail(rail.goal, arm, rail.worst, None, None, None, "watch")
    critical = one_sided_critical_value(effect.effective_units, definition.planned_units, definition.alpha)
    low, high = effect.lift_interval(float(critical))
    sign = effect.goal.sign
    low, high = (low, high) if sign > 0 else (-high, -low)
    state: Literal["ok", "watch", "broken"] = "ok" if low > rail.worst else "broken" if high < rail.worst else "watch"
    return Rail(rail.goal, arm, rail.worst, sign * effect.lift, low, high, state)

"""What a report says in words: what to do and why, and how its figures were made."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from features.experiments import Experiment
from features.judging.rails import Rail
from training.experiments.srm import Ratio
from training.experiments.table import Units
from training.experiments.verdicts import Verdicts


def advice_of(
    definition: Experiment,
    judged: Verdicts,
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


def notes_on(units: Units) -> Iterator[str]:
    """How the figures were made, as far as it is not the same for all."""
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

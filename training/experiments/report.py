"""The report of an experiment as one HTML page that loads nothing: from what to do down to every number.

In: an `Analysis`. Out: HTML. Groups of fewer than 50 units are a dash; so is what is not defined.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from features.experiments import LEAST_UNITS
from features.judging.ratio import ALARM
from training.document import document, figure_html, figures, folded, heading, sentence, table, tiles
from training.experiments import figures as drawn
from training.experiments.analysis import Analysis
from training.experiments.verdicts import Judged
from training.pages import number

DASH: Final = "–"
_GUARD: Final = {"ok": "no worse than allowed", "watch": "not known yet", "broken": "surely worse than allowed"}


def report_page(found: Analysis) -> str:
    """The whole page."""
    definition = found.definition
    do, why = found.advice
    sections = [
        heading(definition.name or found.key, 1, verdict=do, good=do != "stop"),
        *([sentence(f"Hypothesis: {definition.hypothesis}")] if definition.hypothesis else []),
        sentence(why),
        tiles(_headlines(found)),
        *_goals(found),
        *_over_time(found),
        *_guardrails(found),
        *_ratios(found),
        *_beliefs(found),
        *_by_risk(found),
        *_how(found),
    ]
    return document(f"Lotse: {definition.name or found.key}", sections)


def _headlines(found: Analysis) -> list[tuple[str, str]]:
    told = [count for count in found.counts if count is not None]
    numbers = [(f"{sum(told):,}", f"{found.definition.unit}s in {len(found.counts)} arms")]
    if found.first is not None and found.last is not None:
        days = (found.last - found.first) / 86_400_000
        numbers.append((f"{days:.1f} days", f"from {_day(found.first)} to {_day(found.last)} UTC"))
    for goal in found.definition.goals:
        if goal.primary:
            for arm, one in found.judged[goal.name].items():
                if one:
                    numbers.append((percent(one.effect.lift), f"{goal.name}, {arm}: {interval(one.low, one.high)}"))
    return numbers


def _goals(found: Analysis) -> list[str]:
    definition = found.definition
    head = (
        "goal", "arm", "units", "mean", "control", "lift", f"always valid, {1 - definition.alpha:.0%}", "p, corrected",
        "verdict",
    )  # fmt: skip
    lines, marked = [], []
    for goal in definition.goals:
        for arm, one in found.judged[goal.name].items():
            lines.append([f"{goal.name}{' (primary)' if goal.primary else ''}", arm, *cells(one, goal.kind)])
            marked.append(bool(one and one.verdict in ("worse", "invalid")))
    parts = [
        heading("Effects"),
        sentence(
            f"Means after the exposure; the control is {definition.control}. The intervals hold at every look: stop "
            "whenever you like. p-values are corrected for all arms and goals that are asked (primary ones by Holm, "
            "the others by Benjamini-Hochberg)."
        ),
        table(head, lines, marked),
        _drawn(list(drawn.lifts(found))),
        folded("As if this were the only look, planned before", _single_look(found)),
    ]
    if any(one and one.holdback for of in found.judged.values() for one in of.values()):
        parts += [
            heading("In the holdback alone", 3),
            sentence("Assigned by fixed shares throughout, so unbiased by design: the rest must fit to it."),
            table(head, [
                [goal.name, arm, *cells(one.holdback if one else None, goal.kind)]
                for goal in definition.goals for arm, one in found.judged[goal.name].items()
            ]),
        ]  # fmt: skip
    return parts


def cells(one: Judged | None, kind: str) -> list[str]:
    """A line of the table of effects: units, mean, control, lift, interval, corrected p, verdict."""
    if one is None:
        return [f"< {LEAST_UNITS}", *[DASH] * 5, "too few units"]
    effect = one.effect
    return [
        f"{effect.units:,}", _mean(effect.mean, kind), _mean(effect.control_mean, kind), percent(effect.lift),
        interval(one.low, one.high), p_value(one.adjusted_p), one.verdict,
    ]  # fmt: skip


def _single_look(found: Analysis) -> str:
    lines = [
        [
            goal, arm, interval(one.fixed_low, one.fixed_high), p_value(one.fixed_p),
            f"{one.effect.narrowed:.1%}" if np.isfinite(one.effect.narrowed) else DASH,
            p_value(one.effect.differ_p), str(one.effect.phases),
        ]
        for goal, of in found.judged.items() for arm, one in of.items() if one
    ]  # fmt: skip
    head = ("goal", "arm", "95 % interval", "p", "variance taken away by scores", "phases differ, p", "phases")
    return table(head, lines)


def _over_time(found: Analysis) -> list[str]:
    pictures = list(drawn.over_time(found))
    if not pictures:
        return []
    return [
        heading("Over time"),
        sentence(
            f"The lift as units came. In {1 - found.definition.alpha:.0%} of all experiments, the interval never "
            "leaves out the true lift."
        ),
        _drawn(pictures),
    ]  # fmt: skip


def _guardrails(found: Analysis) -> list[str]:
    if not found.rails:
        return []
    lines = [
        [
            rail.goal, rail.arm, f"{rail.worst:+.0%}", percent(rail.lift), percent(rail.low), percent(rail.high),
            rail.state, _GUARD[rail.state],
        ]
        for rail in found.rails
    ]  # fmt: skip
    head = ("goal", "arm", "allowed", "change", "surely above", "surely below", "state", "which means")
    return [
        heading("Guardrails"),
        sentence("Changes in the wanted direction; each bound is one-sided and holds at every look."),
        table(head, lines, [rail.state == "broken" for rail in found.rails]),
    ]


def _ratios(found: Analysis) -> list[str]:
    alarm = any(one.alarm for one in found.ratios)
    lines = [
        [
            f"{one.phase}{', holdback' if one.holdback else ''}",
            *(
                f"< {LEAST_UNITS}"
                if count < LEAST_UNITS
                else f"{count:,}"
                if one.small
                else f"{count:,} of {wanted:,.0f}"
                for count, wanted in zip(one.units, one.expected, strict=True)
            ),
            *([DASH, DASH] if one.small else [p_value(one.p), p_value(one.always_valid_p)]),
            "alarm" if one.alarm else "ok",
        ]
        for one in found.ratios
    ]
    unknown = [
        ", ".join(f"{goal}, {arm}: {_count(n)}" for arm, n in zip(found.definition.arms, of, strict=True))
        for goal, of in found.unknown.items() if any(n != 0 for n in of)
    ]  # fmt: skip
    return [
        heading("Sample ratio", verdict="alarm" if alarm else "ok", good=not alarm),
        sentence(
            f"Units of each arm beside those expected. p below {ALARM:g} is an alarm: units were lost or doubled in an "
            "arm, and those left are not comparable. The other p holds however often one looks."
        ),
        table(
            ("phase", *found.definition.arms, "p", "p at all looks", "state"), lines, [x.alarm for x in found.ratios]
        ),
        *([sentence(f"Outcome not known yet, units: {'; '.join(unknown)}.")] if unknown else []),
    ]


def _beliefs(found: Analysis) -> list[str]:
    lines = [
        [goal, arm, percent(one.belief.lift), interval(one.belief.low, one.belief.high), chance(one.belief.better),
         chance(one.belief.best), f"{one.belief.loss:.2%}"]
        for goal, of in found.judged.items() for arm, one in of.items() if one and one.belief
    ]  # fmt: skip
    if not lines:
        return []
    head = ("goal", "arm", "lift", "credible interval", "better than the control", "best of all arms", "expected loss")
    return [
        heading("What to believe"),
        sentence(
            "The same effects after a prior that two of three changes move a goal by less than 10 %. The expected "
            "loss is the lift given away on average by taking this arm. These probabilities are for weighing, not for "
            "stopping: who stops as soon as one is high stops too often."
        ),
        table(head, lines),
        _drawn(
            [figure for goal, of in found.judged.items() for figure in drawn.belief(goal, of, found.definition.alpha)]
        ),
    ]


def _by_risk(found: Analysis) -> list[str]:
    pictures = [figure for one in found.differing for figure in drawn.by_risk(one)]
    if not pictures:
        return []
    return [
        heading("By risk at the trigger"),
        sentence(
            "Units in ten equal groups of their score when they were exposed: whom does it help? Intervals hold at "
            "every look; colours say what is left after correcting for the ten groups (Holm). Groups of fewer than "
            f"{LEAST_UNITS} units an arm are left out."
        ),
        _drawn(pictures),
    ]


def _how(found: Analysis) -> list[str]:
    planned = found.definition.planned_units
    notes = [
        *found.notes,
        f"Always-valid intervals are tuned to be narrowest at {planned:,} units of two arms (planned_units).",
    ]
    if found.clusters is not None:
        notes.append(f"{found.clusters:,} visitors.")
    return [heading("How it was computed"), *map(sentence, notes)]


def _drawn(pictures: list[Any]) -> str:
    """Figures side by side, one alone over the whole width."""
    return figure_html(pictures[0]) if len(pictures) == 1 else figures(pictures)


def interval(low: float, high: float) -> str:
    """An interval of lifts.

    >>> interval(-0.012, 0.03), interval(float("-inf"), float("inf"))
    ('-1.2 % to +3.0 %', 'not known')
    """
    return f"{percent(low)} to {percent(high)}" if np.isfinite([low, high]).all() else "not known"


def percent(share: float | None) -> str:
    """A signed share; a dash for what is not known.

    >>> percent(0.05), percent(None)
    ('+5.0 %', '–')
    """
    return f"{100 * share:+.1f} %" if share is not None and np.isfinite(share) else DASH


def p_value(p: float) -> str:
    """A p-value.

    >>> p_value(0.0312), p_value(0.00001), p_value(float("nan"))
    ('0.031', '< 0.0001', '–')
    """
    if not np.isfinite(p):
        return DASH
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def chance(probability: float) -> str:
    """A probability that is never quite 0 or 1.

    >>> chance(0.973), chance(0.99999)
    ('97.3 %', '> 99.9 %')
    """
    if probability > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if probability < 0.001 else f"{100 * probability:.1f} %"


def _count(units: int | None) -> str:
    return f"< {LEAST_UNITS}" if units is None else f"{units:,}"


def _mean(mean: float, kind: str) -> str:
    return f"{100 * mean:.2f} %" if kind == "binary" else number(mean)


def _day(time_ms: float) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d")

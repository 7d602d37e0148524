"""What `lotse experiment` prints: verdicts, plans, assignments, values of policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from features.experiments import LEAST_UNITS, Experiment
from training.experiments.report import cells, interval, p_value, percent

if TYPE_CHECKING:
    from training.experiments.analysis import Analysis
    from training.experiments.planning import Plan


def show_analysis(console: Console, found: Analysis) -> None:
    """The verdict: effects, guardrails, ratios."""
    do, why = found.advice
    colour = {"stop": "red", "decide": "green"}.get(do, "yellow")
    console.print(
        f"[bold]{escape(found.definition.name or found.key)}[/]: [{colour}]{do}[/]. {escape(why)}", soft_wrap=True
    )
    heads = ("goal", "arm", "units", "mean", "control", "lift", "always valid", "p", "verdict")
    shown = Table(*heads, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for goal in found.definition.goals:
        for arm, one in found.judged[goal.name].items():
            shown.add_row(escape(goal.name), escape(arm), *cells(one, goal.kind))
    console.print(shown)
    for rail in found.rails:
        bounds = interval(rail.low, rail.high) if rail.low is not None and rail.high is not None else "too few units"
        console.print(
            f"guardrail {rail.goal}, {rail.arm}: {rail.state} ({bounds}; allowed {percent(rail.worst)})", markup=False
        )
    for ratio in found.ratios:
        state = "[red]alarm[/]" if ratio.alarm else "ok"
        where = f"phase {ratio.phase}{' holdback' if ratio.holdback else ''}"
        console.print(f"sample ratio, {where}: {state}" + ("" if ratio.small else f", p {p_value(ratio.p)}"))
    for note in found.notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)


def show_plan(console: Console, found: Plan, goal: str) -> None:
    """How long an experiment takes."""
    base = found.baseline
    console.print(
        f"{goal}: mean {base.mean:.4g}, sd {base.sd:.4g} of {base.units:,} units in {base.days:.1f} days "
        f"({base.units_per_day:,.0f} a day); the scores know {base.known:.1%} of its variance"
        + (f"; visitors' units count {1 / base.design_effect:.0%}" if base.design_effect > 1 else ""),
        markup=False, soft_wrap=True,
    )  # fmt: skip
    shown = Table(
        "lift to find",
        "one look: units",
        "days",
        "all the time: units",
        "days",
        "half need units",
        "days",
        title=f"To find a lift with power {found.power:.0%}",
        title_justify="left",
        box=SIMPLE,
    )
    for one in found.needed:
        shown.add_row(
            f"{one.lift:+.1%}", f"{one.units:,}", f"{one.days:,.0f}", f"{one.sequential_units:,}",
            f"{one.sequential_days:,.0f}", f"{one.median_units:,}", f"{one.median_days:,.0f}",
        )  # fmt: skip
    console.print(shown)
    shown = Table(
        "weeks",
        "units",
        "one look",
        "all the time",
        title="The least lift that so many weeks find",
        title_justify="left",
        box=SIMPLE,
    )
    for line in found.found:
        shown.add_row(str(line.weeks), f"{line.units:,}", f"{line.lift:.1%}", f"{line.sequential_lift:.1%}")
    console.print(shown)
    if len(found.needed) == 1:
        planned = round(2 * found.needed[0].units / found.arms)
        console.print(
            f'put "planned_units": {planned} into the definition: intervals are narrowest there', markup=False
        )
    console.print(f"power {found.power:.0%}, alpha {found.alpha:g} over {found.comparisons} comparisons", style="dim")


def show_assigned(console: Console, units: pd.DataFrame, experiments: Mapping[str, Experiment]) -> None:
    """What was assigned in each phase: how many units an arm got, with which probability, when."""
    shown = Table("experiment", "phase", "arm", "units", "held back", "propensity", "exposed", box=SIMPLE)
    shown.columns[3].justify = shown.columns[4].justify = "right"
    for key, definition in experiments.items():
        of = units[(units["experiment"] == key) & ~units["forced"].astype(bool)]
        for phase in sorted(of["phase"].unique()):
            for arm in definition.arms:
                here = of[(of["phase"] == phase) & (of["arm"] == arm)]
                shown.add_row(escape(key), str(phase), escape(arm), *_assigned(here))
        if of.empty:
            shown.add_row(escape(key), "", "", "none yet", "", "", "")
    console.print(shown)


def _assigned(here: pd.DataFrame) -> tuple[str, str, str, str]:
    """Cells of one arm in one phase; of few units nothing but that they are few."""
    if len(here) < LEAST_UNITS:
        return f"< {LEAST_UNITS}", "", "", ""
    held, low, high = int(here["holdback"].sum()), here["propensity"].min(), here["propensity"].max()
    first, last = (
        pd.Timestamp(moment, unit="ms").date() for moment in (here["exposed_at"].min(), here["exposed_at"].max())
    )
    return (
        f"{len(here):,}",
        f"{held:,}" if held == 0 or held >= LEAST_UNITS else f"< {LEAST_UNITS}",
        f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}",
        f"{first}" if first == last else f"{first} to {last}",
    )


def show_value(console: Console, found: pd.DataFrame, policy: str, goal: str) -> None:
    """What another policy would have brought, by each estimator."""
    names = {"logged": "what was", "DR": "DR (use this)"}
    shown = Table(
        "estimate", f"{goal} per unit", "95 %", "effective units", "heaviest", box=SIMPLE, title_justify="left"
    )
    shown.title = escape(policy)
    for one in found.to_dict("records"):
        name = one["estimator"]
        told = () if name == "logged" else (f"{one['effective']:,.0f}", f"{one['heaviest']:.1%}")
        shown.add_row(names.get(name, name), f"{one['value']:.4f}", f"{one['low']:.4f} to {one['high']:.4f}", *told)
    console.print(shown)
    if (found.loc[found["estimator"] != "logged", "heaviest"] > 0.05).any():
        console.print("one unit has over 5 % of the weight: these units cannot answer the question", style="yellow")

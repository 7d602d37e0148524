"""`lotse experiment`: plan one, check its definition, report on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from features.experiments import Experiment
    from training.experiments.analysis import Analysis
    from training.experiments.planning import Plan

experiment_app = typer.Typer(help="Plan experiments and judge them.", no_args_is_help=True)

_CONFIG: Final = Path("configs/experiments.json")
Table = Annotated[Path, typer.Option("--table", help="Units: a Parquet file, a folder of them, or CSV.")]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="Where a column has another name: ours=theirs. Repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@experiment_app.callback()
def _experiment() -> None:
    """Plan experiments and judge them."""


@experiment_app.command()
def check(
    config: Annotated[Path, typer.Option(help="Where experiments are defined.")] = _CONFIG,
) -> None:
    """Check the definitions; a bad one is named by its place. With flags and their rules: lotse flags check.

    For example: lotse experiment check
    """
    from features.experiments import load_experiments  # noqa: PLC0415

    for key, one in load_experiments(config).items():
        goals = ", ".join(f"{goal.name}{' (primary)' if goal.primary else ''}" for goal in one.goals)
        typer.echo(f"{key}: {' | '.join(one.arms)}; {goals}")


@experiment_app.command()
def report(
    table: Table,
    experiment: Annotated[str | None, typer.Option(help="Its key; may be left out if only one is defined.")] = None,
    config: Annotated[Path, typer.Option(help="Where experiments are defined.")] = _CONFIG,
    column: Columns = None,
    arms: Annotated[
        str | None, typer.Option(help="A foreign table: its arms, the control first, e.g. gate_30,gate_40.")
    ] = None,
    goal: Annotated[
        list[str] | None,
        typer.Option(help="A foreign table: column[:binary|numeric|revenue[:lower]]. Repeatable; the first decides."),
    ] = None,
    shares: Annotated[str | None, typer.Option(help="A foreign table: shares of the arms, e.g. 0.9,0.1.")] = None,
    planned_units: Annotated[
        int | None, typer.Option(help="A foreign table: units of two arms at which intervals shall be narrowest.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the page here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge an experiment: effects, guardrails, sample ratio, by risk, and what to do.

    For example: lotse experiment report --table units/ --experiment banner --out banner.html
    A foreign table: lotse experiment report --table ab.csv --column arm=version --arms old,new --goal bought
    """
    from rich.console import Console  # noqa: PLC0415  (training's imports take seconds; --help must not)

    from training.experiments.analysis import analyse  # noqa: PLC0415
    from training.experiments.report import report_page  # noqa: PLC0415
    from training.experiments.table import read_table, units_of  # noqa: PLC0415

    columns = _columns(column)
    if arms or goal:
        key = experiment or table.name.partition(".")[0]
        definition = _foreign(key, arms, goal or [], shares, planned_units)
    else:
        key, definition = _defined(config, experiment)
    found = analyse(units_of(read_table(table, key), key, definition, columns), key)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(report_page(found))
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        _show(Console(), found)
        if out:
            typer.echo(f"the page: {out}")


@experiment_app.command()
def plan(
    table: Table,
    goal: Annotated[str, typer.Option(help="Its column in the table.")],
    lift: Annotated[list[float] | None, typer.Option(help="A lift to find, e.g. 0.05. Repeatable.")] = None,
    arm: Annotated[str | None, typer.Option(help="Take the outcome from this arm of an earlier experiment.")] = None,
    arms: Annotated[int, typer.Option(min=2, help="Arms, the control included.")] = 2,
    goals: Annotated[int, typer.Option(min=1, help="Primary goals.")] = 1,
    traffic: Annotated[float, typer.Option(min=0.001, max=1, help="Share of the units that take part.")] = 1.0,
    power: Annotated[float, typer.Option(min=0.5, max=0.99, help="How surely a lift shall be found.")] = 0.8,
    alpha: Annotated[float, typer.Option(min=0.001, max=0.2, help="Errors allowed.")] = 0.05,
    unit: Annotated[str, typer.Option(help="What will be assigned: session or visitor.")] = "session",
    where: Annotated[
        list[str] | None, typer.Option(help="Only these rows: column=value, e.g. experiment=banner. Repeatable.")
    ] = None,
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """How many units and days an experiment takes, from earlier units.

    For example: lotse experiment plan --table units/ --arm control --goal purchases --lift 0.05
    """
    from dataclasses import asdict  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from features.settings import SettingsError  # noqa: PLC0415
    from training.experiments.planning import LIFTS, baseline_of  # noqa: PLC0415
    from training.experiments.planning import plan as make_plan  # noqa: PLC0415
    from training.experiments.table import read_table  # noqa: PLC0415

    if unit not in ("session", "visitor"):
        raise SettingsError(f"unit {unit!r} is neither session nor visitor")
    history = read_table(table)
    for name, value in _columns(where, "--where experiment=banner").items():
        if name not in history:
            raise SettingsError(f"--where: the table has no column {name!r}; it has {', '.join(history.columns)}")
        history = history[history[name].astype(str) == value]
    baseline = baseline_of(history, goal, _columns(column), arm=arm, by_visitor=unit == "visitor")
    found = make_plan(baseline, lift or LIFTS, arms=arms, goals=goals, traffic=traffic, alpha=alpha, power=power)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        _show_plan(Console(), found, goal)


def _columns(given: list[str] | None, example: str = "--column arm=version") -> dict[str, str]:
    from features.settings import SettingsError  # noqa: PLC0415

    pairs = [one.partition("=") for one in given or []]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise SettingsError(f"cannot read {name + equals + value!r}; write it as {example}")
    return {name: value for name, _, value in pairs}


def _defined(config: Path, key: str | None) -> tuple[str, Experiment]:
    from features.experiments import load_experiments  # noqa: PLC0415
    from features.settings import SettingsError  # noqa: PLC0415

    defined = load_experiments(config)
    if key is None and len(defined) == 1:
        (key,) = defined
    if key is None or key not in defined:
        wanted = f"no experiment {key!r}" if key else "which experiment?"
        raise SettingsError(f"{wanted}; {config} defines: {', '.join(defined) or 'none'}")
    return key, defined[key]


def _foreign(key: str, arms: str | None, goals: list[str], shares: str | None, planned_units: int | None) -> Experiment:
    """A definition made of options."""
    from features.experiments import parse_experiments  # noqa: PLC0415
    from features.settings import SettingsError  # noqa: PLC0415

    if not arms or not goals:
        raise SettingsError(
            "a foreign table needs both --arms, the control first, and --goal; e.g. --arms old,new --goal bought"
        )
    tree: dict[str, Any] = {"arms": arms.split(","), "goals": []}
    for place, text in enumerate(goals):
        name, _, rest = text.partition(":")
        kind, _, better = rest.partition(":")
        tree["goals"].append(
            {"name": name, "kind": kind or "binary", "better": better or "higher", "primary": place == 0}
        )
    if planned_units:
        tree["planned_units"] = planned_units
    if shares:
        try:
            tree["shares"] = [float(share) for share in shares.split(",")]
        except ValueError:
            raise SettingsError(f"--shares {shares!r} must be numbers, e.g. 0.9,0.1") from None
    return parse_experiments({key: tree}, "the options")[key]


def _show(console: Console, found: Analysis) -> None:
    from rich.box import SIMPLE  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415

    from training.experiments.report import cells, interval, p_value, percent  # noqa: PLC0415

    do, why = found.advice
    colour = {"stop": "red", "decide": "green"}.get(do, "yellow")
    console.print(
        f"[bold]{escape(found.definition.name or found.key)}[/]: [{colour}]{do}[/]. {escape(why)}", soft_wrap=True
    )
    heads = ("goal", "arm", "units", "mean", "control", "lift", "always valid", "p", "verdict")
    shown = RichTable(*heads, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
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


def _show_plan(console: Console, found: Plan, goal: str) -> None:
    from rich.box import SIMPLE  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415

    base = found.baseline
    console.print(
        f"{goal}: mean {base.mean:.4g}, sd {base.sd:.4g} of {base.units:,} units in {base.days:.1f} days "
        f"({base.units_per_day:,.0f} a day); the scores know {base.known:.1%} of its variance"
        + (f"; visitors' units count {1 / base.design_effect:.0%}" if base.design_effect > 1 else ""),
        markup=False, soft_wrap=True,
    )  # fmt: skip
    shown = RichTable(
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
    shown = RichTable(
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

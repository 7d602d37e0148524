"""`lotse experiment`: plan one, check its definition, see what was assigned, report on it, value other policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

experiment_app = typer.Typer(no_args_is_help=True)

_CONFIG: Final = Path("configs/experiments.json")
_CLOSED: Final = Path("lotse-data/closed")
Table = Annotated[Path | None, typer.Option("--table", help="Units: a Parquet file, a folder of them, or CSV.")]
Closed = Annotated[
    Path | None,
    typer.Option("--closed", help="In place of a table: sessions that are over, as the service writes them."),
]
Config = Annotated[Path, typer.Option(help="Where experiments are defined.")]
Key = Annotated[str | None, typer.Option(help="Its key; may be left out if only one is defined.")]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="Where a column has another name: ours=theirs. Repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@experiment_app.callback()
def _experiment() -> None:
    """Plan experiments and judge them: from a question to a decision.

    plan says how long it takes, check whether its definition in configs/experiments.json is sound, units what has been
    assigned, report what came of it and what to do (look whenever you like), value what another policy would have
    brought. docs/experiments.md goes through all of it.
    """


@experiment_app.command()
def check(config: Config = _CONFIG) -> None:
    """Check the definitions; a bad one is named by its place. With flags and their rules: lotse flags check.

    For example: lotse experiment check
    """
    from features.experiments import load_experiments  # noqa: PLC0415

    for key, one in load_experiments(config).items():
        goals = ", ".join(f"{goal.name}{' (primary)' if goal.primary else ''}" for goal in one.goals)
        typer.echo(f"{key}: {one.status}; {' | '.join(one.arms)}; {goals}")


@experiment_app.command()
def units(
    closed: Annotated[Path, typer.Option(help="Sessions that are over, as the service writes them.")] = _CLOSED,
    out: Annotated[
        Path | None, typer.Option(help="Write the table of units here: a .parquet file, or a folder for one.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Only this experiment; all that are defined by default.")
    ] = None,
    config: Config = _CONFIG,
) -> None:
    """Show what was assigned, by phase and arm, and write the units: a row for each that was exposed.

    Sessions that still run are not there yet: one is over half an hour after its last event.
    For example: lotse experiment units --closed lotse-data/closed --out units.parquet
    """
    from rich.console import Console  # noqa: PLC0415  (training's imports take seconds; --help must not)

    from features.experiments import load_experiments  # noqa: PLC0415
    from training.experiments.closed import units_of_closed  # noqa: PLC0415
    from training.experiments.inputs import definition_of, through  # noqa: PLC0415
    from training.experiments.terminal import show_assigned  # noqa: PLC0415

    defined = load_experiments(config)
    if experiment is not None:
        key, definition = definition_of(config, experiment)
        defined = {key: definition}
    found = units_of_closed(closed, defined, through)
    console = Console()
    show_assigned(console, found, defined)
    if out:
        path = out if out.suffix == ".parquet" else out / "units.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        found.to_parquet(path, index=False)
        console.print(f"{len(found):,} units -> [bold]{path}[/]", highlight=False)


@experiment_app.command()
def report(
    table: Table = None,
    closed: Closed = None,
    experiment: Key = None,
    config: Config = _CONFIG,
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

    Look whenever you like: the intervals hold at every look.

    For example: lotse experiment report --closed lotse-data/closed --experiment banner --out banner.html
    A foreign table: lotse experiment report --table ab.csv --column arm=version --arms old,new --goal bought
    """
    from rich.console import Console  # noqa: PLC0415

    from features.settings import SettingsError  # noqa: PLC0415
    from training.experiments.analysis import analyse  # noqa: PLC0415
    from training.experiments.inputs import columns_of, definition_of, definition_of_options, units_asked  # noqa: PLC0415
    from training.experiments.report import report_page  # noqa: PLC0415
    from training.experiments.table import read_table, units_of  # noqa: PLC0415
    from training.experiments.terminal import show_analysis  # noqa: PLC0415

    columns = columns_of(column)
    if arms or goal:
        if table is None:
            raise SettingsError("--arms and --goal are of a foreign table; give it: --table ab.csv")
        key = experiment or table.name.partition(".")[0]
        definition = definition_of_options(key, arms, goal or [], shares, planned_units)
        rows = read_table(table, key)
    else:
        key, definition = definition_of(config, experiment)
        rows = units_asked(table, closed, key, definition)
    found = analyse(units_of(rows, key, definition, columns), key)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(report_page(found))
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        show_analysis(Console(), found)
        if out:
            typer.echo(f"the page: {out}")


@experiment_app.command()
def plan(
    goal: Annotated[
        str,
        typer.Option(help="The outcome's column; of sessions also column[:binary|numeric|revenue], e.g. purchases."),
    ],
    table: Table = None,
    closed: Closed = None,
    lift: Annotated[list[float] | None, typer.Option(help="A lift to find, e.g. 0.05. Repeatable.")] = None,
    arm: Annotated[str | None, typer.Option(help="Take the outcome from this arm of an earlier experiment.")] = None,
    arms: Annotated[int, typer.Option(min=2, help="Arms, the control included.")] = 2,
    goals: Annotated[int, typer.Option(min=1, help="Primary goals.")] = 1,
    traffic: Annotated[float, typer.Option(min=0.001, max=1, help="Share of the units that take part.")] = 1.0,
    power: Annotated[float, typer.Option(min=0.5, max=0.99, help="How surely a lift shall be found.")] = 0.8,
    alpha: Annotated[float, typer.Option(min=0.001, max=0.2, help="Errors allowed.")] = 0.05,
    unit: Annotated[str, typer.Option(help="What will be assigned: session or visitor.")] = "session",
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only these rows, e.g. experiment=banner, or 'cart_adds>=1'. Repeatable."),
    ] = None,
    column: Columns = None,
    as_json: AsJson = False,
) -> None:
    """How many units and days an experiment takes, from what units, or all sessions, did before.

    Before the first experiment there are no units: plan with the sessions that would have been in it.

    For example: lotse experiment plan --closed lotse-data/closed --goal purchases --where 'cart_adds>=1' --lift 0.05
    From an earlier experiment: lotse experiment plan --table units.parquet --arm control --goal purchases --lift 0.05
    """
    from dataclasses import asdict  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from features.settings import SettingsError  # noqa: PLC0415
    from training.experiments.inputs import columns_of, history_asked  # noqa: PLC0415
    from training.experiments.planning import LIFTS, baseline_of  # noqa: PLC0415
    from training.experiments.planning import plan as make_plan  # noqa: PLC0415
    from training.experiments.terminal import show_plan  # noqa: PLC0415

    if unit not in ("session", "visitor"):
        raise SettingsError(f"unit {unit!r} is neither session nor visitor")
    history, goal = history_asked(table, closed, goal, where or ())
    baseline = baseline_of(history, goal, columns_of(column), arm=arm, by_visitor=unit == "visitor")
    found = make_plan(baseline, lift or LIFTS, arms=arms, goals=goals, traffic=traffic, alpha=alpha, power=power)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        show_plan(Console(), found, goal)


@experiment_app.command()
def value(
    policy: Annotated[
        str,
        typer.Option(
            help="An arm (everybody gets it), an allocation (fixed, thompson, contextual), or a file with a table."
        ),
    ],
    table: Table = None,
    closed: Closed = None,
    experiment: Key = None,
    goal: Annotated[str | None, typer.Option(help="Its name; the primary one by default.")] = None,
    score: Annotated[str | None, typer.Option(help="The score that the policy goes by, e.g. exit.")] = None,
    config: Config = _CONFIG,
    as_json: AsJson = False,
) -> None:
    """What another policy would have brought, estimated from the units of an experiment that ran another way.

    IPS, SNIPS and DR (doubly robust), with intervals over visitors; use DR. An allocation is learned from the earlier
    half of the units and valued on the later.
    For example: lotse experiment value --table units.parquet --experiment banner --policy contextual --score exit
    """
    from rich.console import Console  # noqa: PLC0415

    from features.settings import SettingsError  # noqa: PLC0415
    from training.experiments.inputs import definition_of, units_asked  # noqa: PLC0415
    from training.experiments.offpolicy import policy_value  # noqa: PLC0415
    from training.experiments.policy import policy_of  # noqa: PLC0415
    from training.experiments.terminal import show_value  # noqa: PLC0415

    key, definition = definition_of(config, experiment)
    names = [one.name for one in definition.goals]
    if goal is not None and goal not in names:
        raise SettingsError(f"unknown goal {goal!r} of {key}; goals: {', '.join(names)}")
    chosen = definition.goal(goal) if goal else next(one for one in definition.goals if one.primary)
    rows = units_asked(table, closed, key, definition)
    asked = policy_of(policy, key, definition, chosen, rows[rows["experiment"] == key], score)
    try:
        found = policy_value(asked.units, definition.arms, chosen.column, asked.table, asked.score)
    except ValueError as error:
        raise SettingsError(f"{key}: {error}") from None
    if as_json:
        typer.echo(
            json.dumps({"policy": asked.told, "goal": chosen.name, "estimates": found.to_dict("records")}, indent=2)
        )
    else:
        show_value(Console(), found, asked.told, chosen.name)

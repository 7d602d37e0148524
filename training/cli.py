"""`lotse train`: from a log to registered models, with progress and a summary in the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.settings import SettingsError

if TYPE_CHECKING:
    from distributed import Client
    from rich.table import Table

    from training.config import TrainingSettings
    from training.runs import Trained


def train(
    events: Annotated[
        str | None, typer.Option(help="The log: file, folder, pattern or URL; the section's own path by default.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="A source or a section of the shop configuration; log: what the service handed on.")
    ] = "lotse",
    config: Annotated[Path, typer.Option(help="Training configuration.")] = Path("configs/training.toml"),
    shop: Annotated[Path, typer.Option(help="Shop configuration.")] = Path("configs/shop.toml"),
    head: Annotated[
        list[str] | None, typer.Option(help="Only this head. Repeatable; those of heads.train by default.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=1, help="Evaluate on so many rolling folds, too: windows of the test's time.")
    ] = None,
    scheduler: Annotated[str, typer.Option(help="Grow the trees on the Dask cluster at, e.g., tcp://host:8786.")] = "",
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Grow the trees on a Dask cluster of this machine.")
    ] = False,
    units: Annotated[
        Path | None, typer.Option(help="With --head uplift: the table of an experiment's units, Parquet.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="With --head uplift: the experiment's key.")] = "",
    arm: Annotated[str, typer.Option(help="With --head uplift: the arm whose effect is learned.")] = "",
    goal: Annotated[str, typer.Option(help="With --head uplift: the outcome's column.")] = "",
    control: Annotated[str, typer.Option(help="With --head uplift: the arm beside it.")] = "control",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key, e.g. lightgbm.num_leaves=15. Repeatable.")
    ] = None,
) -> None:
    """Train models from a log: calibrated, evaluated beside baselines, registered in MLflow.

    A first version of a head is the champion at once; a later one is the challenger until lotse promote.

    For example: lotse train --source taobao --events UserBehavior.parquet --head exit --folds 3
    (lotse sources lists the sources, lotse inspect looks into a log, lotse tune searches parameters)

    From the sessions that the service has handed on (see docs/closed-loop.md): lotse train --source log

    Whom an arm persuades (see docs/uplift.md):
    lotse train --head uplift --units units.parquet --experiment sale --arm banner --goal purchases
    """
    from rich.console import Console  # noqa: PLC0415  (training's imports take seconds; --help must not)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    from training.config import load_training  # noqa: PLC0415
    from training.history import read_history  # noqa: PLC0415
    from training.session_log import SOURCE  # noqa: PLC0415

    if cluster and scheduler:
        raise SettingsError("--cluster starts a cluster on this machine, --scheduler uses another; give one of them")
    if source == SOURCE and (cluster or scheduler):
        raise SettingsError("a log of sessions is trained from on this machine; leave --cluster and --scheduler out")
    if head and "uplift" in head:
        if head != ["uplift"] or units is None or not (experiment and arm and goal):
            raise SettingsError(
                "the head uplift is learned from an experiment and trained alone: "
                "--head uplift --units units.parquet --experiment KEY --arm ARM --goal COLUMN"
            )
        _train_uplift(units, (experiment, arm, goal, control), load_training(config, tuple(set_ or ())))
        return
    chosen = [f"heads.train={json.dumps(head)}"] if head else []
    chosen += [f"split.folds={folds}"] if folds else []
    settings = load_training(config, (*(set_ or ()), *chosen))
    console = Console()
    table = read_history(source, events, shop, settings, console)

    from training.runs import train as run  # noqa: PLC0415
    from training.tracking import shown_uri, tracking_uri  # noqa: PLC0415

    columns = (TextColumn("{task.description:>22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, int] = {}

        def report(step: str, done: int, whole: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=whole)
            progress.update(tasks[step], completed=done)  # type: ignore[arg-type]

        with _cluster(scheduler, cluster) as client:
            trained, refused = run(table, settings, source, report, client)
    for task in _SHOWN:
        if of_task := [one for one in trained if one.task == task]:
            console.print(_summary(of_task, task))
    for reason in refused.values():
        console.print("[yellow]not trained:[/] ", end="")
        console.print(reason, markup=False)
    uri = shown_uri(tracking_uri(settings.tracking))
    console.print(f"look at the runs, plots and models:  mlflow ui --backend-store-uri {uri}")
    console.print("score live sessions with them:       lotse serve")


def _train_uplift(units: Path, question: tuple[str, str, str, str], settings: TrainingSettings) -> None:
    from rich.console import Console  # noqa: PLC0415

    from training.experiments.uplift_run import Question, train_uplift  # noqa: PLC0415

    experiment, arm, goal, control = question
    done = train_uplift(units, Question(experiment, arm, goal, control), settings)
    found, console = done.evaluation, Console()
    console.print(f"uplift v{done.version}: {arm} instead of {control}, on {goal}")
    lines = {"all": found.average, **{f"the first {share:.0%}": figure for share, figure in found.at.items()}}
    for name, one in lines.items():
        console.print(f"  effect on {name:<15} {one.value:+.4f} ({one.low:+.4f} to {one.high:+.4f})")
    console.print(
        f"  Qini                      {found.qini.value:+.5f} ({found.qini.low:+.5f} to {found.qini.high:+.5f})"
    )
    if not found.qini.low > 0:
        console.print(
            "[yellow]not shown to rank better than chance:[/] do not target by it; let the experiment run longer"
        )
    console.print(
        f"on {found.units:,} units of visitors it has not seen; serve it: --set 'models.heads=[..., \"uplift\"]'"
    )


@contextmanager
def _cluster(scheduler: str, cluster: bool) -> Iterator[Client | None]:
    """A client of the Dask cluster that was asked for."""
    if not cluster and not scheduler:
        yield None
        return
    from features.distributed import connect  # noqa: PLC0415

    client = connect(scheduler)
    try:
        yield client
    finally:
        if cluster:
            client.shutdown()
        client.close()


# task -> (column, header, format)
_SHOWN = {
    "binary": (
        ("auc", "AUC", ".3f"),
        ("pr_auc", "PR-AUC", ".3f"),
        ("log_loss", "log loss", ".4f"),
        ("brier", "Brier", ".3f"),
        ("ece", "ECE", ".3f"),
        ("lift_10", "lift", ".2f"),
    ),
    "value": (
        ("mae", "MAE", ".3f"),
        ("rmse", "RMSE", ".2f"),
        ("d2", "D2", ".3f"),
        ("spearman", "Spearman", ".3f"),
        ("ratio", "ratio", ".3f"),
        ("lift_10", "lift", ".2f"),
    ),
}
_CAPTIONS = {
    "binary": "lift: rate among the highest-scored 10 % over the base rate",
    "value": "ratio: expected over observed revenue; lift: revenue among the highest-scored 10 % over the mean",
}
_NAMES = {"lotse": "[bold]Lotse[/]", "logistic": "logistic", "pages": "pages so far", "base_rate": "base rate"}


def _summary(trained: list[Trained], task: str) -> Table:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(
        title="Test: later in time, other visitors; rows right after an event",
        title_justify="left",
        caption=_CAPTIONS[task],
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    table.add_column("head", no_wrap=True)
    table.add_column("model", no_wrap=True)
    for _, header, _ in _SHOWN[task]:
        table.add_column(header, justify="right")
    for one in trained:
        of = one.evaluation[one.evaluation["age"] == "events"].set_index("model")
        for place, model in enumerate(of.index):
            line = of.loc[model]
            first = (f"{one.head} v{one.version}", f"  {line['rows']:,} rows", f"  {line['base_rate']:.1%} yes")
            numbers = [format(line[column], form) for column, _, form in _SHOWN[task]]
            shown = _NAMES.get(model, model)
            table.add_row(first[place] if place < len(first) else "", shown, *numbers, end_section=place == len(of) - 1)
    return table

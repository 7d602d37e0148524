"""`lotse train`: from a log to registered models, with progress and a summary in the terminal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from training.pipeline import Trained


def train(
    events: Annotated[
        str | None, typer.Option(help="The log: file, folder, pattern or URL; the section's own path by default.")
    ] = None,
    source: Annotated[str, typer.Option(help="A source or a section of the shop configuration.")] = "lotse",
    config: Annotated[Path, typer.Option(help="Training configuration.")] = Path("configs/training.toml"),
    shop: Annotated[Path, typer.Option(help="Shop configuration.")] = Path("configs/shop.toml"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key, e.g. lightgbm.num_leaves=15. Repeatable.")
    ] = None,
) -> None:
    """Train bounce, conversion and exit models from a log and register them in MLflow.

    For example: lotse train --source taobao --events UserBehavior.parquet --set split.test_from=0.8
    (lotse sources lists the sources, lotse inspect looks into a log)
    """
    from rich.console import Console  # noqa: PLC0415  (training's imports take seconds; --help must not)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    from features.shop import load_shop  # noqa: PLC0415
    from features.sources.terminal import read_log  # noqa: PLC0415
    from training.config import load_training  # noqa: PLC0415

    settings = load_training(config, tuple(set_ or ()))
    console = Console()
    table = read_log(source, events, load_shop(shop), console)

    from training.pipeline import train as run  # noqa: PLC0415

    columns = (TextColumn("{task.description:>22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, int] = {}

        def report(step: str, done: int, whole: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=whole)
            progress.update(tasks[step], completed=done)  # type: ignore[arg-type]

        trained, refused = run(table, settings, source, report)
    console.print(_summary(trained))
    for reason in refused.values():
        console.print("[yellow]not trained:[/] ", end="")
        console.print(reason, markup=False)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking.uri
    console.print(f"look at the runs, plots and models:  mlflow ui --backend-store-uri {uri}")
    console.print("score live sessions with them:       lotse serve")


def _summary(trained: list[Trained]) -> Table:
    from rich.table import Table  # noqa: PLC0415

    table = Table(title="Test: later in time, other visitors; rows right after an event", title_justify="left")
    table.add_column("head")
    table.add_column("model")
    for name in ("AUC", "PR-AUC", "log loss", "Brier", "ECE"):
        table.add_column(name, justify="right")
    for one in trained:
        of = one.evaluation[one.evaluation["age"] == "events"].set_index("model")
        for model in of.index:
            line = of.loc[model]
            first = f"{one.head} (version {one.version})" if model == "lotse" else ""
            if model == "logistic":
                first = f"  {line['rows']:,} rows, {line['base_rate']:.1%} yes"
            label = {"lotse": "[bold]Lotse[/]", "logistic": "logistic", "base_rate": "base rate"}[model]
            numbers = [f"{line[name]:.3f}" for name in ("auc", "pr_auc")]
            numbers += [f"{line[name]:.4f}" for name in ("log_loss", "brier", "ece")]
            table.add_row(first, label, *numbers, end_section=model == "base_rate")
    return table

"""`lotse compare`, `lotse promote`, `lotse rollback`: the life of a model after it was registered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from training.compare import Comparison
    from training.config import TrainingSettings
    from training.pipeline import Report

# The head that is learned from experiments.
UPLIFT: Final = "uplift"
# What the terminal shows of a comparison: column, heading, whether more is better; the first with its interval.
_SHOWN: Final = {
    "binary": (
        ("log_loss", "log loss", False),
        ("auc", "AUC", True),
        ("pr_auc", "PR-AUC", True),
        ("ece", "ECE", False),
    ),
    "value": (("d2", "D²", True), ("mae", "MAE", False), ("spearman", "Spearman", True), ("ratio", "ratio", None)),
}

_Events = Annotated[
    str | None, typer.Option(help="The log: file, folder, pattern or URL; the section's own path by default.")
]
_Source = Annotated[str, typer.Option(help="A source or a section of the shop configuration.")]
_Heads = Annotated[list[str] | None, typer.Option(help="Head; by default all that are trained. Repeatable.")]
_Config = Annotated[Path, typer.Option(help="Training configuration.")]
_Shop = Annotated[Path, typer.Option(help="Shop configuration.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key, e.g. promotion.min_rows=500. Repeatable.")
]


def compare(
    events: _Events = None,
    source: _Source = "lotse",
    head: _Heads = None,
    config: _Config = Path("configs/training.toml"),
    shop: _Shop = Path("configs/shop.toml"),
    set_: _Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare each head's candidate with its champion on the same later sessions of a log.

    For example: lotse compare --source taobao --events UserBehavior.parquet --head exit
    """
    from rich.console import Console  # noqa: PLC0415  (training's imports take seconds; --help must not)

    from features.settings import SettingsError  # noqa: PLC0415
    from training.compare import log_comparison  # noqa: PLC0415
    from training.config import load_training  # noqa: PLC0415

    settings = load_training(config, tuple(set_ or ()))
    console = Console(stderr=as_json)
    mlflow, contests, without = _contests(settings, head)
    found: dict[str, Comparison] = {}
    if contests:
        log = _read(source, events, shop, settings, console)
        found, refused = _compare(log, settings, contests, console)
        without |= refused
    for one in found.values():
        log_comparison(mlflow, one, source, {})
    if as_json:
        comparisons = [one.as_json() for one in found.values()]
        typer.echo(json.dumps({"source": source, "comparisons": comparisons, "without": without}, indent=2))
    else:
        for one in found.values():
            _show(console, one, settings)
        _tell(console, "not compared", without.values())
    if not found:
        raise SettingsError("nothing could be compared: " + "; ".join(without.values()))


def promote(
    events: _Events = None,
    source: _Source = "lotse",
    head: _Heads = None,
    config: _Config = Path("configs/training.toml"),
    shop: _Shop = Path("configs/shop.toml"),
    set_: _Set = None,
) -> None:
    """Make the candidate the champion, if it stands the comparison with the champion on the same later sessions.

    Exit code 1 where a candidate is refused, with every reason. Heads without a candidate are left alone.
    For example: lotse promote --source taobao --events UserBehavior.parquet
    """
    from rich.console import Console  # noqa: PLC0415

    from features.settings import SettingsError  # noqa: PLC0415
    from training.compare import obstacles  # noqa: PLC0415
    from training.config import load_training  # noqa: PLC0415
    from training.decision import decide  # noqa: PLC0415

    settings = load_training(config, tuple(set_ or ()))
    console = Console()
    mlflow, contests, without = _contests(settings, head)
    if not contests:
        raise SettingsError("nothing to promote: " + "; ".join(without.values()))
    _tell(console, "no candidate", without.values())
    why = {name: "; ".join(obstacles(contest)) for name, contest in contests.items()}
    found: dict[str, Comparison] = {}
    # a log is read only where there is something to compare
    if not all(why.values()):
        log = _read(source, events, shop, settings, console)
        found, refused = _compare(log, settings, contests, console)
        why |= refused
    refusals = 0
    for one in decide(mlflow, settings, contests, found, why, source, "lotse promote"):
        if one.comparison is not None:
            _show(console, one.comparison, settings)
        if one.reasons:
            refusals += 1
            console.print(f"[bold red]{one.head}: version {one.candidate} is not promoted[/]")
            _tell(console, "because", one.reasons)
        else:
            place = "" if one.champion is None else f" instead of version {one.champion}"
            console.print(
                f"[bold green]{one.head}: version {one.candidate} is the champion[/]{place}; gate: {one.gate}"
            )
    if refusals:
        raise typer.Exit(1)


def rollback(
    head: _Heads = None,
    to: Annotated[str | None, typer.Option(help="The version to go back to; needs one --head.")] = None,
    config: _Config = Path("configs/training.toml"),
    set_: _Set = None,
) -> None:
    """Make the version that was champion before the champion again.

    Exit code 1 where there is none to go back to. For example: lotse rollback --head exit
    """
    from rich.console import Console  # noqa: PLC0415

    from features.compiler import compile_fold  # noqa: PLC0415
    from features.settings import SettingsError  # noqa: PLC0415
    from training import tracking  # noqa: PLC0415
    from training.config import load_training  # noqa: PLC0415
    from training.contest import enter  # noqa: PLC0415
    from training.promotion import PromotionError  # noqa: PLC0415
    from training.promotion import rollback as move  # noqa: PLC0415

    settings = load_training(config, tuple(set_ or ()))
    console = Console()
    heads = _heads(settings, head)
    if to is not None and len(heads) != 1:
        raise SettingsError(f"--to {to} names a version of one head; say which: --head {heads[0]} --to {to}")
    client = tracking.connect(settings.tracking).MlflowClient()
    digest = compile_fold().digest

    def usable(version: Any) -> None:
        defects = enter(client, version, digest).defects
        if defects:
            raise PromotionError("; ".join(defects))

    refusals = []
    for name in heads:
        try:
            left, now = move(client, settings.tracking, name, to, usable)
            console.print(f"[bold green]{name}: version {now} is the champion again[/] instead of version {left}")
        except PromotionError as error:
            refusals.append(str(error))
    _tell(console, "not rolled back", refusals)
    if refusals:
        raise typer.Exit(1)


def judged_by_sessions(named: Iterable[str]) -> None:
    """Nothing, if a log of sessions can judge the heads named.

    Raises
    ------
    SettingsError
        One is the uplift: what an arm changes, sessions without an experiment do not show.
    """
    from features.settings import SettingsError  # noqa: PLC0415

    if UPLIFT in named:
        raise SettingsError(
            "an uplift is judged by the units of an experiment, not by a log of sessions: lotse train --head uplift "
            "says what each version is worth (Qini, also in MLflow); lotse rollback --head uplift --to VERSION makes a "
            "version the champion"
        )


def _heads(settings: TrainingSettings, named: list[str] | None) -> list[str]:
    """The heads named, or those that are trained.

    Raises
    ------
    SettingsError
        A head is not configured.
    """
    from features.settings import SettingsError  # noqa: PLC0415

    for name in named or ():
        if name not in settings.heads.questions and name != UPLIFT:
            raise SettingsError(f"unknown head {name!r}; configured: {', '.join(settings.heads.questions)}")
    return list(dict.fromkeys(named or settings.heads.train))


def _contests(settings: TrainingSettings, named: list[str] | None) -> tuple[Any, dict[str, Any], dict[str, str]]:
    """MLflow, the contests, and why other heads have none."""
    from features.compiler import compile_fold  # noqa: PLC0415
    from training import tracking  # noqa: PLC0415
    from training.contest import contests  # noqa: PLC0415

    heads = _heads(settings, named)
    judged_by_sessions(heads)
    mlflow = tracking.connect(settings.tracking)
    return mlflow, *contests(mlflow.MlflowClient(), settings, heads, compile_fold().digest)


def _read(source: str, events: str | None, shop: Path, settings: TrainingSettings, console: Console) -> pd.DataFrame:
    from training.history import read_history  # noqa: PLC0415

    return read_history(source, events, shop, settings, console)


def _compare(
    log: pd.DataFrame, settings: TrainingSettings, contests: dict[str, Any], console: Console
) -> tuple[dict[str, Comparison], dict[str, str]]:
    from training.compare import compare  # noqa: PLC0415

    with _progress(console) as report:
        return compare(log, settings, contests, report)


@contextmanager
def _progress(console: Console) -> Iterator[Report]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description:>22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        tasks: dict[str, Any] = {}

        def report(step: str, done: int, whole: int) -> None:
            if step not in tasks:
                tasks[step] = shown.add_task(step, total=whole)
            shown.update(tasks[step], completed=done)

        yield report


def _show(console: Console, found: Comparison, settings: TrainingSettings) -> None:
    console.print(_table(found, settings.evaluation.confidence))
    _tell(console, "note", found.notes)


def _table(found: Comparison, confidence: float) -> Table:
    from rich.table import Table  # noqa: PLC0415

    table = Table(
        title=f"{found.head}: champion (version {found.champion}) → candidate (version {found.candidate}); "
        f"{found.rows:,} rows of {found.sessions:,} sessions, {found.since[:10]} to {found.until[:10]}",
        title_justify="left",
        caption=f"[green]+[/] better, [red]-[/] worse: the {confidence:.0%} interval of the difference, over resampled "
        "visitors, leaves out 0",
        caption_justify="left",
    )
    shown = _SHOWN[found.task]
    table.add_column("rows at")
    table.add_column("rows", justify="right")
    for place, (_, heading, _) in enumerate(shown):
        table.add_column(heading, justify="right")
        if not place:
            table.add_column("difference", justify="right")
    lines = found.table.to_dict("records")
    for place, line in enumerate(lines):
        cells = []
        for column, (name, _, rising) in enumerate(shown):
            cells.append(f"{line[f'{name}_one']:.4f} → {line[f'{name}_other']:.4f}{_mark(line, name, rising)}")
            if not column:
                low, high = line[f"{name}_low"], line[f"{name}_high"]
                cells.append(f"{line[f'{name}_difference']:+.4f} [{low:+.4f}, {high:+.4f}]".replace("[", r"\["))
        last_age = "=" not in line["age"] and place + 1 < len(lines) and "=" in lines[place + 1]["age"]
        table.add_row(line["age"], f"{line['rows']:,}", *cells, end_section=last_age)
    return table


def _mark(line: dict[Any, Any], name: str, rising: bool | None) -> str:
    """Whether the candidate is surely better or worse; `rising`: more is better, None for neither."""
    low, high = line[f"{name}_low"], line[f"{name}_high"]
    if rising is None or not (low > 0 or high < 0):
        return "  "
    return " [green]+[/]" if (low > 0) == rising else " [red]-[/]"


def _tell(console: Console, what: str, reasons: Iterable[str]) -> None:
    for reason in reasons:
        console.print(f"[yellow]{what}:[/] ", end="")
        console.print(reason, markup=False, highlight=False, soft_wrap=True)

"""`lotse tune`: better LightGBM parameters for each head, by the inner folds of the past."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from training.config import TrainingSettings
    from training.tuning import Report, Tuned

# What a shell reports of a process that Ctrl-C ended.
_INTERRUPTED: Final = 130


def tune(
    events: Annotated[
        str | None, typer.Option(help="The log: file, folder, pattern or URL; the section's own path by default.")
    ] = None,
    source: Annotated[str, typer.Option(help="A source or a section of the shop configuration.")] = "lotse",
    head: Annotated[list[str] | None, typer.Option(help="Head to tune; all of heads.train. Repeatable.")] = None,
    trials: Annotated[int | None, typer.Option(help="Trials a head, those of earlier runs included.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long, all heads together.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Trials at a time; they share the cores.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with what was tried before with the same rows.")] = True,
    out: Annotated[Path, typer.Option(help="Where to write what was found.")] = Path("lotse-data/tuned.toml"),
    write: Annotated[bool, typer.Option("--write", help="Put it into the training configuration, too.")] = False,
    config: Annotated[Path, typer.Option(help="Training configuration.")] = Path("configs/training.toml"),
    shop: Annotated[Path, typer.Option(help="Shop configuration.")] = Path("configs/shop.toml"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key, e.g. tuning.seed=1.")] = None,
) -> None:
    """Search LightGBM's parameters for each head on the inner folds of the past; the test is never looked at.

    What is stopped or killed goes on where it was. For example: lotse tune --source ga4 --events export/ --minutes 60
    """
    from rich.console import Console  # noqa: PLC0415  (training's imports take seconds; --help must not)

    from features.settings import SettingsError  # noqa: PLC0415
    from training.config import load_training  # noqa: PLC0415
    from training.history import read_history  # noqa: PLC0415

    given = {"trials": trials, "minutes": minutes, "jobs": jobs}
    overrides = [f"tuning.{name}={value}" for name, value in given.items() if value is not None]
    settings = load_training(config, (*(set_ or ()), *overrides))
    names = head or settings.heads.train
    for name in names:
        if name not in settings.heads.questions:
            raise SettingsError(f"unknown head {name!r}; known: {', '.join(settings.heads.questions)}")
    console = Console()
    table = read_history(source, events, shop, settings, console)

    from training import tracking  # noqa: PLC0415
    from training.tuned_toml import write_tuned  # noqa: PLC0415

    mlflow = tracking.connect(settings.tracking)
    with _stop_signal() as stopped:
        found, refused = _search(mlflow, table, settings, source, names, resume, stopped, console)
    for reason in refused.values():
        console.print("[yellow]not tuned:[/] ", end="")
        console.print(reason, markup=False, soft_wrap=True)
    ended = [one for one in found if one.complete]
    if ended:
        console.print(_losses(ended))
        console.print(_values(ended))
    better = [one for one in found if one.improved]
    if better:
        write_tuned(out, better)
        if write:
            write_tuned(config, better)
            console.print(f"written to {config}; train with it: lotse train", highlight=False)
        else:
            console.print(f"written to {out}; take it over into {config}: append it, or the same again with --write")
    elif ended:
        console.print("nothing is better than the configuration")
    if stopped.is_set():
        console.print("stopped; lotse tune goes on from here")
        raise typer.Exit(_INTERRUPTED)
    if refused and not found:
        raise typer.Exit(2)


def _search(
    mlflow: Any,
    events: pd.DataFrame,
    settings: TrainingSettings,
    source: str,
    names: Sequence[str],
    resume: bool,
    stopped: threading.Event,
    console: Console,
) -> tuple[list[Tuned], dict[str, str]]:
    """What was found for each head, and for those that cannot be tuned the reason."""
    from features.settings import SettingsError  # noqa: PLC0415
    from training.heads import heads_of  # noqa: PLC0415
    from training.pipeline import prepare  # noqa: PLC0415
    from training.trial_database import database  # noqa: PLC0415
    from training.tuning import open_study, search  # noqa: PLC0415
    from training.tuning_runs import log_found, search_run  # noqa: PLC0415

    heads, until = heads_of(settings), time.monotonic() + settings.tuning.minutes * 60
    found, refused = [], {}
    with database(Path(settings.tuning.database)) as storage, _bars(console) as bars:
        few = settings.model_copy(
            update={"rows": settings.rows.model_copy(update={"max_events": settings.tuning.max_events})}
        )
        prepared = prepare(events, few, bars.step)
        for place, name in enumerate(names):
            past = prepared.slices(heads[name])["past"]
            try:
                study = open_study(past, heads[name], settings, storage, resume=resume)
            except SettingsError as error:
                refused[name] = str(error)
                continue
            # what one head does not need is the others'
            seconds = max(until - time.monotonic(), 0.0) / (len(names) - place)
            with search_run(mlflow, study, past, name, settings, source) as observe:
                one = search(
                    study, past, heads[name], settings,
                    seconds=seconds, stopped=stopped.is_set, report=bars.trials(settings, seconds), observe=observe,
                )  # fmt: skip
                log_found(mlflow, one, study)
            found.append(one)
    return found, refused


class _Bars:
    """A bar for each step, and for each head with the best loss so far and the time that is left."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}

    def step(self, name: str, done: float, whole: float, told: str = "") -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=whole, told="")
        self.progress.update(self.tasks[name], completed=done, total=whole, told=told)

    def trials(self, settings: TrainingSettings, seconds: float) -> Report:
        begun, most = time.monotonic(), settings.tuning.trials
        before: list[float] = []

        def report(done: float, so_far: Tuned) -> None:
            if not before:
                before.append(done)
            spent, made = time.monotonic() - begun, done - before[0]
            left = min(spent / made * (most - done) if made > 0 else seconds, seconds - spent)
            best = f"best {so_far.after:.5f}, as configured {so_far.before:.5f}; " if so_far.complete else ""
            self.step(so_far.head, done, most, f"{best}{max(left, 0) / 60:.1f} min left")

        return report


@contextmanager
def _bars(console: Console) -> Iterator[_Bars]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description:>16}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[told]}"), console=console) as progress:
        yield _Bars(progress)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Set when the process is asked to end; asked again, it ends at once."""
    stopped = threading.Event()

    def ask(number: int, frame: object) -> None:
        del frame
        stopped.set()
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _losses(found: list[Tuned]) -> Table:
    from rich.table import Table  # noqa: PLC0415

    table = Table(title="Loss of the inner folds, inside the past", title_justify="left")
    table.add_column("head")
    for name in ("as configured", "best", "less by", "trials", "given up"):
        table.add_column(name, justify="right")
    for one in found:
        share = f"{(one.before - one.after) / abs(one.before):.2%}"
        table.add_row(
            one.head, f"{one.before:.5f}", f"{one.after:.5f}", share, str(one.complete + one.pruned), str(one.pruned)
        )
    table.caption = "the best of many trials looks a little better than it is; the test will tell"
    table.caption_justify = "left"
    return table


def _values(found: list[Tuned]) -> Table:
    from rich.table import Table  # noqa: PLC0415

    table = Table(title="Parameters: as configured and best", title_justify="left")
    table.add_column("[lightgbm]")
    for one in found:
        table.add_column(one.head, justify="right")
    for name in found[0].configured:
        table.add_row(name, *(f"{one.configured[name]:.4g} → {one.values[name]:.4g}" for one in found))
    return table

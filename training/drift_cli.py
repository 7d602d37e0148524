"""`lotse drift`: whether live sessions still are what the models were tested on; its exit code suits a scheduler."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from training.config import TrainingSettings
    from training.watch import Watched

NO_DRIFT: Final = 0
DRIFT: Final = 1
CANNOT_TELL: Final = 2
# Features shown in the terminal: the worst.
_SHOWN: Final = 8


def drift(
    events: Annotated[
        str | None, typer.Option(help="The later log: file, folder, pattern or URL; the section's own path by default.")
    ] = None,
    source: Annotated[str, typer.Option(help="A source or a section of the shop configuration.")] = "lotse",
    head: Annotated[list[str] | None, typer.Option(help="Head to watch; all of heads.train. Repeatable.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Sessions from this moment on (ISO 8601); after the model's test by default.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Sessions before this moment (ISO 8601, UTC).")] = None,
    alias: Annotated[str | None, typer.Option(help="The version to watch; tracking.alias by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the page here, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    config: Annotated[Path, typer.Option(help="Training configuration.")] = Path("configs/training.toml"),
    shop: Annotated[Path, typer.Option(help="Shop configuration.")] = Path("configs/shop.toml"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key, e.g. drift.psi=0.25.")] = None,
) -> None:
    """Compare later sessions with what the models were tested on: features, scores, and whether the scores hold.

    Exit code 0: no drift; 1: drift; 2: it cannot be told. Give the log with what came before the window, so that
    visitors have their history.

    For example: lotse drift --source ga4 --events export/ --since 2026-06-01
    """
    from rich.console import Console  # noqa: PLC0415  (training's imports take seconds; --help must not)

    from features.errors import EventError  # noqa: PLC0415
    from features.settings import SettingsError  # noqa: PLC0415
    from training.config import load_training  # noqa: PLC0415

    settings = load_training(config, tuple(set_ or ()))
    console = Console(stderr=as_json)
    try:
        watched, refused = _watch(
            settings, source, events, shop, head, alias, _moment(since), _moment(until), console, out
        )
    except (EventError, SettingsError):
        raise
    except (Exception, KeyboardInterrupt) as error:
        # a crash ends with 1, which here would mean drift
        console.print_exception()
        raise typer.Exit(CANNOT_TELL) from error
    if as_json:
        found = {one.head.name: {"version": one.version, **one.drift.as_json()} for one in watched}
        typer.echo(json.dumps({"heads": found, "refused": refused}, indent=2))
    else:
        _show(console, watched)
    for reason in refused.values():
        console.print("[yellow]cannot be told:[/] ", end="")
        console.print(reason, markup=False, soft_wrap=True)
    if any(one.drift.drifted for one in watched):
        raise typer.Exit(DRIFT)
    if refused:
        raise typer.Exit(CANNOT_TELL)


def _watch(
    settings: TrainingSettings,
    source: str,
    location: str | None,
    shop: Path,
    heads: list[str] | None,
    alias: str | None,
    since: float | None,
    until: float | None,
    console: Console,
    out: Path | None,
) -> tuple[list[Watched], dict[str, str]]:
    from features.compiler import compile_fold  # noqa: PLC0415
    from training import tracking  # noqa: PLC0415
    from training.contest import versions_with  # noqa: PLC0415
    from training.drift_page import page  # noqa: PLC0415
    from training.history import read_history  # noqa: PLC0415
    from training.registry_cli import judged_by_sessions  # noqa: PLC0415
    from training.watch import log_drift, watch  # noqa: PLC0415

    judged_by_sessions(heads or ())
    mlflow = tracking.connect(settings.tracking)
    alias = alias or settings.tracking.alias
    versions, refused = versions_with(
        mlflow.MlflowClient(), settings.tracking, heads or settings.heads.train, alias, compile_fold().digest
    )
    if not versions:
        return [], refused
    table = read_history(source, location, shop, settings, console)
    watched, more = watch(table, settings, versions, since, until if until is not None else float("inf"))
    for one in watched:
        log_drift(mlflow, one, source, page([one]))
    if out and watched:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(watched))
        console.print(f"the page: {out}", highlight=False)
    return watched, refused | more


def _moment(text: str | None) -> float | None:
    """Milliseconds since 1970 of an ISO 8601 date or time, in UTC where it names no zone.

    Raises
    ------
    SettingsError
        Not such a text.
    """
    from features.settings import SettingsError  # noqa: PLC0415

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{text!r} is no moment; write it as 2026-06-01 or 2026-06-01T12:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def _show(console: Console, watched: list[Watched]) -> None:
    from rich.markup import escape  # noqa: PLC0415

    for one in watched:
        console.print(_table(one))
        for reason in one.drift.found:
            console.print(f"[red]drift:[/] {one.head.name}: {escape(reason)}", soft_wrap=True, highlight=False)
        if not one.drift.drifted:
            console.print(f"[green]{one.head.name}: no drift[/]")


def _table(one: Watched) -> Table:
    from rich.table import Table  # noqa: PLC0415

    from training.realised import INTERVAL  # noqa: PLC0415

    drift = one.drift
    title = f"{one.head.name}, version {one.version}: {drift.rows:,} rows of {drift.sessions:,} sessions"
    table = Table(title=title, title_justify="left")
    table.add_column("what", no_wrap=True)
    for name in ("PSI", "KS", "missing"):
        table.add_column(name, justify="right")
    for change in (drift.score, *drift.features[:_SHOWN]):
        table.add_row(
            "scores" if change is drift.score else change.name,
            f"{change.psi:.2f} of {change.psi_alarm:.2f}",
            "" if math.isnan(change.ks) else f"{change.ks:.2f} of {change.ks_alarm:.2f}",
            f"{change.before.missing:.1%} → {change.later.missing:.1%}",
            style="red" if change.drifted and change.counts else None,
            end_section=change is drift.score,
        )
    realised = drift.realised
    if realised is None:
        table.caption = "what became of the sessions is known of too few to judge the scores"
    else:
        table.caption = (
            f"happened over promised {realised.ratio:.2f} ± {INTERVAL * realised.ratio_error:.2f}; calibration error "
            f"{realised.calibration:.4f}, by chance {realised.calibration_noise:.4f}"
        )
    table.caption_justify = "left"
    return table

"""`lotse watch`: the closed loop, once for a scheduler or again and again by itself."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from training.closed_loop import Round
    from training.config import TrainingSettings

WELL: Final = 0
ALARM: Final = 1
CANNOT_TELL: Final = 2
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WEBHOOK_SECONDS: Final = 10


def watch(
    every: Annotated[
        str | None, typer.Option(help="Go on for ever, a round each 30m, 1h, 1d, ...; a single round by default.")
    ] = None,
    events: Annotated[
        str | None, typer.Option(help="Folder of what the service handed on; log.folder by default.")
    ] = None,
    head: Annotated[list[str] | None, typer.Option(help="Head; all of heads.train. Repeatable.")] = None,
    webhook: Annotated[str, typer.Option(help="Where alarms and promotions are posted; watch.webhook.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON a round.")] = False,
    config: Annotated[Path, typer.Option(help="Training configuration.")] = Path("configs/training.toml"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key, e.g. watch.retrain_hours=6.")] = None,
) -> None:
    """Close the loop: hold live outcomes to the champions, judge candidates by them, train new ones from them.

    Exit code of a single round: 0, all is well; 1, an alarm (drift, scores that do not hold); 2, nothing could be told.

    For example: lotse watch --every 1h --webhook https://chat.shop.example/hooks/lotse
    """
    from rich.console import Console  # noqa: PLC0415  (training's imports take seconds; --help must not)

    from features.settings import SettingsError  # noqa: PLC0415
    from training.closed_loop import alone  # noqa: PLC0415
    from training.config import load_training  # noqa: PLC0415

    pause = seconds_of(every) if every else 0.0
    settings = load_training(config, tuple(set_ or ()))
    console = Console(stderr=as_json)
    with alone(Path(settings.watch.lock)):
        while True:
            begun = time.monotonic()
            code = CANNOT_TELL
            try:
                found = _round(settings, events, head, console)
                code = _told(found, webhook or settings.watch.webhook, console, as_json=as_json)
            except SettingsError as error:
                if not every and "holds no session" not in str(error):
                    raise
                console.print(str(error), markup=False, style="yellow", soft_wrap=True)
            except Exception:
                # the next round may do better; one alone must not look like an alarm
                console.print_exception()
            if not every:
                raise typer.Exit(code)
            time.sleep(max(pause - (time.monotonic() - begun), 0.0))


def _round(settings: TrainingSettings, location: str | None, heads: list[str] | None, console: Console) -> Round:
    from training import tracking  # noqa: PLC0415
    from training.closed_loop import one_round  # noqa: PLC0415
    from training.registry_cli import judged_by_sessions  # noqa: PLC0415
    from training.session_log import read_session_log  # noqa: PLC0415

    judged_by_sessions(heads or ())
    log = read_session_log(location, settings.log)
    mlflow = tracking.connect(settings.tracking)
    with console.status(f"{len(log):,} sessions"):
        return one_round(mlflow, log, settings, heads or settings.heads.train)


def _told(found: Round, webhook: str, console: Console, *, as_json: bool) -> int:
    """Tell of a round, here and where alarms go; returns the exit code."""
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        _show(found, console)
    if webhook and (found.alarms or found.promoted):
        _post(webhook, found, console)
    if found.alarms:
        return ALARM
    return WELL if found.watched or found.trained or found.promoted else CANNOT_TELL


def _show(found: Round, console: Console) -> None:
    aside = f", left out: {', '.join(found.left_out)}" if found.left_out else ""
    console.print(f"{found.at}: {found.sessions:,} sessions{aside}", highlight=False)
    for one in found.watched:
        told = one.drift.realised
        held = f"{told.ratio:.2f} of what the scores promise happens" if told else "too few outcomes yet"
        colour = "red" if one.drift.drifted else "green"
        console.print(
            f"  [{colour}]{one.head.name} v{one.version}[/]: {held}; {'; '.join(one.drift.found) or 'no drift'}"
        )
    for decision in found.decisions:
        if decision.promoted:
            console.print(f"  [bold green]{decision.head} v{decision.candidate} is the champion[/]")
        else:
            console.print(f"  {decision.head} v{decision.candidate} is not promoted: ", end="")
            console.print("; ".join(decision.reasons), markup=False, soft_wrap=True)
    for head, version in found.trained.items():
        console.print(f"  {head} v{version} was trained")
    for head, reasons in found.without.items():
        console.print(f"  [yellow]{head}[/]: ", end="")
        console.print("; ".join(reasons), markup=False, soft_wrap=True)


def _post(webhook: str, found: Round, console: Console) -> None:
    import httpx  # noqa: PLC0415

    promoted = [f"{one.head} version {one.candidate} is the champion" for one in found.promoted]
    # "text" is what chat services show
    body = {"text": "Lotse: " + "; ".join([*found.alarms, *promoted]), "round": found.as_json()}
    try:
        httpx.post(webhook, json=body, timeout=_WEBHOOK_SECONDS).raise_for_status()
    except httpx.HTTPError as error:
        console.print(f"[red]the webhook did not take it:[/] {type(error).__name__}")


def seconds_of(text: str) -> float:
    """A length of time.

    Raises
    ------
    SettingsError
        It is none.

    >>> seconds_of("90s"), seconds_of("1h"), seconds_of("0.5d")
    (90.0, 3600.0, 43200.0)
    """
    from features.settings import SettingsError  # noqa: PLC0415

    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not found or not float(found[1]):
        raise SettingsError(f"--every {text!r}; expected a number and s, m, h or d, such as 1h")
    return float(found[1]) * _UNITS[found[2]]

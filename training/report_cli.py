"""`lotse report`: the journeys of a history, or of the sessions that a service handed on, as one HTML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.settings import SettingsError

if TYPE_CHECKING:
    from features.journeys.sessions import Sessions


def report(
    source: Annotated[
        str, typer.Option(help="A source or a section of the shop configuration; see lotse sources.")
    ] = "",
    events: Annotated[
        str | None, typer.Option(help="The log: file, folder, pattern or URL; the section's own path by default.")
    ] = None,
    closed: Annotated[
        Path | None, typer.Option(help="Instead of a log: where a service keeps its closed sessions.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("report.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON instead.")] = False,
    begin: Annotated[
        list[str] | None, typer.Option(help="Paths that begin with this step. Repeatable, in order.")
    ] = None,
    goal: Annotated[
        list[str] | None, typer.Option(help="Paths back from this step; purchase or lead by default.")
    ] = None,
    funnel: Annotated[
        list[str] | None,
        typer.Option(
            help="'item > cart add' (loose), 'item >> cart' (strict), '^item > ...' (from entry). Repeatable."
        ),
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="A step that is not looked at. Repeatable.")] = None,
    depth: Annotated[int, typer.Option(min=1, max=12, help="Moves that the paths have.")] = 6,
    least_visitors: Annotated[int, typer.Option(min=1, help="Nothing is told of fewer visitors.")] = 50,
    brief_seconds: Annotated[float, typer.Option(min=0, help="Sessions up to this long left at once.")] = 10,
    long_seconds: Annotated[float, typer.Option(min=0, help="Sessions longer than this stayed.")] = 300,
    timeout_minutes: Annotated[float, typer.Option(min=0.01, max=35_000, help="Silence that ends a session.")] = 30,
    shop: Annotated[Path, typer.Option(help="Shop configuration.")] = Path("configs/shop.toml"),
) -> None:
    """Write the journeys: paths, funnels, where sessions end, who stays.

    For example: lotse report --source taobao --events UserBehavior.csv --out report.html
    """
    from features.journeys.funnels import parsed  # noqa: PLC0415  (numba comes with it; --help must stay fast)
    from features.journeys.report import Asked, journeys, usual  # noqa: PLC0415
    from features.journeys.sessions import of_closed  # noqa: PLC0415
    from training.journeys_page import page  # noqa: PLC0415

    if bool(source) == (closed is not None):
        raise SettingsError("give either --source, with --events, or --closed")
    asked = Asked(
        funnels=tuple(parsed(text) for text in funnel or ()),
        begin=tuple(begin or ()),
        goal=tuple(goal or ()),
        without=tuple(without or ()),
        depth=depth,
        least_visitors=least_visitors,
        brief_seconds=brief_seconds,
        long_seconds=long_seconds,
    )
    sessions = of_closed(closed) if closed is not None else _history(source, events, shop, timeout_minutes * 60)
    found = journeys(sessions, usual(sessions, asked))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    out.write_text(page(found, source or str(closed)))
    typer.echo(f"{len(sessions):,} sessions: {out}")


def _history(source: str, events: str | None, shop: Path, timeout_seconds: float) -> Sessions:
    from rich.console import Console  # noqa: PLC0415

    from features.journeys.sessions import of_history  # noqa: PLC0415
    from features.shop import load_shop  # noqa: PLC0415
    from features.sources import open_source, read_chunks  # noqa: PLC0415
    from features.sources.terminal import reading_bar  # noqa: PLC0415

    with reading_bar(Console(stderr=True), source) as progress:
        reader, reading = open_source(source, events, load_shop(shop), progress=progress)
        return of_history(read_chunks(reader, reading), timeout_seconds)

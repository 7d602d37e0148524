"""`lotse inspect`: what is in a log and whether it is enough to train from, as a table or as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from features.shop import ShopSettings, SourceSettings
    from training.inspection import Inspection

# Nothing in a log may end an inspection: what training would stop at is what it is there to tell.
_LENIENT: Final = {"unknown_events": "custom", "bad_rows": "skip"}
_LISTED: Final = 20


def inspect(
    source: Annotated[str, typer.Argument(help="A source or a section of the shop configuration; see lotse sources.")],
    events: Annotated[
        str | None, typer.Argument(help="The log: file, folder, pattern or URL; the section's own path by default.")
    ] = None,
    config: Annotated[Path, typer.Option(help="Training configuration.")] = Path("configs/training.toml"),
    shop: Annotated[Path, typer.Option(help="Shop configuration.")] = Path("configs/shop.toml"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a training key, e.g. labels.goal=generate_lead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Look at a log before training from it: sessions, rates, oddities, and whether there is enough of it.

    For example: lotse inspect taobao UserBehavior.csv
    """
    from rich.console import Console  # noqa: PLC0415  (training's imports take seconds; --help must not)

    from features.shop import load_shop  # noqa: PLC0415
    from features.sources import open_source, read_chunks  # noqa: PLC0415
    from features.sources.terminal import reading_bar  # noqa: PLC0415
    from training.config import load_training  # noqa: PLC0415
    from training.inspection import inspect as look  # noqa: PLC0415

    settings, shop_settings = load_training(config, tuple(set_ or ())), load_shop(shop)
    configured = open_source(source, events, shop_settings)[1].settings
    with reading_bar(Console(stderr=True), source) as progress:
        reader, reading = open_source(source, events, shop_settings, progress=progress, overrides=_LENIENT)
        found = look(read_chunks(reader, reading), reading.notes, settings, time.time_ns() // 1_000_000)
    if as_json:
        typer.echo(json.dumps({"source": source, "enough": found.enough, **asdict(found)}, indent=2))
    else:
        _show(Console(), source, found, configured, shop_settings)


def _show(console: Console, source: str, found: Inspection, configured: SourceSettings, shop: ShopSettings) -> None:
    from rich.markup import escape  # noqa: PLC0415

    console.print(_summary(source, found))
    if found.skipped:
        stops = 'training stops at a row that cannot be used; with bad_rows = "skip" it leaves it out, as here'
        caption = stops if configured.bad_rows == "error" else ""
        console.print(_counts("Rows left out", ("reason", "rows"), found.skipped, caption=caption))
    if found.names:
        console.print(_counts("Events by name", ("name", "events"), found.names))
    if found.unmapped:
        strict = (configured.unknown_events or shop.unknown_events) == "error"
        stops = 'training stops at them; with unknown_events = "custom" it takes them as here'
        console.print(
            _counts(
                "Names that nothing is mapped to",
                ("name", "rows", "map it in configs/shop.toml"),
                found.unmapped,
                place=lambda name: f"[sources.{source}.{_section(name)}]",
                caption=f"taken as custom events or unknown values; {stops}"
                if strict
                else "taken as custom events or unknown values",
            )
        )
    if not found.events:
        console.print("[yellow]not enough to train:[/] the log gives no events")
        return
    for head, reasons in found.missing.items():
        if not reasons:
            console.print(f"[green]{head}: enough to train[/]")
        for reason in reasons:
            console.print(f"[yellow]not enough:[/] {escape(reason)}", soft_wrap=True)
    if found.enough:
        console.print(f"train from it: lotse train --source {escape(source)} --events PATH", highlight=False)


def _summary(source: str, found: Inspection) -> Table:
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=f"The log {escape(source)}", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("found", justify="right")
    table.add_column("remark", style="dim")
    for section in _lines(found):
        for what, value, remark in section:
            table.add_row(what, value, remark)
        table.add_section()
    return table


def _lines(found: Inspection) -> Iterator[list[tuple[str, str, str]]]:
    """Sections of (what, found, remark)."""
    yield [
        ("rows of the log", f"{found.rows:,}", ""),
        ("events made of them", f"{found.events:,}", ""),
    ]
    if not found.events:
        return
    yield [
        ("first", _moment(found.first), "UTC"),
        ("last", _moment(found.last), f"{found.days:,.1f} days later"),
        ("later than now", f"{found.future_share:.1%}", _if(found.future_share, "look at time_unit and the clocks")),
    ]
    yield [
        ("visitors", f"{found.visitors:,}", ""),
        ("sessions", f"{found.sessions:,}", f"{found.open_sessions:,} may go on after the end of the log"),
        (
            "events a session",
            f"{found.session_median:,.0f}",
            f"median; p99 {found.session_p99:,.0f}, most {found.session_most:,}",
        ),
        ("sessions of one event", f"{found.single_share:.1%}", ""),
        ("bounce", f"{found.bounce_rate:.1%}", "of all sessions"),
        ("conversion", f"{found.conversion_rate:.1%}", f"of all sessions; the goal is {found.goal}"),
        ("consent to link visits", f"{found.linked_share:.1%}", "of events; others know no earlier visit"),
    ]
    repeats = found.identical_rows > found.repeated_ids
    yield [
        ("neighbours in one ms", f"{found.same_ms_share:.1%}", "of a visitor's events; they keep the log's order"),
        ("neighbours in one second", f"{found.same_second_share:.1%}", ""),
        (
            "steps back in time",
            f"{found.steps_back:,}",
            _if(found.steps_back, f"up to {found.largest_step_back_ms / 1000:,.0f} s; sorted before use"),
        ),
        ("repeated ids", f"{found.repeated_ids:,}", _if(found.repeated_ids, "dropped")),
        ("rows there twice", f"{found.identical_rows:,}", _if(repeats, "equal in every column; repeated_rows decides")),
        (
            "late events",
            f"{found.late_events:,}",
            _if(found.late_events, "a service would drop them, had they come in this order"),
        ),
    ]
    yield [
        ("sessions of declared bots", f"{found.declared_bots:,}", "device bot"),
        ("sessions like a bot's", f"{found.likely_bots:,}", "quick, even, without a sign of a hand"),
    ]


def _counts(
    title: str,
    heading: tuple[str, ...],
    counts: dict[str, int],
    *,
    place: Callable[[str], str] | None = None,
    caption: str = "",
) -> Table:
    """A table of what was counted, the most frequent first; `place` gives a third column."""
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    if len(counts) > _LISTED:
        caption = f"and {len(counts) - _LISTED:,} more: --json lists all. {caption}".strip()
    table = Table(*heading, title=title, title_justify="left", caption=escape(caption) or None, caption_justify="left")
    table.columns[1].justify = "right"
    for name, count in list(counts.items())[:_LISTED]:
        table.add_row(escape(name), f"{count:,}", *([escape(place(name))] if place else []))
    return table


def _section(name: str) -> str:
    """Where to map a name that a reading did not know: `channel Affiliates` is a channel."""
    kind = name.partition(" ")[0]
    return f"{kind}s" if kind in ("channel", "device") else "events"


def _moment(iso: str | None) -> str:
    return (iso or "").replace("T", " ").removesuffix("Z").partition(".")[0]


def _if(happened: float, remark: str) -> str:
    return remark if happened else ""

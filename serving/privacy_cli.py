"""`lotse privacy`: what is held of a visitor, erasing it, and the record of what is processed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from serving.keys_cli import CONFIG, Config, Overrides

if TYPE_CHECKING:
    from serving.settings import ServingSettings

privacy = typer.Typer(help="Show, erase and describe what is held of visitors.", no_args_is_help=True)

Visitor = Annotated[str, typer.Option(help="The visitor's id, as the tracker gives it.")]


@privacy.command("export")
def export(visitor: Visitor, config: Config = CONFIG, set_: Overrides = None) -> None:
    """Print all that is held of a visitor, as JSON."""
    found = _done(_settings(config, set_), visitor, erase=False)
    print(json.dumps(found, indent=2))


@privacy.command("erase")
def erase(visitor: Visitor, config: Config = CONFIG, set_: Overrides = None) -> None:
    """Erase it, in the store and in this machine's files; a running service need not be stopped."""
    found = _done(_settings(config, set_), visitor, erase=True)
    told = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in found.items())
    Console(highlight=False).print(f"erased: {told}")


@privacy.command("report")
def report(
    out: Annotated[Path, typer.Option(help="Where to write the record; .json and .md are added.")] = Path(
        "lotse-data/privacy"
    ),
    config: Config = CONFIG,
    set_: Overrides = None,
) -> None:
    """Write the record of processing activities (GDPR 30) as JSON and Markdown."""
    from serving.processing import markdown, record_of  # noqa: PLC0415

    record = record_of(_settings(config, set_))
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, text in ((f"{out}.json", json.dumps(record, indent=2) + "\n"), (f"{out}.md", markdown(record))):
        Path(path).write_text(text)
        Console(highlight=False).print(f"wrote {path}")


def _settings(config: Path, overrides: list[str] | None) -> ServingSettings:
    from serving.settings import load_serving  # noqa: PLC0415

    return load_serving(config, overrides or ())


def _done(settings: ServingSettings, raw: str, *, erase: bool) -> dict[str, Any]:
    from serving.held import open_held  # noqa: PLC0415
    from serving.pseudonyms import RotatingPseudonyms  # noqa: PLC0415

    visitors = RotatingPseudonyms(Path(settings.keys.folder)).all(raw, time.time_ns() // 1_000_000)

    async def run() -> dict[str, Any]:
        held, store = open_held(settings)
        try:
            return await held.erase(visitors) if erase else await held.show(visitors)
        finally:
            closing = store.close()
            if isinstance(closing, Awaitable):
                await closing

    return asyncio.run(run())

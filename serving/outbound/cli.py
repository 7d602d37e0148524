"""`lotse outbound`: what could not be delivered, and sending it again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from features.settings import SettingsError
from serving.keys_cli import CONFIG, Config, Overrides

if TYPE_CHECKING:
    from serving.outbound.dead_letters import DeadLetters
    from serving.settings import ServingSettings

outbound = typer.Typer(help="Messages to others that could not be delivered.", no_args_is_help=True)

Named = Annotated[str, typer.Option("--target", help="Only those of this target.")]


@outbound.command("status")
def status(config: Config = CONFIG, set_: Overrides = None) -> None:
    """How many wait for each target, since when, and why; counts of all messages are at /metrics."""
    settings, letters = _opened(config, set_)
    table = Table("target", "dead letters", "oldest", "why")
    for target in dict.fromkeys((*settings.outbound.targets, *letters.targets())):
        found = letters.of(target)
        oldest = datetime.fromtimestamp(found[0].dead_at / 1000, UTC).isoformat(" ", "seconds") if found else ""
        reasons = Counter(letter.why for letter in found).most_common()
        table.add_row(target, str(len(found)), oldest, ", ".join(f"{why} {count}" for why, count in reasons))
    Console().print(table)


@outbound.command("replay")
def replay(target: Named = "", config: Config = CONFIG, set_: Overrides = None) -> None:
    """Send them again, once each, under the ids that they had; a running service need not be stopped.

    What the visitor does not allow any more, and what was erased, is deleted instead. Exit code 1: some are left.
    """
    settings, letters = _opened(config, set_)
    if target and target not in settings.outbound.targets:
        known = ", ".join(settings.outbound.targets) or "none"
        raise SettingsError(f"--target: no target {target!r}; configured: {known}")
    counts = asyncio.run(_replayed(settings, letters, target))
    Console(highlight=False).print(", ".join(f"{counts[what]} {what}" for what in ("sent", "withdrawn", "left")))
    if counts["left"]:
        raise typer.Exit(1)


async def _replayed(settings: ServingSettings, letters: DeadLetters, only: str) -> Counter[str]:
    """What became of each: sent, withdrawn or left."""
    from aiohttp import ClientError  # noqa: PLC0415

    from serving.closed import ClosedFiles  # noqa: PLC0415
    from serving.outbound import targets  # noqa: PLC0415
    from serving.outbound.outlet import client, post  # noqa: PLC0415
    from serving.outbound.permission import Permission, plain  # noqa: PLC0415
    from serving.sending import DeclinedError  # noqa: PLC0415
    from serving.stores import open_store  # noqa: PLC0415

    counts: Counter[str] = Counter()
    made = {name: target for name, target in targets(settings.outbound).items() if only in ("", name)}
    store = open_store(settings.store)
    try:
        permission, closed = Permission(store, plain), ClosedFiles(settings.store)
        async with client(settings.outbound) as session:
            for name, target in made.items():
                found = letters.of(name)
                allowed = await permission.of_earlier({(one.visitor, one.started_at) for one in found}, closed)
                for letter in found:
                    if (letter.visitor, letter.started_at) not in allowed:
                        counts["withdrawn"] += 1
                    elif target.wants(letter.message()):
                        try:
                            await post(session, target.parcel([letter.message()], time.time_ns() // 1_000_000))
                        except (ClientError, DeclinedError, OSError):
                            counts["left"] += 1
                            continue
                        counts["sent"] += 1
                    letters.drop(name, {letter.id})
    finally:
        closing = store.close()
        if isinstance(closing, Awaitable):
            await closing
    return counts


def _opened(config: Path, overrides: list[str] | None) -> tuple[ServingSettings, DeadLetters]:
    from serving.outbound.dead_letters import DeadLetters  # noqa: PLC0415
    from serving.settings import load_serving  # noqa: PLC0415

    settings = load_serving(config, overrides or ())
    return settings, DeadLetters(settings.outbound)

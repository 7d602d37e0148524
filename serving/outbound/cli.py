"""`lotse outbound`: what could not be delivered, and sending it again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from features.settings import SettingsError
from serving.keys_cli import CONFIG, Config, Overrides

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from serving.outbound import Message, Target
    from serving.outbound.dead_letters import DeadLetters
    from serving.settings import ServingSettings

outbound = typer.Typer(help="Messages to others that could not be delivered.", no_args_is_help=True)

_AT_ONCE: Final = 500

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

    What the visitor does not allow any more, what was erased, and what the target is not to be told any more, is
    dropped. Exit code 1: some are left.
    """
    settings, letters = _opened(config, set_)
    if target and target not in settings.outbound.targets:
        known = ", ".join(settings.outbound.targets) or "none"
        raise SettingsError(f"--target: no target {target!r}; configured: {known}")
    counts = asyncio.run(_replayed(settings, letters, target))
    Console(highlight=False).print(", ".join(f"{counts[what]} {what}" for what in ("sent", "dropped", "left")))
    if counts["left"]:
        raise typer.Exit(1)


async def _replayed(settings: ServingSettings, letters: DeadLetters, only: str) -> Counter[str]:
    """What became of each: sent, dropped or left."""
    from serving.closed import ClosedFiles  # noqa: PLC0415
    from serving.outbound import targets  # noqa: PLC0415
    from serving.outbound.outlet import client  # noqa: PLC0415
    from serving.outbound.permission import Permission, plain  # noqa: PLC0415
    from serving.stores import open_store  # noqa: PLC0415

    counts: Counter[str] = Counter()
    made = {name: target for name, target in targets(settings.outbound).items() if only in ("", name)}
    store = open_store(settings.store)
    try:
        permission, closed = Permission(store, plain), ClosedFiles(settings.store)
        async with client(settings.outbound) as session:
            for name, target in made.items():
                tried: set[str] = set()
                # read again each time: what is erased meanwhile is not there any more
                while some := [letter for letter in letters.of(name) if letter.id not in tried][:_AT_ONCE]:
                    tried.update(letter.id for letter in some)
                    allowed = await permission.of_earlier({(one.visitor, one.started_at) for one in some}, closed)
                    outcomes = {
                        letter.id: await _sent(session, target, letter.message())
                        if (letter.visitor, letter.started_at) in allowed
                        else "dropped"
                        for letter in some
                    }
                    counts.update(outcomes.values())
                    letters.drop(name, {each for each, outcome in outcomes.items() if outcome != "left"})
    finally:
        closing = store.close()
        if isinstance(closing, Awaitable):
            await closing
    return counts


async def _sent(session: ClientSession, target: Target, message: Message) -> str:
    """What became of one; a target that is not told of such any more, by its configuration, is not."""
    from aiohttp import ClientError  # noqa: PLC0415

    from serving.outbound.outlet import post  # noqa: PLC0415
    from serving.sending import DeclinedError  # noqa: PLC0415

    if not target.wants(message):
        return "dropped"
    try:
        await post(session, target.parcel([message], time.time_ns() // 1_000_000))
    except (ClientError, DeclinedError, OSError):
        return "left"
    return "sent"


def _opened(config: Path, overrides: list[str] | None) -> tuple[ServingSettings, DeadLetters]:
    from serving.outbound.dead_letters import DeadLetters  # noqa: PLC0415
    from serving.settings import load_serving  # noqa: PLC0415

    settings = load_serving(config, overrides or ())
    return settings, DeadLetters(settings.outbound)

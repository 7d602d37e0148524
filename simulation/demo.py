"""`lotse demo`: the whole of Lotse once, from a history to scored live sessions, in under three minutes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from contextlib import closing, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from features.settings import SettingsError
from simulation.demo_service import LOG, LOTSE, DemoService

if TYPE_CHECKING:
    from rich.console import Console

    from simulation.crowd import Counts, Visit

_SIMULATED = Path("lotse-data/simulated.parquet")
# How many of the crowd are there at a time while somebody watches.
_CROWD = 40


def demo(
    source: Annotated[
        str, typer.Option(help="`simulated`, or a source: a name of lotse sources or a section of configs/shop.toml.")
    ] = "simulated",
    events: Annotated[
        str | None, typer.Option(help="The log: file, folder, pattern or URL; the section's own path by default.")
    ] = None,
    size: Annotated[int, typer.Option(min=20_000, help="Events of the simulated history.")] = 150_000,
    seconds: Annotated[float, typer.Option(min=1, help="How long the crowd browses.")] = 12,
    port: Annotated[int, typer.Option(help="Port of the service.")] = 3000,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the service running, with a crowd and a shop to visit.")
    ] = False,
    shop_port: Annotated[int, typer.Option(help="Port of the shop's pages, with --keep.")] = 3001,
    train: Annotated[bool, typer.Option(help="Without: the models that are there already.")] = True,
) -> None:
    """Read or simulate a history, train, serve, and let a crowd browse: the whole of Lotse once.

    A log of your own: lotse demo --source taobao --events UserBehavior.parquet
    """
    from rich.console import Console  # noqa: PLC0415

    from features.shop import load_shop  # noqa: PLC0415
    from features.sources import open_source  # noqa: PLC0415
    from simulation.keeping import keep_open, opened, overrides  # noqa: PLC0415
    from simulation.live_table import browsed, table_of  # noqa: PLC0415

    console = Console()
    if source != "simulated":
        open_source(source, events, load_shop())  # an unknown source or a missing path is said at once
    with closing(opened(shop_port)) if keep else nullcontext() as shop:
        if train:
            _train(console, source, events, size)
        console.rule("3. The service and its crowd")
        visits = _visits_of_shop() if source == "simulated" else _visits(console, source, events)
        signal.signal(signal.SIGTERM, _interrupted)
        service = DemoService(port, overrides(shop_port) if keep else ())
        failed = 0
        try:
            service.wait_until_ready(console)
            counts = browsed(console, service.url, visits, seconds)
            failed = counts.failed
            console.print(table_of(visits))
            _tell(console, service.url, counts, keep=keep)
            if shop is not None:
                asyncio.run(keep_open(console, service, shop, visits, crowd=_CROWD, browsed_seconds=seconds))
        except KeyboardInterrupt:
            pass
        finally:
            service.stop()
    if failed:
        raise SettingsError(f"{failed} requests of the crowd failed; see {LOG}")


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Being told to end is Ctrl-C: the service must not be left behind."""
    raise KeyboardInterrupt


def _train(console: Console, source: str, events: str | None, size: int) -> None:
    """The history, and models from it."""
    from rich.markup import escape  # noqa: PLC0415

    if source == "simulated":
        console.rule("1. A history: the simulated shop")
        _run("simulate", "--events", str(size), "--out", str(_SIMULATED))
        log_of = ["--source", "lotse", "--events", str(_SIMULATED)]
    else:
        console.rule(f"1. A history: {escape(source)}")
        log_of = ["--source", source, *(["--events", events] if events else [])]
    console.rule("2. Training")
    _run("train", *log_of)


def _run(*arguments: str) -> None:
    done = subprocess.run([*LOTSE, *arguments], check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


def _visits_of_shop() -> list[Visit]:
    """The simulated shop's next visitors."""
    from simulation.crowd import visits_of_shop  # noqa: PLC0415
    from simulation.shop import simulate  # noqa: PLC0415

    return visits_of_shop(simulate(visitors=4_000, seed=int(time.time())))


def _visits(console: Console, source: str, events: str | None) -> list[Visit]:
    """The latest visitors of the log."""
    from features.shop import load_shop  # noqa: PLC0415
    from features.sources import read_events  # noqa: PLC0415
    from features.sources.terminal import reading_bar  # noqa: PLC0415
    from simulation.crowd import visits_of  # noqa: PLC0415

    with reading_bar(console, source) as progress:
        table = read_events(source, events, load_shop(), progress=progress)
    latest = table.groupby("visitor")["time"].max().nlargest(4_000).index
    table = table[table["visitor"].isin(latest)]
    # the last day of the log, so that first visits are recent ones
    return visits_of(table[table["time"] >= table["time"].max() - 86_400_000])


def _tell(console: Console, url: str, counts: Counts, *, keep: bool) -> None:
    console.print(
        f"{counts.answered:,} events answered, {counts.failed} failed; "
        f"the service took {_service_ms(url):.2f} ms an event"
    )
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///lotse-data/mlflow.db"
    console.rule("What next")
    console.print(f"runs, plots, models:    mlflow ui --backend-store-uri {uri}", soft_wrap=True)
    console.print("plots as files:         lotse-data/artifacts/*/artifacts/plots/*.png", soft_wrap=True)
    if not keep:
        console.print(f"start the service:      lotse serve --port {url.rpartition(':')[2]}", soft_wrap=True)
    body = '{"visitor": "me", "name": "page_view", "page": "/"}'
    console.print(f"send your first event:  curl {url}/v1/events -d '{body}'", soft_wrap=True, markup=False)
    if not keep:
        console.print("be one of the crowd:    lotse demo --keep --no-train", soft_wrap=True)


def _service_ms(url: str) -> float:
    """Mean time the service itself took for a request: the crowd's own view is mostly the crowd's own work."""
    import httpx  # noqa: PLC0415

    lines = dict(line.rsplit(" ", 1) for line in httpx.get(f"{url}/metrics").text.splitlines() if line[:1] != "#")
    return float(lines["lotse_events_seconds_sum"]) / max(float(lines["lotse_events_seconds_count"]), 1) * 1000

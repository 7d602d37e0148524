"""`lotse demo`: the whole of Lotse once, from a history to scored live sessions, in under three minutes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.settings import SettingsError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from simulation.crowd import Counts, Visit

_SIMULATED = Path("lotse-data/simulated.parquet")
_START_SECONDS = 90


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
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running when the crowd has gone.")] = False,
) -> None:
    """Read or simulate a history, train, serve, and let a crowd browse: the whole of Lotse once.

    A log of your own: lotse demo --source taobao --events UserBehavior.parquet
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415

    from features.shop import load_shop  # noqa: PLC0415
    from features.sources import open_source  # noqa: PLC0415

    console = Console()
    lotse = [sys.executable, "-c", "from features.cli import main; main()"]
    if source == "simulated":
        console.rule("1. A history: the simulated shop")
        _run([*lotse, "simulate", "--events", str(size), "--out", str(_SIMULATED)])
        log_of = ["--source", "lotse", "--events", str(_SIMULATED)]
    else:
        open_source(source, events, load_shop())  # an unknown source or a missing path is said at once
        console.rule(f"1. A history: {escape(source)}")
        log_of = ["--source", source, *(["--events", events] if events else [])]
    console.rule("2. Training")
    _run([*lotse, "train", *log_of])
    console.rule("3. The service and its crowd")
    visits = _visits_of_shop() if source == "simulated" else _visits(console, source, events)
    log = Path("lotse-data/serve.log")
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as file:
        service = subprocess.Popen([*lotse, "serve", "--port", str(port)], stdout=file, stderr=subprocess.STDOUT)
    failed = 0
    try:
        _wait_until_ready(console, url, service, log)
        counts = _browse(console, url, visits, seconds)
        failed = counts.failed
        console.print(_table(visits))
        _tell(console, url, counts, keep=keep)
        if keep:
            console.print("the service stays up; stop it with Ctrl-C")
            service.wait()
    except KeyboardInterrupt:
        pass
    finally:
        _stop(service)
    if failed:
        raise SettingsError(f"{failed} requests of the crowd failed; see {log}")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False)
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


def _wait_until_ready(console: Console, url: str, service: subprocess.Popen[bytes], log: Path) -> None:
    import httpx  # noqa: PLC0415

    begin = time.monotonic()
    with console.status("starting the service"):
        while time.monotonic() - begin < _START_SECONDS:
            if service.poll() is not None:
                raise SettingsError(f"the service ended at once; its log is {log}. Is the port taken? Try --port 3100")
            try:
                if httpx.get(f"{url}/readyz", timeout=2).status_code == httpx.codes.OK:
                    console.print(f"the service was ready after {time.monotonic() - begin:.1f} s")
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
    raise SettingsError(f"the service was not ready after {_START_SECONDS} s; its log is {log}")


def _browse(console: Console, url: str, visits: list[Visit], seconds: float) -> Counts:
    import asyncio  # noqa: PLC0415

    from rich.live import Live  # noqa: PLC0415

    from simulation.crowd import browse  # noqa: PLC0415

    with Live(_table(visits), console=console, transient=True, auto_refresh=False) as live:
        shown = time.monotonic()

        def tick(counts: Counts) -> None:
            nonlocal shown
            del counts
            if time.monotonic() - shown > 0.5:
                live.update(_table(visits), refresh=True)
                shown = time.monotonic()

        return asyncio.run(browse(url, visits, seconds=seconds, tick=tick))


def _table(visits: list[Visit], most: int = 14) -> Table:
    """The sessions with the most events among those that were browsed last, with scores, truth and outcome."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    with_truth = any(visit.truth for visit in visits)
    title = "Live sessions" + (" (score / simulated truth)" if with_truth else "")
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in ("session", "n", "latest event"):
        table.add_column(name, no_wrap=True)
    for name in ("bounce", "conversion", "exit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    browsed = [visit for visit in visits if visit.scores]
    # some of each: the crowd is mostly short visits, and the long ones are the interesting ones
    chosen = sorted(browsed[-200:], key=lambda visit: (visit.bought, len(visit.scores)), reverse=True)
    for visit in [*chosen[: most // 2], *chosen[:: max(len(chosen) // max(most // 2, 1), 1)][1 : most // 2 + 1]]:
        at = len(visit.scores) - 1
        truth = visit.truth[at] if visit.truth else {}
        cells = []
        for head in ("bounce", "conversion", "exit"):
            true, score = truth.get(head), visit.scores[at].get(head, float("nan"))
            # an outcome that is decided needs no truth beside it
            known = true is not None and not math.isnan(true) and 0 < score < 1
            shown = f"[dim]/{true:.2f}[/]" if known else ""
            cells.append(f"{score:.2f}{shown}")
        outcome = "bought" if visit.bought else "bounced" if len(visit.events) == 1 else "left"
        latest = visit.events[at]["name"]
        table.add_row(visit.token[-6:], str(at + 1), latest[:14], *cells, outcome if visit.done else "browsing")
    return table


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
    console.print(
        f"send your first event:  curl {url}/v1/events -d '{body}'",
        soft_wrap=True,
        markup=False,
    )


def _service_ms(url: str) -> float:
    """Mean time the service itself took for a request: the crowd's own view is mostly the crowd's own work."""
    import httpx  # noqa: PLC0415

    lines = dict(line.rsplit(" ", 1) for line in httpx.get(f"{url}/metrics").text.splitlines() if line[:1] != "#")
    return float(lines["lotse_events_seconds_sum"]) / max(float(lines["lotse_events_seconds_count"]), 1) * 1000


def _stop(service: subprocess.Popen[bytes]) -> None:
    """End the service by its own process id; its workers follow."""
    if service.poll() is None:
        service.send_signal(signal.SIGTERM)
        try:
            service.wait(timeout=15)
        except subprocess.TimeoutExpired:
            service.kill()

"""The crowd as a table on the terminal, while it browses and afterwards."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from simulation.crowd import Counts, Visit


def browsed(console: Console, url: str, visits: list[Visit], seconds: float) -> Counts:
    """Let the crowd browse for so many seconds, and show it meanwhile."""
    import asyncio  # noqa: PLC0415

    from rich.live import Live  # noqa: PLC0415

    from simulation.crowd import browse  # noqa: PLC0415

    with Live(table_of(visits), console=console, transient=True, auto_refresh=False) as live:
        shown = time.monotonic()

        def tick(counts: Counts) -> None:
            nonlocal shown
            del counts
            if time.monotonic() - shown > 0.5:
                live.update(table_of(visits), refresh=True)
                shown = time.monotonic()

        return asyncio.run(browse(url, visits, seconds=seconds, tick=tick))


def table_of(visits: list[Visit], most: int = 14) -> Table:
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

"""Measuring side by side: the candidates take turns, each figure is the median of its runs, the ratio is the result."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

console = Console()


def alternate(candidates: Mapping[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of each candidate, one run of each in turn, after one uncounted turn."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(runs + 1):
        for name, call in candidates.items():
            gc.collect()
            begin = time.perf_counter()
            result = call()
            took = time.perf_counter() - begin
            del result
            if turn:
                seconds[name].append(took)
            console.print(f"  turn {turn}: {name} {took:.3f} s", style="dim")
    return seconds


def report(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table and the machine it was measured on."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(
        f"Python {platform.python_version()}, {platform.machine()}; medians, ratios within this run", style="dim"
    )


def median(values: list[float]) -> float:
    """The middle value."""
    return statistics.median(values)

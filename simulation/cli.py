"""`lotse simulate`: a simulated shop's history as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    out: Annotated[Path, typer.Option(help="Parquet file to write; its folder is made.")] = Path(
        "lotse-data/simulated.parquet"
    ),
    events: Annotated[int, typer.Option(min=1_000, help="About how many events.")] = 200_000,
    days: Annotated[float, typer.Option(min=1, help="Span of the history in days.")] = 14,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.")] = 0,
) -> None:
    """Write the history of a simulated shop, for trying Lotse without an export of your own.

    Train from it with: lotse train --source lotse --events lotse-data/simulated.parquet
    """
    from rich.console import Console  # noqa: PLC0415  (numba and pandas come with the shop: --help must stay fast)

    from simulation.shop import simulate as draw  # noqa: PLC0415

    console = Console()
    with console.status("drawing visitors"):
        drawn = draw(events=events, days=days, seed=seed)
        out.parent.mkdir(parents=True, exist_ok=True)
        drawn.events.to_parquet(out, index=False)
    sessions = len(drawn.truth.drop_duplicates(["visitor_number", "session_number"]))
    visitors = drawn.truth["visitor_number"].nunique()
    console.print(
        f"{len(drawn.events):,} events of {visitors:,} visitors in {sessions:,} sessions -> [bold]{out}[/]\n"
        f"train from it: lotse train --source lotse --events {out}"
    )

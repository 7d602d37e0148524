"""`lotse sources`: which logs can be read."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def sources(
    shop: Annotated[Path, typer.Option(help="Shop configuration.")] = Path("configs/shop.toml"),
) -> None:
    """List the sources: the formats that can be read, and the logs that the shop's configuration declares."""
    from features.shop import load_shop  # noqa: PLC0415  (pandas comes with the readers; --help must stay fast)

    sections = load_shop(shop).sources
    table = Table("source", "what it reads", f"in {escape(str(shop))}")
    readers = sorted(entry_points(group="lotse.sources"), key=lambda point: point.name)
    for point in readers:
        first_line = (point.load().__doc__ or "").strip().partition("\n")[0]
        table.add_row(
            point.name, escape(first_line), escape(f"[sources.{point.name}]") if point.name in sections else ""
        )
    table.add_section()
    for name in sorted(set(sections) - {point.name for point in readers}):
        section = sections[name]
        # a database's URL may hold a password
        where = f": {section.path}" if section.path and "://" not in section.path else ""
        table.add_row(
            escape(name), escape(f"your log, read by {section.reader or 'columns'}{where}"), escape(f"[sources.{name}]")
        )
    Console().print(table)
    Console().print("look into a log: lotse inspect SOURCE PATH", highlight=False)

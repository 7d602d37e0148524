"""Reading a log in front of somebody: a bar while it is read, and a line about what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from features.shop import ShopSettings
from features.sources import concatenate, open_source, read_chunks
from features.sources.reading import Notes
from features.sources.reading import Progress as Tick

# Reasons and names shown before the rest is only counted.
_NAMED: Final = 3


@contextmanager
def reading_bar(console: Console, source: str) -> Iterator[Tick]:
    """What a reading calls with (done, in all); a bar without an end where nobody knows how much there is.

    Nothing is drawn where the output is no terminal.
    """
    # a share, because files are counted in bytes and databases in rows
    columns = (TextColumn("{task.description:>22}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(f"reading {escape(source)}", total=None)
        yield lambda done, whole: shown.update(task, completed=done, total=whole or None)


def read_log(source: str, location: str | None, shop: ShopSettings, console: Console) -> pd.DataFrame:
    """All events of a log, and on the console how many, and what was left out or not understood.

    Raises
    ------
    SettingsError
        The source or its reader is unknown, or there is no location.
    EventError
        A row breaks the contract: names row, column, value and what to do.
    """
    with reading_bar(console, source) as progress:
        reader, reading = open_source(source, location, shop, progress=progress)
        events = concatenate(list(read_chunks(reader, reading)))
    # not where it was: a database's URL may hold a password
    console.print(f"{len(events):,} events of {events['visitor'].nunique():,} visitors from [bold]{escape(source)}[/]")
    aside = left_aside(reading.notes)
    if aside:
        console.print(f"[yellow]{escape(aside)}[/] (all of it: lotse inspect)", soft_wrap=True)
    return events


def left_aside(notes: Notes) -> str:
    """What a reading left out or did not understand, in one line; nothing if it took everything.

    >>> left_aside(Notes(rows=9, skipped=Counter({"time: missing": 2}), unmapped=Counter(kaufen=1)))
    'left out: 2 time: missing; not mapped: 1 kaufen'
    """
    parts = [
        f"{what}: {_most(counts)}"
        for what, counts in (("left out", notes.skipped), ("not mapped", notes.unmapped))
        if counts
    ]
    return "; ".join(parts)


def _most(counts: Counter[str]) -> str:
    shown = [f"{count:,} {name}" for name, count in counts.most_common(_NAMED)]
    return ", ".join(shown) + (f" and {len(counts) - _NAMED} more" if len(counts) > _NAMED else "")

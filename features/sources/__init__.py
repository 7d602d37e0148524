"""Readers of event histories: a log in its own format in, tables of canonical events out, chunk by chunk.

A source is named on the command line. Its reader is a plug-in of the entry-point group `lotse.sources`: a module with
`DEFAULTS` (settings that suit the format) and `read(reading)`, a generator of tables with the columns of the event.
A section `[sources.<name>]` of configs/shop.toml changes the defaults, or declares a source of another name.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from features.events import COLUMNS, check_events
from features.pseudonyms import Pseudonymiser, load_key
from features.settings import SettingsError
from features.shop import ShopSettings, SourceSettings
from features.sources.reading import CHUNK_ROWS, Notes, Progress, Reading

# trackers' adapters share their formats' vocabularies, and a service starts a second sooner without pandas
if TYPE_CHECKING:
    import pandas as pd

# Read beside the models and the store, so that one key serves a history and its retraining.
DEFAULT_KEY_FILE = Path("lotse-data/pseudonym.key")


class Source(Protocol):
    """A source plug-in; a module is one."""

    @property
    def DEFAULTS(self) -> SourceSettings:  # noqa: N802  (a module's constant)
        """What suits the format: columns, event names, unit of time, consent."""

    def read(self, reading: Reading) -> Iterator[pd.DataFrame]:
        """The canonical events of the log, in tables of about `reading.chunk_rows`; what is left out is noted."""


def open_source(
    source: str,
    location: Path | str | None,
    shop: ShopSettings,
    pseudonyms: Pseudonymiser | None = None,
    *,
    progress: Progress = lambda done, whole: None,
    chunk_rows: int = CHUNK_ROWS,
    overrides: dict[str, Any] | None = None,
) -> tuple[Source, Reading]:
    """The reader of a source and the reading it is given.

    location: file, folder, pattern or URL; the section's own `path` if None. overrides: settings above all others.

    Raises
    ------
    SettingsError
        The source or its reader is unknown, or there is no location.
    """
    points = {point.name: point for point in entry_points(group="lotse.sources")}
    section = shop.sources.get(source)
    if section is None and source not in points:
        known = ", ".join(sorted({*points, *shop.sources}))
        raise SettingsError(
            f"unknown source {source!r}; there are: {known}. A section [sources.{source}] in configs/shop.toml adds one"
        )
    reader = _load(points, source, section)
    settings = shop.source(source, reader.DEFAULTS).model_copy(update=overrides or {})
    where = str(location or settings.path)
    if not where and not settings.options.get("url_variable"):  # which names a database
        raise SettingsError(f"where is the log of {source!r}? Give its path, or write it to [sources.{source}] path")
    key = pseudonyms or Pseudonymiser(load_key(DEFAULT_KEY_FILE))
    return reader, Reading(where, settings, shop, key, progress=progress, chunk_rows=chunk_rows)


def read_chunks(reader: Source, reading: Reading) -> Iterator[pd.DataFrame]:
    """Checked tables of at most about `reading.chunk_rows` events, in the order of the log.

    Raises
    ------
    EventError
        A row breaks the contract: names the file, row, column, value and what to do.
    """
    for table in reader.read(reading):
        checked = check_events(table)
        for start in range(0, len(checked), reading.chunk_rows):
            yield checked.iloc[start : start + reading.chunk_rows]


def read_events(
    source: str,
    location: Path | str | None,
    shop: ShopSettings,
    pseudonyms: Pseudonymiser | None = None,
    *,
    progress: Progress = lambda done, whole: None,
) -> pd.DataFrame:
    """All events of one log as one canonical table (`features.events.COLUMNS`).

    Visitor ids become keyed pseudonyms; without `pseudonyms` the key of this folder's `lotse-data` is used.

    Raises
    ------
    SettingsError
        The source or its reader is unknown.
    EventError
        A row breaks the contract: names row, column, value and what to do.
    """
    reader, reading = open_source(source, location, shop, pseudonyms, progress=progress)
    return concatenate(list(read_chunks(reader, reading)))


def concatenate(chunks: list[pd.DataFrame]) -> pd.DataFrame:
    """One table of many; consumes the list. Column by column, so that at most one column is there twice."""
    import pandas as pd  # noqa: PLC0415

    if not chunks:
        return check_events(pd.DataFrame({"visitor": [], "time": [], "name": []}).astype("int64"))
    columns = {}
    for name in COLUMNS:
        columns[name] = np.concatenate([chunk.pop(name).to_numpy() for chunk in chunks])
    chunks.clear()
    return pd.DataFrame(columns, copy=False)


def _load(points: dict[str, EntryPoint], source: str, section: SourceSettings | None) -> Source:
    name = section.reader if section is not None and section.reader else source
    if name not in points:
        # a section without a reader of its name is a log with a row an event
        if section is not None and not section.reader:
            name = "columns"
        else:
            known = ", ".join(sorted(points))
            raise SettingsError(f"source {source!r} names the unknown reader {name!r}; installed: {known}")
    loaded: Source = points[name].load()
    return loaded


__all__ = [
    "DEFAULT_KEY_FILE",
    "Notes",
    "Reading",
    "Source",
    "concatenate",
    "open_source",
    "read_chunks",
    "read_events",
]

"""Readers of event histories: a file in any log's own columns in, the canonical events table out.

A source is a section `[sources.<name>]` of configs/shop.toml; its `reader` names a plug-in of the entry-point group
`lotse.sources`: a function `read(path, settings, shop, pseudonyms) -> DataFrame` with the columns of the event.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import pandas as pd

from features.errors import EventError
from features.pseudonyms import Pseudonymiser, load_key
from features.settings import SettingsError
from features.shop import ShopSettings, SourceSettings

# Read beside the models and the store, so that one key serves a history and its retraining.
DEFAULT_KEY_FILE = Path("lotse-data/pseudonym.key")


class Reader(Protocol):
    """A source plug-in."""

    def __call__(
        self, path: Path, settings: SourceSettings, shop: ShopSettings, pseudonyms: Pseudonymiser
    ) -> pd.DataFrame:
        """The canonical events of the file at `path`."""


def read_events(
    source: str, path: Path | str, shop: ShopSettings, pseudonyms: Pseudonymiser | None = None
) -> pd.DataFrame:
    """The events of one log as a canonical table (`features.events.COLUMNS`).

    Visitor ids become keyed pseudonyms; without `pseudonyms` the key of this folder's `lotse-data` is used.

    Raises
    ------
    SettingsError
        The source or its reader is unknown.
    EventError
        A row breaks the contract: names row, column, value and what to do.
    """
    settings = shop.source(source)
    readers = {point.name: point for point in entry_points(group="lotse.sources")}
    if settings.reader not in readers:
        known = ", ".join(sorted(readers))
        raise SettingsError(f"source {source!r} names the unknown reader {settings.reader!r}; installed: {known}")
    path = Path(path)
    if not path.exists():
        raise EventError(f"no file {path}; give the path of the exported log with --events")
    reader: Reader = readers[settings.reader].load()
    return reader(path, settings, shop, pseudonyms or Pseudonymiser(load_key(DEFAULT_KEY_FILE)))


__all__ = ["DEFAULT_KEY_FILE", "Reader", "read_events"]

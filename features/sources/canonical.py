"""Parquet files that hold the canonical columns already: what `lotse simulate` writes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from features.errors import EventError
from features.events import check_events
from features.pseudonyms import Pseudonymiser
from features.shop import ShopSettings, SourceSettings


def read(path: Path, settings: SourceSettings, shop: ShopSettings, pseudonyms: Pseudonymiser) -> pd.DataFrame:
    """The table as it is, checked. Its visitors are pseudonyms already."""
    del settings, shop, pseudonyms
    try:
        return check_events(pd.read_parquet(path))
    except (OSError, ValueError) as error:
        if isinstance(error, EventError):
            raise EventError(f"{path}: {error}") from None
        raise EventError(f"{path} cannot be read as Parquet: {error}") from None

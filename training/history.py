"""The history that a command of training is given: a log of events by its source, or what a service has handed on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from features.shop import load_shop
from features.sources.terminal import read_log
from training.config import TrainingSettings
from training.session_log import SOURCE, read_session_log, told


def read_history(
    source: str, location: str | None, shop: Path, settings: TrainingSettings, console: Console
) -> pd.DataFrame:
    """The table of events, or with `log` as source that of sessions (`training.session_log`).

    Raises
    ------
    SettingsError
        The source is unknown, or there is nothing at the location.
    EventError
        A row breaks the contract.
    """
    if source != SOURCE:
        return read_log(source, location, load_shop(shop), console)
    sessions = read_session_log(location, settings.log)
    console.print(f"{len(sessions):,} sessions of {sessions['visitor'].nunique():,} visitors from the service's log")
    if aside := told(sessions):
        console.print(f"[yellow]left out: {', '.join(aside)}[/]", soft_wrap=True)
    return sessions

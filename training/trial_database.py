"""Where trials are kept: an SQLite file for one process at a time, so that a trial left running is known to be dead."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from features.settings import SettingsError


@contextmanager
def database(path: Path) -> Iterator[Any]:
    """Optuna's storage in an SQLite file, for this process alone.

    Raises
    ------
    SettingsError
        Another process is at work on it.
    """
    import optuna  # noqa: PLC0415  (a second of imports that only tuning needs)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a lock that goes with its process, however that ends
    with closing(sqlite3.connect(f"{path}-lock", timeout=0, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise SettingsError(f"another lotse tune is at work on {path}; wait for its end, or stop it") from None
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60, "check_same_thread": False}}
        )
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()

"""Which files of closed sessions have been counted, and what was counted of each: SQLite, in one file.

A file is read once, and again when it is another one (its time, size or inode): after an erasure its rows are counted
anew and what was counted before is taken back. A file that is gone is taken back, too. A process that is killed leaves
what it had committed. It is made of the files alone: where it is damaged it is made anew from them.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from features.allocation import DAY_MS
from serving.experiments.tally import Rows, row_type

logger = logging.getLogger("lotse.learning")

FILE: Final = "counted.sqlite"
# Closed sessions are kept for 390 days by default.
_KEPT_MS: Final = 400 * DAY_MS
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, day TEXT NOT NULL, name TEXT NOT NULL,
    mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL, inode INTEGER NOT NULL, UNIQUE (day, name)
);
CREATE TABLE IF NOT EXISTS units (
    file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE, experiment INTEGER NOT NULL, phase INTEGER NOT NULL,
    counted TEXT NOT NULL, goals INTEGER NOT NULL, rows BLOB NOT NULL, PRIMARY KEY (file, experiment, phase)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tables (
    experiment INTEGER NOT NULL, phase INTEGER NOT NULL, from_ms INTEGER NOT NULL, bins TEXT NOT NULL,
    PRIMARY KEY (experiment, phase, from_ms)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_experiment ON units (experiment, phase, counted);
"""


class Seen(NamedTuple):
    """A file as it was when it was counted: what is another one when the file is."""

    mtime_ns: int
    size: int
    inode: int


class Part(NamedTuple):
    """What a file holds of one phase of an experiment; counted: by which definition, empty if it was not."""

    experiment: int
    phase: int
    counted: str
    rows: Rows


class Counted:
    """The database in a folder; one process uses it at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        path.touch(0o600)
        self._database = sqlite3.connect(path)
        # what is erased must not be found in the file afterwards
        for pragma in ("secure_delete=ON", "foreign_keys=ON", "journal_mode=TRUNCATE", "synchronous=NORMAL"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Let go of it."""
        self._database.close()

    def days(self) -> set[str]:
        """Of which files were counted."""
        return {day for (day,) in self._database.execute("SELECT DISTINCT day FROM files")}

    def files(self, day: str) -> dict[str, Seen]:
        """The files of a day that were counted."""
        found = self._database.execute("SELECT name, mtime_ns, size, inode FROM files WHERE day = ?", (day,))
        return {name: Seen(*seen) for name, *seen in found}

    def parts(self, day: str, name: str) -> list[Part]:
        """What was counted of a file."""
        found = self._database.execute(
            "SELECT experiment, phase, counted, goals, rows FROM units JOIN files ON file = id "
            "WHERE day = ? AND name = ?",
            (day, name),
        )
        return [Part(number, phase, by, _unpacked(rows, goals)) for number, phase, by, goals, rows in found]

    def rows(self, experiment: int, phase: int, by: str) -> Iterator[Rows]:
        """All that was counted of a phase by a definition, file by file."""
        found = self._database.execute(
            "SELECT goals, rows FROM units WHERE experiment = ? AND phase = ? AND counted = ?", (experiment, phase, by)
        )
        for goals, rows in found:
            yield _unpacked(rows, goals)

    def uncounted(self, experiment: int, phase: int, by: str) -> list[tuple[str, str]]:
        """Day and name of files that hold something of a phase which was not counted by this definition."""
        found = self._database.execute(
            "SELECT day, name FROM units JOIN files ON file = id "
            "WHERE experiment = ? AND phase = ? AND counted != ? ORDER BY day, name",
            (experiment, phase, by),
        )
        return [(day, name) for day, name in found]

    def replace(self, found: Mapping[tuple[str, str], tuple[Seen, Iterable[Part]]]) -> None:
        """Note what some files hold, in the place of what was noted of them: all or nothing."""
        with self._database as database:
            for (day, name), (seen, parts) in found.items():
                database.execute("DELETE FROM files WHERE day = ? AND name = ?", (day, name))
                at = database.execute(
                    "INSERT INTO files (day, name, mtime_ns, size, inode) VALUES (?, ?, ?, ?, ?)", (day, name, *seen)
                ).lastrowid
                lines = [(at, *one[:3], _goals(one.rows), _packed(one.rows)) for one in parts]
                database.executemany("INSERT INTO units VALUES (?, ?, ?, ?, ?, ?)", lines)

    def note_table(self, experiment: int, phase: int, from_ms: int, bins: list[list[float]]) -> None:
        """Which probabilities hold from a moment on; those of more than 400 days before go."""
        with self._database as database:
            database.execute(
                "REPLACE INTO tables VALUES (?, ?, ?, ?)", (experiment, phase, from_ms, json.dumps(bins))
            )  # fmt: skip
            database.execute("DELETE FROM tables WHERE from_ms < ?", (from_ms - _KEPT_MS,))

    def tables(self, experiment: int, phase: int) -> dict[int, npt.NDArray[np.float64]]:
        """Which held, by the moment from which they did."""
        found = self._database.execute(
            "SELECT from_ms, bins FROM tables WHERE experiment = ? AND phase = ?", (experiment, phase)
        )
        return {from_ms: np.array(json.loads(bins)) for from_ms, bins in found}

    def forget(self, day: str, names: Iterable[str]) -> None:
        """Of files that are gone."""
        with self._database as database:
            database.executemany("DELETE FROM files WHERE day = ? AND name = ?", [(day, name) for name in names])


def put_aside(folder: Path, error: BaseException) -> bool:
    """Delete a database that an error says is damaged; returns whether it did. A full disk damages nothing."""
    if type(error) is not sqlite3.DatabaseError:  # what may pass is a subclass of it
        return False
    logger.warning("%s is damaged (%s); closed sessions are counted anew", folder / FILE, error)
    for path in folder.glob(f"{FILE}*"):
        path.unlink(missing_ok=True)
    return True


def _goals(rows: Rows) -> int:
    return int(rows.dtype["outcome"].shape[0])


def _packed(rows: Rows) -> bytes:
    return zlib.compress(rows.tobytes(), 1)


def _unpacked(packed: bytes, goals: int) -> Rows:
    return np.frombuffer(zlib.decompress(packed), row_type(goals))

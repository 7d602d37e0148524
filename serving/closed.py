"""Handed-on sessions on this machine: what they hold of a visitor, and how it goes: erased, unlinked, too old.

In: the Parquet files that `serving.handover` writes. A file is replaced whole: who reads it has it before or after.

An erasure and a withdrawal are noted by an empty file named by the pseudonym before they are done: a worker that is
killed leaves them for the next one, and a batch that another worker was writing meanwhile is looked at again. The rows
of somebody who withdrew the consent to link stay, as rows of nobody: each gets a number drawn at random, and what it
tells of earlier visits goes.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.events import CONSENT_LINK
from serving.handover import ROW

if TYPE_CHECKING:
    from serving.settings import StoreSettings

_ERASE: Final = ".erase-"
_UNLINK: Final = ".unlink-"
_DONE: Final = ".done"
_DAY: Final = "day="
# Longer than a batch is claimed for: whoever was writing one has done so.
_AGAIN_SECONDS: Final = 600
_DIGITS: Final = 16
_LEFT_SECONDS: Final = 3_600


class _Note(NamedTuple):
    """What is to be done about a visitor; noted: when, seconds since 1970; done: it was, and may have to be again."""

    path: Path
    kind: str
    visitor: int
    noted: float
    done: bool


class ClosedFiles:
    """The files in `store.closed`."""

    def __init__(self, settings: StoreSettings) -> None:
        self._folder, self._kept = Path(settings.closed), timedelta(days=settings.closed_days)
        self._sync = settings.durability == "disk"
        # files that were looked at for all that is noted, with when they were written
        self._looked: dict[Path, int] = {}

    def rows(self, visitors: Collection[int]) -> list[Mapping[str, Any]]:
        """The sessions of some visitors, without what is missing in them."""
        found: list[Mapping[str, Any]] = []
        for path in self._files():
            table = _read(path)
            mask = _of(table, visitors)
            if mask.any():
                rows = table.filter(pa.array(mask)).drop_columns(["record"]).to_pylist()
                found += [{name: value for name, value in row.items() if value is not None} for row in rows]
        return found

    def unlink(self, visitors: Iterable[int]) -> None:
        """Have rows of these visitors, by their lasting pseudonyms, linked with nothing any more: soon, by `tidy`."""
        self._note(_UNLINK, visitors)

    def erase(self, visitors: Collection[int]) -> int:
        """Erase the rows of some visitors now, and again if a worker is writing some; returns how many were there."""
        self._note(_ERASE, visitors)
        with self._alone(wait=True):
            return sum(self._changed(path, set(visitors), set(), ()) for path in self._files())

    def tidy(self, history: Collection[str], now_ms: int) -> None:
        """Do what was noted, and delete what is too old; history: fields that tell of earlier visits.

        Nothing is done where another worker is at it.
        """
        if not self._folder.is_dir():
            return
        with self._alone(wait=False) as alone:
            if alone:
                self._do(history)
                self._delete_old(now_ms)

    def _note(self, kind: str, visitors: Iterable[int]) -> None:
        for visitor in visitors:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{kind}{visitor % 2**64:016x}").touch(0o600)

    def _do(self, history: Collection[str]) -> None:
        notes = self._notes()
        if not notes:
            return
        fresh = any(not note.done for note in notes)
        erased, unlinked = ({note.visitor for note in notes if note.kind == kind} for kind in (_ERASE, _UNLINK))
        looked: dict[Path, int] = {}
        for path in self._files():
            looked[path] = path.stat().st_mtime_ns
            # of notes that are done, who may have been writing meanwhile knew nothing
            if (fresh or looked[path] != self._looked.get(path)) and self._changed(path, erased, unlinked, history):
                looked.pop(path)
        self._looked = looked
        before = time.time() - _AGAIN_SECONDS
        for note in notes:
            if not note.done:
                note.path.rename(note.path.with_name(note.path.name + _DONE))
            elif note.noted < before:
                note.path.unlink(missing_ok=True)

    def _notes(self) -> list[_Note]:
        """All that was noted: perhaps thousands, and whoever answers waits for the interpreter meanwhile."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                kind = next((kind for kind in (_ERASE, _UNLINK) if entry.name.startswith(kind)), "")
                text = entry.name[len(kind) :].removesuffix(_DONE)
                if not kind or len(text) != _DIGITS:
                    continue
                number = int(text, 16)
                visitor = number - 2**64 if number >= 2**63 else number
                done = entry.name.endswith(_DONE)
                found.append(_Note(Path(entry.path), kind, visitor, entry.stat().st_mtime, done))
        return found

    def _changed(self, path: Path, erased: set[int], unlinked: set[int], history: Collection[str]) -> int:
        """Rewrite a file without some rows, and with others unlinked; returns how many it were."""
        visitors = pq.ParquetFile(path).read(["visitor"])
        count = int(_of(visitors, erased | unlinked).sum())
        if not count:
            return 0
        table = _read(path)
        table = table.filter(pa.array(~_of(table, erased)))
        table = _unlinked(table, _of(table, unlinked), history)
        if not len(table):
            path.unlink()
            return count
        beside = path.with_name(f".{path.stem}.{os.getpid()}")
        with beside.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            if self._sync:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
        return count

    def _delete_old(self, now_ms: int) -> None:
        oldest = (datetime.fromtimestamp(now_ms / 1000, UTC) - self._kept).date()
        for folder in self._folder.glob(f"{_DAY}*"):
            with suppress(ValueError):
                if datetime.fromisoformat(folder.name.removeprefix(_DAY)).date() < oldest:
                    shutil.rmtree(folder, ignore_errors=True)
        for left in self._folder.glob(f"{_DAY}*/.*"):  # by a worker that was killed while it wrote
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < time.time() - _LEFT_SECONDS:
                    left.unlink()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{_DAY}*/*.parquet"))

    @contextmanager
    def _alone(self, *, wait: bool) -> Iterator[bool]:
        """Nobody else rewrites files; whether that is so, where others are not waited for."""
        with (self._folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def _read(path: Path) -> pa.Table:
    # pq.read_table would add a column for the folder's name
    return pq.ParquetFile(path).read()


def _of(table: pa.Table, visitors: Collection[int]) -> np.ndarray:
    """Whose rows are of these visitors, bool (n,)."""
    return np.isin(table.column("visitor").to_numpy(), np.array(list(visitors), np.int64))


def _unlinked(table: pa.Table, mask: np.ndarray, history: Collection[str]) -> pa.Table:
    """The table with some rows linked with nothing."""
    if not mask.any():
        return table
    chosen = pa.array(mask)
    numbers = [secrets.randbits(63) if one else 0 for one in mask.tolist()]
    table = _with(table, "visitor", pc.if_else(chosen, pa.array(numbers, pa.int64()), table.column("visitor")))
    for name in {"consent", f"{ROW}consent"}.intersection(table.column_names):
        consent = pc.bit_wise_and(table.column(name), pa.scalar(~CONSENT_LINK, pa.int64()))
        table = _with(table, name, pc.if_else(chosen, consent, table.column(name)))
    for name in table.column_names:
        # the record as it is tells all of it
        if name == "record" or name.removeprefix(ROW).partition("@")[0] in history:
            column = table.column(name)
            table = _with(table, name, pc.if_else(chosen, pa.scalar(None, column.type), column))
    return table


def _with(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)

"""Where an embedded store's file lies: in its folder, or on a memory file system while the service runs.

A disk writes back what was written through LMDB's map, page by page, and a worker waits for it now and then. A file on
a memory file system survives the end of every process as one on a disk does, but no restart of the machine. So at an
orderly end whoever has the store last leaves a copy of it in the store's folder instead. The next start takes that, and
the first write after it removes the copy, which would bring back what was erased or handed on since. With `durability =
"disk"` the checkpoint and the journal, which stay in the folder, are what counts, and there is no copy.

Whoever has the store holds a lock in its folder, shared with the others: a memory file system that somebody has
cleared, or that only another container sees, is told apart from one that is empty after a start of the machine.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import lmdb
from xxhash import xxh3_64_hexdigest

from features.settings import SettingsError
from serving.stores import StoreError
from serving.stores.journal import is_journaled
from serving.stores.restart import damaged_files_put_aside, nobody_else_opens
from serving.syncing import sync

logger = logging.getLogger("lotse.stores")

FILE: Final = "data.mdb"
_SAVED: Final = "saved.mdb"
_USERS: Final = "users"
_PATH_BYTES: Final = 4096


def live_folder(folder: Path, memory_folder: str) -> Path:
    """Where LMDB's file is while the service runs; one of its own for each store."""
    return Path(memory_folder) / _name(folder) if memory_folder else folder


def _name(folder: Path) -> str:
    return f"lotse-{xxh3_64_hexdigest(os.fsencode(folder.resolve()))}"


class StorePlace:
    """The folders of one store, as one process has them.

    Attributes
    ----------
    folder: where everything lies that is to survive a restart of the machine; live: where LMDB's file is written.
    """

    def __init__(self, folder: Path, memory_folder: str) -> None:
        """Begin one; nothing is written yet.

        Raises
        ------
        SettingsError
            There is no such memory folder.
        """
        self._users = -1
        if memory_folder and not Path(memory_folder).is_dir():
            raise SettingsError(f"store.memory_folder = {memory_folder!r}: there is no such folder")
        self.folder, self.live = folder, live_folder(folder, memory_folder)
        self._saved = folder / _SAVED

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Open the file in here: it is whole, and nobody else opens or leaves the store at the same time.

        Raises
        ------
        StoreError
            Others have a file that is not there, or the folder in memory is somebody else's.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with damaged_files_put_aside(self.folder, live=self.live):
            self.live.mkdir(exist_ok=True, mode=0o700)
            about = self.live.lstat()
            private = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077
            if self.live != self.folder and not private:  # in /dev/shm anybody may have made it
                raise StoreError(f"{self.live} is somebody else's; remove it, or name another store.memory_folder")
            self._users = os.open(self.folder / _USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._have_file()
            fcntl.flock(self._users, fcntl.LOCK_SH)
            yield

    def _have_file(self) -> None:
        """Have the file where it is written, from wherever it was before."""
        file, before = self.live / FILE, self._before()
        if file.exists() and before == self.live:
            return
        if not self._is_alone():
            raise StoreError(
                f"{file} is not there, but others have the store: theirs was removed, or lies where another container "
                "or another store.memory_folder has it; end all services of this store, and start them again"
            )
        if before != self.live:
            file.unlink(missing_ok=True)  # older than what is there
        if not is_journaled(self.folder):
            self._bring(before / FILE if (before / FILE).exists() else self._saved)
        os.truncate(self._users, 0)
        os.pwrite(self._users, b"" if self.live == self.folder else os.fsencode(self.live.resolve()), 0)
        if before != self.live:
            _remove(before)

    def _before(self) -> Path:
        """Where the file was written last."""
        noted = os.pread(self._users, _PATH_BYTES, 0)
        if not noted:
            return self.folder
        before = Path(os.fsdecode(noted))
        # the name is another where the folder is a copy of another store's
        return self.live if before == self.live.resolve() or before.name != _name(self.folder) else before

    def _is_alone(self) -> bool:
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _bring(self, file: Path) -> None:
        if not file.exists():
            return
        begin, new = time.perf_counter(), self.live / "new.mdb"
        try:
            shutil.copyfile(file, new)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise StoreError(f"no room for the embedded store in {self.live}: {error}") from error
        new.rename(self.live / FILE)
        logger.info("live sessions are taken from %s, %.1f s", file, time.perf_counter() - begin)

    @property
    def has_copy(self) -> bool:
        """Whether there is a copy, which the first write makes wrong."""
        return self._saved.exists()

    def forget_copy(self) -> None:
        """Something is about to be written."""
        self._saved.unlink(missing_ok=True)
        sync(self.folder)

    def leave(self, env: Any, *, copied: bool) -> None:
        """Let go of it. copied: who is the last to have LMDB's file in memory leaves a copy in the folder instead."""
        if not copied or self.live == self.folder:
            self._let_go()
            return
        with nobody_else_opens(self.folder):
            if self._is_alone():
                try:
                    if not self.has_copy:
                        self._save(env)
                    _remove(self.live)
                except (OSError, lmdb.Error) as error:
                    logger.warning("live sessions will not survive a restart of the machine: %s", error)
            self._let_go()

    def _let_go(self) -> None:
        users, self._users = self._users, -1
        if users >= 0:
            os.close(users)

    def __del__(self) -> None:  # of a store that could not be opened
        self._let_go()

    def _save(self, env: Any) -> None:
        new = self._saved.with_suffix(".new")
        try:
            with new.open("wb") as file:
                env.copyfd(file.fileno(), compact=True)
                os.fsync(file.fileno())
            new.replace(self._saved)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        sync(self.folder)


def _remove(live: Path) -> None:
    for name in (FILE, "lock.mdb"):
        (live / name).unlink(missing_ok=True)
    with suppress(OSError):  # the store's own folder stays, with what else lies there
        live.rmdir()

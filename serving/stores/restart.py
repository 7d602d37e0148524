"""The embedded store's file after the machine has started anew: nobody relies on it as it is.

Without syncs a power cut leaves whatever part of the file had reached the disk. Then LMDB may answer nonsense or end
the process. With a journal the file is removed, to be made anew from that. Otherwise it is checked by reading it from
outside, 400 MB/s, once a start of the machine; a damaged one is kept beside, and a new one takes its place. Where the
start cannot be told (not Linux) nothing is done.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from lmdb.verify import VerifyError, verify

from serving.stores.journal import is_journaled

logger = logging.getLogger("lotse.stores")

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_SHOWN: Final = 3


@contextmanager
def nobody_else_opens(folder: Path) -> Iterator[TextIO]:
    """Open the store, or leave it, in here: no other worker does meanwhile. What is given names the machine's start."""
    with (folder / "boot").open("a+") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        yield note


@contextmanager
def damaged_files_put_aside(folder: Path, boot: str | None = None, live: Path | None = None) -> Iterator[None]:
    """Open the store's file in here: it is whole, and no other worker opens it at the same time.

    boot: names this start of the machine; live: where the file may lie instead of in the folder.
    """
    if boot is None:
        boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    with nobody_else_opens(folder) as note:
        note.seek(0)
        before = note.read()
        for file in {folder / "data.mdb", (live or folder) / "data.mdb"}:
            if before == boot or not file.exists():
                continue
            if is_journaled(folder):
                file.unlink()
            else:
                _check(file)
        yield
        if before != boot:
            note.truncate(0)
            note.write(boot)
            note.flush()
            os.fsync(note.fileno())


def _check(file: Path) -> None:
    try:
        found = verify(str(file), subdir=False)
    except VerifyError as error:
        found = [str(error)]
    if found:
        aside = file.with_name(f"damaged-{time.time_ns()}.mdb")
        file.rename(aside)
        logger.error(
            "%s was damaged when the machine stopped (%s); it is kept as %s and live sessions begin anew: "
            'store.durability = "disk" survives a power cut',
            file.name, "; ".join(found[:_SHOWN]), aside.name,
        )  # fmt: skip

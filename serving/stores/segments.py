"""The journal's files: a chain of segments, filled with zeros ahead of use, and used again.

To sync blocks that were written before takes two thirds of the time of new ones. A file that is free has a number that
comes later; what it still holds follows no entry, so it ends the journal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from serving.stores.operations import next_entry
from serving.stores.position import Position
from serving.syncing import sync

_NAME: Final = "journal-"


class Segment:
    """One file, open; made if it is not there."""

    def __init__(self, path: Path, number: int) -> None:
        self.number = number
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.descriptor).st_size

    def grow(self, upto_bytes: int) -> None:
        """Have blocks, all of them written."""
        self.size = os.fstat(self.descriptor).st_size  # another worker may have done it
        while self.size < upto_bytes:
            self.size += os.pwrite(self.descriptor, bytes(upto_bytes - self.size), self.size)

    def __del__(self) -> None:  # the thread that syncs may be the last to need it
        with suppress(AttributeError):
            os.close(self.descriptor)


class Segments:
    """All of them.

    latest: sequence of the latest entry that this process knows of.
    failed: what that was when a sync failed, 0 if none did. The operating system forgets then what it did not write,
    and another sync would say nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.latest = self.failed = 0

    def path(self, number: int) -> Path:
        """Where one lies."""
        return self._folder / f"{_NAME}{number:08d}"

    def numbers(self) -> list[int]:
        """Those that are there, in order."""
        return sorted(int(path.name.removeprefix(_NAME)) for path in self._folder.glob(f"{_NAME}*"))

    def open(self, number: int) -> Segment:
        """One of them."""
        return Segment(self.path(number), number)

    def following(self, file: Segment) -> Segment:
        """The next one; what is in the one before is on the disk, and so is the name. Nobody writes meanwhile."""
        self.sync(file)
        following = self.open(file.number + 1)
        sync(self._folder)
        return following

    def sync(self, file: Segment) -> None:
        """Have on the disk what was written to it, and thereby everything before."""
        try:
            os.fdatasync(file.descriptor)
        except OSError:
            self.failed = self.latest
            raise

    def entries(self, position: Position) -> Iterator[tuple[memoryview, Position]]:
        """The operations of each entry from a position on, and where the journal is after it."""
        for number in self.numbers():
            if number < position.segment:
                continue
            # one may be empty, because a checkpoint was begun there and not finished
            content = memoryview(self.path(number).read_bytes())
            offset = position.offset if number == position.segment else 0
            while entry := next_entry(content, offset, position.sequence + 1, position.chain):
                position = position._replace(
                    segment=number,
                    offset=entry.end,
                    sequence=position.sequence + 1,
                    chain=entry.checksum,
                    written=position.written + entry.end - offset,
                )
                offset = entry.end
                yield entry.operations, position

    def remove(self) -> None:
        """Remove all."""
        for number in self.numbers():
            self.path(number).unlink()

"""What could not be delivered, on the disk until it is sent again or too old: JSON lines, a file a target.

Only messages without ids of trackers come here. They name a session by its token, so they are the visitor's data:
shown, erased, and gone after `outbound.dead_hours`. Workers share the files, and lock them for each access.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving.outbound import Message

if TYPE_CHECKING:
    from serving.outbound.configuration import OutboundSettings

_LOCK: Final = ".lock"
_END: Final = ".jsonl"


class DeadLetter(msgspec.Struct):
    """One line. at, dead_at: moments of the message and of its failure, ms UTC; why: it could not be delivered.

    visitor: the pseudonym, which is in the session's token, too.
    """

    id: str
    type: str
    at: int
    dead_at: int
    why: str
    visitor: int
    started_at: int
    session: str
    data: dict[str, Any]

    def message(self) -> Message:
        """What is to be sent again: the same id, by which receivers know it."""
        return Message(self.id, self.type, self.at, self.visitor, self.started_at, self.session, self.data)


def letter_of(message: Message, why: str) -> DeadLetter:
    """The line of a message."""
    dead_at = time.time_ns() // 1_000_000
    return DeadLetter(
        message.id, message.type, message.at_ms, dead_at, why, message.visitor, message.started_at, message.session,
        dict(message.data),
    )  # fmt: skip


_decode: Final = msgspec.json.Decoder(DeadLetter).decode


class DeadLetters:
    """The files of one service."""

    def __init__(self, settings: OutboundSettings) -> None:
        self._folder = Path(settings.folder)
        self._most, self._kept_ms = round(settings.dead_mib * 2**20), round(settings.dead_hours * 3_600_000)

    def add(self, target: str, letters: Sequence[DeadLetter]) -> int:
        """Write some down; returns how many there is no room for.

        Raises
        ------
        OSError
            The disk is full, or may not be written to.
        """
        lines = [msgspec.json.encode(letter) + b"\n" for letter in letters]
        with self._alone(make=True):
            file = os.open(self._path(target), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                room = self._most - os.fstat(file).st_size
                while lines and sum(map(len, lines)) > room:
                    lines.pop()
                os.write(file, b"".join(lines))
            finally:
                os.close(file)
        return len(letters) - len(lines)

    def of(self, target: str) -> list[DeadLetter]:
        """Those of a target that are not too old, the oldest first."""
        with self._alone():
            return list(self._read(self._path(target)))

    def targets(self) -> list[str]:
        """Which there are files of."""
        return sorted(path.stem for path in self._folder.glob(f"*{_END}"))

    def held(self, visitors: Collection[int]) -> list[Mapping[str, Any]]:
        """Those about some visitors, in words for them."""
        found = [letter for target in self.targets() for letter in self.of(target) if letter.visitor in visitors]
        return [{"at": letter.at, "type": letter.type, **letter.data} for letter in found]

    def erase(self, visitors: Collection[int]) -> int:
        """Delete those about some visitors; returns how many."""
        return sum(self._keep(target, lambda letter: letter.visitor not in visitors) for target in self.targets())

    def drop(self, target: str, ids: Collection[str]) -> None:
        """Delete some of a target."""
        self._keep(target, lambda letter: letter.id not in ids)

    def tidy(self) -> None:
        """Delete what is too old."""
        for target in self.targets():
            self._keep(target, lambda letter: True)

    def _keep(self, target: str, wanted: Callable[[DeadLetter], bool]) -> int:
        """Write a file anew without what is too old or not wanted; returns how many were not wanted."""
        path = self._path(target)
        with self._alone():
            fresh = list(self._read(path))
            kept = [letter for letter in fresh if wanted(letter)]
            content = b"".join(msgspec.json.encode(letter) + b"\n" for letter in kept)
            if not content:
                path.unlink(missing_ok=True)
            elif len(content) != path.stat().st_size:
                new = path.with_suffix(".new")
                file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(file, "wb") as out:
                    out.write(content)
                new.replace(path)
        return len(fresh) - len(kept)

    def _read(self, path: Path) -> Iterator[DeadLetter]:
        oldest = time.time_ns() // 1_000_000 - self._kept_ms
        lines: Iterable[bytes] = path.read_bytes().splitlines() if path.exists() else ()
        for line in lines:
            try:
                letter = _decode(line)
            except msgspec.DecodeError:
                continue  # a full disk has cut it
            if letter.dead_at >= oldest:
                yield letter

    def _path(self, target: str) -> Path:
        return self._folder / f"{target}{_END}"

    @contextmanager
    def _alone(self, *, make: bool = False) -> Iterator[None]:
        """No other process is at it; where there is no folder, nothing has been written, and nothing is locked."""
        if make:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        elif not self._folder.is_dir():
            yield
            return
        file = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

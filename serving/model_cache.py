"""The folder of models on this machine: what the follower found usable, what the workers score with, what survives.

    <cache>/state.json              which version of each head is followed by which alias (`State`), replaced as a whole
    <cache>/<registered name>/3-1f2e3d4c/   one version: head.json, booster.txt, tables.npz, fold.json
    <cache>/lock                    held by the follower; names its run
    <cache>/polled, <cache>/refresh when the registry was last asked, when it was last asked to be asked

A version's folder is named by its number and by where the registry keeps it, is written beside and moved into place,
and never changes: a version of another registry that has the same number is another folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from features import carried
from serving.companion import take_lock
from serving.syncing import sync

# What a service reads of a model; `artifacts` of an MLflow model holds more.
FILES: Final = ("head.json", "booster.txt", "tables.npz", carried.FILE)
_BESIDE: Final = ".beside-"


class Version(msgspec.Struct, frozen=True):
    """One version of a head: its number, its folder below the cache, when it was registered (ms UTC; 0: unknown)."""

    number: str
    folder: str
    registered_ms: int = 0


class Refused(msgspec.Struct, frozen=True):
    """A version that an alias leads to and that cannot be used; number is empty where it leads nowhere."""

    number: str
    reason: str
    detail: str


class Followed(msgspec.Struct):
    """One head: what its aliases lead to, as far as it can be used, and what was champion before, the latest first.

    refused: by alias, what it leads to instead.
    """

    champion: Version | None = None
    challenger: Version | None = None
    previous: list[Version] = []
    refused: dict[str, Refused] = {}

    def versions(self) -> list[Version]:
        """All of them."""
        return [one for one in (self.champion, self.challenger, *self.previous) if one is not None]


class State(msgspec.Struct):
    """What the follower knows; run: which follower; unreachable_since_ms: the registry, 0 where it answers."""

    run: str = ""
    unreachable_since_ms: int = 0
    heads: dict[str, Followed] = {}

    def serves_as(self, other: State) -> bool:
        """Whether the same versions are to serve, for the same reasons: another follower has said so, for example."""
        return self.heads == other.heads and bool(self.unreachable_since_ms) == bool(other.unreachable_since_ms)


class ModelCache:
    """The folder. Several processes use it at once: one follower writes, workers read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state, self._lock = folder / "state.json", folder / "lock"
        self._polled, self._refresh = folder / "polled", folder / "refresh"

    def state(self) -> State:
        """The latest state; an empty one where there is none that can be read."""
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=State)
        except (OSError, msgspec.DecodeError):
            return State()

    def mark(self) -> tuple[int, int]:
        """What is another one when the state is another one."""
        return _mark(self._state)

    def write(self, state: State) -> None:
        """Replace the state."""
        beside = self.folder / f"{_BESIDE}{os.getpid()}.json"
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=1))
        beside.replace(self._state)

    def path(self, version: Version) -> Path:
        """Where a version's files are."""
        return self.folder / version.folder

    def version(self, name: str, number: str, source: str, registered_ms: int) -> Version:
        """What a registered version is called here; source: where the registry keeps it."""
        return Version(number, f"{name}/{number}-{hashlib.sha256(source.encode()).hexdigest()[:8]}", registered_ms)

    def has(self, version: Version) -> bool:
        """Whether the version is here."""
        return self.path(version).is_dir()

    def beside(self) -> tempfile.TemporaryDirectory[str]:
        """A folder to make a version in."""
        return tempfile.TemporaryDirectory(prefix=_BESIDE, dir=self.folder, ignore_cleanup_errors=True)

    def keep(self, version: Version, source: Path) -> None:
        """Keep a model's files from `source`, which lies in a folder of `beside`."""
        place = self.path(version)
        place.parent.mkdir(parents=True, exist_ok=True)
        made = source.parent / "kept"
        made.mkdir()
        for name in FILES:
            if (source / name).exists():
                shutil.copyfile(source / name, made / name)
        for path in made.iterdir():
            sync(path)
        made.replace(place)

    def prune(self, names: Iterable[str], kept: Iterable[Version]) -> None:
        """Forget all other versions of these registered models, and what a follower that was killed left half done."""
        folders = {version.folder for version in kept}
        for name in names:
            for path in (self.folder / name).glob("*"):
                if f"{name}/{path.name}" not in folders:
                    shutil.rmtree(path, ignore_errors=True)

    def tidy(self) -> None:
        """Forget what a follower that was killed left half done."""
        for path in self.folder.glob(f"{_BESIDE}*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def lock(self, run: str) -> int | None:
        """Become the follower: an open file that holds the lock until it is closed; None if somebody else is it."""
        return take_lock(self._lock, run)

    def run(self) -> str:
        """Which follower holds the lock, or held it last."""
        try:
            return self._lock.read_text()
        except OSError:
            return ""

    def note_poll(self) -> None:
        """The registry was asked just now."""
        self._polled.touch()

    def polled_ms(self) -> int:
        """When the registry was last asked, ms UTC; 0 for never."""
        return _mark(self._polled)[0] // 1_000_000

    def ask(self) -> None:
        """Have the registry asked now."""
        self._refresh.touch()

    def asked(self) -> int:
        """What is another one when the registry is to be asked."""
        return _mark(self._refresh)[0]


def _mark(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino

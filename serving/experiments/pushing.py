"""Configurations that are pushed: checked as a service would on its start, compared, and put in the file's place.

All workers follow the file, so that there is one truth, whether it was pushed or written by hand. What cannot run
changes nothing.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from features.settings import SettingsError
from serving.experiments.changes import Difference, changes_between, phase_problems
from serving.experiments.configuration import Configuration, version_of
from serving.experiments.history import History, Version, write_whole

if TYPE_CHECKING:
    from serving.experiments.live import Experiments
    from serving.settings import ExperimentSettings

_MODE: Final = 0o644
# What follows from the content that is there.
Change = Callable[[Mapping[str, Any]], Any]


class OtherVersionError(ValueError):
    """The file is not what the one who pushes has seen; version: what it is."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.version = version


class TooLongError(ValueError):
    """The configuration would be longer than a body may be."""


class Pushed(msgspec.Struct):
    """What came of a push.

    version: of the new configuration; changes: by section; dry_run: whether it was only tried.
    """

    version: str
    changes: dict[str, Difference]
    dry_run: bool


class RefusedError(SettingsError):
    """A push that would break what experiments mean; changes: by section."""

    def __init__(self, message: str, changes: dict[str, Difference]) -> None:
        super().__init__(message)
        self.changes = changes


class Pushing:
    """Pushes to one file."""

    def __init__(self, settings: ExperimentSettings, experiments: Experiments, most_bytes: int) -> None:
        self._experiments, self._most_bytes = experiments, most_bytes
        self.history = History(Path(settings.history), settings.versions)
        self._lock = Path(settings.history) / ".lock"

    def push(
        self, change: Change, how: str, by: str, *, expected: str = "", dry_run: bool = False, phases: bool = True
    ) -> Pushed:
        """Change the configuration; blocks for the disk.

        expected: the version that must be there, any if it is empty; phases: whether a running experiment must not
        change in its phase.

        Raises
        ------
        SettingsError
            It cannot run; of the kind RefusedError if an experiment would change in its phase.
        OtherVersionError, TooLongError
            As they say.
        OSError
            The file or the history cannot be written.
        """
        with self._alone(dry_run=dry_run):
            there, version = self._there()
            if expected and expected != version:
                raise OtherVersionError(version)
            content = change(there)
            if not isinstance(content, dict):
                raise SettingsError('expected an object such as {"features": {...}, "experiments": {...}}')
            written = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
            if len(written) > self._most_bytes:
                raise TooLongError(f"the configuration would have {len(written):,} bytes; at most {self._most_bytes:,}")
            new, changes = self._experiments.parsed(written, "the configuration"), changes_between(there, content)
            if phases and (problems := list(phase_problems(self._before(there), new))):
                raise RefusedError("; ".join(problems), changes)
            if not dry_run and new.version != version:
                self._replace(there, version, Version(new.version, _now_ms(), how, by, content), written)
            return Pushed(new.version, changes, dry_run)

    def _there(self) -> tuple[dict[str, Any], str]:
        """The content of the file, and its version; of one that is no JSON object nothing is known."""
        try:
            content = msgspec.json.decode(self._experiments.path.read_bytes())
        except FileNotFoundError:
            return {}, version_of({})
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}, "unreadable"
        return (content, version_of(content)) if isinstance(content, dict) else ({}, "unreadable")

    def _before(self, there: Mapping[str, Any]) -> Configuration:
        """What runs as soon as all workers have followed; what runs here where the file cannot run."""
        try:
            return self._experiments.parsed(msgspec.json.encode(there))
        except SettingsError:
            return self._experiments.configuration

    def _replace(self, there: Mapping[str, Any], version: str, new: Version, written: bytes) -> None:
        """Note the new version, and the old one if nobody has, and only then have it run."""
        path = self._experiments.path.resolve()  # a link stays one
        if there and self.history.newest() != version:
            self.history.add(Version(version, new.at, "file", configuration=dict(there)))
        noted = self.history.add(new)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, written, path.stat().st_mode & 0o777 if path.exists() else _MODE)
        except OSError:
            noted.unlink()
            raise

    @contextmanager
    def _alone(self, *, dry_run: bool) -> Iterator[None]:
        """Two who push at once must not overwrite each other; who only tries changes nothing, so need not wait."""
        if dry_run:
            yield
            return
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

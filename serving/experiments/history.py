"""Versions of the configuration that were pushed: a file each, with who pushed it and when, the newest N kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from serving.syncing import sync

_MOST_BYTES_OF_A_NAME: Final = 64


class Version(msgspec.Struct, omit_defaults=True):
    """One of them.

    at: ms UTC; how: put, patch, rollback, or file for one that was found there, written by hand; by: the id of the API
    key, empty where none was needed. configuration: left out where many are told.
    """

    version: str
    at: int
    how: str
    by: str = ""
    configuration: dict[str, Any] | None = None


_decode: Final = msgspec.json.Decoder(Version).decode


class History:
    """A folder of versions; names begin with the time, so their order is that of the pushes."""

    def __init__(self, folder: Path, kept: int) -> None:
        self._folder, self._kept = folder, kept

    def newest_first(self) -> Iterator[Version]:
        """Every version that is kept; a file that is none is passed over."""
        for path in sorted(self._folder.glob("*-*.json"), reverse=True):
            with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                yield _decode(path.read_bytes())

    def find(self, version: str) -> Version | None:
        """The one of that name, as it was pushed last."""
        if not version.isalnum() or len(version) > _MOST_BYTES_OF_A_NAME:
            return None
        for path in sorted(self._folder.glob(f"*-{version}.json"), reverse=True):
            with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                return _decode(path.read_bytes())
        return None

    def newest(self) -> str:
        """The version that was pushed last, empty if none was."""
        return next((one.version for one in self.newest_first()), "")

    def add(self, one: Version) -> Path:
        """Keep one more, and forget the oldest; returns its file.

        Raises
        ------
        OSError
            The folder cannot be written to.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        latest = max((int(path.name.partition("-")[0]) for path in self._named()), default=0)
        one.at = max(one.at, latest + 1)  # a clock that was set back must not change the order
        added = self._folder / f"{one.at:013d}-{one.version}.json"
        write_whole(added, msgspec.json.encode(one))
        for path in sorted(self._named())[: -self._kept]:
            path.unlink(missing_ok=True)
        return added

    def _named(self) -> list[Path]:
        return [path for path in self._folder.glob("*-*.json") if path.name.partition("-")[0].isdigit()]


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file at once: a reader, or a power cut, finds the old one or the new one.

    Raises
    ------
    OSError
        It cannot be written; the old one is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
    sync(path.parent)


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch applied (RFC 7396): null removes, an object goes deeper, anything else replaces.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "d": [3]}})
    {'a': {'c': 2, 'd': [3]}}
    """
    if not isinstance(patch, Mapping):
        return patch
    found = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found

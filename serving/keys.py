"""Keys of the API: public ones may only send events, secret ones may do everything.

A key is `lotse_pub_<id>_<secret>` or `lotse_sec_<id>_<secret>`, so that scanners find one that leaked. The secret is
256 random bits: nobody can guess them, so a plain SHA-256 is kept; slow hashes protect passwords, which people choose.
A key is told once, when it is made. The file is replaced as a whole, and workers follow it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from features.settings import SettingsError

FILE_NAME: Final = "keys.jsonl"
Kind = Literal["public", "secret"]

_MARKS: Final[dict[Kind, str]] = {"public": "pub", "secret": "sec"}
_SHOWN: Final = re.compile(rb"lotse_(pub|sec)_([0-9a-f]{12})_[0-9a-f]{64}")


class Key(msgspec.Struct, frozen=True):
    """What is known of a key, a line of the file.

    sha256: of the whole key, hexadecimal. origins: pages that may use a public key, none for all. Times are ms UTC.
    """

    id: str
    kind: Kind
    name: str
    sha256: str
    created_at: int
    origins: tuple[str, ...] = ()
    revoked_at: int | None = None


class KeyFile:
    """The file of keys: what `lotse keys` writes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME

    def read(self) -> list[Key]:
        """Every key that was ever made, oldest first; none if there is no file.

        Raises
        ------
        SettingsError
            A line is no key.
        """
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        try:
            return [msgspec.json.decode(line, type=Key) for line in lines]
        except msgspec.DecodeError as error:
            raise SettingsError(
                f"{self.path}: a line is no key ({error}); take the file from a backup, or delete it and make new keys"
            ) from None

    def create(self, kind: Kind, name: str, origins: Sequence[str] = ()) -> tuple[Key, str]:
        """A new key, and what its owner sends: it is nowhere else."""
        key_id = secrets.token_hex(6)
        shown = f"lotse_{_MARKS[kind]}_{key_id}_{secrets.token_hex(32)}"
        key = Key(key_id, kind, name, digest(shown.encode()), _now_ms(), tuple(origins))
        with self._alone():
            self._write([*self.read(), key])
        return key, shown

    def revoke(self, key_id: str) -> Key:
        """Refuse a key from now on; workers follow within a second.

        Raises
        ------
        SettingsError
            There is no such key.
        """
        with self._alone():
            keys = self.read()
            found = next((key for key in keys if key.id == key_id), None)
            if found is None:
                known = ", ".join(key.id for key in keys if key.revoked_at is None) or "none"
                raise SettingsError(f"no key {key_id!r}; keys that can be revoked: {known}")
            revoked = msgspec.structs.replace(found, revoked_at=found.revoked_at or _now_ms())
            self._write([revoked if key is found else key for key in keys])
        return revoked

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two commands at once must not write over each other's key."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, keys: Sequence[Key]) -> None:
        beside = self.path.with_name(f".{FILE_NAME}.{os.getpid()}")
        with suppress(FileNotFoundError):
            beside.unlink()
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(b"".join(msgspec.json.encode(key) + b"\n" for key in keys))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)


class Keys:
    """The keys that one worker accepts.

    Attributes
    ----------
    any: whether a key was ever made; one that was revoked counts, so that revoking the last key opens nothing.
    """

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._by_id: dict[bytes, Key] = {}
        # what was presented and found good: a key has one form only, so there are no more of these than keys
        self._good: dict[bytes, Key] = {}
        self._seen: tuple[int, ...] | None = None
        self.any = False
        self.follow()

    def follow(self) -> bool:
        """Read the file if it was replaced; returns whether it was."""
        try:
            found = self._file.path.stat()
            seen: tuple[int, ...] = (found.st_ino, found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            seen = ()
        if seen == self._seen:
            return False
        keys = self._file.read()
        self._by_id = {key.id.encode(): key for key in keys if key.revoked_at is None}
        self._good = {}
        self._seen, self.any = seen, bool(keys)
        return True

    def find(self, presented: bytes) -> Key | None:
        """The key that was presented, None if it is none of ours or was revoked."""
        # the table's own comparison is by hash first, so its time tells nothing about how much of a guess is right
        return self._good.get(presented) or self._verify(presented)

    def knows(self, key: Key) -> bool:
        """Whether a key that was found is still accepted."""
        return key.id.encode() in self._by_id

    def _verify(self, presented: bytes) -> Key | None:
        form = _SHOWN.fullmatch(presented)
        key = self._by_id.get(form[2]) if form else None
        if key is None or not hmac.compare_digest(key.sha256, digest(presented)):
            return None
        self._good[presented] = key
        return key


def digest(shown: bytes) -> str:
    """What is kept of a key."""
    return hashlib.sha256(shown).hexdigest()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""Keyed pseudonyms: a tracker's visitor id in, 64 bits out that say nothing without the key.

The raw id is never kept. Without the key nobody can compute or check a pseudonym (BLAKE2b in its keyed mode, RFC 7693).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

KEY_BYTES = 32
_WORD = Struct("<q")


class Pseudonymiser:
    """Maps raw visitor ids to keyed 64-bit pseudonyms, signed, never 0.

    >>> one, other = Pseudonymiser(b"k" * 32), Pseudonymiser(b"z" * 32)
    >>> one.visitor("jane") == one.visitor("jane") != other.visitor("jane")
    True
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError(f"a pseudonym key of {len(key)} bytes; expected at least 16 random bytes")
        # hashlib takes keys of at most 64 bytes
        self._begun = hashlib.blake2b(digest_size=8, key=key[:64], person=b"lotse-visitor").copy

    def visitor(self, raw: str) -> int:
        """The pseudonym of one raw id."""
        state = self._begun()
        state.update(raw.encode())
        number: int = _WORD.unpack(state.digest())[0]
        return number or 1

    def visitors(self, raw: pd.Series | Iterable[object]) -> np.ndarray:
        """Pseudonyms of many ids, hashed once for each distinct one. Returns int64 of shape (n,)."""
        import pandas as pd  # noqa: PLC0415  (a service hashes one at a time)

        codes, distinct = pd.factorize(raw if isinstance(raw, pd.Series) else pd.Series(list(raw)))
        table = np.fromiter((self.visitor(str(value)) for value in distinct), np.int64, len(distinct))
        return table[codes]


def load_key(path: Path) -> bytes:
    """The key in `path`, made there (mode 0600) if there is none; deleting the file unlinks every old pseudonym.

    Raises
    ------
    OSError
        It cannot be read, or made: nothing is left then.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        # written beside and given its name: no process ever sees half a key, wherever another one is killed
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first
                os.link(beside, path)
        finally:
            Path(beside).unlink()
        return path.read_bytes()

"""Learned tables: what training found out about keys (products, categories, transitions), as the fold looks it up.

In: for each table of a catalogue its keys, their values, and the value of a key that was never seen. Out: one int64
array that the compiled fold reads. A table is applied when features are *read*, never when an event is folded: a
session's record does not depend on a model, so several models can read the same record (docs/decisions/0004). A table
without anything learned gives NaN, and so does key 0, "none".
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numba import njit

# No hash of ours: hash64 gives it with a chance of 2^-64.
EMPTY: Final = -(2**63) + 1
_DIGEST_BYTES: Final = 8


@dataclass(frozen=True)
class Table:
    """One learned table. keys: int64 (k,), distinct, not 0; values: float64 (k,); unseen: the value of other keys."""

    keys: np.ndarray
    values: np.ndarray
    unseen: float

    @classmethod
    def nothing(cls) -> Table:
        """A table before anything was learned: every value is missing."""
        return cls(np.zeros(0, np.int64), np.zeros(0), np.nan)


@dataclass(frozen=True)
class Tables:
    """The tables of one model, by name.

    >>> tables = Tables({"item_conversion_rate": Table(np.array([7]), np.array([0.25]), 0.1)})
    >>> tables.get("item_conversion_rate", 7), tables.get("item_conversion_rate", 8)
    (0.25, 0.1)
    >>> Tables.load(tables.dump()).digest == tables.digest
    True
    """

    tables: Mapping[str, Table]

    def get(self, name: str, key: int) -> float:
        """The value of one key, looked up the slow way."""
        if key == 0 or name not in self.tables:
            return float("nan")
        table = self.tables[name]
        found = np.flatnonzero(table.keys == key)
        return float(table.values[found[0]]) if len(found) else float(table.unseen)

    @property
    def digest(self) -> str:
        """16 hex digits over everything in them."""
        state = hashlib.sha256()
        for name, table in sorted(self.tables.items()):
            order = np.argsort(table.keys)
            state.update(name.encode())
            state.update(table.keys[order].tobytes() + table.values[order].tobytes())
            state.update(np.float64(table.unseen).tobytes())
        return state.hexdigest()[: 2 * _DIGEST_BYTES]

    def pack(self, names: Sequence[str]) -> np.ndarray:
        """The tables called `names`, in this order, as the fold reads them: int64 (words,)."""
        blocks = [_packed(self.tables.get(name, Table.nothing())) for name in names]
        head = np.zeros(2 * len(blocks), np.int64)
        place = len(head)
        for index, block in enumerate(blocks):
            head[2 * index : 2 * index + 2] = place, (len(block) - 1) // 2 - 1
            place += len(block)
        # a fold without tables still takes an array
        return np.concatenate([head, *blocks]) if blocks else np.zeros(1, np.int64)

    def dump(self) -> bytes:
        """The tables as bytes of a NumPy archive without pickles."""
        arrays: dict[str, Any] = {}
        for name, table in self.tables.items():
            arrays[f"{name}.keys"], arrays[f"{name}.values"] = table.keys, table.values
            arrays[f"{name}.unseen"] = np.float64(table.unseen)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def load(cls, source: bytes | Path) -> Tables:
        """The tables that `dump` wrote.

        Raises
        ------
        ValueError
            Not such an archive.
        """
        try:
            with np.load(io.BytesIO(source) if isinstance(source, bytes) else source, allow_pickle=False) as file:
                names = [name.removesuffix(".keys") for name in file.files if name.endswith(".keys")]
                return cls(
                    {n: Table(file[f"{n}.keys"], file[f"{n}.values"], float(file[f"{n}.unseen"])) for n in names}
                )
        except (OSError, KeyError, EOFError) as error:
            raise ValueError(f"no learned tables: {error}") from None


NOTHING_LEARNED: Final = Tables({})


@dataclass(frozen=True)
class Windows:
    """Tables by time: a session is read with the last ones that were known when it started.

    starts: int64 (w,), ms UTC, increasing; tables: one for each. Sessions before the first start have learned nothing.
    """

    starts: np.ndarray
    tables: Sequence[Tables]

    def pack(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(words int64, starts int64 (w+1,), place of each window's words int64 (w+1,)) for `run`."""
        packed = [one.pack(names) for one in (NOTHING_LEARNED, *self.tables)]
        places = np.cumsum([0, *(len(words) for words in packed[:-1])])
        starts = np.concatenate([[np.iinfo(np.int64).min], self.starts]).astype(np.int64)
        return np.concatenate(packed), starts, places.astype(np.int64)


def look_up(tables: Any, values: Any, at: int, head: int, key: int) -> float:
    """The value of `key` in the table that word `head` tells of, in the set that begins at word `at`; NaN for key 0.

    `values` is `tables` seen as float64. A table is its value for unseen keys, then slots of key and value, a power of
    two of them and at least half of them empty (open addressing, linear probing). Emitted into every fold.
    """
    if key == 0:
        return np.nan
    base = at + int(tables[head])
    mask = int(tables[head + 1])
    slot = ((key ^ (key >> 29)) * 0x9E3779B97F4A7C1) & mask
    while True:
        found = tables[base + 1 + 2 * slot]
        if found == key:
            return values[base + 2 + 2 * slot]
        if found == EMPTY:
            return values[base]
        slot = (slot + 1) & mask


def _packed(table: Table) -> np.ndarray:
    slots = 1
    while slots < 2 * len(table.keys) + 1:
        slots *= 2
    words = np.full(1 + 2 * slots, EMPTY, np.int64)
    words[:1].view(np.float64)[0] = table.unseen
    if len(table.keys):
        _fill(words, table.keys.astype(np.int64), table.values.astype(np.float64).view(np.int64))
    return words


@njit(cache=True)
def _fill(words: Any, keys: Any, values: Any) -> None:
    mask = (len(words) - 1) // 2 - 1
    for i in range(len(keys)):
        key = int(keys[i])  # plain Python then keeps the low bits without a warning of numpy's
        slot = ((key ^ (key >> 29)) * 0x9E3779B97F4A7C1) & mask
        while words[1 + 2 * slot] != EMPTY:
            slot = (slot + 1) & mask
        words[1 + 2 * slot] = key
        words[2 + 2 * slot] = values[i]

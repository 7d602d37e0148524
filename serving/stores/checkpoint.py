"""A checkpoint: everything in an embedded store's tables, from which on its journal is needed.

It is written while transactions go on, a few records at a time, so it holds some of what was done meanwhile and some
not. That is mended by the journal, read from where it was when the checkpoint was begun: its operations are done again
in their order. One read transaction over all of it (LMDB's own copy) would keep every page that is written meanwhile
from being used again, and the file would grow by all of them.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from serving.stores import StoreError
from serving.stores.operations import Operations, next_entry, operations
from serving.stores.position import POSITION, Position

_RECORDS: Final = 128  # at a time: 0.1 ms during which the event loop waits
_MAGIC: Final = b"lotse\0c1"


def write_checkpoint(path: Path, env: Any, tables: Sequence[Any], start: Position, go_on: Callable[[], bool]) -> int:
    """Write the tables' content to the disk; returns its bytes.

    start: where the journal is, before anything is read.
    go_on: asked again and again.

    Raises
    ------
    OSError
        The disk is full.
    StoreError
        It shall not go on.
    """
    sequence, chain = 0, start.chain
    with path.open("wb", buffering=0) as file:
        file.write(_MAGIC + start.packed())
        for done in _contents(env, tables):
            if not go_on():
                raise StoreError("the checkpoint was given up")
            sequence += 1
            data, chain = done.entry(sequence, chain)
            if file.write(data) != len(data):
                raise OSError("the disk is full")
        os.fsync(file.fileno())
        return file.tell()


def _contents(env: Any, tables: Sequence[Any]) -> Iterator[Operations]:
    """All records, some at a time; the last is empty: the end."""
    for number, table in enumerate(tables):
        after = b""
        while True:
            with env.begin() as transaction, transaction.cursor(table) as cursor:
                records = list(islice(cursor, _RECORDS)) if cursor.set_range(after) else []
            if not records:
                break
            done = Operations()
            for key, value in records:
                done.put(number, key, value)
            yield done
            after = records[-1][0] + b"\0"  # the least key that is greater
    yield Operations()


def start_of(path: Path) -> Position | None:
    """Where the journal goes on from a checkpoint; None if there is none.

    Raises
    ------
    StoreError
        It is of another release.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC) + POSITION.size)
    except FileNotFoundError:
        return None
    if len(head) != len(_MAGIC) + POSITION.size or not head.startswith(_MAGIC):
        raise StoreError(f"{path} is no checkpoint of this release; move the folder away to begin anew")
    return Position(*POSITION.unpack_from(head, len(_MAGIC)))


def read_checkpoint(path: Path) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Its operations.

    Raises
    ------
    StoreError
        It is damaged: the disk did not keep what was synced.
    """
    start = start_of(path)
    assert start is not None
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    place, sequence, chain = len(_MAGIC) + POSITION.size, 0, start.chain
    while True:
        sequence += 1
        entry = next_entry(data, place, sequence, chain)
        if entry is None:
            raise StoreError(f"{path} is damaged at byte {place}; move the folder away to begin anew")
        if not entry.operations:
            return
        yield from operations(entry.operations)
        place, chain = entry.end, entry.checksum

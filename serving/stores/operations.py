"""Operations of write transactions as bytes: what a journal and a checkpoint are made of.

An operation puts a value under a key of a table, or deletes the key: done twice, it is as if done once. An entry is
what one transaction did. Its checksum is seeded by that of the entry before, so what a file held in an earlier life, or
what was never finished, is not taken for an entry: it follows nothing.

What is longer than a page is packed by LZ4: three quarters of a session's record are zeros, and to write and sync them
takes longer than to leave them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

import pyarrow as pa
import xxhash

from serving.stores import Value

_CHECKSUM: Final = Struct("<Q")
_ENTRY: Final = Struct("<QL")  # sequence, bytes of operations as they are written; with _PACKED if they are packed
_PACKED: Final = 2**31
_LENGTH: Final = Struct("<L")  # before what is packed: the bytes that it was
_CODEC: Final = pa.Codec("lz4_raw")
_PAGE_BYTES: Final = 4096
_OPERATION: Final = Struct("<BLL")  # table, bytes of the key, bytes of the value
_pack: Final = _OPERATION.pack
_DELETED: Final = 2**32 - 1


class Operations:
    """What a transaction did so far.

    >>> done = Operations()
    >>> done.put(0, b"jane", b"record")
    >>> done.delete(1, b"john")
    >>> data, checksum = done.entry(sequence=1, chain=7)
    >>> read = next_entry(memoryview(data), 0, sequence=1, chain=7)
    >>> [(table, bytes(key), value and bytes(value)) for table, key, value in operations(read.operations)]
    [(0, b'jane', b'record'), (1, b'john', None)]
    """

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done: list[tuple[int, bytes, Value | None]] = []

    def __bool__(self) -> bool:
        return bool(self._done)

    def put(self, table: int, key: bytes, value: Value) -> None:
        """A value under a key of a table; its bytes are looked at when the entry is made."""
        self._done.append((table, key, value))

    def delete(self, table: int, key: bytes) -> None:
        """No value under a key of a table."""
        self._done.append((table, key, None))

    def entry(self, sequence: int, chain: int) -> tuple[bytes, int]:
        """All of it as bytes, and its checksum; chain: that of the entry before."""
        parts: list[Value] = []
        for table, key, value in self._done:
            if value is None:
                parts += (_pack(table, len(key), _DELETED), key)
            else:
                parts += (_pack(table, len(key), len(value)), key, value)
        content = b"".join(parts)
        length = len(content)
        if length > _PAGE_BYTES:
            packed = _LENGTH.pack(length) + _CODEC.compress(content, asbytes=True)
            if len(packed) < length:
                content, length = packed, len(packed) | _PACKED
        data = _ENTRY.pack(sequence, length) + content
        checksum = xxhash.xxh3_64_intdigest(data, chain)
        return _CHECKSUM.pack(checksum) + data, checksum


class Entry(NamedTuple):
    """What one transaction did, as it was read; end: where the next one begins."""

    operations: memoryview
    checksum: int
    end: int


def next_entry(data: memoryview, offset: int, sequence: int, chain: int) -> Entry | None:
    """The entry at an offset that follows another one, None if there is none."""
    begin = offset + _CHECKSUM.size
    body = begin + _ENTRY.size
    if body > len(data):
        return None
    found, length = _ENTRY.unpack_from(data, begin)
    end = body + (length & ~_PACKED)
    if found != sequence or end > len(data):
        return None
    (checksum,) = _CHECKSUM.unpack_from(data, offset)
    if xxhash.xxh3_64_intdigest(data[begin:end], chain) != checksum:
        return None
    done = data[body:end]
    if length & _PACKED:
        (size,) = _LENGTH.unpack_from(done)
        done = memoryview(_CODEC.decompress(done[_LENGTH.size :], size, asbytes=True))
    return Entry(done, checksum, end)


def operations(data: memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Table, key, and value of each; None where the key was deleted."""
    place = 0
    while place < len(data):
        table, key_bytes, value_bytes = _OPERATION.unpack_from(data, place)
        key_end = place + _OPERATION.size + key_bytes
        key = data[place + _OPERATION.size : key_end]
        if value_bytes == _DELETED:
            place = key_end
            yield table, key, None
        else:
            place = key_end + value_bytes
            yield table, key, data[key_end:place]

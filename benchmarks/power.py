"""Power cuts at every moment, from what a store with `durability = "disk"` asked of the operating system.

A process writes to the store under strace, which notes each write to its file with its bytes, each sync, and each
acknowledgement. At a power cut the disk has what a finished sync covered, and of later writes any sectors. Such images
are made for random moments; each must be a whole LMDB file and hold what was acknowledged before.

The same is done with commits that are not synced in order, to which a sync is added before they are acknowledged: that
must be found wanting, or the search is no good.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lmdb
from lmdb.verify import VerifyError, verify

from serving.settings import StoreSettings
from serving.stores import Change, Entry, Value
from serving.stores.embedded import EmbeddedStore

WRITERS: Final = 8
_SECTOR: Final = 512
_BYTES: Final = 1_000


class Count:
    """A visit that counts up in a record of a kilobyte."""

    def __init__(self, writer: int, number: int) -> None:
        self.key = writer.to_bytes(8, "big")
        self.entry: Entry | None = None
        self._number = number

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change:
        """The number, and bytes that differ each time."""
        del value, others
        return Change(self._number.to_bytes(8, "big") + random.Random(self._number).randbytes(_BYTES), self._number)


def write(folder: Path, rounds: int, kind: str) -> None:
    """Writers at the same time; an acknowledgement is a write to the file `acknowledged`."""
    told = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT)

    async def in_order() -> None:
        store = EmbeddedStore(str(folder), StoreSettings(size_gib=0.01, durability="disk"))

        async def count(writer: int) -> None:
            for number in range(1, rounds + 1):
                waiting = store.apply([Count(writer, number)])
                assert waiting is not None
                await waiting
                os.write(told, f"{writer} {number};".encode())

        await asyncio.gather(*(count(writer) for writer in range(WRITERS)))
        store.close()

    def synced_later() -> None:
        environment = lmdb.open(str(folder), map_size=10_000_000, sync=False, metasync=False, max_dbs=8)
        table = environment.open_db(b"records")
        for number in range(1, rounds + 1):
            for writer in range(WRITERS):
                with environment.begin(write=True, db=table) as transaction:
                    value = Count(writer, number).advance(None).value
                    assert value is not None
                    transaction.put(writer.to_bytes(8, "big"), value)
            environment.sync(True)
            for writer in range(WRITERS):
                os.write(told, f"{writer} {number};".encode())
        environment.close()

    if kind == "in order":
        asyncio.run(in_order())
    else:
        synced_later()


@dataclass
class Step:
    """Something that happened to the file, in order.

    kind: `write` (begun: any part of it may be on the disk from now on), `written` (the write before, synchronously),
    `synced` (everything so far) or `told` (an acknowledgement, whose text is the data).
    """

    kind: str
    place: int = 0
    data: bytes = b""


_CALL = re.compile(r"^(\d+) +(?:<\.\.\. \w+ resumed>(.*)|(\w+)\((.*))$")
_BYTES_SHOWN = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_TRACED: Final = "openat,pwrite64,pwritev,writev,write,lseek,fdatasync,fsync,msync"


def traced(folder: Path, rounds: int, kind: str) -> list[Step]:
    """What a process that writes asked for. One thread of it writes to the file, one call after the other."""
    log = folder / "strace"
    strace = ["strace", "-f", "-y", "-xx", "-s", "10000000", "-e", f"trace={_TRACED}", "-o", str(log)]
    subprocess.run([*strace, sys.executable, "-m", "benchmarks.power", str(folder), str(rounds), kind], check=True)
    return list(_steps(log))


def _steps(log: Path) -> Iterator[Step]:  # noqa: PLR0912  (a case a kind of line)
    position, synchronous = 0, ""
    begun: dict[str, tuple[str, str]] = {}
    for line in log.open():
        found = _CALL.match(line)
        if not found:
            continue
        thread, rest, name, arguments = found.groups()
        first, last = rest is None, not line.rstrip().endswith("<unfinished ...>")
        if first:
            begun[thread] = name, arguments
        else:
            name, arguments = begun[thread]
            arguments += rest
        if not last:
            begun[thread] = name, arguments
        if name == "openat":
            if last and "O_DSYNC" in arguments:
                synchronous = arguments.rpartition("= ")[2].partition("<")[0]
            continue
        number, _, path = arguments.partition(">")[0].partition("<")
        of = _unhex(path).decode()
        if first and of.endswith("/acknowledged"):
            yield Step("told", data=_shown(arguments))
        if not of.endswith("/data.mdb"):
            continue
        if "write" in name:
            if first:
                own_place = re.search(r", (\d+)\)", arguments) if name.startswith("pwrite") else None
                yield Step("write", int(own_place[1]) if own_place else position, _shown(arguments))
            if last and number == synchronous:
                yield Step("written")
        elif last and name == "lseek":
            position = int(arguments.rpartition("= ")[2])
        elif last:
            yield Step("synced")


def _shown(arguments: str) -> bytes:
    return b"".join(map(_unhex, _BYTES_SHOWN.findall(arguments)))


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class Found:
    """What came of power cuts: how many, with writes on their way in how many; how many were damaged or forgot."""

    cuts: int = 0
    in_between: int = 0
    damaged: int = 0
    forgot: int = 0
    acknowledged: int = 0


def cut(steps: Sequence[Step], folder: Path, cuts: int, seed: int = 0) -> Found:
    """Cut the power at random moments of what happened."""
    chance, found = random.Random(seed), Found()
    disk, on_its_way = bytearray(), list[tuple[int, bytes]]()
    told = dict.fromkeys(range(WRITERS), 0)
    image = folder / "image" / "data.mdb"
    image.parent.mkdir()
    for step in steps:
        if step.kind == "write":
            on_its_way += _sectors(step)
        elif step.kind == "told":
            for words in step.data.decode().split(";")[:-1]:
                writer, number = map(int, words.split())
                told[writer] = number
                found.acknowledged += 1
        else:
            for place, data in on_its_way:
                _put(disk, place, data)
            on_its_way.clear()
        if found.acknowledged and chance.random() < cuts / len(steps):
            share = chance.choice([0, 0.1, 0.5, 0.9, 1])
            after = bytearray(disk)
            for place, data in on_its_way:
                if chance.random() < share:
                    _put(after, place, data)
            image.write_bytes(after)
            found.cuts += 1
            found.in_between += bool(on_its_way)
            _judge(image, told, found)
    return found


def _sectors(step: Step) -> Iterator[tuple[int, bytes]]:
    place, end = step.place, step.place + len(step.data)
    while place < end:
        following = min(end, place // _SECTOR * _SECTOR + _SECTOR)
        yield place, step.data[place - step.place : following - step.place]
        place = following


def _put(disk: bytearray, place: int, data: bytes) -> None:
    if len(disk) < place + len(data):
        disk.extend(bytes(place + len(data) - len(disk)))
    disk[place : place + len(data)] = data


def _judge(image: Path, told: dict[int, int], found: Found) -> None:
    try:
        if verify(str(image.parent)):
            found.damaged += 1
            return
    except VerifyError:
        found.damaged += 1
        return
    environment = lmdb.open(str(image.parent), readonly=True, lock=False, max_dbs=8)
    try:
        with environment.begin(db=environment.open_db(b"records", create=False)) as transaction:
            for writer, number in told.items():
                value = transaction.get(writer.to_bytes(8, "big"))
                if int.from_bytes((value or b"")[:8], "big") < number:
                    found.forgot += 1
                    return
    finally:
        environment.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

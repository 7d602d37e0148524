"""Power cuts at every moment, from what a store with `durability = "disk"` asked of the operating system.

Two processes write to the store under strace, which notes each write to the journal and to checkpoints with its bytes,
each sync, each change of a name, and each acknowledgement. At a power cut the disk has what a finished sync covered,
and of later writes any sectors, of later names any; what it has of LMDB's own file is anything. Such images are made
for random moments; the store is opened there as after any start of the machine, and must hold what was acknowledged
before, with its tables fitting each other.

The same is done as if a kind of sync had not been asked for: each must be found wanting, or the search is no good.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serving.settings import StoreSettings
from serving.stores import Change, Closed, Entry, StoreError, Value
from serving.stores.checkpoints import Limits
from serving.stores.embedded import EmbeddedStore

WRITERS: Final = 8
PROCESSES: Final = 2
SYNCS: Final = "journal", "checkpoint", "folder"
# so that segments follow each other, are used again, and checkpoints are made all the time
LIMITS: Final = Limits(
    segment_bytes=24_000, step_bytes=8_192, checkpoint_bytes=80_000, checkpoint_seconds=300, again_seconds=0
)
_SECTOR: Final = 512
_BYTES: Final = 600
_CLOSING: Final = 5
_SETTINGS: Final = StoreSettings(size_gib=0.01, durability="disk")


class Count:
    """A visit that counts up in a record, schedules it for the number, and closes a session now and then."""

    def __init__(self, key: int, number: int) -> None:
        self.key = key.to_bytes(8, "big")
        self.entry: Entry | None = Entry(number - 1, self.key) if number > 1 else None
        self._number = number

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change:
        """The number, and bytes that differ each time."""
        del value, others
        number = self._number
        closed = [Closed(self.key + number.to_bytes(8, "big"), b"closed")] if number % _CLOSING == 0 else []
        return Change(_record(number), number, None, closed)


def _record(number: int) -> bytes:
    return number.to_bytes(8, "big") + random.Random(number).randbytes(_BYTES)


def write(folder: Path, rounds: int) -> None:
    """Writers of two processes at the same time; an acknowledgement is a write to the file `acknowledged`."""
    told = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT)
    EmbeddedStore(str(folder), _SETTINGS, LIMITS).close()
    other = os.fork()

    async def count(store: EmbeddedStore, writer: int) -> None:
        for number in range(1, rounds + 1):
            waiting = store.apply([Count(writer, number), Count(writer + WRITERS, number)])
            assert waiting is not None
            await waiting
            os.write(told, f"{writer} {number};".encode())
            if number % 50 == 0 and (claimed := store.claim(3, number, 10_000)) is not None:
                await claimed  # type: ignore[misc]

    async def run() -> None:
        store = EmbeddedStore(str(folder), _SETTINGS, LIMITS)
        await asyncio.gather(*(count(store, writer) for writer in range(0 if other else 1, WRITERS, PROCESSES)))
        store.close()

    asyncio.run(run())
    if other:
        os.waitpid(other, 0)


@dataclass
class Step:
    """Something that was asked for, in order.

    kind: `write` and `name` when begun (any part of a write may be on the disk from now on; a name is taken away,
    given, or goes on as `to`), `sync` of a file or of the folder when begun, `done` when the one of that number is, or
    `told` (an acknowledgement, whose text is the data).
    """

    kind: str
    number: int
    name: str = ""
    to: str = ""
    place: int = -1
    data: bytes = b""


_CALL = re.compile(r"^(\d+) +(?:<\.\.\. \w+ resumed>(.*)|(\w+)\((.*))$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_TRACED: Final = "openat,pwrite64,write,fdatasync,fsync,rename,unlink"


def traced(folder: Path, rounds: int) -> list[Step]:
    """What processes that write asked for."""
    log = folder / "strace"
    strace = ["strace", "-f", "-y", "-xx", "-s", "10000000", "-e", f"trace={_TRACED}", "-o", str(log)]
    subprocess.run([*strace, sys.executable, "-m", "benchmarks.power", str(folder), str(rounds)], check=True)
    return list(_steps(log, folder))


def _steps(log: Path, folder: Path) -> Iterator[Step]:
    begun: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(log.open()):
        found = _CALL.match(line)
        if not found:
            continue
        thread, rest, name, arguments = found.groups()
        if rest is None:
            step = _step(number, name, arguments, folder)
            if step is None:
                begun.pop(thread, None)
                continue
            yield step
            begun[thread] = name, number
        if not line.rstrip().endswith("<unfinished ...>") and thread in begun:
            yield Step("done", begun.pop(thread)[1])


def _step(number: int, call: str, arguments: str, folder: Path) -> Step | None:
    """What a call asks for; None if it is about other files."""
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
    if call in ("openat", "rename", "unlink"):
        names = [Path(text.decode()) for text in texts]
        if not names or names[0].parent != folder or not _counts(names[0].name):
            return None
        if call == "openat":
            if "O_CREAT" not in arguments:
                return None
            return Step("name", number, "", names[0].name, data=b"new" if "O_TRUNC" in arguments else b"")
        return Step("name", number, names[0].name, names[1].name if call == "rename" else "")
    of = Path(bytes.fromhex(arguments.partition("<")[2].partition(">")[0].replace("\\x", "")).decode())
    if of.name == "acknowledged":
        return Step("told", number, data=texts[0])
    if of == folder:
        return Step("sync", number, "")
    if of.parent != folder or not _counts(of.name):
        return None
    if "sync" in call:
        return Step("sync", number, of.name)
    place = int(arguments.rpartition('"')[2].split(",")[2].split(")")[0].split()[0]) if call == "pwrite64" else -1
    return Step("write", number, of.name, place=place, data=texts[0])


def _counts(name: str) -> bool:
    return name.startswith(("journal-", "checkpoint")) and not name.endswith(".lock")


@dataclass
class File:
    """What the disk has of a file; what may be there, too; how long it is for those who read it now."""

    disk: bytearray = field(default_factory=bytearray)
    later: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    size: int = 0


class Disk:
    """What is on it for sure, and what may be."""

    def __init__(self, without: str) -> None:
        self._without = without
        self._names: dict[str, File] = {}
        self._disk_names: dict[str, File] = {}
        self._later_names: dict[int, tuple[str, str, File]] = {}
        self._done: set[int] = set()
        self._covers: dict[int, tuple[File | None, list[int]]] = {}

    def take(self, step: Step) -> None:
        """The next step."""
        if step.kind == "name":
            self._name(step)
        elif step.kind == "write":
            file = self._names[step.name]
            place = file.size if step.place < 0 else step.place
            file.later[step.number] = place, step.data
            file.size = max(file.size, place + len(step.data))
        elif step.kind == "sync":
            kind = step.name.partition("-")[0].partition(".")[0] or "folder"
            if kind == self._without:
                return
            file_synced = self._names.get(step.name)
            later = self._later_names if not step.name else file_synced.later if file_synced else {}
            self._covers[step.number] = file_synced, [number for number in later if number in self._done]
        elif step.kind == "done":
            self._done.add(step.number)
            if step.number in self._covers:
                self._synced(*self._covers.pop(step.number))

    def _name(self, step: Step) -> None:
        if not step.name:
            if step.to in self._names and not step.data:
                return  # it was there
            file = File()
        elif step.name not in self._names:
            return
        else:
            file = self._names.pop(step.name)
        if step.to:
            self._names[step.to] = file
        self._later_names[step.number] = step.name, step.to, file

    def _synced(self, file: File | None, numbers: list[int]) -> None:
        for number in numbers:
            if file is None:
                if number in self._later_names:
                    _rename(self._disk_names, *self._later_names.pop(number))
            elif number in file.later:
                _put(file.disk, *file.later.pop(number))

    def waiting(self) -> bool:
        """Whether something may be on the disk or not."""
        return bool(self._later_names) or any(file.later for file in self._names.values())

    def after_a_cut(self, chance: random.Random) -> dict[str, bytes]:
        """What may be there by name."""
        share = chance.choice([0, 0.1, 0.5, 0.9, 1])
        names = dict(self._disk_names)
        for change in self._later_names.values():
            if chance.random() < share:
                _rename(names, *change)
        found = {}
        for name, file in names.items():
            content = bytearray(file.disk)
            for place, data in file.later.values():
                for sector, part in _sectors(place, data):
                    if chance.random() < share:
                        _put(content, sector, part)
            found[name] = bytes(content)
        return found


def _rename(names: dict[str, File], name: str, to: str, file: File) -> None:
    if name and names.pop(name, None) is not file:
        return
    if to:
        names[to] = file


@dataclass
class Found:
    """What came of power cuts: how many, with writes on their way in how many; how many were damaged or forgot.

    acknowledged: writes; checkpoints, reused: how many were made, and segments used again, in what was traced.
    """

    cuts: int = 0
    in_between: int = 0
    damaged: int = 0
    forgot: int = 0
    acknowledged: int = 0
    checkpoints: int = 0
    reused: int = 0


def cut(steps: Sequence[Step], folder: Path, cuts: int, without: str = "", seed: int = 0) -> Found:
    """Cut the power at random moments of what happened.

    without: a kind of sync that counts for nothing.
    """
    # told of every store that is restored or damaged
    logging.getLogger("lotse.stores").setLevel(logging.CRITICAL)
    chance, found, disk = random.Random(seed), Found(), Disk(without)
    told = dict.fromkeys(range(WRITERS), 0)
    for step in steps:
        disk.take(step)
        found.checkpoints += step.to == "checkpoint"
        found.reused += step.name.startswith("journal-") and step.to.startswith("journal-")
        if step.kind == "told":
            for words in step.data.decode().split(";")[:-1]:
                writer, number = map(int, words.split())
                told[writer] = number
                found.acknowledged += 1
        if found.acknowledged and chance.random() < cuts / len(steps):
            found.cuts += 1
            found.in_between += disk.waiting()
            image = folder / "image"
            image.mkdir()
            for name, content in disk.after_a_cut(chance).items():
                (image / name).write_bytes(content)
            for name in ("data.mdb", "lock.mdb"):
                if chance.random() < 0.8:
                    (image / name).write_bytes(chance.randbytes(chance.randrange(100_000)))
            _judge(image, told, found)
            shutil.rmtree(image)
    return found


def _sectors(place: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    at, end = place, place + len(data)
    while at < end:
        following = min(end, at // _SECTOR * _SECTOR + _SECTOR)
        yield at, data[at - place : following - place]
        at = following


def _put(disk: bytearray, place: int, data: bytes) -> None:
    if len(disk) < place + len(data):
        disk.extend(bytes(place + len(data) - len(disk)))
    disk[place : place + len(data)] = data


def _judge(image: Path, told: dict[int, int], found: Found) -> None:
    try:
        store = EmbeddedStore(str(image), _SETTINGS)
    except StoreError:
        found.damaged += 1
        return
    scheduled = sorted(store.due(10**9, 10**6))
    expected, closed, forgot = [], [], False
    for writer, number in told.items():
        value = store.read(writer.to_bytes(8, "big"))
        there = int.from_bytes(value[:8], "big") if value else 0
        forgot |= there < number
        for key in (writer.to_bytes(8, "big"), (writer + WRITERS).to_bytes(8, "big")):
            if store.read(key) != (_record(there) if there else None):
                scheduled = []
            expected += [Entry(there, key)] if there else []
            closed += [key + n.to_bytes(8, "big") for n in range(_CLOSING, there + 1, _CLOSING)]
    with store._env.begin() as transaction:
        names = [key for key, _ in transaction.cursor(store._closed)]
        names += [key[-16:] for key, _ in transaction.cursor(store._claimed)]
    store.close()
    found.forgot += forgot
    found.damaged += scheduled != sorted(expected) or sorted(names) != sorted(closed)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))

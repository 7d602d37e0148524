"""What the workers of one service tell each other: their samples, each in a file of its own.

Prometheus asks one worker, whichever the kernel chooses; it answers for all. A worker writes once a second and before
it answers, so no number that was told is lost when it is killed. What a worker that ended counted is taken over by the
next one that starts: sums never go backwards. A write takes 0.3 ms. (prometheus_client's multiprocess mode writes to a
file with every count.)
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from serving.accepting import Shares
from serving.exposition import Sample, merged

_decode: Final = msgspec.msgpack.Decoder(list[Sample]).decode


class WorkerFiles:
    """One worker's place among the workers of its supervisor.

    Attributes
    ----------
    folder: where they tell each other.
    """

    def __init__(self, folder: Path) -> None:
        self._service = folder / f"service-{_identity(os.getppid())}"
        self._service.mkdir(parents=True, exist_ok=True)
        self.folder = self._service
        self._own = self._service / f"worker-{_identity(os.getpid())}"
        self._encode = msgspec.msgpack.Encoder().encode
        self._inherited: list[Sample] = []
        for other in folder.glob("service-*"):
            if not _lives(other):
                shutil.rmtree(other, ignore_errors=True)
        with _locked(self._service, fcntl.LOCK_EX):
            ended = [path for path in self._service.glob("worker-*") if not _lives(path)]
            self._inherited = merged(list(map(_read, ended)))
            self.write([])
            for path in ended:
                path.unlink()

    def shares(self) -> Shares:
        """What the workers tell each other of their connections."""
        folder = self._service / "connections"
        folder.mkdir(exist_ok=True)
        return Shares(folder, self._own.name, lambda name: _lives(folder / name))

    def write(self, samples: Sequence[Sample]) -> None:
        """Tell the others this worker's samples."""
        beside = self._service / f".{self._own.name}"
        beside.write_bytes(self._encode(merged([self._inherited], [samples])))
        beside.replace(self._own)

    def all(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples of all workers; `samples` are this one's, and are written first."""
        self.write(samples)
        return told(self._service)


def told(service: Path) -> list[Sample]:
    """What all workers of a service have told, whoever asks; service: their folder."""
    with _locked(service, fcntl.LOCK_SH):
        found: dict[bool, list[list[Sample]]] = {True: [], False: []}
        for path in service.glob("worker-*"):
            found[_lives(path)].append(_read(path))
    return merged(found[False], found[True])


def _read(path: Path) -> list[Sample]:
    with suppress(OSError, msgspec.DecodeError):
        return _decode(path.read_bytes())
    return []


@contextmanager
def _locked(service: Path, how: int) -> Iterator[None]:
    """Nobody takes over a file while another adds it up."""
    with (service / "lock").open("w") as lock:
        fcntl.flock(lock, how)
        yield


def _identity(pid: int) -> str:
    """The process, unlike a later one with the same number."""
    return f"{pid}-{_started(pid)}"


def _lives(path: Path) -> bool:
    _, pid, started = path.name.split("-")
    return _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process started, in ticks since the machine did (field 22 of proc(5)'s stat); empty if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _without_proc(pid)
    return "" if fields[0] in "ZX" else fields[19]


def _without_proc(pid: int) -> str:
    """Elsewhere than on Linux: whether a process has that number."""
    if Path("/proc/self").exists():
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "running"

"""kill -9 at random moments under load: every event that was acknowledged counts once, each session is handed on once.

Clients send numbered events, one after the other, each again until it is acknowledged, and note the number in a file
that survives them. An answer says how many events its session has, so every answer shows whether one was lost or
doubled. A client begins another session every 20 events; what is handed on is compared with what was acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import random
import signal
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq

from features.shop import load_shop
from serving.engine import Engine
from serving.requests import Answer, Request
from serving.settings import ServingSettings, StoreSettings
from serving.stores import Store, open_store
from tests.workspace import Service

SESSION_EVENTS = 20
_LATER_MS = 600_000
_PATIENCE_SECONDS = 300  # with other things on the machine a service takes a minute to load


class LostError(Exception):
    """An acknowledged event is not there, or is there twice."""


class Ledger:
    """How many events of each client were acknowledged: kept by the operating system, whoever is killed."""

    def __init__(self, path: Path, clients: int) -> None:
        self.clients = clients
        path.write_bytes(bytes(8 * clients))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * clients)

    def __getitem__(self, client: int) -> int:
        count: int = struct.unpack_from("<q", self._map, 8 * client)[0]
        return count

    def note(self, client: int, events: int, answer: dict[str, Any]) -> None:
        """The answer to the client's next event.

        Raises
        ------
        LostError
            Its session does not have as many events as were sent.
        """
        expected = events % SESSION_EVENTS + 1
        if answer["events"] != expected:
            raise LostError(f"client {client}, event {events}: {answer['events']} in the session, not {expected}")
        struct.pack_into("<q", self._map, 8 * client, events + 1)

    def total(self) -> int:
        """All events that were acknowledged."""
        return sum(self[client] for client in range(self.clients))


def event(client: int, number: int) -> dict[str, Any]:
    """A client's event of a number."""
    return {
        "visitor": f"visitor-{client}", "session": str(number // SESSION_EVENTS), "id": str(number),
        "name": "view_item", "item": f"sku-{number % 50}",
    }  # fmt: skip


def check_handed_on(folder: Path, ledger: Ledger) -> int:
    """Every session that ended was handed on once, with all its events; returns how many there are."""
    lines = [line for file in folder.rglob("*.parquet") for line in pq.ParquetFile(file).read().to_pylist()]
    wrong = [line for line in lines if line["events"] != SESSION_EVENTS or line["item_views"] != SESSION_EVENTS]
    found = Counter(line["visitor"] for line in lines)
    ended = sorted((ledger[client] - 1) // SESSION_EVENTS for client in range(ledger.clients))
    expected = [count for count in ended if count]
    if (
        wrong
        or sorted(found.values()) != expected
        or len({(line["visitor"], line["started_at"]) for line in lines}) != len(lines)
    ):
        raise LostError(f"{len(lines)} sessions handed on, {len(wrong)} of them not whole; {sum(ended)} ended")
    return len(lines)


# Workers that use the engine and the store, without HTTP


async def _send(engine: Engine, client: int, number: int) -> dict[str, Any]:
    request = Request(json.dumps(event(client, number)).encode())
    later = engine.take([request])
    if later is not None:
        await later
    if request.problem:
        raise request.problem
    assert isinstance(request.answer, Answer)
    return {"events": request.answer.events}


async def _browse(engine: Engine, ledger: Ledger, client: int) -> None:
    while True:
        number = ledger[client]
        ledger.note(client, number, await _send(engine, client, number))
        await asyncio.sleep(0)


Open = Callable[[StoreSettings], Store]


def _worker(engine: Engine, store: Callable[[], Store], ledger: Ledger, clients: range) -> None:
    """A process of its own, until it is killed; another store object, the same file."""

    async def run() -> None:
        engine.store = store()
        browsing = [asyncio.create_task(_browse(engine, ledger, client)) for client in clients]
        while not any(task.done() for task in browsing):
            await engine.upkeep.hand_over()
            await asyncio.sleep(0.02)
        for task in browsing:
            if task.done():
                task.result()

    try:
        asyncio.run(run())
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    os._exit(3)


def engine_rounds(
    settings: ServingSettings, folder: Path, rounds: int, seed: int = 0, opened: Open = open_store
) -> tuple[int, int]:
    """Two workers with eight clients each; one of them, or both, is killed each round.

    At the end what is left is handed on as if the machine had started anew.

    settings: of a store and a folder of closed sessions below `folder`, without heads. Returns acknowledged events and
    sessions handed on.

    Raises
    ------
    LostError
        Something was lost or doubled.
    """
    chance = random.Random(seed)
    ledger = Ledger(folder / "ledger", 16)
    # one engine is made ready, each worker is a copy of it: a round takes a tenth of a second, not seconds
    engine = Engine(
        settings.model_copy(update={"store": settings.store.model_copy(update={"url": "memory:"})}), load_shop()
    )
    workers: dict[int, range] = {}

    def start(clients: range) -> None:
        if pid := os.fork():
            workers[pid] = clients
        else:
            _worker(engine, lambda: opened(settings.store), ledger, clients)

    for clients in (range(8), range(8, 16)):
        start(clients)
    try:
        for _ in range(rounds):
            before = {pid: [ledger[client] for client in clients] for pid, clients in workers.items()}
            while any(before[pid] == [ledger[client] for client in workers[pid]] for pid in workers):
                _alive(workers)
                time.sleep(0.001)
            time.sleep(chance.random() * 0.03)
            _alive(workers)
            victims = list(workers) if chance.random() < 0.3 else [chance.choice(list(workers))]
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            for pid in victims:
                os.waitpid(pid, 0)
                start(workers.pop(pid))
    finally:
        for pid in workers:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    (Path(settings.store.url.partition(":")[2]) / "boot").unlink()
    engine.store = opened(settings.store)
    asyncio.run(_settle(engine, ledger))
    return ledger.total(), check_handed_on(Path(settings.store.closed), ledger)


def _alive(workers: dict[int, range]) -> None:
    for pid in workers:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            raise LostError("a worker ended by itself; it said why")


async def _settle(engine: Engine, ledger: Ledger) -> None:
    """Send what is open, hand on what is left."""
    for client in range(ledger.clients):
        ledger.note(client, ledger[client], await _send(engine, client, ledger[client]))
    await engine.upkeep.hand_over(time.time_ns() // 1_000_000 + _LATER_MS)
    await engine.close()


# The service as it is started by an operator


@contextmanager
def _clients(service: Service, ledger: Ledger) -> Iterator[list[str]]:
    """A thread a client, which sends until the end; what one cannot accept is noted."""
    stopping, wrong = threading.Event(), list[str]()

    def browse(client: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=5) as http:
            while not stopping.is_set():
                number = ledger[client]
                try:
                    answer = http.post("/v1/events", json=event(client, number))
                    answer.raise_for_status()
                    ledger.note(client, number, answer.json())
                except httpx.TransportError:
                    stopping.wait(0.05)
                except (httpx.HTTPStatusError, LostError) as error:
                    wrong.append(str(error))
                    return

    threads = [threading.Thread(target=browse, args=(client,)) for client in range(ledger.clients)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        stopping.set()
        for thread in threads:
            thread.join(20)


def workers_of(service: Service) -> list[int]:
    """The service's worker processes."""
    return [pid for pid in service.processes()[1:] if b"worker" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def service_rounds(
    service: Service, folder: Path, kills: list[str], seed: int = 0, tell: Callable[[str], None] = print
) -> int:
    """A running service with two workers; each kill is of a random `worker` or of the `supervisor`.

    Returns the acknowledged events.

    Raises
    ------
    LostError
        Something was lost or doubled, or a worker lived on without its supervisor.
    """
    chance = random.Random(seed)
    ledger = Ledger(folder / "ledger", 8)
    with _clients(service, ledger) as wrong:
        for kill in kills:
            before = ledger.total()
            _until(lambda before=before: ledger.total() > before + 50 or bool(wrong), _PATIENCE_SECONDS)  # type: ignore[misc]
            time.sleep(chance.random())
            workers = workers_of(service)
            begin = time.perf_counter()
            if kill == "worker":
                os.kill(chance.choice(workers), signal.SIGKILL)
                _until(lambda workers=workers: len(set(workers_of(service)) - set(workers)) > 0, _PATIENCE_SECONDS)  # type: ignore[misc]
                tell(f"a worker is there again after {time.perf_counter() - begin:.1f} s")
            else:
                service.process.kill()
                service.process.wait(20)
                _until(lambda workers=workers: not any(map(_running, workers)), _PATIENCE_SECONDS)  # type: ignore[misc]
                tell(f"the workers ended {time.perf_counter() - begin:.1f} s after their supervisor")
                service.start()
                tell(f"the service answers again after {time.perf_counter() - begin:.1f} s")
        before = ledger.total()
        _until(lambda: ledger.total() > before + 50 or bool(wrong), _PATIENCE_SECONDS)
        if wrong:
            raise LostError("; ".join(wrong))
    return ledger.total()


def _running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise LostError(f"not after {seconds} s")
        time.sleep(0.02)

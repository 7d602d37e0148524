"""What was acknowledged survives: kill -9 at random moments, and power cuts; and what the latter costs at the store.

    python -m benchmarks.durability [--rounds 1000] [--service-rounds 40] [--cuts 2000] [--seconds 1] [--runs 15]

Some of the rounds are of a whole service with two workers, where a killed worker is back after seconds only; a tenth is
of workers with `durability = "disk"`, the rest of workers with the default, all without HTTP. Power cuts are worked out
from what was asked of the operating system (needs `strace`). The store is measured beside a Redis server with
`appendfsync always` (needs `redis-tools`): 16 writers that wait for each other's sync, records of 1,000 bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kills import engine_rounds, service_rounds
from benchmarks.measure import console, median, report
from benchmarks.power import LIMITS, SYNCS, cut, traced
from serving.settings import ServingSettings, StoreSettings, load_serving
from serving.stores import Change, Entry, Store, Value, open_store
from serving.stores.embedded import EmbeddedStore
from tests.redis_server import redis_server
from tests.workspace import Service, workspace

WRITERS, RECORDS, RECORD_BYTES = 16, 10_000, 1_000


def settings_in(folder: Path, durability: str) -> ServingSettings:
    """A service without models, and all that it keeps in the folder."""
    folder.mkdir()
    return load_serving(
        overrides=[
            'models.uri=""', "models.heads=[]", f"keys.folder={folder}/keys", f"models.cache={folder}/models",
            f"store.url=embedded:{folder}/live", f"store.closed={folder}/closed", f'store.durability="{durability}"',
            f"store.spool={folder}/spool", "store.deadline_seconds=60",  # a busy machine is no outage
        ]
    )  # fmt: skip


def kill_rounds(folder: Path, rounds: int, durability: str) -> None:
    """Workers without HTTP; with `disk` they make checkpoints all the time."""
    begin = time.perf_counter()
    settings = settings_in(folder / durability, durability)
    opened = open_store if durability == "process" else _with_small_segments
    events, sessions = engine_rounds(settings, folder / durability, rounds, opened=opened)
    console.print(
        f"{rounds} rounds of kill -9 of workers, durability {durability}: {events:,} acknowledged events, each counted "
        f"once; {sessions:,} sessions, each handed on once ({time.perf_counter() - begin:.0f} s)"
    )


def _with_small_segments(settings: StoreSettings) -> Store:
    return EmbeddedStore(settings.url.partition(":")[2], settings, LIMITS)


def kill_services(folder: Path, rounds: int) -> None:
    """A service of two workers; every tenth kill is of the supervisor."""
    begin = time.perf_counter()
    kills = ["supervisor" if number % 10 == 5 else "worker" for number in range(rounds)]
    service = Service(
        workspace(folder / "service"),
        "server.workers=2",
        "models.heads=[]",
        "store.closed_seconds=0.5",
        "store.deadline_seconds=60",
    )
    service.start()
    try:
        ledger = service_rounds(service, service.folder, kills, tell=lambda line: console.print(line, style="dim"))
    finally:
        service.stop()
    console.print(
        f"{rounds} rounds of kill -9 of a service's worker or supervisor: {ledger:,} acknowledged events, each "
        f"counted once ({time.perf_counter() - begin:.0f} s)"
    )


def power_cuts(folder: Path, cuts: int) -> None:
    """Cuts of what the store asked for; and, a tenth of that each, as if it had not asked for a kind of sync."""
    steps = traced(folder, 200)
    store = cut(steps, folder, cuts)
    console.print(
        f"{store.cuts:,} power cuts, {store.in_between:,} of them between a write and its sync, with "
        f"{store.checkpoints} checkpoints and {store.reused} segments used again: {store.damaged} damaged stores, "
        f"{store.forgot} without an acknowledged write"
    )
    if store.damaged or store.forgot:
        raise SystemExit("a power cut loses what was acknowledged")
    for kind in SYNCS:
        control = cut(steps, folder, max(cuts // 10, 50), without=kind)
        console.print(
            f"of {control.cuts:,} as if the {kind} were never synced: {control.damaged} damaged stores, "
            f"{control.forgot} without an acknowledged write"
        )
        if not control.damaged + control.forgot:
            raise SystemExit("the search does not find anything")


class Put:
    """A visit that reads a record and writes one of as many bytes, and schedules it as an event does."""

    def __init__(self, number: int) -> None:
        self.key = number.to_bytes(8, "big")
        self.entry: Entry | None = None

    def others(self) -> Sequence[bytes]:
        """None."""
        return ()

    def advance(self, value: Value | None, others: Sequence[tuple[bytes, Value]] = ()) -> Change:
        """Other bytes."""
        del others
        return Change(os.urandom(RECORD_BYTES), 1 if value is None else None)


def store_rate(folder: Path, seconds: float) -> float:
    """Acknowledged writes a second of the embedded store with `durability = "disk"`."""

    async def write(store: EmbeddedStore, until: float) -> int:
        written = 0
        while time.perf_counter() < until:
            waiting = store.apply([Put(random.randrange(RECORDS))])
            assert waiting is not None
            await waiting
            written += 1
        return written

    async def run() -> float:
        store = EmbeddedStore(str(folder), StoreSettings(size_gib=1, durability="disk"))
        begin = time.perf_counter()
        counts = await asyncio.gather(*(write(store, begin + seconds) for _ in range(WRITERS)))
        took = time.perf_counter() - begin
        store.close()
        return sum(counts) / took

    return asyncio.run(run())


def redis_rate(port: int, seconds: float) -> float:
    """The same of Redis, by its own benchmark, which is written in C."""
    command = ["redis-benchmark", "-p", str(port), "-c", str(WRITERS), "-t", "set", "-d", str(RECORD_BYTES)]
    command += ["-r", str(RECORDS), "-n", str(round(10_000 * seconds)), "-q"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rates = re.findall(r"([\d.]+) requests per second", told)
    return float(rates[-1])


def sync_microseconds(folder: Path) -> float:
    """What a sync of 8 kB over blocks written before takes here, the middle of 200."""
    with (folder / "sync").open("w+b", buffering=0) as file:
        file.write(bytes(8192 * 200))
        os.fsync(file.fileno())
        took = []
        for number in range(200):
            begin = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(8192), 8192 * number)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begin)
    return 1e6 * median(took)


def beside_redis(folder: Path, seconds: float, runs: int) -> None:
    """In turn, after a turn that makes the files."""
    rates: dict[str, list[float]] = {"embedded": [], "redis": []}
    syncs = []
    with redis_server("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0") as redis:
        for turn in range(runs + 1):
            syncs.append(sync_microseconds(folder))
            for name, rate in (
                ("embedded", store_rate(folder / "live", seconds)),
                ("redis", redis_rate(redis.port, seconds)),
            ):
                if turn:
                    rates[name].append(rate)
                console.print(f"  turn {turn}: {name} {rate:,.0f} writes/s", style="dim")
    redis_median = median(rates["redis"])
    report(
        f"Acknowledged after a sync, {WRITERS} writers; a sync takes {median(syncs):.0f} us here",
        ["store", "writes/s", "beside Redis"],
        [[name, f"{median(found):,.0f}", f"{median(found) / redis_median:.2f}x"] for name, found in rates.items()],
    )


def main() -> None:
    """Kill, cut, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--service-rounds", type=int, default=40)
    parser.add_argument("--cuts", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        if options.cuts:
            (folder / "power").mkdir()
            power_cuts(folder / "power", options.cuts)
        if options.runs:
            beside_redis(folder, options.seconds, options.runs)
        on_disk = options.rounds // 10
        without_http = options.rounds - options.service_rounds - on_disk
        if options.rounds:
            kill_rounds(folder, without_http, "process")
            kill_rounds(folder, on_disk, "disk")
        if options.service_rounds:
            kill_services(folder, options.service_rounds)


if __name__ == "__main__":
    main()

"""How time and memory of the rows grow with the events, in memory, in a stream and on a cluster of this machine.

    python -m benchmarks.scale [--events 1000000 3000000 10000000]

Every line is a process of its own with the whole catalogue, a row an event. "peak" is the largest resident size less
that before the rows were asked for, the events added; "input + output" are the bytes of events and rows. Memory that
the machine hands out for the first time is part of the first time of `in memory`; the second reuses it.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from benchmarks.measure import console, report


def peak_bytes() -> int:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_memory(file: Path, folder: Path) -> dict[str, float]:
    """`build_rows` twice; the second time in the memory of the first."""
    from features.batch import build_rows  # noqa: PLC0415

    events = pd.read_parquet(file)
    build_rows(events.iloc[:1000], idle_seconds=())  # compiled before anything is measured
    before, begin = peak_bytes(), time.perf_counter()
    rows = build_rows(events, idle_seconds=())
    first, peak = time.perf_counter() - begin, peak_bytes() - before
    begin = time.perf_counter()
    again = build_rows(events, idle_seconds=(), out=rows.matrix)
    size = events.memory_usage(index=False).sum()
    return {
        "rows": len(again),
        "first": first,
        "seconds": time.perf_counter() - begin,
        "input": float(size),
        "output": float(rows.matrix.nbytes),
        # the events are there before and count as the input's own share
        "peak": float(peak + size),
    }


def in_a_stream(file: Path, folder: Path) -> dict[str, float]:
    """Events read in chunks, rows written as Parquet."""
    from features.pseudonyms import Pseudonymiser  # noqa: PLC0415
    from features.shop import ShopSettings  # noqa: PLC0415
    from features.sources import open_source, read_chunks  # noqa: PLC0415
    from features.stream import Plan, write_rows  # noqa: PLC0415

    plan = Plan(idle_seconds=())
    plan.rows(next(iter(_head(file))))
    reader, reading = open_source("lotse", file, ShopSettings(), Pseudonymiser(b"benchmark key 16"))
    before, begin = peak_bytes(), time.perf_counter()
    done = write_rows(read_chunks(reader, reading), folder / "rows", plan)
    seconds = time.perf_counter() - begin
    return {"rows": done.rows, "seconds": seconds, "peak": float(peak_bytes() - before),
            "output": float(sum(f.stat().st_size for f in done.files))}  # fmt: skip


def on_a_cluster(file: Path, folder: Path) -> dict[str, float]:
    """Two Dask workers; the time without starting them."""
    from features.distributed import connect, write_parts, write_rows_distributed  # noqa: PLC0415
    from features.stream import Plan  # noqa: PLC0415

    events = pd.read_parquet(file)
    parts = write_parts((events.iloc[s : s + 500_000] for s in range(0, len(events), 500_000)), folder / "parts")
    with connect() as client:
        client.run(_compile)
        begin = time.perf_counter()
        done = write_rows_distributed(parts, folder / "rows", client, Plan(idle_seconds=(), threads=1))
        seconds = time.perf_counter() - begin
    return {"rows": done.rows, "seconds": seconds, "output": float(sum(f.stat().st_size for f in done.files))}


def _compile() -> None:
    from features.compiler import compile_fold  # noqa: PLC0415

    compile_fold()


def _head(file: Path) -> list[pd.DataFrame]:
    """The first events, without the memory of all of them."""
    return [next(pq.ParquetFile(file).iter_batches(1000)).to_pandas()]


WAYS = {"in memory": in_memory, "in a stream": in_a_stream, "on a cluster": on_a_cluster}


def main() -> None:
    """Measure each size and way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--one", nargs=3, metavar=("WAY", "FILE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, file, folder = options.one
        print(json.dumps(WAYS[way](Path(file), Path(folder))))
        return
    from simulation.shop import simulate  # noqa: PLC0415

    lines = []
    for size in options.events:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "events.parquet"
            simulate(events=size, seed=1).events.to_parquet(file, index=False)
            for way in WAYS:
                shutil.rmtree(Path(folder) / "rows", ignore_errors=True)
                command = [sys.executable, "-m", "benchmarks.scale", "--one", way, str(file), folder]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                both = found.get("input", 0) + found["output"]
                lines.append(
                    [
                        way,
                        f"{found['rows']:,}",
                        f"{found.get('first', found['seconds']):.2f}",
                        f"{found['seconds']:.2f}",
                        f"{1e9 * found['seconds'] / found['rows']:.0f}",
                        f"{found.get('peak', 0) / 1e9:.2f}",
                        f"{both / 1e9:.2f}",
                        f"{found['peak'] / both:.2f}x" if "input" in found else "",
                    ]
                )
                console.print("  ".join(lines[-1]), style="dim")
    columns = ["way", "rows", "first, s", "again, s", "ns a row", "peak, GB", "input + output, GB", "peak over both"]
    report("every prefix, whole catalogue", columns, lines)


if __name__ == "__main__":
    main()

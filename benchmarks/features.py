"""Rows per second of `features.batch` against the same prefix features written for DuckDB and Polars.

    python -m benchmarks.features [--events 10000000] [--runs 3]

All get the same events in the order of time as a log has them, in memory in the form each likes best (pandas, DuckDB's
own table, Polars), use both cores, and give one row an event in memory. The values of all three are compared on fewer
events before anything is timed. Each run is a process of its own, one of each engine in turn; its second call counts,
with the memory that the first has left: DuckDB and Polars keep it by their allocators, Lotse by `out=`. "lotse, new
memory" is its first call. "lotse, whole catalogue" computes every feature, also those that the peers cannot express.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl

from benchmarks.measure import console, median, report
from benchmarks.peers import KEYS, NAMES, with_duckdb, with_polars
from features.batch import build_rows
from features.compiler import Fold, compile_fold
from features.definitions import CATALOGUE
from simulation.shop import simulate

COMPARED_EVENTS = 500_000


def compare(rows: pd.DataFrame, other: pd.DataFrame, who: str) -> None:
    """Stop unless every value of every row agrees to float32 rounding."""
    left = rows.sort_values(KEYS, kind="stable").reset_index(drop=True)
    right = other.sort_values(KEYS, kind="stable").reset_index(drop=True)
    for name in NAMES:
        np.testing.assert_allclose(left[name], right[name], rtol=2e-5, atol=1e-4, err_msg=f"{who}: {name}")
    console.print(f"{who}: all {len(NAMES)} features of {len(left):,} rows agree")


def events_of(size: int) -> pd.DataFrame:
    """A simulated shop's events; sessions by time alone and no ids, as the queries do it."""
    return simulate(events=size, seed=1).events.assign(session=0, id=0)


def loaded(events: pd.DataFrame) -> duckdb.DuckDBPyConnection:
    """The events as DuckDB's own table."""
    connection = duckdb.connect()
    connection.register("source", events.assign(seq=np.arange(len(events))))
    connection.execute("create table events as select * from source")
    connection.unregister("source")
    return connection


def compare_all() -> None:
    """Every value of the three engines."""
    events = events_of(COMPARED_EVENTS)
    rows = build_rows(events, compile_fold(CATALOGUE.select(NAMES)), idle_seconds=())
    ours = rows.frame().assign(
        visitor=rows.events["visitor"].to_numpy()[rows.event], time=rows.events["time"].to_numpy()[rows.event]
    )
    compare(ours, with_duckdb(loaded(events)).to_pandas(), "DuckDB")
    compare(ours, with_polars(pl.from_pandas(events)).to_pandas(), "Polars")


def run_lotse(events: pd.DataFrame, fold: Fold) -> tuple[float, float]:
    """Seconds of the first and of the second call."""
    build_rows(events.iloc[:1000], fold, idle_seconds=())  # compiled
    begin = time.perf_counter()
    rows = build_rows(events, fold, idle_seconds=())
    first, matrix = time.perf_counter() - begin, rows.matrix
    del rows
    begin = time.perf_counter()
    build_rows(events, fold, idle_seconds=(), out=matrix)
    return first, time.perf_counter() - begin


def run_peer(call: Callable[[], object]) -> tuple[float, float]:
    """The same of a peer."""
    took = []
    for _ in range(2):
        begin = time.perf_counter()
        result = call()
        took.append(time.perf_counter() - begin)
        del result
    return took[0], took[1]


def run(engine: str, file: Path) -> tuple[float, float]:
    """One engine in this process."""
    events = pd.read_parquet(file)
    if engine == "duckdb":
        connection = loaded(events)
        del events
        return run_peer(lambda: with_duckdb(connection))
    if engine == "polars":
        frame = pl.from_pandas(events)
        del events
        return run_peer(lambda: with_polars(frame))
    return run_lotse(events, compile_fold(CATALOGUE.select(NAMES) if engine == "lotse" else CATALOGUE))


ENGINES = ("lotse", "lotse, whole catalogue", "duckdb", "polars")


def main() -> None:
    """Compare the values, then time the engines in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one[0], Path(options.one[1]))))
        return
    compare_all()
    seconds: dict[str, list[float]] = {name: [] for name in (*ENGINES, "lotse, new memory")}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.parquet"
        events_of(options.events).to_parquet(file, index=False)
        for turn in range(options.runs):
            for engine in ENGINES:
                command = [sys.executable, "-m", "benchmarks.features", "--one", engine, str(file)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                first, second = json.loads(done.stdout.splitlines()[-1])
                console.print(f"  turn {turn}: {engine} {first:.2f} s, then {second:.2f} s", style="dim")
                seconds[engine].append(second)
                if engine == "lotse":
                    seconds["lotse, new memory"].append(first)
    ours = median(seconds["lotse"])
    whole = len(CATALOGUE.features)
    report(
        f"prefix features of {options.events:,} events",
        ["engine", "features", "seconds", "M rows/s", "lotse is faster by"],
        [
            [
                name,
                str(whole if "whole" in name else len(NAMES)),
                f"{median(took):.2f}",
                f"{options.events / median(took) / 1e6:.2f}",
                f"{median(took) / ours:.1f}x",
            ]
            for name, took in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()

"""Rows per second of `features.batch` against the same prefix features written for DuckDB and Polars.

    python -m benchmarks.features [--events 10000000] [--runs 3]

All three get the same events in the order of time as a log has them, in memory in the form each likes best (pandas,
DuckDB's own table, Polars), use both cores, and give one row an event in memory. The values of all three are compared
before anything is timed. DuckDB and Polars keep the memory of one run for the next by their allocators; Lotse does by
`out=`, and the line "new memory" is without it. "lotse, whole catalogue" computes every feature, those included that
the peers cannot express.
"""

from __future__ import annotations

import argparse

import duckdb
import numpy as np
import pandas as pd
import polars as pl

from benchmarks.measure import alternate, console, median, report
from benchmarks.peers import KEYS, NAMES, with_duckdb, with_polars
from features.batch import build_rows
from features.compiler import compile_fold
from features.definitions import CATALOGUE
from simulation.shop import simulate


def compare(rows: pd.DataFrame, other: pd.DataFrame, who: str) -> None:
    """Stop unless every value of every row agrees to float32 rounding."""
    left = rows.sort_values(KEYS, kind="stable").reset_index(drop=True)
    right = other.sort_values(KEYS, kind="stable").reset_index(drop=True)
    for name in NAMES:
        np.testing.assert_allclose(left[name], right[name], rtol=2e-5, atol=1e-4, err_msg=f"{who}: {name}")
    console.print(f"{who}: all {len(NAMES)} features of {len(left):,} rows agree")


def main() -> None:
    """Compare the values, then time the three in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    events = simulate(events=options.events, seed=1).events
    events = events.assign(session=0, id=0)  # sessions by time alone, as the queries do it
    fold = compile_fold(CATALOGUE.select(NAMES))

    connection = duckdb.connect()
    connection.register("source", events.assign(seq=np.arange(len(events))))
    connection.execute("create table events as select * from source")
    frame = pl.from_pandas(events)

    rows = build_rows(events, fold, idle_seconds=())
    ours = rows.frame().assign(
        visitor=rows.events["visitor"].to_numpy()[rows.event], time=rows.events["time"].to_numpy()[rows.event]
    )
    compare(ours, with_duckdb(connection).to_pandas(), "DuckDB")
    compare(ours, with_polars(frame).to_pandas(), "Polars")
    buffer = np.empty(rows.matrix.shape, np.float32)
    buffer.fill(0)
    del rows, ours

    whole = compile_fold()
    seconds = alternate(
        {
            "lotse": lambda: build_rows(events, fold, idle_seconds=(), out=buffer),
            "lotse, new memory": lambda: build_rows(events, fold, idle_seconds=()),
            "lotse, whole catalogue, new memory": lambda: build_rows(events, whole, idle_seconds=()),
            "duckdb": lambda: with_duckdb(connection),
            "polars": lambda: with_polars(frame),
        },
        options.runs,
    )
    ours_seconds = median(seconds["lotse"])
    features = {"lotse, whole catalogue, new memory": len(whole.names)}
    report(
        f"{len(NAMES)} prefix features of {len(events):,} events",
        ["engine", "features", "seconds", "M rows/s", "lotse is faster by"],
        [
            [
                name,
                str(features.get(name, len(NAMES))),
                f"{median(took):.2f}",
                f"{len(events) / median(took) / 1e6:.1f}",
                f"{median(took) / ours_seconds:.1f}x",
            ]
            for name, took in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()

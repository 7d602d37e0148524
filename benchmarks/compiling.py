"""Seconds from a catalogue to code that has run, cold and from numba's cache; imports are left out.

python -m benchmarks.compiling [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

from benchmarks.measure import median, report

# Everything that a service or a batch compiles for a catalogue, in a process that has imported numba and compiled once.
ONE = """
import json, time
import numpy as np, pandas as pd
from numba import njit
njit(lambda x: x + 1)(1)
import features.grouping
from features.batch import build_rows
from features.compiler import compile_fold
from features.definitions import CATALOGUE
from features.events import Event
table = pd.DataFrame({"visitor": [1], "time": [1_700_000_000_000], "name": [1]})
build_rows(table, compile_fold(CATALOGUE.select(["events"])))  # what does not depend on the catalogue
begin = time.perf_counter()
fold = compile_fold()
entries = time.perf_counter()
record, row = fold.new_record(), fold.new_row()
fold.advance(record, row, 1_800_000, fold.nothing_learned, *Event(visitor=1, time=1_700_000_000_000))
fold.read(record, 1_700_000_000_000, row, fold.nothing_learned)
live = time.perf_counter()
build_rows(table, fold)
end = time.perf_counter()
print(json.dumps({"step and read": entries - begin, "live": live - entries, "batch": end - live, "all": end - begin}))
"""


def main() -> None:
    """Cold and cached in turn, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"cold": [], "cached": []}
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            for runs in found.values():
                environment = os.environ | {"LOTSE_CACHE": folder}
                done = subprocess.run(
                    [sys.executable, "-c", ONE], env=environment, capture_output=True, text=True, check=True
                )
                runs.append(json.loads(done.stdout))
    columns = list(found["cold"][0])
    lines = [[state, *(f"{median([run[c] for run in runs]):.2f}" for c in columns)] for state, runs in found.items()]
    report("compiling the whole catalogue, seconds", ["", *columns], lines)


if __name__ == "__main__":
    main()

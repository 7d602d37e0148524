"""From a long history to registered models: time and memory of `lotse train`, step by step.

    python -m benchmarks.training [--events 10000000] [--set rows.max_events=500000]

The log is simulated and written once, outside the clock; a process of its own then reads the Parquet file, trains,
calibrates, evaluates and registers all six heads of the default configuration in an MLflow store of its own.
"seconds" counts everything from the start of that process; "peak" is its largest resident size so far.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import console, report
from benchmarks.scale import peak_bytes

ROOT = Path(__file__).parents[1]


def clock() -> tuple[Callable[[str, int, int], None], list[tuple[str, float, float]]]:
    """A progress report that notes (step, seconds, peak bytes) when a step is done, and its notes."""
    notes: list[tuple[str, float, float]] = []
    begun = time.perf_counter()

    def note(step: str, done: int, whole: int) -> None:
        if done == whole:
            notes.append((step, time.perf_counter() - begun, float(peak_bytes())))

    return note, notes


def train_all(file: Path, overrides: tuple[str, ...]) -> list[tuple[str, float, float]]:
    """Read the log and train every head that is configured; runs in the folder of the MLflow store."""
    note, notes = clock()
    from features.pseudonyms import Pseudonymiser  # noqa: PLC0415
    from features.shop import ShopSettings  # noqa: PLC0415
    from features.sources import read_events  # noqa: PLC0415
    from training.config import QUESTIONS, load_training  # noqa: PLC0415
    from training.runs import train  # noqa: PLC0415

    heads = json.dumps(list(QUESTIONS))
    settings = load_training(ROOT / "configs" / "training.toml", (f"heads.train={heads}", *overrides))
    note("start", 1, 1)
    events = read_events("lotse", str(file), ShopSettings(), Pseudonymiser(b"benchmark key 16"))
    note("read", 1, 1)
    _, refused = train(events, settings, "simulated", note)
    note("folds and end", 1, 1)
    if refused:
        raise SystemExit("; ".join(refused.values()))
    return notes


def main() -> None:
    """Simulate, train in a process of its own, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as lotse train --set")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train_all(options.one, tuple(options.overrides))))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.parquet"
        # in a process of its own: the largest size of this one would be the smallest of its children
        writing = f"simulate(events={options.events}, days=28, seed=1).events.to_parquet({str(file)!r}, index=False)"
        subprocess.run([sys.executable, "-c", f"from simulation.shop import simulate; {writing}"], check=True)
        command = [sys.executable, "-m", "benchmarks.training", "--one", str(file)]
        command += [word for one in options.overrides for word in ("--set", one)]
        begun = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - begun
    lines, before = [], 0.0
    for step, at, peak in json.loads(done.stdout.splitlines()[-1]):
        lines.append([step, f"{at - before:.1f}", f"{at:.1f}", f"{peak / 1e9:.2f}"])
        before = at
    report(f"{options.events:,} events, all heads", ["step", "seconds", "since the start", "peak, GB"], lines)
    console.print(f"{seconds:.0f} s in all")


if __name__ == "__main__":
    main()

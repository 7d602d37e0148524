"""How long a service is not there: from `lotse serve` to the first score, and from `kill -9` of its worker to the next.

    python -m benchmarks.starting [--runs 5]

Trains models from a simulated shop (or takes a folder that `LOTSE_TRAINED` names). Every run is a service of its own
with an empty store. Models come from the registry, where no earlier service has left any; from the cache of an earlier
one, with the registry asked afterwards; or from `lotse build`, with no registry at all. The first turn, which compiles
the fold, does not count.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.measure import console, median, report
from benchmarks.services import EVENT, LOTSE, environment, lotse, trained_folder

REGISTRY, CACHE, PACKED = "registry", "cache of an earlier start", "lotse build, no registry"
KILLED = "its only worker is killed"


def overrides(how: str, folder: Path, cache: Path) -> list[str]:
    """Settings for one start."""
    if how == REGISTRY:
        shutil.rmtree(cache, ignore_errors=True)
    return ["models.uri=", f"models.cache={folder}/packed"] if how == PACKED else [f"models.cache={cache}"]


def main() -> None:
    """Start in turn, kill in between, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {how: [] for how in (REGISTRY, CACHE, PACKED, KILLED)}
    with trained_folder() as folder, tempfile.TemporaryDirectory() as own:
        if not (folder / "packed").exists():
            build = [*LOTSE, "build", "--models", "packed"]
            subprocess.run(build, cwd=folder, check=True, capture_output=True, env=environment())
        for turn in range(options.runs + 1):
            for how in (REGISTRY, CACHE, PACKED):
                with lotse(folder, *overrides(how, folder, Path(own) / "cache")) as running:
                    took = {how: running.ready}
                    if how == PACKED:
                        (worker,) = running.processes()[1:]
                        killed = time.perf_counter()
                        os.kill(worker, signal.SIGKILL)
                        took[KILLED] = running.until("POST", "/v1/events", EVENT) + running.began - killed
                for what, value in took.items():
                    if turn:  # the first turn compiles
                        seconds[what].append(value)
                    console.print(f"  turn {turn}: {what} {value:.1f} s", style="dim")
    report(
        "Seconds to the first score",
        ["models from", "median", "least", "most"],
        [[what, f"{median(all_):.1f}", f"{min(all_):.1f}", f"{max(all_):.1f}"] for what, all_ in seconds.items()],
    )


if __name__ == "__main__":
    main()

"""What it takes to learn live: how often a guardrail stops an arm that it should not, and what a year of files costs.

`python -m benchmarks.learning [--runs 300] [--days 365] [--files 96] [--sessions 100]`. The first part has an arm of
which the truth is known, judged again and again by the sums that the learner keeps. The second writes files of closed
sessions with one assignment each, and has a learner count them: all, one more, an erased visitor, and after a restart.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import report
from features.events import hash64
from features.judging.rails import guard
from serving.experiments.attributes import Names
from serving.experiments.configuration import Configuration, Trial
from serving.experiments.learner import Learner
from serving.experiments.learning import Orders
from serving.experiments.tally import CLUSTERS, Rows, Tally, row_type
from serving.handover import ASSIGNMENTS

HOUR: Final = 3_600_000
KNOWN: Final = Names(*[frozenset({"purchases", "revenue", "cart_adds"})] * 2)
ALLOWED: Final = -0.2


def content(**changed: Any) -> dict[str, Any]:
    """A configuration with one experiment of two arms."""
    definition = {
        "arms": ["control", "banner"], "planned_units": 1_000,
        "goals": [{"name": "purchase", "column": "purchases", "primary": True}],
        "guardrails": [{"goal": "purchase", "worst": ALLOWED}],
    } | changed  # fmt: skip
    rules = [{"key": "offer", "condition": {"cart_adds": {"$gte": 1}}, "variations": definition["arms"]}]
    return {"features": {"help": {"defaultValue": "none", "rules": rules}}, "experiments": {"offer": definition}}


def trial_of(**changed: Any) -> Trial:
    """That experiment as it runs."""
    return Configuration(content(**changed), KNOWN).trials["offer"]


def rows_of(random: np.random.Generator, begin: int, size: int, rates: tuple[float, float], share: float) -> Rows:
    """Units of one period, of visitors who have three each, which are alike; share: of the second arm."""
    rows, visitor = np.zeros(size, row_type(1)), np.arange(size) // 3
    rows["begin"], rows["cluster"] = begin, random.integers(0, CLUSTERS, size)[visitor]
    rows["arm"] = random.random(size) < share
    rows["propensity"] = np.where(rows["arm"], share, 1 - share)
    rows["outcome"][:, 0] = random.random(size)[visitor] < np.array(rates)[rows["arm"]]
    return rows


def stopped_in(trial: Trial, rates: tuple[float, float], seed: int, looks: int = 40) -> bool:
    """Whether an arm is ever stopped, looked at after every 300 units, whose shares go up and down."""
    random, tally = np.random.default_rng(seed), Tally(trial, HOUR)
    rail = trial.definition.guardrails[0]
    for look in range(looks):
        tally.add(rows_of(random, look * HOUR, 300, rates, 0.5 + 0.4 * np.sin(look)))
        tally.settle((look + 3) * HOUR)
        if guard(rail, tally.effects(rail.goal)["banner"], "banner", trial.definition).state == "broken":
            return True
    return False


def stops(runs: int) -> None:
    """How often an arm is stopped that changes a rate of 20 % by so much."""
    trial, rows = trial_of(), []
    for change in (0.0, -0.1, ALLOWED, -0.4, -0.6):
        count = sum(stopped_in(trial, (0.2, 0.2 * (1 + change)), seed) for seed in range(runs))
        rows.append([f"{change:+.0%}", f"{count / runs:.1%}"])
    report(f"Stopped in 40 looks at 12,000 units, allowed {ALLOWED:.0%}, {runs} runs", ["change", "stopped"], rows)


def write(path: Path, begin_ms: int, sessions: int, random: np.random.Generator) -> None:
    """A file of closed sessions that were exposed in an hour."""
    arm = random.integers(0, 2, sessions)
    at = (begin_ms + np.sort(random.integers(0, HOUR, sessions))).tolist()
    assigned = [
        [{"experiment": hash64("offer"), "exposed_at": moment, "propensity": 0.5, "age_seconds": 5.0, "bounce": 0.5,
          "conversion": score, "exit": 0.5, "age_events": 2, "arm": one, "phase": 1, "flags": 0, "before_1": 0.0,
          "before_2": 0.0, "before_3": 0.0, "before_4": 0.0}]
        for moment, one, score in zip(at, arm.tolist(), random.random(sessions).tolist(), strict=True)
    ]  # fmt: skip
    table = {
        "visitor": random.integers(-(2**62), 2**62, sessions), "started_at": at, "events": np.full(sessions, 5),
        "purchases": (random.random(sessions) < 0.1 + 0.02 * arm).astype(np.int32),
        "assignments": pa.array(assigned, ASSIGNMENTS),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path, compression="zstd")


def year(folder: Path, days: int, files: int, sessions: int) -> None:
    """Processor time and memory that files of so many days cost."""
    random, now = np.random.default_rng(0), time.time_ns() // 1_000_000 // HOUR * HOUR
    options = {"name": "contextual", "score": "conversion"}
    (folder / "experiments.json").write_text(json.dumps(content(allocation=options, holdback=0.1)))
    paths = []
    for number in range(days * files):
        at = now - int((days * files - number) / files * 24 * HOUR)
        day = datetime.fromtimestamp(at / 1000, UTC)
        paths.append(folder / "closed" / f"day={day:%Y-%m-%d}" / f"{number:08}.parquet")
        write(paths[-1], at // HOUR * HOUR, sessions, random)
    orders = Orders(
        str(folder / "experiments.json"), str(folder / "closed"), str(folder / "learned"), KNOWN, 60, 60
    )  # fmt: skip
    found: list[list[str]] = []

    def took(what: str, work: Callable[[], object]) -> None:
        begin = time.process_time()  # it gives way to others: the wall clock says how busy these are
        work()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found.append([what, f"{time.process_time() - begin:.2f} s", f"{memory:.0f} MB"])

    time.sleep(2.1)  # folders that have just changed are looked at again
    learner = Learner(orders)
    took(f"the first look: {days * files:,} files, {days * files * sessions:,} units", lambda: learner.look(now))
    took("nothing new", lambda: learner.look(now))
    write(paths[-1].with_name("new.parquet"), now - 3 * HOUR, sessions, random)
    took("one file more", lambda: learner.look(now))
    time.sleep(2.1)
    learner.look(now)
    table = pq.ParquetFile(paths[0]).read()
    pq.write_table(table.slice(1), paths[0].with_name("beside"), compression="zstd")
    paths[0].with_name("beside").replace(paths[0])
    took("an old file rewritten", lambda: learner.look(now))
    learner.close()
    again = Learner(orders)
    took("after a restart", lambda: again.look(now))
    size = sum(path.stat().st_size for path in (folder / "learned").iterdir()) / 1e6
    closed = sum(path.stat().st_size for path in paths) / 1e6
    report(
        f"A learner; it keeps {size:.0f} MB beside {closed:.0f} MB of files",
        ["look", "processor time", "memory so far"],
        found,
    )


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser()
    for name, default in (("runs", 300), ("days", 365), ("files", 96), ("sessions", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    stops(asked.runs)
    with tempfile.TemporaryDirectory() as folder:
        year(Path(folder), asked.days, asked.files, asked.sessions)


if __name__ == "__main__":
    main()

"""From nothing to a promoted champion: a service without any model, a crowd, and `lotse watch`.

    python -m benchmarks.cold_start [--visitors 40000] [--head exit ...]

A fresh folder, `lotse serve` without a registry's models, and the simulated shop's crowd over HTTP in two waves, whose
hours pass in seconds. `lotse watch` learns the first champions from what the first wave left in the log of sessions;
after the second it holds them to its outcomes and trains challengers, which the next round judges on later sessions of
other visitors. Scores are compared with the shop's own truth: mean score, mean truth, mean distance of the two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measure import console, report
from simulation.crowd import Visit, visits_of_shop
from simulation.days import LONGEST_SECONDS, browse_in_order
from simulation.shop import simulate
from tests.workspace import Service, lotse, wait_until, workspace

HEADS: Final = ("bounce", "conversion", "exit")
HOUR_MS: Final = 3_600_000
# The crowd's day is not over: no head needs one, and nobody waits for a candidate to grow old.
SETS: Final = ("split.min_days=0.2", "promotion.min_age_hours=0", "watch.retrain_hours=0")


class Shop:
    """A folder with a service in it that knows nothing yet."""

    def __init__(self, folder: Path, heads: Sequence[str] = HEADS, *sets: str) -> None:
        self.folder, self.heads, self._sets = workspace(folder), list(heads), (*SETS, *sets)
        self.service = Service(
            self.folder, f"models.heads={json.dumps(self.heads)}", "models.poll_seconds=0.5", "store.closed_seconds=0.5"
        ).start()

    def wave(self, visits: Sequence[Visit], from_ms: int, to_ms: int) -> None:
        """Let them come, and wait until their sessions are in the log."""
        before, url = self.logged(), f"http://127.0.0.1:{self.service.port}"
        asyncio.run(browse_in_order(url, visits, from_ms, to_ms))
        met = sum(one.offsets[-1] < LONGEST_SECONDS for one in visits)
        wait_until(lambda: self.logged() - before >= met, 120)

    def logged(self) -> int:
        """Sessions in the log."""
        files = (self.folder / "lotse-data" / "closed").glob("day=*/*.parquet")
        return sum(pq.ParquetFile(path).metadata.num_rows for path in files)

    def watch(self, *more: str) -> dict[str, Any]:
        """A round of `lotse watch`."""
        sets = [
            word for one in (*self._sets, *more, f"heads.train={json.dumps(self.heads)}") for word in ("--set", one)
        ]
        done = lotse(self.folder, "watch", "--json", *sets)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found

    def models(self) -> dict[str, str]:
        """Which versions answer."""
        event = {"visitor": "somebody", "name": "page_view", "page": "/"}
        found: dict[str, str] = self.service.http.post("/v1/events", json=event).json().get("models", {})
        return found

    def answers_with(self, versions: dict[str, str]) -> None:
        """Wait until the service does."""
        wait_until(lambda: versions.items() <= self.models().items(), 60)


def truth_of(visits: Sequence[Visit], head: str) -> tuple[float, float, float, int]:
    """Mean score, mean truth and their mean distance over events whose question is open, and how many these are."""
    pairs = [
        (scores[head], truth[head])
        for visit in visits
        for scores, truth in zip(visit.scores, visit.truth, strict=False)
        if head in scores and 0 < scores[head] < 1 and truth[head] == truth[head]
    ]
    score, true = np.array(pairs).T
    return float(score.mean()), float(true.mean()), float(np.abs(score - true).mean()), len(pairs)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=40_000)
    parser.add_argument("--head", action="append")
    asked = parser.parse_args()
    begin = time.monotonic()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as place:
        shop = Shop(Path(place) / "work", asked.head or HEADS)
        now = time.time_ns() // 1_000_000

        def told(what: str, visits: Sequence[Visit]) -> None:
            for head in shop.heads:
                score, true, off, count = truth_of(visits, head)
                line = [f"{score:.4f}", f"{true:.4f}", f"{off:.4f}", f"{count:,}"]
                rows.append([f"{time.monotonic() - begin:.0f} s", what, head, *line])

        try:
            for number, (first, last) in enumerate(((22, 13), (13, 4), (4, 3.2)), 1):
                size = asked.visitors if number < 3 else asked.visitors // 4
                visits = visits_of_shop(simulate(visitors=size, seed=200 + number))
                shop.wave(visits, now - round(first * HOUR_MS), now - round(last * HOUR_MS))
                models = shop.models()
                told(f"wave {number}, {', '.join(f'{h} v{v}' for h, v in models.items()) or 'no model'}", visits)
                if number == 3:
                    break
                found = shop.watch()
                console.print_json(json.dumps({name: found[name] for name in ("trained", "alarms", "without")}))
                if number == 1:
                    shop.answers_with(found["trained"])
                else:
                    judged = shop.watch()["decisions"]
                    console.print_json(json.dumps(judged))
                    shop.answers_with({one["head"]: one["candidate"] for one in judged if one["promoted"]})
        finally:
            shop.service.stop()
    report("From nothing", ["after", "who", "head", "mean score", "truth", "distance", "events"], rows)


if __name__ == "__main__":
    main()

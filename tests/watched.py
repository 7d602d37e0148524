"""A folder in which models were trained and watched for a while, as a service's folder is after two weeks."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path

import pandas as pd

from features.events import Event
from simulation.shop import simulate
from tests.serving.in_process import open_engine
from tests.training.test_session_log import fold
from tests.workspace import KEY, lotse, workspace

HEADS = ("conversion", "exit")
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
_FAST = (
    "lightgbm.num_boost_round=60", "lightgbm.learning_rate=0.1", "linear.max_rows=0", "evaluation.resamples=20",
    "evaluation.prefixes=[1, 2, 3]", "evaluation.seconds=[10, 60]", "split.inner_folds=2", "tables.windows=3",
    "drift.min_rows=300", "promotion.min_age_hours=0", "promotion.min_rows=100", f"heads.train={json.dumps(HEADS)}",
)  # fmt: skip


def watched_folder(folder: Path) -> Path:
    """Two weeks of a simulated shop until yesterday: champions from a history of eight days, then what the service has
    handed on of the later ones: two looks, the second of which trains challengers, and a third that judges them.

    What a verb said is beside it, as <verb>-<number>.log.
    """
    work = workspace(folder, KEY)
    events = simulate(events=45_000, days=14, seed=17).events
    # the last full days are of this week
    yesterday = time.time_ns() // 1_000_000 // DAY_MS - 1
    events = events.assign(time=events["time"] + (yesterday - int(events["time"].max()) // DAY_MS) * DAY_MS)
    history = events[events["time"] < (yesterday - 5) * DAY_MS]
    history.to_parquet(work / "history.parquet")
    days = handed_on(events, folder / "lotse-data" / "service")[-6:]
    closed = work / "lotse-data" / "closed"

    _run(work, "train-1", "train", "--source", "lotse", "--events", "history.parquet")
    for number, (until, retrain_hours) in enumerate(((3, 1_000), (6, 0), (6, 1_000)), 1):
        for day in days[:until]:
            shutil.copytree(day, closed / day.name, dirs_exist_ok=True)
        _run(work, f"watch-{number}", "watch", "--json", sets=(f"watch.retrain_hours={retrain_hours}",))
    return work


def handed_on(events: pd.DataFrame, folder: Path) -> list[Path]:
    """What a service hands on of events, day by day: the folders of the days."""

    async def run() -> None:
        engine = open_engine(None, folder, "store.url=memory:")
        for day, part in events.groupby(events["time"] // DAY_MS):
            fold(engine, [Event(*line) for line in part.itertuples(index=False, name=None)])
            over = int(day) * DAY_MS + DAY_MS  # type: ignore[call-overload]
            await engine.upkeep.sweep(over)
            await engine.upkeep.hand_over(over)
        await engine.upkeep.sweep(over + HOUR_MS)
        await engine.upkeep.hand_over(over + HOUR_MS)
        await engine.close()

    asyncio.run(run())
    return sorted((folder / "closed").glob("day=*"))


def _run(work: Path, name: str, *arguments: str, sets: tuple[str, ...] = ()) -> None:
    words = [word for one in (*_FAST, *sets) for word in ("--set", one)]
    done = lotse(work, *arguments, *words)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    (work / f"{name}.log").write_text(done.stdout)

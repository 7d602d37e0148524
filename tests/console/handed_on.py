"""Sessions of a simulated shop, handed on by a real engine at the times of their own events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from features.sessions import DEFAULT_TIMEOUT_SECONDS
from features.steps import KEPT_STEPS
from simulation.crowd import _wire
from simulation.shop import START_MS, simulate
from tests.serving.in_process import engine_of, post, start

DAY_MS = 86_400_000
# Visitors enough to be told of, whose sessions have more steps than are kept in order.
PATIENT = 70


def hand_on(folder: Path, events: int = 16_000) -> Path:
    """The folder with what a service has handed on that met these visitors."""
    sent = sorted([*_shop(events), *_patient()], key=lambda event: int(event["time"]))

    async def visited() -> Path:
        app = start(folder, f"keys.folder={folder}/keys", "session.max_age_hours=1000000")
        engine = engine_of(app)
        for begin in range(0, len(sent), 500):
            now = int(sent[min(begin + 500, len(sent)) - 1]["time"])
            await post(engine, [sent[begin : begin + 500]], now)
            await engine.upkeep.sweep(now)
        await engine.upkeep.sweep(now + DAY_MS)
        await engine.upkeep.hand_over(now + 2 * DAY_MS)
        return Path(engine.settings.store.closed)

    # playwright's loop runs in this thread
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(visited())).result()


def _shop(events: int) -> Iterator[dict[str, Any]]:
    """Two weeks of a shop; some visitors allow their visits to be linked, and some of these come back."""
    rows = simulate(events=events, seed=5).events.assign(session=0, id=0)
    for row in rows.itertuples(index=False):
        event = _wire(row, lambda value: f"{value:x}" if value else "")
        yield event | {"visitor": str(row.visitor), "time": int(row.time)}


def _patient() -> Iterator[dict[str, Any]]:
    """Visitors who go to and fro between list and product for longer than is kept, and buy in the end."""
    random = np.random.default_rng(3)
    for number in range(PATIENT):
        at = START_MS + round(random.uniform(1, 12) * DAY_MS)
        names = [*["view_item_list", "view_item"] * (KEPT_STEPS // 2 + 2), "add_to_cart", "purchase"]
        for name in names:
            yield {"visitor": f"patient-{number}", "name": name, "time": at, "page": f"/{name}", "device": "desktop"}
            at += round(random.uniform(2, DEFAULT_TIMEOUT_SECONDS / 60) * 1000)

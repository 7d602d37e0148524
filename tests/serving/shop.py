"""A shop whose sessions come in over the engine, with an effect that is planted; and what is learned from them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from features.allocation import State
from features.units import units_of
from serving.engine import Engine
from serving.experiments.flags import Flag
from serving.experiments.learned import Learned, Published
from serving.experiments.learner import Learner
from serving.experiments.learning import Orders
from serving.requests import Answer, Request
from tests.serving.in_process import open_engine

HOUR = 3_600_000
NOW = 1_770_000_000_000 // HOUR * HOUR
ARMS = ["control", "banner", "chat"]
OFFER: dict[str, Any] = {
    "arms": ARMS,
    "holdback": 0.2,
    "goals": [{"name": "purchase", "column": "purchases", "primary": True}],
    "allocation": {"name": "thompson", "settle_minutes": 30},
    "minimum_share": 0.05,
}


def content(**changed: Any) -> dict[str, Any]:
    """A configuration with one flag and one experiment, with what is changed of it."""
    definition = {**OFFER, **changed}
    rule = {"key": "offer", "condition": {"cart_adds": {"$gte": 1}}, "variations": definition["arms"]}
    features = {"help": {"defaultValue": "none", "rules": [rule]}}
    return {"features": features, "experiments": {"offer": definition}}


class Shop:
    """An engine and a learner in a folder; a session is exposed by its first event, and buys or does not."""

    def __init__(self, folder: Path, **changed: Any) -> None:
        self.folder, self.path = folder, folder / "experiments.json"
        self.define(**changed)
        self.engine = self.new_engine()
        self.random, self.count = np.random.default_rng(1), 0
        self.learner = self.new_learner()

    def new_engine(self) -> Engine:
        """As after a restart, with a store that is empty."""
        return open_engine(
            None, self.folder, "store.url=memory:", f"experiments.file={self.path}",
            f"experiments.learned={self.folder}/learned",
        )  # fmt: skip

    def define(self, **changed: Any) -> None:
        """Write another definition."""
        self.path.write_text(json.dumps(content(**changed)))

    def new_learner(self) -> Learner:
        """As after a restart."""
        known = self.engine.experiments.known
        return Learner(Orders(str(self.path), f"{self.folder}/closed", f"{self.folder}/learned", known, 60, 60))

    def sessions(
        self, at_ms: int, count: int, rates: Mapping[str, float], *, buys_after_ms: int = 0, closes: bool = True,
        consent: Sequence[str] = ("measure",),
    ) -> dict[str, str]:  # fmt: skip
        """Sessions that begin at a moment and are over half an hour later; the arm of each visitor."""
        visitors = [f"v{number}" for number in range(self.count, self.count + count)]
        self.count += count

        async def run() -> dict[str, str]:
            arms: dict[str, str] = {}
            for begin in range(0, count, 500):
                some = visitors[begin : begin + 500]
                answers = await self._post(
                    [{"visitor": one, "name": "add_to_cart", "consent": consent} for one in some], at_ms
                )
                arms |= {one: answer.flags["help"].variant for one, answer in zip(some, answers, strict=True)}
                buys = [one for one in some if self.random.random() < rates.get(arms[one], 0.0)]
                if buys:
                    events = [{"visitor": one, "name": "purchase", "value": 10, "consent": consent} for one in buys]
                    await self._post(events, at_ms + buys_after_ms)
            return arms

        arms = asyncio.run(run())
        if closes:
            self.close(at_ms + buys_after_ms)
        return arms

    async def _post(self, events: list[dict[str, Any]], at_ms: int) -> list[Answer]:
        request = Request(json.dumps(events).encode(), flags=())
        self.engine.take([request], at_ms)
        assert request.problem is None and isinstance(request.answer, list)
        return request.answer

    def close(self, at_ms: int) -> None:
        """End what has begun until then, and hand it on."""

        async def run() -> None:
            await self.engine.upkeep.sweep(at_ms + HOUR // 2 + 1)
            await self.engine.upkeep.hand_over(at_ms + HOUR // 2 + 1)

        asyncio.run(run())

    def look(self, at_ms: int) -> Published:
        """What the learner publishes, and the engine follows."""
        published = self.learner.look(at_ms)
        asyncio.run(self.engine.experiments.follow())
        return published

    def learned(self, at_ms: int) -> Learned:
        """The same of the one experiment."""
        return self.look(at_ms).experiments["offer"]

    def shares(self, arms: Mapping[str, str]) -> list[float]:
        """How often each arm was given."""
        counts = Counter(arms.values())
        return [counts[arm] / len(arms) for arm in ARMS]

    def state(self, at_ms: int) -> State:
        """What tables are made from, after a look."""
        self.look(at_ms)
        return self.learner.tally("offer").state(at_ms)

    def follow(self) -> Shop:
        """Have the engine use the definition as it is now."""
        asyncio.run(self.engine.experiments.follow())
        return self

    def restarted(self) -> Shop:
        """With another engine."""
        self.engine = self.new_engine()
        return self

    def anew(self) -> Shop:
        """The same shop with a learner that knows nothing and reads all files."""
        shutil.rmtree(self.folder / "learned")
        self.learner = self.new_learner()
        return self

    def rows(self) -> list[dict[str, Any]]:
        """Sessions that were handed on."""
        return [row for path in self.engine.closed._files() for row in pq.ParquetFile(path).read().to_pylist()]

    def units(self) -> pd.DataFrame:
        """As a report reads them."""
        return units_of(self.engine.closed._files(), self.engine.experiments.configuration.definitions)

    def flags(self, at_ms: int, visitors: Iterable[str]) -> dict[str, Flag]:
        """What they get now."""
        visitors = list(visitors)
        answers = asyncio.run(self._post([{"visitor": one, "name": "view_item"} for one in visitors], at_ms))
        return {one: answer.flags["help"] for one, answer in zip(visitors, answers, strict=True)}

    def stay(self, at_ms: int, visitors: Iterable[str]) -> None:
        """Their sessions go on."""
        asyncio.run(self._post([{"visitor": one, "name": "view_item"} for one in visitors], at_ms))

    def again(self, at_ms: int, visitors: Iterable[str], consent: Sequence[str]) -> None:
        """They come again, and all buy."""
        events = [{"visitor": one, "name": "purchase", "value": 10, "consent": consent} for one in visitors]
        asyncio.run(self._post(events, at_ms))
        self.close(at_ms)

    def force(self, at_ms: int, count: int, arm: str) -> None:
        """Sessions for which a person chooses the arm; all buy."""
        visitors = [f"forced{number}" for number in range(count)]

        async def run() -> None:
            engine = self.engine
            await self._post([{"visitor": one, "name": "page_view"} for one in visitors], at_ms)
            await self._post([{"visitor": one, "name": "purchase", "value": 1} for one in visitors], at_ms)
            for one in visitors:
                request = Request(json.dumps({"visitor": one, "name": "add_to_cart"}).encode())
                engine.take([request], at_ms)
                assert isinstance(request.answer, Answer)
                view = await engine.looks.view(*engine.looks.opened(request.answer.session), now_ms=at_ms)
                assert view is not None
                flags, _ = await engine.looks.evaluated(view, ["help"], at_ms, forced={"offer": arm})
                assert flags["help"].variant == arm

        asyncio.run(run())
        self.close(at_ms)

"""A crowd of visitors that browse a running service over HTTP, their think times compressed.

Each visit is sent event by event. Event times keep the visit's own pace and end about now, so the session's clock is
the visitor's, though the whole crowd is through in seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import numpy as np
import pandas as pd

from features.events import CHANNELS, CONSENTS, DEVICES, EVENT_NAMES
from simulation.shop import Simulated

HEADS: Final = ("bounce", "conversion", "exit")


@dataclass
class Visit:
    """One visit to be sent: wire events, their seconds since the first, and the truth after each where it is known.

    Filled while it is browsed: `token`, the scores after each event, `status` of a request that failed.
    """

    visitor: str
    events: list[dict[str, Any]]
    offsets: list[float]
    truth: list[dict[str, float]] = field(default_factory=list)
    token: str = ""
    scores: list[dict[str, float]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether all of its events were answered."""
        return len(self.scores) == len(self.events)

    @property
    def bought(self) -> bool:
        """Whether the visit holds a purchase."""
        return any(event["name"] == "purchase" for event in self.events)


@dataclass
class Counts:
    """What the crowd met."""

    answered: int = 0
    failed: int = 0


def visits_of(
    events: pd.DataFrame, *, texts: dict[int, str] | None = None, truth: pd.DataFrame | None = None
) -> list[Visit]:
    """Each visitor's first visit in a canonical table, as it goes over the wire.

    Hashes of pages and items become the texts they were made of, where those are known, else hexadecimal numbers.
    Only first visits, because all end about now: two visits of one visitor would run into each other.
    """
    table = events.reset_index(drop=True)
    ordered = table.sort_values(["visitor", "time"], kind="stable")
    gap = ordered.groupby("visitor")["time"].diff().fillna(0)
    visit = (gap > 1_800_000).groupby(ordered["visitor"]).cumsum()
    first = ordered[visit == 0]
    known = texts or {}

    def text(value: int) -> str:
        return known.get(value, f"{value & 0xFFFFFFFFFFFFFFFF:016x}") if value else ""

    out = []
    for number, (visitor, rows) in enumerate(first.groupby("visitor", sort=False)):
        del visitor  # the pseudonym of the history means nothing to the service
        start = int(rows["time"].iloc[0])
        sent = [_wire(row, text) for row in rows.itertuples(index=False)]
        offsets = [(int(value) - start) / 1000 for value in rows["time"]]
        found = truth.loc[rows.index, list(HEADS)].to_dict("records") if truth is not None else []
        out.append(Visit(f"crowd-{number}-{time.time_ns()}", sent, offsets, found))  # type: ignore[arg-type]
    return out


def visits_of_shop(drawn: Simulated) -> list[Visit]:
    """The first visits of a simulated shop, with the truth."""
    return visits_of(drawn.events, texts=drawn.texts, truth=drawn.truth)


def _wire(row: Any, text: Callable[[int], str]) -> dict[str, Any]:
    event: dict[str, Any] = {
        "name": EVENT_NAMES[row.name],
        "page": text(row.page),
        "item": text(row.item),
        "category": text(row.category),
        "campaign": text(row.campaign),
        "price": row.price,
        "quantity": row.quantity,
        "value": row.value,
        "channel": CHANNELS[row.channel],
        "device": DEVICES[row.device],
        "interactive": bool(row.interactive),
        "consent": [name for name, bit in CONSENTS.items() if row.consent & bit],
        "utc_offset": row.utc_offset,
    }
    return {key: value for key, value in event.items() if value != ""}


async def browse(
    url: str,
    visits: Sequence[Visit],
    *,
    seconds: float,
    at_once: int = 50,
    think_seconds: float = 0.05,
    tick: Callable[[Counts], None] | None = None,
) -> Counts:
    """Let the visits happen, `at_once` at a time, for about so many seconds; visits under way end in time.

    think_seconds: pause between two events of a visit, in place of its own pace.
    """
    counts = Counts()
    queue = iter(visits)
    deadline = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=10) as client:

        async def visitor(number: int) -> None:
            random = np.random.default_rng(number)
            for visit in queue:
                if time.monotonic() > deadline:
                    return
                await _send(client, visit, counts, think_seconds, random)
                if tick:
                    tick(counts)

        await asyncio.gather(*(visitor(number) for number in range(at_once)))
    return counts


async def _send(
    client: httpx.AsyncClient, visit: Visit, counts: Counts, think_seconds: float, random: np.random.Generator
) -> None:
    begin_ms = time.time_ns() // 1_000_000 - round(visit.offsets[-1] * 1000)
    for number, (event, offset) in enumerate(zip(visit.events, visit.offsets, strict=True)):
        body = {**event, "visitor": visit.visitor, "id": f"{visit.visitor}-{number}"}
        body["time"] = begin_ms + round(offset * 1000)
        try:
            answer = await client.post("/v1/events", json=body)
        except httpx.TransportError:
            counts.failed += 1
            return
        if answer.status_code != httpx.codes.OK:
            counts.failed += 1
            return
        counts.answered += 1
        content = answer.json()
        visit.token = content["session"]
        visit.scores.append(content["scores"])
        await asyncio.sleep(random.exponential(think_seconds))

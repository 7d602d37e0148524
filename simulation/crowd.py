"""A crowd of visitors that browse a running service over HTTP, their think times compressed.

Each visit is sent event by event. Event times keep the visit's own pace and end about now, so the session's clock is
the visitor's, though the whole crowd is through in seconds. A crowd that asks for flags may react to what it is shown
(`simulation.persuasion`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, Final

import httpx
import numpy as np
import pandas as pd

from features.events import CHANNELS, CONSENTS, DEVICES, EVENT_NAMES
from simulation.persuasion import Persuasion, Reaction
from simulation.shop import Simulated

HEADS: Final = ("bounce", "conversion", "exit")
# A visitor comes back after more than the timeout of a session and what a visit may become longer by.
_BACK_SECONDS: Final = 45 * 60.0
# An event's time is believed for a day.
_LONGEST_SECONDS: Final = 22 * 3600.0


@dataclass
class Visit:
    """One visit to be sent: wire events, their seconds since the first, and the truth after each where it is known.

    number: of the visit among those drawn. Filled while it is browsed: `token`, the scores after each event, by flag
    `reactions` to what it was shown, which may make another visit of it than was drawn.
    """

    visitor: str
    events: list[dict[str, Any]]
    offsets: list[float]
    truth: list[dict[str, float]] = field(default_factory=list)
    token: str = ""
    scores: list[dict[str, float]] = field(default_factory=list)
    number: int = 0
    reactions: dict[str, Reaction] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether all of its events were answered."""
        return len(self.scores) == len(self.events)

    @property
    def bought(self) -> bool:
        """Whether the visit holds a purchase."""
        return any(event["name"] == "purchase" for event in self.events)

    def bought_after(self, flag: str) -> bool:
        """Whether there is a purchase after the visit met a flag."""
        return any(event["name"] == "purchase" for event in self.events[self.reactions[flag].place + 1 :])


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

    sent = [_wire(row, text) for row in first.itertuples(index=False)]
    times = first["time"].tolist()
    found = truth.loc[first.index, list(HEADS)].to_dict("records") if truth is not None else []
    whose = first["visitor"].to_numpy()
    begins = [0, *(np.flatnonzero(whose[1:] != whose[:-1]) + 1).tolist()] if len(whose) else []
    out = []
    # the pseudonyms of the history mean nothing to the service
    for number, (begin, end) in enumerate(pairwise((*begins, len(sent)))):
        offsets = [(at - times[begin]) / 1000 for at in times[begin:end]]
        name = f"crowd-{number}-{time.time_ns()}"
        out.append(Visit(name, sent[begin:end], offsets, found[begin:end], number=number))  # type: ignore[arg-type]
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
    persuasions: Sequence[Persuasion] = (),
) -> Counts:
    """Let the visits happen, `at_once` at a time, for about so many seconds; visits under way end in time.

    think_seconds: pause between two events of a visit, in place of its own pace. persuasions: flags that visitors are
    shown, and what these do to them.
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
                await _send(client, visit, counts, think_seconds, random, persuasions)
                if tick:
                    tick(counts)

        await asyncio.gather(*(visitor(number) for number in range(at_once)))
    return counts


async def _send(
    client: httpx.AsyncClient,
    visit: Visit,
    counts: Counts,
    think_seconds: float,
    random: np.random.Generator,
    persuasions: Sequence[Persuasion],
) -> None:
    begin_ms = time.time_ns() // 1_000_000 - round(visit.offsets[-1] * 1000)
    number = 0
    while number < len(visit.events):  # there may be more or fewer of them after each answer
        try:
            answer = await client.post(f"/v1/events{_asking(persuasions)}", json=_body(visit, number, begin_ms))
        except httpx.TransportError:
            counts.failed += 1
            return
        if answer.status_code != httpx.codes.OK:
            counts.failed += 1
            return
        counts.answered += 1
        _told(visit, number, answer.json(), persuasions)
        number += 1
        await asyncio.sleep(random.exponential(think_seconds))


async def browse_in_step(
    url: str,
    visits: Sequence[Visit],
    *,
    at_once: int = 250,
    persuasions: Sequence[Persuasion] = (),
    tick: Callable[[Counts], None] | None = None,
) -> Counts:
    """Let the visits happen, `at_once` at a time and in step: a request holds the next event of each.

    That takes a tenth of the time of a request an event. Each visit is over when its visitor comes back for a page, 45
    minutes later: so its session ends, and is handed on, at once. Visits of over 22 hours are left out.
    """
    counts = Counts()
    queue = iter(one for one in visits if one.offsets[-1] < _LONGEST_SECONDS)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        # two take turns, so that the service has something to do while the other reads its answers
        await asyncio.gather(*(_in_step(client, queue, at_once // 2, persuasions, counts, tick) for _ in range(2)))
    return counts


async def _in_step(
    client: httpx.AsyncClient,
    queue: Iterator[Visit],
    at_once: int,
    persuasions: Sequence[Persuasion],
    counts: Counts,
    tick: Callable[[Counts], None] | None,
) -> None:
    begun: dict[int, tuple[Visit, int, int]] = {}
    while True:
        for visit in islice(queue, at_once - len(begun)):
            now_ms = time.time_ns() // 1_000_000
            begun[visit.number] = visit, 0, now_ms - round((visit.offsets[-1] + _BACK_SECONDS) * 1000)
        if not begun:
            return
        under_way = list(begun.values())
        bodies = [_body(visit, number, begin_ms) for visit, number, begin_ms in under_way]
        answer = await client.post(f"/v1/events{_asking(persuasions)}", json=bodies)
        answer.raise_for_status()
        over = []
        for (visit, number, begin_ms), told in zip(under_way, answer.json()["results"], strict=True):
            _told(visit, number, told, persuasions)
            begun[visit.number] = visit, number + 1, begin_ms
            if number + 1 >= len(visit.events):
                del begun[visit.number]
                over.append(visit)
        counts.answered += len(under_way)
        if over:
            now_ms = time.time_ns() // 1_000_000
            back = [
                {"visitor": one.visitor, "name": "page_view", "time": now_ms, "consent": one.events[0]["consent"]}
                for one in over
            ]
            (await client.post("/v1/events?scores=none", json=back)).raise_for_status()
        if tick:
            tick(counts)


def _body(visit: Visit, number: int, begin_ms: int) -> dict[str, Any]:
    at_ms = begin_ms + round(visit.offsets[number] * 1000)
    return {**visit.events[number], "visitor": visit.visitor, "id": f"{visit.visitor}-{number}", "time": at_ms}


def _asking(persuasions: Sequence[Persuasion]) -> str:
    return f"?flags={','.join(one.flag for one in persuasions)}" if persuasions else ""


def _told(visit: Visit, number: int, content: Mapping[str, Any], persuasions: Sequence[Persuasion]) -> None:
    visit.token = content["session"]
    visit.scores.append(content["scores"])
    for one in persuasions:
        one.meet(visit, number, content["flags"])

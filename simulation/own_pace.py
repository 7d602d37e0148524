"""A crowd that browses at its own pace, for as long as somebody watches: events come when they happen.

So think times are real ones, sessions idle as they do in life, and who has left is silent. `simulation.crowd` is the
crowd that hurries.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import httpx
import numpy as np

from simulation.crowd import Counts, Visit

# Until the first visitors have spread out, none waits longer for another page.
_FIRST_SECONDS: Final = 10.0
# A service that does not answer is asked again after so long.
_AWAY_SECONDS: Final = 2.0


async def browse_at_own_pace(
    url: str,
    visits: Sequence[Visit],
    *,
    at_once: int = 40,
    tell: Callable[[str, Mapping[str, float]], None],
    longest_seconds: float = 300.0,
) -> Counts:
    """Let visits happen, `at_once` at a time, until cancelled; when all were there, others come and do the same.

    tell: visitor and scores after each event; longest_seconds: visits that wait longer between two events are left out.
    """
    counts = Counts()
    queue = _endless(visits, longest_seconds)
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=10) as client:
        await asyncio.gather(*(_visitor(client, queue, number, counts, tell) for number in range(at_once)))
    return counts


async def _visitor(
    client: httpx.AsyncClient,
    queue: Iterator[tuple[str, Visit]],
    number: int,
    counts: Counts,
    tell: Callable[[str, Mapping[str, float]], None],
) -> None:
    await asyncio.sleep(float(np.random.default_rng(number).uniform(0, _FIRST_SECONDS)))
    for visitor, visit in queue:
        begin = time.monotonic()
        for event, offset in zip(visit.events, visit.offsets, strict=True):
            await asyncio.sleep(max(begin + offset - time.monotonic(), 0))
            scores = await _scores(client, {**event, "visitor": visitor})
            if scores is None:
                counts.failed += 1
                await asyncio.sleep(_AWAY_SECONDS)
                break
            counts.answered += 1
            tell(visitor, scores)


async def _scores(client: httpx.AsyncClient, event: Mapping[str, Any]) -> Mapping[str, float] | None:
    """The scores after an event; None if the service could not answer."""
    try:
        answer = await client.post("/v1/events", json=event)
    except httpx.TransportError:
        return None
    if answer.status_code != httpx.codes.OK:
        return None
    scores: Mapping[str, float] = answer.json()["scores"]
    return scores


def _endless(visits: Sequence[Visit], longest_seconds: float) -> Iterator[tuple[str, Visit]]:
    """Visitors who were not there before, each with what they do."""
    brisk = [
        one
        for one in visits
        if max((late - early for early, late in itertools.pairwise(one.offsets)), default=0.0) <= longest_seconds
    ]
    for lap in itertools.count() if brisk else ():
        for one in brisk:
            yield f"{one.visitor}-{lap}", one

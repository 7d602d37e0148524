"""A crowd whose visits are spread over the hours that a service believes, and come as fast as it answers.

What takes a day in a shop takes seconds here: events come in the order of their times, and each visitor comes back for
a page after a session's timeout, so that sessions are over, and handed on, as time goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx

from simulation.crowd import Counts, Visit

# Longer than a session's timeout.
BACK_MS: Final = 45 * 60_000
# Visits of several hours would come back after the end.
LONGEST_SECONDS: Final = 2 * 3_600.0


async def browse_in_order(
    url: str,
    visits: Sequence[Visit],
    from_ms: int,
    to_ms: int,
    *,
    at_once: int = 500,
    tick: Callable[[Counts], None] | None = None,
) -> Counts:
    """Let the visits begin one after the other, evenly between two moments, ms UTC; longer ones than two hours are
    left out. The latest moment must be three hours ago, or visitors come back in the future.
    """
    chosen = [one for one in visits if one.offsets[-1] < LONGEST_SECONDS]
    sent: list[tuple[int, dict[str, Any], Visit | None]] = []
    for number, visit in enumerate(chosen):
        begin = from_ms + (to_ms - from_ms) * number // max(len(chosen), 1)
        times = [begin + round(offset * 1000) for offset in visit.offsets]
        for place, (event, at) in enumerate(zip(visit.events, times, strict=True)):
            sent.append((at, {**event, "visitor": visit.visitor, "id": f"{visit.visitor}-{place}"}, visit))
        back = {"visitor": visit.visitor, "name": "page_view", "consent": visit.events[0]["consent"]}
        sent.append((times[-1] + BACK_MS, back, None))
    sent.sort(key=lambda one: one[0])
    counts = Counts()
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for begin in range(0, len(sent), at_once):
            part = sent[begin : begin + at_once]
            answer = await client.post("/v1/events", json=[{**event, "time": at} for at, event, _ in part])
            answer.raise_for_status()
            for (_, _, own), told in zip(part, answer.json()["results"], strict=True):
                if own is not None:
                    own.token = told["session"]
                    own.scores.append(told["scores"])
            counts.answered += len(part)
            if tick:
                tick(counts)
    return counts

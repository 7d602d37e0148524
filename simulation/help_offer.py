"""When the demo's shop offers help: to visitors who hesitate, by scores that hesitating visitors of its crowd reach.

In: sessions of the crowd that were left a few seconds ago, as the service scores them now. Out: a threshold of each
head, and the flag's configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx
import numpy as np

from simulation.crowd import Visit

FLAG: Final = "help_offer"
OFFER: Final = "free_shipping"
HESITATING_SECONDS: Final = 5.0
# How long ago the crowd must have begun, for its first visitors to be silent for as long as somebody who hesitates.
SILENT_SECONDS: Final = 10.0
# Where nobody hesitated long enough to learn from.
USUAL: Final[Mapping[str, float]] = {"bounce": 0.6, "exit": 0.6}
_MOST: Final = 400
_AT_ONCE: Final = 20
_LEAST: Final = 20


async def silences(url: str, visits: Sequence[Visit]) -> list[tuple[Visit, dict[str, float]]]:
    """Visits that are over, longest first, with their scores as of now: the service sees sessions that fell silent."""
    over = [visit for visit in visits if visit.token and visit.done and not visit.bought][:_MOST]
    queue = iter(over)
    found: list[tuple[Visit, dict[str, float]]] = []
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:

        async def look() -> None:
            for visit in queue:
                answer = await client.get(f"/v1/sessions/{visit.token}")
                if answer.status_code == httpx.codes.OK:
                    found.append((visit, answer.json()["scores"]))

        await asyncio.gather(*(look() for _ in range(_AT_ONCE)))
    return found


def thresholds(silent: Sequence[tuple[Visit, Mapping[str, float]]]) -> dict[str, float]:
    """The scores above which help is offered, by head.

    Bounce is asked of the first step, exit of later ones. Of each, a threshold between what visitors have when they act
    and what they have when they fall silent: hesitating passes it, acting mostly does not.

    >>> visit = Visit("v", [{"name": "page_view"}], [0.0], scores=[{"bounce": 0.4, "exit": 0.4}])
    >>> thresholds([(visit, {"bounce": 0.5, "exit": 0.5})] * 20)
    {'bounce': 0.45, 'exit': 0.6}
    """
    found = {}
    for head, first in (("bounce", True), ("exit", False)):
        pairs = [
            (visit.scores[-1][head], scores[head])
            for visit, scores in silent
            if (len(visit.events) == 1) == first and head in visit.scores[-1] and 0 < scores.get(head, 0) < 1
        ]
        if len(pairs) < _LEAST:
            found[head] = USUAL[head]
            continue
        acting, hesitating = np.median(np.array(pairs), axis=0)
        found[head] = round(float(acting + hesitating) / 2, 3)
    return found


def configuration(limits: Mapping[str, float]) -> dict[str, Any]:
    """Flags as `configs/experiments.json` has them."""
    hesitates = [
        {"bounce": {"$gt": limits["bounce"]}},
        {"exit": {"$gt": limits["exit"]}, "interactive_events": {"$gte": 2}},
    ]
    condition = {"purchases": {"$lt": 1}, "idle_seconds": {"$gte": HESITATING_SECONDS}, "$or": hesitates}
    return {
        "features": {FLAG: {"defaultValue": "none", "rules": [{"condition": condition, "force": OFFER}]}},
        "experiments": {},
    }

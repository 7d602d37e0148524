"""GET /v1/experiments/state: what runs, what was learned, and what was stopped; for operators, with a secret key."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from serving.http.call import Call, Reply
from serving.http.events import JSON, encode
from serving.problems import Problem

STATE: Final = "/v1/experiments/state"


async def state(call: Call) -> Reply:
    """Every experiment; of those that `history` names how their allocation went, too.

    Raises
    ------
    Problem
        422: there is no such experiment.
    """
    wanted = call.query("history").get("history", [])
    learning, known = call.engine.learning, call.engine.experiments.configuration.definitions
    for key in wanted:
        if key not in known:
            raise Problem(
                422,
                f"query parameter history: found {key[:80]!r}, expected the key of an experiment: "
                f"{', '.join(known) or 'none is defined'}",
            )
    timelines = await asyncio.to_thread(learning.timelines) if wanted else {}
    return Reply(JSON, encode(learning.state(time.time_ns() // 1_000_000, wanted, timelines)))

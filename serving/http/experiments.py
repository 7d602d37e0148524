"""GET /v1/experiments/state: what runs, what was learned, and what was stopped; for operators, with a secret key."""

from __future__ import annotations

import time
from typing import Final

from serving.http.call import Call, Reply
from serving.http.events import JSON, encode

STATE: Final = "/v1/experiments/state"


async def state(call: Call) -> Reply:
    """Every experiment."""
    call.query()
    return Reply(JSON, encode(call.engine.learning.state(time.time_ns() // 1_000_000)))

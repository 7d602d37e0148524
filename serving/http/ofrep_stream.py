"""OFREP's event stream: tells a page to ask for its flags again, because one of them may be another.

GET /ofrep/v1/streams/<token>. Which state of the session a page's flags were made of is in the stream's address, so
nothing is missed between the answer and the stream; a client that comes back says it as `Last-Event-ID`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from serving.gate import presented
from serving.http.call import Call, Reply
from serving.http.events import encode

if TYPE_CHECKING:
    from serving.experiments.live import Experiments
    from serving.requests import View
    from serving.stream import Streams

PREFIX: Final = "/ofrep/v1/streams/"
STREAM: Final = f"{PREFIX}{{token}}"
# A page in the background closes the stream after so long, and asks again when it is seen.
_INACTIVITY_SECONDS: Final = 120
_OVER: Final = "over"


class Refetches:
    """Tells to ask again when the state of the session is another one; known: what the listener has been told of."""

    def __init__(self, experiments: Experiments, known: str) -> None:
        self._experiments, self._known = experiments, known

    def told(self, view: View) -> bytes:
        """One event at most: only how things are now counts."""
        state = self._experiments.state_of(view)
        if state == self._known:
            return b""
        self._known = state
        return _refetch(state)

    def closed(self) -> bytes:
        """Flags are then those of nobody in particular, and have no stream."""
        return _refetch(_OVER)

    def seconds(self, view: View) -> float:
        """Time passes in scores and in `idle_seconds`, which are looked at once in a while anyway."""
        return math.inf


def listening(streams: Streams) -> Callable[[Call], Awaitable[Reply]]:
    """What answers GET /ofrep/v1/streams/<token>."""

    async def listen(call: Call) -> Reply:
        experiments = call.engine.experiments
        since = call.query("since").get("since", [""])[-1]
        known = call.header(b"last-event-id").decode("latin-1") or since
        return await streams.open(call, lambda view: Refetches(experiments, known or experiments.state_of(view)))

    return listen


def event_streams(call: Call, view: View) -> list[dict[str, Any]]:
    """Where a page hears of changes. None for a secret key, which must not be in an address: a server asks anyway.

    The address has no origin: behind a proxy we do not know our own, and a client takes the one that it asked.
    """
    query = {"since": call.engine.experiments.state_of(view)}
    if call.admission.key is not None:
        if call.admission.key.kind == "secret":
            return []
        query["key"] = presented(call.scope, dict(call.scope["headers"])).decode("latin-1")
    endpoint = {"requestUri": f"{PREFIX}{call.engine.looks.token_of(view)}?{urlencode(query)}"}
    return [{"type": "sse", "endpoint": endpoint, "inactivityDelaySec": _INACTIVITY_SECONDS}]


def _refetch(state: str) -> bytes:
    data = {"type": "refetchEvaluation", "etag": state, "lastModified": int(time.time())}
    return b"id: %s\ndata: %s\n\n" % (state.encode(), encode(data))

"""The BentoML service: typed methods for BentoML's own clients, and the ASGI application for everybody else.

Switched off in the decorator, because each costs more than a score: OpenTelemetry's middleware, the access log (which
would also hold addresses) and BentoML's metrics (ours are at /metrics).

BentoML's supervisor reads this module before it starts the workers, and so its imports are waited for twice: what only
workers need is in `serving.worker`.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import bentoml

from serving.settings import FOLDER, from_environment, go_where_it_was_started
from serving.supervision import replace_workers_soon

if TYPE_CHECKING:
    from serving.worker import Worker

_settings, _shop = from_environment()
# Sessions are handed on by whichever thread is free. With an arena of its own (glibc), or a heap of Arrow's, each keeps
# what its largest table took, and a worker's memory grows for half an hour, by 150 MB in a soak.
_MEMORY: Final = {"MALLOC_ARENA_MAX": "2", "ARROW_DEFAULT_MEMORY_POOL": "system"}


@cache
def _worker() -> Worker:
    from serving.worker import Worker  # noqa: PLC0415

    return Worker(_settings, _shop)


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await _worker().app(scope, receive, send)


if bentoml.server_context.worker_index is None:
    replace_workers_soon()
else:
    _worker()  # now, because uvicorn is set up next


@bentoml.asgi_app(_app, path="/")
@bentoml.service(
    name="lotse",
    workers=_settings.server.workers,
    tracing={"excluded_urls": ".*"},
    metrics={"enabled": False},
    # what takes long does so on purpose (a bulk job), and the rest has deadlines of its own
    traffic={"timeout": 86_400},
    logging={"access": {"enabled": False}},
)
class Lotse:
    """Scores running sessions."""

    @bentoml.on_deployment  # type: ignore[attr-defined,untyped-decorator,unused-ignore]
    @staticmethod
    def prepare_the_workers() -> None:
        """In the supervisor, before the workers start: their environment names the folder, and how to allocate."""
        os.environ[FOLDER] = str(Path.cwd())
        for name, value in _MEMORY.items():
            os.environ.setdefault(name, value)

    def __init__(self) -> None:
        go_where_it_was_started()  # BentoML has gone back to the code since this module was read
        _worker().load()

    @bentoml.on_startup  # type: ignore[attr-defined,untyped-decorator,unused-ignore]
    async def start_housekeeping(self) -> None:
        """Close sessions that are over, and hand them on."""
        _worker().start_housekeeping()

    @bentoml.on_shutdown  # type: ignore[attr-defined,untyped-decorator,unused-ignore]
    async def stop(self) -> None:
        """Let go of the store."""
        await _worker().stop()

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    def score(self, rows: list[dict[str, float | None]]) -> list[dict[str, float]]:
        """Scores of feature vectors: what POST /v1/score does, for BentoML's clients."""
        return _worker().engine.score_rows(rows)

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    def describe(self) -> dict[str, Any]:
        """Heads, versions and features: what GET /v1/features does."""
        return _worker().engine.describe()

    async def __is_ready__(self) -> bool:
        """Whether every head scores its golden row as in training.

        Asynchronous, so that BentoML asks in the event loop: in a thread of its own the golden row and an event that is
        scored at the same time would write over each other's score.
        """
        return _worker().is_ready()

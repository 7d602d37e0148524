"""The engine without HTTP: events in, answers out, at a time of the test's own choice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features.shop import load_shop
from serving.engine import Engine
from serving.requests import Answer, Request
from serving.settings import load_serving
from tests.workspace import packed

WireEvent = Mapping[str, Any]


def open_engine(trained: Path, folder: Path, *overrides: str) -> Engine:
    """An engine with the trained models and a store and keys in `folder`."""
    own = [
        *packed(trained),
        f"keys.folder={folder}/keys",
        f"store.url=embedded:{folder}/live",
        f"store.closed={folder}/closed",
        f"store.spool={folder}/spool",
        "store.deadline_seconds=60",  # a busy machine is no outage
    ]
    return Engine(load_serving(trained / "configs" / "serving.toml", [*own, *overrides]), load_shop())


async def post(engine: Engine, requests: Sequence[Sequence[WireEvent]], received_ms: int) -> list[list[Answer]]:
    """The answers to requests that are taken in the same turn, each an array of events."""
    taken = [Request(json.dumps(list(events)).encode()) for events in requests]
    later = engine.take(taken, received_ms)
    if later is not None:
        await later
    for request in taken:
        if request.problem:
            raise request.problem
    return [request.answer for request in taken if isinstance(request.answer, list)]

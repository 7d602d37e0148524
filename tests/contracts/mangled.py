"""Captured bodies with anything in the place of anything, which no adapter may stumble over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from random import Random
from typing import Any

from serving.collect import Collected, Hit, Refused, Tracker
from serving.intake import FieldError, Intake
from tests.contracts.captured import SHOP, endpoint

ANYTHING = (
    None, True, 0, -1, 1e308, 2**70, "", "[", "[1,null]", "nan", "a\u0000b", "9" * 5_000, "2026-13-01", "%ff%", "true",
    "0001-01-01T00:00:00+14:00", [], [None], [[[]]], {}, {"": {}}, {"value": []}, ["x", {"id": []}],
)  # fmt: skip


def mangled(body: Any, seed: int, times: int) -> Iterator[Any]:
    """Copies of a body, each with some of its values replaced."""
    draw = Random(seed)
    for _ in range(times):
        yield replaced(body, draw)


def replaced(body: Any, draw: Random) -> Any:
    """A copy with some of its values replaced."""
    copy = deepcopy(body)
    for _ in range(draw.randint(1, 4)):
        places = list(_places(copy))
        if places:
            parent, key = draw.choice(places)
            parent[key] = deepcopy(draw.choice(ANYTHING))
    return copy


def taken(adapter: Tracker, hit: Hit) -> Collected | None:
    """What the service would take of a hit, None if it is refused; any other error is the adapter's."""
    try:
        found = endpoint(adapter, hit).read(hit)
    except Refused:
        return None
    intake = Intake(SHOP, ("measure",), 10**9)
    for event in found.events:
        with suppress(FieldError):  # dropped, and counted
            intake.event(event, hit.received_ms, lambda raw, linked: 1)
    return found


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _places(node[key])

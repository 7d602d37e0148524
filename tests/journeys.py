"""Journeys counted slowly and obviously, from raw events: what counts over kept aggregates must equal.

Sessions by `tests.naive`, steps by name; nothing here is shared with `features.journeys` or `features.steps`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from features.declare import Catalogue
from features.events import EVENT_NAMES, Event
from tests.naive import Session

SILENT = {"scroll", "user_engagement", "video_progress", "view_promotion"}
CALLED = {
    "page_view": "content",
    "view_item_list": "list",
    "view_item": "item",
    "search": "search",
    "view_cart": "cart",
    "begin_checkout": "checkout",
    "purchase": "purchase",
    "add_to_cart": "cart add",
    "remove_from_cart": "cart remove",
    "add_to_wishlist": "wish list",
    "add_shipping_info": "shipping",
    "add_payment_info": "payment",
    "login": "account",
    "sign_up": "account",
    "generate_lead": "lead",
    "form_submit": "lead",
}


@dataclass
class Visit:
    """A session: its events and, of these, the steps."""

    visitor: int
    events: list[Event]
    linked: bool = False

    @property
    def path(self) -> list[str]:
        steps: list[str] = []
        for event in self.events:
            name = EVENT_NAMES[event.name]
            step = CALLED.get(name, "other")
            if name not in SILENT and (not steps or steps[-1] != step):
                steps.append(step)
        return steps

    @property
    def seconds(self) -> float:
        return (max(event.time for event in self.events) - self.events[0].time) / 1000


def visits_of(events: Sequence[Event], timeout_ms: int = 1_800_000) -> list[Visit]:
    """The sessions of a log."""
    states: dict[int, Session] = {}
    running: dict[int, Visit] = {}
    found = []
    for event in sorted(events, key=lambda e: e.time):
        state = states.setdefault(event.visitor, Session(Catalogue()))
        status = state.fold(event, timeout_ms)
        if status == "started":
            running[event.visitor] = Visit(event.visitor, [])
            found.append(running[event.visitor])
        if status in ("started", "folded"):
            running[event.visitor].events.append(event)
    return found


def moves_of(paths: Sequence[list[str]], begin: Sequence[str], depth: int) -> list[Counter[tuple[str, str]]]:
    """From step to step, place by place, of the paths that begin so."""
    counts: list[Counter[tuple[str, str]]] = [Counter() for _ in range(depth)]
    for path in paths:
        if path and path[: len(begin)] == list(begin):
            for place, pair in list(enumerate(zip(path, [*path[1:], "end"], strict=True)))[:depth]:
                counts[place][pair] += 1
    return counts


def moves_to(paths: Sequence[list[str]], goal: Sequence[str], depth: int) -> list[Counter[tuple[str, str]]]:
    """The same back from the first time of the goal, the session's begin as "end"."""
    counts: list[Counter[tuple[str, str]]] = [Counter() for _ in range(depth)]
    for path in paths:
        if goal[-1] in path:
            way = path[: path.index(goal[-1]) + 1]
            if way[-len(goal) :] == list(goal):
                for place in range(min(depth, len(way))):
                    at = len(way) - 1 - place
                    counts[place][(way[at - 1] if at else "end"), way[at]] += 1
    return counts


def came(path: list[str], steps: Sequence[str], mode: str, entry: bool) -> int:
    """How many steps of a funnel a path takes."""
    if entry and path[:1] != list(steps[:1]):
        return 0
    if mode == "strict":
        starts = [0] if entry else range(len(path))
        return max(
            (next((n for n, s in enumerate(steps) if path[at + n : at + n + 1] != [s]), len(steps)) for at in starts),
            default=0,
        )
    rest = iter(path)
    return next((n for n, step in enumerate(steps) if step not in rest), len(steps))


def worked_out(part: dict[str, Any], near: str, far: str) -> list[int]:
    """Sessions that an attacker gets from a path that was told, beyond what is told: totals of steps less the moves
    that are, and single moves where only one origin or one target of those that are not told is left."""
    total = {(one["place"], one["step"]): one["sessions"] for one in part["steps"]}
    found: list[int] = []
    for place in {move["place"] for move in part["moves"]}:
        moves = [move for move in part["moves"] if move["place"] == place]
        out = {move[near]: total[place, move[near]] for move in moves}
        into = {step: sessions for (at, step), sessions in total.items() if at == place + 1}
        for move in moves:
            if move[far] is not None:
                out[move[near]] -= move["sessions"]
                into[move[far]] -= move["sessions"]
        assert all(out[move[near]] == move["sessions"] for move in moves if move[far] is None)
        origins, targets = ([sessions for sessions in side.values() if sessions] for side in (out, into))
        assert sum(origins) == sum(targets)
        # with one origin, or one target, each move is what stands at its other end
        found += [*origins, *targets]
    return found


def left_over(funnel: dict[str, Any]) -> list[int]:
    """Sessions that an attacker gets from a funnel by segment: what all are more than the segments that are told, of
    those that reached a stage and of those that were lost between two."""
    found: list[int] = []
    for parts in funnel["segments"].values():
        for stage, total in enumerate(funnel["reached"]):
            told = [reached[stage] for reached in parts.values()]
            if total is not None:
                found.append(total - sum(count for count in told if count is not None))
        for stages in ([funnel["reached"]], parts.values()):
            found += [a - b for one in stages for a, b in pairwise([n for n in one if n is not None])]
        for (stage, more), (_, fewer) in pairwise(enumerate(funnel["reached"])):
            pairs = [(reached[stage], reached[stage + 1]) for reached in parts.values()]
            if None not in (more, fewer):
                found.append(more - fewer - sum(a - b for a, b in pairs if None not in (a, b)))
    return [sessions for sessions in found if sessions]

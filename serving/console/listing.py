"""Lists of sessions as rows: the latest, the most silent, the highest scores; told once, and then what is new.

A row names its session by a handle that means nothing outside this process and ends with it: neither the visitor's
pseudonym nor the session's token can be made of it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from features.steps import STEPS
from serving.console.orders import IDLE, RECENT
from serving.experiments.assignments import unpack

if TYPE_CHECKING:
    from serving.console.looking import Look

# An experiment's key and arms, by the number that stands in a record.
Arms = Mapping[int, tuple[str, Sequence[str]]]
# Flags of the session at a place, by key.
Flags = Callable[["Look", int], Mapping[str, str]]


class Listing:
    """Makes rows, and knows which were told already."""

    def __init__(self, most: int, timeout_seconds: float) -> None:
        self._most, self._timeout_ms = most, round(timeout_seconds * 1000)
        self._secret = secrets.token_bytes(16)
        # by list and handle what was told last
        self._told: dict[str, dict[str, tuple[Any, ...]]] = {}

    def forget(self, name: str) -> None:
        """Tell all rows of a list next time."""
        self._told.pop(name, None)

    def keep(self, names: Sequence[str]) -> None:
        """Of other lists than these nothing is remembered."""
        self._told = {name: told for name, told in self._told.items() if name in names}

    def rows(self, look: Look, name: str, arms: Arms, flags: Flags = lambda look, place: {}) -> dict[str, Any]:
        """A list, JSON-ready: in `order` the handles of all its rows, in `rows` those that are new or were others.

        Ages and silences go on by themselves, and are told of rows that are told.
        """
        before, now = self._told.get(name, {}), {}
        order, rows = [], []
        for place in ranked(look, name, self._most):
            handle = self._handle(look, place)
            order.append(handle)
            shown = flags(look, place)
            now[handle] = mark = (*self._mark(look, place), shown)
            if before.get(handle) != mark:
                rows.append(self._row(look, place, handle, arms) | ({"flags": shown} if shown else {}))
        self._told[name] = now
        return {"list": name, "at_ms": look.at_ms, "order": order, "rows": rows}

    def _handle(self, look: Look, place: int) -> str:
        whose = look.keys[place] + int(look.started[place]).to_bytes(8, "little", signed=True)
        return hashlib.blake2b(whose, digest_size=5, key=self._secret).hexdigest()

    def _mark(self, look: Look, place: int) -> tuple[Any, ...]:
        """What is another one when a row is worth telling again."""
        scores = tuple(_told(column[place]) for column in look.scores.values())
        assigned = len(look.assigned.get(place, b""))
        # a score that is missing is not equal to itself
        return int(look.events[place]), int(look.received[place]), assigned, str(scores)

    def _row(self, look: Look, place: int, handle: str, arms: Arms) -> dict[str, Any]:
        over_ms = look.received[place] + self._timeout_ms
        scores = {name: _told(column[place]) for name, column in look.scores.items()}
        row: dict[str, Any] = {
            "id": handle,
            "age_seconds": _seconds(look.at_ms - look.started[place]),
            "idle_seconds": _seconds(look.at_ms - look.last[place]),
            "left_seconds": _seconds(over_ms - look.at_ms),
            "events": int(look.events[place]),
            "step": STEPS[look.steps[place]],
            "scores": {name: score for name, score in scores.items() if not np.isnan(score)},
        }
        if place in look.decided:
            row["decided"] = look.decided[place]
        if place in look.assigned:
            row["arms"] = [_arm(one.experiment, one.arm, arms) for one in unpack(look.assigned[place])]
        return row


def ranked(look: Look, name: str, most: int) -> list[int]:
    """Places of the sessions that a list begins with.

    >>> from serving.console.looking import Look
    >>> look = Look(9, keys=[b"a", b"b", b"c"], last=np.array([3, 1, 2]), scores={"exit": np.array([0.1, np.nan, 0.3])})
    >>> ranked(look, "recent", 2), ranked(look, "idle", 3), ranked(look, "exit", 3)
    ([0, 2], [1, 2, 0], [2, 0])
    """
    if name == RECENT:
        by = -look.last.astype(np.float64)
    elif name == IDLE:
        by = look.last.astype(np.float64)
    else:
        by = -look.scores.get(name, np.full(len(look), np.nan))
    places = np.flatnonzero(~np.isnan(by))
    if len(places) > most:
        places = places[np.argpartition(by[places], most)[:most]]
    found: list[int] = places[np.argsort(by[places], kind="stable")].tolist()
    return found


def _arm(experiment: int, arm: int, arms: Arms) -> dict[str, str]:
    """An assignment in words; of an experiment that is defined no more, its number."""
    key, names = arms.get(experiment, (f"{experiment & 2**64 - 1:016x}", ()))
    return {"experiment": key, "arm": names[arm] if arm < len(names) else str(arm)}


def _told(score: float) -> float:
    """To a tenth of a percent: a row that is not told again still stands where the order has it."""
    return round(float(score), 3)


def _seconds(ms: int) -> float:
    return round(max(int(ms), 0) / 1000, 1)

"""Funnels: how many sessions take which steps in order.

In: the steps of sessions, and those of the funnel. Out: for each session how far it came. `strict`: each step follows
the one before directly; `loose`: with any others between. With `entry` the session begins with the first step. A
session that is longer than what is kept may have gone on to more than is known of it: it is then undecided, and told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from features.errors import EventError
from features.journeys.paths import Walk, code_of

Mode = Literal["strict", "loose"]


@dataclass(frozen=True)
class Funnel:
    """What to count. `name` is for people."""

    steps: tuple[str, ...]
    mode: Mode = "loose"
    entry: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if not self.steps:
            raise EventError("a funnel needs steps, such as item > cart add > checkout > purchase")
        if self.mode not in ("strict", "loose"):
            raise EventError(f"a funnel is strict or loose, not {self.mode!r}")
        for before, step in zip(("", *self.steps), self.steps, strict=False):
            code_of(step)
            if step == before and self.mode == "strict":
                raise EventError(f"{step!r} follows itself: events of one kind in a row are one step")

    @property
    def title(self) -> str:
        """Its name, or its steps."""
        return self.name or " > ".join(self.steps)


@dataclass(frozen=True)
class Reached:
    """reached: int64 (n,), steps of the funnel that a session took; undecided: int64 (n,), up to how many it may have
    taken beyond what is kept (as many as `reached` where all is known)."""

    reached: np.ndarray
    at_most: np.ndarray

    def counts(self, steps: int) -> np.ndarray:
        """Sessions that reached each step: int64 (steps,)."""
        return np.array([(self.reached >= step).sum() for step in range(1, steps + 1)], np.int64)

    def undecided(self, steps: int) -> np.ndarray:
        """Sessions that may have reached each step, beyond those that surely did: int64 (steps,)."""
        return np.array([(self.at_most >= step).sum() for step in range(1, steps + 1)], np.int64) - self.counts(steps)


def reached(way: Walk, funnel: Funnel, seen_bits: np.ndarray) -> Reached:
    """How far each session came. seen_bits: int64 (n,), kinds of steps of the whole session (`steps_seen_bits`)."""
    codes = [code_of(step) for step in funnel.steps]
    far = (_strict if funnel.mode == "strict" else _loose)(way, codes, funnel.entry)
    return Reached(far, _at_most(way, codes, funnel, far, seen_bits))


def _loose(way: Walk, codes: Sequence[int], entry: bool) -> np.ndarray:
    # the earliest place of each step after the one before: if any order of places does, this one does
    places = np.arange(way.steps.shape[1])
    at, going = np.full(len(way.steps), -1), np.ones(len(way.steps), bool)
    far = np.zeros(len(way.steps), np.int64)
    for number, code in enumerate(codes):
        hit = (way.steps == code) & (places > at[:, None])
        if entry and number == 0:
            hit[:, 1:] = False
        going = going & hit.any(axis=1)
        at = hit.argmax(axis=1)
        far += going
    return far


def _strict(way: Walk, codes: Sequence[int], entry: bool) -> np.ndarray:
    most = way.steps.shape[1]
    run = np.ones((len(way.steps), most), bool)
    if entry:
        run[:, 1:] = False
    far = np.zeros(len(way.steps), np.int64)
    for number, code in enumerate(codes):
        # run[:, p]: the steps so far stand at p, p + 1, ...
        run[:, : most - number] &= way.steps[:, number:] == code
        run[:, most - number :] = False
        far += run.any(axis=1)
    return far


def _at_most(way: Walk, codes: Sequence[int], funnel: Funnel, far: np.ndarray, seen_bits: np.ndarray) -> np.ndarray:
    """As far as a session may have come after the steps that are kept, by the kinds of steps it had at all."""
    found = far.copy()
    open_ = way.cut.copy()
    if funnel.entry:
        # how it began is known; a strict funnel then is known as far as is kept
        open_ &= (way.steps[:, 0] == codes[0]) & (funnel.mode == "loose")
    for number, code in enumerate(codes):
        # loose: what was reached need not be seen again; strict: all of it must stand in a row
        there = (seen_bits >> code) & 1 == 1
        open_ = open_ & (there if funnel.mode == "strict" else (there | (far > number)))
        found = np.where(open_ & (found == number), number + 1, found)
    return found


def parsed(text: str) -> Funnel:
    """A funnel as people write it: `item > cart add` is loose, `item >> cart add` strict; `^` before the first step
    asks for sessions that begin with it.

    >>> parsed("^item >> cart add")
    Funnel(steps=('item', 'cart add'), mode='strict', entry=True, name='')

    Raises
    ------
    EventError
        There is no such step, or both signs stand in it.
    """
    mode: Mode = "strict" if ">>" in text else "loose"
    steps = tuple(step.strip() for step in text.strip().removeprefix("^").split(">>" if mode == "strict" else ">"))
    return Funnel(steps, mode, text.strip().startswith("^"))

"""Paths, step by step: forwards from how sessions begin, or backwards from where they reach a goal.

In: sessions. Out: for each place on the way how many sessions go from which step to which, where they end, and of how
many the rest is not kept (`features.steps.KEPT_STEPS`). Every session that is chosen is counted at every place that it
has, so the numbers of one place add up to those of the next: what goes in comes out or ends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.errors import EventError
from features.journeys.sessions import PATH_FIELDS, Sessions
from features.steps import KEPT_STEPS, STEP_BITS, STEPS, STEPS_A_WORD

# What stands in a picture where there is no step: the session's end (its begin, backwards), and what is not kept.
END: Final = len(STEPS)
NOT_KEPT: Final = len(STEPS) + 1
PLACES: Final = (*STEPS, "end", "not kept")


@dataclass(frozen=True)
class Walk:
    """The steps of n sessions.

    Attributes
    ----------
    steps: uint8 (n, KEPT_STEPS), codes of STEPS, 0 after the last.
    length: int64 (n,), how many of them there are.
    cut: bool (n,), whether the session went on after them.
    """

    steps: np.ndarray
    length: np.ndarray
    cut: np.ndarray


@dataclass(frozen=True)
class Picture:
    """Moves from place to place.

    Attributes
    ----------
    chosen: bool (n,), the sessions in it.
    moves: int64 (depth, n), code `from * len(PLACES) + to` of each session at each place, -1 where it has none.
    """

    chosen: np.ndarray
    moves: np.ndarray

    def counts(self) -> np.ndarray:
        """Sessions by place, from and to: int64 (depth, len(PLACES), len(PLACES))."""
        return tabulated(self.moves)


def walk(sessions: Sessions, without: Collection[str] = ()) -> Walk:
    """The steps of each session; without: steps that are not looked at, as if they had never been.

    Two steps that are one kind and stand beside each other then are one.
    """
    codes = [code_of(name) for name in without]
    most = min(int(sessions["path_steps"].max(initial=0)), KEPT_STEPS)
    steps = np.zeros((len(sessions), KEPT_STEPS), np.uint8)
    for place in range(most):
        word, shift = divmod(place, STEPS_A_WORD)
        steps[:, place] = (sessions[PATH_FIELDS[word]] >> (STEP_BITS * shift)) & 15
    if codes:
        steps = _collapsed(steps, np.isin(steps, codes))
    return Walk(steps, (steps > 0).sum(axis=1), sessions["path_steps"] > KEPT_STEPS)


def _collapsed(steps: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """Without what is dropped and what repeats the step before it, moved together."""
    rest = np.where(dropped, 0, steps)
    out, filled = np.zeros_like(steps), np.zeros(len(steps), np.int64)
    before = np.zeros(len(steps), np.uint8)
    for place in range(steps.shape[1]):
        step = rest[:, place]
        new = (step != 0) & (step != before)
        out[np.flatnonzero(new), filled[new]] = step[new]
        filled += new
        before = np.where(new, step, before)
    return out


def forward(way: Walk, begin: Sequence[str] = (), depth: int = 5) -> Picture:
    """Sessions that begin with these steps (any, without them), and where they go on to, `depth` moves."""
    chosen = way.length > 0
    for place, name in enumerate(begin):
        chosen = chosen & (way.steps[:, place] == code_of(name))
    moves = np.full((depth, len(chosen)), -1, np.int64)
    for place in range(min(depth, KEPT_STEPS)):
        here = np.flatnonzero(chosen & (way.length > place))
        beyond = place + 1 >= way.length[here]
        after = way.steps[here, min(place + 1, KEPT_STEPS - 1)].astype(np.int64)
        after[beyond] = np.where(way.cut[here[beyond]], NOT_KEPT, END)
        moves[place, here] = way.steps[here, place].astype(np.int64) * len(PLACES) + after
    return Picture(chosen, moves)


def backward(way: Walk, goal: Sequence[str], depth: int = 5) -> Picture:
    """Sessions that reach the goal, as of the first time, and where they came from, `depth` moves.

    goal: its step, or several that lead to it, the goal last. A move is told as it goes, from the earlier step to the
    later; `end` as its origin is the session's begin. At place 0 are the moves into the goal. A session that reaches
    the goal after the steps that are kept is not in the picture.
    """
    if not goal:
        raise EventError(f"a path backwards needs a goal; known steps: {', '.join(STEPS[1:])}")
    hit = way.steps == code_of(goal[-1])
    at, chosen = hit.argmax(axis=1), hit.any(axis=1)
    for back, name in enumerate(reversed(goal)):
        steps = way.steps[np.arange(len(at)), np.maximum(at - back, 0)]
        chosen = chosen & (at >= back) & (steps == code_of(name))
    moves = np.full((depth, len(chosen)), -1, np.int64)
    for back in range(depth):
        here = np.flatnonzero(chosen & (at >= back))
        place = at[here] - back
        before = way.steps[here, np.maximum(place - 1, 0)].astype(np.int64)
        before[place == 0] = END
        moves[back, here] = before * len(PLACES) + way.steps[here, place]
    return Picture(chosen, moves)


def tabulated(moves: np.ndarray) -> np.ndarray:
    """Codes of moves (depth, n) as counts (depth, places, places)."""
    size = len(PLACES) ** 2
    counts = [np.bincount(of[of >= 0], minlength=size) for of in moves]
    return np.array(counts, np.int64).reshape(len(moves), len(PLACES), len(PLACES))


def code_of(step: str) -> int:
    """The code of a step.

    Raises
    ------
    EventError
        There is no such step.
    """
    if step not in STEPS[1:]:
        raise EventError(f"unknown step {step!r}; known: {', '.join(STEPS[1:])}")
    return STEPS.index(step)

"""Paths and funnels as they may be told: no number of fewer than k visitors, none that can be worked out.

In: pictures and funnels over sessions. Out: plain lists of counts, `None` where a count is not told. Steps that few
visitors take at a place are one, `rare`; moves that few make are told together for the step they start from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from features.journeys.funnels import Reached
from features.journeys.paths import PLACES, Picture
from features.journeys.small import Cells, cells_of, distinct, hidden, told_stages

RARE: Final = 0
_NAMES: Final = ("rare", *PLACES[1:])
_SIZE: Final = len(PLACES)
_FIRST: Final = 4_096


@dataclass(frozen=True)
class Crowd:
    """Who is in which session, as numbers from 0: int64 (n,); k: visitors that a group must have to be told."""

    visitor: np.ndarray
    k: int

    def cells(self, code: np.ndarray, rows: int, columns: int) -> Cells:
        """`features.journeys.small.cells_of` of these sessions."""
        return cells_of(code, self.visitor, rows, columns)

    def few(self, code: np.ndarray, size: int) -> np.ndarray:
        """Which groups are not told, where each session is in one at most (code -1: in none): bool (size,)."""
        return hidden(self.cells(code, 1, size), self.k)[0]

    def enough(self, chosen: np.ndarray) -> bool:
        """Whether some sessions are a group that may be told."""
        who = self.visitor[chosen]
        # mostly the first few thousand sessions tell
        return len(distinct(who[:_FIRST])) >= self.k or len(distinct(who)) >= self.k

    def count(self, chosen: np.ndarray) -> int | None:
        """How many sessions these are, if that may be told."""
        return int(chosen.sum()) if not chosen.any() or self.enough(chosen) else None


def path_told(picture: Picture, crowd: Crowd, *, backwards: bool = False) -> dict[str, Any]:
    """The picture's steps and moves, place by place, from its begin or, backwards, from its goal."""
    if not crowd.enough(picture.chosen):
        return {"sessions": None, "steps": [], "moves": []}
    near, far = (np.mod, np.floor_divide) if backwards else (np.floor_divide, np.mod)
    here = _grouped(_codes(picture.moves[0], near, np.full(len(crowd.visitor), -1)), crowd)
    steps, moves = _steps(1, here), []
    for place, codes in enumerate(picture.moves, start=1):
        # who ended where few do is rare, and stays so: the rest of the rare could be worked out
        there = _grouped(_codes(codes, far, np.where(here == RARE, RARE, -1)), crowd)
        if not crowd.enough(there >= 0):
            break
        pairs = np.where((here >= 0) & (there >= 0), here * _SIZE + there, -1)
        moves += _moves(place, pairs, hidden(crowd.cells(pairs, _SIZE, _SIZE), crowd.k), backwards)
        steps += _steps(place + 1, there)
        here = there
    return {"sessions": int(picture.chosen.sum()), "steps": steps, "moves": moves}


def _codes(moves: np.ndarray, side: Callable[..., Any], others: np.ndarray) -> np.ndarray:
    return np.where(moves >= 0, side(moves, _SIZE), others)


def _grouped(code: np.ndarray, crowd: Crowd) -> np.ndarray:
    """The codes with those of few visitors as RARE."""
    few = crowd.few(code, _SIZE)
    return np.where((code >= 0) & few[code], RARE, code)


def _steps(place: int, code: np.ndarray) -> list[dict[str, Any]]:
    counts = np.bincount(code[code >= 0], minlength=_SIZE)
    return [{"place": place, "step": _NAMES[one], "sessions": int(counts[one])} for one in np.flatnonzero(counts)]


def _moves(place: int, pairs: np.ndarray, few: np.ndarray, backwards: bool) -> list[dict[str, Any]]:
    counts = np.bincount(pairs[pairs >= 0], minlength=_SIZE**2).reshape(_SIZE, _SIZE)
    found = []
    for one, line in enumerate(counts):
        ends: list[tuple[str | None, int]] = [
            (_NAMES[other], int(line[other])) for other in np.flatnonzero((line > 0) & ~few[one])
        ]
        if few[one].any():
            ends.append((None, int(line[few[one]].sum())))
        for other_name, sessions in ends:
            names = (other_name, _NAMES[one]) if backwards else (_NAMES[one], other_name)
            found.append({"place": place, "from": names[0], "to": names[1], "sessions": sessions})
    return found


def funnel_told(
    found: Reached, steps: int, crowd: Crowd, segments: dict[str, tuple[tuple[str, ...], np.ndarray]]
) -> dict[str, Any]:
    """How many reached each step, over all and by segment; how many more may have, beyond what is kept."""
    whole = _by_segment(found, steps, crowd, ("all",), np.zeros(len(found.reached), np.int64))
    stages = range(1, steps + 1)
    return {
        "reached": whole.get("all", [None] * steps),
        "undecided": [crowd.count((found.reached < stage) & (found.at_most >= stage)) for stage in stages],
        "segments": {
            name: _by_segment(found, steps, crowd, labels, codes) for name, (labels, codes) in segments.items()
        },
    }


def _by_segment(
    found: Reached, steps: int, crowd: Crowd, labels: tuple[str, ...], codes: np.ndarray
) -> dict[str, list[int | None]]:
    size = len(labels)
    began = found.reached > 0
    # segments that few visitors are of are one: `rare`, the last
    few = crowd.few(np.where(began, codes, -1), size)
    codes = np.where(few[codes], size, codes)
    stage = np.where(began, codes * steps + found.reached - 1, -1)
    cells = crowd.cells(stage, size + 1, steps)
    counts = np.bincount(stage[began], minlength=(size + 1) * steps).reshape(-1, steps)
    concealed = hidden(cells, crowd.k)
    came = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    there = [code for code in range(size + 1) if crowd.enough(began & (codes == code))]
    told = np.zeros(came.shape, bool)
    for code in there:
        told[code] = told_stages(concealed[code], cells, code, crowd.k)
    if len(there) > 1:
        for number in range(1, steps):
            _complete(told, came, cells, number, crowd.k)
    names = (*labels, "rare")
    return {
        names[code]: [int(n) if tell else None for n, tell in zip(came[code], told[code], strict=True)]
        for code in there
    }


def _complete(told: np.ndarray, came: np.ndarray, cells: Cells, stage: int, k: int) -> None:
    """Tell of fewer segments how many reached a stage, where those of which it is not told follow from the sum."""
    while True:
        out = ~told[:, stage] & (came[:, stage] > 0)
        rest = np.flatnonzero(told[:, stage] & (came[:, stage] > 0))
        mask = np.zeros(told.shape, bool)
        mask[out, stage:] = True
        if not out.any() or not len(rest) or (out.sum() > 1 and cells.together(mask) >= k):
            return
        told[rest[np.argmin(came[rest, stage])], stage] = False

"""Small groups are not told: neither as a number, nor by taking told numbers from each other.

A group is as large as the visitors in it, so that fifty visits of one person are no group. In: which visitors are in
which cell of a table. Out: the cells that are hidden. Where a row or a column has one hidden cell, or hidden ones of
fewer than k visitors together, its smallest other cell is hidden, too (complementary suppression; Hundepool et al.,
"Statistical Disclosure Control", 2012, section 4.3.1): the totals stay, and nobody can subtract.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

# As in reports of experiments.
LEAST_VISITORS: Final = 50


@dataclass(frozen=True)
class Cells:
    """Who is in which cell of a table.

    Attributes
    ----------
    visitors: int64 (rows, columns), how many different ones.
    cell, who: int64 (m,), each pair of a cell (its place in the flat table) and a visitor once.
    """

    visitors: np.ndarray
    cell: np.ndarray
    who: np.ndarray

    def together(self, chosen: np.ndarray) -> int:
        """Different visitors of some cells; chosen: bool (rows, columns)."""
        return len(distinct(self.who[chosen.ravel()[self.cell]]))


def cells_of(code: np.ndarray, visitor: np.ndarray, rows: int, columns: int) -> Cells:
    """The cells of a table.

    code: int64 (n,), `row * columns + column` of each session, less than 0 for those in no cell; visitor: int64 (n,),
    whole numbers from 0.

    >>> cells = cells_of(np.array([0, 0, 1, -1, 3]), np.array([7, 7, 2, 3, 7]), 2, 2)
    >>> cells.visitors.tolist(), cells.together(np.array([[True, False], [False, True]]))
    ([[1, 1], [0, 1]], 1)
    """
    inside = code >= 0
    each = np.int64(visitor.max(initial=0)) + 1
    pairs = distinct(code[inside].astype(np.int64) * each + visitor[inside])
    cell = pairs // each
    return Cells(np.bincount(cell, minlength=rows * columns).reshape(rows, columns), cell, pairs % each)


def distinct(values: np.ndarray) -> np.ndarray:
    """Different values in order: int64 (n,) -> (m,). By sorting, a tenth of the time of NumPy's, which hashes."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]


def hidden(cells: Cells, k: int, also: np.ndarray | None = None) -> np.ndarray:
    """Which cells are not told: bool (rows, columns); also: cells that are not told for another reason.

    >>> who = np.arange(1047)
    >>> hidden(cells_of(np.repeat([0, 1, 2, 3], [900, 80, 7, 60]), who, 1, 4), 50).tolist()
    [[False, False, True, True]]
    """
    visitors = cells.visitors
    out = (visitors > 0) & (visitors < k)
    if also is not None:
        out |= also
    before = -1
    while (count := int(out.sum())) != before:
        before = count
        for axis in range(2):
            # of a line of one cell nothing can be taken away: the cell is its own total
            for line in range(out.shape[axis]) if out.shape[1 - axis] > 1 else ():
                place = (line, slice(None)) if axis == 0 else (slice(None), line)
                _complete(cells, out, place, k)
    return out


def _complete(cells: Cells, out: np.ndarray, place: tuple[int | slice, int | slice], k: int) -> None:
    """Hide the smallest told cell of a line where what is hidden of it could be worked out."""
    of, line = cells.visitors[place], out[place]
    if not line.any():
        return
    mask = np.zeros_like(out)
    mask[place] = line
    rest = np.flatnonzero(~line & (of > 0))
    if len(rest) and (line.sum() == 1 or cells.together(mask) < k):
        line[rest[np.argmin(of[rest])]] = True


def told_stages(concealed: np.ndarray, cells: Cells, row: int, k: int) -> np.ndarray:
    """Of a funnel, how many reached which stage may be told: bool (m,), the first always.

    concealed: bool (m,), hidden cells of a row of `cells`, whose columns are the sessions that came as far as a stage
    and no further. Between two told stages is no hidden cell, or several that are k visitors together.

    >>> cells = cells_of(np.repeat([0, 1, 2, 3], [500, 3, 60, 90]), np.arange(653), 1, 4)
    >>> told_stages(np.array([False, True, True, False]), cells, 0, 50).tolist()
    [True, True, False, True]
    """
    blocks: list[tuple[int, list[int]]] = []
    within: list[int] = []
    for stage in reversed(range(len(concealed))):
        within += [stage] if concealed[stage] else []
        if _safe(cells, row, within, k):
            blocks.append((stage, within))
            within = []
    # what is left belongs to the first stage, which is told: stages after it are not, until enough is together
    while blocks and not _safe(cells, row, within, k):
        within += blocks.pop()[1]
    told = np.zeros(len(concealed), bool)
    told[[stage for stage, _ in blocks]] = True
    told[:1] = True
    return told


def _safe(cells: Cells, row: int, stages: list[int], k: int) -> bool:
    """Whether the sum of some hidden cells of a row may be known."""
    if len(stages) < 2:
        return not stages
    mask = np.zeros(cells.visitors.shape, bool)
    mask[row, stages] = True
    return cells.together(mask) >= k

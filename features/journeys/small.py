"""Small groups are not told: neither as a number, nor by taking told numbers from each other.

A group is as large as the visitors in it, so that fifty visits of one person are no group. In: visitors by cell. Out:
which cells are hidden. Where a row or a column has one hidden cell, or hidden ones of fewer than k visitors together,
its smallest other cell is hidden, too (complementary suppression; Hundepool et al., "Statistical Disclosure Control",
2012, section 4.3.1): the totals stay, and nobody can subtract.
"""

from __future__ import annotations

from typing import Final

import numpy as np

# As in reports of experiments.
LEAST_VISITORS: Final = 50


def visitors_by(code: np.ndarray, visitor: np.ndarray, size: int) -> np.ndarray:
    """Different visitors by code: int64 (size,).

    code: int64 (n,), below `size`, less than 0 for sessions in no group; visitor: int64 (n,), whole numbers from 0.

    >>> visitors_by(np.array([0, 0, 1, -1]), np.array([7, 7, 2, 3]), 3).tolist()
    [1, 1, 0]
    """
    inside = code >= 0
    if not inside.any():
        return np.zeros(size, np.int64)
    each = np.int64(visitor.max()) + 1
    pairs = np.unique(code[inside].astype(np.int64) * each + visitor[inside])
    return np.bincount(pairs // each, minlength=size)


def hidden(visitors: np.ndarray, k: int) -> np.ndarray:
    """Which cells are not told: bool, of the shape of `visitors`, int64 (rows, columns).

    >>> hidden(np.array([[900, 80, 7, 60]]), 50).tolist()
    [[False, False, True, True]]
    """
    out = (visitors > 0) & (visitors < k)
    before = -1
    while (count := int(out.sum())) != before:
        before = count
        for lines, of in ((out, visitors), (out.T, visitors.T)):
            if lines.shape[1] == 1:
                continue  # nothing to subtract from: the one cell is its own total
            for line, there in zip(lines, of, strict=True):
                if line.any() and (line.sum() == 1 or there[line].sum() < k):
                    rest = np.flatnonzero(~line & (there > 0))
                    if len(rest):
                        line[rest[np.argmin(there[rest])]] = True
    return out


def told_stages(concealed: np.ndarray, visitors: np.ndarray, k: int) -> np.ndarray:
    """Of a funnel, how many reached which stage may be told: bool (m,), the first always.

    concealed bool (m,) and visitors int64 (m,): of those that came as far as a stage and no further. Between two told
    stages is no hidden cell, or several that are k visitors together.

    >>> told_stages(np.array([False, True, True, False]), np.array([500, 3, 60, 90]), 50).tolist()
    [True, True, False, True]
    """
    blocks: list[tuple[int, int, int]] = []
    cells = people = 0
    for stage in reversed(range(len(visitors))):
        if concealed[stage]:
            cells, people = cells + 1, people + int(visitors[stage])
        if not cells or (cells > 1 and people >= k):
            blocks.append((stage, cells, people))
            cells = people = 0
    # what is left belongs to the first stage, which is told: stages after it are not, until enough is together
    while cells and blocks and not (cells > 1 and people >= k):
        _, more, others = blocks.pop()
        cells, people = cells + more, people + others
    told = np.zeros(len(visitors), bool)
    told[[stage for stage, _, _ in blocks]] = True
    told[:1] = True
    return told

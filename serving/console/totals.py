"""What is told of all sessions that run together: how many, how old, how long silent, how they score.

In: a `Look`. Out: a JSON-ready dict. Where only a part was looked at, counts are of that part, and `live` is what they
come to over all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from features.steps import STEPS

if TYPE_CHECKING:
    from serving.console.looking import Look

# Ages and silences are told by these bounds; a silence up to the first is somebody who is there.
AGE_SECONDS: Final = (10, 30, 60, 180, 600, 1_800)
IDLE_SECONDS: Final = (5, 10, 30, 60, 300)
TENTHS: Final = 10


def totals(look: Look) -> dict[str, Any]:
    """Of a look.

    >>> import numpy as np
    >>> from serving.console.looking import Look
    >>> look = Look(60_000, 2, 2, keys=[b"a", b"b"], started=np.array([0, 55_000]), last=np.array([1_000, 60_000]))
    >>> look.steps, look.scores = np.array([3, 7]), {"exit": np.array([0.25, np.nan])}
    >>> found = totals(look)
    >>> found["live"], found["age"]["counts"], found["scores"]["exit"]["mean"], found["steps"]
    (2, [1, 0, 1, 0, 0, 0, 0], 0.25, {'item': 1, 'purchase': 1})
    """
    count = len(look)
    whole = count if look.looked_at >= look.entries else round(count * look.entries / max(look.looked_at, 1))
    steps = np.bincount(look.steps, minlength=len(STEPS)) if count else np.zeros(len(STEPS), np.int64)
    return {
        "at_ms": look.at_ms,
        "took_seconds": round(look.took_seconds, 3),
        "live": whole,
        "looked_at": count,
        "age": _counted(look.age_seconds, AGE_SECONDS),
        "idle": _counted(look.idle_seconds, IDLE_SECONDS),
        "steps": {name: int(number) for name, number in zip(STEPS, steps, strict=True) if number},
        "scores": {name: _scores(column) for name, column in look.scores.items()},
        "in_experiments": len(look.assigned),
    }


def _counted(values: np.ndarray, edges: tuple[int, ...]) -> dict[str, Any]:
    """How many lie up to each edge, and beyond the last."""
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return {"edges_seconds": list(edges), "counts": counts.tolist()}


def _scores(column: np.ndarray) -> dict[str, Any]:
    """Mean and how many lie up to 0.1, 0.2, ... 1.0; of those with a score."""
    found = column[~np.isnan(column)]
    if not len(found):
        return {"scored": 0, "mean": None, "counts": [0] * TENTHS}
    tenths = np.clip(np.ceil(found * TENTHS).astype(np.int64) - 1, 0, TENTHS - 1)
    return {
        "scored": len(found), "mean": round(float(found.mean()), 6),
        "counts": np.bincount(tenths, minlength=TENTHS).tolist(),
    }  # fmt: skip

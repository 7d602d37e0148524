"""Learning from sessions that models themselves have changed: which count, and how much.

A score is to say what becomes of a session that is left alone. Where an experiment, or a rule that a score triggers,
has acted on a session, its outcome tells of the action, too; a model that learns from it takes the action's success for
the visitor's, no longer finds those whom the action is for, and is wrong about everybody who gets it no more. What
every trigger has noted with the session undoes that: which arm it got, with which probability.

So sessions that got another arm than the control are left out, and those that got the control stand for them: each
counts 1 / (the probability of its arms), which is unbiased whatever the trigger asks (Horvitz and Thompson, 1952).
Where nothing is ever held back from the action, nobody knows what would be without it: such sessions are left out, and
the table tells how many. What is seen by preview (`FORCED`) is left out, too. Each experiment halves, or so, what is
learned from: those that change nothing that a score is about are better named in `log.alike`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.events import hash64
from features.experiments import FORCED

Guard = Literal["propensity", "none"]
_CONTROL: Final = 0


def weights_of(assignments: Any, guard: Guard, most: float, alike: Collection[str] = ()) -> np.ndarray:
    """How much each session counts, float64 (n,), 0 where it is left out.

    assignments: a pyarrow list of structs a session, as handed on; most: the largest weight, which bounds what a few
    sessions of a rare arm can do, at the price of a little bias; alike: keys of experiments whose arms all count.
    """
    lists = assignments.combine_chunks() if isinstance(assignments, pa.ChunkedArray) else assignments
    sessions = len(lists)
    weight = np.ones(sessions)
    if guard == "none" or not sessions:
        return weight
    session = pc.list_parent_indices(lists).to_numpy()
    flat = pc.list_flatten(lists)
    if not len(flat):
        return weight
    experiment, arm, propensity, flags = (
        flat.field(name).to_numpy(zero_copy_only=False) for name in ("experiment", "arm", "propensity", "flags")
    )
    acts = ~np.isin(experiment, [hash64(key) for key in alike])
    untreated = (arm == _CONTROL) & (propensity > 0) & (flags & FORCED == 0)
    times = np.where(untreated, 1 / np.maximum(propensity, 1e-6), 0.0)
    np.multiply.at(weight, session, np.where(acts, times, 1.0))
    return np.minimum(weight, most)

"""Heads: what a model is asked. A head is one declaration: which rows are asked, and what the answer was.

An outcome that is already decided at a prefix gives no row: a session that has bought cannot fail to convert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.labels import Outcomes


@dataclass(frozen=True)
class Head:
    """One question about a running session.

    asked: Outcomes -> bool (events,), whether the question is still open after the event.
    answer: Outcomes -> bool (events,), what the answer turned out to be.
    """

    name: str
    question: str
    asked: Callable[[Outcomes], np.ndarray]
    answer: Callable[[Outcomes], np.ndarray]


HEADS: Final = {
    head.name: head
    for head in (
        Head("bounce", "Does this session end without a second interaction?", lambda o: o.bounce_open, lambda o: o.bounced),
        Head("conversion", "Is the goal reached later in this session?", lambda o: ~o.goal_reached, lambda o: o.goal_later),
        Head("exit", "Was this the session's last event?", lambda o: np.ones(len(o.last), bool), lambda o: o.last),
    )
}

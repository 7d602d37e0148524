"""What happened after each event: the outcomes that heads ask for, from the sorted events of `features.batch.Rows`.

Every array is per event. Rows take the outcome of the latest event of their prefix, because silence adds none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.events import EVENT_NAMES
from training.config import LabelSettings


@dataclass(frozen=True)
class Outcomes:
    """Per event of n sorted events, all bool (n,) but `session`.

    Attributes
    ----------
    session: int64, index of the session.
    last: no event of the session follows.
    goal_reached: the goal happened at or before this event; goal_later: it happens after it.
    bounced: the whole session bounces; bounce_open: up to this event it still may.
    censored: the log ends before one could know that the session is over.
    """

    session: np.ndarray
    last: np.ndarray
    goal_reached: np.ndarray
    goal_later: np.ndarray
    bounced: np.ndarray
    bounce_open: np.ndarray
    censored: np.ndarray


def outcomes(events: pd.DataFrame, settings: LabelSettings, timeout_ms: int) -> Outcomes:
    """The outcomes of a table that is sorted by session (`session_index`) and time.

    A session bounces with at most one interactive event, under `bounce_seconds` from its first to its latest event,
    and no goal.
    """
    session = events["session_index"].to_numpy()
    size = len(session)
    if not size:
        empty = np.zeros(0, bool)
        return Outcomes(session, empty, empty, empty, empty, empty, empty)
    begins = np.flatnonzero(np.concatenate([[True], session[1:] != session[:-1]]))
    lengths = np.diff(np.concatenate([begins, [size]]))
    begin = np.repeat(begins, lengths)
    end = np.repeat(begins + lengths - 1, lengths)

    # within a session a late event keeps the session's clock, as the fold does
    time = events["time"].to_numpy()
    clock = events["time"].groupby(session).cummax().to_numpy()
    so_far_ms = clock - time[begin]
    goal = _running(events["name"].to_numpy() == EVENT_NAMES.index(settings.goal), begin)
    interactive = _running(events["interactive"].to_numpy() > 0, begin)
    bounce_ms = settings.bounce_seconds * 1000
    bounce_open = (interactive <= 1) & (so_far_ms < bounce_ms) & (goal == 0)
    return Outcomes(
        session=session,
        last=np.arange(size) == end,
        goal_reached=goal > 0,
        goal_later=goal[end] > goal,
        bounced=bounce_open[end],
        bounce_open=bounce_open,
        censored=clock[end] + timeout_ms > time.max(),
    )


def _running(flag: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """How often the flag was set in the session up to and with each event."""
    total = np.cumsum(flag)
    return total - total[begin] + flag[begin]

"""Segments of sessions: by what is known of a session whatever it does.

In: sessions. Out: by dimension its labels and, for each session, the place of its own.
"""

from __future__ import annotations

import numpy as np

from features.events import CHANNELS, CONSENT_LINK, DEVICES
from features.journeys.paths import Walk
from features.journeys.sessions import Sessions
from features.steps import STEPS

VISITS = ("not linked", "first", "returning")


def segments(sessions: Sessions, way: Walk) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """dimension -> (labels, int64 (n,))."""
    return {
        "device": (DEVICES, sessions["device_kind"]),
        "channel": (CHANNELS, sessions["entry_channel"]),
        "campaign": (("none", "some"), (sessions["last_campaign"] != 0).astype(np.int64)),
        "visit": (VISITS, visit(sessions)),
        "entry": (STEPS, way.steps[:, 0].astype(np.int64)),
    }


def visit(sessions: Sessions) -> np.ndarray:
    """0 where visits may not be linked, 1 for a first visit, 2 for a later one: int64 (n,)."""
    linked = (sessions["consent"] & CONSENT_LINK) != 0
    return np.where(linked, 1 + (sessions["visitor_visits"] > 1), 0)

"""Which rows of the test are looked at: by session age in events and in seconds, and by segment of the traffic.

In: a `Slice`. Out: masks by name. A segment is told from the row's own features; where the catalogue lacks one, its
segments are left out. Consent that was not given shows as a missing visitor history, and is a segment of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from features.events import CHANNELS, DEVICES
from training.config import EvaluationSettings
from training.datasets import Slice

# Nothing is told of a group of fewer people, however many rows they leave.
LEAST_VISITORS: Final = 50


def ages(part: Slice, settings: EvaluationSettings) -> dict[str, np.ndarray]:
    """bool (n,) by age.

    `prefix_n`: right after the n-th event; `seconds_s`: the session as it stands s seconds after it began, a row a
    session; `events`: right after any event; `idle`: at the checkpoints of silence; `all`: every row.
    """
    right_after = part.idle_ms == 0
    found = {f"prefix_{n}": right_after & (part.prefix == n) for n in settings.prefixes}
    for seconds in settings.seconds:
        moment = part.started + round(seconds * 1000)
        found[f"seconds_{seconds:g}"] = (part.now <= moment) & (moment < part.until)
    return found | {"events": right_after, "idle": ~right_after, "all": np.ones(len(part.answer), bool)}


def segments(part: Slice, settings: EvaluationSettings) -> dict[str, np.ndarray]:
    """bool (n,) by segment such as `device=mobile`, of rows right after an event.

    Left out: segments of fewer than `segment_rows` rows or `LEAST_VISITORS` visitors.
    """
    right_after = part.idle_ms == 0
    found = {}
    for feature, kind, told in _TOLD:
        if feature not in part.names:
            continue
        values = part.column(feature)
        for name, which in told.items():
            chosen = right_after & which(values)
            if chosen.sum() >= settings.segment_rows and len(np.unique(part.visitor[chosen])) >= LEAST_VISITORS:
                found[f"{kind}={name}"] = chosen
    return found


def _codes(names: tuple[str, ...]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    return {name: lambda values, code=code: values == code for code, name in enumerate(names)}  # type: ignore[misc]


# feature, what the segments are called, which of its values are which
_TOLD: Final[tuple[tuple[str, str, Mapping[str, Callable[[np.ndarray], np.ndarray]]], ...]] = (
    ("device_kind", "device", _codes(DEVICES)),
    ("entry_channel", "channel", _codes(CHANNELS)),
    (
        "visits_before",
        "visitor",
        {"new": lambda before: before == 0, "returning": lambda before: before > 0, "unlinked": np.isnan},
    ),
    ("visits_before", "consent", {"link": lambda before: ~np.isnan(before), "none": np.isnan}),
)

"""Tables of units made up for tests of experiments: with the effect that is planted in them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.experiments import Experiment, parse_experiments
from training.experiments.table import Units, units_of

START = 1_750_000_000_000
DAY_MS = 86_400_000


def experiment(**changed: object) -> Experiment:
    """Two arms and one goal, with what is changed of it."""
    plain = {"arms": ["control", "banner"], "goals": [{"name": "purchase", "column": "purchases", "primary": True}]}
    return parse_experiments({"banner": plain | changed}, "a test")["banner"]


def made_up(
    size: int, lift: float = 0.0, *, rate: float = 0.1, share: float = 0.5, seed: int = 0, phases: int = 1,
    sessions_a_visitor: int = 1, by_visitor: bool = False, days: float = 14, tells: float = 2.0,
) -> pd.DataFrame:  # fmt: skip
    """Units of two arms over some days; the score `conversion` is each unit's own rate without the change.

    lift: relative change of the rate in the arm banner. tells: parameter of the Beta from which rates come: the
    smaller, the more of the outcome the score knows. by_visitor: a visitor's units share its rate and its arm.
    """
    random = np.random.default_rng(seed)
    visitor = np.arange(size) // sessions_a_visitor
    risk = random.beta(tells, tells * (1 / rate - 1), size)
    banner = random.random(size) < share
    if by_visitor:
        risk, banner = risk[visitor * sessions_a_visitor], banner[visitor * sessions_a_visitor]
    chance = np.clip(risk * np.where(banner, 1 + lift, 1), 0, 1)
    bought = random.random(size) < chance
    return pd.DataFrame(
        {
            "experiment": "banner",
            "phase": 1 + np.arange(size) * phases // size,
            "arm": np.where(banner, "banner", "control"),
            "propensity": np.where(banner, share, 1 - share),
            "holdback": False,
            "forced": False,
            "unit": random.permutation(size),
            "visitor": visitor,
            "exposed_at": START + np.sort(random.integers(0, int(days * DAY_MS), size)),
            "age_events": random.integers(1, 20, size),
            "age_seconds": random.exponential(100, size),
            "bounce": np.nan,
            "conversion": risk,
            "exit": np.nan,
            "purchases": bought.astype(float),
            "revenue": bought * np.exp(random.normal(3.5, 0.8, size)),
        }
    )


def units(table: pd.DataFrame, definition: Experiment | None = None) -> Units:
    """The table as units of `experiment()`."""
    return units_of(table, "banner", definition or experiment())

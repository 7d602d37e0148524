"""The split: later in time, other visitors, whole sessions, a gap of one timeout."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from features.batch import build_rows
from features.pseudonyms import Pseudonymiser
from features.settings import SettingsError
from features.shop import load_shop
from features.sources import read_events
from simulation.shop import simulate
from tests.shared import TAOBAO
from training.config import SplitSettings, TrainingSettings
from training.datasets import SLICES, assign_sessions, check_enough, slices_of
from training.heads import HEADS
from training.labels import outcomes

TIMEOUT_MS = 1_800_000
SPLIT = SplitSettings()


def logs() -> dict[str, pd.DataFrame]:
    return {
        "taobao": read_events("taobao", TAOBAO, load_shop(), Pseudonymiser(b"0123456789abcdef")),
        "simulated": simulate(events=60_000, seed=2).events,
    }


@pytest.mark.parametrize("log", ["taobao", "simulated"])
def test_no_visitor_and_no_time_is_on_two_sides(log: str) -> None:
    rows = build_rows(logs()[log], idle_seconds=())
    events = rows.events
    assigned = assign_sessions(events, SPLIT, TIMEOUT_MS)
    side = assigned[events["session_index"].to_numpy()]
    by_visitor = events.assign(side=side)[side >= 0].groupby("visitor")["side"].nunique()
    assert by_visitor.max() == 1
    test = SLICES.index("test")
    before = events["time"][(side >= 0) & (side != test)].max()
    assert events["time"][side == test].min() >= before + TIMEOUT_MS
    for place in range(len(SLICES)):
        assert (assigned == place).sum() > 100
    kept = (assigned >= 0).mean()
    assert kept > (0.3 if log == "taobao" else 0.6)  # 413 loyal users against mostly new ones


def test_rows_keep_their_slice_and_censored_sessions_give_none() -> None:
    rows = build_rows(simulate(events=30_000, seed=4).events)
    outcome = outcomes(rows.events, TrainingSettings().labels, TIMEOUT_MS)
    assigned = assign_sessions(rows.events, SPLIT, TIMEOUT_MS)
    slices = slices_of(rows, outcome, assigned, HEADS["exit"])
    assert set(slices) == set(SLICES)
    last = rows.events["time"].max()
    for place, name in enumerate(SLICES):
        part = slices[name]
        assert (assigned[part.session] == place).all()
        assert (part.now - part.idle_ms + TIMEOUT_MS <= last).all()
        assert len(part.matrix) == len(part.answer) == len(part.prefix) == len(part.visitor)


def test_the_split_does_not_depend_on_the_run_and_the_empty_log_has_none() -> None:
    rows = build_rows(simulate(events=10_000, seed=4).events, idle_seconds=())
    one, two = (assign_sessions(rows.events, SPLIT, TIMEOUT_MS) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert len(assign_sessions(rows.events.iloc[:0], SPLIT, TIMEOUT_MS)) == 0


def test_too_little_is_refused_with_what_is_missing() -> None:
    rows = build_rows(simulate(events=2_000, seed=4).events)
    outcome = outcomes(rows.events, TrainingSettings().labels, TIMEOUT_MS)
    assigned = assign_sessions(rows.events, SPLIT, TIMEOUT_MS)
    slices = slices_of(rows, outcome, assigned, HEADS["conversion"])
    with pytest.raises(
        SettingsError, match="head 'conversion': the slice '.*' has .* at least .* use a longer history"
    ):
        check_enough(HEADS["conversion"], slices, SPLIT.model_copy(update={"min_positives": 40, "min_sessions": 5}))

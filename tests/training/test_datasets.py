"""The split: later in time, other visitors, whole sessions, a gap of one timeout; and what a head needs."""

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
from training.datasets import (
    SIDES,
    Slice,
    assign_sessions,
    check_enough,
    draw_visitors,
    shortages,
    slices_of,
    split_border,
    uniform,
)
from training.heads import heads_of
from training.inner import inner_folds
from training.labels import DAY_MS, Outcomes

TIMEOUT_MS = 1_800_000
SETTINGS = TrainingSettings()
SPLIT = SETTINGS.split
HEADS = heads_of(SETTINGS)


def logs() -> dict[str, pd.DataFrame]:
    return {
        "taobao": read_events("taobao", TAOBAO, load_shop(), Pseudonymiser(b"0123456789abcdef")),
        "simulated": simulate(events=60_000, seed=2).events,
    }


def slices(events: pd.DataFrame, head: str, split: SplitSettings = SPLIT) -> dict[str, Slice]:
    rows = build_rows(events)
    border = split_border(rows.events, split)
    assigned = assign_sessions(rows.events, split, TIMEOUT_MS, border)
    return slices_of(rows, Outcomes(rows.events, SETTINGS.labels, TIMEOUT_MS), assigned, HEADS[head], border)


@pytest.mark.parametrize("log", ["taobao", "simulated"])
def test_no_visitor_and_no_time_is_on_two_sides(log: str) -> None:
    events = build_rows(logs()[log], idle_seconds=()).events
    assigned = assign_sessions(events, SPLIT, TIMEOUT_MS, split_border(events, SPLIT))
    side = assigned[events["session_index"].to_numpy()]
    by_visitor = events.assign(side=side)[side >= 0].groupby("visitor")["side"].nunique()
    assert by_visitor.max() == 1
    past, test = (events["time"][side == place] for place in range(len(SIDES)))
    assert test.min() >= past.max() + TIMEOUT_MS
    for place in range(len(SIDES)):
        assert (assigned == place).sum() > 100
    assert 0.5 < (assigned >= 0).mean() < 0.65  # seven tenths of each side's visitors, three tenths of the other's


def test_the_test_is_a_fair_sample_of_its_time() -> None:
    """Visitors who come again are tested on as often as they are seen: their share would move every rate."""
    events = build_rows(simulate(events=300_000, days=28, seed=3).events, idle_seconds=()).events
    border = split_border(events, SPLIT)
    assigned = assign_sessions(events, SPLIT, TIMEOUT_MS, border)
    grouped = events.groupby("session_index")
    start, visitor = grouped["time"].min().to_numpy(), grouped["visitor"].first().to_numpy()
    again = pd.Series(visitor).duplicated().to_numpy()
    for side, time in ((0, start < border), (1, start >= border)):
        chosen = assigned == side
        assert again[chosen].mean() == pytest.approx(again[time].mean(), abs=0.02)


def test_a_window_of_the_test_ends_where_the_next_one_begins() -> None:
    events = build_rows(logs()["simulated"], idle_seconds=()).events
    border = split_border(events, SPLIT)
    until = border + DAY_MS
    assigned = assign_sessions(events, SPLIT, TIMEOUT_MS, border, until)
    starts = events.groupby("session_index")["time"].min().to_numpy()
    assert starts[assigned == 1].max() < until < starts.max()


def test_rows_keep_their_side_and_what_is_not_known_yet_gives_none() -> None:
    events = simulate(events=30_000, days=28, seed=4).events
    border = split_border(events, SPLIT)
    last = events["time"].max()
    for name in ("exit", "returns"):
        found = slices(events, name)
        assert set(found) == set(SIDES)
        assert (found["past"].known_at < border + TIMEOUT_MS).all()
        assert (found["test"].known_at <= last).all()
        for part in found.values():
            assert len(part.matrix) == len(part.answer) == len(part.prefix) == len(part.visitor) > 100
            assert (part.started <= part.now).all() and (part.now < part.known_at).all()


def test_a_row_describes_its_session_until_the_next_one() -> None:
    part = slices(simulate(events=20_000, seed=4).events, "exit")["past"]
    same = part.session[1:] == part.session[:-1]
    np.testing.assert_array_equal(part.until[:-1][same], part.now[1:][same])
    ends = np.append(~same, True)
    assert (part.until[ends] == part.known_at[ends]).all()


def test_the_split_does_not_depend_on_the_run_but_on_the_seed_and_the_empty_log_has_none() -> None:
    events = build_rows(simulate(events=10_000, seed=4).events, idle_seconds=()).events
    border = split_border(events, SPLIT)
    one, two = (assign_sessions(events, SPLIT, TIMEOUT_MS, border) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = assign_sessions(events, SPLIT.model_copy(update={"seed": 1}), TIMEOUT_MS, border)
    assert (one != other).any()
    assert len(assign_sessions(events.iloc[:0], SPLIT, TIMEOUT_MS, border)) == 0


def test_a_long_log_is_thinned_by_whole_visitors_and_keeps_its_rates() -> None:
    events = simulate(events=120_000, seed=4).events
    border = split_border(events, SPLIT)
    drawn = draw_visitors(events, border, 30_000, 0)
    assert 0.8 < (drawn["time"] < border).sum() / 30_000 < 1.2
    kept = drawn["visitor"].unique()
    assert len(drawn) == events["visitor"].isin(kept).sum()
    bought = [(table["name"] == 13).mean() for table in (events, drawn)]
    assert bought[1] == pytest.approx(bought[0], rel=0.15)
    assert draw_visitors(events, border, 200_000, 0) is events


def test_being_drawn_tested_and_folded_do_not_depend_on_each_other() -> None:
    visitor = simulate(events=60_000, seed=2).events["visitor"].unique()
    numbers = [uniform(visitor, purpose, 0) for purpose in (1, 2, 3)]
    for place, one in enumerate(numbers):
        assert one.min() >= 0 and one.max() < 1 and abs(one.mean() - 0.5) < 0.02
        for other in numbers[place + 1 :]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.04


@pytest.mark.parametrize("log", ["taobao", "simulated"])
def test_inner_folds_validate_on_later_sessions_of_other_visitors(log: str) -> None:
    past = slices(logs()[log], "exit")["past"]
    folds = inner_folds(past, SETTINGS)
    assert len(folds) >= 1
    seen: set[int] = set()
    for fold in folds:
        train, valid = past.take(fold.train), past.take(fold.valid)
        assert not set(train.visitor) & set(valid.visitor)
        assert train.known_at.max() <= valid.started.min()
        assert not seen & set(fold.valid)
        seen |= set(fold.valid.tolist())


def test_too_little_is_refused_with_all_that_is_missing() -> None:
    events = simulate(events=2_000, seed=4).events
    split = SPLIT.model_copy(update={"min_positives": 100, "min_sessions": 5, "min_days": 20})
    found = slices(events, "conversion")
    with pytest.raises(SettingsError) as refusal:
        check_enough(HEADS["conversion"], found, events, split)
    message = str(refusal.value)
    assert "the log spans 13.7 days, at least 20.0 are needed" in message
    for side in SIDES:
        assert f"the {side} has" in message
    assert "at least 100 are needed; use a longer history, another event as goal" in message


def test_a_head_that_looks_ahead_needs_a_log_that_long() -> None:
    """Whether a visitor returns within seven days is not known of anybody on a side shorter than that."""
    events = simulate(events=5_000, days=14, seed=4).events
    missing = list(shortages(HEADS["returns"], slices(events, "returns"), events, SPLIT))
    assert any("at least 23.3 are needed" in text for text in missing)


def test_an_outcome_that_selected_the_log_is_noticed() -> None:
    found = slices(simulate(events=20_000, seed=4).events, "exit")
    always = {name: part.take(part.answer > 0) for name, part in found.items()}
    events = simulate(events=20_000, seed=4).events
    assert any("Was the log selected by this outcome?" in s for s in shortages(HEADS["exit"], always, events, SPLIT))

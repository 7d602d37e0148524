"""The numbers behind the pictures: reliability, what acting on scores reaches, how early they tell."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.training.slices import made_up, slice_of
from training.config import EvaluationSettings
from training.curves import cutoffs, earliness, half_lift, ranking_curves, reliability_curves, scores_by_age

SETTINGS = EvaluationSettings(resamples=40)


def test_the_band_of_a_calibrated_score_holds_the_diagonal() -> None:
    part, truth = made_up(4000)
    curves = reliability_curves(part, truth, SETTINGS)
    assert {"prefix_1", "seconds_30", "events", "idle", "all"} <= set(curves)
    for age in ("prefix_1", "events", "all"):
        curve = curves[age]
        assert (curve["low"] <= curve["observed"]).all() and (curve["observed"] <= curve["high"]).all()
        inside = (curve["low"] <= curve["score"]) & (curve["score"] <= curve["high"])
        assert inside.mean() > 0.7, age
        assert curve["rows"].sum() == {"prefix_1": 4000, "events": (part.idle_ms == 0).sum()}.get(age, len(truth))
    off = reliability_curves(part, np.clip(truth + 0.2, 0, 1), SETTINGS)["all"]
    assert (off["high"] < off["score"]).all()


def test_ages_of_few_rows_have_no_curve() -> None:
    part, truth = made_up(60)
    assert "prefix_10" not in reliability_curves(part, truth, SETTINGS)


@pytest.mark.parametrize("levels", [4, 100_000])
def test_the_area_below_the_points_is_sklearns(levels: int) -> None:
    random = np.random.default_rng(1)
    score = np.floor(random.random(20_000) * levels) / levels
    answer = (random.random(20_000) < 0.2 + 0.5 * score).astype(float)
    points = cutoffs(answer, score)
    assert len(points) <= 401
    x, y = [0.0, *points["false_positive"]], [0.0, *points["captured"]]
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(answer, score), abs=2e-3)
    steps = np.diff([0.0, *points["captured"]])
    assert (steps * points["precision"]).sum() == pytest.approx(average_precision_score(answer, score), abs=5e-3)
    last = points.iloc[-1]
    assert last["share"] == last["captured"] == last["false_positive"] == last["lift"] == 1.0
    assert last["precision"] == pytest.approx(answer.mean())


def test_where_all_answers_are_the_same_there_is_no_ranking() -> None:
    assert ranking_curves(slice_of(answer=np.ones(30)), {"lotse": np.arange(30.0)}) == {}
    assert cutoffs(np.zeros(5), np.arange(5.0))["captured"].isna().all()


def test_scores_by_age_part_yes_from_no() -> None:
    part, truth = made_up(2000)
    table = scores_by_age(part, truth).set_index(["answer", "events"])
    assert table.loc[(1, 1), "mean"] > table.loc[(0, 1), "mean"]
    first = part.answer[(part.prefix == 1) & (part.idle_ms == 0)]
    assert table.loc[(1, 1), "rows"] == (first > 0).sum()
    assert (table["low"] <= table["high"]).all()


def sessions_of(events: int, sessions: int = 200, yes: int = 20) -> dict[str, np.ndarray]:
    """Sessions of so many events 10 s apart, the first `yes` of them positive."""
    session = np.repeat(np.arange(sessions), events)
    prefix = np.tile(np.arange(1, events + 1), sessions)
    return {
        "answer": (session < yes).astype(float),
        "session": session,
        "prefix": prefix.astype(np.int32),
        "now": (prefix - 1) * 10_000,
    }


def test_earliness_finds_the_event_at_which_the_score_begins_to_tell() -> None:
    rows = sessions_of(events=6)
    part = slice_of(**rows)
    nothing = np.random.default_rng(0).random(200)[rows["session"]]
    score = np.where(rows["prefix"] >= 4, rows["answer"], nothing)
    table = earliness(part, score, SETTINGS).set_index(["by", "at"])
    assert table.loc[("events", 6.0), "lift"] == table.loc[("events", 6.0), "final"] == 10.0
    assert table.loc[("events", 3.0), "lift"] < 4 and table.loc[("events", 4.0), "lift"] == 10.0
    # a session that is over keeps its last score
    assert table.loc[("events", 20.0), "lift"] == 10.0 and table.loc[("events", 20.0), "sessions"] == 200
    assert half_lift(earliness(part, score, SETTINGS), "events") == 4
    # the fourth event comes 30 s after the first
    assert half_lift(earliness(part, score, SETTINGS), "seconds") == 30
    assert table.loc[("events", 4.0), "of_final"] == table.loc[("events", 4.0), "gained"] == 1.0


def test_silence_after_the_last_event_tells_nothing_of_the_final_lift() -> None:
    rows = sessions_of(events=2)
    silent = {name: np.append(values, values[1::2]) for name, values in rows.items()}
    silent["idle_ms"] = np.append(np.zeros(400), np.full(200, 60_000)).astype(np.int64)
    silent["now"] = silent["now"] + silent["idle_ms"]
    nothing = np.random.default_rng(0).random(200)[silent["session"]]
    score = np.where(silent["idle_ms"] > 0, silent["answer"], nothing)
    table = earliness(slice_of(**silent), score, SETTINGS)
    assert table["final"].iloc[0] < 3
    assert table[table["by"] == "seconds"]["lift"].iloc[-1] == 10.0


def test_where_the_answer_changes_within_sessions_nothing_is_early() -> None:
    part, truth = made_up(200, kind="exit")
    assert not len(earliness(part, truth, SETTINGS))
    assert not len(earliness(slice_of(answer=np.zeros(30)), np.zeros(30), SETTINGS))
    assert np.isnan(half_lift(earliness(part, truth, SETTINGS), "events"))


def test_amounts_are_early_by_what_the_whole_session_brought() -> None:
    rows = sessions_of(events=3)
    rows["answer"] = rows["answer"] * np.where(rows["prefix"] == 3, 0.0, 50.0)
    table = earliness(slice_of(**rows), (rows["session"] < 20).astype(float), SETTINGS)
    assert (table["lift"] == 10.0).all()


def test_a_score_that_never_tells_reaches_no_half() -> None:
    rows = sessions_of(events=3)
    table = earliness(slice_of(**rows), np.full(600, 0.1), SETTINGS)
    assert (table["lift"] == 1.0).all() and table["gained"].isna().all()
    assert np.isnan(half_lift(table, "events"))

"""Metrics by session age and segment: right numbers, honest intervals, nothing made of nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import d2_tweedie_score, mean_absolute_error, root_mean_squared_error

from tests.training.slices import made_up, slice_of
from training.config import EvaluationSettings
from training.evaluation import (
    chance_calibration_error,
    compare_scores,
    evaluate,
    expected_calibration_error,
    metrics,
)
from training.segments import LEAST_VISITORS, ages, segments

SETTINGS = EvaluationSettings(resamples=40, segment_rows=100)


def test_ece_of_known_cases() -> None:
    score = np.repeat([0.2, 0.8], 500)
    perfect = np.concatenate([np.arange(500) < 100, np.arange(500) < 400]).astype(float)
    assert expected_calibration_error(perfect, score, 10) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(np.zeros(1000), score, 10) == pytest.approx(0.5)
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0), 10))


def test_one_class_has_no_auc_and_says_so() -> None:
    found = metrics(np.zeros(10), np.full(10, 0.1), 5)
    assert np.isnan(found["auc"]) and np.isnan(found["pr_auc"])
    assert found["brier"] == pytest.approx(0.01)
    line = evaluate(slice_of(answer=np.zeros(10)), {"lotse": np.full(10, 0.1)}, SETTINGS).set_index("age").loc["all"]
    assert np.isnan(line["auc"]) and np.isnan(line["auc_low"]) and np.isnan(line["lift_10"])
    assert line["brier"] == pytest.approx(0.01)


def test_every_line_says_what_sklearn_says() -> None:
    part, truth = made_up(800)
    scores = {"lotse": truth, "rough": np.round(truth, 1)}
    table = evaluate(part, scores, SETTINGS).set_index(["age", "model"])
    groups = ages(part, SETTINGS) | segments(part, SETTINGS)
    assert set(table.index.get_level_values("age")) == set(groups)
    for age, chosen in groups.items():
        for model, score in scores.items():
            line = table.loc[(age, model)]
            assert line["rows"] == chosen.sum()
            assert line["sessions"] == len(np.unique(part.session[chosen]))
            assert line["visitors"] == len(np.unique(part.visitor[chosen]))
            for name, value in metrics(part.answer[chosen], score[chosen], SETTINGS.bins).items():
                assert line[name] == pytest.approx(value, abs=1e-6, nan_ok=True), (age, model, name)
            assert line["pr_auc_ratio"] == pytest.approx(line["pr_auc"] / line["base_rate"], nan_ok=True)


def test_every_line_of_amounts_says_what_sklearn_says() -> None:
    part, truth = made_up(600, kind="value")
    table = evaluate(part, {"lotse": truth}, SETTINGS, "value").set_index("age")
    for age, chosen in ages(part, SETTINGS).items():
        line, answer, score = table.loc[age], part.answer[chosen].astype(float), truth[chosen]
        expected = {
            "base_rate": (answer > 0).mean(),
            "mean": answer.mean(),
            "predicted": score.mean(),
            "ratio": score.mean() / answer.mean(),
            "mae": mean_absolute_error(answer, score),
            "rmse": root_mean_squared_error(answer, score),
            "d2": d2_tweedie_score(answer, score, power=1.5),
            "spearman": spearmanr(answer, score).statistic,
        }
        for name, value in expected.items():
            assert line[name] == pytest.approx(value, abs=1e-6), (age, name)
            if name != "base_rate":
                assert line[f"{name}_low"] <= line[name] <= line[f"{name}_high"]


def test_lift_is_how_many_times_more_the_top_holds() -> None:
    answer = np.zeros(100)
    answer[[0, 1, 2, 50]] = 1
    part = slice_of(answer=answer)
    best = evaluate(part, {"lotse": -np.arange(100.0)}, SETTINGS).set_index("age").loc["all"]
    assert best["lift_5"] == pytest.approx(3 / 4 / 0.05)
    assert best["lift_20"] == pytest.approx(3 / 4 / 0.2)
    alike = evaluate(part, {"lotse": np.full(100, 0.3)}, SETTINGS).set_index("age").loc["all"]
    assert alike["lift_5"] == pytest.approx(1.0)


def test_ages_in_events_and_in_seconds() -> None:
    """One session: events at 0 s and 20 s, silence noted at 10 s; over at 20 s + the timeout."""
    part = slice_of(
        answer=[1, 1, 0], session=[0, 0, 0], prefix=[1, 1, 2], idle_ms=[0, 10_000, 0], started=[0, 0, 0],
        now=[0, 10_000, 20_000], until=[10_000, 20_000, 1_820_000],
    )  # fmt: skip
    found = {age: np.flatnonzero(chosen).tolist() for age, chosen in ages(part, SETTINGS).items()}
    assert found == {
        "prefix_1": [0], "prefix_2": [2], "prefix_3": [], "prefix_5": [], "prefix_10": [],
        "seconds_5": [0], "seconds_10": [1], "seconds_30": [2], "seconds_60": [2], "seconds_120": [2],
        "seconds_300": [2], "events": [0, 2], "idle": [1], "all": [0, 1, 2],
    }  # fmt: skip


def test_a_session_is_at_most_one_row_of_an_age() -> None:
    part, _ = made_up(500)
    for age, chosen in ages(part, SETTINGS).items():
        if age.startswith(("prefix", "seconds")):
            assert np.bincount(part.session[chosen]).max() == 1, age


def test_segments_are_told_by_their_names_and_small_ones_are_not_told() -> None:
    part, _ = made_up(800)
    right_after = part.idle_ms == 0
    found = segments(part, SETTINGS)
    np.testing.assert_array_equal(found["device=mobile"], right_after & (part.column("device_kind") == 2))
    np.testing.assert_array_equal(found["channel=paid"], right_after & (part.column("entry_channel") == 3))
    np.testing.assert_array_equal(found["visitor=new"], right_after & (part.column("visits_before") == 0))
    np.testing.assert_array_equal(found["visitor=returning"], right_after & (part.column("visits_before") > 0))
    np.testing.assert_array_equal(found["consent=none"], right_after & np.isnan(part.column("visits_before")))
    assert "device=tv" not in found and "channel=unknown" not in found
    assert not segments(part, SETTINGS.model_copy(update={"segment_rows": 10_000}))
    few = part.take(part.visitor < LEAST_VISITORS - 1)
    assert not segments(few, SETTINGS.model_copy(update={"segment_rows": 1}))
    assert not segments(slice_of(answer=np.zeros(900)), SETTINGS)


def test_intervals_hold_the_estimate_and_narrow_with_more_visitors() -> None:
    width = []
    for sessions in (300, 4800):
        part, truth = made_up(sessions)
        line = evaluate(part, {"lotse": truth}, SETTINGS).set_index("age").loc["events"]
        for name in ("auc", "pr_auc", "pr_auc_ratio", "log_loss", "brier", "ece", "lift_10"):
            assert line[f"{name}_low"] <= line[name] <= line[f"{name}_high"], name
        width.append(line["auc_high"] - line["auc_low"])
    assert width[1] < width[0] / 2


def test_the_same_rows_give_the_same_table_and_without_resamples_there_are_no_intervals() -> None:
    part, truth = made_up(200)
    one, two = (evaluate(part, {"lotse": truth}, SETTINGS) for _ in range(2))
    assert one.equals(two)
    bare = evaluate(part, {"lotse": truth}, SETTINGS.model_copy(update={"resamples": 0}))
    assert bare["auc_low"].isna().all() and bare["ece_high"].isna().all()
    assert bare["auc"].equals(one["auc"]) and bare["ece_noise"].equals(one["ece_noise"])


def test_true_probabilities_show_the_calibration_error_of_chance() -> None:
    found = {}
    for kind in ("conversion", "exit"):
        part, truth = made_up(4000, kind=kind)
        found[kind] = evaluate(part, {"lotse": truth}, SETTINGS).set_index("age")
        for age in ("prefix_1", "events", "all"):
            line = found[kind].loc[age]
            assert 0.4 < line["ece"] / line["ece_noise"] < 2.0, (kind, age)
        wrong = evaluate(part, {"lotse": np.clip(truth * 1.5, 0, 1)}, SETTINGS).set_index("age").loc["events"]
        assert wrong["ece_low"] > 2 * wrong["ece_noise"]
    # rows of a session that share its answer do not average out
    assert found["conversion"].loc["all", "ece_noise"] > 1.5 * found["exit"].loc["all", "ece_noise"]


def test_chance_is_larger_where_rows_share_their_fate() -> None:
    score = np.full(4000, 0.3)
    together = chance_calibration_error(score, 10, np.repeat(np.arange(40), 100))
    alone = chance_calibration_error(score, 10)
    # standard deviation of a share times sqrt(2 / pi); of ten draws
    assert alone == pytest.approx(np.sqrt(0.3 * 0.7 / 4000 * 2 / np.pi), rel=0.6)
    assert together == pytest.approx(np.sqrt(0.3 * 0.7 / 40 * 2 / np.pi), rel=0.6)


def test_a_model_differs_from_itself_by_nothing_and_a_better_one_for_certain() -> None:
    part, truth = made_up(1500)
    worse = np.clip(truth + np.random.default_rng(0).normal(0, 0.2, len(truth)), 0.001, 0.999)
    same = compare_scores(part, truth, truth, SETTINGS)
    assert (same.filter(regex="difference$|low$|high$").fillna(0) == 0).all(axis=None)
    line = compare_scores(part, worse, truth, SETTINGS).set_index("age").loc["events"]
    alone = evaluate(part, {"worse": worse, "truth": truth}, SETTINGS).set_index(["age", "model"])
    for name in ("auc", "pr_auc", "log_loss", "brier", "ece"):
        assert line[f"{name}_one"] == alone.loc[("events", "worse"), name]
        assert line[f"{name}_other"] == alone.loc[("events", "truth"), name]
        assert line[f"{name}_difference"] == pytest.approx(line[f"{name}_other"] - line[f"{name}_one"])
        assert line[f"{name}_low"] <= line[f"{name}_difference"] <= line[f"{name}_high"]
    assert line["auc_low"] > 0 and line["log_loss_high"] < 0 and line["ece_high"] < 0
    # the same visitors on both sides: surer than two intervals
    apart = alone["auc_high"] - alone["auc_low"]
    assert line["auc_high"] - line["auc_low"] < apart.loc[("events", "worse")] + apart.loc[("events", "truth")]


def test_amounts_are_compared_by_their_own_metrics() -> None:
    part, truth = made_up(400, kind="value")
    line = compare_scores(part, np.full(len(truth), truth.mean()), truth, SETTINGS, "value").set_index("age").loc["all"]
    assert line["d2_difference"] > 0 and line["d2_other"] > line["d2_one"]
    assert {"ratio_one", "mae_other", "rmse_difference", "spearman_low"} <= set(line.index)


def test_of_no_rows_there_are_lines_of_nothing() -> None:
    part = made_up(20)[0]
    table = evaluate(part.take(np.zeros(len(part.answer), bool)), {"lotse": np.zeros(0)}, SETTINGS)
    assert (table["rows"] == 0).all() and table["auc"].isna().all() and table["ece_noise"].isna().all()
    amounts = evaluate(part.take(np.zeros(len(part.answer), bool)), {"lotse": np.zeros(0)}, SETTINGS, "value")
    assert amounts["d2"].isna().all() and amounts["spearman"].isna().all()

"""Resampled visitors: every lane equals scikit-learn with weights, and the intervals hold what they promise."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from training.bootstrap import (
    Resamples,
    binary_ranking,
    captured,
    interval,
    ranked,
    resample_visitors,
    spearman,
    weighted_sums,
)
from training.evaluation import bin_ends, expected_calibration_error


def rows_of(seed: int, rows: int, levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """visitor, answer, score: with as many ties as there are few levels."""
    random = np.random.default_rng(seed)
    visitor = random.integers(0, max(rows // 3, 1), rows)
    return visitor, (random.random(rows) < 0.3).astype(float), random.integers(0, levels, rows) / levels


def repeated(values: np.ndarray, drawn: Resamples, lane: int) -> np.ndarray:
    """The rows of a resample, as often as their visitor was drawn."""
    return np.repeat(values, drawn.weights[drawn.number, lane])


@given(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from([1, 3, 10, 1000]))
def test_every_lane_equals_sklearn_with_weights(seed: int, rows: int, levels: int) -> None:
    visitor, answer, score = rows_of(seed, rows, levels)
    drawn = resample_visitors(visitor, 5, seed)
    ranks = ranked(score)
    found = binary_ranking(answer, ranks, np.array([rows]), drawn)
    for lane in range(6):
        weight = drawn.weights[drawn.number, lane].astype(float)
        positives, negatives = (weight * answer).sum(), (weight * (1 - answer)).sum()
        if positives and negatives:
            assert found.auc[lane] == pytest.approx(roc_auc_score(answer, score, sample_weight=weight), abs=1e-9)
        else:
            assert np.isnan(found.auc[lane])
        if positives:
            expected = average_precision_score(answer, score, sample_weight=weight)
            assert found.pr_auc[lane] == pytest.approx(expected, abs=1e-9)
        else:
            assert np.isnan(found.pr_auc[lane])


def test_the_calibration_error_of_the_sample_is_the_plain_one() -> None:
    visitor, answer, score = rows_of(1, 3000, 400)
    ends = bin_ends(np.sort(score), 15)
    falling = np.append(len(score) - ends[:-1][::-1], len(score))
    found = binary_ranking(answer, ranked(score), falling, resample_visitors(visitor, 3))
    assert found.ece[0] == pytest.approx(expected_calibration_error(answer, score, 15), abs=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([2, 4, 50]))
def test_rank_correlation_equals_that_of_copied_rows(seed: int, levels: int) -> None:
    visitor, answer, score = rows_of(seed, 80, levels)
    amount = answer * np.random.default_rng(seed).integers(1, 5, 80)
    drawn = resample_visitors(visitor, 4, seed)
    found = spearman(amount, ranked(score), drawn)
    for lane in range(5):
        amounts, scores = repeated(amount, drawn, lane), repeated(score, drawn, lane)
        if np.ptp(amounts) and np.ptp(scores):
            assert found[lane] == pytest.approx(spearmanr(amounts, scores).statistic, abs=1e-6)
        else:
            assert np.isnan(found[lane])


def test_what_the_top_holds_is_the_mean_over_every_order_of_ties() -> None:
    amount, score = np.array([3.0, 0.0, 1.0, 0.0, 7.0, 2.0]), np.array([0.9, 0.5, 0.5, 0.5, 0.2, 0.2])
    drawn = resample_visitors(np.arange(6), 0)
    for top in range(1, 7):
        orders = [order for order in permutations(range(6)) if (np.diff(score[list(order)]) <= 0).all()]
        expected = np.mean([amount[list(order)][:top].sum() for order in orders])
        assert captured(amount, ranked(score), drawn, (top / 6,))[0, 0] == pytest.approx(expected)


@given(st.integers(0, 10_000), st.sampled_from([3, 1000]))
def test_the_top_of_a_resample_is_the_top_of_copied_rows(seed: int, levels: int) -> None:
    visitor, answer, score = rows_of(seed, 200, levels)
    drawn = resample_visitors(visitor, 3, seed)
    shares = (0.05, 0.1, 0.5, 1.0)
    found = captured(answer, ranked(score), drawn, shares)
    for lane in range(4):
        answers, scores = repeated(answer, drawn, lane), repeated(score, drawn, lane)
        alone = resample_visitors(np.arange(len(answers)), 0)
        np.testing.assert_allclose(found[:, lane], captured(answers, ranked(scores), alone, shares)[:, 0])


def test_visitors_are_drawn_whole_and_the_same_in_every_run() -> None:
    visitor = np.array([5, 9, 5, 5, 2])
    one, two = resample_visitors(visitor, 50, 3), resample_visitors(visitor, 50, 3)
    np.testing.assert_array_equal(one.weights, two.weights)
    assert (one.weights[:, 0] == 1).all() and (one.weights.sum(axis=0) == 3).all()
    rows = one.weights[one.number]
    assert (rows[0] == rows[2]).all() and (rows[0] == rows[3]).all()
    assert len(np.unique(rows[1:2])) > 1


def test_sums_are_those_of_the_drawn_rows() -> None:
    visitor, answer, score = rows_of(8, 500, 50)
    drawn = resample_visitors(visitor, 4)
    found = weighted_sums([answer, score], drawn)
    for lane in range(5):
        assert found[0, lane] == repeated(answer, drawn, lane).sum()
        assert found[1, lane] == pytest.approx(repeated(score, drawn, lane).sum())


def test_an_interval_of_visitors_holds_the_truth_as_often_as_it_says() -> None:
    """Five equal rows a visitor: resampled rows would be far too sure, resampled visitors are not."""
    random = np.random.default_rng(0)
    held = {"visitors": 0, "rows": 0}
    for trial in range(200):
        answer = np.repeat((random.random(80) < 0.3).astype(float), 5)
        visitor = np.repeat(np.arange(80), 5)
        for unit, numbers in (("visitors", visitor), ("rows", np.arange(400))):
            lanes = weighted_sums([answer, np.ones(400)], resample_visitors(numbers, 100, trial))
            low, high = interval(lanes[0] / lanes[1], 0.9)
            held[unit] += low <= 0.3 <= high
    assert 0.82 <= held["visitors"] / 200 <= 0.96
    assert held["rows"] / 200 < 0.7


def test_what_is_undefined_in_a_resample_is_left_out_and_of_nothing_there_is_no_interval() -> None:
    assert interval(np.array([0.5, np.nan, 0.4, 0.6]), 0.5) == pytest.approx((0.45, 0.55))
    assert np.isnan(interval(np.array([0.5]), 0.9)).all()
    assert np.isnan(interval(np.array([np.nan, 0.1]), 0.9)).all()


def test_a_centred_interval_holds_its_estimate() -> None:
    """The calibration error of resamples lies above the sample's: their noise comes on top."""
    visitor, _, _ = rows_of(2, 2000, 10)
    score = np.random.default_rng(3).random(2000)
    answer = (np.random.default_rng(4).random(2000) < score).astype(float)
    ends = np.arange(100, 2001, 100)
    lanes = binary_ranking(answer, ranked(score), ends, resample_visitors(visitor, 200)).ece
    assert lanes[0] < np.median(lanes[1:])
    low, high = interval(lanes, 0.95, centred=True)
    assert low < lanes[0] < high

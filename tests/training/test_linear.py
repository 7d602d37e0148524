"""The linear model, and its twin in LightGBM's text format: the same numbers, missing values and all."""

from __future__ import annotations

from dataclasses import replace

import lightgbm as lgb
import numpy as np
import pytest

from tests.training.test_calibration import rows
from training.boosting import boost, merged
from training.config import TrainingSettings
from training.datasets import Slice
from training.heads import heads_of
from training.linear import LinearModel, fit_linear, tree_texts
from training.losses import score_loss

SETTINGS = TrainingSettings()
HEAD = heads_of(SETTINGS)["exit"]


def random_rows(size: int = 4_000, seed: int = 0) -> Slice:
    """Five features: a number, a long tail, a code with missing values, one that is always missing, a constant."""
    random = np.random.default_rng(seed)
    matrix = np.column_stack(
        [
            random.normal(size=size),
            random.lognormal(3, 2, size),
            np.where(random.random(size) < 0.3, np.nan, random.integers(0, 4, size)),
            np.full(size, np.nan),
            np.full(size, 7.0),
        ]
    ).astype(np.float32)
    linear = matrix[:, 0] + 0.3 * np.log1p(matrix[:, 1]) + np.where(np.isnan(matrix[:, 2]), 1.0, 0.0) - 2
    part = rows(random.random(size) < 1 / (1 + np.exp(-linear)), np.ones(size), np.zeros(size))
    return replace(part, names=("number", "tail", "code", "nothing", "same"), matrix=matrix)


def fitted(part: Slice, penalty: float = 0.01) -> LinearModel:
    (model,) = fit_linear(part, HEAD, SETTINGS.linear, (penalty,))
    return model


def test_the_trees_are_the_linear_model() -> None:
    part = random_rows()
    linear = fitted(part)
    booster, _ = boost(part, None, linear.margin(part.matrix), HEAD, SETTINGS, rounds=20)
    both = merged(linear, booster, 20)
    other = random_rows(seed=1).matrix
    other[::7, 0] = np.nan  # missing where the fit saw none
    other[5, 1] = 1e30
    other[6, :] = linear.steps[0].edges[3]  # on an edge
    expected = linear.margin(other) + booster.predict(other, raw_score=True)
    np.testing.assert_allclose(both.predict(other, raw_score=True), expected, rtol=1e-12, atol=1e-12)
    assert both.num_trees() == len(tree_texts(linear)) + 20
    again = lgb.Booster(model_str=both.model_to_string())
    np.testing.assert_array_equal(again.predict(other), both.predict(other))


def test_no_rounds_leave_the_linear_model_alone() -> None:
    part = random_rows()
    linear = fitted(part)
    booster, _ = boost(part, None, linear.margin(part.matrix), HEAD, SETTINGS, rounds=1)
    alone = merged(linear, booster, 0)
    np.testing.assert_allclose(alone.predict(part.matrix, raw_score=True), linear.margin(part.matrix), atol=1e-12)


def test_contributions_of_the_trees_add_up() -> None:
    part = random_rows()
    linear = fitted(part)
    booster, _ = boost(part, None, linear.margin(part.matrix), HEAD, SETTINGS, rounds=5)
    both = merged(linear, booster, 5)
    shares = both.predict(part.matrix[:200], pred_contrib=True)
    np.testing.assert_allclose(shares.sum(axis=1), both.predict(part.matrix[:200], raw_score=True), atol=1e-9)
    assert np.abs(shares[:, 3:5]).max() == 0  # always missing, always the same


def test_it_finds_what_is_there() -> None:
    part, later = random_rows(20_000), random_rows(5_000, seed=9)
    good, mean = fitted(part), np.full(len(later), np.log(part.answer.mean() / (1 - part.answer.mean())))
    loss = score_loss(later.answer, good.margin(later.matrix), "binary")
    assert loss < 0.85 * score_loss(later.answer, mean, "binary")


def test_rows_without_anything_to_tell_give_the_base_rate() -> None:
    part = random_rows()
    empty = replace(part, matrix=np.full_like(part.matrix, np.nan))
    model = fitted(empty)
    rate = 1 / (1 + np.exp(-model.margin(empty.matrix)))
    np.testing.assert_allclose(rate, part.answer.mean(), atol=1e-6)
    booster, _ = boost(empty, None, model.margin(empty.matrix), HEAD, SETTINGS, rounds=1)
    found = merged(model, booster, 0).predict(empty.matrix[:3], raw_score=True)
    np.testing.assert_allclose(found, model.margin(empty.matrix[:3]), atol=1e-12)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_monotone_feature_only_moves_one_way(direction: int) -> None:
    """Also against what the data say: the number raises the answer here."""
    part = random_rows()
    head = replace(HEAD, monotone={"number": direction})
    (linear,) = fit_linear(part, head, SETTINGS.linear, (0.01,))
    booster, _ = boost(part, None, linear.margin(part.matrix), head, SETTINGS, rounds=30)
    both = merged(linear, booster, 30)
    line = np.repeat(part.matrix[:1], 400, axis=0)
    line[:, 0] = np.linspace(-3, 3, 400)
    steps = np.diff(both.predict(line, raw_score=True)) * direction
    assert (steps >= -1e-12).all()
    assert (steps.max() > 0) == (direction == 1)


def test_amounts_start_from_a_line_too() -> None:
    part = random_rows(20_000)
    amount = np.where(part.answer > 0, np.exp(part.matrix[:, 0]) * 20, 0).astype(np.float32)
    value = heads_of(SETTINGS)["value"]
    part = replace(part, answer=amount)
    (linear,) = fit_linear(part, value, SETTINGS.linear, (0.01,))
    mean = np.full(len(part), np.log(amount.mean()))
    assert score_loss(amount, linear.margin(part.matrix), "value") < score_loss(amount, mean, "value")
    assert np.exp(linear.margin(part.matrix)).mean() == pytest.approx(amount.mean(), rel=0.1)

"""What the inner folds choose: a line under the trees where visitors are few, unless trees alone are surely better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.settings import SettingsError
from tests.training.slices import NAMES, SMALL, made_up
from training.config import load_training
from training.datasets import Slice
from training.heads import heads_of
from training.inner import cross_fit, fit_recipe, surely_less

HEAD = heads_of(SMALL)["conversion"]


def crossed(part: Slice) -> Slice:
    """Answers that follow from two features together and from neither alone."""
    device, channel = (part.column(name) for name in (NAMES[0], NAMES[1]))
    likely = (device == 1) == (channel % 2 == 0)
    random = np.random.default_rng(3)
    return replace(part, answer=(random.random(len(part)) < np.where(likely, 0.6, 0.1)).astype(np.float32))


def test_a_small_log_gets_a_line() -> None:
    part, _ = made_up(400)
    chosen = cross_fit(part, HEAD, SMALL)
    assert chosen.inverse_penalty in SMALL.linear.inverse_penalties
    linear, _ = fit_recipe(part, HEAD, SMALL, chosen)
    assert linear.steps


def test_trees_alone_where_a_line_cannot_say_it() -> None:
    part = crossed(made_up(3000)[0])
    # trees on the line that are too coarse to say it, either
    coarse = SMALL.linear.model_validate({"visitors": 10_000, "lightgbm": {"min_data_in_leaf": len(part)}})
    settings = SMALL.model_copy(update={"linear": coarse})
    chosen = cross_fit(part, HEAD, settings)
    assert chosen.inverse_penalty == 0.0 and chosen.rounds > 0
    assert chosen.applied(settings) is settings
    linear, _ = fit_recipe(part, HEAD, settings, chosen)
    assert not linear.steps
    assert linear.intercept == pytest.approx(float(np.log(part.answer.mean() / (1 - part.answer.mean()))))


def test_many_visitors_are_learned_from_by_trees_alone_unless_the_line_is_surely_better() -> None:
    part, _ = made_up(400)
    many = SMALL.model_copy(update={"linear": SMALL.linear.model_copy(update={"visitors": 10})})
    assert cross_fit(part, HEAD, SMALL).inverse_penalty > 0.0
    assert cross_fit(part, HEAD, many).inverse_penalty == 0.0


def test_a_large_log_gets_none() -> None:
    part, _ = made_up(400)
    none = SMALL.model_copy(update={"linear": SMALL.linear.model_copy(update={"max_rows": len(part) - 1})})
    assert cross_fit(part, HEAD, none).inverse_penalty == 0.0


def test_what_is_tuned_holds_on_a_line_too() -> None:
    settings = SMALL.model_copy(update={"linear": SMALL.linear.model_validate({"lightgbm": {"num_leaves": 4}})})
    assert settings.on_a_line().lightgbm.num_leaves == 4
    tuned = settings.with_lightgbm({"num_leaves": 9})
    assert tuned.on_a_line().lightgbm.num_leaves == tuned.lightgbm.num_leaves == 9


def test_an_unknown_key_of_the_line_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="unknown key 'num_leafs'; allowed there: learning_rate, num_leaves"):
        load_training(overrides=("linear.lightgbm={num_leafs=3}",))


def test_a_difference_counts_by_visitors_and_not_by_rows() -> None:
    """Twenty visitors with fifty rows each are twenty observations."""
    visitor = np.repeat(np.arange(20), 50)
    gain = np.repeat(np.tile([0.08, -0.12], 10), 50)
    assert gain.mean() == pytest.approx(-0.02)
    assert not surely_less(gain, np.zeros_like(gain), visitor)
    assert surely_less(gain, np.zeros_like(gain), np.arange(len(gain)))
    assert not surely_less(np.zeros(5), np.zeros(5), np.arange(5))

"""Shapley values add up to the score, equal their definition, and are told in plain sentences."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import factorial
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from features.definitions import CATALOGUE
from tests.training.slices import fitted, made_up
from training.datasets import Slice
from training.explain import MOST_ROWS, contributions, explain, importance, reason, reason_codes, swarm
from training.findings import Findings
from training.model import HeadModel

Conversion = tuple[HeadModel, Slice, Findings]


@pytest.fixture(scope="module")
def conversion() -> Conversion:
    return fitted("conversion")


@pytest.mark.parametrize("kind", ["conversion", "exit", "value"])
def test_contributions_add_up_to_the_raw_score(kind: str) -> None:
    model, _, found = fitted(kind, 600)
    values, base = contributions(model, found.part.matrix)
    assert values.shape == found.part.matrix.shape
    np.testing.assert_allclose(values.sum(axis=1) + base, model.margin(found.part.matrix), atol=1e-9)


def expected(node: dict[str, Any], row: np.ndarray, known: tuple[int, ...]) -> float:
    """What a tree gives where only some features are known: the others follow the rows that it was grown from."""
    if "leaf_value" in node:
        return float(node["leaf_value"])
    left, right = node["left_child"], node["right_child"]
    if node["split_feature"] in known:
        return expected(left if row[node["split_feature"]] <= node["threshold"] else right, row, known)
    sizes = [child.get("internal_count", child.get("leaf_count")) for child in (left, right)]
    return float(np.average([expected(child, row, known) for child in (left, right)], weights=sizes))


def test_contributions_are_shapley_values_by_their_definition(conversion: Conversion) -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(400, 3)).astype(np.float32)
    answer = (matrix[:, 0] * matrix[:, 1] + matrix[:, 2] > 0).astype(float)
    grown = {"objective": "binary", "num_leaves": 6, "min_data_in_leaf": 10, "verbosity": -1, "num_threads": 1}
    booster = lgb.train(grown, lgb.Dataset(matrix, answer), 3)
    model = replace(conversion[0], booster=booster, names=("one", "two", "three"))
    found, base = contributions(model, matrix[:5])
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    assert base == pytest.approx(sum(expected(tree, matrix[0], ()) for tree in trees))
    for row, values in zip(matrix[:5], found, strict=True):
        for feature in range(3):
            others = [other for other in range(3) if other != feature]
            value = 0.0
            for size in range(3):
                weight = factorial(size) * factorial(2 - size) / factorial(3)
                for known in combinations(others, size):
                    value += weight * sum(expected(t, row, (*known, feature)) - expected(t, row, known) for t in trees)
            assert values[feature] == pytest.approx(value, abs=1e-9)


def test_reasons_are_the_largest_contributions(conversion: Conversion) -> None:
    model, _, found = conversion
    matrix = found.part.matrix[:50]
    values, _ = contributions(model, matrix)
    for row, added, reasons in zip(matrix, values, reason_codes(model, matrix, top=2), strict=True):
        assert [one.feature for one in reasons] == [model.names[at] for at in np.argsort(-np.abs(added))[:2]]
        for one in reasons:
            at = model.names.index(one.feature)
            assert one.contribution == added[at]
            assert one.value == row[at] or np.isnan(one.value)
            assert one.text.endswith("raises the score" if added[at] > 0 else "lowers the score")
            assert f"({one.feature})" in one.text


@pytest.mark.parametrize(
    ("feature", "value", "text"),
    [
        ("idle_seconds", 62.4, "Since the latest event: 62.4 s (idle_seconds)"),
        ("seconds_since_cart", -1.0, "Since something was put in the cart: not yet (seconds_since_cart)"),
        ("seconds_since_cart", 240.0, "Since something was put in the cart: 240 s (seconds_since_cart)"),
        ("device_kind", 2.0, "Device of the latest event: mobile (device_kind)"),
        ("from_campaign", 1.0, "A campaign led here: yes (from_campaign)"),
        ("item_view_share", 0.25, "Product pages among all events: 25 % (item_view_share)"),
        ("visits_before", float("nan"), "Linked visits before this one: unknown (visits_before)"),
        ("revenue", 1234.5, "Value of this session's purchases: 1,234 (revenue)"),
        ("of_my_own", 3.0, "3 (of_my_own)"),
    ],
)
def test_a_reason_says_feature_value_and_direction(feature: str, value: float, text: str) -> None:
    assert reason(feature, value, 0.1).text == f"{text} raises the score"
    assert reason(feature, value, -0.1).text == f"{text} lowers the score"


@pytest.mark.parametrize("feature", list(CATALOGUE.features))
def test_every_feature_can_be_a_reason(feature: str) -> None:
    text = reason(feature, 1.0, 0.1).text
    meaning = text.partition(f" ({feature})")[0]
    assert 10 < len(meaning) < 120 and "\n" not in text


def test_of_many_rows_some_are_explained_and_the_examples_go_from_high_to_low(conversion: Conversion) -> None:
    model, _, _ = conversion
    part, _ = made_up(1200, seed=5)
    score = model.score(part.matrix)
    assert len(part) > MOST_ROWS
    found = explain(model, part, score)
    assert found.values.shape == (MOST_ROWS, len(model.names))
    shown = [one.score for one in found.examples]
    assert shown == sorted(shown, reverse=True) and len(shown) >= 3
    assert all(1 <= len(one.reasons) <= 3 for one in found.examples)
    assert (np.diff(found.importance) <= 0).all()
    assert set(importance(model, part.matrix).head(2).index) == set(found.importance.head(2).index)


def test_of_no_rows_nothing_is_explained(conversion: Conversion) -> None:
    model, _, found = conversion
    none = found.part.take(np.zeros(len(found.part), bool))
    assert reason_codes(model, none.matrix) == []
    told = explain(model, none, np.zeros(0))
    assert told.examples == [] and (told.importance == 0).all()


def test_a_swarm_is_wide_where_rows_are_many_and_knows_what_is_missing(conversion: Conversion) -> None:
    explanation = conversion[2].explanation
    added, offset, rank = swarm(explanation, "visits_before", most=300)
    assert len(added) == len(offset) == len(rank) <= 600
    assert np.abs(offset).max() == pytest.approx(0.4)
    column = explanation.names.index("visits_before")
    step = max(len(explanation.matrix) // 300, 1)
    np.testing.assert_array_equal(np.isnan(rank), np.isnan(explanation.matrix[::step, column]))

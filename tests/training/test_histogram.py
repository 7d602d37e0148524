"""What a model's rows looked like: every row in its bin, and how sure each share is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from features.events import CHANNELS
from training.datasets import Slice
from training.histogram import Histogram, bin_of, drawn, edges_of, spread

START = 1_772_409_600_000


def rows_of(visitor: np.ndarray, answer: np.ndarray | None = None, **columns: np.ndarray) -> Slice:
    """Rows right after the first event of sessions, one a row: as much as a histogram looks at."""
    size = len(visitor)
    number = np.arange(size, dtype=np.int64)
    return Slice(
        name="test",
        names=tuple(columns),
        matrix=np.column_stack([np.asarray(column, np.float32) for column in columns.values()]),
        answer=np.zeros(size, np.float32) if answer is None else np.asarray(answer, np.float32),
        prefix=np.ones(size, np.int32),
        idle_ms=np.zeros(size, np.int64),
        session=number,
        visitor=np.asarray(visitor, np.int64),
        started=START + number,
        now=START + number,
        until=START + number + 1,
        known_at=START + number + 1,
    )


def test_every_row_is_in_one_bin_and_missing_values_are_in_the_last() -> None:
    random = np.random.default_rng(1)
    values = np.where(random.random(5_000) < 0.2, np.nan, random.lognormal(0, 2, 5_000)).astype(np.float32)
    found = spread(values, edges_of(values, 10), np.arange(5_000))
    assert sum(found.shares) == pytest.approx(1)
    assert found.missing == np.isnan(values).mean()
    assert found.shares[0] == 0  # below the smallest
    np.testing.assert_allclose(found.shares[1:-1], 0.08, atol=0.001)  # tenths of what is known
    ends = [-np.inf, *found.edges, np.inf]
    for number, share in enumerate(found.shares[:-1]):
        assert share == pytest.approx(((values > ends[number]) & (values <= ends[number + 1])).mean())


def test_few_values_have_a_bin_each_and_smaller_or_larger_ones_fall_outside() -> None:
    edges = edges_of(np.array([3.0, 0.0, 0.0, 1.0, np.nan], np.float32), 10)
    assert bin_of(np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, np.nan]), edges).tolist() == [0, 1, 2, 3, 3, 4, 5]


def test_a_code_that_was_never_seen_has_a_place_of_its_own() -> None:
    codes = np.array([CHANNELS.index("direct"), CHANNELS.index("social")], np.float32)
    edges = edges_of(codes, 10, codes=True)
    place = bin_of(np.arange(len(CHANNELS)), edges)
    assert len(set(place[: CHANNELS.index("social") + 1].tolist())) == CHANNELS.index("social") + 1
    assert place[CHANNELS.index("email")] == place[CHANNELS.index("referral")] == len(edges)


def test_nothing_but_missing_values_is_a_histogram_too() -> None:
    visitor = np.arange(50)
    found = Histogram.of(rows_of(visitor, price_viewed_last=np.full(50, np.nan)), np.full(50, 0.5))
    assert found.features["price_viewed_last"].shares == (0.0, 1.0)
    assert found.score.shares[1] == 1


def test_shares_are_as_sure_as_their_visitors_are_many() -> None:
    """2,000 rows of 100 visitors who each have one value: the shares vary as those of 100 rows do."""
    random = np.random.default_rng(2)
    visitor = np.repeat(np.arange(100), 20)
    shares, told = [], []
    for _ in range(400):
        values = random.choice([0.0, 1.0], 100, p=[0.8, 0.2])[visitor]
        found = spread(values, (-1e-6, 0.0, 1.0), visitor)
        shares.append(found.shares[1])
        told.append(found.variances[1])
    assert np.var(shares) == pytest.approx(0.8 * 0.2 / 100, rel=0.2)
    assert np.mean(told) == pytest.approx(np.var(shares), rel=0.2)


def test_rows_of_visitors_that_differ_row_by_row_are_as_sure_as_rows() -> None:
    values = np.random.default_rng(3).choice([0.0, 1.0], 20_000, p=[0.8, 0.2])
    found = spread(values, (-1e-6, 0.0, 1.0), np.repeat(np.arange(1_000), 20))
    assert found.variances[1] == pytest.approx(0.8 * 0.2 / 20_000, rel=0.15)


def test_score_bins_know_what_became_of_their_rows() -> None:
    random = np.random.default_rng(4)
    score = random.random(40_000)
    answer = random.random(40_000) < score**2
    found = Histogram.of(rows_of(np.arange(40_000), answer, events=np.ones(40_000)), score)
    assert found.mean_answer == pytest.approx(1 / 3, abs=0.01)
    assert found.mean_answer_error == pytest.approx(np.sqrt(2 / 9 / 40_000), rel=0.02)
    filled = [one for one in found.score_bins if one.rows]
    assert sum(one.rows for one in filled) == 40_000
    for one in filled:
        assert one.mean_answer == pytest.approx(one.mean_score**2, abs=0.04)


def test_a_histogram_travels_as_json() -> None:
    random = np.random.default_rng(5)
    part = rows_of(random.integers(0, 500, 2_000), random.random(2_000) < 0.1, cart_value=random.lognormal(0, 3, 2_000))
    found = Histogram.of(part, random.random(2_000))
    text = found.as_json()
    assert Histogram.from_json(text) == found
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    with pytest.raises(ValueError, match="no histogram of format 1"):
        Histogram.from_json('{"format": 99}')


def test_of_many_rows_whole_visitors_are_drawn() -> None:
    visitor = np.random.default_rng(6).integers(-(2**62), 2**62, 2_000).repeat(10)
    chosen = drawn(visitor, 5_000)
    assert 4_000 < chosen.sum() < 6_000
    assert not set(visitor[chosen].tolist()) & set(visitor[~chosen].tolist())
    assert drawn(visitor, 20_000).all()


def test_no_rows_are_no_histogram() -> None:
    part = rows_of(np.arange(3), events=np.ones(3))
    with pytest.raises(ValueError, match="no rows"):
        Histogram.of(part.take(np.zeros(3, bool)), np.zeros(0))

"""A service without any model, a crowd, and `lotse watch`: what comes in alone brings a champion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cold_start import HOUR_MS, Shop, truth_of
from simulation.crowd import visits_of_shop
from simulation.shop import simulate

FAST = (
    "lightgbm.num_boost_round=60", "lightgbm.learning_rate=0.1", "linear.max_rows=0", "evaluation.resamples=20",
    "split.inner_folds=2", "tables.windows=3",
)  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """One."""
    found = Shop(tmp_path / "work", ["exit"], *FAST)
    yield found
    found.service.stop()


@pytest.mark.slow
def test_the_crowd_alone_brings_a_champion(shop: Shop) -> None:
    assert shop.models() == {}
    now = time.time_ns() // 1_000_000
    first = visits_of_shop(simulate(visitors=6_000, seed=31))
    shop.wave(first, now - 20 * HOUR_MS, now - 12 * HOUR_MS)
    score, truth, before, _ = truth_of(first, "exit")
    assert score == pytest.approx(0.2) and abs(score - truth) > 0.02  # the configured prior
    found = shop.watch()
    assert found["trained"] == {"exit": "1"} and found["sessions"] > 5_500 and not found["alarms"]
    shop.answers_with({"exit": "1"})
    # who comes then is scored by what the others did
    second = visits_of_shop(simulate(visitors=1_500, seed=32))
    shop.wave(second, now - 12 * HOUR_MS, now - 4 * HOUR_MS)
    score, truth, after, _ = truth_of(second, "exit")
    # A session of many events is one drawn row that counts for all of them: six thousand sessions know the rate to two
    # hundredths (1 sigma, over service keys, on which the draw depends), fifteen hundred only to six.
    assert abs(score - truth) < 0.1 and after < before
    # and what becomes of them is held to it; it is too young for another one to be trained
    found = shop.watch("watch.retrain_hours=1")
    assert found["watched"]["exit"]["version"] == "1" and not found["trained"]
    ages = {line["age"]: line for line in found["watched"]["exit"]["by_age"]}
    assert ages["all"]["rows"] > 1_000 and ages["prefix_1"]["lift_10"] > 0

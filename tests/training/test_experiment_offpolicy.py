"""Off-policy estimates: a log of one policy in, the value of another out; on simulated logs and a real one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.offpolicy import FOLDER, POSITIONS, logged_of, read
from features.allocation import Table
from training.experiments.offpolicy import (
    Logged,
    cross_fitted,
    direct,
    doubly_robust,
    ips,
    policy_value,
    snips,
)

ARMS = ("control", "banner")


def simulated(units: int, seed: int, truth_by_score: float = 0.3) -> tuple[Logged, np.ndarray, float]:
    """A log of an adaptive policy, its covariate, and what the other policy is worth."""
    random = np.random.default_rng(seed)
    score = random.random(units)
    truth = np.column_stack([0.1 + truth_by_score * score, 0.25 + 0 * score])
    behaviour = np.column_stack([0.2 + 0.6 * score, 0.8 - 0.6 * score])
    target = np.column_stack([0.9 - 0.8 * score, 0.1 + 0.8 * score])
    arm = (random.random(units) > behaviour[:, 0]).astype(np.int64)
    at = np.arange(units), arm
    outcome = (random.random(units) < truth[at]).astype(float)
    value = float(np.mean([(0.9 - 0.8 * s) * (0.1 + truth_by_score * s) + (0.1 + 0.8 * s) * 0.25 for s in GRID]))
    return Logged(arm, behaviour[at], outcome, target, np.arange(units)), score[:, None], value


GRID = (np.arange(1000) + 0.5) / 1000


def test_estimates_are_near_the_truth_and_the_naive_mean_is_not() -> None:
    logged, covariates, value = simulated(60_000, 0)
    expected = cross_fitted(logged, covariates)
    for one in (ips(logged), snips(logged), doubly_robust(logged, expected)):
        assert one.low < value < one.high
        assert one.value == pytest.approx(value, abs=0.006)
    assert abs(logged.outcome.mean() - value) > 0.02


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    hits = dict.fromkeys(("IPS", "SNIPS", "DR"), 0)
    for seed in range(200):
        logged, covariates, value = simulated(800, seed)
        expected = np.column_stack([0.1 + 0.3 * covariates[:, 0], np.full(len(logged), 0.25)])
        for one in (ips(logged), snips(logged), doubly_robust(logged, expected)):
            hits[one.estimator] += one.low <= value <= one.high
    for name, hit in hits.items():
        assert 0.90 <= hit / 200 <= 0.99, name


def test_a_wrong_model_misleads_the_direct_method_and_not_the_doubly_robust() -> None:
    logged, _, value = simulated(60_000, 1)
    wrong = np.full(logged.target.shape, 0.5)
    assert not direct(logged, wrong).low <= value <= direct(logged, wrong).high
    assert doubly_robust(logged, wrong).low <= value <= doubly_robust(logged, wrong).high


def test_a_good_model_narrows_the_interval() -> None:
    logged, covariates, _ = simulated(5000, 2)
    noise = np.random.default_rng(2).normal(0, 0.1, 5000)
    logged = replace(logged, outcome=1 + np.where(logged.arm == 0, covariates[:, 0], 0.5) + noise)
    robust = doubly_robust(logged, cross_fitted(logged, covariates))
    assert robust.error < 0.3 * ips(logged).error


def test_the_policy_itself_has_the_mean_of_its_log() -> None:
    logged, _, _ = simulated(1000, 3)
    target = np.empty((1000, 2))
    at = np.arange(1000)
    target[at, logged.arm], target[at, 1 - logged.arm] = logged.propensity, 1 - logged.propensity
    itself = replace(logged, target=target)
    for one in (ips(itself), snips(itself)):
        assert one.value == pytest.approx(logged.outcome.mean())
        assert one.effective == pytest.approx(1000)


def test_units_of_one_visitor_count_as_one() -> None:
    logged, _, _ = simulated(500, 4)
    twice = Logged(*(np.concatenate([value, value]) for value in vars(logged).values()))
    apart = replace(twice, cluster=np.arange(1000))
    assert ips(twice).error == pytest.approx(ips(logged).error, rel=0.01)
    assert ips(apart).error == pytest.approx(ips(logged).error / np.sqrt(2), rel=0.01)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"propensity": np.zeros(10)}, "a propensity outside"),
        ({"outcome": np.full(10, np.nan)}, "an outcome is missing"),
        ({"target": np.ones((10, 2))}, "do not sum to 1"),
    ],
)
def test_a_log_that_cannot_be_weighed_is_refused(changed: dict[str, np.ndarray], said: str) -> None:
    logged, _, _ = simulated(10, 5)
    with pytest.raises(ValueError, match=said):
        replace(logged, **changed)


def units_table(units: int, seed: int) -> pd.DataFrame:
    """A table of units of an experiment whose banner helps those with a high exit score."""
    random = np.random.default_rng(seed)
    score, held = random.random(units), random.random(units) < 0.2
    share = 0.5
    banner = random.random(units) < share
    rate = np.where(banner, 0.05 + 0.3 * score, 0.2)
    return pd.DataFrame(
        {
            "arm": np.where(banner, "banner", "control"), "propensity": 0.5, "holdback": held, "forced": False,
            "visitor": np.arange(units), "exit": score, "bounce": np.nan, "conversion": 0.1, "age_events": 2,
            "age_seconds": 8.0, "purchases": (random.random(units) < rate).astype(float),
        }
    )  # fmt: skip


def test_an_allocation_that_targets_by_risk_is_valued_before_it_runs() -> None:
    units = units_table(20_000, 8)
    units.loc[:99, "purchases"] = np.nan
    units.loc[100:149, "forced"] = True
    table = Table(ARMS, (0.5,), [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], (0.5, 0.5), holdback=0.2)
    found = policy_value(units, ARMS, "purchases", table, "exit").set_index("estimator")
    best = 0.5 * 0.2 + 0.5 * (0.05 + 0.3 * 0.75)
    even = 0.5 * 0.2 + 0.5 * (0.05 + 0.3 * 0.5)
    value = 0.8 * best + 0.2 * even
    assert list(found.index) == ["logged", "IPS", "SNIPS", "DR"]
    assert (found["units"] == 19_850).all()
    assert found.loc["logged", "low"] < even < found.loc["logged", "high"]
    for name in ("IPS", "SNIPS", "DR"):
        assert found.loc[name, "low"] < value < found.loc[name, "high"]
        assert found.loc[name, "low"] > found.loc["logged", "high"]


def test_few_units_are_not_told_of() -> None:
    table = Table(ARMS, (), [[0.5, 0.5], [0.5, 0.5]], (0.5, 0.5), holdback=0)
    with pytest.raises(ValueError, match="49 units with a known 'purchases'; an estimate needs 50"):
        policy_value(units_table(49, 7), ARMS, "purchases", table, None)


@pytest.mark.parametrize("campaign", ["men", "women"])
def test_uniform_policy_from_the_log_of_the_other_on_open_bandit_data(campaign: str) -> None:
    """10,000 impressions assigned by Thompson sampling tell what an even split brought in its own log, within the
    intervals of both."""
    log, own = read(FOLDER, "bts", campaign), read(FOLDER, "random", campaign)["click"]
    arms = int(log["item_id"].max()) + 1
    logged, covariates = logged_of(log, np.full((POSITIONS, arms), 1 / arms))
    found = doubly_robust(logged, cross_fitted(logged, covariates))
    both = np.hypot(found.error, own.std() / np.sqrt(len(own)))
    assert abs(found.value - own.mean()) < 2.5 * both
    assert found.effective < 0.2 * len(log)

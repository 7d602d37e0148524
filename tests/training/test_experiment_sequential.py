"""Looking after every unit: no more false alarms than promised, and what is planted is found; the full runs are in
`benchmarks/experiments.py`, whose vectorised statistic is held here to the one that is reported."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from benchmarks.experiments import OUTCOMES, adjusted_z, false_positives, running_z
from features.judging.rails import guard
from features.judging.ratio import sequential_p
from features.judging.sequential import always_valid_p, critical_value, one_sided_critical_value
from tests.training.units import experiment, made_up, units
from training.experiments.effects import effects
from training.experiments.srm import sample_ratios
from training.experiments.verdicts import judge


@pytest.mark.parametrize(("size", "share", "rate"), [(3_000, 0.5, 0.1), (4_000, 0.05, 0.02), (400, 0.5, 0.02)])
def test_the_simulated_statistic_is_the_one_that_is_reported(size: int, share: float, rate: float) -> None:
    table = made_up(size, 0.1, share=share, rate=rate, seed=5)
    found = units(table)
    (effect,) = effects(found, found.definition.goals[0], adjust=False)
    assert effect is not None
    banner, outcome = (table["arm"] == "banner").to_numpy()[None], table["purchases"].to_numpy()[None]
    z, effective = running_z(banner, outcome)
    assert z[0, -1] == pytest.approx(effect.z, rel=1e-3)
    assert effective[0, -1] == pytest.approx(effect.effective_units)
    if share == 0.5 and size > 1_000:
        (adjusted,) = effects(found, found.definition.goals[0])
        z, _ = adjusted_z(banner, outcome, table["conversion"].to_numpy()[None])
        assert adjusted is not None and z[0, -1] == pytest.approx(adjusted.z, rel=0.02)


@pytest.mark.parametrize("share", [0.5, 0.05])
@pytest.mark.parametrize("outcome", ["rate 2 %", "revenue, 2 % buy"])
def test_a_a_tests_looked_at_after_every_unit_are_wrong_in_at_most_one_of_twenty(outcome: str, share: float) -> None:
    wrong, naive = false_positives(OUTCOMES[outcome], share, runs=200, size=5_000, planned=3_000)
    assert wrong <= 0.05
    assert naive > 0.1


def test_a_planted_tenth_is_found_and_mostly_early() -> None:
    random = np.random.default_rng(3)
    banner = random.random((50, 60_000)) < 0.5
    outcome = (random.random(banner.shape) < np.where(banner, 0.11, 0.1)) * 1.0
    z, effective = running_z(banner, outcome)
    found = np.abs(z) > critical_value(effective, 29_500, 0.05)
    assert found.any(axis=1).mean() > 0.8
    assert np.median(np.where(found.any(axis=1), found.argmax(axis=1), 60_000)) < 40_000


def test_one_sided_bounds_hold_for_brownian_motion() -> None:
    random = np.random.default_rng(0)
    steps = np.arange(1, 3_001)
    path = np.cumsum(random.standard_normal((1_000, len(steps))), axis=1)
    boundary = one_sided_critical_value(steps, 1_000, 0.05) * np.sqrt(steps)
    assert 0.01 < (path > boundary).any(axis=1).mean() <= 0.05


def test_p_and_interval_say_the_same() -> None:
    for size in (100, 1_000, 50_000):
        edge = float(critical_value(size, 10_000, 0.05))
        assert (
            always_valid_p(edge * 1.001, size, 10_000, 0.05) < 0.05 < always_valid_p(edge * 0.999, size, 10_000, 0.05)
        )
    assert always_valid_p(0.0, 100, 10_000, 0.05) == 1.0


@pytest.mark.parametrize(
    ("lift", "better", "state"),
    [(0.0, "higher", "ok"), (-0.5, "higher", "broken"), (-0.2, "higher", "watch"), (0.5, "lower", "broken"),
     (-0.5, "lower", "ok")],
)  # fmt: skip
def test_a_guardrail_is_broken_ok_or_not_known_yet(lift: float, better: str, state: str) -> None:
    goal = {"name": "purchase", "column": "purchases", "primary": True, "better": better}
    definition = experiment(goals=[goal], guardrails=[{"goal": "purchase", "worst": -0.2}])
    found = units(made_up(20_000, lift), definition)
    (effect,) = effects(found, definition.goals[0])
    rail = guard(definition.guardrails[0], effect, "banner", definition)
    assert rail.state == state
    assert rail.low is not None and rail.high is not None and rail.low < (rail.lift or 0) < rail.high
    assert guard(definition.guardrails[0], None, "banner", definition).state == "watch"


def test_a_lost_hundredth_of_an_arm_raises_the_alarm() -> None:
    counts = [750_000, 742_500]
    assert chisquare(counts).pvalue < 0.001
    table = made_up(60_000, seed=1)
    random = np.random.default_rng(1)
    assert not any(one.alarm for one in sample_ratios(units(table)))
    lost = table[(table["arm"] == "control") | (random.random(len(table)) > 0.06)]
    (alarm,) = sample_ratios(units(lost))
    assert alarm.alarm and alarm.p < 0.001
    assert sequential_p(np.array(counts), np.array([0.5, 0.5])) < 0.001


def test_a_million_and_a_half_units_with_a_hundredth_lost_raise_it_through_the_table() -> None:
    table = made_up(1_500_000, seed=1)
    assert not sample_ratios(units(table))[0].alarm
    lost = table[(table["arm"] == "control") | (np.random.default_rng(1).random(len(table)) > 0.01)]
    assert sample_ratios(units(lost))[0].alarm


def test_each_phase_and_the_holdback_are_checked_by_their_own_shares() -> None:
    table = made_up(40_000, phases=2)
    second = table["phase"] == 2
    random = np.random.default_rng(2)
    holdback = random.random(len(table)) < 0.2
    share = np.where(holdback, 0.5, np.where(second, 0.8, 0.4))
    banner = random.random(len(table)) < share
    table = table.assign(arm=np.where(banner, "banner", "control"), holdback=holdback,
                         propensity=np.where(banner, share, 1 - share))  # fmt: skip
    ratios = sample_ratios(units(table))
    assert [(one.phase, one.holdback) for one in ratios] == [(1, False), (1, True), (2, False), (2, True)]
    assert not any(one.alarm for one in ratios)
    lost = table[~second | holdback | banner | (random.random(len(table)) > 0.2)]
    assert [one.alarm for one in sample_ratios(units(lost))] == [False, False, True, False]


def test_units_with_propensities_of_their_own_are_checked_by_them() -> None:
    random = np.random.default_rng(4)
    table = made_up(40_000)
    share = random.uniform(0.2, 0.8, len(table))
    banner = random.random(len(table)) < share
    table = table.assign(arm=np.where(banner, "banner", "control"), propensity=np.where(banner, share, 1 - share))
    (sound,) = sample_ratios(units(table))
    assert sound.p > 0.01 and np.isnan(sound.always_valid_p)
    (alarm,) = sample_ratios(units(table[~banner | (random.random(len(table)) > 0.08)]))
    assert alarm.alarm


def test_an_arm_without_any_unit_is_an_alarm() -> None:
    table = made_up(1_000)
    (ratio,) = sample_ratios(units(table[table["arm"] == "control"]))
    assert ratio.alarm and ratio.small


def test_intervals_hold_the_planted_lift_about_as_often_as_they_say() -> None:
    definition = experiment(planned_units=3_000)
    single = always = 0
    for seed in range(200):
        (effect,) = effects(units(made_up(3_000, 0.1, seed=seed), definition), definition.goals[0])
        assert effect is not None
        result = judge(effect, None, definition)
        single += result.fixed_low <= 0.1 <= result.fixed_high
        always += result.low <= 0.1 <= result.high
    assert 0.91 <= single / 200 <= 0.99
    assert always / 200 >= 0.98

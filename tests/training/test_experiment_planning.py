"""Planning from history: what is planned is what is then found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.experiments import running_z
from features.errors import EventError
from tests.training.test_experiment_report import run
from tests.training.units import made_up
from training.experiments.planning import Baseline, baseline_of, plan, sequential_cost


def test_history_says_rate_traffic_and_what_the_scores_know() -> None:
    table = made_up(28_000, days=14, tells=0.5)
    found = baseline_of(table, "purchases")
    assert found.mean == pytest.approx(0.1, abs=0.01) and found.units_per_day == pytest.approx(2_000, rel=0.01)
    known = table[["conversion", "purchases"]].corr().iloc[0, 1] ** 2
    assert found.known == pytest.approx(known, abs=0.005) and found.design_effect == 1.0


def test_visitors_with_several_units_make_it_longer_where_visitors_are_assigned() -> None:
    table = made_up(30_000, tells=0.2, sessions_a_visitor=5, by_visitor=True)
    found = baseline_of(table, "purchases", by_visitor=True)
    within = table.groupby("visitor")["purchases"].mean().var() * 5 / table["purchases"].var()
    assert found.design_effect == pytest.approx(within, rel=0.03) and found.design_effect > 1.5
    assert baseline_of(table, "purchases").design_effect == 1.0


def test_planned_units_find_the_planned_lift_with_the_planned_power() -> None:
    baseline = Baseline(1_000, 10, 0.1, 0.3, 3_000, 0.0, 1.0)
    (needed,) = plan(baseline, [0.2]).needed
    random = np.random.default_rng(0)
    shape = (400, needed.units)
    banner = random.random(shape) < 0.5
    outcome = (random.random(shape) < np.where(banner, 0.12, 0.1)) * 1.0
    z, _ = running_z(banner, outcome)
    assert (z[:, -1] > 1.96).mean() == pytest.approx(0.78, abs=0.05)  # the variance of 12 % is above that of 10 %
    assert needed.days == pytest.approx(needed.units / 3_000)
    assert needed.units < needed.sequential_units < 2 * needed.units


def test_more_arms_goals_power_or_less_traffic_take_longer_and_scores_shorten() -> None:
    baseline = Baseline(1_000, 10, 0.1, 0.3, 1_000, 0.0, 1.0)
    days = plan(baseline, [0.1]).needed[0].days
    assert plan(baseline, [0.1], arms=3).needed[0].days > 1.5 * days
    assert plan(baseline, [0.1], goals=2).needed[0].days > days
    assert plan(baseline, [0.1], power=0.9).needed[0].days > days
    assert plan(baseline, [0.1], traffic=0.5).needed[0].days == pytest.approx(2 * days)
    known = Baseline(1_000, 10, 0.1, 0.3, 1_000, 0.25, 1.0)
    assert plan(known, [0.1]).needed[0].days == pytest.approx(0.75 * days, rel=0.001)


def test_what_a_duration_finds_takes_that_duration() -> None:
    baseline = Baseline(1_000, 10, 0.1, 0.3, 1_000, 0.0, 1.0)
    found = plan(baseline, [0.1])
    for line in found.found:
        (needed,) = plan(baseline, [line.lift]).needed
        assert needed.days == pytest.approx(7 * line.weeks, rel=0.001)
        assert line.sequential_lift > line.lift


def test_looking_all_the_time_costs_units_and_saves_time() -> None:
    cost = sequential_cost(0.05, 0.9)
    assert cost.median < 0.85 and cost.mean < 1 < cost.at_power


def test_a_history_that_says_nothing_is_refused() -> None:
    with pytest.raises(EventError, match="no column 'bought'"):
        baseline_of(made_up(100), "bought")
    with pytest.raises(EventError, match="40 units says too little"):
        baseline_of(made_up(40), "purchases")
    with pytest.raises(EventError, match="nothing can be planned"):
        baseline_of(made_up(100).assign(purchases=0.0), "purchases")


def test_the_verb_plans_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "units.csv"
    made_up(20_000).rename(columns={"exposed_at": "at"}).to_csv(path)
    options = ("plan", "--table", path, "--goal", "purchases", "--column", "exposed_at=at", "--arm", "control")
    tree = json.loads(run(*options, "--lift", 0.1, "--json"))
    assert tree["baseline"]["units_per_day"] == pytest.approx(20_000 / 14, rel=0.01)  # both arms are traffic
    assert tree["baseline"]["units"] == pytest.approx(10_000, rel=0.05)
    (needed,) = tree["needed"]
    text = run(*options, "--lift", 0.1)
    assert f"{needed['units']:,}" in text and f'"planned_units": {needed["units"]}' in text
    assert pd.read_csv(path)["arm"].nunique() == 2

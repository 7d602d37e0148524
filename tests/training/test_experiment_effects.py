"""Effects of arms: what is planted is found, beside scipy; phases, propensities, clusters and scores do what they
promise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from features.errors import EventError
from features.experiments import Goal
from features.judging.effects import Effect
from tests.training.units import experiment, made_up, units
from training.experiments.bayes import beliefs
from training.experiments.effects import effects
from training.experiments.srm import sample_ratios
from training.experiments.table import units_of


def effect_of(table: pd.DataFrame, *, adjust: bool = False, **changed: object) -> Effect:
    found = units(table, experiment(**changed))
    (effect,) = effects(found, found.definition.goals[0], adjust=adjust)
    assert effect is not None
    return effect


def test_an_effect_without_more_is_that_of_a_t_test() -> None:
    table = made_up(20_000, 0.2, share=0.3)
    effect = effect_of(table)
    banner, control = (table.loc[table["arm"] == arm, "purchases"] for arm in ("banner", "control"))
    expected = ttest_ind(banner, control, equal_var=False)
    assert effect.difference == pytest.approx(banner.mean() - control.mean())
    assert effect.z == pytest.approx(expected.statistic, rel=2e-3)
    assert (effect.units, effect.control_units) == (len(banner), len(control))
    assert effect.effective_units == pytest.approx(4 / (1 / len(banner) + 1 / len(control)))


def test_a_small_arm_that_has_seen_nothing_yet_is_not_sure_of_it() -> None:
    """None of 60 bought where one in fifty does: no surprise, though the arm by itself knows no variance."""
    table = made_up(3_000, rate=0.02, share=0.02, seed=3)
    banner = table["arm"] == "banner"
    table.loc[banner, "purchases"] = 0.0
    assert banner.sum() >= 50
    assert abs(effect_of(table).z) < 2


def test_changed_shares_do_not_pass_for_an_effect() -> None:
    """Simpson: the banner got most units when few bought, and does nothing."""
    early, late = made_up(20_000, rate=0.2, share=0.1, seed=1), made_up(20_000, rate=0.05, share=0.9, seed=2)
    late["phase"], late["unit"] = 2, late["unit"] + len(early)
    table = pd.concat([early, late], ignore_index=True)
    means = table.groupby("arm")["purchases"].mean()
    assert means["banner"] / means["control"] - 1 < -0.5
    effect = effect_of(table)
    assert abs(effect.z) < 2 and abs(effect.lift) < 0.1
    assert effect.phases == 2 and effect.differ_p > 0.05


def test_propensities_undo_an_allocation_by_risk() -> None:
    """Who is likely to buy mostly gets the banner, which does nothing."""
    random = np.random.default_rng(5)
    table = made_up(40_000, tells=0.5)
    share = np.where(table["conversion"] > 0.1, 0.8, 0.2)
    banner = random.random(len(table)) < share
    table["arm"] = np.where(banner, "banner", "control")
    table["propensity"] = np.where(banner, share, 1 - share)
    means = table.groupby("arm")["purchases"].mean()
    assert means["banner"] / means["control"] > 2
    for adjust in (False, True):
        assert abs(effect_of(table, adjust=adjust).z) < 2


def test_visitors_with_several_units_count_once() -> None:
    table = made_up(10_000, 0.1)
    twice = pd.concat([table, table.assign(unit=table["unit"] + len(table))], ignore_index=True)
    one, both = effect_of(table), effect_of(twice)
    assert both.error == pytest.approx(one.error, rel=0.01)
    alone = effect_of(twice.assign(visitor=np.arange(len(twice))))
    assert alone.error == pytest.approx(one.error / np.sqrt(2), rel=0.01)


@pytest.mark.parametrize("tells", [2.0, 0.5, 0.2])
def test_scores_take_away_what_they_know(tells: float) -> None:
    """Theory: the squared correlation of score and outcome within arms."""
    table = made_up(40_000, 0.1, tells=tells)
    known = np.mean([part[["conversion", "purchases"]].corr().iloc[0, 1] ** 2 for _, part in table.groupby("arm")])
    bare, adjusted = effect_of(table), effect_of(table, adjust=True)
    assert adjusted.narrowed == pytest.approx(known, abs=0.01)
    assert (adjusted.error / bare.error) ** 2 == pytest.approx(1 - known, abs=0.01)
    assert np.isnan(bare.narrowed)


def test_scores_that_are_missing_or_say_nothing_do_no_harm() -> None:
    table = made_up(5_000, 0.1)
    plain = effect_of(table, adjust=True)
    table["bounce"] = 0.3
    table.loc[::3, "conversion"] = np.nan
    assert effect_of(table, adjust=True).difference == pytest.approx(plain.difference, abs=plain.error)
    table["conversion"] = np.nan
    found = effect_of(table, adjust=True)
    assert found.difference == pytest.approx(effect_of(table).difference)


def test_scores_that_say_the_same_count_once() -> None:
    table = made_up(5_000, 0.1)
    one = effect_of(table, adjust=True)
    both = effect_of(table.assign(exit=1 - table["conversion"]), adjust=True)
    assert both.difference == pytest.approx(one.difference) and both.error == pytest.approx(one.error)
    assert effect_of(table.assign(conversion=0.5), adjust=True).error == pytest.approx(effect_of(table).error)


def test_a_score_that_is_the_same_for_all_of_one_arm_does_no_harm() -> None:
    """Where bounce is decided for all but a few units, these may all be of one arm."""
    table = made_up(8_000, 0.2)
    banner = np.flatnonzero(table["arm"] == "banner")
    table["bounce"], table["exit"] = 0.0, 1 - table["conversion"]
    table.loc[banner[:5], "bounce"] = 0.7
    effect, plain = effect_of(table, adjust=True), effect_of(table.assign(bounce=0.0, exit=np.nan), adjust=True)
    assert (effect.difference, effect.error) == pytest.approx((plain.difference, plain.error))


def test_units_of_unknown_outcome_are_left_out() -> None:
    table = made_up(4_000)
    table.loc[:999, "purchases"] = np.nan
    effect = effect_of(table)
    assert effect.units + effect.control_units == 3_000


def test_fewer_than_fifty_units_have_no_effect() -> None:
    found = units(made_up(95))
    assert effects(found, found.definition.goals[0]) == [None]


def test_an_arm_that_came_later_is_compared_in_its_phases() -> None:
    first, second = made_up(4_000, seed=1), made_up(4_000, 0.5, seed=2)
    second["phase"], second["unit"] = 2, second["unit"] + 4_000
    second["arm"] = second["arm"].replace("banner", "offer")
    definition = experiment(arms=["control", "banner", "offer"])
    found = units(pd.concat([first, second], ignore_index=True), definition)
    banner, offer = effects(found, definition.goals[0])
    assert banner and offer and banner.phases == offer.phases == 1
    assert banner.units + banner.control_units == offer.units + offer.control_units == 4_000
    assert offer.lift > 0.2 > banner.lift


@given(
    control=st.floats(0.01, 10), lift=st.floats(-0.9, 3), error=st.floats(0.001, 0.5), other=st.floats(0.001, 0.5),
    critical=st.floats(1, 6),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_the_lifts_interval_leaves_out_zero_when_the_differences_does(
    control: float, lift: float, error: float, other: float, critical: float
) -> None:
    covariance = np.diag([error * control, other * control]) ** 2
    effect = Effect(Goal(name="a"), "b", 99, 99, control * (1 + lift), control, covariance, 99, 1, np.nan, np.nan)
    low, high = effect.lift_interval(critical)
    assert low <= effect.lift <= high
    from_zero, to_zero = effect.difference_interval(critical)
    if np.isfinite(low) and min(abs(from_zero), abs(to_zero)) > 1e-9:
        assert (low <= 0 <= high) == (from_zero <= 0 <= to_zero)


def test_beliefs_shrink_and_agree_with_the_exact_posterior_where_the_prior_is_flat() -> None:
    table = made_up(20_000, 0.1, seed=8)
    effect = effect_of(table)
    (held,) = beliefs([effect], 0.05)
    (flat,) = beliefs([effect], 0.05, prior_sd=100.0)
    assert held and flat and abs(held.lift) < abs(flat.lift)
    assert flat.lift == pytest.approx(effect.lift, rel=1e-3)
    random = np.random.default_rng(0)
    posterior = {
        arm: random.beta(1 + part["purchases"].sum(), 1 + (1 - part["purchases"]).sum(), 200_000)
        for arm, part in table.groupby("arm")
    }
    better = (posterior["banner"] > posterior["control"]).mean()
    loss = np.maximum(1 - posterior["banner"] / posterior["control"], 0).mean()
    assert flat.better == pytest.approx(better, abs=0.01)
    assert flat.loss == pytest.approx(loss, abs=0.001)
    assert flat.best == pytest.approx(flat.better, abs=0.01)


def test_a_goal_of_which_less_is_better_is_believed_the_other_way_round() -> None:
    table = made_up(20_000, -0.3, seed=8)
    goal = {"name": "purchase", "column": "purchases", "primary": True}
    (more,), (less,) = (
        beliefs([effect_of(table, goals=[goal | {"better": better}])], 0.05) for better in ("higher", "lower")
    )
    assert more and less and less.better == pytest.approx(1 - more.better)
    assert less.better > 0.99 and less.loss < more.loss


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arm": "blue"}, "does not have: blue; it has control, banner"),
        ({"propensity": 0.0}, "above 0; found 0"),
        ({"unit": 7}, "99 rows are of units that are there already"),
        ({"purchases": 2.0}, "is binary, but 2 is in it"),
        ({"experiment": "other"}, "no unit of the experiment 'banner'"),
    ],
)
def test_a_table_that_cannot_be_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(EventError, match=says):
        units(made_up(100).assign(**change))


def test_a_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(EventError, match="no column 'purchases'; it has experiment, phase"):
        units(made_up(100).drop(columns="purchases"))
    with pytest.raises(EventError, match="unknown column 'variant'; ours are"):
        units_of(made_up(100), "banner", experiment(), {"variant": "arm"})


def test_forced_units_are_left_out_and_others_stand_in_their_order() -> None:
    table = made_up(1_000).sample(frac=1, random_state=0).reset_index(drop=True)
    table.loc[:99, "forced"] = True
    found = units(table)
    assert (len(found), found.forced) == (900, 100)
    assert found.timed and found.frame["exposed_at"].is_monotonic_increasing
    assert found.scored == ("conversion",)


def test_units_before_and_after_an_arm_was_closed_are_compared_apart() -> None:
    """The chat does nothing and was given while many bought only; who would get it later is in the control."""
    random, parts = np.random.default_rng(2), []
    for closed, rate, shares in ((0, 0.3, [0.4, 0.3, 0.3]), (1, 0.1, [0.7, 0.3, 0.0])):
        arm = random.choice(3, 6_000, p=shares)
        part = made_up(6_000).assign(closed=closed, arm=np.array(["control", "banner", "chat"])[arm])
        part["propensity"], part["purchases"] = np.array(shares)[arm], (random.random(6_000) < rate) * 1.0
        parts.append(part.assign(unit=part["unit"] + 6_000 * closed, visitor=part["visitor"] + 6_000 * closed))
    table = pd.concat(parts, ignore_index=True)
    definition = experiment(arms=["control", "banner", "chat"], shares=[0.4, 0.3, 0.3])
    for adjust in (False, True):
        banner, chat = effects(units(table, definition), definition.goals[0], adjust=adjust)
        assert banner is not None and chat is not None
        assert abs(banner.z) < 3 and abs(chat.z) < 3
        assert (banner.phases, chat.phases) == (2, 1)
    ratios = sample_ratios(units(table, definition))
    assert [(one.closed, one.alarm, one.small) for one in ratios] == [(0, False, False), (1, False, False)]
    blind = effects(units(table.drop(columns="closed"), definition), definition.goals[0], adjust=False)
    assert blind[1] is not None and blind[1].z > 5

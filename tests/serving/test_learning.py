"""Closed sessions in, tables and stopped arms out: real sessions, handed on as Parquet files, read by the learner."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from features.experiments import CLOSED_SHIFT, HOLDBACK
from tests.serving.shop import ARMS, HOUR, NOW, Shop

BETTER = {"control": 0.1, "banner": 0.3, "chat": 0.1}


def test_the_better_arm_is_given_more_from_the_next_period_on(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    before = shop.sessions(NOW, 900, BETTER)
    assert shop.shares(before) == pytest.approx([1 / 3] * 3, abs=0.07)
    assert shop.learned(NOW + 50 * 60_000).tables[-1].bins[0] == pytest.approx([1 / 3] * 3)  # not settled yet
    learned = shop.learned(NOW + HOUR + 50 * 60_000)
    assert learned.units == [sum(arm == one for arm in before.values()) for one in learned.arms]
    begins = [one.from_ms for one in learned.tables]
    assert begins == [NOW + HOUR, NOW + 2 * HOUR]
    assert learned.tables[-1].bins[0][1] > 0.8 and min(learned.tables[-1].bins[0]) >= 0.05
    # until the period ends the old table holds, in every worker; then the new one, except in the holdback
    standing = shop.engine.experiments.standings["offer"]
    assert standing.table(NOW + 2 * HOUR - 1).of() == pytest.approx([1 / 3] * 3)
    assert standing.table(NOW + 2 * HOUR).of() == pytest.approx(learned.tables[-1].bins[0])
    after = shop.sessions(NOW + 2 * HOUR, 600, BETTER)
    assert shop.shares(after)[1] == pytest.approx(0.2 / 3 + 0.8 * learned.tables[-1].bins[0][1], abs=0.07)


def test_propensities_are_those_of_the_table_that_held(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.sessions(NOW, 600, BETTER)
    bins = shop.learned(NOW + HOUR + 50 * 60_000).tables[-1].bins[0]
    shop.sessions(NOW + 2 * HOUR, 300, BETTER)
    units = shop.units()
    assert set(units["phase"]) == {1} and len(units) == 900
    for early, shares in ((True, [1 / 3] * 3), (False, bins)):
        rows = units[(units["exposed_at"] < NOW + HOUR) == early]
        for place, arm in enumerate(ARMS):
            for held in (False, True):
                found = rows[(rows["arm"] == arm) & (rows["holdback"] == held)]["propensity"]
                expected = 1 / 3 if held else shares[place]
                assert len(found) == 0 or found.to_numpy() == pytest.approx(expected, abs=1e-6)


def test_outcomes_that_come_late_are_counted_when_they_come(tmp_path: Path) -> None:
    """Sessions of the period that go on for hours; the others were counted meanwhile."""
    shop = Shop(tmp_path)
    shop.sessions(NOW, 300, BETTER)
    slow = shop.sessions(NOW + 60_000, 300, {}, closes=False)
    early = shop.learned(NOW + HOUR + 40 * 60_000)
    assert early.tables[-1].bins[0][1] > 0.4 and sum(count or 0 for count in early.units) == 300
    for third in range(1, 8):  # they go on and on, and have bought nothing
        shop.stay(NOW + third * HOUR // 3, slow)
    shop.close(NOW + 3 * HOUR)
    late = shop.learned(NOW + 4 * HOUR)
    assert sum(count or 0 for count in late.units) == 600
    state, anew = shop.state(NOW + 5 * HOUR), shop.anew().state(NOW + 5 * HOUR)
    assert state.units == 600 and state == anew


def test_files_are_read_once_and_again_when_they_are_others(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.sessions(NOW, 400, BETTER)
    (path,) = shop.engine.closed._files()
    os.utime(path.parent, (1e9, 1e9))  # nothing has changed in the folder of late
    first = shop.learned(NOW + 4 * HOUR)
    whole, status = path.read_bytes(), path.stat()
    with path.open("r+b") as file:  # another content, and nothing by which one could see it
        file.write(b"x" * len(whole))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert shop.learned(NOW + 4 * HOUR) == first
    shop.learner = shop.new_learner()  # a restart goes by what was counted, too
    assert shop.learned(NOW + 4 * HOUR) == first
    path.with_name("beside").write_bytes(whole)
    path.with_name("beside").replace(path)
    assert shop.learned(NOW + 4 * HOUR) == first
    path.write_bytes(whole[:100])
    path.rename(path.with_name("broken.parquet"))
    assert shop.learned(NOW + 4 * HOUR).units == [None] * 3
    path.with_name("broken.parquet").unlink()
    path.write_bytes(whole)
    assert shop.learned(NOW + 4 * HOUR) == first


def test_who_is_erased_is_counted_no_longer(tmp_path: Path) -> None:
    shop = Shop(tmp_path, guardrails=[{"goal": "purchase"}])
    shop.sessions(NOW, 300, BETTER)
    shop.sessions(NOW + HOUR, 300, BETTER)
    before = shop.learned(NOW + 4 * HOUR)
    rows = [row for row in shop.rows() if row["purchases"]][::2]
    assert shop.engine.closed.erase({row["visitor"] for row in rows}) == len(rows) > 10
    after = shop.learned(NOW + 4 * HOUR)
    assert sum(count or 0 for count in before.units) - sum(count or 0 for count in after.units) == len(rows)
    anew = shop.anew().learned(NOW + 4 * HOUR)
    assert (after.units, after.ratio_p) == (anew.units, anew.ratio_p)
    for one, other in zip(after.guardrails, anew.guardrails, strict=True):
        assert (one.lift, one.low, one.high) == pytest.approx((other.lift, other.low, other.high))
    # a day that is gone, too
    for path in shop.engine.closed._files():
        path.unlink()
    assert shop.learned(NOW + 4 * HOUR).units == [None] * 3


def test_whom_a_person_put_there_and_other_phases_do_not_count(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    arms = shop.sessions(NOW, 200, BETTER)
    shop.force(NOW + 60_000, 60, "banner")
    learned = shop.learned(NOW + 4 * HOUR)
    assert learned.units == [sum(arm == one for arm in arms.values()) for one in learned.arms]
    shop.define(phase=2)
    empty = shop.learned(NOW + 4 * HOUR)
    assert empty.units == [None] * 3 and empty.phase == 2
    assert shop.state(NOW + 9 * HOUR).units == 0
    assert empty.tables[-1].bins[0] == pytest.approx([1 / 3] * 3)
    assert shop.engine.experiments.standings["offer"].from_ms(NOW + 4 * HOUR) == 0  # not the old table
    later = shop.sessions(NOW + 5 * HOUR, 200, BETTER)
    assert shop.learned(NOW + 9 * HOUR).units == [sum(arm == one for arm in later.values()) for one in learned.arms]
    # back to what there was: nothing was lost
    shop.define(phase=1)
    assert shop.learned(NOW + 9 * HOUR).units == learned.units


def test_another_definition_of_the_phase_is_counted_anew(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.sessions(NOW, 300, BETTER)
    assert sum(shop.state(NOW + 4 * HOUR).by_period()[NOW].total.sum(axis=0)) < 100
    shop.define(goals=[{"name": "events", "kind": "numeric", "primary": True}])
    state = shop.state(NOW + 4 * HOUR)
    assert state.units == 300 and state.by_period()[NOW].square.sum() > 0
    shop.define(allocation={"name": "contextual", "score": "exit", "edges": [0.1], "settle_minutes": 30})
    assert shop.state(NOW + 4 * HOUR).by_period()[NOW].units.sum(axis=1).tolist() == [0, 300, 0]


def test_visitors_learn_from_the_session_of_the_exposure(tmp_path: Path) -> None:
    """What they do later is the report's business: nothing has to be kept of anybody to wait for it."""
    shop = Shop(tmp_path, unit="visitor")
    linked = ["measure", "link"]
    arms = shop.sessions(NOW, 200, {"banner": 1.0}, consent=linked)
    shop.again(NOW + 3 * HOUR, arms, linked)
    assert len(shop.rows()) == 400
    state = shop.state(NOW + 9 * HOUR)
    counts = [sum(arm == one for arm in arms.values()) for one in ARMS]
    assert list(state.by_period()) == [NOW]
    assert state.by_period()[NOW].units.sum(axis=0).tolist() == counts
    assert state.by_period()[NOW].total.sum(axis=0).tolist() == [0, counts[1], 0]
    assert shop.units()["purchases"].sum() == 200  # a report has both sessions of each


def test_a_closed_arm_goes_to_the_control_and_nobody_else_changes(tmp_path: Path) -> None:
    """Arms by a visitor's own number: the same visitors before and after."""
    changed = {"unit": "visitor", "allocation": {"name": "fixed"}, "shares": [0.2, 0.5, 0.3]}
    shop = Shop(tmp_path, **changed)
    before = shop.sessions(NOW, 400, {})
    shop.count = 0  # the same ones once more
    shop.define(**changed, killed=["banner"])
    after = shop.follow().sessions(NOW + HOUR, 400, {})
    assert {arm for visitor, arm in after.items() if before[visitor] == "banner"} == {"control"}
    assert all(after[visitor] == arm for visitor, arm in before.items() if arm != "banner")
    rows = [row["assignments"][0] for row in shop.rows() if row["started_at"] >= NOW + HOUR]
    for row in rows:
        assert row["propensity"] == pytest.approx([0.7, 0.0, 0.3][row["arm"]]) or row["flags"] & HOLDBACK
        assert row["flags"] >> CLOSED_SHIFT == 1
    assert not shop.learned(NOW + 4 * HOUR).ratio_alarm
    # and with none left, nobody is in it
    shop.count = 0
    shop.define(**changed, killed=["banner", "chat"])
    assert set(shop.follow().sessions(NOW + 5 * HOUR, 50, {}).values()) == {""}
    assert len([row for row in shop.rows() if row["assignments"]]) == 800

"""What is told of goals and arms while an experiment runs, beside the report of the same units."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.serving.shop import ARMS, HOUR, NOW, Shop
from training.experiments.table import units_of
from training.experiments.verdicts import judge_all

GOALS: list[dict[str, Any]] = [
    {"name": "purchase", "column": "purchases", "primary": True},
    {"name": "money", "kind": "revenue", "column": "revenue"},
    {"name": "steps", "kind": "numeric", "column": "events", "better": "lower"},
]
EVEN: dict[str, Any] = {"allocation": {"name": "fixed"}, "holdback": 0, "goals": GOALS, "planned_units": 1_000}


def test_every_goal_and_arm_is_told_as_a_report_tells_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path, goals=GOALS, planned_units=1_000)
    for hour in range(3):  # tables that change, so that propensities do
        shop.sessions(NOW + hour * HOUR, 500, {"control": 0.3, "banner": 0.6, "chat": 0.28})
        shop.learned(NOW + hour * HOUR + HOUR - 60_000)
    learned = shop.learned(NOW + 9 * HOUR)
    (definition,) = shop.engine.experiments.configuration.definitions.values()
    table = shop.units()
    assert table["propensity"].nunique() > 2
    report = judge_all(units_of(table, "offer", definition))
    assert [(one.goal, one.arm) for one in learned.results] == [
        (goal["name"], arm) for goal in GOALS for arm in ("banner", "chat")
    ]
    for told in learned.results:
        theirs = report[told.goal][told.arm]
        assert theirs is not None and told.low is not None and told.high is not None
        effect = theirs.effect
        assert (told.units, told.control_units, told.verdict) == (effect.units, effect.control_units, theirs.verdict)
        assert (told.mean, told.control_mean, told.lift) == pytest.approx(
            (effect.mean, effect.control_mean, effect.lift)
        )
        # ours puts visitors into 1,024 clusters
        assert (told.low, told.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * (told.high - told.low))
        assert told.low <= told.lift <= told.high  # type: ignore[operator]
    verdicts = {(one.goal, one.arm): one.verdict for one in learned.results}
    assert verdicts["purchase", "banner"] == "better" and verdicts["purchase", "chat"] == "open"
    assert verdicts["steps", "banner"] == "worse"  # who buys makes a step more, and fewer are wanted


def test_only_what_has_settled_counts(tmp_path: Path) -> None:
    shop = Shop(tmp_path, **EVEN)
    shop.sessions(NOW, 600, {"control": 0.2, "banner": 0.4})
    early = shop.learned(NOW + HOUR + 30 * 60_000)
    assert {one.verdict for one in early.results} == {"few"} and sum(count or 0 for count in early.units) == 600
    late = shop.learned(NOW + 2 * HOUR + 1)
    assert late.at_ms == NOW + 2 * HOUR + 1
    of_banner = late.results[0]
    assert of_banner.units == late.units[1] and of_banner.control_units == late.units[0]
    assert of_banner.lift is not None and of_banner.lift > 0.3


def test_nothing_is_told_of_fewer_than_fifty_units(tmp_path: Path) -> None:
    shop = Shop(tmp_path, **EVEN, shares=[0.48, 0.48, 0.04], minimum_share=0.01)
    shop.sessions(NOW, 700, {"control": 0.2, "banner": 0.2, "chat": 0.9})
    learned = shop.learned(NOW + 4 * HOUR)
    assert learned.units[2] is None
    for one in learned.results:
        assert (one.verdict == "few", one.mean is None, one.units is None) == ((one.arm == "chat"),) * 3
    published = (tmp_path / "learned" / "learned.json").read_text()
    assert len(re.findall(r'"verdict": "few"', published)) == 3


def test_with_a_wrong_ratio_no_result_is_valid(tmp_path: Path) -> None:
    shop = Shop(tmp_path, **EVEN)
    shop.sessions(NOW, 1_500, {"control": 0.2, "banner": 0.6, "chat": 0.2})
    assert shop.learned(NOW + 3 * HOUR).results[0].verdict == "better"
    lost = [row["visitor"] for row in shop.rows() if row["assignments"][0]["arm"] == 2]
    shop.engine.closed.erase(set(lost[: len(lost) // 2]))
    learned = shop.learned(NOW + 4 * HOUR)
    assert learned.ratio_alarm and {one.verdict for one in learned.results} == {"invalid"}


def test_what_was_known_stays_when_the_experiment_is_stopped(tmp_path: Path) -> None:
    """Sessions that end later are for the report."""
    shop = Shop(tmp_path, **EVEN)
    shop.sessions(NOW, 600, {"control": 0.2, "banner": 0.4, "chat": 0.2})
    shop.look(NOW + 3 * HOUR)
    shop.define(**EVEN, status="stopped", winner="banner")
    shop.look(NOW + 9 * HOUR)
    state = shop.engine.learning.state(NOW + 9 * HOUR)["experiments"]["offer"]
    assert state["status"] == "stopped" and state["counted_ms"] == NOW + 3 * HOUR
    assert [one["units"] for one in state["results"]] and set(state["units"]) == set(ARMS)
    assert state["definition"]["winner"] == "banner" and state["definition"]["shares"] == pytest.approx([1 / 3] * 3)

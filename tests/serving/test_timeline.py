"""How an allocation went: what is noted as tables come and arms are closed, and what is told of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from serving.app import App
from serving.experiments.timeline import DAYS, NEWEST, Timeline, TimelineFile, thinned
from serving.openapi import document
from tests.serving.in_process import client
from tests.serving.shop import ARMS, HOUR, NOW, Shop

BETTER = {"control": 0.1, "banner": 0.3, "chat": 0.1}
EVEN = [pytest.approx(1 / 3, abs=1e-4)] * 3


def history(shop: Shop, now_ms: int) -> dict[str, Any]:
    """What is told of the one experiment."""
    learning = shop.engine.learning
    told: dict[str, Any] = learning.state(now_ms, ["offer"], learning.timelines())["experiments"]["offer"]["history"]
    return told


def first_bins(told: dict[str, Any]) -> dict[int, list[float]]:
    return {one["from_ms"]: one["bins"][0] for one in told["points"]}


def test_every_table_that_held_is_told_and_none_that_will(tmp_path: Path) -> None:
    shop, made = Shop(tmp_path), {}
    for hour in range(4):
        shop.sessions(NOW + hour * HOUR, 300, {"control": 0.1, "banner": 0.13, "chat": 0.1})
        (*_, table) = shop.learned(NOW + hour * HOUR + HOUR - 60_000).tables
        made[table.from_ms] = table.bins[0]
    told = first_bins(history(shop, NOW + 3 * HOUR + 30 * 60_000))
    begun = NOW + HOUR - 60_000  # the first look; no unit was counted before
    assert history(shop, NOW + 4 * HOUR)["began_ms"] <= begun
    assert told.pop(min(told)) == EVEN
    expected = {moment: bins for moment, bins in made.items() if NOW + HOUR < moment <= NOW + 3 * HOUR}
    assert told == {moment: pytest.approx(bins, abs=1e-4) for moment, bins in expected.items()}
    assert max(first_bins(history(shop, NOW + 4 * HOUR))) == NOW + 4 * HOUR


def test_the_share_of_a_closed_arm_is_the_controls_until_the_next_table(tmp_path: Path) -> None:
    rails: dict[str, Any] = {"guardrails": [{"goal": "purchase", "worst": -0.2}], "planned_units": 1_000}
    shop = Shop(tmp_path, **rails)
    shop.sessions(NOW, 900, {"control": 0.5, "banner": 0.0, "chat": 0.5})
    shop.look(NOW + 30 * 60_000)
    stopped_at = NOW + 2 * HOUR + 60_000
    assert [one.arm for one in shop.learned(stopped_at).stopped] == ["banner"]
    told = history(shop, NOW + 4 * HOUR)
    assert told["closed"] == [{"arm": "banner", "at_ms": stopped_at, "why": "guardrail", "goal": "purchase"}]
    before, at, after = list(first_bins(told).items())[-3:]
    assert at[0] == stopped_at and at[1][1] == 0 and at[1][0] == pytest.approx(before[1][0] + before[1][1], abs=2e-4)
    assert after[0] == NOW + 3 * HOUR and after[1][1] == 0 and sum(after[1]) == pytest.approx(1, abs=1e-3)
    # it is what assigned
    standing = shop.engine.experiments.standings["offer"]
    assert standing.closed == {1} and standing.table(NOW + 4 * HOUR).of() == pytest.approx(after[1], abs=1e-4)
    # and a person closes the other one
    shop.define(**rails, killed=["chat"])
    shop.look(NOW + 4 * HOUR)
    told = history(shop, NOW + 5 * HOUR)
    assert [(one["arm"], one["why"], one["at_ms"]) for one in told["closed"]] == [
        ("banner", "guardrail", stopped_at), ("chat", "killed", NOW + 4 * HOUR),
    ]  # fmt: skip
    assert list(first_bins(told).values())[-1] == [1, 0, 0]


def test_fixed_shares_are_told_too(tmp_path: Path) -> None:
    fixed: dict[str, Any] = {"allocation": {"name": "fixed"}, "holdback": 0, "shares": [0.5, 0.3, 0.2]}
    shop = Shop(tmp_path, **fixed)
    shop.look(NOW)
    told = history(shop, NOW + HOUR)
    assert (told["began_ms"], told["until_ms"], first_bins(told)) == (NOW, NOW + HOUR, {NOW: [0.5, 0.3, 0.2]})
    shop.define(**fixed, killed=["chat"])
    shop.look(NOW + HOUR)
    told = history(shop, NOW + 2 * HOUR)
    assert first_bins(told) == {NOW: [0.5, 0.3, 0.2], NOW + HOUR: [0.7, 0.3, 0]}


def test_it_begins_with_what_the_smallest_share_leaves_of_the_shares(tmp_path: Path) -> None:
    """Which is what assigned, so no unit is left out of the sample ratio either."""
    shop = Shop(tmp_path, shares=[0.6, 0.3, 0.1])
    shop.sessions(NOW, 600, BETTER)
    learned = shop.learned(NOW + 3 * HOUR)
    assert learned.ratio_p is not None and not learned.ratio_alarm
    begun = next(iter(first_bins(history(shop, NOW + 3 * HOUR)).values()))
    assert begun == [pytest.approx(0.05 + 0.85 * share, abs=1e-4) for share in (0.6, 0.3, 0.1)]
    noted = {one["propensity"] for row in shop.rows() for one in row["assignments"] if not one["flags"]}
    assert sorted(noted) == pytest.approx(sorted(begun), abs=1e-4)


def test_it_outlives_restarts_and_what_is_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(tmp_path)
    for hour in range(3):
        shop.sessions(NOW + hour * HOUR, 300, BETTER)
        shop.look(NOW + hour * HOUR + HOUR - 60_000)
    before = history(shop, NOW + 3 * HOUR)
    shop.learner = shop.new_learner()
    shop.restarted().look(NOW + 3 * HOUR - 30_000)
    assert history(shop, NOW + 3 * HOUR) == before
    # the tables are known from what was counted, and the begin from the first exposures
    path = tmp_path / "learned" / "timeline.json"
    path.write_bytes(b"{")
    assert "history" not in shop.engine.learning.state(NOW, ["offer"], shop.engine.learning.timelines())
    assert "cannot be read" in caplog.text
    shop.learner = shop.new_learner()
    shop.look(NOW + 3 * HOUR - 20_000)
    again = history(shop, NOW + 3 * HOUR)
    assert again["began_ms"] == NOW
    later = {moment: bins for moment, bins in first_bins(before).items() if moment > NOW + HOUR}
    assert {moment: bins for moment, bins in first_bins(again).items() if moment > NOW + HOUR} == later
    # another phase begins anew
    shop.define(phase=2)
    shop.look(NOW + 5 * HOUR)
    told = history(shop, NOW + 5 * HOUR)
    assert told["began_ms"] == NOW + 5 * HOUR and list(first_bins(told).values()) == [EVEN]


def test_it_ends_where_the_experiment_was_stopped(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.sessions(NOW, 300, BETTER)
    shop.look(NOW + 2 * HOUR)
    shop.define(status="stopped")
    shop.look(NOW + 9 * HOUR)
    told = history(shop, NOW + 20 * HOUR)
    assert told["until_ms"] == NOW + 2 * HOUR and max(first_bins(told)) <= NOW + 2 * HOUR


def test_a_year_by_the_hour_stays_small(tmp_path: Path) -> None:
    tables: dict[int, list[list[float]]] = {}
    for hour in range(24 * 365):  # as the learner does, hour by hour
        tables = thinned({**tables, hour * HOUR: [[0.5, 0.25, 0.25]] * 13})
        assert len(tables) <= NEWEST + DAYS
    file = TimelineFile(tmp_path)
    book = file.read()
    book.experiments["offer"] = Timeline(1, ARMS, [0.1] * 11, 0, [[0.5, 0.25, 0.25]] * 13, tables)
    file.write(book)
    assert file.read() == book and file.path.stat().st_size < 150_000


def test_the_endpoint_tells_it_of_those_that_are_named(tmp_path: Path) -> None:
    shop, app = Shop(tmp_path), App()
    app.engine = shop.engine
    shop.sessions(NOW, 900, BETTER)
    shop.look(NOW + 3 * HOUR)

    def ask(query: str) -> tuple[int, Any]:
        async def run() -> tuple[int, Any]:
            async with client(app) as http:
                answer = await http.get(f"/v1/experiments/state{query}")
                return answer.status_code, answer.json()

        return asyncio.run(run())

    status, told = ask("?history=offer")
    schema = {"$ref": "#/components/schemas/ExperimentsState", "components": document(shop.engine)["components"]}
    Draft202012Validator(schema).validate(told)
    assert status == 200 and told["experiments"]["offer"]["history"]["points"]
    assert "history" not in ask("")[1]["experiments"]["offer"]
    status, refused = ask("?history=ofer")
    assert status == 422 and "found 'ofer', expected the key of an experiment: offer" in refused["detail"]

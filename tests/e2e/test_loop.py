"""The whole loop, small: a crowd meets flags over HTTP, and what was planted is found in the sessions that are over."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.experiments import load_experiments
from features.units import units_of
from simulation.crowd import Visit, browse_in_step, visits_of_shop
from simulation.persuasion import Persuasion, no_lift
from simulation.shop import simulate
from tests.training.test_experiment_report import run
from tests.workspace import Service, packed, wait_until, workspace

GOALS = [
    {"name": "purchase", "column": "purchases", "primary": True},
    {"name": "revenue", "kind": "revenue", "column": "revenue"},
]
CONTENT: dict[str, Any] = {
    "features": {
        "help": {
            "defaultValue": "none",
            "rules": [{"key": "offer", "condition": {"cart_adds": {"$gte": 1}}, "variations": ["none", "banner"]}],
        },
        "colour": {
            "defaultValue": "green",
            "rules": [{"key": "aa", "condition": {"bounce": {"$gt": 0}}, "variations": ["green", "blue"]}],
        },
    },
    "experiments": {
        key: {"arms": list(arms), "goals": GOALS, "planned_units": 1_000}
        for key, arms in {"offer": ("control", "banner"), "aa": ("green", "blue")}.items()
    },
}
PERSUASIONS = (
    Persuasion("help", {"none": no_lift, "banner": lambda truth: 1.2}),
    Persuasion("colour", {"green": no_lift, "blue": no_lift}),
)


@dataclass
class Loop:
    """What is left of a crowd: its visits, the folder of sessions that are over, and the definitions."""

    visits: list[Visit]
    closed: Path
    config: Path

    def report(self, key: str, closed: Path | None = None) -> Any:
        asked = ("--closed", closed or self.closed, "--config", self.config)
        return json.loads(run("report", *asked, "--experiment", key, "--json"))


@pytest.fixture(scope="module")
def loop(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = workspace(tmp_path_factory.mktemp("loop") / "work")
    config = folder / "configs" / "experiments.json"
    config.write_text(json.dumps(CONTENT))
    service = Service(folder, *packed(trained), "store.closed_seconds=0.5").start()
    closed = folder / "lotse-data" / "closed"
    visits = visits_of_shop(simulate(visitors=6_000, seed=21))
    try:
        asyncio.run(browse_in_step(f"http://127.0.0.1:{service.port}", visits, persuasions=PERSUASIONS))
        sent = sum(visit.done for visit in visits)

        def are_over() -> bool:
            return sum(pq.ParquetFile(path).metadata.num_rows for path in closed.glob("day=*/*.parquet")) == sent

        wait_until(are_over)
    finally:
        service.stop()
    yield Loop(visits, closed, config)


def test_every_exposure_of_the_crowd_is_a_unit_with_its_outcome(loop: Loop) -> None:
    units = units_of(sorted(loop.closed.glob("day=*/*.parquet")), load_experiments(loop.config))
    for key, flag, arms in (("offer", "help", ("control", "banner")), ("aa", "colour", ("green", "blue"))):
        met = [visit for visit in loop.visits if flag in visit.reactions]
        of = units[units["experiment"] == key]
        assert len(of) == len(met) and of["unit"].is_unique
        for arm, shown in zip(arms, PERSUASIONS[flag == "colour"].lifts, strict=True):
            theirs = [visit for visit in met if visit.reactions[flag].shown == shown]
            bought = sum(visit.bought_after(flag) for visit in theirs)
            mine = of[of["arm"] == arm]
            assert len(mine) == len(theirs) and mine["purchases"].sum() == bought
    assert (units["propensity"] == 0.5).all() and not units[["bounce", "conversion", "exit"]].isna().any(axis=None)


def test_what_was_planted_is_found_and_nothing_else(loop: Loop) -> None:
    planted, nothing = loop.report("offer"), loop.report("aa")
    effect = planted["goals"]["purchase"]["banner"]
    chances = [visit.reactions["help"].chances for visit in loop.visits if "help" in visit.reactions]
    truth = sum(one["banner"] for one in chances) / sum(one["none"] for one in chances) - 1
    assert effect["verdict"] == "better" and effect["always_valid"][0] < truth < effect["always_valid"][1]
    assert planted["advice"]["do"] == "decide"
    assert all(one["verdict"] == "open" for arms in nothing["goals"].values() for one in arms.values())
    assert not any(ratio["alarm"] for of in (planted, nothing) for ratio in of["sample_ratio"])


def test_sessions_that_one_arm_loses_raise_an_alarm(loop: Loop, tmp_path: Path) -> None:
    places = {key: place for place, key in enumerate(("green", "blue"))}
    random = np.random.default_rng(0)
    for path in loop.closed.glob("day=*/*.parquet"):
        table = pq.ParquetFile(path).read()
        arms = [{one["age_events"]: one["arm"] for one in of}.get(1) for of in table["assignments"].to_pylist()]
        lost = (np.array(arms, object) == places["blue"]) & (random.random(len(table)) < 0.2)
        out = tmp_path / path.relative_to(loop.closed)
        out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(~lost), out)
    found = loop.report("aa", tmp_path)
    assert found["sample_ratio"][0]["alarm"] and found["advice"]["do"] == "stop"


def test_the_terminal_shows_units_plans_and_values(loop: Loop, tmp_path: Path) -> None:
    asked = ("--closed", loop.closed, "--config", loop.config)
    shown = run("units", *asked, "--out", tmp_path / "units")
    table = pd.read_parquet(tmp_path / "units" / "units.parquet")
    for key, arm in (("offer", "banner"), ("aa", "blue")):
        count = int(((table["experiment"] == key) & (table["arm"] == arm)).sum())
        assert any({key, "1", arm, f"{count:,}", "0.50"} <= set(line.split()) for line in shown.splitlines()), shown
    again = json.loads(run("report", "--table", tmp_path / "units", *asked[2:], "--experiment", "offer", "--json"))
    assert again["goals"] == loop.report("offer")["goals"]
    value = json.loads(run("value", *asked, "--experiment", "offer", "--policy", "banner", "--json"))["estimates"]
    of = table[(table["experiment"] == "offer") & (table["arm"] == "banner")]
    assert value[-1]["low"] < of["purchases"].mean() < value[-1]["high"]
    plan = json.loads(
        run("plan", *asked[:2], "--goal", "purchases", "--where", "cart_adds>=1", "--lift", "0.2", "--json")
    )
    assert plan["baseline"]["units"] >= len(table[table["experiment"] == "offer"])
    for options, said in (
        (("report",), "one of both"),
        (("report", *asked, "--table", "units.parquet"), "one of both"),
    ):
        with pytest.raises(Exception, match=said):
            run(*options, "--config", loop.config, "--experiment", "offer")
    empty = tmp_path / "empty"
    shutil.copytree(loop.closed, empty, ignore=lambda _, names: [name for name in names if name.endswith(".parquet")])
    with pytest.raises(Exception, match="no sessions that are over"):
        run("units", "--closed", empty, "--config", loop.config)

"""`lotse experiment value`: a policy by its name, and what it would have brought."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.allocation import Table
from features.settings import SettingsError
from tests.training.test_experiment_report import run
from tests.training.units import made_up


def value(tmp_path: Path, *options: str, **changed: Any) -> tuple[str, pd.DataFrame]:
    """What `lotse experiment value` says of a made-up experiment."""
    table = made_up(20_000, 0.3, seed=9)
    path, config = tmp_path / "units.parquet", tmp_path / "experiments.json"
    table.to_parquet(path)
    goals = [{"name": "purchase", "column": "purchases", "primary": True}, {"name": "revenue", "kind": "revenue"}]
    defined = {"arms": ["control", "banner"], "goals": goals, "planned_units": 20_000} | changed
    config.write_text(json.dumps({"experiments": {"banner": defined}}))
    return run("value", "--table", path, "--config", config, *options), table


def test_an_arm_for_everybody_is_worth_what_its_units_did(tmp_path: Path) -> None:
    told, table = value(tmp_path, "--policy", "banner", "--json")
    found = {one["estimator"]: one for one in json.loads(told)["estimates"]}
    mean = table.loc[table["arm"] == "banner", "purchases"].mean()
    assert found["SNIPS"]["value"] == pytest.approx(mean, abs=1e-9)
    assert found["DR"]["low"] < mean < found["DR"]["high"]
    assert found["DR"]["low"] > found["logged"]["value"]
    told, _ = value(tmp_path, "--policy", "banner", "--goal", "revenue")
    assert "banner, always" in told and "DR (use this)" in told and "revenue per unit" in told


def test_an_allocation_is_learned_from_one_half_and_valued_on_the_other(tmp_path: Path) -> None:
    edges = {"name": "contextual", "score": "conversion", "edges": [0.05, 0.1, 0.2]}
    for policy, changed in (("thompson", {}), ("contextual", {"allocation": edges, "holdback": 0.1})):
        text, table = value(tmp_path, "--policy", policy, "--json", **changed)
        told = json.loads(text)
        assert "learned from the earlier half" in told["policy"]
        found = {one["estimator"]: one for one in told["estimates"]}
        assert found["DR"]["units"] == len(table) // 2
        # the banner is better for all: what learns is worth more than what was
        assert found["DR"]["low"] > found["logged"]["value"]


def test_a_table_of_probabilities_is_valued(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(Table(("control", "banner"), (0.1,), [[1, 0], [0, 1], [0.5, 0.5]], (0.5, 0.5), 0.0).to_json())
    told, table = value(tmp_path, "--policy", str(path), "--score", "conversion", "--json")
    # as a service publishes what it has learned
    learned = {"arms": ["control", "banner"], "edges": [0.1], "tables": [{"bins": [[1, 0], [0, 1], [0.5, 0.5]]}]}
    path.write_text(json.dumps({"at_ms": 0, "format": 1, "experiments": {"banner": learned}}))
    again, _ = value(tmp_path, "--policy", str(path), "--score", "conversion", "--json")
    assert json.loads(again)["estimates"] == json.loads(told)["estimates"]
    found = {one["estimator"]: one for one in json.loads(told)["estimates"]}
    risky = table["conversion"] >= 0.1
    means = [table.loc[risky == one, :].groupby("arm")["purchases"].mean() for one in (False, True)]
    expected = (~risky).mean() * means[0]["control"] + risky.mean() * means[1]["banner"]
    assert found["DR"]["value"] == pytest.approx(expected, abs=2 * found["DR"]["error"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--policy", "chat"), "unknown allocation 'chat'"),
        (("--policy", "nowhere.json"), "no file nowhere.json; a policy is an arm, an allocation or such a file"),
        (("--policy", "banner", "--goal", "clicks"), "unknown goal 'clicks' of banner; goals: purchase, revenue"),
        (("--policy", "banner", "--closed", "closed"), "one of both"),
    ],
)
def test_a_policy_that_is_none_is_told(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        value(tmp_path, *options)

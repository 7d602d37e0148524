"""A table of units in, a verdict out: as a table, as JSON and as one page that loads nothing; a real test with its
known figures."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency
from typer.testing import CliRunner

from benchmarks.experiments import thompson
from features.cli import build_app
from features.errors import EventError
from features.experiments import LEAST_UNITS
from features.settings import SettingsError
from tests.shared import SHARED
from tests.training.test_pages import Outline
from tests.training.units import experiment, made_up, units
from training.experiments.analysis import Analysis, analyse
from training.experiments.report import report_page

COOKIE_CATS = SHARED / "data" / "ab_tests" / "cookie_cats.csv.gz"
PURCHASE = {"name": "purchase", "column": "purchases", "primary": True}
REVENUE = {"name": "revenue", "kind": "revenue"}
FULL = {"goals": [PURCHASE, REVENUE], "guardrails": [{"goal": "revenue", "worst": -0.1}]}


def run(*arguments: object) -> str:
    done = CliRunner().invoke(build_app(), ["experiment", *map(str, arguments)], env={"COLUMNS": "200"})
    if done.exception:
        raise done.exception
    return done.stdout


@pytest.fixture(scope="module")
def banner() -> Analysis:
    table = made_up(40_000, 0.2, phases=2, seed=2)
    table.loc[:99, "forced"] = True
    return analyse(units(table, experiment(**FULL)), "banner")


@pytest.mark.skipif(not COOKIE_CATS.exists(), reason="needs the shared data")
def test_cookie_cats_has_its_known_figures(tmp_path: Path) -> None:
    out = tmp_path / "cookie_cats.html"
    text = run(
        "report", "--table", COOKIE_CATS, "--column", "arm=version", "--column", "unit=userid", "--arms",
        "gate_30,gate_40", "--goal", "retention_7", "--goal", "retention_1", "--goal", "sum_game_rounds:numeric",
        "--planned-units", 90_000, "--json", "--out", out,
    )  # fmt: skip
    found = json.loads(text)
    assert found["units"] == {"gate_30": 44_700, "gate_40": 45_489}
    seven, one = (found["goals"][goal]["gate_40"] for goal in ("retention_7", "retention_1"))
    assert (round(one["control_mean"], 3), round(one["mean"], 3)) == (0.448, 0.442)
    assert (round(seven["control_mean"], 3), round(seven["mean"], 3)) == (0.190, 0.182)
    table = pd.read_csv(COOKIE_CATS)
    exact = chi2_contingency(pd.crosstab(table["version"], table["retention_7"]), correction=False).pvalue
    assert seven["single_look_p"] == pytest.approx(exact, rel=0.02)
    assert exact == pytest.approx(0.0016, abs=0.0001)
    assert seven["verdict"] == "worse" and one["verdict"] == "open"
    assert seven["always_valid"][0] < seven["single_look"][0] < seven["lift"] < seven["single_look"][1] < 0
    assert found["sample_ratio"][0]["p"] == pytest.approx(0.0086, abs=0.0001)
    assert not found["sample_ratio"][0]["alarm"] and found["looks"] == {}
    assert found["advice"]["do"] == "decide" and "keep it" in found["advice"]["why"]
    outline = Outline(out.read_text())
    assert outline.headings[0] == "cookie_cats" and outline.loaded == []
    assert {"19.02 %", "18.20 %", "44.82 %", "44.23 %"} <= set(outline.cells)


def test_the_page_is_whole_and_loads_nothing(banner: Analysis) -> None:
    page = report_page(banner)
    outline = Outline(page)
    assert outline.headings == [
        "banner", "Effects", "Over time", "Guardrails", "Sample ratio", "What to believe", "By risk at the trigger",
        "How it was computed",
    ]  # fmt: skip
    assert outline.loaded == []
    assert sum("plotly.js v" in script for script in outline.scripts) == 1
    ours = "".join(script for script in outline.scripts if "plotly.js v" not in script)
    assert not re.search(r"https?://", ours)
    assert "nan" not in {cell.lower() for cell in outline.cells}
    assert "a person tested a variant" in page and "within phases" in page


def test_a_planted_effect_is_decided_everywhere(banner: Analysis) -> None:
    one = banner.judged["purchase"]["banner"]
    assert one and one.verdict == "better" and one.low < 0.2 < one.high and one.p <= one.adjusted_p < 0.05
    assert one.belief and one.belief.better > 0.99
    assert banner.advice[0] == "decide" and banner.advice[1].startswith("banner is better")
    (rail,) = banner.rails
    assert rail.state == "ok"
    looks = banner.looks["purchase"]["banner"]
    assert len(looks) == 20 and looks[-1].low == one.low and looks[-1].units == 39_900
    widths = [look.high - look.low for look in looks]
    assert widths[-1] < widths[4]
    (differing,) = banner.differing
    assert len(differing.groups) == 10 and (differing.score, differing.goal) == ("conversion", "purchase")


def test_json_holds_what_is_not_defined_as_null(banner: Analysis) -> None:
    text = json.dumps(banner.as_json(), allow_nan=False)
    tree = json.loads(text)
    assert tree["goals"]["purchase"]["banner"]["verdict"] == "better"
    assert tree["forced"] == 100 and tree["phases"] == 2


def test_a_wrong_ratio_or_a_broken_guardrail_stops_it() -> None:
    table = made_up(30_000, 0.3)
    lost = table[(table["arm"] == "control") | (np.random.default_rng(1).random(len(table)) > 0.1)]
    found = analyse(units(lost, experiment(**FULL)), "banner", looks=False, by_risk=False)
    assert found.advice[0] == "stop" and "sample ratio" in found.advice[1]
    page = report_page(found)
    assert {"alarm", "invalid"} <= set(Outline(page).cells) and "better" not in Outline(page).cells
    table.loc[table["arm"] == "banner", "revenue"] *= 0.3
    found = analyse(units(table, experiment(**FULL)), "banner", looks=False, by_risk=False)
    assert found.advice == ("stop", "banner surely makes revenue worse by more than is allowed.")


def test_a_winner_waits_for_its_guardrail_and_an_experiment_for_its_units() -> None:
    goals = [PURCHASE | {"column": "bought"}, REVENUE]
    table = made_up(8_000, rate=0.02)
    chance = np.where(table["arm"] == "banner", 0.5, 0.4)
    table["bought"] = (np.random.default_rng(0).random(len(table)) < chance) * 1.0
    definition = experiment(goals=goals, guardrails=[{"goal": "revenue", "worst": -0.05}])
    found = analyse(units(table, definition), "banner", looks=False, by_risk=False)
    assert found.advice[0] == "go on" and "whether revenue suffers" in found.advice[1]
    found = analyse(units(made_up(3_000)), "banner", looks=False, by_risk=False)
    assert found.advice == ("go on", "Nothing is decided yet: 3,000 units of 10,000 planned.")
    found = analyse(units(made_up(40_000)), "banner", looks=False, by_risk=False)
    assert found.advice[0] == "decide" and "No arm is told from control" in found.advice[1]


def test_many_goals_and_arms_are_corrected_together() -> None:
    """Twenty goals on which nothing happens: one of them is likely below 5 % at a single look."""
    table = made_up(4_000, seed=1)
    random = np.random.default_rng(11)
    for place in range(20):
        table[f"g{place}"] = (random.random(len(table)) < 0.3) * 1.0
    goals = [{"name": f"g{place}", "primary": True} for place in range(20)]
    found = analyse(units(table, experiment(goals=goals)), "banner", looks=False, by_risk=False)
    results = [of["banner"] for of in found.judged.values()]
    assert min(one.fixed_p for one in results if one) < 0.05
    assert all(one and one.verdict == "open" and one.adjusted_p >= one.p for one in results)


def test_adaptive_allocation_is_undone_and_said_and_the_holdback_stands_beside() -> None:
    """The rate falls while Thompson sampling gives the better arm more: plain averages say that it is worse than it
    is."""
    definition = experiment(allocation={"name": "thompson"}, holdback=0.1, minimum_share=0.05)
    table = thompson(0.3, seed=3, size=60_000)
    means = table.groupby("arm")["purchases"].mean()
    found = analyse(units(table, definition), "banner", looks=False, by_risk=False)
    one = found.judged["purchase"]["banner"]
    assert one and one.low < 0.3 < one.high and one.holdback
    assert means["banner"] / means["control"] - 1 < one.effect.lift
    assert one.holdback.low < 0.3 < one.holdback.high
    page = report_page(found)
    assert "inverse propensity weights" in page and "unbiased by design" in page
    assert "In the holdback alone" in page
    table["holdback"] = False
    notes = analyse(units(table, definition), "banner", looks=False, by_risk=False).notes
    assert any("There is no holdback" in note for note in notes)


def test_small_groups_are_told_nowhere() -> None:
    table = made_up(1_000, share=0.04, seed=1)
    assert 0 < (table["arm"] == "banner").sum() < LEAST_UNITS
    found = analyse(units(table, experiment(**FULL)), "banner")
    tree = found.as_json()
    assert tree["units"]["banner"] is None and tree["goals"]["purchase"]["banner"] is None
    ratio = tree["sample_ratio"][0]
    assert ratio["units"][1] is None and ratio["expected"] is None and ratio["p"] is None
    assert tree["looks"]["purchase"]["banner"] == []
    assert all(group["effect"] is None for one in tree["by_risk"] for group in one["groups"])
    count = str((table["arm"] == "banner").sum())
    outline = Outline(report_page(found))
    assert count not in outline.cells and not any(cell.startswith(f"{count} of") for cell in outline.cells)
    assert f"< {LEAST_UNITS}" in outline.cells


def test_names_of_a_users_own_cannot_break_the_page(banner: Analysis) -> None:
    evil = "</script><script>alert(1)"
    definition = banner.definition.model_copy(update={"name": evil, "hypothesis": evil})
    assert "<script>alert(1)" not in report_page(dataclasses.replace(banner, definition=definition))
    table = made_up(2_000).replace({"arm": {"banner": evil}})
    found = analyse(units(table, experiment(arms=["control", evil])), "banner")
    assert "<script>alert(1)" not in report_page(found)


def test_the_verb_reads_our_table_by_its_definition(tmp_path: Path) -> None:
    folder = tmp_path / "units"
    folder.mkdir()
    table = made_up(6_000, 0.3)
    other = table.assign(experiment="other", arm="x")
    table.iloc[:3_000].to_parquet(folder / "1.parquet")
    pd.concat([table.iloc[3_000:], other]).to_parquet(folder / "2.parquet")
    config = tmp_path / "experiments.json"
    goal: dict[str, Any] = PURCHASE
    config.write_text(json.dumps({"experiments": {"banner": {"arms": ["control", "banner"], "goals": [goal]}}}))
    text = run("report", "--table", folder, "--config", config, "--out", tmp_path / "page" / "banner.html")
    assert "banner: " in text and "purchase" in text and "sample ratio, phase 1: ok" in text
    assert "Over time" in (tmp_path / "page" / "banner.html").read_text()
    assert run("check", "--config", config) == "banner: running; control | banner; purchase (primary)\n"
    with pytest.raises(SettingsError, match=r"no experiment 'offer'; .* defines: banner"):
        run("report", "--table", folder, "--config", config, "--experiment", "offer")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["--table", "none.csv", "--arms", "a,b", "--goal", "x"], EventError, "no table none.csv"),
        (["--table", "t.csv", "--arms", "a,b"], SettingsError, "both --arms"),
        (["--table", "t.csv", "--arms", "a,b", "--goal", "x", "--shares", "half"], SettingsError, "must be numbers"),
        (["--table", "t.csv", "--arms", "a,b", "--goal", "x:rate"], SettingsError, r"goals\[0\].kind"),
        (["--table", "t.csv", "--arms", "a,b", "--goal", "x", "--column", "arm"], SettingsError, "arm=version"),
    ],
)
def test_options_that_cannot_be_used_say_what_is_wrong(arguments: list[str], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        run("report", *arguments)

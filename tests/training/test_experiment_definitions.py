"""Definitions of experiments: what can be used is read, what cannot is refused with its place and what is allowed
there."""

from __future__ import annotations

import json
import re
from inspect import signature
from pathlib import Path

import pytest

from features.experiments import UNIT_COLUMNS, Experiment, Goal, Guardrail, load_experiments, parse_experiments
from features.settings import SettingsError
from training.experiments.cli import experiment_app

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"arms": ["control", "banner"], "goals": [{"name": "purchase", "primary": True}]}


def refused(**changed: object) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_experiments({"banner": GOOD | changed}, "experiments.json")
    return str(caught.value)


def test_what_is_left_out_has_its_default() -> None:
    one = Experiment.model_validate(GOOD)
    assert one.shares == (0.5, 0.5) and one.control == "control" and one.alpha == 0.05
    assert one.goals[0].column == "purchase" and one.goals[0].kind == "binary"
    assert not one.allocation.adaptive


def test_an_allocation_keeps_the_keys_of_its_own() -> None:
    one = Experiment.model_validate(GOOD | {"holdback": 0.1, "allocation": {"name": "thompson", "half_life_days": 7}})
    assert one.allocation.adaptive and one.allocation.model_dump()["half_life_days"] == 7


@pytest.mark.parametrize(
    ("changed", "place", "says"),
    [
        ({"arms": ["control"]}, "$.experiments.banner.arms", "at least 2"),
        ({"arms": ["a", "a"]}, "$.experiments.banner.arms", "differ"),
        ({"shares": [0.5, 0.4]}, "$.experiments.banner", "add up to 1, not to 0.9"),
        ({"shares": [0.5, 0.3, 0.2]}, "$.experiments.banner", "3 shares for 2 arms"),
        ({"minimum_share": 0.6}, "$.experiments.banner", "minimum_share"),
        ({"goals": [{"name": "purchase"}]}, "$.experiments.banner.goals", '"primary": true'),
        ({"goals": [{"name": "a", "primary": True, "kind": "rate"}]}, "$.experiments.banner.goals[0].kind", "'binary'"),
        ({"goals": [{"name": "a", "primary": True, "colum": "b"}]}, "$.experiments.banner.goals[0].colum", "column"),
        ({"goals": [{"name": "arm", "primary": True}]}, "$.experiments.banner.goals[0].column", "something else"),
        ({"guardrails": [{"goal": "revenue"}]}, "$.experiments.banner", "unknown goal 'revenue'; goals: purchase"),
        ({"guardrails": [{"goal": "purchase", "worst": 0.05}]}, "$.experiments.banner.guardrails[0].worst",
         "less than 0"),
        ({"unit": "page"}, "$.experiments.banner.unit", "'session' or 'visitor'"),
        ({"holdout": 0.1}, "$.experiments.banner.holdout", "unknown key; allowed there: name, hypothesis"),
    ],
)  # fmt: skip
def test_a_bad_definition_is_refused_with_its_place(changed: dict[str, object], place: str, says: str) -> None:
    message = refused(**changed)
    assert message.startswith(f"experiments.json: {place}: "), message
    assert says in message


def test_the_projects_own_file_is_good_and_other_keys_of_it_are_growthbooks() -> None:
    found = load_experiments(ROOT / "configs" / "experiments.json")
    assert list(found) == ["leaving_soon", "cart_banner"] and {one.status for one in found.values()} == {"draft"}


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no file"):
        load_experiments(tmp_path / "none.json")
    bad = tmp_path / "bad.json"
    bad.write_text('{"experiments": {,}}')
    with pytest.raises(SettingsError, match="line 1, column 18"):
        load_experiments(bad)
    bad.write_text(json.dumps({"experiments": []}))
    with pytest.raises(SettingsError, match=r"\$\.experiments must be an object"):
        load_experiments(bad)


def test_every_key_column_and_option_is_documented() -> None:
    page = (ROOT / "docs" / "experiments.md").read_text()
    keys = [*Experiment.model_fields, *Goal.model_fields, *Guardrail.model_fields]
    for name in (*keys, *UNIT_COLUMNS):
        assert f"`{name}`" in page, name
    for command in experiment_app.registered_commands:
        assert command.callback is not None
        verb = command.callback.__name__
        assert f"lotse experiment {verb}" in page
        for option in set(signature(command.callback).parameters) - {"as_json", "config"}:
            assert f"--{option.replace('_', '-')}" in page, f"{verb}: {option}"


def test_the_pictures_of_the_page_are_there() -> None:
    page = (ROOT / "docs" / "experiments.md").read_text()
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page):
        assert (ROOT / "docs" / name).read_bytes().startswith(b"\x89PNG")

"""Documents cannot drift: the catalogue's page, the verbs and every key of the configuration."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pydantic import BaseModel

from features.catalogue import markdown
from features.compiler import compile_fold
from features.experiments import SCORES
from features.shop import SourceSettings
from serving.experiments.attributes import names_of
from serving.experiments.configuration import Configuration
from serving.settings import ServingSettings
from training.config import TrainingSettings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SOURCES = (ROOT / "docs" / "sources.md").read_text()


def test_the_catalogues_page_is_current() -> None:
    assert (ROOT / "docs" / "features.md").read_text() == markdown(), "run: make docs"


def test_every_verb_is_in_the_readme() -> None:
    for verb in entry_points(group="lotse.commands"):
        assert f"lotse {verb.name}" in README or f"make {verb.name}" in README, verb.name


@pytest.mark.parametrize(("file", "model"), [("training.toml", TrainingSettings), ("serving.toml", ServingSettings)])
def test_every_key_is_in_its_file_with_its_default(file: str, model: type[BaseModel]) -> None:
    tree = tomllib.loads((ROOT / "configs" / file).read_text())
    defaults = model().model_dump(mode="json")
    assert {section: set(keys) for section, keys in tree.items()} == {s: set(keys) for s, keys in defaults.items()}
    assert tree == defaults


@pytest.mark.parametrize("file", ["training.toml", "serving.toml"])
def test_every_key_is_explained_beside_it(file: str) -> None:
    """A comment stands above each key, or above the keys that it comes with."""
    explained = False
    for line in (ROOT / "configs" / file).read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif line.startswith("[") or not line:
            explained = False
        else:
            assert explained, line


def test_every_key_of_a_source_is_in_the_shops_file_and_explained() -> None:
    """A comment stands right above each key and each section of `[sources.csv]`, the example that shows them all."""
    text = (ROOT / "configs" / "shop.toml").read_text()
    assert set(tomllib.loads(text)["sources"]["csv"]) == set(SourceSettings.model_fields)
    _, example = text.split("[sources.csv]\n")
    for key in SourceSettings.model_fields:
        assert re.search(rf"^#.*\n({key} =|\[sources\.csv\.{key}\])", example, re.MULTILINE), key


def test_every_reader_is_named_in_the_shops_file() -> None:
    text = (ROOT / "configs" / "shop.toml").read_text()
    for reader in entry_points(group="lotse.sources"):
        assert re.search(rf"\b{reader.name}\b", text), reader.name


@pytest.mark.parametrize("reader", [point.name for point in entry_points(group="lotse.sources")])
def test_every_reader_and_its_options_are_documented(reader: str) -> None:
    found = re.search(rf"^## {reader}$(.*?)(?=^## |\Z)", SOURCES, re.MULTILINE | re.DOTALL)
    assert found, f"docs/sources.md has no section {reader}"
    module = import_module(f"features.sources.{reader}")
    assert "lotse inspect" in found[1]
    for name, options in vars(module).items():
        if name.endswith("Options") and isinstance(options, type):
            for option, about in options.model_fields.items():  # type: ignore[attr-defined]
                assert f"`{about.alias or option}" in found[1], f"{reader}: option {option}"


@pytest.mark.parametrize("tracker", [point.name for point in entry_points(group="lotse.trackers")])
def test_every_tracker_has_a_page(tracker: str) -> None:
    index = (ROOT / "docs" / "trackers.md").read_text()
    assert f"(trackers/{tracker}.md)" in index
    assert (ROOT / "docs" / "trackers" / f"{tracker}.md").read_text().startswith("# ")


@pytest.mark.parametrize("page", ["experiments", "flags"])
def test_configurations_of_flags_and_experiments_can_be_used(page: str) -> None:
    """A draft is checked as what it becomes."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    found = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    whole = [one for one in found if "features" in one]
    assert whole
    for one in whole:
        for definition in one.get("experiments", {}).values():
            definition["status"] = "running"
        assert Configuration(one, names_of(SCORES, compile_fold())).definitions.keys() == set(
            one.get("experiments", {})
        )

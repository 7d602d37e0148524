"""Configuration: unknown keys and wrong types are refused with the key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.settings import Settings, SettingsError, load_settings
from features.shop import load_shop


class Trees(Settings):
    leaves: int = 31
    names: tuple[str, ...] = ()


class Root(Settings):
    trees: Trees = Trees()


def load(tmp_path: Path, text: str, *overrides: str) -> Root:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return load_settings(path, Root, overrides)


def test_file_then_overrides(tmp_path: Path) -> None:
    root = load(tmp_path, "[trees]\nleaves = 7", 'trees.names=["a", "b"]', "trees.leaves=9")
    assert root.trees == Trees(leaves=9, names=("a", "b"))


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("[trees]\nleafs = 7", (), "unknown key 'trees.leafs'; allowed there: leaves, names"),
        ("", ("tree.leaves=7",), "unknown key 'tree'; allowed there: trees"),
        ("", ("trees.leaves=many",), "trees.leaves: .*integer.*found 'many'"),
        ("", ("trees.leaves",), "write it as section.key=value"),
        ("[trees", (), "is not valid TOML"),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, text: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(tmp_path, text, *overrides)


def test_a_missing_file_is_said() -> None:
    with pytest.raises(SettingsError, match="no configuration file nowhere.toml"):
        load_settings("nowhere.toml", Root)


def test_a_mapping_to_an_unknown_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text('[events]\nbestellung = "buy"')
    with pytest.raises(SettingsError, match="event 'bestellung' is mapped to unknown 'buy'; known: custom, page_view"):
        load_shop(path)
    path.write_text('[sources.x.columns]\nkunde = "user"')
    with pytest.raises(SettingsError, match="unknown event column 'kunde'"):
        load_shop(path)

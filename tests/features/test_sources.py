"""Sources: found by name, settings merged over the reader's own, locations, options; the visitor's key."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.errors import EventError
from features.events import ADD_TO_CART, COLUMNS, EVENT_NAMES, PAGE_VIEW, VIEW_ITEM, check_events
from features.pseudonyms import Pseudonymiser, load_key
from features.settings import Settings, SettingsError
from features.shop import ShopSettings, SourceSettings
from features.sources import concatenate, open_source, read_chunks, read_events, taobao

KEY = Pseudonymiser(b"0123456789abcdef")
AT = 1_511_550_516
LOG = f"100,4572582,2188684,pv,{AT}\n100,2971043,4869428,cart,{AT + 84}\n"


def shop(name: str = "taobao", **settings: Any) -> ShopSettings:
    return ShopSettings(sources={name: SourceSettings(**settings)})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def test_a_source_without_a_section_has_its_readers_settings(log: Path) -> None:
    _, reading = open_source("taobao", log, ShopSettings(), KEY)
    assert reading.settings == taobao.DEFAULTS


def test_a_section_changes_the_readers_settings_key_by_key(log: Path) -> None:
    section = {"timezone": "UTC", "events": {"pv": "page_view", "look": "view_item"}}
    _, reading = open_source("taobao", log, shop(**section), KEY)
    assert reading.settings.timezone == "UTC"
    assert reading.settings.events == {**taobao.DEFAULTS.events, "pv": "page_view", "look": "view_item"}
    assert reading.settings.columns == taobao.DEFAULTS.columns
    assert reading.settings.bad_rows == "skip"  # the reader's own, not the model's default
    events = read_events("taobao", log, shop(**section), KEY)
    assert events["name"].tolist() == [PAGE_VIEW, ADD_TO_CART]
    assert set(events["utc_offset"]) == {0}
    assert taobao.DEFAULTS.events["pv"] == "view_item"


def test_a_value_of_the_section_that_equals_the_models_default_counts_too(log: Path) -> None:
    _, reading = open_source("taobao", log, shop(bad_rows="error", start=None), KEY)
    assert (reading.settings.bad_rows, reading.settings.start) == ("error", None)
    assert reading.settings.end == taobao.DEFAULTS.end


def test_overrides_stand_above_the_section(log: Path) -> None:
    _, reading = open_source("taobao", log, shop(timezone="UTC"), KEY, overrides={"timezone": "Asia/Tokyo"})
    assert reading.settings.timezone == "Asia/Tokyo"


def test_a_section_of_another_name_follows_the_reader_it_names(log: Path) -> None:
    events = read_events("our_export", log, shop("our_export", reader="taobao"), KEY)
    assert events["name"].tolist() == [VIEW_ITEM, ADD_TO_CART]
    assert set(events["utc_offset"]) == {480}


def test_a_section_without_a_reader_is_a_log_with_a_row_an_event(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("who,at,what\njane,1511550516,login\n")
    columns = {"visitor": "who", "time": "at", "name": "what"}
    events = read_events("our_export", path, shop("our_export", columns=columns, time_unit="s"), KEY)
    assert events["visitor"].tolist() == [KEY.visitor("jane")]
    assert EVENT_NAMES[events["name"].item()] == "login"


def test_names_of_the_shop_are_known_to_every_source_and_the_sources_own_win(log: Path) -> None:
    general = ShopSettings(events={"pv": "search", "cart": "search", "look": "view_item"})
    log.write_text(LOG + LOG.replace("pv", "look"))
    events = read_events("taobao", log, general, KEY)
    assert events["name"].tolist() == [VIEW_ITEM, ADD_TO_CART, VIEW_ITEM, ADD_TO_CART]


def test_unknown_events_follow_the_source_then_the_shop(log: Path) -> None:
    log.write_text(LOG.replace("pv", "look"))
    custom = ShopSettings(unknown_events="custom")
    assert read_events("taobao", log, custom, KEY)["name"].tolist() == [0, ADD_TO_CART]
    strict = custom.model_copy(update={"sources": {"taobao": SourceSettings(unknown_events="error")}})
    with pytest.raises(EventError, match="unknown event 'look' in row 0"):
        read_events("taobao", log, strict, KEY)


def test_the_sections_path_is_read_where_none_is_given(log: Path, tmp_path: Path) -> None:
    assert len(read_events("taobao", None, shop(path=str(log)), KEY)) == 2
    other = tmp_path / "other.csv"
    other.write_text(LOG * 2)
    assert len(read_events("taobao", other, shop(path=str(log)), KEY)) == 4


def test_a_source_without_a_place_says_where_to_name_it() -> None:
    with pytest.raises(SettingsError, match=r"where is the log of 'taobao'\? .* \[sources\.taobao\] path"):
        read_events("taobao", None, ShopSettings(), KEY)


def test_an_unknown_source_says_which_there_are() -> None:
    with pytest.raises(SettingsError, match=r"unknown source 'ga5'; there are: .*") as caught:
        read_events("ga5", "x", shop("our_export"), KEY)
    for name in ("our_export", *(point.name for point in entry_points(group="lotse.sources"))):
        assert f" {name}" in str(caught.value)
    assert "A section [sources.ga5] in configs/shop.toml adds one" in str(caught.value)


def test_an_unknown_reader_says_which_there_are() -> None:
    with pytest.raises(SettingsError, match=r"source 'ours' names the unknown reader 'csv'; installed: access_log, .*"):
        read_events("ours", "x", shop("ours", reader="csv"), KEY)


def test_places_without_a_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(EventError, match=r"no file at .*none\.csv; give the path of the exported log"):
        read_events("taobao", tmp_path / "none.csv", ShopSettings(), KEY)
    with pytest.raises(EventError, match=r"no file of \*\.parquet or \*\.csv or \*\.csv\.gz at "):
        read_events("taobao", tmp_path, ShopSettings(), KEY)
    with pytest.raises(EventError, match=r"no file at .*\*\.csv"):
        read_events("taobao", tmp_path / "*.csv", ShopSettings(), KEY)


class Options(Settings):
    """What some reader alone understands."""

    limit: int = 10
    channel: str = "web"


def test_options_are_the_readers_own_settings(log: Path) -> None:
    _, reading = open_source("taobao", log, shop(options={"limit": 3}), KEY)
    assert reading.options(Options) == Options(limit=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": 3}, r"options\.limits: .*found 3\); known options: limit, channel"),
        ({"limit": "many"}, r"options\.limit: .*integer.*found 'many'"),
    ],
)
def test_an_option_that_cannot_be_is_named(log: Path, options: dict[str, Any], message: str) -> None:
    _, reading = open_source("taobao", log, shop(options=options), KEY)
    with pytest.raises(SettingsError, match=message):
        reading.options(Options)


@pytest.mark.parametrize("chunk_rows", [1, 2, 3])
def test_chunks_hold_at_most_so_many_events(log: Path, chunk_rows: int) -> None:
    log.write_text(LOG * 5)
    reader, reading = open_source("taobao", log, ShopSettings(), KEY, chunk_rows=chunk_rows)
    chunks = list(read_chunks(reader, reading))
    assert [len(chunk) for chunk in chunks[:-1]] == [chunk_rows] * (len(chunks) - 1)
    pd.testing.assert_frame_equal(concatenate(chunks), read_events("taobao", log, ShopSettings(), KEY))


def test_no_events_are_a_table_too(log: Path) -> None:
    log.write_text("")
    events = read_events("taobao", log, ShopSettings(), KEY)
    assert len(events) == 0
    assert {name: dtype.str[1:] for name, dtype in events.dtypes.items()} == {n: c.dtype for n, c in COLUMNS.items()}


@pytest.mark.parametrize("point", entry_points(group="lotse.sources"), ids=lambda point: point.name)
def test_every_reader_is_a_module_with_settings_and_a_generator(point: Any) -> None:
    reader = point.load()
    assert isinstance(reader.DEFAULTS, SourceSettings)
    assert callable(reader.read)
    assert reader.__doc__


def test_canonical_events_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    table = pd.DataFrame({"visitor": [7, 7, -8], "time": [AT * 1000 + i for i in range(3)], "name": [1, 4, 13]})
    table.to_parquet(path)
    events = read_events("lotse", path, ShopSettings(), KEY)
    pd.testing.assert_frame_equal(events, check_events(table))
    reader, reading = open_source("lotse", path, ShopSettings(), KEY, chunk_rows=1)
    assert [len(chunk) for chunk in read_chunks(reader, reading)] == [1, 1, 1]
    assert reading.notes.rows == 3
    table.head(0).to_parquet(path)
    assert len(read_events("lotse", path, ShopSettings(), KEY)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": [1, 4, 99]}, r"events\.parquet, counted from row 2 on: row 0: name is 99; expected a code"),
        ({"price": [1, 2, -1.0]}, r"events\.parquet, counted from row 2 on: row 0: price is -1.0; expected a finite"),
        ({"colour": [1, 2, 3]}, r"events\.parquet, counted from row 0 on: unknown event column 'colour'"),
    ],
)
def test_canonical_events_that_break_the_contract_are_named(
    tmp_path: Path, change: dict[str, list[float]], message: str
) -> None:
    path = tmp_path / "events.parquet"
    table = {"visitor": [7, 7, -8], "time": [AT * 1000 + i for i in range(3)], "name": [1, 4, 13]}
    pd.DataFrame({**table, **change}).to_parquet(path)
    reader, reading = open_source("lotse", path, ShopSettings(), KEY, chunk_rows=2)
    with pytest.raises(EventError, match=message):
        list(read_chunks(reader, reading))


def test_a_cut_file_of_canonical_events_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pd.DataFrame({"visitor": [7], "time": [AT * 1000], "name": [1]}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(EventError, match=r"events\.parquet cannot be read as Parquet: "):
        read_events("lotse", path, ShopSettings(), KEY)


def test_a_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "data" / "pseudonym.key"
    key = load_key(path)
    assert load_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert Pseudonymiser(key).visitor("jane") != KEY.visitor("jane")


def test_without_a_key_that_of_the_folder_is_used(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    events = read_events("taobao", log, ShopSettings())
    key = Pseudonymiser((tmp_path / "lotse-data" / "pseudonym.key").read_bytes())
    assert events["visitor"].tolist() == [key.visitor("100")] * 2

"""Reading a log in the terminal: what is said about it; `lotse sources`."""

from __future__ import annotations

import io
import sqlite3
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from features.errors import EventError
from features.settings import SettingsError
from features.shop import ShopSettings, SourceSettings
from features.sources import Notes
from features.sources.terminal import left_aside, read_log
from tests.shared import TAOBAO
from tests.workspace import lotse, workspace

COLUMNS = {"visitor": "who", "time": "at", "name": "what"}


def read(source: str, location: str | None, shop: ShopSettings) -> tuple[pd.DataFrame, str]:
    console = Console(file=io.StringIO(), width=200)
    events = read_log(source, location, shop, console)
    return events, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the pseudonym key is made


def test_events_rows_left_out_and_names_not_mapped_are_said() -> None:
    _, said = read("taobao", str(TAOBAO), ShopSettings())
    assert "45,163 events of 413 visitors from taobao" in said
    assert "left out: 20 outside start and end (all of it: lotse inspect)" in said
    assert "not mapped" not in said


def test_a_folder_a_pattern_and_the_sections_own_path_are_locations() -> None:
    Path("logs").mkdir()
    for number in range(3):
        Path(f"logs/log-[{number}].csv").write_text(f"who,at,what\njane,{1_700_000_000_000 + number},page_view\n")
    own = SourceSettings(columns=COLUMNS, path="logs/*.csv", unknown_events="custom")
    shop = ShopSettings(sources={"mine": own})
    for location in (None, "logs/log-*.csv", "logs"):
        events, said = read("mine", location, shop)
        assert events["time"].tolist() == [1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_002]
        assert said == "3 events of 1 visitors from mine\n"
    with pytest.raises(SettingsError, match="where is the log of 'taobao'"):
        read("taobao", None, shop)
    with pytest.raises(EventError, match="no file at other-"):
        read("mine", "other-*.csv", shop)


def test_where_a_log_lies_is_not_shown_for_a_url_may_hold_a_password() -> None:
    with sqlite3.connect("shop.db") as database:
        database.execute("create table log (who text, at integer, what text)")
        database.execute("insert into log values ('jane', 1700000000000, 'kaufen')")
    database.close()
    own = SourceSettings(reader="sql", columns=COLUMNS, unknown_events="custom", options={"table": "log"})
    _, said = read("mine", "sqlite:///shop.db", ShopSettings(sources={"mine": own}))
    assert said == "1 events of 1 visitors from mine\nnot mapped: 1 kaufen (all of it: lotse inspect)\n"


def test_the_line_names_the_most_frequent_three() -> None:
    notes = Notes(skipped=Counter({"time: missing": 1_200}), unmapped=Counter(a=4, b=3, c=2, d=1, e=1))
    assert left_aside(notes) == "left out: 1,200 time: missing; not mapped: 4 a, 3 b, 2 c and 2 more"
    assert left_aside(Notes(rows=5)) == ""


def test_the_verb_lists_readers_and_the_shops_sections(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "work")
    (folder / "configs" / "shop.toml").write_text(
        '[sources.taobao]\nstart = ""\n[sources.till]\nreader = "sql"\npath = "sqlite:///till.db?password=geheim"\n'
        '[sources.web]\npath = "logs/*.csv"\n'
    )
    done = lotse(folder, "sources")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.replace("│", " ").split())
    assert "taobao User behaviour log of a large [sources.taobao]" in said
    assert "snowplow Enriched events of a Snowplow" in said
    assert "till your log, read by sql [sources.till]" in said
    assert "web your log, read by columns: logs/*.csv" in said
    assert "geheim" not in done.stdout

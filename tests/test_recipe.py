"""The recipes of CONTRIBUTING.md, carried out: their code is taken from the page, so it cannot drift."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import features.sources
from features.batch import build_rows
from features.compiler import compile_fold
from features.definitions import CATALOGUE
from features.errors import EventError
from features.events import PURCHASE, VIEW_ITEM, hash64
from features.pseudonyms import Pseudonymiser
from features.shop import ShopSettings, SourceSettings
from features.sources import Notes, concatenate, open_source, read_chunks
from features.sources.reading import CUT_OFF
from tests.workspace import LOTSE, ROOT, environment

KEY = Pseudonymiser(b"0123456789abcdef")


def recipe(title: str) -> str:
    """A section of CONTRIBUTING.md."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    return dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL))[title]


def code(section: str, language: str) -> str:
    """Its one block of code in a language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
    return str(block)


def file_named(section: str, folder: str) -> Path:
    """The one new file that it says to write into a folder."""
    (name,) = set(re.findall(rf"`({folder}/\w+\.py)`", section))
    return Path(name)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a tree but what Python and pytest write for themselves."""
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# Scrolled to 80, 74 and 75 %, two searches: seen in batch and live, right after each event and a minute later.
SEEN = """
import json
import numpy as np
import pandas as pd
import features.compiler
from features.batch import build_rows
from features.compiler import compile_fold
from features.events import PAGE_VIEW, SCROLL, SEARCH, Event

START = 1_700_000_000_000
NAMES = ["deep_scrolls", "search_share"]
happened = [(PAGE_VIEW, 0.0), (SCROLL, 0.8), (SEARCH, 0.0), (SCROLL, 0.74), (SEARCH, 0.9), (SCROLL, 0.75)]
events = [
    Event(visitor=7, time=START + 1000 * place, name=name, value=value) for place, (name, value) in enumerate(happened)
]
fold = compile_fold()
columns = [fold.names.index(name) for name in NAMES]
batch = build_rows(pd.DataFrame(events), fold, idle_seconds=(60,)).matrix
record, out, live = fold.new_record(), fold.new_row(), []
for event in events:
    fold.advance(record, out, 1_800_000, fold.nothing_learned, *event)
    live.append(out.copy())
fold.read(record, events[-1].time + 60_000, out, fold.nothing_learned)
live.append(out)
print(json.dumps({
    "code": features.compiler.__file__,
    "digest": fold.digest,
    "same": batch.tobytes() == np.stack(live).tobytes(),
    "batch": batch[:, columns].T.tolist(),
    "live": [[float(row[column]) for row in live] for column in columns],
}))
"""


@pytest.mark.slow
def test_a_feature_is_one_file(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("features", "training", "serving", "simulation", "tests", "docs", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    here = environment() | {"PYTHONPATH": str(copy), "LOTSE_CACHE": str(tmp_path / "cache")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=copy, env=here, capture_output=True, text=True, timeout=300, check=False)

    section = recipe("Add a feature")
    file = file_named(section, "features/definitions")
    assert run(*LOTSE, "features", "docs").returncode == 0
    before = contents(copy)
    (copy / file).write_text(code(section, "python"))
    assert file.name not in {known.name for known in (ROOT / "features" / "definitions").iterdir()}

    done = run(sys.executable, "-c", SEEN)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert Path(seen["code"]).is_relative_to(copy)
    shares = np.float32([0, 0, 1 / 3, 1 / 4, 2 / 5, 2 / 6, 2 / 6]).tolist()
    assert seen["batch"] == seen["live"] == [[0, 1, 1, 1, 1, 2, 2], shares]
    assert seen["same"] is True
    assert seen["digest"] != compile_fold().digest  # what was trained before is refused

    listed = run(*LOTSE, "features", "list", "--group", file.stem).stdout
    assert "search_share" in listed and "deep_scrolls" in listed
    stale = run(*LOTSE, "features", "docs", "--check")
    assert (stale.returncode, stale.stderr) == (2, "error: docs/features.md is out of date; run: lotse features docs\n")
    assert contents(copy) == before | {str(file): code(section, "python").encode()}

    assert run(*LOTSE, "features", "docs").returncode == 0
    assert run(*LOTSE, "features", "docs", "--check").returncode == 0
    page = (copy / "docs" / "features.md").read_text()
    assert f"One vector of {len(CATALOGUE.features) + 2} numbers" in page
    assert f"## {file.stem}\n" in page
    meaning = "Searches among all events: visitors who know what they want."
    assert f"| `search_share` | {meaning} | share |  |\n" in page
    changed = {name for name, content in contents(copy).items() if before.get(name) != content}
    assert changed == {str(file), "docs/features.md"}

    conform = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/features/test_conformance.py")
    assert conform.returncode == 0, conform.stdout


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The source of the recipe, as if it were installed: the name that its line gives it."""
    section = recipe("Add a source")
    file = file_named(section, "features/sources")
    line = code(section, "toml")
    assert line == f'{file.stem} = "features.sources.{file.stem}"\n'
    (tmp_path / file.name).write_text(code(section, "python"))
    # what an installer writes: the entry points of a distribution, in a folder that Python looks in
    installed = tmp_path / "recipe-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: recipe\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[lotse.sources]\n" + line.replace('"', ""))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(features.sources, "__path__", [*features.sources.__path__, str(tmp_path)])
    yield file.stem
    sys.modules.pop(f"features.sources.{file.stem}", None)


def read(source: str, path: Path, chunk_rows: int = 100, **settings: Any) -> tuple[pd.DataFrame, Notes]:
    shop = ShopSettings(sources={source: SourceSettings(**settings)})
    reader, reading = open_source(source, path, shop, KEY, chunk_rows=chunk_rows)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


VIEW, BUY = "at=1767225600 who=jane what=view item=42\n", "at=1767225660.5 who=joe what=buy\n"


@pytest.mark.parametrize("chunk_rows", [1, 100])
def test_a_source_is_one_module(source: str, tmp_path: Path, chunk_rows: int) -> None:
    log = tmp_path / "web.log"
    log.write_text(VIEW + "\n" + BUY + "at=1767225661 who=ja")
    events, notes = read(source, log, chunk_rows)
    assert events["visitor"].tolist() == [KEY.visitor("jane"), KEY.visitor("joe")]
    assert events["time"].tolist() == [1_767_225_600_000, 1_767_225_660_500]
    assert events["name"].tolist() == [VIEW_ITEM, PURCHASE]
    assert events["item"].tolist() == [hash64("42"), 0]
    assert events["consent"].tolist() == [1, 1]
    assert (notes.rows, notes.skipped) == (3, {CUT_OFF: 1})
    rows = build_rows(events, idle_seconds=())
    assert rows.matrix[:, rows.names.index("item_views")].sum() == 1


def test_the_recipes_source_names_a_bad_row_and_can_leave_it_out(source: str, tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text(VIEW + "at=1767225610 what=view\n" + BUY)
    with pytest.raises(EventError, match=r"web.log, row 1: no who= in the line; expected at=1767225600 who=jane"):
        read(source, log)
    events, notes = read(source, log, bad_rows="skip")
    assert events["name"].tolist() == [VIEW_ITEM, PURCHASE]
    assert (notes.rows, notes.skipped) == (3, {"not a line of pairs": 1})
    log.write_text(VIEW + BUY.replace("buy", "steal"))
    with pytest.raises(EventError, match="unknown event 'steal' in row 1"):
        read(source, log)
    log.write_text("")
    assert len(read(source, log)[0]) == 0

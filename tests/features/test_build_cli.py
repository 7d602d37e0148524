"""`lotse features build`: a log in, Parquet files of rows out; the same rows on this machine and on a cluster."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from features import build_cli
from features.batch import build_rows
from features.cli import features_app
from features.compiler import compile_fold
from features.definitions import CATALOGUE
from features.distributed import write_rows_distributed
from features.errors import EventError
from features.pseudonyms import Pseudonymiser, load_key
from features.settings import SettingsError
from features.shop import ShopSettings, load_shop
from features.sources import open_source, read_events
from features.stream import KEYS
from simulation.shop import simulate
from tests.shared import TAOBAO
from tests.workspace import lotse, workspace

KEY = Pseudonymiser(b"0123456789abcdef")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user, who stands in it."""
    monkeypatch.chdir(workspace(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 4,000 events of a simulated shop, in two files."""
    folder = tmp_path_factory.mktemp("shop")
    events = simulate(events=4_000, seed=5).events
    events.iloc[:1_500].to_parquet(folder / "a.parquet", index=False)
    events.iloc[1_500:].to_parquet(folder / "b.parquet", index=False)
    return folder


def build(*arguments: object) -> str:
    """What the verb prints."""
    done = CliRunner().invoke(features_app, ["build", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def written(folder: Path | str) -> pd.DataFrame:
    files = sorted(Path(folder).iterdir())
    assert [file.name for file in files] == [f"rows-{number:05d}.parquet" for number in range(len(files))]
    return pd.concat([pq.read_table(file).to_pandas() for file in files], ignore_index=True)


def assert_same_rows(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Every bit; which visitor comes first is no part of it."""
    assert list(found.columns) == list(expected.columns)
    left, right = (frame.sort_values("visitor", kind="stable") for frame in (found, expected))
    for name in left.columns:
        assert left[name].to_numpy().tobytes() == right[name].to_numpy().tobytes(), name


def in_memory(events: pd.DataFrame, **settings: Any) -> pd.DataFrame:
    rows = build_rows(events, **settings)
    keys = (rows.events["visitor"].to_numpy()[rows.event], rows.now, rows.prefix, rows.idle_ms)
    return pd.concat([pd.DataFrame(dict(zip(KEYS, keys, strict=True))), rows.frame()], axis=1)


def test_a_simulated_shop(folder: Path, shop: Path) -> None:
    said = build("lotse", shop, "--out", "rows", "--idle", "5,60", "--timeout-minutes", "10", "--buckets", "3")
    expected = in_memory(read_events("lotse", shop, ShopSettings(), KEY), idle_seconds=(5, 60), timeout_seconds=600)
    assert_same_rows(written(folder / "rows"), expected)
    events = sum(pq.read_metadata(file).num_rows for file in shop.iterdir())
    assert f"{events:,} events, {len(expected):,} rows in 1 files in rows\n" in said
    assert re.search(rf"\d s, [\d,]+ rows/s; feature digest {compile_fold().digest}\n", said)


def test_a_log_of_its_own_format(folder: Path) -> None:
    said = build("taobao", TAOBAO, "--out", "rows", "--idle", "")
    assert "45,163 events, 45,163 rows in 1 files in rows\n" in said
    assert "left out: 20 rows, outside start and end\n" in said
    rows = written(folder / "rows")
    log = pd.read_parquet(TAOBAO)
    visitor = Pseudonymiser(load_key(folder / "lotse-data" / "pseudonym.key")).visitor(str(log["user_id"].iloc[0]))
    own = log[(log["user_id"] == log["user_id"].iloc[0]) & (log["timestamp"] >= 1511539200)]
    assert sorted(rows.loc[rows["visitor"] == visitor, "now"]) == sorted(own["timestamp"] * 1000)


def test_what_is_not_mapped_is_told(folder: Path) -> None:
    (folder / "log.csv").write_text("user,at,event\njane,1767225600,page_view\njane,1767225605,wink\n")
    (folder / "shop.toml").write_text(
        'unknown_events = "custom"\n[sources.mine]\npath = "log.csv"\ntime_unit = "s"\n'
        '[sources.mine.columns]\nvisitor = "user"\ntime = "at"\nname = "event"\n'
    )
    said = build("mine", "--shop", "shop.toml", "--out", "rows", "--idle", "5,60")
    assert "2 events, 4 rows in 1 files in rows\n" in said
    assert said.endswith("not mapped: wink in 1 rows\n")
    assert (written("rows")["now"] // 1000 - 1767225600).tolist() == [0, 5, 10, 65]


def test_chosen_features_alone(folder: Path, shop: Path) -> None:
    said = build("lotse", shop, "--out", "rows", "--feature", "searches", "--feature", "forms_open")
    fold = compile_fold(CATALOGUE.select(["searches", "forms_open"]))
    schema = pq.read_schema("rows/rows-00000.parquet")
    assert set(schema.names) == {*KEYS, "searches", "forms_open", "form_starts", "form_submits"}
    assert schema.metadata[b"feature_digest"].decode() == fold.digest
    assert f"feature digest {fold.digest}\n" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--feature", "cart_add"], "unknown feature 'cart_add'; did you mean cart_adds"),
        (["--feature", "xyzzy"], "unknown feature 'xyzzy'; lotse features list shows all"),
        (["--idle", "5,soon"], "--idle is '5,soon'; expected seconds such as 5,10,30,60,300"),
        (["--idle", "-5"], "--idle is '-5'; expected seconds"),
        (["--idle", "inf"], "--idle is 'inf'; expected seconds"),
        (["--cluster", "--scheduler", "tcp://127.0.0.1:1"], "give one of them"),
    ],
)
def test_options_that_cannot_be_used(folder: Path, shop: Path, options: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        build("lotse", shop, "--out", "rows", *options)
    assert not Path("rows").exists()


def test_rows_are_never_mixed_with_older_ones(folder: Path, shop: Path) -> None:
    build("lotse", shop, "--out", "rows")
    before = written("rows")
    for more in ([], ["--cluster"]):
        with pytest.raises(SettingsError, match="rows holds rows already; give an empty folder, or remove them"):
            build("lotse", shop, "--out", "rows", *more)
    pd.testing.assert_frame_equal(written("rows"), before)


def test_a_mistake_is_one_line(folder: Path, shop: Path) -> None:
    for arguments, said in [
        (("lotse", str(shop), "--out", "configs/shop.toml"), "error: [Errno 17] File exists: 'configs/shop.toml'\n"),
        (("lotse", "nowhere", "--out", "rows"), "error: no file at nowhere; give the path of the exported log\n"),
    ]:
        done = lotse(folder, "features", "build", *arguments)
        assert (done.returncode, done.stderr) == (2, said)


def test_a_bad_row_leaves_no_rows_behind(folder: Path) -> None:
    simulate(events=1_000, seed=1).events.assign(price=np.nan).to_parquet("bad.parquet")
    with pytest.raises(EventError, match=r"bad.parquet, counted from row 0 on: row 0: price is NaN"):
        build("lotse", "bad.parquet", "--out", "rows")
    assert list(Path("rows").iterdir()) == []


def test_workers_read_canonical_files_as_they_are_unless_they_are_too_large(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(shop, tmp_path / "copy")
    (copy / "c.parquet").touch()
    files = [copy / "a.parquet", copy / "b.parquet"]
    whole = sum(pq.read_metadata(file).num_rows for file in files)
    assert build_cli.own_parts(*open_source("lotse", copy, ShopSettings(), KEY)) == (files, whole)
    monkeypatch.setattr(build_cli, "PART_EVENTS", whole - 1_500)
    assert build_cli.own_parts(*open_source("lotse", copy, ShopSettings(), KEY)) == (files, whole)
    monkeypatch.setattr(build_cli, "PART_EVENTS", whole - 1_501)
    assert build_cli.own_parts(*open_source("lotse", copy, ShopSettings(), KEY)) == ([], 0)
    monkeypatch.undo()
    (copy / "a.parquet").write_bytes(b"PAR1 cut off")
    assert build_cli.own_parts(*open_source("lotse", copy, ShopSettings(), KEY)) == ([], 0)
    assert build_cli.own_parts(*open_source("taobao", TAOBAO, ShopSettings(), KEY)) == ([], 0)


class Elsewhere:
    """A cluster whose workers do not see a path."""

    def __init__(self, unseen: Path) -> None:
        self.unseen = unseen

    def submit(self, task: Any, *arguments: object, pure: bool) -> None:
        if self.unseen.is_dir():
            shutil.rmtree(self.unseen)
        else:
            self.unseen.unlink()
        task(*arguments)


@pytest.mark.parametrize("unseen", ["rows/.spilled", "a.parquet"])
def test_a_worker_that_does_not_see_the_files_is_told_of(shop: Path, tmp_path: Path, unseen: str) -> None:
    part = shutil.copy(shop / "a.parquet", tmp_path)
    with pytest.raises(SettingsError, match=rf"a worker does not see .*{unseen}; all need the log and the rows"):
        write_rows_distributed([part], tmp_path / "rows", Elsewhere(tmp_path / unseen))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a running cluster."""
    from distributed import LocalCluster  # noqa: PLC0415

    options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster:
        yield cluster.scheduler_address


@pytest.mark.slow
@pytest.mark.parametrize("part_events", [build_cli.PART_EVENTS, 1_000])
def test_a_cluster_that_is_there(
    folder: Path, shop: Path, scheduler: str, part_events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its workers read the log's files as they are or parts of them."""
    monkeypatch.setattr(build_cli, "PART_EVENTS", part_events)
    here, there = (build("lotse", shop, "--out", out, *more) for out, more in
                   (("here", []), ("there", ["--scheduler", scheduler])))  # fmt: skip
    assert_same_rows(written("there"), written("here"))
    assert there.splitlines()[0] == here.splitlines()[0].replace("in here", "in there")


@pytest.mark.slow
def test_a_cluster_of_this_machine(folder: Path) -> None:
    """One line of what is wrong with a log, too, and nothing left behind."""
    done = lotse(folder, "features", "build", "taobao", str(TAOBAO), "--out", "rows", "--cluster")
    assert (done.returncode, done.stderr) == (0, "")
    assert "45,163 events, 199,487 rows in 1 files in rows\n" in done.stdout
    assert "left out: 20 rows, outside start and end\n" in done.stdout
    key = Pseudonymiser(load_key(folder / "lotse-data" / "pseudonym.key"))
    expected = in_memory(read_events("taobao", TAOBAO, load_shop(), key))
    assert_same_rows(written("rows"), expected)

    simulate(events=1_000, seed=1).events.assign(price=np.nan).to_parquet("bad.parquet")
    done = lotse(folder, "features", "build", "lotse", "bad.parquet", "--out", "none", "--cluster")
    assert done.returncode == 2
    assert re.fullmatch(r"error: /.*/bad.parquet: row 0: price is NaN; .*\n", done.stderr)
    assert list((folder / "none").iterdir()) == []


@pytest.mark.slow
def test_nobody_answers(folder: Path, shop: Path) -> None:
    with pytest.raises(SettingsError, match="no Dask scheduler answers at tcp://127.0.0.1:1: "):
        build("lotse", shop, "--out", "rows", "--scheduler", "tcp://127.0.0.1:1")

"""The reader of the marketplace log: published CSV without a heading, or Parquet; nine local days."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.batch import build_rows
from features.errors import EventError
from features.events import ADD_TO_CART, ADD_TO_WISHLIST, PURCHASE, VIEW_ITEM, hash64
from features.pseudonyms import Pseudonymiser
from features.shop import ShopSettings
from features.sources import concatenate, open_source, read_chunks
from features.sources.columns import OTHER_WIDTH
from features.sources.convert import OUTSIDE
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Notes
from tests.shared import TAOBAO

KEY = Pseudonymiser(b"0123456789abcdef")
AT = 1_511_550_516  # 2017-11-25 03:08:36 in Shanghai
LOG = f"""100,4572582,2188684,pv,{AT}
100,2971043,4869428,fav,{AT + 84}
100,2971043,4869428,cart,{AT + 90}
101,2379198,4869428,buy,{AT + 90}
"""


def read(path: Path, chunk_rows: int = 100_000, **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("taobao", path, ShopSettings(), KEY, chunk_rows=chunk_rows, overrides=overrides)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "UserBehavior.csv"
    path.write_text(text)
    return path


def test_the_real_log_has_the_published_numbers() -> None:
    events, notes = read(TAOBAO, start=None, end=None)
    assert (len(events), notes.skipped) == (45_183, {})
    rows = build_rows(events, idle_seconds=())
    per_session = rows.events.groupby("session_index")["name"]
    assert per_session.ngroups == 7_283
    assert (per_session.size() == 1).mean() == pytest.approx(0.303, abs=0.001)
    assert per_session.agg(lambda names: (names == PURCHASE).any()).mean() == pytest.approx(0.092, abs=0.001)


def test_the_nine_days_leave_out_some_twenty_rows_and_say_so() -> None:
    events, notes = read(TAOBAO)
    assert (len(events), notes.rows, dict(notes.skipped)) == (45_163, 45_183, {OUTSIDE: 20})
    assert events["visitor"].nunique() == 413
    assert (events["name"] == PURCHASE).sum() == 854
    assert set(events["utc_offset"]) == {480}
    assert set(events["consent"]) == {3}


def test_the_published_csv_has_no_heading(tmp_path: Path) -> None:
    events, _ = read(written(tmp_path, LOG))
    assert events["name"].tolist() == [VIEW_ITEM, ADD_TO_WISHLIST, ADD_TO_CART, PURCHASE]
    assert events["visitor"].tolist() == [KEY.visitor("100")] * 3 + [KEY.visitor("101")]
    assert events["time"].tolist() == [AT * 1000, (AT + 84) * 1000, (AT + 90) * 1000, (AT + 90) * 1000]
    assert events["item"].tolist() == [hash64(item) for item in ("4572582", "2971043", "2971043", "2379198")]
    assert events["category"].tolist() == [hash64("2188684")] + [hash64("4869428")] * 3


def test_a_heading_that_is_there_all_the_same_is_no_row(tmp_path: Path) -> None:
    plain, _ = read(written(tmp_path, LOG))
    headed, notes = read(written(tmp_path, "user_id,item_id,category_id,behavior_type,timestamp\n" + LOG))
    pd.testing.assert_frame_equal(headed, plain)
    assert (notes.rows, notes.skipped) == (4, {})


def test_csv_gzip_and_parquet_give_the_same_events(tmp_path: Path) -> None:
    table = pd.read_parquet(TAOBAO).head(2_000)
    csv, zipped, parquet = tmp_path / "log.csv", tmp_path / "log.csv.gz", tmp_path / "log.parquet"
    table.to_csv(csv, index=False, header=False)
    zipped.write_bytes(gzip.compress(csv.read_bytes()))
    table.to_parquet(parquet)
    expected, _ = read(parquet)
    assert len(expected) == 2_000
    for path in (csv, zipped):
        pd.testing.assert_frame_equal(read(path)[0], expected)


@pytest.mark.parametrize("chunk_rows", [1, 2, 3])
def test_chunks_change_nothing(tmp_path: Path, chunk_rows: int) -> None:
    path = written(tmp_path, LOG)
    pd.testing.assert_frame_equal(read(path, chunk_rows)[0], read(path)[0])


def test_a_truncated_file_loses_its_last_row_only(tmp_path: Path) -> None:
    for cut in (LOG[:-4], LOG[:-14]):  # in the middle of the time, and before it
        events, notes = read(written(tmp_path, cut))
        assert (len(events), notes.rows, notes.skipped.total()) == (3, 4, 1)
    assert notes.skipped == {CUT_OFF: 1}


def test_a_truncated_gzip_file_gives_the_rows_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    whole = gzip.compress("".join(f"{i},{i * 7919 % 1009},1,pv,{AT + i}\n" for i in range(5_000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    events, notes = read(path)
    assert 1_000 < len(events) < 4_000
    assert events["visitor"].tolist() == [KEY.visitor(str(i)) for i in range(len(events))]
    assert notes.skipped == {CUT_OFF_STREAM: 1}


def test_an_empty_file_gives_no_events(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, ""))
    assert (len(events), notes.rows) == (0, 0)


def test_bad_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    bad = LOG.replace(f"fav,{AT + 84}", "fav,soon") + "1,2\n" + LOG
    events, notes = read(written(tmp_path, bad))
    assert (len(events), notes.rows) == (7, 9)
    assert notes.skipped == {"time: not a number": 1, OTHER_WIDTH: 1}


def test_bad_rows_can_be_errors(tmp_path: Path) -> None:
    with pytest.raises(EventError, match=r"row 1: time is 'soon'; expected a whole number of s"):
        read(written(tmp_path, LOG.replace(f"fav,{AT + 84}", "fav,soon")), bad_rows="error")
    with pytest.raises(EventError, match=r"row 4: found 2 cells; expected 5: user_id, item_id"):
        read(written(tmp_path, LOG + "1,2\n" + LOG), bad_rows="error")


def test_an_unknown_behaviour_is_named(tmp_path: Path) -> None:
    with pytest.raises(EventError, match=r"unknown event 'share it' in row 2; .*\[sources\.<name>\.events\]"):
        read(written(tmp_path, LOG.replace("cart", "share it")))


def test_repeated_rows_get_the_same_id_when_they_are_to_be_dropped(tmp_path: Path) -> None:
    events, _ = read(written(tmp_path, LOG + LOG), repeated_rows="drop")
    assert events["id"].nunique() == 4
    assert events["id"].tolist()[:4] == events["id"].tolist()[4:]

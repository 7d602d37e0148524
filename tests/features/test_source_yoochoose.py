"""The reader of a shop's clicks and buys: the published files without headings, and the prepared sample."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.batch import build_rows
from features.errors import EventError
from features.events import CONSENT_MEASURE, PURCHASE, SELECT_PROMOTION, VIEW_ITEM, hash64
from features.pseudonyms import Pseudonymiser
from features.shop import ShopSettings, SourceSettings
from features.sources import concatenate, open_source, read_chunks, read_events
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Notes
from tests.shared import SHARED

KEY = Pseudonymiser(b"0123456789abcdef")
SAMPLE = SHARED / "data" / "yoochoose_clicks_100k"
CLICKS = """1,2014-04-07T10:51:09.277Z,214536502,0
1,2014-04-07T10:54:09.868Z,214536500,S
2,2014-04-07T13:56:37.614Z,214662742,12
"""
BUYS = """1,2014-04-07T11:00:00.500Z,214536502,1046,2
2,2014-04-07T14:00:00.000Z,214662742,0,0
"""
AT_MS = 1_396_867_869_277  # 2014-04-07T10:51:09.277Z


def read(path: Path, chunk_rows: int = 100_000, **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("yoochoose", path, ShopSettings(), KEY, chunk_rows=chunk_rows, overrides=overrides)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def written(tmp_path: Path, clicks: str = CLICKS, buys: str = BUYS) -> Path:
    (tmp_path / "yoochoose-clicks.dat").write_text(clicks)
    (tmp_path / "yoochoose-buys.dat").write_text(buys)
    (tmp_path / "dataset-README.txt").write_text("The data comprises the following files\n")
    return tmp_path


def test_clicks_become_events(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path) / "yoochoose-clicks.dat")
    assert events["name"].tolist() == [VIEW_ITEM, SELECT_PROMOTION, VIEW_ITEM]
    assert events["visitor"].tolist() == [KEY.visitor("1"), KEY.visitor("1"), KEY.visitor("2")]
    assert events["time"].tolist() == [AT_MS, AT_MS + 180_591, AT_MS + 11_128_337]
    assert events["item"].tolist() == [hash64("214536502"), hash64("214536500"), hash64("214662742")]
    assert events["category"].tolist() == [0, 0, hash64("12")]
    assert set(events["consent"]) == {CONSENT_MEASURE}
    assert (notes.rows, notes.skipped) == (3, {})


def test_buys_become_purchases_and_zero_is_unknown(tmp_path: Path) -> None:
    events, _ = read(written(tmp_path) / "yoochoose-buys.dat")
    assert events["name"].tolist() == [PURCHASE, PURCHASE]
    assert events["price"].tolist() == [1046, 0]
    assert events["quantity"].tolist() == [2, 1]
    assert events["value"].tolist() == [2092, 0]


def test_a_folder_with_both_files_is_one_history(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path))
    assert (len(events), notes.rows) == (5, 5)
    folded = build_rows(events, idle_seconds=()).events
    first = folded[folded["visitor"] == KEY.visitor("1")]
    assert first["name"].tolist() == [VIEW_ITEM, SELECT_PROMOTION, PURCHASE]
    assert first["session_index"].nunique() == 1


def test_a_special_offer_can_be_mapped_otherwise(tmp_path: Path) -> None:
    shop = ShopSettings(sources={"yoochoose": SourceSettings(events={"special offer": "view_item"})})
    events = read_events("yoochoose", written(tmp_path) / "yoochoose-clicks.dat", shop, KEY)
    assert set(events["name"]) == {VIEW_ITEM}


def test_the_prepared_sample_has_the_known_numbers() -> None:
    events, notes = read(SAMPLE / "train_full.tsv.gz")
    assert (len(events), notes.rows, notes.skipped) == (70_278, 70_278, {})
    assert events["visitor"].nunique() == 17_794
    assert events["time"].iloc[0] == 1_396_437_466_940  # 1396437466.94 s: no millisecond is lost in binary
    assert events["item"].iloc[0] == hash64("214716935")
    assert set(events["name"]) == {VIEW_ITEM}
    both, _ = read(SAMPLE)
    assert len(both) == 70_278 + 13_568
    assert both["visitor"].nunique() == 17_794 + 3_416


@pytest.mark.parametrize("chunk_rows", [1, 2])
def test_chunks_change_nothing(tmp_path: Path, chunk_rows: int) -> None:
    path = written(tmp_path)
    pd.testing.assert_frame_equal(read(path, chunk_rows)[0], read(path)[0])


def test_truncated_files_lose_their_last_row_only(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, CLICKS[:-14], BUYS[:-5]))
    assert (len(events), notes.rows, dict(notes.skipped)) == (3, 5, {CUT_OFF: 2})


def test_a_truncated_gzip_file_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "yoochoose-clicks.dat.gz"
    path.write_bytes(gzip.compress((CLICKS * 1_000).encode())[:-40])
    events, notes = read(path)
    assert notes.skipped == {CUT_OFF_STREAM: 1}
    assert 0 < len(events) < 3_000


def test_empty_files_give_no_events(tmp_path: Path) -> None:
    assert len(read(written(tmp_path, "", ""))[0]) == 0


def test_bad_rows_are_named_or_skipped(tmp_path: Path) -> None:
    bad = written(tmp_path, CLICKS.replace("2014-04-07T10:54:09.868Z", "lunch"), BUYS.replace("1046,2", "1046,two"))
    with pytest.raises(EventError, match=r"yoochoose-clicks\.dat, row 1: time is 'lunch'; expected a time like"):
        read(bad / "yoochoose-clicks.dat")
    with pytest.raises(EventError, match=r"yoochoose-buys\.dat, row 0: quantity is 'two'; expected a number"):
        read(bad / "yoochoose-buys.dat")
    events, notes = read(bad, bad_rows="skip")
    assert len(events) == 3
    assert notes.skipped == {"time: no time": 1, "quantity: not a number": 1}


def test_a_negative_price_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EventError, match=r"row 0: price is '-5'; expected a finite number, 0 or more"):
        read(written(tmp_path, buys=BUYS.replace("1046", "-5")))


def test_a_name_that_the_mapping_lost_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(EventError, match="unknown event 'buy' in row 0"):
        read(path, events={"click": "view_item"})


def test_another_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.dat"
    path.write_text("1,2,3\n")
    with pytest.raises(EventError, match=r"begins with '1,2,3'; expected session,timestamp,item,category or"):
        read(path)

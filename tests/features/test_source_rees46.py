"""The reader of REES46's events: times in SQL's way, sessions of the log, prices."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.csv
import pyarrow.parquet
import pytest

from features.errors import EventError
from features.events import ADD_TO_CART, PURCHASE, REMOVE_FROM_CART, VIEW_ITEM, hash64
from features.pseudonyms import Pseudonymiser
from features.shop import ShopSettings
from features.sources import concatenate, open_source, read_chunks
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Notes

KEY = Pseudonymiser(b"0123456789abcdef")
HEAD = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
LOG = f"""{HEAD}2019-11-01 00:00:00 UTC,view,1003461,2053013555631882655,electronics.smartphone,xiaomi,489.07,520088904,4d3b30da
2019-11-01 00:00:01 UTC,cart,5000088,2053013566100866035,appliances.sewing_machine,janome,293.65,530496790,8e5f4f83
2019-11-01 00:00:01 UTC,remove_from_cart,5000088,2053013566100866035,,,293.65,530496790,8e5f4f83
2019-11-01 00:00:09 UTC,purchase,17302664,2053013553853497655,,creed,28.31,561587266,
"""  # noqa: E501
AT_MS = 1_572_566_400_000


def read(path: Path, chunk_rows: int = 100_000, **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("rees46", path, ShopSettings(), KEY, chunk_rows=chunk_rows, overrides=overrides)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "2019-Nov.csv"
    path.write_text(text)
    return path


def test_rows_become_events(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, LOG))
    assert events["name"].tolist() == [VIEW_ITEM, ADD_TO_CART, REMOVE_FROM_CART, PURCHASE]
    assert events["time"].tolist() == [AT_MS, AT_MS + 1_000, AT_MS + 1_000, AT_MS + 9_000]
    assert events["visitor"].tolist() == [KEY.visitor(u) for u in ("520088904", "530496790", "530496790", "561587266")]
    assert events["session"].tolist() == [hash64("4d3b30da"), hash64("8e5f4f83"), hash64("8e5f4f83"), 0]
    assert events["item"].iloc[0] == hash64("1003461")
    assert events["category"].iloc[3] == hash64("2053013553853497655")
    assert events["price"].tolist() == [489.07, 293.65, 293.65, 28.31]
    assert events["value"].tolist() == [0, 0, 0, 28.31]
    assert (notes.rows, notes.skipped) == (4, {})


def test_gzip_and_parquet_give_the_same_events(tmp_path: Path) -> None:
    path = written(tmp_path, LOG)
    expected, _ = read(path)
    zipped, parquet = tmp_path / "2019-Nov.csv.gz", tmp_path / "2019-Nov.parquet"
    zipped.write_bytes(gzip.compress(LOG.encode()))
    as_text = pyarrow.csv.ConvertOptions(column_types={"event_time": "string"}, strings_can_be_null=True)
    table = pyarrow.csv.read_csv(path, convert_options=as_text)
    pyarrow.parquet.write_table(table, parquet)
    assert str(table.schema.field("user_id").type) == "int64"
    for other in (zipped, parquet):
        pd.testing.assert_frame_equal(read(other)[0], expected)


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    written(tmp_path, LOG)
    (tmp_path / "2019-Oct.csv").write_text(LOG)
    assert read(tmp_path)[1].rows == 8


@pytest.mark.parametrize("chunk_rows", [1, 2, 3])
def test_chunks_change_nothing(tmp_path: Path, chunk_rows: int) -> None:
    path = written(tmp_path, LOG)
    pd.testing.assert_frame_equal(read(path, chunk_rows)[0], read(path)[0])


def test_a_truncated_file_loses_its_last_row_only(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, LOG[:-20]))
    assert (len(events), notes.rows, dict(notes.skipped)) == (3, 4, {CUT_OFF: 1})


def test_a_truncated_gzip_file_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "2019-Nov.csv.gz"
    path.write_bytes(gzip.compress(LOG.encode())[:-20])
    assert read(path)[1].skipped == {CUT_OFF_STREAM: 1}


def test_an_empty_file_gives_no_events(tmp_path: Path) -> None:
    assert len(read(written(tmp_path, ""))[0]) == 0
    assert len(read(written(tmp_path, HEAD))[0]) == 0


def test_a_bad_row_is_named_or_skipped(tmp_path: Path) -> None:
    bad = written(tmp_path, LOG.replace("00:00:01 UTC,cart", "25:00:01 UTC,cart").replace("28.31", "NaN"))
    with pytest.raises(EventError, match=r"row 1: time is '2019-11-01 25:00:01 UTC'; expected a time like"):
        read(bad)
    events, notes = read(bad, bad_rows="skip")
    assert len(events) == 2
    assert notes.skipped == {"time: no time": 1, "price: not a number": 1}


def test_an_unknown_event_is_named_or_custom(tmp_path: Path) -> None:
    odd = written(tmp_path, LOG.replace(",cart,", ",favourite,"))
    with pytest.raises(EventError, match="unknown event 'favourite' in row 1"):
        read(odd)
    events, notes = read(odd, unknown_events="custom")
    assert (events["name"].iloc[1], notes.unmapped) == (0, {"favourite": 1})

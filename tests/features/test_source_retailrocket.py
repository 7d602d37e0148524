"""The reader of RetailRocket's events: the published CSV, and a sample in Parquet with coded events."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.batch import build_rows
from features.errors import EventError
from features.events import ADD_TO_CART, PURCHASE, VIEW_ITEM, hash64
from features.pseudonyms import Pseudonymiser
from features.shop import ShopSettings
from features.sources import concatenate, open_source, read_chunks
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Notes
from tests.shared import SHARED

KEY = Pseudonymiser(b"0123456789abcdef")
SAMPLE = SHARED / "data" / "retailrocket_sample" / "events_sample.parquet"
HEAD = "timestamp,visitorid,event,itemid,transactionid\n"
LOG = f"""{HEAD}1433221332117,257597,view,355908,
1433224214164,992329,addtocart,248676,
1433221999827,111016,transaction,318965,234
1433221999827,111016,transaction,253185,234
"""


def read(path: Path, chunk_rows: int = 100_000, **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("retailrocket", path, ShopSettings(), KEY, chunk_rows=chunk_rows, overrides=overrides)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "events.csv"
    path.write_text(text)
    return path


def test_rows_become_events(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, LOG))
    assert events["name"].tolist() == [VIEW_ITEM, ADD_TO_CART, PURCHASE, PURCHASE]
    assert events["visitor"].tolist() == [KEY.visitor(raw) for raw in ("257597", "992329", "111016", "111016")]
    assert events["time"].tolist() == [1433221332117, 1433224214164, 1433221999827, 1433221999827]
    assert events["item"].tolist() == [hash64(raw) for raw in ("355908", "248676", "318965", "253185")]
    assert set(events["id"]) == {0}  # a transaction's id is that of several rows
    assert (notes.rows, notes.skipped) == (4, {})


def test_the_sample_has_the_known_numbers() -> None:
    events, notes = read(SAMPLE)
    assert (len(events), notes.rows, notes.skipped) == (5_169, 5_169, {})
    assert events["visitor"].nunique() == 1_092
    assert events["name"].value_counts().to_dict() == {VIEW_ITEM: 4_732, ADD_TO_CART: 377, PURCHASE: 60}
    assert (events["time"].iloc[0], events["visitor"].iloc[0]) == (1_441_317_687_081, KEY.visitor("1532"))
    folded = build_rows(events, idle_seconds=()).events
    assert folded["session_index"].nunique() == 1_440
    assert folded["session_index"][folded["name"] == PURCHASE].nunique() == 42


def test_other_files_of_the_folder_are_not_read(tmp_path: Path) -> None:
    written(tmp_path, LOG)
    (tmp_path / "category_tree.csv").write_text("categoryid,parentid\n1016,213\n")
    (tmp_path / "item_properties_part1.csv").write_text("timestamp,itemid,property,value\n1435460400000,1,888,x\n")
    assert read(tmp_path)[1].rows == 4


def test_codes_and_names_of_events_are_the_same(tmp_path: Path) -> None:
    named, _ = read(written(tmp_path, LOG))
    coded = LOG.replace(",view,", ",0,").replace("addtocart", "1").replace(",transaction,", ",2,")
    pd.testing.assert_frame_equal(read(written(tmp_path, coded))[0], named)


@pytest.mark.parametrize("chunk_rows", [1, 2, 3])
def test_chunks_change_nothing(tmp_path: Path, chunk_rows: int) -> None:
    path = written(tmp_path, LOG)
    pd.testing.assert_frame_equal(read(path, chunk_rows)[0], read(path)[0])
    pd.testing.assert_frame_equal(read(SAMPLE, 100 * chunk_rows)[0], read(SAMPLE)[0])


def test_a_truncated_file_loses_its_last_row_only(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, LOG[:-20]))
    assert (len(events), notes.rows, dict(notes.skipped)) == (3, 4, {CUT_OFF: 1})


def test_a_truncated_gzip_file_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "events.csv.gz"
    path.write_bytes(gzip.compress(LOG.encode())[:-20])
    assert read(path)[1].skipped == {CUT_OFF_STREAM: 1}


def test_an_empty_file_gives_no_events(tmp_path: Path) -> None:
    assert len(read(written(tmp_path, ""))[0]) == 0
    assert len(read(written(tmp_path, HEAD.strip()))[0]) == 0


def test_a_bad_row_is_named_or_skipped(tmp_path: Path) -> None:
    bad = written(tmp_path, LOG.replace("1433224214164,992329", "1433224214,992329"))
    with pytest.raises(EventError, match=r"row 1: time is '1433224214'; expected a time between the years 1990 and"):
        read(bad)
    events, notes = read(bad, bad_rows="skip")
    assert (len(events), dict(notes.skipped)) == (3, {"time: not between 1990 and 2100": 1})


def test_an_unknown_event_is_named_or_custom(tmp_path: Path) -> None:
    odd = written(tmp_path, LOG.replace("addtocart", "wishlist"))
    with pytest.raises(EventError, match="unknown event 'wishlist' in row 1"):
        read(odd)
    events, notes = read(odd, unknown_events="custom")
    assert (events["name"].iloc[1], notes.unmapped) == (0, {"wishlist": 1})

"""The reader of hotel search sessions: the real sample's figures, its ties, and prices of what was clicked."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.batch import build_rows
from features.errors import EventError
from features.events import DEVICES, GENERATE_LEAD, SEARCH, VIEW_ITEM, VIEW_ITEM_LIST, hash64
from features.pseudonyms import Pseudonymiser
from features.shop import ShopSettings
from features.sources import concatenate, open_source, read_chunks
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Notes
from tests.shared import SHARED

KEY = Pseudonymiser(b"0123456789abcdef")
SESSIONS = SHARED / "data" / "trivago" / "sessions.parquet"
AT = 1_541_599_523
HEAD = (
    "user_id,session_id,timestamp,step,action_type,reference,platform,city,device,current_filters,impressions,prices\n"
)
LOG = f"""{HEAD}u1,s1,{AT},1,search for destination,"Marseille, France",FR,"Marseille, France",tablet,,,
u1,s1,{AT},2,filter selection,Hotel,FR,"Marseille, France",tablet,Hotel|Hostal (ES),,
u1,s1,{AT},3,interaction item image,5967314,FR,"Marseille, France",tablet,,,
u1,s1,{AT + 9},4,clickout item,5967314,FR,"Marseille, France",tablet,,100131|5967314|99792,71|119|84
u2,s2,{AT + 9},1,interaction item deals,unknown,DE,"Berlin, Germany",mobile,,,
u2,s2,{AT + 10},2,clickout item,1,DE,"Berlin, Germany",mobile,,100131|5967314,71|119
"""


def read(path: Path, chunk_rows: int = 100_000, **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("trivago", path, ShopSettings(), KEY, chunk_rows=chunk_rows, overrides=overrides)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.csv"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    found, notes = read(SESSIONS)
    assert (notes.rows, notes.skipped, notes.unmapped) == (100_003, {}, {})
    return found


def test_the_sample_has_the_known_numbers(events: pd.DataFrame) -> None:
    assert len(events) == 100_003
    assert events["visitor"].nunique() == 6_593
    assert events["session"].nunique() == 7_612
    assert events["name"].value_counts().to_dict() == {
        VIEW_ITEM: 68_538 + 1_829 + 1_445 + 1_159,
        GENERATE_LEAD: 13_597,
        VIEW_ITEM_LIST: 5_303 + 2_948,
        SEARCH: 3_060 + 1_080 + 1_044,
    }
    assert events["device"].value_counts().to_dict() == {
        DEVICES.index("desktop"): 48_514,
        DEVICES.index("mobile"): 42_931,
        DEVICES.index("tablet"): 8_558,
    }


def test_sessions_by_time_alone_are_those_of_the_data_card(events: pd.DataFrame) -> None:
    rows = build_rows(events.assign(session=0), idle_seconds=())
    sizes = rows.events.groupby("session_index").size()
    assert len(sizes) == 7_711
    assert (sizes == 1).mean() == pytest.approx(0.239, abs=0.0005)


def test_the_logs_own_session_ids_cut_some_more(events: pd.DataFrame) -> None:
    rows = build_rows(events, idle_seconds=())
    assert rows.events["session_index"].nunique() == 7_836
    assert len(rows.events) == 100_003


def test_events_of_one_second_keep_the_order_of_their_steps(events: pd.DataFrame) -> None:
    folded = build_rows(events.assign(declared_0=pd.read_parquet(SESSIONS)["step"]), idle_seconds=()).events
    same = (np.diff(folded["visitor"]) == 0) & (np.diff(folded["time"]) == 0)
    assert same.sum() == 57_736
    assert same.sum() / len(folded) == pytest.approx(0.58, abs=0.005)
    assert (np.diff(folded["declared_0"])[same] > 0).all()


def test_the_price_is_that_of_the_item_clicked(events: pd.DataFrame) -> None:
    clicked = events["name"] == GENERATE_LEAD
    assert events["price"].iloc[2] == 119
    assert (events["price"][~clicked] == 0).all()
    assert (events["price"][clicked] > 0).sum() == 13_596  # one item was not among those shown


def test_rows_become_events(tmp_path: Path) -> None:
    events, _ = read(written(tmp_path, LOG))
    assert events["name"].tolist() == [SEARCH, VIEW_ITEM_LIST, VIEW_ITEM, GENERATE_LEAD, VIEW_ITEM, GENERATE_LEAD]
    assert events["visitor"].tolist() == [KEY.visitor("u1")] * 4 + [KEY.visitor("u2")] * 2
    assert events["session"].tolist() == [hash64("s1")] * 4 + [hash64("s2")] * 2
    assert events["time"].tolist() == [AT * 1000] * 3 + [(AT + 9) * 1000] * 2 + [(AT + 10) * 1000]
    assert events["item"].tolist() == [0, 0, hash64("5967314"), hash64("5967314"), 0, hash64("1")]
    assert events["category"].tolist() == [hash64("Marseille, France")] * 4 + [hash64("Berlin, Germany")] * 2
    assert events["price"].tolist() == [0, 0, 0, 119, 0, 0]


@pytest.mark.parametrize("chunk_rows", [1, 2, 5])
def test_chunks_change_nothing(tmp_path: Path, chunk_rows: int) -> None:
    path = written(tmp_path, LOG)
    pd.testing.assert_frame_equal(read(path, chunk_rows)[0], read(path)[0])


def test_chunks_of_the_sample_change_nothing(events: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(read(SESSIONS, 997)[0], events)


def test_a_truncated_file_loses_its_last_row_only(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, LOG[: LOG.index(",mobile,,100131")]))
    assert (len(events), notes.rows, dict(notes.skipped)) == (5, 6, {CUT_OFF: 1})


def test_a_truncated_gzip_file_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress(LOG.encode())[:-12])
    events, notes = read(path)
    assert notes.skipped == {CUT_OFF_STREAM: 1}
    pd.testing.assert_frame_equal(events, read(written(tmp_path, LOG))[0].head(len(events)))


def test_an_empty_file_gives_no_events(tmp_path: Path) -> None:
    assert len(read(written(tmp_path, ""))[0]) == 0
    assert len(read(written(tmp_path, HEAD))[0]) == 0


def test_a_bad_row_is_named_or_skipped(tmp_path: Path) -> None:
    bad = written(tmp_path, LOG.replace(f"s1,{AT},2", "s1,,2"))
    with pytest.raises(EventError, match=r"train\.csv, row 1: time is .*; expected a value in every row"):
        read(bad)
    events, notes = read(bad, bad_rows="skip")
    assert (len(events), dict(notes.skipped)) == (5, {"time: missing": 1})


def test_an_unknown_action_is_named_or_custom(tmp_path: Path) -> None:
    odd = written(tmp_path, LOG.replace("filter selection", "map moved"))
    with pytest.raises(EventError, match="unknown event 'map moved' in row 1"):
        read(odd)
    events, notes = read(odd, unknown_events="custom")
    assert events["name"].iloc[1] == 0
    assert notes.unmapped == {"map moved": 1}


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(EventError, match="no column 'prices', .*; found: user_id, session_id"):
        read(written(tmp_path, LOG.replace(",prices", ",price")))

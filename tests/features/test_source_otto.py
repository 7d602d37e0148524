"""The reader of OTTO's sessions: a user a line, events inside."""

from __future__ import annotations

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
SAMPLE = SHARED / "data" / "otto_sample" / "train.jsonl.gz"
AT_MS = 1_659_304_800_025
LOG = """{"session":0,"events":[{"aid":1517085,"ts":1659304800025,"type":"clicks"},{"aid":7,"ts":1659304800030,"type":"carts"}]}
{"session":1,"events":[{"aid":7,"ts":1659304800034,"type":"orders"},{"aid":8,"ts":1659304800034,"type":"orders"}]}
{"session":2,"events":[{"aid":9,"ts":1659304800035,"type":"clicks"}]}
"""  # noqa: E501


def read(path: Path, chunk_rows: int = 100_000, **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("otto", path, ShopSettings(), KEY, chunk_rows=chunk_rows, overrides=overrides)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text(text)
    return path


def test_the_sample_has_the_known_numbers() -> None:
    events, notes = read(SAMPLE)
    assert (len(events), notes.rows, notes.skipped) == (862, 862, {})
    assert events["visitor"].nunique() == 20
    assert events["name"].value_counts().to_dict() == {VIEW_ITEM: 800, ADD_TO_CART: 52, PURCHASE: 10}
    assert set(events["utc_offset"]) == {120}  # August in Berlin
    assert build_rows(events, idle_seconds=()).events["session_index"].nunique() == 144


def test_lines_become_events(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, LOG))
    assert events["visitor"].tolist() == [KEY.visitor(session) for session in "00112"]
    assert events["time"].tolist() == [AT_MS, AT_MS + 5, AT_MS + 9, AT_MS + 9, AT_MS + 10]
    assert events["name"].tolist() == [VIEW_ITEM, ADD_TO_CART, PURCHASE, PURCHASE, VIEW_ITEM]
    assert events["item"].tolist() == [hash64(item) for item in ("1517085", "7", "7", "8", "9")]
    assert (notes.rows, notes.skipped) == (5, {})


@pytest.mark.parametrize("chunk_rows", [1, 2, 3])
def test_chunks_change_nothing(tmp_path: Path, chunk_rows: int) -> None:
    path = written(tmp_path, LOG)
    pd.testing.assert_frame_equal(read(path, chunk_rows)[0], read(path)[0])


def test_a_truncated_file_loses_its_last_line_only(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, LOG[:-20]))
    assert (len(events), dict(notes.skipped)) == (4, {CUT_OFF: 1})


def test_a_truncated_gzip_file_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(SAMPLE.read_bytes()[:4_000])
    events, notes = read(path)
    assert notes.skipped == {CUT_OFF_STREAM: 1}
    pd.testing.assert_frame_equal(events, read(SAMPLE)[0].head(len(events)))
    assert 0 < len(events) < 862


def test_an_empty_file_gives_no_events(tmp_path: Path) -> None:
    assert len(read(written(tmp_path, ""))[0]) == 0


@pytest.mark.parametrize(
    ("line", "message", "reason"),
    [
        ('{"session":5', r"row 1: no JSON \(.*\); expected one object a line", "no JSON"),
        ('{"session":5,"events":7}', r"row 1: no session; expected \{\"session\"", "no session"),
        ('{"session":5,"events":[{"aid":1,"type":"clicks"}]}', "row 1: time is None; expected a", "time: missing"),
        ('{"events":[{"aid":1,"ts":1659304800025,"type":"clicks"}]}', "row 1: visitor is None", "visitor: missing"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_or_skipped(tmp_path: Path, line: str, message: str, reason: str) -> None:
    first, rest = LOG.split("\n", 1)
    path = written(tmp_path, f"{first}\n{line}\n{rest}")
    with pytest.raises(EventError, match=message):
        read(path)
    events, notes = read(path, bad_rows="skip")
    assert (len(events), notes.rows, dict(notes.skipped)) == (5, 6, {reason: 1})


def test_an_unknown_type_is_named_or_custom(tmp_path: Path) -> None:
    odd = written(tmp_path, LOG.replace("carts", "returns"))
    with pytest.raises(EventError, match="unknown event 'returns' in row 0"):
        read(odd)
    events, notes = read(odd, unknown_events="custom")
    assert (events["name"].iloc[1], notes.unmapped) == (0, {"returns": 1})

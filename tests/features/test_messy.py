"""Messy logs: what the documentation says of them, statement by statement, from the file to the feature rows."""

from __future__ import annotations

import gzip
import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.batch import Rows, build_rows
from features.compiler import compile_fold
from features.errors import EventError
from features.events import CUSTOM, Event
from features.pseudonyms import Pseudonymiser
from features.sessions import DUPLICATE, FOLDED, LATE, STARTED
from features.shop import ShopSettings, SourceSettings
from features.sources import concatenate, open_source, read_chunks
from features.sources.columns import OTHER_WIDTH
from features.sources.convert import OUTSIDE
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Notes
from tests.sessions import START
from tests.shared import SHARED, TAOBAO

KEY = Pseudonymiser(b"0123456789abcdef")
FOLD = compile_fold()
TIMEOUT_MS = 1_800_000
TRIVAGO = SHARED / "data" / "trivago" / "sessions.parquet"
HEAD = "who,id,at,what\n"
MINUTE = 60


def shop(**settings: Any) -> ShopSettings:
    columns = {"visitor": "who", "id": "id", "time": "at", "name": "what"}
    return ShopSettings(sources={"log": SourceSettings(columns=columns, time_unit="s", **settings)})


def read(path: Path, chunk_rows: int = 100_000, source: str = "log", **settings: Any) -> tuple[pd.DataFrame, Notes]:
    known = shop(**settings) if source == "log" else ShopSettings(sources={source: SourceSettings(**settings)})
    reader, reading = open_source(source, path, known, KEY, chunk_rows=chunk_rows)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def written(tmp_path: Path, *rows: tuple[str, str, int, str]) -> Path:
    """A log of (visitor, id, seconds after the start, name)."""
    path = tmp_path / "log.csv"
    path.write_text(HEAD + "".join(f"{who},{own},{START // 1000 + at},{what}\n" for who, own, at, what in rows))
    return path


def column(rows: Rows, name: str) -> list[float]:
    return rows.matrix[:, rows.names.index(name)].tolist()  # type: ignore[no-any-return]


def keyed(rows: Rows) -> list[tuple[object, ...]]:
    """The rows whatever the order of the visitors."""
    visitor = rows.events["visitor"].to_numpy()[rows.event]
    moments = zip(visitor.tolist(), rows.now.tolist(), rows.prefix.tolist(), rows.idle_ms.tolist(), strict=True)
    return sorted((*moment, row.tobytes()) for moment, row in zip(moments, rows.matrix, strict=True))


def sessions(events: pd.DataFrame) -> list[list[int]]:
    """The seconds after the start of each session's events."""
    folded = build_rows(events, FOLD, idle_seconds=()).events
    seconds = (folded["time"] - START) // 1000
    return [group.tolist() for _, group in seconds.groupby(folded["session_index"])]


# Duplicates


def test_an_event_id_that_stands_in_the_log_twice_is_folded_once(tmp_path: Path) -> None:
    path = written(tmp_path, ("jane", "a", 0, "login"), ("jane", "b", 5, "search"), ("jane", "a", 9, "login"))
    events, _ = read(path)
    assert len(events) == 3
    assert sessions(events) == [[0, 5]]


def test_ids_are_remembered_for_seven_events_of_the_visitor(tmp_path: Path) -> None:
    between = [("jane", f"b{i}", 1 + i, "search") for i in range(7)]
    first, again = ("jane", "a", 0, "login"), ("jane", "a", 20, "login")
    assert sessions(read(written(tmp_path, first, *between[:6], again))[0]) == [[0, 1, 2, 3, 4, 5, 6]]
    assert sessions(read(written(tmp_path, first, *between, again))[0]) == [[0, 1, 2, 3, 4, 5, 6, 7, 20]]


def test_the_same_id_of_another_visitor_is_another_event(tmp_path: Path) -> None:
    events, _ = read(written(tmp_path, ("jane", "a", 0, "login"), ("joe", "a", 0, "login")))
    assert sessions(events) == [[0], [0]]


@pytest.mark.parametrize("chunk_rows", [1, 100])
def test_repeated_rows_without_ids_are_kept_unless_told_otherwise(tmp_path: Path, chunk_rows: int) -> None:
    path = written(tmp_path, *[("jane", "", at, "search") for at in (0, 5, 5, 9)], ("joe", "", 5, "search"))
    columns = {"visitor": "who", "time": "at", "name": "what"}
    for choice, expected in (("keep", [[0, 5, 5, 9], [5]]), ("drop", [[0, 5, 9], [5]])):
        settings = SourceSettings(columns=columns, time_unit="s", repeated_rows=choice)
        reader, reading = open_source("log", path, ShopSettings(sources={"log": settings}), KEY, chunk_rows=chunk_rows)
        events = concatenate(list(read_chunks(reader, reading)))
        assert (len(events), reading.notes.skipped) == (5, {})
        assert sessions(events) == expected


# Order


@pytest.fixture(scope="module")
def hotel_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 6,000 rows of a real log: more than half of the neighbours share a second."""
    path = tmp_path_factory.mktemp("trivago") / "train.parquet"
    pd.read_parquet(TRIVAGO).head(6_000).to_parquet(path)
    return path


def test_events_of_one_moment_keep_the_order_of_the_log(hotel_search: Path) -> None:
    log = pd.read_parquet(hotel_search)
    events, _ = read(hotel_search, source="trivago")
    folded = build_rows(events.assign(declared_0=log["step"]), FOLD, idle_seconds=()).events
    ties = (folded["time"].diff() == 0) & (folded["visitor"].diff() == 0)
    assert ties.sum() > 3_000
    assert (folded["declared_0"].diff()[ties] > 0).all()


@pytest.mark.parametrize("chunk_rows", [50, 1_000])
def test_rows_do_not_depend_on_the_chunks_of_the_reader(hotel_search: Path, chunk_rows: int) -> None:
    """Ties and sessions that a border cuts through included."""
    whole = build_rows(read(hotel_search, source="trivago")[0], FOLD)
    cut = build_rows(read(hotel_search, chunk_rows, source="trivago")[0], FOLD)
    np.testing.assert_array_equal(cut.matrix.view(np.uint32), whole.matrix.view(np.uint32))
    np.testing.assert_array_equal(cut.now, whole.now)


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 4])
def test_a_session_across_the_border_of_a_chunk_is_one_session(tmp_path: Path, chunk_rows: int) -> None:
    path = written(tmp_path, *[("jane", f"e{at}", at, "search") for at in (0, 10, 20, 30, 4_000)])
    assert sessions(read(path, chunk_rows)[0]) == [[0, 10, 20, 30], [4_000]]


def test_a_session_across_two_files_is_one_session(tmp_path: Path) -> None:
    """Days that are cut at midnight, say; the names of the files do not matter."""
    rows = [("jane", f"e{at}", at, "search") for at in (0, 10, 20, 30)]
    written(tmp_path, *rows[2:]).rename(tmp_path / "a.csv")
    written(tmp_path, *rows[:2]).rename(tmp_path / "b.csv")
    assert sessions(read(tmp_path)[0]) == [[0, 10, 20, 30]]


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_the_file_gives_the_same_rows(tmp_path: Path, seed: int) -> None:
    log = pd.read_parquet(TAOBAO).head(3_000).drop_duplicates(["user_id", "timestamp"])
    ordered, shuffled = tmp_path / "ordered.parquet", tmp_path / "shuffled.parquet"
    log.to_parquet(ordered)
    log.sample(frac=1, random_state=seed).to_parquet(shuffled)
    expected, found = (build_rows(read(path, source="taobao")[0], FOLD) for path in (ordered, shuffled))
    assert len(expected) > 3_000
    assert keyed(found) == keyed(expected)


# Names


def test_an_unknown_event_is_an_error_or_custom_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path, ("jane", "a", 0, "login"), ("jane", "b", 5, "dance"), ("jane", "c", 6, "dance"))
    with pytest.raises(EventError, match=r"log\.csv: unknown event 'dance' in row 1; known: custom, page_view, .*"):
        read(path)
    events, notes = read(path, unknown_events="custom")
    assert events["name"].tolist()[1:] == [CUSTOM, CUSTOM]
    assert notes.unmapped == {"dance": 2}
    assert column(build_rows(events, FOLD, idle_seconds=()), "events") == [1, 2, 3]
    events, notes = read(path, events={"dance": "share"})
    assert notes.unmapped == {}


# Clocks


@pytest.mark.parametrize("at", [-START // 1000, 3 * 10**9])
def test_a_time_that_cannot_be_is_an_error_or_skipped_and_counted(tmp_path: Path, at: int) -> None:
    """1970 is a clock that was never set; 2118 is a wrong unit or a broken clock."""
    path = written(tmp_path, ("jane", "a", 0, "login"), ("jane", "b", at, "search"), ("jane", "c", 9, "search"))
    with pytest.raises(EventError, match="row 1: time is .*; expected a time between the years 1990 and 2100, in s"):
        read(path)
    events, notes = read(path, bad_rows="skip")
    assert sessions(events) == [[0, 9]]
    assert notes.skipped == {"time: not between 1990 and 2100": 1}


def test_a_time_years_off_is_a_session_of_its_own_or_left_out_by_start_and_end(tmp_path: Path) -> None:
    years = 5 * 365 * 86_400
    path = written(tmp_path, ("jane", "a", 0, "login"), ("jane", "b", years, "search"), ("jane", "c", 9, "search"))
    assert sessions(read(path)[0]) == [[0, 9], [years]]
    events, notes = read(path, start="2023-11-01T00:00:00Z", end="2023-12-01T00:00:00Z")
    assert sessions(events) == [[0, 9]]
    assert (notes.rows, dict(notes.skipped)) == (3, {OUTSIDE: 1})


def test_a_clock_set_back_by_an_hour_puts_an_event_before_its_session(tmp_path: Path) -> None:
    """A history is sorted by time: what the clock says is all that is known."""
    times = (60 * MINUTE, 65 * MINUTE, 6 * MINUTE, 70 * MINUTE)  # the third was 66 before the clock was set back
    events, _ = read(written(tmp_path, *[("jane", f"e{at}", at, "search") for at in times]))
    assert sessions(events) == [[6 * MINUTE], [60 * MINUTE, 65 * MINUTE, 70 * MINUTE]]


def test_live_an_event_an_hour_back_is_late_and_one_some_minutes_back_is_folded_as_it_comes() -> None:
    record, out = FOLD.new_record(), FOLD.new_row()
    statuses = []
    for minutes in (60, 65, 6, 50, 70):
        event = Event(visitor=1, time=START + minutes * MINUTE * 1000, name=5)
        statuses.append(FOLD.advance(record, out, TIMEOUT_MS, FOLD.nothing_learned, *event))
    assert statuses == [STARTED, FOLDED, LATE, FOLDED, FOLDED]
    assert out[FOLD.names.index("events")] == 4
    assert out[FOLD.names.index("duration_seconds")] == 10 * MINUTE


def test_live_a_repeated_delivery_changes_nothing() -> None:
    record, out = FOLD.new_record(), FOLD.new_row()
    event = Event(visitor=1, id=77, time=START, name=5)
    assert FOLD.advance(record, out, TIMEOUT_MS, FOLD.nothing_learned, *event) == STARTED
    once = out.copy()
    assert FOLD.advance(record, out, TIMEOUT_MS, FOLD.nothing_learned, *event) == DUPLICATE
    np.testing.assert_array_equal(out, once)


# Sizes


def test_a_session_of_a_hundred_thousand_events_has_a_row_an_event_and_equals_the_live_fold() -> None:
    size = 100_000
    random = np.random.default_rng(7)
    events = pd.DataFrame(
        {
            "visitor": np.full(size, 42),
            "time": START + np.cumsum(random.integers(0, 60_000, size)),
            "name": random.integers(0, 30, size),
            "page": random.integers(1, 500, size),
            "item": random.integers(1, 2_000, size),
            "category": random.integers(1, 50, size),
            "price": random.integers(1, 100, size) / 4,
        }
    )
    rows = build_rows(events, FOLD, idle_seconds=())
    assert rows.prefix.tolist() == list(range(1, size + 1))
    assert rows.events["session_index"].max() == 0
    assert np.isfinite(rows.matrix[-1][~np.isnan(rows.matrix[0])]).all()
    record, out = FOLD.new_record(), FOLD.new_row()
    before = record.nbytes
    for event in rows.events[list(Event._fields)].itertuples(index=False, name=None):
        FOLD.advance(record, out, TIMEOUT_MS, FOLD.nothing_learned, *event)
    np.testing.assert_array_equal(out.view(np.uint32), rows.matrix[-1].view(np.uint32))
    assert record.nbytes == before == FOLD.record_bytes  # a record does not grow with its session


def test_a_visitor_with_one_event_has_its_row_and_those_of_the_silence_after_it(tmp_path: Path) -> None:
    events, _ = read(written(tmp_path, ("jane", "a", 0, "page_view"), ("joe", "b", 3, "page_view")))
    rows = build_rows(events, FOLD, idle_seconds=(10, 60))
    assert (rows.idle_ms // 1000).tolist() == [0, 10, 60, 0, 10, 60]
    assert rows.prefix.tolist() == [1] * 6
    assert column(rows, "idle_seconds") == [0, 10, 60, 0, 10, 60]


# Files

EMPTY = {
    "access_log": ("access.log", "access.log.gz"),
    "adobe": ("01-shop_20260105-000000.tsv",),
    "columns": ("log.csv", "log.csv.gz", "log.jsonl", "log.parquet"),
    "ga360": ("export.jsonl", "export.jsonl.gz", "export.parquet"),
    "ga4": ("export.jsonl", "export.jsonl.gz", "export.parquet"),
    "lotse": ("events.parquet",),
    "matomo": ("visits.json", "visits.json.gz"),
    "otto": ("train.jsonl", "train.jsonl.gz"),
    "rees46": ("2019-Nov.csv", "2019-Nov.csv.gz", "2019-Nov.parquet"),
    "retailrocket": ("events.csv", "events.csv.gz", "events.parquet"),
    "segment": ("calls.jsonl", "calls.json.gz"),
    "snowplow": ("events.tsv", "events.csv", "events.json.gz"),
    "taobao": ("UserBehavior.csv", "UserBehavior.csv.gz", "UserBehavior.parquet"),
    "tealium": ("events.jsonl", "events.json.gz", "events.csv"),
    "trivago": ("train.csv", "train.csv.gz", "train.parquet"),
    "yoochoose": ("yoochoose-clicks.dat", "yoochoose-buys.dat.gz", "train.tsv"),
}


def test_every_source_of_files_is_tried_with_an_empty_one() -> None:
    assert {*EMPTY, "sql"} == {point.name for point in entry_points(group="lotse.sources")}


@pytest.mark.parametrize(("source", "name"), [(source, name) for source, names in EMPTY.items() for name in names])
def test_an_empty_file_gives_no_events_and_no_error(tmp_path: Path, source: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if path.suffix == ".gz" else b"")
    events, notes = read(path, source=source)
    assert (len(events), notes.rows, notes.skipped) == (0, 0, {})
    assert len(build_rows(events, FOLD)) == 0


ROWS = [("jane", f"e{at}", at, "search") for at in range(2_000)]


def test_a_csv_file_that_ends_in_the_middle_of_a_row_loses_that_row(tmp_path: Path) -> None:
    path = written(tmp_path, *ROWS)
    path.write_text(path.read_text()[:-3])
    events, notes = read(path)
    assert (len(events), notes.rows, dict(notes.skipped)) == (1_999, 2_000, {CUT_OFF: 1})


def test_a_compressed_file_that_ends_early_gives_the_rows_before_its_end(tmp_path: Path) -> None:
    whole = written(tmp_path, *ROWS).read_bytes()
    path = tmp_path / "log.csv.gz"
    packed = gzip.compress(whole)
    path.write_bytes(packed[: len(packed) // 2])
    events, notes = read(path)
    assert 200 < len(events) < 1_800
    assert events["time"].tolist() == [START // 1000 * 1000 + at * 1000 for at in range(len(events))]
    assert dict(notes.skipped) == {CUT_OFF_STREAM: 1}


def test_json_lines_that_end_in_the_middle_of_a_line_lose_that_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    records = [{"who": who, "id": own, "at": START // 1000 + at, "what": what} for who, own, at, what in ROWS]
    path.write_text("".join(json.dumps(record) + "\n" for record in records)[:-12])
    events, notes = read(path)
    assert (len(events), notes.rows, dict(notes.skipped)) == (1_999, 2_000, {CUT_OFF: 1})


def test_a_parquet_file_that_was_cut_is_an_error(tmp_path: Path) -> None:
    """Its directory stands at its end: nothing before it can be read."""
    path = tmp_path / "log.parquet"
    pd.read_csv(written(tmp_path, *ROWS)).to_parquet(path)
    assert len(read(path)[0]) == 2_000
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EventError, match=r"log\.parquet cannot be read as Parquet: "):
        read(path)


def test_a_last_row_without_a_line_end_that_reads_whole_is_a_row(tmp_path: Path) -> None:
    path = written(tmp_path, *ROWS)
    path.write_text(path.read_text()[:-1])
    events, notes = read(path)
    assert (len(events), notes.rows, notes.skipped) == (2_000, 2_000, {})


def test_a_file_of_a_heading_gives_no_events(tmp_path: Path) -> None:
    for heading in (HEAD, HEAD.strip()):
        path = tmp_path / "log.csv"
        path.write_text(heading)
        events, notes = read(path)
        assert (len(events), notes.rows, notes.skipped) == (0, 0, {})


def test_a_row_of_another_width_in_the_middle_is_an_error_or_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, *ROWS)
    first, second, rest = path.read_text().split("\n", 2)
    path.write_text(f"{first}\n{second}\njane,e\n{rest}")
    with pytest.raises(EventError, match=r"log\.csv, row 1: found 2 cells; expected 4: who, id, at, what"):
        read(path)
    events, notes = read(path, bad_rows="skip")
    assert (len(events), notes.rows, dict(notes.skipped)) == (2_000, 2_001, {OTHER_WIDTH: 1})


@pytest.mark.parametrize("bad_rows", ["error", "skip"])
def test_text_that_is_no_utf_8_is_an_error(tmp_path: Path, bad_rows: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(f"{HEAD}jürgen,a,{START // 1000},login\n".encode("latin-1"))
    with pytest.raises(EventError, match=r"log\.csv, row 0 or later: .*invalid UTF8 data"):
        read(path, bad_rows=bad_rows)


def test_a_compressed_file_with_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(written(tmp_path, *ROWS).read_bytes()))
    middle = len(packed) // 2
    packed[middle : middle + 64] = bytes(64)
    path = tmp_path / "log.csv.gz"
    path.write_bytes(packed)
    with pytest.raises(EventError, match=r"log\.csv\.gz cannot be read: "):
        read(path)

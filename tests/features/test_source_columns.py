"""Column-mapped logs: CSV, Parquet and JSON lines alike; bad rows named; blocks and chunks change nothing."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from features.errors import EventError
from features.events import ADD_TO_CART, CHANNELS, DEVICES, EVENT_NAMES, PAGE_VIEW, hash64
from features.pseudonyms import Pseudonymiser
from features.shop import ShopSettings, SourceSettings, load_shop
from features.sources import columns as reader_module
from features.sources import concatenate, open_source, read_chunks
from features.sources.columns import OTHER_WIDTH
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Notes

KEY = Pseudonymiser(b"0123456789abcdef")
SHOP = load_shop()
HEAD = (
    "visitor_id,session_id,event_id,time,event,path,product_id,category,price,quantity,value,currency,channel,device\n"
)
ROW = "jane,s1,e1,2026-01-05T10:00:00Z,pageview,/p/123?utm=x,,,,,,,organic,mobile\n"
CART = "jane,s1,e2,2026-07-05T10:00:01.5Z,cart_add,/cart,sku-1,shoes,10,2,20,USD,,\n"
AT_MS = 1_767_607_200_000  # 2026-01-05T10:00:00Z


def read(path: Path, shop: ShopSettings = SHOP, chunk_rows: int = 100_000, **over: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("csv", path, shop, KEY, chunk_rows=chunk_rows, overrides=over)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def written(tmp_path: Path, text: str, name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def mapped(columns: dict[str, str], **settings: Any) -> ShopSettings:
    return ShopSettings(sources={"csv": SourceSettings(reader="columns", columns=columns, **settings)})


MINIMAL = {"visitor": "who", "time": "at", "name": "what"}


def test_csv_becomes_canonical(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, HEAD + ROW + CART))
    first, second = events.iloc[0], events.iloc[1]
    assert first["visitor"] == second["visitor"] == KEY.visitor("jane")
    assert (first["name"], second["name"]) == (PAGE_VIEW, ADD_TO_CART)
    assert (first["page"], second["page"]) == (hash64("/p/:id"), hash64("/cart"))
    assert (first["session"], second["id"]) == (hash64("s1"), hash64("e2"))
    assert (first["price"], first["quantity"]) == (0, 1)
    assert second["price"] == pytest.approx(9.2)
    assert second["value"] == pytest.approx(18.4)
    assert (second["item"], second["category"]) == (hash64("sku-1"), hash64("shoes"))
    assert (first["time"], second["time"]) == (AT_MS, 1_783_245_601_500)
    assert (first["channel"], second["channel"]) == (CHANNELS.index("organic"), 0)
    assert (first["device"], second["device"]) == (DEVICES.index("mobile"), 0)
    assert (first["utc_offset"], second["utc_offset"]) == (60, 120)  # Berlin, winter and summer
    assert (notes.rows, notes.skipped, notes.unmapped) == (2, {}, {})


def test_csv_parquet_and_json_lines_give_the_same_events(tmp_path: Path) -> None:
    plain = written(tmp_path, HEAD + ROW + CART)
    expected, _ = read(plain)
    options = pyarrow.csv.ConvertOptions(column_types={"time": "string"}, strings_can_be_null=True)
    table = pyarrow.csv.read_csv(plain, convert_options=options)
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    lines = "".join(json.dumps(record) + "\n" for record in table.to_pylist())
    written(tmp_path, lines, "log.jsonl")
    for name, pack in (("log.csv.gz", gzip.compress), ("log.csv.bz2", bz2.compress), ("log.csv.xz", lzma.compress)):
        (tmp_path / name).write_bytes(pack(plain.read_bytes()))
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    others = sorted(path for path in tmp_path.iterdir() if path != plain)
    assert len(others) == 6
    for path in others:
        found, notes = read(path)
        pd.testing.assert_frame_equal(found, expected)
        assert (notes.rows, notes.skipped) == (2, {})


def test_categories_structs_and_floats_of_parquet_are_read(tmp_path: Path) -> None:
    """A column of whole numbers some of which are missing is a column of floats to pandas, and 7.0 is the item 7."""
    path = tmp_path / "log.parquet"
    frame = pd.DataFrame(
        {
            "who": pd.Categorical(["jane", "joe", "jane"]),
            "at": pd.to_datetime(["2026-01-05T10:00:00Z"] * 3),
            "event": [{"what": "page_view", "sku": 7.0}, {"what": "view_item", "sku": None}, {"what": "login"}],
        }
    )
    frame.to_parquet(path)
    shop = mapped({"visitor": "who", "time": "at", "name": "event.what", "item": "event.sku"})
    events, _ = read(path, shop)
    assert events["visitor"].tolist() == [KEY.visitor("jane"), KEY.visitor("joe"), KEY.visitor("jane")]
    assert events["time"].tolist() == [AT_MS] * 3
    assert events["name"].tolist() == [EVENT_NAMES.index(name) for name in ("page_view", "view_item", "login")]
    assert events["item"].tolist() == [hash64("7"), 0, 0]


@pytest.mark.parametrize(
    ("unit", "text", "millis"),
    [
        ("s", "1396437466.94", 1_396_437_466_940),
        ("s", "1396437466", 1_396_437_466_000),
        ("ms", "1396437466941", 1_396_437_466_941),
        ("us", "1396437466941999", 1_396_437_466_941),
        ("ns", "1396437466941000000", 1_396_437_466_941),
        ("iso", "2014-04-02T11:17:46.941Z", 1_396_437_466_941),
        ("iso", "2014-04-02 11:17:46.941 UTC", 1_396_437_466_941),
        ("iso", "2014-04-02T13:17:46.941+02:00", 1_396_437_466_941),
        ("iso", "2014-04-02 11:17:46.941999", 1_396_437_466_941),
    ],
)
def test_every_unit_of_time_is_exact_to_the_millisecond(tmp_path: Path, unit: str, text: str, millis: int) -> None:
    events, _ = read(written(tmp_path, f"who,at,what\njane,{text},login\n"), mapped(MINIMAL, time_unit=unit))
    assert events["time"].tolist() == [millis]


def test_whole_numbers_of_parquet_are_exact_in_every_unit(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    at = pa.array([1_396_437_466_941_999_999, None], pa.int64())
    pa.parquet.write_table(pa.table({"who": ["a", "b"], "at": at, "what": ["login", "login"]}), path)
    shop = mapped(MINIMAL, time_unit="ns")
    with pytest.raises(EventError, match="row 1: time is .*; expected a value in every row"):
        read(path, shop)
    events, notes = read(path, shop, bad_rows="skip")
    assert (len(events), dict(notes.skipped)) == (1, {"time: missing": 1})
    small = pa.table({"who": ["a"], "at": pa.array([1_396_437_466], pa.int32()), "what": ["login"]})
    pa.parquet.write_table(small, path)
    assert read(path, mapped(MINIMAL, time_unit="s"))[0]["time"].tolist() == [1_396_437_466_000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("visitor_id,time\n", "no column 'session_id', which .* maps to 'session'; found: visitor_id, time"),
        (HEAD + ROW + ROW.replace("2026-01-05T10:00:00Z", "yesterday"), "row 1: time is 'yesterday'; expected a time"),
        (HEAD + ROW + ROW.replace("pageview", "kaufen"), r"unknown event 'kaufen' in row 1; .*map it in .*\.events\]"),
        (HEAD + ROW.replace("pageview", ""), "row 0: name is .*; expected a value in every row"),
        (HEAD + ROW.replace("jane", ""), "row 0: visitor is .*; expected a value in every row"),
        (HEAD + ROW.replace(",,,,,,,organic", ",,,NaN,,,,organic"), "row 0: price is 'NaN'; expected a number"),
        (HEAD + ROW.replace(",,,,,,,organic", ",,,inf,,,,organic"), "row 0: price is 'inf'; expected a finite number"),
        (HEAD + ROW.replace(",,,,,,,organic", ",,,ten,,,,organic"), "row 0: price is 'ten'; expected a number"),
        (HEAD + ROW.replace(",,,,,,,organic", ",,,,-3,,,organic"), "row 0: quantity is '-3'; expected a finite number"),
        (HEAD + ROW.replace(",,,,,,,organic", ",,,5,,,JPY,organic"), "row 0: .*'JPY'; .*no rate for currency 'JPY'"),
        (HEAD + ROW.replace("organic", "carrier pigeon"), "unknown channel 'carrier pigeon' in row 0; known"),
        (HEAD + ROW + "jane,s1\n" + ROW, "row 1: found 2 cells; expected 14: visitor_id, session_id"),
        (HEAD + ROW + "jane,s1\n", "row 1: found 2 cells; expected 14"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EventError, match=message):
        read(written(tmp_path, text))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (ROW.replace("2026-01-05T10:00:00Z", "yesterday"), "time: no time"),
        (ROW.replace("2026-01-05T10:00:00Z", "1970-01-01T00:00:00Z"), "time: not between 1990 and 2100"),
        (ROW.replace("jane", ""), "visitor: missing"),
        (ROW.replace("pageview", ""), "name: missing"),
        (ROW.replace(",,,,,,,organic", ",,,ten,,,,organic"), "price: not a number"),
        (ROW.replace(",,,,,,,organic", ",,,inf,,,,organic"), "price: not finite"),
        (ROW.replace(",,,,,,,organic", ",,,,-3,,,organic"), "quantity: negative"),
        (ROW.replace(",,,,,,,organic", ",,,5,,,JPY,organic"), "currency: no rate"),
        ("jane,s1\n", OTHER_WIDTH),
    ],
)
def test_bad_rows_can_be_skipped_and_are_counted(tmp_path: Path, bad: str, reason: str) -> None:
    path = written(tmp_path, HEAD + ROW + bad + CART)
    events, notes = read(path, bad_rows="skip")
    assert (len(events), notes.rows, dict(notes.skipped)) == (2, 3, {reason: 1})
    pd.testing.assert_frame_equal(events, read(written(tmp_path, HEAD + ROW + CART))[0])


def test_a_file_of_bad_rows_only_gives_no_events(tmp_path: Path) -> None:
    events, notes = read(written(tmp_path, HEAD + ROW.replace("jane", "") * 3), bad_rows="skip")
    assert (len(events), dict(notes.skipped)) == (0, {"visitor: missing": 3})


def test_rows_are_counted_past_the_ones_that_were_skipped(tmp_path: Path) -> None:
    text = HEAD + ROW + "jane,s1\n" + ROW + ROW.replace("pageview", "kaufen")
    with pytest.raises(EventError, match="unknown event 'kaufen' in row 3"):
        read(written(tmp_path, text), bad_rows="skip")


def test_unknown_events_and_values_can_fold_into_custom_and_unknown(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + ROW.replace("pageview", "kaufen") + ROW.replace("organic", "pigeon"))
    events, notes = read(path, unknown_events="custom")
    assert [EVENT_NAMES[code] for code in events["name"]] == ["custom", "page_view"]
    assert [CHANNELS[code] for code in events["channel"]] == ["organic", "unknown"]
    assert notes.unmapped == {"kaufen": 1, "channel pigeon": 1}


@pytest.mark.parametrize("text", ["", "\n", "\r\n\r\n", HEAD, HEAD.strip()])
def test_an_empty_file_gives_no_events(tmp_path: Path, text: str) -> None:
    events, notes = read(written(tmp_path, text))
    assert (len(events), notes.rows, notes.skipped) == (0, 0, {})


def test_an_empty_parquet_file_gives_no_events_but_names_a_missing_column(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(b"")
    assert len(read(path, mapped(MINIMAL))[0]) == 0
    pa.parquet.write_table(pa.table({name: pa.array([], pa.string()) for name in MINIMAL.values()}), path)
    assert len(read(path, mapped(MINIMAL))[0]) == 0
    with pytest.raises(EventError, match="no column 'price', which .* maps to 'price'; found: who, at, what"):
        read(path, mapped({**MINIMAL, "price": "price"}))
    with pytest.raises(EventError, match=r"no column 'what\.name', which .* maps to 'name'"):
        read(path, mapped({**MINIMAL, "name": "what.name"}))


@pytest.mark.parametrize("cut", [1, 10, 30, len(CART) - 1])
def test_a_truncated_row_is_left_out_and_counted(tmp_path: Path, cut: int) -> None:
    whole = HEAD + ROW + CART
    events, notes = read(written(tmp_path, whole[:-cut]))
    if cut == 1:  # only the line end is missing: still a whole row
        assert (len(events), notes.rows, notes.skipped) == (2, 2, {})
    else:
        assert (len(events), notes.rows, dict(notes.skipped)) == (1, 2, {CUT_OFF: 1})


def test_a_row_cut_off_in_a_value_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "who,what,at\njane,login,1396437466\njane,login,139643")
    events, notes = read(path, mapped(MINIMAL, time_unit="s"))
    assert (len(events), notes.rows, dict(notes.skipped)) == (1, 2, {CUT_OFF: 1})


def test_a_row_cut_off_in_a_letter_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("at,who,what\n1396437466,jürgen,login\n1396437466,jü".encode()[:-1])
    events, notes = read(path, mapped(MINIMAL, time_unit="s"))
    assert (len(events), notes.rows, dict(notes.skipped)) == (1, 2, {CUT_OFF: 1})


def test_text_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("at,who,what\n1396437466,jürgen,login\n".encode("latin-1"))
    with pytest.raises(EventError, match=r"log\.csv, row 0 or later: .*invalid UTF8 data"):
        read(path, mapped(MINIMAL, time_unit="s"))


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv.bz2", "log.csv.xz"])
def test_a_truncated_stream_gives_the_rows_before_the_cut(tmp_path: Path, name: str) -> None:
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[Path(name).suffix]
    rows = "".join(f"{i * 2654435761 % 2**32},{1396437466 + i},login\n" for i in range(200_000))
    whole = pack(("who,at,what\n" + rows).encode())
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) // 2])
    events, notes = read(path, mapped(MINIMAL, time_unit="s"))
    assert 50_000 < len(events) < 150_000
    assert events["time"].tolist() == [(1396437466 + i) * 1000 for i in range(len(events))]
    assert (notes.rows, dict(notes.skipped)) == (len(events), {CUT_OFF_STREAM: 1})


def test_a_file_that_was_unpacked_under_its_old_name_is_read(tmp_path: Path) -> None:
    """Clients of object stores do so."""
    events, _ = read(written(tmp_path, HEAD + ROW, "log.csv.gz"))
    assert len(events) == 1


def test_of_a_folder_only_tables_are_read(tmp_path: Path) -> None:
    (tmp_path / "lotse-data").mkdir()
    (tmp_path / "lotse-data" / "pseudonym.key").write_bytes(b"secret,secret\n")
    written(tmp_path, HEAD + ROW, "log.csv")
    events, _ = read(tmp_path)
    assert len(events) == 1


@pytest.mark.parametrize("name", ["log.csv.bz2", "log.csv.xz"])
def test_a_file_that_is_not_what_its_name_says_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(EventError, match=f"{name} cannot be read: "):
        read(written(tmp_path, HEAD + ROW, name))


def test_a_damaged_stream_is_an_error(tmp_path: Path) -> None:
    rows = "".join(f"{i * 2654435761 % 2**32},{1396437466 + i},login\n" for i in range(50_000))
    whole = bytearray(gzip.compress(("who,at,what\n" + rows).encode()))
    whole[len(whole) // 2 : len(whole) // 2 + 64] = bytes(64)
    path = tmp_path / "log.csv.gz"
    path.write_bytes(whole)
    with pytest.raises(EventError, match=r"log\.csv\.gz cannot be read: "):
        read(path, mapped(MINIMAL, time_unit="s"))


def test_a_truncated_parquet_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pa.parquet.write_table(pa.table({"who": ["a"], "at": [1], "what": ["login"]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(EventError, match=r"log\.parquet cannot be read as Parquet: "):
        read(path, mapped(MINIMAL))


@pytest.mark.parametrize("chunk_rows", [1, 2, 7])
def test_chunks_change_nothing(tmp_path: Path, chunk_rows: int) -> None:
    path = written(tmp_path, HEAD + (ROW + CART) * 5)
    pd.testing.assert_frame_equal(read(path, chunk_rows=chunk_rows)[0], read(path)[0])


@pytest.mark.parametrize("block_bytes", [1, 20, 100])
def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    """Line ends between quotes end no row, wherever a block of the file ends."""
    rows = "".join(f'"jane\n""{i}""\n{i}",{1396437466 + i},login\r\n\n' for i in range(50))
    path = written(tmp_path, "who,at,what\r\n" + rows + "joe,1396437466,login")
    shop = mapped(MINIMAL, time_unit="s")
    expected, _ = read(path, shop)
    assert expected["visitor"].tolist() == [KEY.visitor(f'jane\n"{i}"\n{i}') for i in range(50)] + [KEY.visitor("joe")]
    monkeypatch.setattr(reader_module, "_BLOCK_BYTES", block_bytes)
    found, notes = read(path, shop)
    pd.testing.assert_frame_equal(found, expected)
    assert (notes.rows, notes.skipped) == (51, {})


def test_a_bad_row_is_named_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, HEAD + ROW * 20 + "jane,s1\n" + ROW)
    monkeypatch.setattr(reader_module, "_BLOCK_BYTES", 100)
    with pytest.raises(EventError, match="row 20: found 2 cells"):
        read(path)


def test_a_byte_order_mark_belongs_to_no_column(tmp_path: Path) -> None:
    events, _ = read(written(tmp_path, "\ufeffwho;at;what\njane;1396437466;login\n"), mapped(MINIMAL, separator=";", time_unit="s"))  # fmt: skip # noqa: E501
    assert events["visitor"].tolist() == [KEY.visitor("jane")]


def test_json_lines_name_and_skip_what_is_no_event(tmp_path: Path) -> None:
    event = '{"who":{"id":7},"at":1396437466,"what":"login"}\n'
    shop = mapped({"visitor": "who.id", "time": "at", "name": "what"}, time_unit="s")
    path = written(tmp_path, event + "\n" + "[1]\n" + event, "log.jsonl")
    with pytest.raises(EventError, match="row 2: found a list; expected an object an event"):
        read(path, shop)
    events, notes = read(path, shop, bad_rows="skip")
    assert events["visitor"].tolist() == [KEY.visitor("7")] * 2
    assert (notes.rows, dict(notes.skipped)) == (3, {"no JSON object": 1})
    broken = written(tmp_path, event + '{"who"\n' + event, "broken.jsonl")
    with pytest.raises(EventError, match="row 1: no JSON"):
        read(broken, shop)
    events, notes = read(written(tmp_path, event + event[:-9], "cut.jsonl"), shop)
    assert (len(events), notes.rows, dict(notes.skipped)) == (1, 2, {CUT_OFF: 1})


def test_json_rows_are_those_of_the_file(tmp_path: Path) -> None:
    event = '{"who":"j","at":1396437466,"what":"login"}\n'
    path = written(tmp_path, event + "\n\n" + event.replace("1396437466", '"soon"'), "log.jsonl")
    with pytest.raises(EventError, match="row 3: time is 'soon'"):
        read(path, mapped(MINIMAL, time_unit="s"))


def test_files_of_a_folder_or_pattern_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    written(tmp_path, HEAD + ROW.replace("jane", "second"), "b.csv")
    written(tmp_path, HEAD + ROW.replace("jane", "first"), "a.csv")
    written(tmp_path, "not a log", ".hidden.csv")
    for place in (tmp_path, tmp_path / "*.csv"):
        assert read(place)[0]["visitor"].tolist() == [KEY.visitor("first"), KEY.visitor("second")]


def test_progress_reaches_the_whole_size_once(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress((HEAD + ROW * 1_000).encode()))
    seen: list[tuple[int, int]] = []
    reader, reading = open_source("csv", path, SHOP, KEY, progress=lambda done, whole: seen.append((done, whole)))
    assert sum(len(chunk) for chunk in read_chunks(reader, reading)) == 1_000
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)

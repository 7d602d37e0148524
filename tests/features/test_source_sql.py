"""The source `sql`: rows of a database in, canonical events out, a chunk at a time; real PostgreSQL and SQLite."""

from __future__ import annotations

import sqlite3
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from features.errors import EventError
from features.events import ADD_TO_CART, CUSTOM, PAGE_VIEW, PURCHASE, VIEW_ITEM, hash64
from features.pseudonyms import Pseudonymiser
from features.settings import SettingsError
from features.shop import ShopSettings, SourceSettings
from features.sources import open_source, read_chunks
from features.sources.reading import CHUNK_ROWS, Notes
from tests.postgres import PASSWORD, postgres

KEY = Pseudonymiser(b"0123456789abcdef")
COLUMNS = {
    "visitor": "visitor_id", "session": "session_id", "id": "event_id", "time": "happened", "name": "event",
    "page": "path", "item": "product", "price": "price", "quantity": "quantity", "value": "value",
    "interactive": "active",
}  # fmt: skip
CREATE = (
    "CREATE TABLE shop_events (visitor_id bigint, session_id uuid, event_id bigint, happened timestamptz, event text, "
    "path text, product text, price numeric(12,4), quantity int, value double precision, active boolean)"
)
ROWS = """INSERT INTO shop_events VALUES
    (9007199254740993, '6b3c1f0e-0000-4000-8000-000000000001', 9223372036854775807, '2026-01-05 11:00:00.125+01',
     'view_item', '/p/123?utm=x', 'sku-1', 12.3456, NULL, NULL, true),
    (7, NULL, 2, '2026-01-05 10:00:01+00', 'add_to_cart', NULL, 'sku-1', 12.3456, 3, NULL, false),
    (7, NULL, 3, '2026-01-05 10:00:02+00', 'purchase', NULL, NULL, NULL, NULL, 37.03, NULL)"""
FIRST_MS = 1_767_607_200_125  # 2026-01-05T10:00:00.125Z


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL with the three rows, and 100,000 that are generated."""
    with postgres() as url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text(CREATE))
            connection.execute(sa.text(ROWS))
            connection.execute(sa.text("CREATE SCHEMA lake"))
            connection.execute(
                sa.text(
                    "CREATE TABLE lake.clicks AS SELECT n AS visitor_id, timestamp '2026-01-05 10:00:00' + "
                    "n * interval '1 second' AS happened, 'page_view' AS event, repeat('x', 200) AS filler "
                    "FROM generate_series(0, 99999) AS n"
                )
            )
            connection.execute(sa.text("ANALYZE lake.clicks"))
            connection.execute(sa.text("CREATE VIEW carts AS SELECT * FROM shop_events WHERE event = 'add_to_cart'"))
        engine.dispose()
        yield url


def read(
    location: str, columns: dict[str, str] | None = None, chunk_rows: int = CHUNK_ROWS, **settings: Any
) -> tuple[pd.DataFrame, Notes]:
    chunks, notes = open_chunks(location, columns, chunk_rows, **settings)
    return pd.concat(chunks, ignore_index=True), notes


def open_chunks(
    location: str, columns: dict[str, str] | None = None, chunk_rows: int = CHUNK_ROWS, **settings: Any
) -> tuple[Iterator[pd.DataFrame], Notes]:
    section = SourceSettings(reader="sql", columns=COLUMNS if columns is None else columns, **settings)
    shop = ShopSettings(timezone="Europe/Berlin", sources={"shop": section})
    reader, reading = open_source("shop", location, shop, KEY, chunk_rows=chunk_rows)
    return read_chunks(reader, reading), reading.notes


def sqlite(path: Path, *rows: tuple[Any, ...]) -> str:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE log (who TEXT, at INTEGER, what TEXT, price)")
    connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


LOG = {"visitor": "who", "time": "at", "name": "what", "price": "price"}
AT = 1_767_607_200_000


def test_postgresql_values_become_canonical(server: str) -> None:
    events, notes = read(server, options={"table": "shop_events", "order_by": "event_id DESC"})
    view, purchase, cart = (events.iloc[row] for row in range(3))
    assert list(events["name"]) == [VIEW_ITEM, PURCHASE, ADD_TO_CART]
    assert list(events["time"]) == [FIRST_MS, FIRST_MS + 1875, FIRST_MS + 875]  # zones are honoured, milliseconds kept
    assert view["visitor"] == KEY.visitor("9007199254740993")  # a float would end in 2
    assert view["session"] == hash64("6b3c1f0e-0000-4000-8000-000000000001")
    assert view["id"] == hash64("9223372036854775807")
    assert (view["page"], view["item"]) == (hash64("/p/:id"), hash64("sku-1"))
    assert (view["price"], view["quantity"], view["value"]) == (12.3456, 1, 0)  # NULL is the default
    assert (cart["price"], cart["quantity"], purchase["value"]) == (12.3456, 3, 37.03)
    assert (cart["session"], purchase["item"], purchase["price"]) == (0, 0, 0)
    assert list(events["interactive"]) == [1, 1, 0]
    assert set(events["utc_offset"]) == {60}  # Berlin in winter
    assert set(events["consent"]) == {1}
    assert (notes.rows, notes.skipped) == (3, {})


def test_a_timestamp_without_a_zone_is_utc_and_a_date_its_midnight(server: str) -> None:
    query = "SELECT 'jane' AS who, {} AS at, 'page_view' AS what, 1 AS price"
    events, _ = read(server, LOG, options={"query": query.format("timestamp '2026-07-05 00:30:00'")})
    assert events["time"].item() == pd.Timestamp("2026-07-05T00:30:00Z").value // 1_000_000
    assert events["utc_offset"].item() == 120
    events, _ = read(server, LOG, options={"query": query.format("date '2026-07-05'")})
    assert events["time"].item() == pd.Timestamp("2026-07-05T00:00:00Z").value // 1_000_000


def test_a_view_and_a_table_of_another_schema_are_read(server: str) -> None:
    events, _ = read(server, options={"table": "carts"})
    assert list(events["name"]) == [ADD_TO_CART]
    clicks = {"visitor": "visitor_id", "time": "happened", "name": "event"}
    events, notes = read(server, clicks, options={"table": "clicks", "schema": "lake"})
    assert (len(events), notes.rows) == (100_000, 100_000)
    assert events["visitor"].nunique() == 100_000
    assert events["time"].max() - events["time"].min() == 99_999_000
    assert set(events["name"]) == {PAGE_VIEW}


def test_a_query_may_hold_colons_percents_and_casts(server: str) -> None:
    query = (
        "SELECT visitor_id::text AS who, happened AS at, CASE WHEN event LIKE 'add%' THEN 'page_view' ELSE 'scroll' END"
        " AS what, 2 AS price FROM shop_events WHERE happened > '2026-01-05 10:00:00.5+00' AND ':who' = ':who'"
    )
    events, _ = read(server, LOG, options={"query": query})
    assert sorted(events["name"]) == sorted([PAGE_VIEW, 17])
    assert set(events["visitor"]) == {KEY.visitor("7")}


def test_chunks_come_before_everything_is_fetched(server: str) -> None:
    # row 50,000 cannot be computed: a cursor of the client's would fail before the first row
    query = (
        "SELECT n AS who, timestamp '2026-01-05 10:00:00' AS at, 'page_view' AS what, 1 / (50000 - n) AS price "
        "FROM generate_series(0, 99999) AS n"
    )
    chunks, notes = open_chunks(server, LOG, 1_000, options={"query": query})
    first = next(chunks)
    assert len(first) == 1_000
    assert notes.rows == 1_000
    with pytest.raises(EventError, match="while reading: division by zero"):
        for _ in chunks:
            pass
    assert 40_000 < notes.rows <= 50_000


def test_memory_stays_bounded(server: str) -> None:
    clicks = {"visitor": "visitor_id", "time": "happened", "name": "event", "page": "filler"}
    chunks, _ = open_chunks(server, clicks, 500, options={"query": "SELECT * FROM lake.clicks"})
    next(chunks)
    tracemalloc.start()
    assert sum(len(chunk) for chunk in chunks) == 99_500
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000  # the texts alone are 25 MB


def test_tiny_chunks_give_the_same_table(server: str) -> None:
    options = {"table": "shop_events", "order_by": "event_id"}
    whole, _ = read(server, options=options)
    parts, _ = read(server, options=options, chunk_rows=2)
    pd.testing.assert_frame_equal(whole, parts)
    chunks, _ = open_chunks(server, options=options, chunk_rows=2)
    assert [len(chunk) for chunk in chunks] == [2, 1]


def test_progress_counts_rows_where_the_database_knows_them(server: str, tmp_path: Path) -> None:
    def steps(location: str, columns: dict[str, str], options: dict[str, str]) -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []
        section = SourceSettings(reader="sql", columns=columns, options=options)
        shop = ShopSettings(sources={"shop": section})
        reader, reading = open_source(
            "shop", location, shop, KEY, chunk_rows=20_000, progress=lambda done, whole: seen.append((done, whole))
        )
        assert sum(len(chunk) for chunk in read_chunks(reader, reading)) > 0
        return seen

    clicks = {"visitor": "visitor_id", "time": "happened", "name": "event"}
    known = steps(server, clicks, {"table": "clicks", "schema": "lake"})
    assert known == [(rows, 100_000) for rows in range(20_000, 100_001, 20_000)]
    unknown = steps(server, clicks, {"query": "SELECT * FROM lake.clicks"})
    assert unknown == [(rows, 0) for rows in range(20_000, 100_001, 20_000)]
    location = sqlite(tmp_path / "shop.db", ("jane", AT, "page_view", None))
    assert steps(location, LOG, {"table": "log"}) == [(1, 1)]


def test_sqlite_is_read(tmp_path: Path) -> None:
    location = sqlite(
        tmp_path / "shop.db", ("jane", AT, "page_view", None), (b"\x01\xff", AT + 1, "kaufen", "9.50"),
    )  # fmt: skip
    events, notes = read(location, LOG, options={"table": "log"}, unknown_events="custom")
    assert list(events["visitor"]) == [KEY.visitor("jane"), KEY.visitor("01ff")]
    assert list(events["time"]) == [AT, AT + 1]
    assert list(events["name"]) == [PAGE_VIEW, CUSTOM]
    assert list(events["price"]) == [0, 9.5]
    assert notes.unmapped == {"kaufen": 1}


def test_text_times_and_nanoseconds_keep_their_milliseconds(tmp_path: Path) -> None:
    location = sqlite(tmp_path / "text.db", ("jane", "2026-01-05 10:00:00.125", "page_view", None))
    events, _ = read(location, LOG, options={"table": "log"}, time_unit="iso")
    assert events["time"].item() == FIRST_MS
    location = sqlite(tmp_path / "ns.db", ("jane", 1_767_607_200_007_000_000, "page_view", None))
    events, _ = read(location, LOG, options={"table": "log"}, time_unit="ns")
    assert events["time"].item() == AT + 7  # as a float it would be 6


def test_an_empty_table_gives_no_events(tmp_path: Path) -> None:
    chunks, notes = open_chunks(sqlite(tmp_path / "shop.db"), LOG, options={"table": "log"})
    assert sum(len(chunk) for chunk in chunks) == 0
    assert notes.rows == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((None, AT, "page_view", None), "sqlite:///.*shop.db, table log, row 1: visitor is None; expected a value"),
        (("jane", None, "page_view", None), "row 1: time is .*; expected a value in every row"),
        (("jane", "soon", "page_view", None), "row 1: time is 'soon'; expected a whole number of ms"),
        (("jane", AT, "kaufen", None), r"unknown event 'kaufen' in row 1; known: .*map it in"),
        (("jane", AT, "page_view", "ten"), "row 1: price is 'ten'; expected a number"),
        (("jane", AT, "page_view", float("inf")), "row 1: price is inf; expected a finite number"),
        (("jane", AT, "page_view", -1), "row 1: price is -1; expected a finite number, 0 or more"),
    ],
)
def test_bad_rows_are_named_or_skipped(tmp_path: Path, row: tuple[Any, ...], message: str) -> None:
    good = ("jane", AT, "page_view", None)
    location = sqlite(tmp_path / "shop.db", good, row, good)
    with pytest.raises(EventError, match=message):
        read(location, LOG, options={"table": "log"})
    if "kaufen" not in row:
        events, notes = read(location, LOG, options={"table": "log"}, bad_rows="skip")
        assert len(events) == 2
        assert sum(notes.skipped.values()) == 1


def test_a_nan_is_an_error_and_not_missing(server: str) -> None:
    query = "SELECT 1 AS who, now() AS at, 'page_view' AS what, 'NaN'::{} AS price"
    for kind in ("float8", "numeric"):
        with pytest.raises(EventError, match="row 0: price is 'NaN'; expected a number"):
            read(server, LOG, options={"query": query.format(kind)})


def test_unknown_tables_and_columns_say_what_there_is(server: str, tmp_path: Path) -> None:
    with pytest.raises(EventError, match="has no table 'orders'; there are: carts, shop_events"):
        read(server, options={"table": "orders"})
    with pytest.raises(EventError, match="has no table 'shop_events' in schema 'lake'; there are: clicks"):
        read(server, options={"table": "shop_events", "schema": "lake"})
    location = sqlite(tmp_path / "shop.db", ("jane", AT, "page_view", None))
    for options in ({"table": "log"}, {"query": "SELECT who, at, what FROM log"}):
        with pytest.raises(EventError, match="has no column 'kind', which .* maps to 'name'; found: who, at, what"):
            read(location, {**LOG, "name": "kind"}, options=options)
    with pytest.raises(SettingsError, match="nothing is mapped to 'name'; .*table log has: who, at, what, price"):
        read(location, {"visitor": "who", "time": "at"}, options={"table": "log"})


def test_options_that_do_not_fit_say_which_would(tmp_path: Path) -> None:
    location = sqlite(tmp_path / "shop.db")
    with pytest.raises(SettingsError, match="one of table and query, found none; tables in sqlite.*: log"):
        read(location, LOG)
    with pytest.raises(SettingsError, match="one of table and query, found both"):
        read(location, LOG, options={"table": "log", "query": "SELECT 1"})
    with pytest.raises(SettingsError, match="order_by and schema go with table"):
        read(location, LOG, options={"query": "SELECT 1", "order_by": "at"})
    with pytest.raises(SettingsError, match="tabel.*known options: table, query, .*order_by, url_variable"):
        read(location, LOG, options={"tabel": "log"})


def test_a_file_that_is_none_or_cut_off_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EventError, match="no file at .*none.db"):
        read(f"sqlite:///{tmp_path}/none.db", LOG, options={"table": "log"})
    assert not (tmp_path / "none.db").exists()
    location = sqlite(tmp_path / "cut.db", *[("jane", AT, "page_view", None)] * 2_000)
    whole = (tmp_path / "cut.db").read_bytes()
    (tmp_path / "cut.db").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EventError, match="cut.db.*malformed"):
        read(location, LOG, options={"table": "log"})


def test_the_url_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"table": "log", "url_variable": "SHOP_DB"}
    with pytest.raises(SettingsError, match="environment variable SHOP_DB is not set"):
        read("the warehouse", LOG, options=options)
    monkeypatch.setenv("SHOP_DB", "s3cret@no url")
    with pytest.raises(SettingsError, match="environment variable SHOP_DB is no database URL") as refused:
        read("the warehouse", LOG, options=options)
    assert "s3cret" not in str(refused.value)
    monkeypatch.setenv("SHOP_DB", sqlite(tmp_path / "shop.db", ("jane", AT, "page_view", None)))
    events, _ = read("the warehouse", LOG, options=options)
    assert len(events) == 1


def test_no_message_shows_the_password(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = sa.make_url(server).set(password="another/s3cret:word", query={"passfile": "/home/jane/secret"})
    for location in (
        wrong.render_as_string(hide_password=False),
        server.replace("127.0.0.1", "nowhere.invalid"),
        server + "?password=another/s3cret",
    ):
        with pytest.raises(EventError) as refused:
            read(location, options={"table": "shop_events"})
        assert "postgresql+psycopg://reader:***@" in str(refused.value)
        assert not any(secret in str(refused.value) for secret in (PASSWORD, "s3cret", "secret/", "%2F", "jane"))
    with pytest.raises(EventError, match=r"reader:\*\*\*@127.0.0.1.*, query, row 0: time is") as bad:
        query = f"SELECT 1 AS who, 5 AS at, 'page_view' AS what, 1 AS price FROM (SELECT '{PASSWORD}') AS x"
        read(server, LOG, options={"query": query})
    assert PASSWORD not in str(bad.value)
    with pytest.raises(EventError, match="syntax error") as bad:
        read(server, LOG, options={"query": "SELEC"})
    assert PASSWORD not in str(bad.value)
    out = capfd.readouterr()
    assert "s3cret" not in out.out + out.err


def test_a_url_that_is_none_is_not_repeated() -> None:
    for location in ("reader:s3cret@db", "postgresql+psycopg://reader:s3cret@db:port/shop"):
        with pytest.raises(SettingsError, match="path is no database URL; expected dialect") as refused:
            read(location, LOG, options={"table": "log"})
        assert "s3cret" not in str(refused.value)


def test_a_missing_driver_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for dialect in ("postgresql", "postgresql+psycopg"):
        with pytest.raises(
            SettingsError, match=r"'psycopg' is not installed; run: pip install \"lotse\[postgresql\]\""
        ):
            read(f"{dialect}://reader:s3cret@db/shop", LOG, options={"table": "log"})
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(SettingsError, match=r"mysql\+pymysql://reader:\*\*\*@db/shop.*pip install pymysql") as refused:
        read("mysql+pymysql://reader:s3cret@db/shop", LOG, options={"table": "log"})
    assert "s3cret" not in str(refused.value)
    with pytest.raises(SettingsError, match="unknown kind of database 'mongodb'; there are postgresql"):
        read("mongodb://reader:s3cret@db/shop", LOG, options={"table": "log"})


def test_the_server_is_left_without_a_connection(server: str) -> None:
    chunks, _ = open_chunks(server, options={"table": "shop_events"}, chunk_rows=1)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    engine = sa.create_engine(server)
    with engine.connect() as connection:
        others = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        assert connection.execute(sa.text(others)).scalar() == 0
    engine.dispose()

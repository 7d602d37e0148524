"""The source `matomo` on its log tables: the same events as from the API, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from features.errors import EventError
from features.events import hash64
from features.shop import ShopSettings, SourceSettings
from features.sources import matomo_tables, open_source, read_chunks
from tests.features.test_source_matomo import BUYER, KEY, LEAVER, T, names, read, read_visits
from tests.postgres import postgres

# As Matomo 5 lays them out, without most of the columns that nobody reads.
SCHEMA = sa.MetaData()
_ID, _NUMBER = sa.BigInteger, sa.Integer
sa.Table(
    "matomo_log_visit", SCHEMA, sa.Column("idvisit", _ID, primary_key=True), sa.Column("idsite", _NUMBER),
    sa.Column("idvisitor", sa.LargeBinary(8)), sa.Column("user_id", sa.String(200)),
    sa.Column("visit_first_action_time", sa.DateTime), sa.Column("visit_last_action_time", sa.DateTime),
    sa.Column("visitor_localtime", sa.Time), sa.Column("referer_type", sa.SmallInteger),
    sa.Column("referer_name", sa.String(255)), sa.Column("config_device_type", sa.SmallInteger),
    sa.Column("location_ip", sa.LargeBinary(16)),
)  # fmt: skip
sa.Table(
    "matomo_log_link_visit_action", SCHEMA, sa.Column("idlink_va", _ID, primary_key=True),
    sa.Column("idsite", _NUMBER), sa.Column("idvisitor", sa.LargeBinary(8)), sa.Column("idvisit", _ID),
    sa.Column("server_time", sa.DateTime), sa.Column("idpageview", sa.CHAR(6)), sa.Column("custom_float", sa.Double),
    sa.Column("time_spent_ref_action", _NUMBER),
    *(sa.Column(name, _NUMBER) for name in (
        "idaction_url", "idaction_name", "idaction_url_ref", "idaction_event_action", "idaction_event_category",
        "idaction_content_name", "idaction_content_piece", "idaction_content_interaction", "idaction_product_sku",
        "idaction_product_name", "idaction_product_cat",
    )),
    sa.Column("product_price", sa.Double),
)  # fmt: skip
sa.Table(
    "matomo_log_action", SCHEMA, sa.Column("idaction", _NUMBER, primary_key=True), sa.Column("name", sa.String(4096)),
    sa.Column("hash", _ID), sa.Column("type", sa.SmallInteger), sa.Column("url_prefix", sa.SmallInteger),
)  # fmt: skip
sa.Table(
    "matomo_log_conversion", SCHEMA, sa.Column("idvisit", _ID, primary_key=True),
    sa.Column("idgoal", _NUMBER, primary_key=True), sa.Column("buster", _NUMBER, primary_key=True),
    sa.Column("idsite", _NUMBER), sa.Column("server_time", sa.DateTime), sa.Column("idlink_va", _ID),
    sa.Column("idorder", sa.String(100)), sa.Column("items", sa.SmallInteger), sa.Column("url", sa.String(4096)),
    sa.Column("revenue", sa.Double),
)  # fmt: skip
sa.Table(
    "matomo_log_conversion_item", SCHEMA, sa.Column("idvisit", _ID, primary_key=True),
    sa.Column("idorder", sa.String(100), primary_key=True), sa.Column("idaction_sku", _NUMBER, primary_key=True),
    sa.Column("idsite", _NUMBER), sa.Column("server_time", sa.DateTime), sa.Column("idaction_name", _NUMBER),
    sa.Column("idaction_category", _NUMBER), sa.Column("price", sa.Double), sa.Column("quantity", _NUMBER),
    sa.Column("deleted", sa.SmallInteger),
)  # fmt: skip
sa.Table(
    "matomo_goal", SCHEMA, sa.Column("idsite", _NUMBER, primary_key=True),
    sa.Column("idgoal", _NUMBER, primary_key=True), sa.Column("name", sa.String(50)),
)  # fmt: skip
sa.Table(
    "matomo_site", SCHEMA, sa.Column("idsite", _NUMBER, primary_key=True), sa.Column("currency", sa.CHAR(3)),
)  # fmt: skip


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(T + seconds, UTC).replace(tzinfo=None)


def link(number: int, seconds: int, url: int | None, visit: int = 101, site: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "idlink_va": number,
        "idsite": site,
        "idvisit": visit,
        "server_time": at(seconds),
        "idaction_url": url,
        **more,
    }


# The visits of above, and one of another site, as the tracker writes them.
CONTENT: dict[str, list[dict[str, Any]]] = {
    "site": [{"idsite": 1, "currency": "USD"}, {"idsite": 2, "currency": "EUR"}],
    "goal": [{"idsite": 1, "idgoal": 3, "name": "Newsletter"}],
    "log_visit": [
        {"idvisit": 101, "idsite": 1, "idvisitor": bytes.fromhex("9f3c1a2b4d5e6f70"), "user_id": "jane@example.org",
         "visit_first_action_time": at(0), "visitor_localtime": time(15, 30, 4), "referer_type": 2,
         "referer_name": "Google", "config_device_type": 1, "location_ip": b"\xcb\x00\x71\x09"},
        {"idvisit": 102, "idsite": 1, "idvisitor": bytes(7) + b"\xff", "visit_first_action_time": at(300),
         "visitor_localtime": time(2, 5, 10), "referer_type": 6, "referer_name": "spring", "config_device_type": 0},
        {"idvisit": 205, "idsite": 2, "idvisitor": bytes(8), "visit_first_action_time": at(400)},
        {"idvisit": 206, "idsite": 2, "idvisitor": bytes(8), "visit_first_action_time": at(500)},
    ],
    "log_action": [
        {"idaction": number, "name": name, "type": kind, "url_prefix": prefix, "hash": number}
        for number, name, kind, prefix in (
            (1, "shop.example/", 1, 2), (2, "red shoes", 8, None), (3, "shop.example/list/3?sort=price", 1, 3),
            (4, "shop.example/p/4711", 1, 2), (5, "SKU-1", 5, None), (6, "Red shoe", 6, None), (7, "Shoes", 7, None),
            (8, "Video", 10, None), (9, "Play", 11, None), (10, "shop.example/p/4711", 10, 2), (11, "Banner", 13, None),
            (12, "click", 16, None), (13, "reviews.example/4711", 2, 2), (14, "shop.example/sizes.pdf", 3, 2),
            (15, "SKU-2", 5, None), (16, "Sock", 6, None), (17, "shop.example/p/8", 1, 0), (18, "Home", 4, None),
            (19, "SKU-3", 5, None),
        )
    ],
    "log_link_visit_action": [
        link(1001, 0, 1, idaction_name=18),
        link(1002, 10, None, idaction_name=2),
        link(1003, 20, 3, idaction_product_cat=7),
        link(1004, 30, 4, idaction_product_sku=5, idaction_product_name=6, idaction_product_cat=7, product_price=79.9),
        link(1005, 40, 10, idaction_event_category=8, idaction_event_action=9, custom_float=3),
        link(1006, 41, 4, idaction_content_name=11),
        link(1007, 42, 4, idaction_content_name=11, idaction_content_interaction=12),
        link(1008, 50, 13),
        link(1009, 60, 14),
        link(1010, 300, 17, visit=102),
        link(1011, 400, None, visit=205, site=2, idaction_name=18),  # a title without an address
    ],
    "log_conversion": [
        {"idvisit": 101, "idsite": 1, "idgoal": 3, "buster": 0, "server_time": at(60), "idlink_va": 1009,
         "url": "https://shop.example/thanks", "revenue": 2.5},
        {"idvisit": 101, "idsite": 1, "idgoal": 0, "buster": 99, "server_time": at(200), "idorder": "ORD-1", "items": 3,
         "url": "", "revenue": 178.62},
        {"idvisit": 102, "idsite": 1, "idgoal": -1, "buster": 0, "server_time": at(310), "items": 2, "url": "",
         "revenue": 84.9},
    ],
    "log_conversion_item": [
        {"idvisit": visit, "idsite": 1, "idorder": order, "idaction_sku": sku, "idaction_name": name,
         "idaction_category": category, "price": price, "quantity": quantity, "deleted": deleted,
         "server_time": at(200)}
        for visit, order, sku, name, category, price, quantity, deleted in (
            (101, "ORD-1", 5, 6, 7, 79.9, 2, 0), (101, "ORD-1", 15, 16, 0, 5, 1, 0), (101, "ORD-1", 19, 0, 0, 1, 1, 1),
            (102, "0", 5, 6, 7, 79.9, 1, 0), (102, "0", 15, 16, 0, 5, 1, 0), (102, "0", 19, 0, 0, 1, 1, 1),
        )
    ],
}  # fmt: skip


def filled(url: str, leave_out: tuple[str, ...] = ()) -> str:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        tables = [table for name, table in SCHEMA.tables.items() if name.removeprefix("matomo_") not in leave_out]
        SCHEMA.create_all(connection, tables)
        for table in tables:
            for row in CONTENT[table.name.removeprefix("matomo_")]:
                connection.execute(table.insert().values(row))
    engine.dispose()
    return url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database with the log tables."""
    if request.param == "sqlite":
        yield filled(f"sqlite:///{tmp_path_factory.mktemp('matomo')}/matomo.db")
    else:
        with postgres() as url:
            yield filled(url)


def changed(tmp_path: Path, *statements: str, leave_out: tuple[str, ...] = ()) -> str:
    url = filled(f"sqlite:///{tmp_path}/changed.db", leave_out)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()
    return url


def test_the_tables_give_the_same_events_as_the_api(database: str, tmp_path: Path) -> None:
    expected, expected_notes = read_visits(tmp_path, BUYER, LEAVER)
    events, notes = read(database, options={"site": 1})
    pd.testing.assert_frame_equal(events, expected)
    assert (notes.rows, notes.skipped, notes.unmapped) == (15, expected_notes.skipped, expected_notes.unmapped)


def test_all_sites_are_read_without_the_option(database: str) -> None:
    events, notes = read(database)
    assert len(events) == 15
    last = events.iloc[-1]
    assert names(events)[-1] == "page_view"
    assert (events["visitor"].iloc[-1], last["page"]) == (KEY.visitor("0" * 16), 0)
    assert (last["channel"], last["device"], last["utc_offset"]) == (0, 0, 60)  # nothing told
    assert notes.skipped["visit without actions"] == 1


def test_visits_are_asked_for_some_at_a_time(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = read(database)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(matomo_tables, "VISITS_AT_ONCE", 3)
    monkeypatch.setattr(matomo_tables, "_NAMES_AT_ONCE", 2)
    source = SourceSettings(options={"carts": "events"})
    shop = ShopSettings(timezone="Europe/Berlin", rates={"USD": 0.5}, sources={"matomo": source})
    reader, reading = open_source(
        "matomo", database, shop, KEY, chunk_rows=2, progress=lambda done, whole: seen.append((done, whole))
    )
    chunks = read_chunks(reader, reading)
    first = next(chunks)
    assert (len(first), reading.notes.rows) == (2, 2)
    pd.testing.assert_frame_equal(pd.concat([first, *chunks], ignore_index=True), expected)
    assert [done for done, _ in seen] == [3, 4]
    assert {whole for _, whole in seen} <= {0, 4}  # PostgreSQL has not counted a table that is new


def test_the_url_may_come_from_the_environment(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATOMO_DB", database)
    events, _ = read("our Matomo", options={"url_variable": "MATOMO_DB", "site": 2})
    assert names(events) == ["page_view"]


def test_tables_of_another_prefix_are_found(tmp_path: Path) -> None:
    tables = [name.removeprefix("matomo_") for name in SCHEMA.tables]
    url = changed(tmp_path, *(f"ALTER TABLE matomo_{name} RENAME TO piwik_{name}" for name in tables))
    with pytest.raises(EventError, match="has no table 'matomo_log_visit'; there are: piwik_goal, piwik_log_action"):
        read(url)
    events, _ = read(url, options={"table_prefix": "piwik_"})
    assert len(events) == 15


def test_columns_of_plug_ins_and_small_tables_may_be_missing(tmp_path: Path) -> None:
    drop = "ALTER TABLE matomo_log_link_visit_action DROP COLUMN "
    url = changed(
        tmp_path, drop + "idaction_content_name", drop + "idaction_content_interaction", drop + "product_price",
        leave_out=("site", "goal"),
    )  # fmt: skip
    events, notes = read(url, rates={}, options={"site": 1})
    assert names(events)[3:8] == ["view_item", "custom", "page_view", "page_view", "click"]
    assert (events["item"][3], events["price"][3]) == (hash64("SKU-1"), 0)
    assert events["price"][10] == 79.9  # no currency, no change
    assert notes.unmapped == {"event:Video/Play": 1, "goal:None": 1}


def test_a_missing_column_or_a_bad_time_is_named(tmp_path: Path) -> None:
    url = changed(tmp_path, "UPDATE matomo_log_link_visit_action SET server_time = 'soon' WHERE idlink_va = 1010")
    with pytest.raises(EventError, match="changed.db, row 1: time is 'soon'; expected a whole number of s"):
        read(url)
    events, notes = read(url, bad_rows="skip")
    assert (len(events), notes.skipped["time: not a number"]) == (14, 1)
    (tmp_path / "changed.db").unlink()
    url = changed(tmp_path, "ALTER TABLE matomo_log_visit DROP COLUMN idvisitor")
    with pytest.raises(EventError, match="table matomo_log_visit has no column 'idvisitor'"):
        read(url)


def test_empty_tables_give_no_events(tmp_path: Path) -> None:
    events, notes = read(changed(tmp_path, "DELETE FROM matomo_log_visit"))
    assert (len(events), notes.rows) == (0, 0)

"""Segment: archived calls and warehouse tables in, canonical events out."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from features.errors import EventError
from features.events import CHANNELS, DEVICES, EVENT_NAMES, hash64
from features.pseudonyms import Pseudonymiser
from features.segment import EVENTS, NOT_LINKED, WITHHELD
from features.settings import SettingsError
from features.shop import ShopSettings
from features.sources import Notes, concatenate, open_source, read_chunks
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM
from features.sources.segment import DEFAULTS
from tests.shared import SHARED

KEY = Pseudonymiser(b"0123456789abcdef")
SHOP = ShopSettings(currency="EUR", timezone="Europe/Berlin", rates={"USD": 0.5})
CAPTURES = SHARED / "captures"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36"
AT = "2026-01-05T10:00:00.250Z"
AT_MS = 1_767_607_200_250
ORDER = {
    "order_id": "O1",
    "total": "27.50",
    "revenue": 25,
    "currency": "USD",
    "products": [
        {"product_id": "P1", "sku": "S1", "price": 19, "quantity": 1, "category": "Games"},
        {"sku": "S2", "price": "3", "quantity": 2},
    ],
}


def read(location: Path | str, chunk_rows: int = 1_000, **settings: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("segment", str(location), SHOP, KEY, chunk_rows=chunk_rows, overrides=settings)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def call(number: int, event: str = "", **more: Any) -> dict[str, Any]:
    """A call as the archive keeps it."""
    return {
        "type": "track" if event else "page",
        "messageId": f"m{number}",
        "anonymousId": "anon-1",
        "userId": None,
        "timestamp": AT,
        "originalTimestamp": "2026-01-05T09:00:00.000Z",
        "receivedAt": "2026-01-05T10:00:01.000Z",
        "context": {
            "page": {"url": "https://shop.example/p/1?q=x", "path": "/p/1", "referrer": ""},
            "userAgent": CHROME,
        },
        "properties": {},
        **({"event": event} if event else {}),
        **more,
    }


def archive(folder: Path, *calls: dict[str, Any] | str, name: str = "f.gz") -> Path:
    """A file where the S3 destination puts it."""
    path = folder / "segment-logs" / "aBcD" / "1767571200000" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in calls)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def names(events: pd.DataFrame) -> list[str]:
    return [EVENT_NAMES[code] for code in events["name"]]


def captured(file: str) -> list[dict[str, Any]]:
    """The calls of real clients, each once for every request that carried it."""
    calls = []
    for line in (CAPTURES / file).read_text().splitlines():
        request = json.loads(line)
        if request["method"] == "POST":
            body = json.loads(request["body"])
            calls += [{"sentAt": body["sentAt"], **one} for one in body.get("batch", [body])]
    return calls


def test_a_page_view_becomes_canonical(tmp_path: Path) -> None:
    context = {
        "page": {"url": "https://shop.example/p/1?q=x", "path": "/p/1", "referrer": "https://www.google.com/"},
        "userAgent": CHROME,
        "timezone": "America/New_York",
        "ip": "203.0.113.9",
    }
    archive(tmp_path, call(1, context=context))
    events, notes = read(tmp_path)
    (event,) = events.to_dict("records")
    assert event["visitor"] == KEY.visitor("anon-1")
    assert (event["id"], event["session"]) == (hash64("m1"), 0)
    assert event["time"] == AT_MS  # corrected by Segment; not the client's own, not the time of receipt
    assert EVENT_NAMES[event["name"]] == "page_view"
    assert event["page"] == hash64("/p/:id")
    assert CHANNELS[event["channel"]] == "organic"
    assert DEVICES[event["device"]] == "desktop"
    assert (event["utc_offset"], event["consent"]) == (-300, 1)
    assert (notes.rows, notes.skipped, notes.unmapped) == (1, {}, {})


def test_nested_folders_and_plain_files_are_read(tmp_path: Path) -> None:
    archive(tmp_path, call(1))
    archive(tmp_path, call(2), call(3), name="g.json")
    events, notes = read(tmp_path)
    assert list(events["id"]) == [hash64("m1"), hash64("m2"), hash64("m3")]
    assert notes.rows == 3


def test_an_order_gives_an_event_a_product_and_its_value_once(tmp_path: Path) -> None:
    archive(tmp_path, call(1, "Order Completed", properties=ORDER))
    events, notes = read(tmp_path)
    assert names(events) == ["purchase", "purchase"]
    assert list(events["id"]) == [hash64("m1"), hash64("m1/1")]
    assert list(events["item"]) == [hash64("P1"), hash64("S2")]
    assert list(events["category"]) == [hash64("Games"), 0]
    assert list(events["price"]) == [9.5, 1.5]  # dollars to euros
    assert list(events["quantity"]) == [1, 2]
    assert list(events["value"]) == [13.75, 0]
    assert list(events["time"]) == [AT_MS, AT_MS]
    assert notes.rows == 1


def test_a_list_stays_one_event(tmp_path: Path) -> None:
    listed = {"category": "Deals", "products": [{"product_id": "P1", "price": 19}, {"product_id": "P2"}]}
    archive(tmp_path, call(1, "Product List Viewed", properties=listed))
    events, _ = read(tmp_path)
    assert names(events) == ["view_item_list"]
    assert (events["item"].item(), events["category"].item()) == (0, hash64("Deals"))


def test_one_product_is_taken_from_the_properties(tmp_path: Path) -> None:
    product = {"product_id": "P1", "sku": "S1", "category": "Games", "price": 18.99, "quantity": 2, "currency": "EUR"}
    odd = {"product_id": {"sku": "S8"}, "sku": "S9", "category": ["Games"], "products": "none"}
    archive(tmp_path, call(1, "Product Added", properties=product), call(2, "Product Viewed", properties=odd))
    events, notes = read(tmp_path)
    assert names(events) == ["add_to_cart", "view_item"]
    assert list(events["category"]) == [hash64("Games"), 0]
    assert notes.unmapped == {}
    assert list(events["item"]) == [hash64("P1"), hash64("S9")]
    assert list(events["price"]) == [18.99, 0]
    assert list(events["quantity"]) == [2, 1]


def test_every_name_of_the_table_is_known_in_any_spelling(tmp_path: Path) -> None:
    spelled = [name for name in EVENTS if name not in ("page", "screen")]
    lines = [call(number, name) for number, name in enumerate(spelled)]
    lines += [call(900 + number, name.lower().replace(" ", "_")) for number, name in enumerate(spelled)]
    archive(tmp_path, *lines)
    events, notes = read(tmp_path, unknown_events="error")
    assert names(events) == [EVENTS[name] for name in spelled] * 2
    assert notes.unmapped == {}


def test_unknown_names_are_custom_and_counted_and_can_be_mapped(tmp_path: Path) -> None:
    archive(tmp_path, call(1, "Gewinnspiel Gestartet"), call(2, "Gewinnspiel Gestartet"), call(3, "Signed Up"))
    events, notes = read(tmp_path)
    assert names(events) == ["custom", "custom", "sign_up"]
    assert notes.unmapped == {"Gewinnspiel Gestartet": 2}
    mapped, _ = read(tmp_path, events={**DEFAULTS.events, "gewinnspiel_gestartet": "generate_lead"})
    assert names(mapped) == ["generate_lead", "generate_lead", "sign_up"]
    with pytest.raises(EventError, match="unknown event 'Gewinnspiel Gestartet' in row 0"):
        read(tmp_path, unknown_events="error")


def test_calls_that_are_no_step_are_counted(tmp_path: Path) -> None:
    others = [call(number, type=kind) for number, kind in enumerate(("identify", "group", "alias", "identify"))]
    archive(tmp_path, *others, call(9, type="screen", name="Home", context={}))
    events, notes = read(tmp_path)
    assert names(events) == ["page_view"]
    assert events["page"].item() == hash64("/Home")
    assert CHANNELS[events["channel"].item()] == "unknown"
    assert notes.rows == 5
    assert notes.skipped == {
        "identify: no step of a visitor": 2,
        "group: no step of a visitor": 1,
        "alias: no step of a visitor": 1,
    }


def test_the_account_is_the_visitor_only_with_consent_to_link(tmp_path: Path) -> None:
    device, account = KEY.visitor("anon-1"), KEY.visitor("user-42")
    server = call(3, "Order Completed", userId="user-42", context={}) | {"anonymousId": None}
    archive(tmp_path, call(1), call(2, "Signed In", userId="user-42"), server)
    events, notes = read(tmp_path)
    assert list(events["visitor"]) == [device, device]
    assert (notes.rows, notes.skipped) == (3, {NOT_LINKED: 1})
    linked, notes = read(tmp_path, consent=("measure", "link"))
    assert list(linked["visitor"]) == [device, account, account]
    assert notes.skipped == {}
    granted = {"consent": {"categoryPreferences": {"Analytics": True}}}
    archive(tmp_path, call(1, userId="user-42", context=granted), call(2, userId="user-42"))
    events, _ = read(tmp_path)
    assert list(events["visitor"]) == [account, device]


def test_a_call_that_is_withheld_is_left_out(tmp_path: Path) -> None:
    kept = [{}, {"All": False, "Segment.io": True}, {"All": False, "Lotse": {"own": 1}}, {"Salesforce": False}, 7]
    withheld = [{"All": False}, {"Lotse": False, "Segment.io": True}, {"Segment.io": False}]
    archive(tmp_path, *(call(number, integrations=each) for number, each in enumerate([*kept, *withheld])))
    events, notes = read(tmp_path)
    assert list(events["id"]) == [hash64(f"m{number}") for number in range(len(kept))]
    assert notes.skipped == {WITHHELD: 3}


def test_consent_follows_the_preferences(tmp_path: Path) -> None:
    def preferring(number: int, **preferences: bool) -> dict[str, Any]:
        return call(number, context={"consent": {"categoryPreferences": preferences}})

    archive(
        tmp_path,
        preferring(1, Analytics=True, Advertising=False),
        preferring(2, Analytics=False, Advertising=True),
        preferring(3, C0002=True, C0003=True),
        preferring(4, Sonstiges=True),
        call(5),
    )
    events, notes = read(tmp_path, consent=("measure", "personalise"))
    assert list(events["consent"]) == [3, 0, 7, 0, 5]
    assert notes.unmapped == {"consent category Sonstiges": 1}
    own, _ = read(tmp_path, options={"consent_categories": {"sonstiges": ["measure"], "advertising": ["personalise"]}})
    assert list(own["consent"]) == [3, 4, 7, 1, 1]


def test_campaign_of_the_call_wins_over_the_address(tmp_path: Path) -> None:
    page = {"url": "https://shop.example/?utm_medium=cpc&utm_campaign=old#top", "referrer": ""}
    campaign = {"source": "news", "medium": "email", "name": "spring"}
    archive(tmp_path, call(1, context={"page": page, "campaign": campaign}), call(2, context={"page": page}))
    events, _ = read(tmp_path)
    assert [CHANNELS[code] for code in events["channel"]] == ["email", "paid"]
    assert list(events["campaign"]) == [hash64("spring"), hash64("old")]
    assert set(events["page"]) == {hash64("/")}


def test_a_zone_that_is_none_leaves_the_shops(tmp_path: Path) -> None:
    winter = call(1, context={"timezone": "Asia/Kolkata"})
    summer = call(2, context={"timezone": "Nowhere/None"}, timestamp="2026-07-05T10:00:00Z")
    archive(tmp_path, winter, summer, call(3, context={"timezone": "../etc"}))
    events, _ = read(tmp_path)
    assert list(events["utc_offset"]) == [330, 120, 60]


def test_a_call_delivered_twice_keeps_its_id(tmp_path: Path) -> None:
    archive(tmp_path, call(1), call(1))
    events, _ = read(tmp_path)
    assert list(events["id"]) == [hash64("m1")] * 2


def test_what_was_cut_off_is_counted(tmp_path: Path) -> None:
    archive(tmp_path, call(1), '{"type": "page", "messageId": "m2", "anony', name="f.json")
    events, notes = read(tmp_path)
    assert list(events["id"]) == [hash64("m1")]
    assert notes.skipped == {CUT_OFF: 1}
    archive(tmp_path, name="f.json")
    whole = archive(tmp_path, *(call(number) for number in range(2_000)))
    whole.write_bytes(whole.read_bytes()[:-200])
    events, notes = read(tmp_path)
    assert 0 < len(events) < 2_000
    assert notes.skipped[CUT_OFF_STREAM] == 1


def test_empty_files_give_no_events(tmp_path: Path) -> None:
    archive(tmp_path)
    archive(tmp_path, name="f.json")
    (tmp_path / "pages.csv").touch()
    (tmp_path / "tracks.parquet").touch()
    events, notes = read(tmp_path)
    assert (len(events), notes.rows, notes.skipped) == (0, 0, {})


@pytest.mark.parametrize(
    ("bad", "message", "reason"),
    [
        ("{oops", r"row 1: no JSON", "no JSON"),
        ("[1]", r"row 1: found a list; expected an object", "no object"),
        (call(2) | {"timestamp": "yesterday"}, r"row 1: time is 'yesterday'; expected a time", "time: no time"),
        (call(2) | {"anonymousId": ""}, r"row 1: visitor is None; expected a value", "visitor: missing"),
        (call(2) | {"type": None}, r"row 1: name is None; expected a value", "name: missing"),
        (call(2, "Product Added", properties={"price": "ten"}), r"row 1: price is 'ten'", "price: not a number"),
        (call(2, "Product Added", properties={"currency": "XXX"}), r"row 1: currency is 'XXX'", "currency: no rate"),
    ],
)
def test_a_bad_row_is_named_or_skipped(tmp_path: Path, bad: Any, message: str, reason: str) -> None:
    path = archive(tmp_path, call(1), bad, call(3))
    with pytest.raises(EventError, match=f"{path}, {message}"):
        read(tmp_path)
    events, notes = read(tmp_path, bad_rows="skip")
    assert list(events["id"]) == [hash64("m1"), hash64("m3")]
    assert notes.skipped == {reason: 1}
    assert notes.rows == 3


def test_small_chunks_give_the_same_table(tmp_path: Path) -> None:
    lines = [call(1), call(2, "Order Completed", properties=ORDER), call(3, "Order Completed", context={})]
    lines += [
        call(4, type="identify"),
        call(5, context={"timezone": "Asia/Kolkata"}),
        call(6, type="screen", context={}),
    ]
    archive(tmp_path, *lines)
    whole, notes = read(tmp_path)
    parts, part_notes = read(tmp_path, chunk_rows=2)
    assert len(whole) == 6
    pd.testing.assert_frame_equal(whole, parts)
    assert part_notes == notes


def test_calls_of_the_browser_client(tmp_path: Path) -> None:
    calls = captured("segment_browser.jsonl")
    archive(tmp_path, *calls)
    events, notes = read(tmp_path)
    assert (notes.rows, len(events)) == (34, 32)
    assert notes.skipped == {"identify: no step of a visitor": 1, "alias: no step of a visitor": 1}
    assert names(events)[:8] == [
        "page_view", "page_view", "custom", "view_item_list", "search", "remove_from_cart", "begin_checkout", "custom",
    ]  # fmt: skip
    assert notes.unmapped == {"Video Played": 1, "Banner Clicked": 1, "Back Dated": 1, "C": 1, "D": 1, "Err": 19}
    records = events.to_dict("records")
    first, removed, started = records[0], records[5], records[6]
    assert first["visitor"] == KEY.visitor("291fd985-d763-4f04-ab40-a56080a7d6ee")
    assert first["time"] == 1_795_480_086_667
    assert (CHANNELS[first["channel"]], first["campaign"]) == ("email", hash64("spring"))
    assert (removed["item"], removed["price"], removed["page"]) == (hash64("SKU-2"), 5, hash64("/category/shoes"))
    assert (started["item"], started["value"]) == (0, 159.8)
    (back_dated,) = events[events["consent"] == 3].to_dict("records")
    assert back_dated["time"] == 1_767_323_045_678
    # a retry carries the id of the first try
    assert events[events["name"] == 0]["id"].nunique() == 5 + 5


def test_calls_of_the_server_client(tmp_path: Path) -> None:
    archive(tmp_path, *captured("segment_node.jsonl"))
    events, notes = read(tmp_path, consent=("measure", "link"))
    assert names(events) == ["purchase", "page_view", "custom", "custom", "custom"]
    assert events["visitor"].iloc[0] == KEY.visitor("user-42")
    assert events["value"].iloc[0] == 49
    assert list(events["page"]) == [0, hash64("/"), 0, 0, 0]
    assert [CHANNELS[code] for code in events["channel"]] == ["unknown", "direct", "unknown", "unknown", "unknown"]
    assert notes.skipped == {"identify: no step of a visitor": 1}
    events, notes = read(tmp_path)
    assert names(events) == ["page_view", "custom", "custom", "custom"]
    assert notes.skipped == {"identify: no step of a visitor": 1, NOT_LINKED: 1}


TIME = datetime(2026, 1, 5, 10, 0, 0, 250_000, UTC)
ALL = {"anonymous_id": "anon-1", "user_id": None, "received_at": TIME, "timestamp": TIME, "context_user_agent": CHROME}
TABLES: dict[str, list[dict[str, Any]]] = {
    "pages": [
        {**ALL, "id": "m1", "url": "https://shop.example/?utm_source=x", "referrer": "https://bing.com/",
         "name": "Home", "context_page_url": None, "context_timezone": "Europe/London",
         "context_campaign_medium": "cpc",
         "context_campaign_name": "spring", "context_consent_category_preferences_analytics": True},
    ],
    "tracks": [
        {**ALL, "id": "m2", "event": "product_viewed", "event_text": "Product Viewed"},
        {**ALL, "id": "m3", "event": "order_completed", "event_text": "Order Completed"},
        {**ALL, "id": "m4", "event": "banner_clicked", "event_text": "Banner Clicked"},
    ],
    "product_viewed": [
        {**ALL, "id": "m2", "event": "product_viewed", "event_text": "Product Viewed", "product_id": "P1",
         "name": "Uno", "category": "Games", "price": 3.5, "currency": "USD", "url": "https://shop.example/elsewhere",
         "context_page_url": "https://shop.example/p/7", "context_page_referrer": "https://shop.example/"},
    ],
    "order_completed": [
        {**ALL, "id": "m3", "event": "order_completed", "event_text": "Order Completed", "total": 27.5, "revenue": 25.0,
         "products": json.dumps(ORDER["products"])},
    ],
    "identifies": [{**ALL, "id": "m9", "email": "jane@shop.example"}, {**ALL, "id": "m10", "email": "joe@a.example"}],
}  # fmt: skip


def folder_of_tables(folder: Path, suffix: str) -> Path:
    folder.mkdir()
    for name, rows in TABLES.items():
        table = pa.Table.from_pylist(rows, pa.schema({k: pa.array([r[k] for r in rows]).type for k in rows[0]}))
        if suffix == ".parquet":
            pq.write_table(table, folder / f"{name}.parquet")
        else:
            table.to_pandas().to_csv(folder / f"{name}{suffix}", index=False)
    return folder


def database_of_tables(path: Path) -> str:
    engine = sa.create_engine(f"sqlite:///{path}")
    for name, rows in TABLES.items():
        pd.DataFrame(rows).to_sql(name, engine, index=False)
    pd.DataFrame({"sku": ["P1"]}).to_sql("stock", engine, index=False)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE VIEW pages_view AS SELECT * FROM pages"))
    engine.dispose()
    return f"sqlite:///{path}"


@pytest.mark.parametrize("kind", [".parquet", ".csv", ".csv.gz", "-000000000000.parquet", "database"])
@pytest.mark.parametrize("chunk_rows", [1_000, 2])
def test_warehouse_tables_become_canonical(tmp_path: Path, kind: str, chunk_rows: int) -> None:
    if kind == "database":
        location: Path | str = database_of_tables(tmp_path / "shop.db")
    else:
        location = folder_of_tables(tmp_path / "tables", kind.removeprefix("-000000000000"))
        for path in location.iterdir():
            path.rename(path.with_name(path.name.replace(kind.removeprefix("-000000000000"), kind)))
    events, notes = read(location, chunk_rows)
    assert notes.skipped == {"identifies: no step of a visitor": 2, "tracks: the event has its own table": 2}
    assert notes.unmapped == {"Banner Clicked": 1}
    assert notes.rows == 8
    assert sorted(names(events)) == ["custom", "page_view", "purchase", "purchase", "view_item"]
    assert set(events["time"]) == {AT_MS}
    assert set(events["visitor"]) == {KEY.visitor("anon-1")}
    by_id = {event["id"]: event for event in events.to_dict("records")}
    viewed, bought = by_id[hash64("m2")], [by_id[hash64("m3")], by_id[hash64("m3/1")]]
    assert (viewed["item"], viewed["price"], viewed["page"]) == (hash64("P1"), 1.75, hash64("/p/:id"))
    assert CHANNELS[viewed["channel"]] == "internal"
    assert [event["item"] for event in bought] == [hash64("P1"), hash64("S2")]
    assert [event["value"] for event in bought] == [27.5, 0]
    page = by_id[hash64("m1")]
    assert (page["page"], page["campaign"], page["utc_offset"]) == (hash64("/"), hash64("spring"), 0)
    assert (CHANNELS[page["channel"]], DEVICES[page["device"]], page["consent"]) == ("paid", "desktop", 3)
    assert by_id[hash64("m4")]["utc_offset"] == 60  # the shop's zone


def test_tracks_alone_gives_all_its_events(tmp_path: Path) -> None:
    folder = folder_of_tables(tmp_path / "tables", ".csv")
    events, notes = read(folder / "tracks.csv")
    assert names(events) == ["view_item", "purchase", "custom"]
    assert notes.skipped == {}


def test_products_that_a_warehouse_cut_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "order_completed.csv"
    path.write_text("id,anonymous_id,timestamp,total,products\nm1,anon-1,2026-01-05 10:00:00.25 UTC,9,[{\n")
    events, notes = read(path)
    assert names(events) == ["purchase"]
    assert (events["value"].item(), events["time"].item()) == (9, AT_MS)
    assert notes.unmapped == {"products that are no JSON": 1}


def test_a_csv_table_that_was_cut_and_one_with_a_bad_row(tmp_path: Path) -> None:
    heading, row = "id,anonymous_id,timestamp,url\n", f"m1,anon-1,{AT},https://shop.example/\n"
    path = tmp_path / "pages.csv"
    path.write_text(heading + row + "m2,anon-1,2026-")
    events, notes = read(path)
    assert list(events["id"]) == [hash64("m1")]
    assert notes.skipped == {CUT_OFF: 1}
    path.write_text(heading + row + "m2,anon-1\n" + row)
    with pytest.raises(EventError, match="row 1: found 2 cells; expected the heading's 4"):
        read(path)


def test_a_parquet_table_that_was_cut_cannot_be_read(tmp_path: Path) -> None:
    path = folder_of_tables(tmp_path / "tables", ".parquet") / "pages.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(EventError, match="pages.parquet cannot be read as Parquet"):
        read(path)


def test_a_database_without_such_tables_says_what_there_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    engine = sa.create_engine(url)
    pd.DataFrame({"sku": ["P1"]}).to_sql("stock", engine, index=False)
    engine.dispose()
    with pytest.raises(
        EventError, match=r"has no table of Segment in its own schema \(found: stock\); name the schema"
    ):
        read(url)


def test_the_schema_is_an_option_and_the_url_may_stand_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", database_of_tables(tmp_path / "shop.db"))
    events, _ = read("warehouse", options={"schema": "main", "url_variable": "WAREHOUSE_URL"})
    assert len(events) == 5
    with pytest.raises(SettingsError, match="tables: Extra inputs are not permitted"):
        read("warehouse", options={"tables": ["pages"]})

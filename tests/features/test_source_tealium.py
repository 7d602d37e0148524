"""Tealium: events of EventStore, connectors and the Collect endpoint in, canonical events out."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.errors import EventError
from features.events import CHANNELS, DEVICES, EVENT_NAMES, hash64
from features.pseudonyms import Pseudonymiser
from features.settings import SettingsError
from features.shop import ShopSettings
from features.sources import Notes, concatenate, open_source, read_chunks
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM
from features.sources.tealium import DEFAULTS, EVENTS
from tests.shared import SHARED

KEY = Pseudonymiser(b"0123456789abcdef")
SHOP = ShopSettings(currency="EUR", timezone="Europe/Berlin", rates={"USD": 0.5})
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 "
    "Mobile/15E148 Safari/604.1"
)
AT_MS = 1_767_607_200_250
VISITOR = "014fb34a718e001ad754191d58ff1c074003a06c00c48"
# The variables of the retail data layer.
ORDER: dict[str, Any] = {
    "tealium_event": "purchase",
    "order_id": "ORD123456",
    "order_total": "2549.00",
    "order_subtotal": "2524.00",
    "order_currency_code": "USD",
    "cart_total_value": "77.96",
    "customer_email": "john.smith@example.com",
    "product_id": ["PROD123", "PROD456"],
    "product_sku": ["PR-RED-1234", "PR-BLK-6789"],
    "product_category": ["Shirts", "Pants"],
    "product_price": ["12.00", "1250.00"],
    "product_quantity": ["2", "2"],
}


def read(location: Path, chunk_rows: int = 1_000, **settings: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("tealium", location, SHOP, KEY, chunk_rows=chunk_rows, overrides=settings)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def stored(number: int, event: str = "page_view", **udo: Any) -> dict[str, Any]:
    """An event as EventStore keeps it."""
    return {
        "visitorid": VISITOR,
        "eventid": f"e{number}",
        "eventtime": AT_MS,
        "useragent": SAFARI,
        "dom_domain": "shop.example",
        "dom_url": "https://shop.example/p/1?q=x",
        "dom_query_string": "q=x",
        "dom_referrer": "https://www.google.com/",
        "pageurl_full_url": "https://shop.example/p/1",
        "firstpartycookies_utag_main_ses_id": "1767607100000",
        "js_page.is_mobile": "true",
        "udo_ut_event": "view",
        "udo_tealium_event": event,
        **{f"udo_{name}": value for name, value in udo.items()},
    }


def nested(number: int, event: str = "page_view", **udo: Any) -> dict[str, Any]:
    """The same as a connector sends it."""
    return {
        "account": "shop",
        "profile": "main",
        "data": {
            "dom": {
                "url": "https://shop.example/p/1?q=x",
                "referrer": "https://www.google.com/",
                "query_string": "q=x",
            },
            "udo": {"tealium_event": event, "visitor_id": "the shop's own", "ut.event": "view", **udo},
            "firstparty_tealium_cookies": {"utag_main_ses_id": "1767607100000"},
            "js_page": {},
            "meta": {"description": "A shop"},
        },
        "type": "LIVE",
        "enrichmentOnly": False,
        "event_id": f"e{number}",
        "visitor_id": VISITOR,
        "post_time": AT_MS,
        "page_url": {"full_url": "https://shop.example/p/1", "scheme": "https"},
        "useragent": SAFARI,
        "client_ip": "203.0.113.9",
    }


def sent(number: int, event: str = "page_view", **data: Any) -> dict[str, Any]:
    """The same as the tag sends it."""
    return {
        "loader.cfg": {"172": {"load": 1}},
        "data": {
            "tealium_event": event,
            "tealium_visitor_id": VISITOR,
            "cp.utag_main_ses_id": "1767607100000",
            "dom.url": "https://shop.example/p/1?q=x",
            "dom.referrer": "https://www.google.com/",
            "request_uuid": f"e{number}",
            "user_agent": SAFARI,
            **data,
        },
        "browser": {"timezone_offset": -330},
        "event": "view",
        "post_time": AT_MS,
    }


def log(folder: Path, *events: dict[str, Any] | str, name: str = "events.json") -> Path:
    path = folder / name
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in events)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def names(events: pd.DataFrame) -> list[str]:
    return [EVENT_NAMES[code] for code in events["name"]]


@pytest.mark.parametrize("shape", [stored, nested, sent])
def test_a_page_view_becomes_canonical(tmp_path: Path, shape: Any) -> None:
    events, notes = read(log(tmp_path, shape(1, cart_total_value="77.96", order_total="")))
    (event,) = events.to_dict("records")
    assert event["visitor"] == KEY.visitor(VISITOR)
    assert (event["session"], event["id"]) == (hash64("1767607100000"), hash64("e1"))
    assert event["time"] == AT_MS
    assert EVENT_NAMES[event["name"]] == "page_view"
    assert event["page"] == hash64("/p/:id")
    assert (CHANNELS[event["channel"]], DEVICES[event["device"]]) == ("organic", "mobile")
    assert event["utc_offset"] == (330 if shape is sent else 60)
    assert (event["item"], event["price"], event["value"], event["consent"]) == (0, 0, 0, 1)
    assert (notes.rows, notes.skipped, notes.unmapped) == (1, {}, {})


@pytest.mark.parametrize("shape", [stored, nested, sent])
@pytest.mark.parametrize("as_text", [False, True])
def test_an_order_gives_an_event_a_product_and_its_value_once(tmp_path: Path, shape: Any, as_text: bool) -> None:
    order = {k: json.dumps(v) if as_text and isinstance(v, list) else v for k, v in ORDER.items()}
    events, notes = read(
        log(tmp_path, shape(1, "purchase", **{k: v for k, v in order.items() if k != "tealium_event"}))
    )
    assert names(events) == ["purchase", "purchase"]
    assert list(events["id"]) == [hash64("e1"), hash64("e1/1")]
    assert list(events["item"]) == [hash64("PROD123"), hash64("PROD456")]
    assert list(events["category"]) == [hash64("Shirts"), hash64("Pants")]
    assert list(events["price"]) == [6, 625]
    assert list(events["quantity"]) == [2, 2]
    assert list(events["value"]) == [1274.5, 0]
    assert notes.rows == 1


def test_a_flattened_name_may_have_dots(tmp_path: Path) -> None:
    event = {
        "visitor_id": VISITOR,
        "post_time": AT_MS,
        "data.udo.tealium_event": "product_view",
        "data.udo.product_id": ["P1", "P2"],
        "data.udo.product_unit_price": ["12.99", "1"],
        "data.dom.url": "https://shop.example/p/1",
    }
    events, _ = read(log(tmp_path, event))
    assert names(events) == ["view_item"]
    assert (events["item"].item(), events["price"].item()) == (hash64("P1"), 12.99)


def test_lists_carts_and_checkouts_stay_one_event(tmp_path: Path) -> None:
    products = {"product_id": ["P1", "P2"], "product_price": ["1", "2"], "cart_total_value": "77.96"}
    path = log(
        tmp_path,
        stored(1, "category_view", category_name="Shoes: Boots", **products),
        stored(2, "cart_view", **products),
        stored(3, "checkout", cart_total_value="77.96"),
        stored(4, "cart_add", product_id=["P1", ""], product_quantity=["3"], cart_total_value="77.96"),
        stored(5, "cart_remove", product_id="P2", product_quantity=2),
    )
    events, _ = read(path)
    assert names(events) == ["view_item_list", "view_cart", "begin_checkout", "add_to_cart", "remove_from_cart"]
    assert list(events["item"]) == [0, 0, 0, hash64("P1"), hash64("P2")]
    assert list(events["category"]) == [hash64("Shoes: Boots"), 0, 0, 0, 0]
    assert list(events["quantity"]) == [1, 1, 1, 3, 2]
    assert list(events["value"]) == [0, 77.96, 77.96, 0, 0]


def test_every_standard_event_is_known(tmp_path: Path) -> None:
    standard = [*EVENTS, "page_view", "search", "purchase"]
    events, notes = read(log(tmp_path, *(stored(n, name) for n, name in enumerate(standard))), unknown_events="error")
    assert names(events) == [EVENTS.get(name, name) for name in standard]
    assert notes.unmapped == {}


def test_unknown_names_are_custom_and_counted_and_can_be_mapped(tmp_path: Path) -> None:
    path = log(tmp_path, stored(1, "prospekt_bestellt"), stored(2, "user_logout"))
    events, notes = read(path)
    assert names(events) == ["custom", "custom"]
    assert notes.unmapped == {"prospekt_bestellt": 1}
    mapped, _ = read(path, events={**DEFAULTS.events, "prospekt_bestellt": "generate_lead"})
    assert names(mapped) == ["generate_lead", "custom"]
    with pytest.raises(EventError, match="unknown event 'prospekt_bestellt' in row 0"):
        read(path, unknown_events="error")


def test_variables_are_the_shops(tmp_path: Path) -> None:
    path = log(
        tmp_path,
        stored(1, "view", event_name="order_done", prod_ids=["A", "B"], basket_sum="9.5", size=42),
        stored(2, "view", event_name=""),
    )
    variables = {
        "name": "event_name", "item": "udo_prod_ids", "value": "data.udo.basket_sum", "declared_1": "size",
    }  # fmt: skip
    events, _ = read(path, options={"variables": variables}, events={**DEFAULTS.events, "order_done": "purchase"})
    assert names(events) == ["purchase", "purchase", "page_view"]
    assert list(events["item"]) == [hash64("A"), hash64("B"), 0]
    assert list(events["value"]) == [9.5, 0, 0]
    assert list(events["declared_1"]) == [42, 42, 0]
    with pytest.raises(SettingsError, match="unknown name 'colour'; known: name, visitor"):
        read(path, options={"variables": {"colour": "x"}})


def test_consent_follows_status_and_categories(tmp_path: Path) -> None:
    path = log(
        tmp_path,
        stored(1, consent_status="consented", consent_categories=["analytics", "email"]),
        stored(2, consent_status="consented", consent_categories='["analytics","personalization"]'),
        stored(3, consent_status="consented"),
        stored(4, consent_status="notConsented"),
        stored(5, consent_status="Not Consented", consent_categories=["analytics"]),
        stored(6, consent_categories="display_ads,Eigene"),
        stored(7, consent_status="vielleicht"),
        stored(8),
    )
    events, notes = read(path, consent=("measure", "personalise"))
    assert list(events["consent"]) == [3, 7, 7, 0, 0, 0, 0, 5]
    assert notes.unmapped == {"consent category Eigene": 1, "consent status vielleicht": 1}
    own, _ = read(path, options={"consent_categories": {"eigene": ["measure"], "email": ["personalise"]}})
    assert list(own["consent"]) == [7, 7, 7, 0, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"tealium_timestamp_epoch": 1_767_607_200}, AT_MS - 250),
        ({"timestamp_unix_milliseconds": str(AT_MS)}, AT_MS),
        ({"tealium_timestamp_epoch": "1767607200", "tealium_timestamp_utc": "2026-01-05T10:00:00.250Z"}, AT_MS),
        ({"eventtime": "2026-01-05 10:00:00.25", "post_time": 1}, AT_MS),
    ],
)
def test_the_time_is_in_any_of_its_places(tmp_path: Path, times: dict[str, Any], expected: int) -> None:
    events, _ = read(log(tmp_path, {"tealium_event": "search", "tealium_visitor_id": "v", **times}))
    assert events["time"].item() == expected


def test_the_offset_comes_from_the_two_clocks_of_the_tag(tmp_path: Path) -> None:
    clocks = {"tealium_timestamp_utc": "2026-01-05T10:00:00.250Z", "tealium_timestamp_local": "2026-01-05T05:00:00.250"}
    broken = {**clocks, "tealium_timestamp_local": "2025-01-05T05:00:00.250"}
    events, _ = read(log(tmp_path, stored(1, **clocks), stored(2, **broken)))
    assert list(events["utc_offset"]) == [-300, 60]


def test_the_campaign_is_found_where_the_address_lost_its_query(tmp_path: Path) -> None:
    event = stored(1) | {"dom_url": "", "dom_query_string": "", "dom_referrer": ""}
    event |= {"pageurl_querystring": "utm_medium=cpc&utm_campaign=spring", "referrerurl_full_url": "https://bing.com/"}
    events, _ = read(log(tmp_path, event))
    assert CHANNELS[events["channel"].item()] == "paid"
    assert (events["campaign"].item(), events["page"].item()) == (hash64("spring"), hash64("/p/:id"))


def test_imports_are_no_visit(tmp_path: Path) -> None:
    path = log(tmp_path, nested(1), nested(2) | {"enrichmentOnly": True}, nested(3) | {"type": "BULK_IMPORT"})
    events, notes = read(path)
    assert list(events["id"]) == [hash64("e1")]
    assert notes.skipped == {"imported, no step of a visitor": 2}
    assert notes.rows == 3


def test_an_event_that_stands_twice_keeps_its_id(tmp_path: Path) -> None:
    tagged = {
        "tealium_event": "view",
        "tealium_visitor_id": "v",
        "tealium_random": "208692",
        "tealium_timestamp_epoch": 1_767_607_200,
    }
    events, _ = read(log(tmp_path, stored(1), nested(1), tagged, tagged))
    assert list(events["id"]) == [hash64("e1")] * 2 + [hash64("208692-1767607200")] * 2


def test_what_was_cut_off_is_counted(tmp_path: Path) -> None:
    events, notes = read(log(tmp_path, stored(1), '{"visitorid": "01'))
    assert list(events["id"]) == [hash64("e1")]
    assert notes.skipped == {CUT_OFF: 1}
    path = log(tmp_path, *(stored(number) for number in range(2_000)), name="events.json.gz")
    path.write_bytes(path.read_bytes()[:-200])
    events, notes = read(path)
    assert 0 < len(events) < 2_000
    assert notes.skipped == {CUT_OFF_STREAM: 1}


def test_empty_files_give_no_events(tmp_path: Path) -> None:
    log(tmp_path, name="a.json")
    log(tmp_path, name="b.json.gz")
    events, notes = read(tmp_path)
    assert (len(events), notes.rows, notes.skipped) == (0, 0, {})


@pytest.mark.parametrize(
    ("bad", "message", "reason"),
    [
        ("{oops", r"row 1: no JSON", "no JSON"),
        ("7", r"row 1: found a int; expected an object", "no object"),
        (stored(2) | {"eventtime": "yesterday"}, r"row 1: time is 'yesterday'; expected a whole", "time: not a number"),
        (stored(2) | {"visitorid": ""}, r"row 1: visitor is None; expected a value", "visitor: missing"),
        ({"visitorid": "v", "eventtime": AT_MS}, r"row 1: name is None; expected a value", "name: missing"),
        (stored(2, "cart_add", product_price=["ten"]), r"row 1: price is 'ten'", "price: not a number"),
        (stored(2, "purchase", order_total="-1"), r"row 1: value is '-1'", "value: negative"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_or_skipped(tmp_path: Path, bad: Any, message: str, reason: str) -> None:
    path = log(tmp_path, stored(1), bad, stored(3))
    with pytest.raises(EventError, match=f"{path}, {message}"):
        read(path)
    events, notes = read(path, bad_rows="skip")
    assert list(events["id"]) == [hash64("e1"), hash64("e3")]
    assert notes.skipped == {reason: 1}
    assert notes.rows == 3


def test_small_chunks_give_the_same_table(tmp_path: Path) -> None:
    order = {name: value for name, value in ORDER.items() if name != "tealium_event"}
    server = {"tealium_event": "user_login", "tealium_visitor_id": "v", "post_time": AT_MS, "device_type": "Desktop"}
    path = log(tmp_path, server, server, stored(1, "purchase", **order), stored(2), nested(3, consent_status="unknown"))
    whole, notes = read(path)
    parts, part_notes = read(path, chunk_rows=2)
    assert len(whole) == 6
    assert [DEVICES[code] for code in whole["device"]][:3] == ["desktop", "desktop", "mobile"]
    pd.testing.assert_frame_equal(whole, parts)
    assert part_notes == notes


def test_the_table_of_eventdb_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "events__all_events.csv"
    path.write_text(
        "visitorid,eventid,eventtime,udo_tealium_event,udo_product_id,udo_product_price,dom_url\n"
        f'{VISITOR},e1,2026-01-05 10:00:00,cart_add,"[""P1"",""P2""]","[""1.5"",""2""]",https://shop.example/p/1\n'
        f"{VISITOR},e2,2026-01-05 10:00:01,cart_view,,,https://shop.example/cart\n"
    )
    events, _ = read(path)
    assert names(events) == ["add_to_cart", "add_to_cart", "view_cart"]
    assert list(events["price"]) == [1.5, 2, 0]
    assert list(events["time"]) == [AT_MS - 250, AT_MS - 250, AT_MS + 750]


def test_requests_of_the_tag_and_the_http_api(tmp_path: Path) -> None:
    bodies = []
    for line in (SHARED / "captures" / "tealium.jsonl").read_text().splitlines():
        request = json.loads(line)
        if request["method"] == "POST":
            form = re.search(r'name="data"\r?\n\r?\n(.*?)\r?\n-', request["body"], re.DOTALL)
            bodies.append(json.loads(form[1] if form else request["body"]))
    events, notes = read(log(tmp_path, *bodies))
    assert names(events) == [
        "page_view", "view_item_list", "add_to_cart", "video_start", "login", "generate_lead", "login",
    ]  # fmt: skip
    assert notes.unmapped == {}
    assert (notes.rows, notes.skipped) == (7, {})
    first, listed, added, *_, newsletter, server = events.to_dict("records")
    assert first["visitor"] == KEY.visitor("0190f2c4a8b1001e68dd11517bab00075007e06d007e8")
    assert {event["session"] for event in (first, listed, added, newsletter)} == {hash64("1795486794861")}
    assert first["id"] == hash64("2086924981942997-1795486794")
    assert (CHANNELS[first["channel"]], first["campaign"]) == ("email", hash64("spring"))
    assert (first["page"], first["time"], first["utc_offset"]) == (hash64("/"), bodies[0]["post_time"], 0)
    assert (listed["page"], listed["category"]) == (hash64("/category/shoes"), hash64("Shoes"))
    assert (added["item"], added["price"], added["quantity"]) == (hash64("SKU-1"), 79.9, 2)
    assert newsletter["time"] == 1_795_486_800_543
    assert server["visitor"] == KEY.visitor("0a1b2c3d4e5f60718293a4b5c6d7e8f9")
    assert (server["time"], CHANNELS[server["channel"]]) == (1_795_486_001_234, "unknown")

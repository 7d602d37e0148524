"""The source `matomo`: visits as the API answers them in, canonical events out."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.errors import EventError
from features.events import CHANNELS, DEVICES, EVENT_NAMES, hash64
from features.pseudonyms import Pseudonymiser
from features.settings import SettingsError
from features.shop import ShopSettings, SourceSettings
from features.sources import open_source, read_chunks
from features.sources.matomo import MatomoOptions
from features.sources.reading import CHUNK_ROWS, CUT_OFF, CUT_OFF_STREAM, Notes

KEY = Pseudonymiser(b"0123456789abcdef")
T = 1_767_607_200  # 2026-01-05T10:00:00Z

SHOES = {"itemSKU": "SKU-1", "itemName": "Red shoe", "itemCategory": "Shoes", "price": "79.9", "quantity": "2",
         "categories": ["Shoes", "Sale"]}  # fmt: skip
SOCKS = {"itemSKU": "SKU-2", "itemName": "Sock", "itemCategory": "", "price": 5, "quantity": 1, "categories": []}
# As the API answers: numbers as text or not, as the fields come out of the database.
BUYER: dict[str, Any] = {
    "idSite": "1", "idVisit": "101", "visitIp": "203.0.113.9", "visitorId": "9f3c1a2b4d5e6f70", "fingerprint": "d58a48",
    "userId": "jane@example.org", "goalConversions": "1", "siteCurrency": "USD", "siteCurrencySymbol": "$",
    "serverDate": "2026-01-05", "visitServerHour": "10", "serverTimestamp": T + 200, "lastActionTimestamp": T + 200,
    "firstActionTimestamp": T, "visitLocalTime": "15:30:04", "visitLocalHour": "15", "visitorType": "new",
    "referrerType": "search", "referrerName": "Google", "referrerKeyword": "", "deviceType": "Smartphone",
    "actionDetails": [
        {"type": "action", "url": "https://shop.example/", "pageTitle": "Home", "pageIdAction": "2", "pageId": "1001",
         "idpageview": "aB3dE6", "timeSpent": "10", "pageviewPosition": "1", "timestamp": T},
        {"type": "search", "url": None, "pageIdAction": None, "siteSearchKeyword": "red shoes", "siteSearchCount": "7",
         "pageId": "1002", "timestamp": T + 10},
        {"type": "action", "url": "https://www.shop.example/list/3?sort=price", "pageId": "1003", "timestamp": T + 20,
         "productViewCategories": ["Shoes"]},
        {"type": "action", "url": "https://shop.example/p/4711", "pageId": "1004", "timestamp": T + 30,
         "productViewSku": "SKU-1", "productViewName": "Red shoe", "productViewPrice": "79.9",
         "productViewCategories": ["Shoes"]},
        {"type": "event", "url": "https://shop.example/p/4711", "eventCategory": "Video", "eventAction": "Play",
         "eventName": "shoe.mp4", "eventValue": 3, "pageId": "1005", "timestamp": T + 40},
        {"type": "content", "contentName": "Banner", "contentPiece": "sale.jpg", "pageId": "1006", "timestamp": T + 41},
        {"type": "content", "contentName": "Banner", "contentInteraction": "click", "pageId": "1007",
         "url": "https://shop.example/p/4711", "timestamp": T + 42},
        {"type": "outlink", "url": "https://reviews.example/4711", "pageId": "1008", "timestamp": T + 50},
        {"type": "download", "url": "https://shop.example/sizes.pdf", "pageId": "1009", "timestamp": T + 60},
        {"type": "goal", "goalName": "Newsletter", "goalId": "3", "revenue": "2.5", "goalPageId": "1009",
         "url": "https://shop.example/thanks", "timestamp": T + 60},
        {"type": "ecommerceOrder", "orderId": "ORD-1", "revenue": "178.62", "revenueSubTotal": "164.8", "items": "3",
         "itemDetails": [SHOES, SOCKS], "timestamp": T + 200},
    ],
}  # fmt: skip
LEAVER: dict[str, Any] = {
    "idSite": 1, "idVisit": 102, "visitorId": "00000000000000ff", "firstActionTimestamp": T + 300,
    "siteCurrency": "USD", "visitLocalTime": "02:05:10", "referrerType": "campaign", "referrerName": "spring",
    "deviceType": "Desktop", "actionDetails": [
        {"type": "action", "url": "http://shop.example/p/8", "pageId": 1010, "timestamp": T + 300},
        {"type": "ecommerceAbandonedCart", "revenue": 84.9, "items": 2, "timestamp": T + 310,
         "itemDetails": [{**SHOES, "quantity": 1}, SOCKS]},
    ],
}  # fmt: skip
NAMES = [
    "page_view", "search", "view_item_list", "view_item", "custom", "select_promotion", "click", "file_download",
    "custom", "purchase", "purchase", "page_view", "add_to_cart", "add_to_cart",
]  # fmt: skip


def read(
    location: Path | str, chunk_rows: int = CHUNK_ROWS, rates: dict[str, float] | None = None, **settings: Any
) -> tuple[pd.DataFrame, Notes]:
    settings["options"] = {"carts": "events", **settings.get("options", {})}
    shop = ShopSettings(
        timezone="Europe/Berlin", rates={"USD": 0.5} if rates is None else rates,
        sources={"matomo": SourceSettings(**settings)},
    )  # fmt: skip
    reader, reading = open_source("matomo", location, shop, KEY, chunk_rows=chunk_rows)
    chunks = list(read_chunks(reader, reading))
    assert all(len(chunk) <= chunk_rows for chunk in chunks)
    return pd.concat(chunks, ignore_index=True) if chunks else pd.DataFrame(), reading.notes


def read_visits(tmp_path: Path, *visits: Any, **settings: Any) -> tuple[pd.DataFrame, Notes]:
    path = tmp_path / "visits.json"
    path.write_text(json.dumps(list(visits)))
    return read(path, **settings)


def names(events: pd.DataFrame) -> list[str]:
    return [EVENT_NAMES[code] for code in events["name"]]


def visit(*actions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    numbered = [{"timestamp": T + number, **action} for number, action in enumerate(actions)]
    return {"idVisit": 7, "visitorId": "aa", "firstActionTimestamp": T, "actionDetails": numbered, **fields}


def cart(*items: tuple[str, float, float]) -> dict[str, Any]:
    details = [{"itemSKU": sku, "quantity": quantity, "price": price} for sku, quantity, price in items]
    return {"type": "ecommerceAbandonedCart", "itemDetails": details}


def test_each_action_becomes_its_event(tmp_path: Path) -> None:
    events, notes = read_visits(tmp_path, BUYER, LEAVER)
    assert names(events) == NAMES
    assert list(events["time"] // 1000 - T) == [0, 10, 20, 30, 40, 42, 50, 60, 60, 200, 200, 300, 310, 310]
    assert set(events["visitor"][:11]) == {KEY.visitor("9f3c1a2b4d5e6f70")}
    assert set(events["session"][:11]) == {hash64("101")}
    assert set(events["session"][11:]) == {hash64("102")}
    assert list(events["id"]) == [
        *(hash64(str(number)) for number in (1001, 1002, 1003, 1004, 1005, 1007, 1008, 1009)),
        hash64(f"101/goal/3/{T + 60}"), hash64("101/order/ORD-1"), hash64("101/order/ORD-1/1"),
        hash64("1010"), hash64(f"102/cart/{T + 310}"), hash64(f"102/cart/{T + 310}/1"),
    ]  # fmt: skip
    pages = ["/", "", "/list/:id", "/p/:id", "/p/:id", "/p/:id", "", "", "/thanks", "", "", "/p/:id", "", ""]
    assert list(events["page"]) == [hash64(page) for page in pages]
    assert set(events["channel"][:11]) == {CHANNELS.index("organic")}
    assert set(events["channel"][11:]) == {CHANNELS.index("paid")}
    assert [set(events["campaign"][:11]), set(events["campaign"][11:])] == [{0}, {hash64("spring")}]
    assert [DEVICES[code] for code in events["device"]] == ["mobile"] * 11 + ["desktop"] * 3
    assert list(events["utc_offset"]) == [330] * 11 + [-480] * 3  # 15:30 and 02:05 at 10:00 and 10:05 UTC
    assert set(events["consent"]) == {1}
    assert list(events["interactive"]) == [1] * 8 + [0] + [1] * 5  # the goal was reached by the download
    assert notes.rows == 15
    assert notes.skipped == {"content impression: seen, not done": 1}
    assert notes.unmapped == {"event:Video/Play": 1, "goal:Newsletter": 1}


def test_product_views_orders_and_carts_carry_items_and_money(tmp_path: Path) -> None:
    events, _ = read_visits(tmp_path, BUYER, LEAVER)
    category, product, goal, first, second = (events.iloc[row] for row in (2, 3, 8, 9, 10))
    assert (category["item"], category["category"], category["price"]) == (0, hash64("Shoes"), 0)
    assert (product["item"], product["category"]) == (hash64("SKU-1"), hash64("Shoes"))
    assert product["price"] == pytest.approx(39.95)  # half a euro a dollar
    assert goal["value"] == 1.25
    assert [first["item"], second["item"]] == [hash64("SKU-1"), hash64("SKU-2")]
    assert [first["category"], second["category"]] == [hash64("Shoes"), 0]
    assert [first["price"], first["quantity"], first["value"]] == pytest.approx([39.95, 2, 89.31])
    assert [second["price"], second["quantity"], second["value"]] == [2.5, 1, 0]  # the order's value stands once
    assert list(events["item"][12:]) == [hash64("SKU-1"), hash64("SKU-2")]
    assert list(events["quantity"][12:]) == [1, 1]
    assert list(events["price"][12:]) == pytest.approx([39.95, 2.5])


def test_an_order_without_items_is_one_purchase(tmp_path: Path) -> None:
    events, _ = read_visits(
        tmp_path, visit({"type": "ecommerceOrder", "orderId": "A", "revenue": 9, "itemDetails": []})
    )
    assert names(events) == ["purchase"]
    assert (events["value"].item(), events["item"].item(), events["quantity"].item()) == (9, 0, 1)


def test_carts_become_their_differences(tmp_path: Path) -> None:
    events, notes = read_visits(
        tmp_path,
        visit(
            cart(("a", 1, 10), ("b", 2, 5)),
            cart(("a", 3, 10), ("c", 1, 7)),
            cart(("a", 3, 11), ("c", 1, 7)),
            {"type": "ecommerceOrder", "orderId": "A", "itemDetails": [{"itemSKU": "a"}]},
            cart(("a", 1, 10), ("a", 1, 10)),
        ),
        visit(cart(("a", 1, 10))),
    )
    found = zip(names(events), events["item"], events["quantity"], events["price"], strict=True)
    assert list(found) == [
        ("add_to_cart", hash64("a"), 1, 10), ("add_to_cart", hash64("b"), 2, 5),
        ("add_to_cart", hash64("a"), 2, 10), ("remove_from_cart", hash64("b"), 2, 5),
        ("add_to_cart", hash64("c"), 1, 7),
        ("purchase", hash64("a"), 1, 0),
        ("add_to_cart", hash64("a"), 2, 10),  # an order empties the cart
        ("add_to_cart", hash64("a"), 1, 10),  # and another visit begins with none
    ]  # fmt: skip
    assert notes.skipped == {"cart that did not change": 1}
    assert events["id"].nunique() == 7  # the second visit is the first one's double


def test_carts_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    events, notes = read_visits(tmp_path, BUYER, LEAVER, options={"carts": MatomoOptions().carts})
    assert names(events) == NAMES[:-2]
    assert notes.skipped['cart of a visit that did not order: carts = "skip"'] == 1
    assert notes.rows == 14


def test_goals_and_events_are_mapped_by_name_or_number(tmp_path: Path) -> None:
    actions = (
        {"type": "goal", "goalName": "Newsletter", "goalId": 3},
        {"type": "goal", "goalName": "Call", "goalId": 4},
        {"type": "goal", "goalName": "Other", "goalId": 5},
        {"type": "event", "eventCategory": "Video", "eventAction": "Play"},
        {"type": "event", "eventCategory": "Video", "eventAction": "Stop"},
        {"type": "event", "eventCategory": "Shop", "eventAction": "add_to_wishlist"},
        {"type": "event", "eventCategory": "Form", "eventAction": "Sent"},
        {"type": "event", "eventCategory": "x", "eventAction": "Login"},
    )
    mapping = {
        "goal:Newsletter": "sign_up", "goal:4": "generate_lead", "event:Video/Play": "video_start",
        "event:Form": "form_submit", "Login": "login",
    }  # fmt: skip
    events, notes = read_visits(tmp_path, visit(*actions), events=mapping)
    assert names(events) == [
        "sign_up", "generate_lead", "custom", "video_start", "custom", "add_to_wishlist", "form_submit", "login",
    ]  # fmt: skip
    assert notes.unmapped == {"goal:Other": 1, "event:Video/Stop": 1}
    with pytest.raises(EventError, match="unknown event 'goal:Other' in row 0"):
        read_visits(tmp_path, visit(*actions), events=mapping, unknown_events="error")


def test_an_action_of_a_plug_in_is_custom(tmp_path: Path) -> None:
    events, notes = read_visits(tmp_path, visit({"type": "media"}, {"type": "media"}))
    assert names(events) == ["custom", "custom"]
    assert notes.unmapped == {"media": 2}
    assert list(events["id"]) == [hash64("7/0"), hash64("7/1")]  # no id of its own: its place in the visit


@pytest.mark.parametrize(
    ("fields", "minutes"),
    [
        ({"visitLocalTime": "10:00:00"}, 0),
        ({"visitLocalTime": "12:07:29"}, 120),
        ({"visitLocalTime": "15:45:10"}, 345),  # Nepal
        ({"visitLocalTime": "23:00:00"}, 780),  # New Zealand in summer
        ({"visitLocalTime": "00:05:00"}, 840),
        ({"visitLocalTime": "00:30:00"}, -570),  # the Marquesas
        ({"visitLocalTime": "20:01:00", "firstActionTimestamp": T + 15 * 3600}, -300),  # 01:00 UTC of the next day
        ({"visitLocalHour": "5", "firstActionTimestamp": T + 1800}, -300),
        ({"visitLocalTime": "noon"}, 60),  # Berlin, the shop's zone
        ({}, 60),
    ],
)
def test_the_visitors_clock_is_ahead_by_quarters_of_an_hour(
    tmp_path: Path, fields: dict[str, Any], minutes: int
) -> None:
    events, _ = read_visits(tmp_path, visit({"type": "action"}, **fields))
    assert events["utc_offset"].item() == minutes


@pytest.mark.parametrize(
    ("fields", "channel", "campaign"),
    [
        ({"referrerType": "direct"}, "direct", ""),
        ({"referrerType": "website", "referrerName": "blog.example"}, "referral", ""),
        ({"referrerType": "social", "referrerName": "Facebook"}, "social", ""),
        ({"referrerType": "campaign", "referrerName": "spring"}, "paid", "spring"),
        ({"referrerType": "campaign", "campaignName": "may", "campaignMedium": "newsletter"}, "email", "may"),
        ({"referrerType": "campaign", "campaignName": "may", "campaignMedium": "flyer"}, "paid", "may"),
        ({"referrerType": ""}, "unknown", ""),
        ({"referrerType": "carrier pigeon"}, "unknown", ""),
    ],
)
def test_the_referrer_is_the_channel(tmp_path: Path, fields: dict[str, Any], channel: str, campaign: str) -> None:
    events, notes = read_visits(tmp_path, visit({"type": "action"}, **fields))
    assert (CHANNELS[events["channel"].item()], events["campaign"].item()) == (channel, hash64(campaign))
    assert notes.unmapped == ({"channel carrier pigeon": 1} if "pigeon" in str(fields) else {})


def test_a_campaign_can_be_told_to_be_mail_and_consent_to_link(tmp_path: Path) -> None:
    events, _ = read_visits(tmp_path, LEAVER, channels={"campaign": "email"}, consent=("measure", "link"))
    assert {CHANNELS[code] for code in events["channel"]} == {"email"}
    assert set(events["consent"]) == {3}


def test_every_layout_of_the_file_gives_the_same_table(tmp_path: Path) -> None:
    expected, _ = read_visits(tmp_path / ".", BUYER, LEAVER)
    lines = f"{json.dumps(BUYER)}\n\n{json.dumps(LEAVER)}\n"
    layouts = {
        "pretty.json": json.dumps([BUYER, LEAVER], indent=2).encode(),
        "pages.json": f"[{json.dumps(BUYER)}]\n[{json.dumps(LEAVER)}]\n[]".encode(),
        "lines.jsonl": lines.encode(),
        "unended.ndjson": lines.rstrip().encode(),
        "array.json.gz": gzip.compress(json.dumps([BUYER, LEAVER]).encode()),
    }
    for name, content in layouts.items():
        (tmp_path / name).write_bytes(content)
        events, notes = read(tmp_path / name)
        pd.testing.assert_frame_equal(events, expected)
        assert notes.skipped == {"content impression: seen, not done": 1}
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "page-1.json").write_text(json.dumps([BUYER]))
    (folder / "page-2.json").write_text(json.dumps([LEAVER]))
    events, _ = read(folder)
    pd.testing.assert_frame_equal(events, expected)


def test_tiny_chunks_give_the_same_table(tmp_path: Path) -> None:
    expected, _ = read_visits(tmp_path, BUYER, LEAVER)
    events, notes = read_visits(tmp_path, BUYER, LEAVER, chunk_rows=2)
    pd.testing.assert_frame_equal(events, expected)
    assert notes.rows == 15


def test_a_visit_on_two_pages_repeats_its_ids(tmp_path: Path) -> None:
    events, _ = read_visits(tmp_path, BUYER, LEAVER, BUYER)
    assert len(events) == 25
    assert list(events["id"][:11]) == list(events["id"][14:])  # by which the fold drops them


def test_a_cut_off_file_gives_its_whole_visits(tmp_path: Path) -> None:
    expected, _ = read_visits(tmp_path, LEAVER)
    text = json.dumps([LEAVER, BUYER])
    lines = f"{json.dumps(LEAVER)}\n{json.dumps(BUYER)}"
    for name, content in {"cut.json": text[:-40], "comma.json": text[: text.index(', {"idSite": "1"') + 1],
                          "cut.jsonl": lines[:-40]}.items():  # fmt: skip
        (tmp_path / name).write_text(content)
        events, notes = read(tmp_path / name)
        pd.testing.assert_frame_equal(events, expected)
        assert notes.skipped == {CUT_OFF: 1}
    packed = gzip.compress(text.encode(), compresslevel=0)
    (tmp_path / "cut.json.gz").write_bytes(packed[:-60])
    events, notes = read(tmp_path / "cut.json.gz")
    pd.testing.assert_frame_equal(events, expected)
    assert notes.skipped == {CUT_OFF_STREAM: 1}


@pytest.mark.parametrize("content", ["", " \n", "[]", "[]\n[]\n"])
def test_an_empty_file_gives_no_events(tmp_path: Path, content: str) -> None:
    path = tmp_path / "none.json"
    path.write_text(content)
    events, notes = read(path)
    assert (len(events), notes.rows, notes.skipped) == (0, 0, {})


@pytest.mark.parametrize(
    ("bad", "message", "left"),
    [
        ([visit()], r"visits.json, row 1: found a list; expected a visit", 4),
        (visit({"type": "action", "timestamp": "soon"}), "row 1: time is 'soon'; expected a whole number of s", 4),
        (visit({"type": "action", "timestamp": None}), "row 1: time is None; expected a value", 4),
        (visit({"type": "action"}, visitorId=""), "row 1: visitor is None; expected a value", 4),
        ({"idVisit": 1, "actionDetails": "none"}, "row 1: actionDetails is no list of objects", 4),
        (visit({"type": "ecommerceOrder", "itemDetails": [1]}), "row 1: itemDetails is no list of objects", 4),
        (visit({"type": "ecommerceOrder", "itemDetails": [{"quantity": "two"}]}), "row 1: quantity is 'two'", 4),
        (visit({"type": "ecommerceOrder", "itemDetails": [{"price": "ten"}]}), "row 1: price is 'ten'", 4),
    ],
)
def test_bad_visits_are_named_or_skipped(tmp_path: Path, bad: Any, message: str, left: int) -> None:
    good = visit({"type": "action"}, {"type": "outlink"})
    with pytest.raises(EventError, match=message):
        read_visits(tmp_path, good, bad, good)
    events, notes = read_visits(tmp_path, good, bad, good, bad_rows="skip")
    assert len(events) == left
    assert sum(notes.skipped.values()) == 1
    assert notes.rows == 5


def test_what_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(f"[{json.dumps(LEAVER)}, {{oops}}, {json.dumps(LEAVER)}]")
    with pytest.raises(EventError, match="bad.json, row 1: no JSON .*expected an array of visits or one a line"):
        read(tmp_path / "bad.json")
    (tmp_path / "error.json").write_text('{"result":"error","message":"You must be logged in to access this page"}')
    with pytest.raises(EventError, match="row 0: Matomo answered with an error: You must be logged in"):
        read(tmp_path / "error.json", bad_rows="skip")


def test_other_sites_and_visits_without_actions_are_counted(tmp_path: Path) -> None:
    visits = (BUYER, visit({"type": "action"}, idSite=2), visit(), visit({"type": "action"}, truncatedActionsCount=30))
    events, notes = read_visits(tmp_path, *visits, options={"site": 1})
    assert len(events) == 11
    assert notes.skipped["visit of another site"] == 3
    events, notes = read_visits(tmp_path, *visits)
    assert len(events) == 13
    assert notes.skipped["visit without actions"] == 1
    assert notes.skipped["action that Matomo's limit of actions a visit kept out of the export"] == 30


def test_an_unknown_option_or_currency_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="basket.*known options: site, carts, table_prefix, url_variable"):
        read_visits(tmp_path, BUYER, options={"basket": "skip"})
    with pytest.raises(EventError, match="no rate for currency 'USD'"):
        read_visits(tmp_path, BUYER, rates={})


def test_a_long_line_is_read_in_pieces(tmp_path: Path) -> None:
    many = json.dumps([visit(*[{"type": "action", "url": f"/{'x' * 400}"}] * 10)])[1:-1]
    path = tmp_path / "long.json"
    path.write_text("[" + ",".join([many] * 4_000) + "]")
    assert path.stat().st_size > 18_000_000
    tracemalloc.start()
    reader, reading = open_source("matomo", path, ShopSettings(), KEY, chunk_rows=500)
    assert sum(len(chunk) for chunk in read_chunks(reader, reading)) == 40_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 9_000_000

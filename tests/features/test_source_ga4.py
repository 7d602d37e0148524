"""Google Analytics 4: rows of its BigQuery export in, canonical events out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from features.errors import EventError
from features.events import CHANNELS, DEVICES, EVENT_NAMES, hash64
from features.pseudonyms import Pseudonymiser
from features.settings import SettingsError
from features.shop import ShopSettings
from features.sources import Notes, concatenate, open_source, read_chunks
from features.sources.exports import REPEATED_DAY
from features.sources.ga4 import NO_VISITOR
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM
from tests.shared import SHARED

KEY = Pseudonymiser(b"0123456789abcdef")
SHOP = ShopSettings(rates={"USD": 0.5, "CHF": 1.25})
SAMPLE = SHARED / "data" / "ga4_merchandise_purchases" / "ga4_sample.csv.gz"
TIME_US = 1_704_103_200_123_456  # 2024-01-01 10:00 UTC
TIME_MS = 1_704_103_200_123


def params(**values: Any) -> list[dict[str, Any]]:
    """Event parameters as they are extracted: integers as text."""
    kinds = {int: "int_value", float: "double_value", str: "string_value"}
    return [
        {"key": key, "value": {kinds[type(value)]: str(value) if type(value) is int else value}}
        for key, value in values.items()
    ]


def row(name: str, /, seconds: float = 0, session: int | None = 1_704_103_100, **more: Any) -> dict[str, Any]:
    """A row of `events_20240101`; keywords that are no columns of it become event parameters."""
    columns = ("items", "ecommerce", "privacy_info", "device", "user_pseudo_id", "collected_traffic_source")
    columns += ("session_traffic_source_last_click", "batch_event_index", "event_value_in_usd", "traffic_source")
    own = {key: more.pop(key) for key in columns if key in more}
    given = more if session is None else {"ga_session_id": session, **more}
    return {
        "event_date": "20240101",
        "event_timestamp": str(TIME_US + int(seconds * 1_000_000)),
        "event_name": name,
        "event_params": params(**given),
        "event_bundle_sequence_id": "17",
        "user_pseudo_id": "1234.5678",
        "geo": {"country": "Germany", "city": "(not set)"},
    } | own


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def read(path: Path, chunk_rows: int = 1000, **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    source, reading = open_source("ga4", path, SHOP, KEY, chunk_rows=chunk_rows, overrides=overrides)
    return concatenate(list(read_chunks(source, reading))), reading.notes


def read_rows(tmp_path: Path, *rows: dict[str, Any], **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    return read(lines(tmp_path / "events_20240101.json", list(rows)), **overrides)


def names(events: pd.DataFrame) -> list[str]:
    return [EVENT_NAMES[code] for code in events["name"]]


VISIT = [
    row("session_start", page_location="https://shop.example/p/12?utm_source=x"),
    row(
        "page_view",
        page_location="https://shop.example/p/12?from=x",
        page_referrer="https://www.google.com/",
        device={"category": "mobile"},
    ),
    row(
        "view_item", 1, currency="USD", value=20.0, items=[{"item_id": "sku-1", "item_category": "Mugs", "price": 20.0}]
    ),
    row("scroll", 2, percent_scrolled=90),
    row("user_engagement", 12, engagement_time_msec=12_000),
    row("newsletter_popup", 13),
    row(
        "purchase",
        60,
        transaction_id="T1",
        currency="USD",
        value=50.0,
        items=[
            {"item_id": "sku-1", "item_name": "Mug", "item_category": "Mugs", "price": 20.0, "quantity": "2"},
            {"item_id": "(not set)", "item_name": "Gift", "item_category": "(not set)", "price": 10.0, "quantity": "1"},
        ],
    ),
]


def test_a_visit_becomes_canonical(tmp_path: Path) -> None:
    events, notes = read_rows(tmp_path, *VISIT)
    assert names(events) == ["page_view", "view_item", "scroll", "user_engagement", "custom", "purchase", "purchase"]
    assert set(events["visitor"]) == {KEY.visitor("1234.5678")}
    assert set(events["session"]) == {hash64("1234.5678.1704103100")}
    assert list(events["time"] - TIME_MS) == [0, 1_000, 2_000, 12_000, 13_000, 60_000, 60_000]
    assert events["page"][0] == hash64("/p/:id")
    assert (CHANNELS[events["channel"][0]], DEVICES[events["device"][0]]) == ("organic", "mobile")
    assert list(events["value"]) == [0, 10, 0.9, 0, 0, 25, 0]
    assert (events["item"][1], events["category"][1], events["price"][1]) == (hash64("sku-1"), hash64("Mugs"), 10)
    assert notes.rows == 7
    assert notes.skipped == {"event session_start": 1}
    assert notes.unmapped == {"newsletter_popup": 1}


def test_a_purchase_is_an_event_an_item_with_the_orders_value_once(tmp_path: Path) -> None:
    events, _ = read_rows(tmp_path, VISIT[-1])
    assert list(events["item"]) == [hash64("sku-1"), hash64("Gift")]  # an id that is not set leaves the name
    assert list(events["category"]) == [hash64("Mugs"), 0]
    assert list(events["price"]) == [10, 5]
    assert list(events["quantity"]) == [2, 1]
    assert list(events["value"]) == [25, 0]
    assert events["id"].nunique() == 2
    assert 0 not in set(events["id"])


def test_a_list_view_and_a_checkout_stay_one_event(tmp_path: Path) -> None:
    items = [{"item_id": "a", "item_category": "Mugs"}, {"item_id": "b", "item_category": "Mugs"}]
    mixed = [{"item_id": "a", "item_category": "Mugs"}, {"item_id": "b", "item_category": "Bags"}]
    events, _ = read_rows(tmp_path, row("view_item_list", items=items), row("begin_checkout", items=mixed))
    assert names(events) == ["view_item_list", "begin_checkout"]
    assert list(events["item"]) == [0, 0]
    assert list(events["category"]) == [hash64("Mugs"), 0]


def test_parquet_holds_the_same_as_json_lines(tmp_path: Path) -> None:
    expected, _ = read_rows(tmp_path, *VISIT)
    value = pa.struct(
        [("string_value", pa.string()), ("int_value", pa.int64()), ("float_value", pa.float64()),
         ("double_value", pa.float64())]
    )  # fmt: skip
    item = pa.struct(
        [("item_id", pa.string()), ("item_name", pa.string()), ("item_category", pa.string()), ("price", pa.float64()),
         ("quantity", pa.int64())]
    )  # fmt: skip
    schema = pa.schema(
        [
            ("event_name", pa.string()),
            ("event_timestamp", pa.int64()),
            ("event_bundle_sequence_id", pa.int64()),
            ("user_pseudo_id", pa.string()),
            ("event_params", pa.list_(pa.struct([("key", pa.string()), ("value", value)]))),
            ("device", pa.struct([("category", pa.string())])),
            ("items", pa.list_(item)),
        ]
    )

    def typed(found: Any) -> Any:
        if isinstance(found, dict):
            whole = ("event_timestamp", "event_bundle_sequence_id", "int_value", "quantity")
            return {key: int(one) if key in whole else typed(one) for key, one in found.items()}
        return [typed(one) for one in found] if isinstance(found, list) else found

    path = tmp_path / "000000000000.parquet"
    pa.parquet.write_table(pa.Table.from_pylist([typed(one) for one in VISIT], schema), path)
    events, notes = read(path)
    pd.testing.assert_frame_equal(events, expected)
    assert notes.rows == 7


def test_chunks_make_no_difference(tmp_path: Path) -> None:
    whole, one = read_rows(tmp_path, *VISIT)
    parts, other = read_rows(tmp_path, *VISIT, chunk_rows=2)
    pd.testing.assert_frame_equal(parts, whole)
    assert (one.rows, one.skipped, one.unmapped) == (other.rows, other.skipped, other.unmapped)


def test_googles_own_names_are_ours_or_no_step(tmp_path: Path) -> None:
    events, notes = read_rows(
        tmp_path,
        row("first_visit"),
        row("view_search_results", search_term="mug"),
        row("click", outbound="true", link_url="https://elsewhere.example/"),
        row("form_start"),
        row("form_submit"),
        row("file_download"),
        row("video_start"),
        row("video_progress"),
        row("video_complete"),
        row("screen_view", firebase_screen="Cart"),
        row("app_remove"),
    )
    assert names(events) == [
        "search", "click", "form_start", "form_submit", "file_download", "video_start", "video_progress",
        "video_complete", "page_view",
    ]  # fmt: skip
    assert events["page"][8] == hash64("/Cart")
    assert notes.skipped == {"event first_visit": 1, "event app_remove": 1}
    assert not notes.unmapped


def test_what_a_page_says_of_itself_is_no_second_interaction(tmp_path: Path) -> None:
    rows = [
        row(name) for name in ("page_view", "view_item", "view_cart", "view_search_results", "add_to_cart", "scroll")
    ]
    events, _ = read_rows(tmp_path, *rows)
    assert list(events["interactive"]) == [1, 0, 0, 0, 1, 0]
    events, _ = read_rows(tmp_path, *rows, options={"views_interact": True})
    assert list(events["interactive"]) == [1, 1, 1, 1, 1, 0]


def test_the_shop_chooses_what_is_left_out(tmp_path: Path) -> None:
    events, notes = read_rows(tmp_path, row("session_start"), row("page_view"), options={"skip_events": ["page_view"]})
    assert names(events) == ["custom"]
    assert notes.skipped == {"event page_view": 1}
    with pytest.raises(SettingsError, match="known options: skip_events, views_interact"):
        read_rows(tmp_path, row("page_view"), options={"skip": []})


@pytest.mark.parametrize(
    ("privacy", "user", "consent"),
    [
        ({"analytics_storage": "Yes", "ads_storage": "No", "uses_transient_token": "No"}, "1.2", 3),
        ({"analytics_storage": "No", "ads_storage": "No", "uses_transient_token": "No"}, "1.2", 1),
        ({"analytics_storage": "Yes", "uses_transient_token": "Yes"}, "1.2", 1),
        ({"analytics_storage": "Yes"}, None, 1),
        ({"analytics_storage": None}, "1.2", 1),
        (None, "1.2", 1),
    ],
)
def test_consent_is_the_events_own(tmp_path: Path, privacy: Any, user: str | None, consent: int) -> None:
    events, _ = read_rows(tmp_path, row("page_view", privacy_info=privacy, user_pseudo_id=user))
    assert events["consent"].item() == consent


def test_consent_that_is_not_told_is_the_settings(tmp_path: Path) -> None:
    denied = {"analytics_storage": "No"}
    events, _ = read_rows(
        tmp_path, row("page_view"), row("click", privacy_info=denied), consent=("measure", "link", "personalise")
    )
    assert list(events["consent"]) == [7, 1]


def test_without_a_cookie_a_visitor_lasts_a_session_and_without_both_there_is_none(tmp_path: Path) -> None:
    events, notes = read_rows(
        tmp_path,
        row("page_view", user_pseudo_id=None, session=77),
        row("page_view", user_pseudo_id=None, session=None),
        row("page_view", session=None),
    )
    assert list(events["visitor"]) == [KEY.visitor("session 77"), KEY.visitor("1234.5678")]
    assert list(events["session"]) == [hash64(".77"), 0]
    assert notes.skipped == {NO_VISITOR: 1}
    assert notes.rows == 3


A_FOR_4 = {"item_id": "a", "price": 4}
LAST_CLICK = "session_traffic_source_last_click"


@pytest.mark.parametrize(
    ("more", "channel", "campaign"),
    [
        ({LAST_CLICK: {"cross_channel_campaign": {"default_channel_group": "Paid Social", "campaign_name": "may"}}},
         "paid", "may"),
        ({LAST_CLICK: {"cross_channel_campaign": {"source": "google", "medium": "organic",
                                                  "campaign_name": "(organic)"}}}, "organic", ""),
        ({LAST_CLICK: {"google_ads_campaign": {"campaign_name": "brand"}}}, "paid", "brand"),
        ({LAST_CLICK: {"manual_campaign": {"source": "crm", "medium": "email", "campaign_name": "june"}}},
         "email", "june"),
        ({"collected_traffic_source": {"gclid": "abc"}}, "paid", ""),
        ({"collected_traffic_source": {"manual_source": "facebook", "manual_medium": "social"}}, "social", ""),
        ({"source": "news.example", "medium": "referral", "campaign": "(referral)"}, "referral", ""),
        ({"page_location": "https://shop.example/?utm_medium=cpc&utm_campaign=a"}, "paid", "a"),
        ({"page_location": "https://shop.example/b", "page_referrer": "https://shop.example/a"}, "internal", ""),
        ({"page_location": "https://shop.example/"}, "direct", ""),
        # of the first visit ever: says nothing about this one
        ({"traffic_source": {"source": "google", "medium": "cpc"}}, "unknown", ""),
        ({"source": "(direct)", "medium": "(none)", "page_referrer": "https://www.google.com/"}, "direct", ""),
    ],
)  # fmt: skip
def test_the_channel_is_the_sessions_then_the_events(
    tmp_path: Path, more: dict[str, Any], channel: str, campaign: str
) -> None:
    events, _ = read_rows(tmp_path, row("page_view", **more))
    assert CHANNELS[events["channel"].item()] == channel
    assert events["campaign"].item() == hash64(campaign)


def test_an_unknown_channel_group_is_counted(tmp_path: Path) -> None:
    cross = {"cross_channel_campaign": {"default_channel_group": "Town Crier"}}
    events, notes = read_rows(tmp_path, row("page_view", session_traffic_source_last_click=cross))
    assert CHANNELS[events["channel"].item()] == "unknown"
    assert notes.unmapped == {"channel Town Crier": 1}


@pytest.mark.parametrize(
    ("one", "value", "price"),
    [
        (row("purchase", currency="CHF", value=8, items=[{"item_id": "a", "price": 4, "price_in_usd": 5}]), 10, 5),
        (row("purchase", currency="CHF", ecommerce={"purchase_revenue": 8.0}, items=[A_FOR_4]), 10, 5),
        # without a currency of its own, what Google converted
        (row("purchase", value=8, ecommerce={"purchase_revenue_in_usd": 9.0}, items=[A_FOR_4]), 4.5, 0),
        (row("add_to_cart", event_value_in_usd=6.0, items=[{"item_id": "a", "price_in_usd": 6.0}]), 3, 3),
        (row("purchase", value=8, items=[A_FOR_4]), 8, 4),
        (row("refund", currency="CHF", ecommerce={"refund_value": 4.0, "purchase_revenue": 1.0}), 5, 0),
        (row("web_vitals", value=2_400), 0, 0),
    ],
)  # fmt: skip
def test_money_comes_in_its_own_currency_or_in_dollars(
    tmp_path: Path, one: dict[str, Any], value: float, price: float
) -> None:
    events, _ = read_rows(tmp_path, one)
    assert (events["value"].item(), events["price"].item()) == (value, price)


def test_events_of_one_request_keep_their_order_and_a_repeated_row_its_id(tmp_path: Path) -> None:
    second, first = row("click", batch_event_index="2"), row("click", batch_event_index="1")
    events, _ = read_rows(tmp_path, second, first, second)
    assert list(events["time"] - TIME_MS) == [2, 1, 2]
    assert events["id"][0] == events["id"][2] != events["id"][1]


def test_older_rows_are_told_apart_by_their_content(tmp_path: Path) -> None:
    mug, bag = ([{"item_id": name}] for name in ("mug", "bag"))
    events, _ = read_rows(
        tmp_path, row("add_to_cart", items=mug), row("add_to_cart", items=bag), row("add_to_cart", items=mug)
    )
    assert events["id"][0] == events["id"][2] != events["id"][1]
    events, _ = read_rows(tmp_path, row("click", link_url="/a"), row("click", link_url="/b"))
    assert events["id"].nunique() == 2


def test_an_intraday_file_counts_only_where_its_day_has_no_daily_one(tmp_path: Path) -> None:
    lines(tmp_path / "events_20240102.json", [row("page_view", 86_400)])
    lines(tmp_path / "events_20240101_000000000000.json", [row("page_view")])
    lines(tmp_path / "events_intraday_20240102.json", [row("click", 86_400)])
    lines(tmp_path / "events_intraday_20240103.json", [row("click", 2 * 86_400)])
    events, notes = read(tmp_path)
    assert list((events["time"] - TIME_MS) // 86_400_000) == [0, 1, 2]
    assert names(events) == ["page_view", "page_view", "click"]
    assert notes.skipped == {REPEATED_DAY: 1}


def test_a_file_that_was_cut_off_loses_its_last_row(tmp_path: Path) -> None:
    path = lines(tmp_path / "events.json", VISIT[:4])
    path.write_text(path.read_text()[:-20])
    events, notes = read(path)
    assert names(events) == ["page_view", "view_item"]
    assert notes.skipped == {"event session_start": 1, CUT_OFF: 1}


def test_a_compressed_file_that_was_cut_off_gives_what_it_holds(tmp_path: Path) -> None:
    text = "".join(json.dumps(row("page_view", second)) + "\n" for second in range(2_000))
    path = tmp_path / "events_20240101_000000000000.json.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert len(read(path)[0]) == 2_000
    path.write_bytes(path.read_bytes()[:-500])
    events, notes = read(path)
    assert 500 < len(events) < 2_000
    assert notes.skipped[CUT_OFF_STREAM] == 1


@pytest.mark.parametrize("name", ["events.json", "events.parquet", "events.csv"])
def test_an_empty_file_has_no_events(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    events, notes = read(tmp_path / name)
    assert len(events) == 0
    assert notes == Notes()


@pytest.mark.parametrize(
    ("bad", "message", "reason"),
    [
        ({"event_timestamp": "yesterday"}, "row 1: event_timestamp is 'yesterday'; expected a whole number",
         "event_timestamp: no whole number"),
        ({"event_timestamp": "17041032"}, "row 1: time is 17041032; expected a time between",
         "time: not between 1990 and 2100"),
        ({"event_name": None}, "row 1: event_name is None; expected a name", "event_name: missing"),
        ({"event_params": {"ga_session_id": 1}}, "row 1: event_params is .*; expected a list of records",
         "event_params: no list of records"),
        ({"event_params": params(currency="USD", value=-3.0, ga_session_id=1)},
         "row 1: value is -3.0; expected a finite", "value: negative"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_or_left_out(tmp_path: Path, bad: dict[str, Any], message: str, reason: str) -> None:
    rows = [row("page_view"), row("click", 1) | bad, row("click", 2)]
    with pytest.raises(EventError, match=f"events_20240101.json, {message}"):
        read_rows(tmp_path, *rows)
    events, notes = read_rows(tmp_path, *rows, bad_rows="skip")
    assert list(events["time"] - TIME_MS) == [0, 2_000]
    assert notes.skipped == {reason: 1}
    assert notes.rows == 3


@pytest.mark.parametrize(("line", "reason"), [("{broken", "no JSON"), ("[1]", "no object")])
def test_a_line_that_is_no_row_is_named_or_left_out(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "events.json"
    path.write_text("\n".join([json.dumps(row("page_view")), line, json.dumps(row("click")), ""]))
    with pytest.raises(EventError, match="events.json, row 1: .*expected (one|an) object a"):
        read(path)
    events, notes = read(path, bad_rows="skip")
    assert (len(events), notes.rows, notes.skipped) == (2, 3, {reason: 1})


def test_an_unknown_name_can_be_refused(tmp_path: Path) -> None:
    with pytest.raises(EventError, match="unknown event 'popup' in row 2; known: custom, page_view"):
        read_rows(tmp_path, row("session_start"), row("page_view"), row("popup"), unknown_events="error")


def test_another_table_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(EventError, match=r"row 0: found the columns user, ts; expected event_name, event_timestamp"):
        read(lines(tmp_path / "x.json", [{"user": 1, "ts": 2}]))


def test_the_published_sample_of_purchases_has_its_numbers() -> None:
    events, notes = read(SAMPLE)
    assert (len(events), notes.rows) == (16_003, 16_003)
    assert events["visitor"].nunique() == 4_418
    assert events.groupby(["visitor", "time"]).ngroups == 5_690
    assert set(names(events)) == {"purchase"}
    assert (events["item"] == 0).sum() == 448  # (not set)
    assert events["id"].nunique() == 16_003
    assert events["value"].sum() == pytest.approx(362_110 * 0.5)
    assert (events["time"].min(), events["time"].max()) == (1_604_190_434_469, 1_612_136_266_409)
    assert not notes.skipped


def test_items_of_a_purchase_follow_each_other_and_sum_up(tmp_path: Path) -> None:
    head = "user_pseudo_id,item_id,item_name,price_in_usd,quantity,item_revenue_in_usd,event_timestamp\n"
    path = tmp_path / "items.csv"
    path.write_text(head + f"1.2,a,A,4,2,8,{TIME_US}\n1.2,b,B,6,1,6,{TIME_US}\n1.2,a,A,4,,,{TIME_US + 5_000}\n")
    events, _ = read(path, chunk_rows=2)
    assert list(events["value"]) == [7, 0, 0]
    assert list(events["price"]) == [2, 3, 2]
    assert list(events["quantity"]) == [2, 1, 1]
    assert list(events["id"]) == [hash64(f"1.2/{TIME_US}{end}") for end in ("", "/1")] + [
        hash64(f"1.2/{TIME_US + 5_000}")
    ]
    path.write_text(path.read_text() + "1.2,a,A")
    events, notes = read(path)
    assert (len(events), notes.skipped) == (3, {CUT_OFF: 1})
    path.write_text(path.read_text() + f"\n1.2,a,A,4,1,4,{TIME_US}\n")
    with pytest.raises(EventError, match="row 3: found 3 cells; expected the heading's 7"):
        read(path)


def test_no_address_or_mail_is_kept(tmp_path: Path) -> None:
    plain, _ = read_rows(tmp_path, row("page_view", page_location="https://shop.example/u/:id"))
    planted, _ = read_rows(
        tmp_path, row("page_view", page_location="https://shop.example/u/jane@example.org?mail=jane")
    )
    assert planted["page"].item() == plain["page"].item() == hash64("/u/:id")

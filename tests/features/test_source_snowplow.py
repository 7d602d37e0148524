"""The Snowplow reader: enriched events in each of the forms they are kept in, canonical events out."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from features.agents import device_of
from features.errors import EventError
from features.events import (
    CHANNELS,
    CONSENT_MEASURE,
    DEVICES,
    EVENT_NAMES,
    LOGIN,
    PAGE_VIEW,
    USER_ENGAGEMENT,
    hash64,
)
from features.pseudonyms import Pseudonymiser
from features.settings import SettingsError
from features.shop import ShopSettings
from features.sources import concatenate, open_source, read_chunks
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Notes
from features.sources.snowplow import COLUMNS, NO_VISITOR, OTHER_APP
from tests.shared import SHARED

KEY = Pseudonymiser(b"0123456789abcdef")
SHOP = ShopSettings(rates={"USD": 0.5})
ATOMIC = SHARED / "data" / "tracker_formats" / "snowplow_atomic" / "snowplow_web_events.csv"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36"
AT_MS = 1_767_603_600_250  # 2026-01-05T09:00:00.250Z
VIEW = {
    "app_id": "shop",
    "platform": "web",
    "collector_tstamp": "2026-01-05 09:00:01.000",
    "event": "page_view",
    "event_id": "e1",
    "user_id": "jane@example.org",
    "user_ipaddress": "192.0.2.7",
    "user_fingerprint": "2161814971",
    "domain_userid": "jane",
    "network_userid": "n1",
    "domain_sessionid": "s1",
    "page_url": "https://shop.example/p/123?ref=x",
    "page_urlhost": "shop.example",
    "page_referrer": "https://www.google.com/",
    "useragent": CHROME,
    "os_timezone": "Europe/Berlin",
    "derived_tstamp": "2026-01-05 09:00:00.250",
    "event_vendor": "com.snowplowanalytics.snowplow",
    "event_name": "page_view",
}
VENDOR = "com.snowplowanalytics.snowplow"
ECOMMERCE = f"{VENDOR}.ecommerce"
ENHANCED = "com.google.analytics.enhanced-ecommerce"


def read(path: Path, chunk_rows: int = 100_000, **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("snowplow", path, SHOP, KEY, chunk_rows=chunk_rows, overrides=overrides)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def tsv(event: dict[str, Any]) -> str:
    return "\t".join(str(event.get(name, "")) for name in COLUMNS) + "\n"


def read_tsv(tmp_path: Path, *events: dict[str, Any], **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    path = tmp_path / "enriched.tsv"
    path.write_text("".join(tsv(event) for event in events))
    return read(path, **overrides)


def entity(vendor: str, name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"schema": f"iglu:{vendor}/{name}/jsonschema/1-0-0", "data": data}


def contexts(*entities: dict[str, Any]) -> str:
    return json.dumps({"schema": f"iglu:{VENDOR}/contexts/jsonschema/1-0-0", "data": entities})


def unstruct(vendor: str, name: str, data: dict[str, Any], *entities: dict[str, Any], **columns: Any) -> dict[str, Any]:
    said = {"schema": f"iglu:{VENDOR}/unstruct_event/jsonschema/1-0-0", "data": entity(vendor, name, data)}
    event = {**VIEW, "event": "unstruct", "event_vendor": vendor, "event_name": name}
    return {**event, "unstruct_event": json.dumps(said), "contexts": contexts(*entities), **columns}


def action(kind: str, *entities: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return unstruct(ECOMMERCE, "snowplow_ecommerce_action", {"type": kind}, *entities, **columns)


def product(sku: str, price: float = 10.0, **more: Any) -> dict[str, Any]:
    return entity(ECOMMERCE, "product", {"id": sku, "category": "shoes", "price": price, "currency": "USD", **more})


def names(events: pd.DataFrame) -> list[str]:
    return [EVENT_NAMES[name] for name in events["name"]]


def test_the_atomic_sample_has_its_published_events() -> None:
    events, notes = read(ATOMIC)
    assert len(events) == notes.rows == 94
    assert events["id"].nunique() == 91  # three ids are repeated, which the fold drops
    assert pd.Series(names(events)).value_counts().to_dict() == {
        "page_view": 49, "custom": 21, "click": 10, "user_engagement": 8, "login": 6,
    }  # fmt: skip
    assert notes.unmapped == {"snplow_cookies": 16, "data_structures_workflow": 4, "object_click": 1}
    assert not notes.skipped
    first = events.iloc[0]
    assert first["id"] == hash64("9e983d4a-e07c-4858-8e97-bdb7feb31241")
    assert first["time"] == pd.Timestamp("2021-03-03 21:27:32.695", tz="UTC").value // 1_000_000
    assert first["visitor"] == KEY.visitor("5d27ff97148de9e5f1c23e8fd0a4382c06852969f6495def03c66599e676f449")
    assert first["session"] == hash64("6b379f3eea11eb4ead878125af9cb708f8a91c455d9405b0bc617fa78c2e4291")
    assert (first["page"], first["utc_offset"]) == (hash64("/"), 660)
    assert (events["channel"] == CHANNELS.index("paid")).sum() == 12
    assert (events["device"] == DEVICES.index("mobile")).sum() == 27
    pings = events[events["name"] == USER_ENGAGEMENT]
    assert not pings["interactive"].any()
    assert pings["value"].iloc[1] == pytest.approx((980 + 1256) / 2680)


def test_the_one_sample_event_without_a_first_party_id_is_the_network_users() -> None:
    events, _ = read(ATOMIC, consent=("measure", "link"))
    anonymous = events[events["id"] == hash64("b92d6cbb-8064-4bfb-80e3-8a009b317d9f")].iloc[0]
    raw = pd.read_csv(ATOMIC, dtype=str)
    assert anonymous["visitor"] == KEY.visitor(raw.loc[raw["domain_userid"].isna(), "network_userid"].item())
    assert anonymous["consent"] == CONSENT_MEASURE
    assert (events["consent"] == 3).sum() == 93


def test_small_chunks_give_the_same_table() -> None:
    pd.testing.assert_frame_equal(read(ATOMIC, chunk_rows=2)[0], read(ATOMIC)[0])


def test_the_documented_order_has_131_columns() -> None:
    assert len(COLUMNS) == 131
    assert [COLUMNS.index(name) for name in ("contexts", "unstruct_event", "derived_contexts")] == [52, 58, 122]
    heading = ATOMIC.read_text().partition("\n")[0].split(",")
    assert [name for name in COLUMNS if name in heading] == heading[:-1]


def test_an_enriched_page_view_becomes_canonical(tmp_path: Path) -> None:
    events, notes = read_tsv(tmp_path, VIEW)
    event = events.iloc[0]
    assert event["visitor"] == KEY.visitor("jane")
    assert (event["session"], event["id"], event["time"]) == (hash64("s1"), hash64("e1"), AT_MS)
    assert (event["name"], event["page"]) == (PAGE_VIEW, hash64("/p/:id"))
    assert (CHANNELS[int(event["channel"])], DEVICES[int(event["device"])]) == ("organic", "desktop")
    assert (event["utc_offset"], event["consent"], event["interactive"]) == (60, CONSENT_MEASURE, 1)
    assert notes == Notes(rows=1)


def test_compressed_files_of_a_folder_are_read_together(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"part-{number}.gz").write_bytes(gzip.compress(tsv({**VIEW, "event_id": f"e{number}"}).encode()))
    assert list(read(tmp_path)[0]["id"]) == [hash64("e1"), hash64("e2")]


def test_the_analytics_sdk_form_gives_the_same_as_the_tsv(tmp_path: Path) -> None:
    bought = [product("a", 20.0, quantity=2), product("b")]
    order = {"transaction_id": "T1", "revenue": 50.0, "currency": "USD"}
    written = action("transaction", *bought, entity(ECOMMERCE, "transaction", order))
    expected, _ = read_tsv(tmp_path, VIEW, written)
    key = "com_snowplowanalytics_snowplow_ecommerce"
    as_columns = {
        **{k: v for k, v in written.items() if k not in ("contexts", "unstruct_event")},
        f"unstruct_event_{key}_snowplow_ecommerce_action_1": {"type": "transaction"},
        f"contexts_{key}_product_1": [each["data"] for each in bought],
        f"contexts_{key}_transaction_1": [order],
        "contexts_com_acme_other_1": [{"size": 3}],
    }
    times = ("derived_tstamp", "collector_tstamp")
    sdk = [{k: f"{v.replace(' ', 'T')}Z" if k in times else v for k, v in each.items()} for each in (VIEW, as_columns)]
    (tmp_path / "sdk.jsonl").write_text("".join(json.dumps(each) + "\n" for each in sdk))
    pd.testing.assert_frame_equal(read(tmp_path / "sdk.jsonl")[0], expected)

    typed = [
        {k: datetime.datetime.fromisoformat(f"{v}+00:00") if k in times else v for k, v in each.items()}
        for each in (VIEW, as_columns)
    ]
    table = pa.Table.from_pylist(typed, schema=pa.schema(pa.Table.from_pylist(typed[1:]).schema))
    pa.parquet.write_table(table, tmp_path / "sdk.parquet")
    pd.testing.assert_frame_equal(read(tmp_path / "sdk.parquet", chunk_rows=1)[0], expected)


def test_a_transaction_is_a_purchase_of_each_product_with_the_revenue_once(tmp_path: Path) -> None:
    order = entity(ECOMMERCE, "transaction", {"transaction_id": "T1", "revenue": 50.0, "currency": "USD"})
    events, notes = read_tsv(tmp_path, action("transaction", product("a", 20.0, quantity=2), product("b"), order))
    assert names(events) == ["purchase", "purchase"]
    assert list(events["id"]) == [hash64("e1"), hash64("e1/1")]
    assert list(events["item"]) == [hash64("a"), hash64("b")]
    assert set(events["category"]) == {hash64("shoes")}
    assert list(events["price"]) == [10.0, 5.0]  # half a euro a dollar
    assert list(events["quantity"]) == [2, 1]
    assert list(events["value"]) == [25.0, 0.0]
    assert notes.rows == 1


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("product_view", "view_item"),
        ("list_click", "select_item"),
        ("add_to_cart", "add_to_cart"),
        ("remove_from_cart", "remove_from_cart"),
        ("promo_view", "view_promotion"),
        ("promo_click", "select_promotion"),
        ("trns_error", "custom"),
    ],
)
def test_ecommerce_actions_have_our_names(tmp_path: Path, kind: str, expected: str) -> None:
    events, notes = read_tsv(tmp_path, action(kind, product("a")))
    assert names(events) == [expected]
    assert (events["item"].item(), events["price"].item()) == (hash64("a"), 5.0)
    assert not notes.unmapped


def test_a_list_view_stays_one_event_without_an_item(tmp_path: Path) -> None:
    events, _ = read_tsv(tmp_path, action("list_view", product("a"), product("b")))
    assert names(events) == ["view_item_list"]
    assert (events["item"].item(), events["category"].item()) == (0, hash64("shoes"))


def test_checkout_steps_are_told_by_what_they_ask_for(tmp_path: Path) -> None:
    steps = [{"step": 1}, {"step": 2, "delivery_method": "express"}, {"step": 3, "payment_method": "card"}, {"step": 4}]
    cart = entity(ECOMMERCE, "cart", {"total_value": 30.0, "currency": "EUR"})
    events, _ = read_tsv(
        tmp_path, *(action("checkout_step", entity(ECOMMERCE, "checkout_step", step), cart) for step in steps)
    )
    assert names(events) == ["begin_checkout", "add_shipping_info", "add_payment_info", "custom"]
    assert list(events["value"]) == [30.0] * 4


def test_a_refund_has_its_amount(tmp_path: Path) -> None:
    refund = entity(ECOMMERCE, "refund", {"transaction_id": "T1", "refund_amount": 8.0, "currency": "USD"})
    events, _ = read_tsv(tmp_path, action("refund", refund))
    assert (names(events), events["value"].item()) == (["refund"], 4.0)


def test_older_ecommerce_events_are_understood(tmp_path: Path) -> None:
    cart = {"sku": "a", "category": "shoes", "unitPrice": 7.5, "quantity": 3, "currency": "EUR"}
    field = entity(ENHANCED, "productFieldObject", {"id": "b", "price": 4.0, "quantity": 2, "currency": "EUR"})
    order = entity(ENHANCED, "actionFieldObject", {"id": "T1", "revenue": 8.0, "currency": "EUR"})
    events, notes = read_tsv(
        tmp_path,
        unstruct(VENDOR, "add_to_cart", cart),
        unstruct(VENDOR, "remove_from_cart", cart),
        unstruct(ENHANCED, "action", {"action": "detail"}, field),
        unstruct(ENHANCED, "action", {"action": "purchase"}, field, order),
        {**VIEW, "event": "transaction", "event_name": "transaction", "tr_total": "19.5", "tr_currency": "EUR"},
        {**VIEW, "event": "transaction_item", "ti_sku": "c", "ti_price": "6.5", "ti_quantity": "3", "ti_category": "x"},
    )
    assert names(events) == ["add_to_cart", "remove_from_cart", "view_item", "purchase", "purchase", "purchase"]
    assert [*events["item"]] == [hash64("a"), hash64("a"), hash64("b"), hash64("b"), 0, hash64("c")]
    assert [*events["price"]] == [7.5, 7.5, 4.0, 4.0, 0.0, 6.5]
    assert [*events["quantity"]] == [3, 3, 2, 2, 1, 3]
    assert [*events["value"]] == [0, 0, 0, 8.0, 19.5, 0]
    assert not notes.unmapped


def test_what_happens_on_a_page_has_our_names(tmp_path: Path) -> None:
    form = {"formId": "f1", "elementId": "name", "value": "Jane Doe"}
    events, notes = read_tsv(
        tmp_path,
        unstruct(VENDOR, "link_click", {"targetUrl": "https://other.example/"}),
        unstruct(VENDOR, "focus_form", form),
        unstruct(VENDOR, "change_form", form),
        unstruct(VENDOR, "focus_form", {**form, "formId": "f2"}),
        unstruct(VENDOR, "submit_form", {"formId": "f1"}),
        unstruct(VENDOR, "site_search", {"terms": ["red", "shoes"]}),
        unstruct(VENDOR, "media_player_event", {"type": "play"}),
        unstruct("com.snowplowanalytics.snowplow.media", "percent_progress_event", {}),
        unstruct("com.acme", "sign_up", {}),
        unstruct(VENDOR, "web_vitals", {"cls": 0.1}),
        unstruct("com.acme", "wheel_of_fortune", {}),
    )
    assert names(events) == [
        "click", "form_start", "custom", "form_start", "form_submit", "search", "video_start", "video_progress",
        "sign_up", "custom", "custom",
    ]  # fmt: skip
    assert list(events["interactive"]) == [1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1]
    assert notes.unmapped == {"wheel_of_fortune": 1}


def test_structured_events_are_named_by_action_or_by_category_and_action(tmp_path: Path) -> None:
    said = [("authentication", "login"), ("shop", "add-to-basket"), ("video", "play"), ("faq", "open")]
    events, notes = read_tsv(
        tmp_path,
        *({**VIEW, "event": "struct", "se_category": category, "se_action": action} for category, action in said),
        events={"video/play": "video_start", "login": "login", "add-to-basket": "add_to_cart"},
    )
    assert names(events) == ["login", "add_to_cart", "video_start", "custom"]
    assert events["name"].iloc[0] == LOGIN
    assert notes.unmapped == {"faq/open": 1}


def test_an_app_is_known_by_its_session_context(tmp_path: Path) -> None:
    app = entity(VENDOR, "client_session", {"userId": "u9", "sessionId": "s9"})
    screen = unstruct("com.snowplowanalytics.mobile", "screen_view", {"name": "Cart"}, app)
    events, _ = read_tsv(tmp_path, {**screen, "domain_userid": "", "domain_sessionid": "", "page_url": ""})
    assert (events["visitor"].item(), events["session"].item()) == (KEY.visitor("u9"), hash64("s9"))
    assert (names(events), events["page"].item()) == (["page_view"], hash64("/Cart"))


def test_an_anonymous_event_is_never_linked_and_never_told_by_its_fingerprint(tmp_path: Path) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    events, notes = read_tsv(
        tmp_path,
        VIEW,
        {**VIEW, "domain_userid": "", "network_userid": "n1"},
        {**VIEW, "domain_userid": "", "network_userid": nobody},
        {**VIEW, "domain_userid": "", "network_userid": nobody, "domain_sessionid": ""},
        consent=("measure", "link"),
    )
    assert list(events["visitor"]) == [KEY.visitor("jane"), KEY.visitor("n1"), KEY.visitor("s1")]
    assert list(events["consent"]) == [3, CONSENT_MEASURE, CONSENT_MEASURE]
    assert notes.skipped == {NO_VISITOR: 1}
    assert notes.rows == 4


def test_a_choice_about_consent_is_the_consent_of_its_event(tmp_path: Path) -> None:
    choices = [unstruct(VENDOR, "consent_preferences", {"eventType": kind}) for kind in ("allow_all", "deny_all")]
    events, _ = read_tsv(tmp_path, *choices, unstruct(VENDOR, "consent_preferences", {"eventType": "pending"}))
    assert list(events["consent"]) == [7, 0, CONSENT_MEASURE]


def test_a_basis_or_a_choice_beside_an_event_is_its_consent(tmp_path: Path) -> None:
    bases = [entity(VENDOR, "gdpr", {"basisForProcessing": basis}) for basis in ("consent", "contract", "odd")]
    choice = entity(VENDOR, "consent_preferences", {"eventType": "deny_all"})
    beside = [contexts(bases[0]), contexts(bases[1]), contexts(bases[2]), contexts(bases[0], choice)]
    events, _ = read_tsv(
        tmp_path,
        *({**VIEW, "contexts": each} for each in beside),
        {**VIEW, "contexts": beside[0], "domain_userid": ""},
        consent=("measure", "link"),
    )
    assert list(events["consent"]) == [7, 1, 3, 0, 5]  # without a first-party id never linked


def test_a_server_s_or_an_app_s_library_is_no_bot(tmp_path: Path) -> None:
    events, _ = read_tsv(tmp_path, *({**VIEW, "platform": kind, "useragent": "node"} for kind in ("web", "srv", "mob")))
    assert [DEVICES[device] for device in events["device"]] == ["bot", "unknown", "unknown"]


def test_an_app_s_user_who_wants_to_be_nobody_is_the_session(tmp_path: Path) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    app = contexts(entity(VENDOR, "client_session", {"userId": nobody, "sessionId": "s9"}))
    events, _ = read_tsv(
        tmp_path, {**VIEW, "contexts": app, "domain_userid": "", "domain_sessionid": "", "network_userid": ""}
    )
    assert list(events["visitor"]) == [KEY.visitor("s9")]


@pytest.mark.parametrize(
    ("columns", "channel", "campaign"),
    [
        ({"mkt_medium": "cpc", "mkt_campaign": "spring", "page_url": "https://shop.example/"}, "paid", "spring"),
        ({"mkt_clickid": "abc", "mkt_network": "Google"}, "paid", ""),
        ({"mkt_medium": "email", "mkt_campaign": "news"}, "email", "news"),
        ({"mkt_source": "partner", "mkt_medium": "odd", "refr_medium": "email"}, "email", ""),
        ({"refr_medium": "search"}, "organic", ""),
        ({"refr_medium": "unknown", "page_referrer": "https://blog.example/"}, "referral", ""),
        ({"refr_medium": "social"}, "social", ""),
        ({"refr_medium": "internal"}, "internal", ""),
        ({"page_referrer": ""}, "direct", ""),
        ({"page_referrer": "https://shop.example/"}, "internal", ""),
    ],
)
def test_channels_come_from_the_campaign_then_the_referrer(
    tmp_path: Path, columns: dict[str, str], channel: str, campaign: str
) -> None:
    events, notes = read_tsv(tmp_path, {**VIEW, **columns})
    assert (CHANNELS[events["channel"].item()], events["campaign"].item()) == (channel, hash64(campaign))
    assert not notes.unmapped


def test_bots_and_devices_are_told_by_the_enrichments_first(tmp_path: Path) -> None:
    assert device_of(CHROME) == "desktop"
    iab = entity("com.iab.snowplow", "spiders_and_robots", {"spiderOrRobot": True})
    kinds = [{"deviceClass": kind} for kind in ("Tablet", "Robot", "Anonymized")]
    events, _ = read_tsv(
        tmp_path,
        {**VIEW, "derived_contexts": contexts(iab)},
        {**VIEW, "br_type": "Robot"},
        *({**VIEW, "derived_contexts": contexts(entity("nl.basjes", "yauaa_context", kind))} for kind in kinds),
    )
    assert [DEVICES[device] for device in events["device"]] == ["bot", "bot", "tablet", "bot", "desktop"]


def test_the_collectors_time_stands_in_and_a_zone_that_is_none_is_the_shops(tmp_path: Path) -> None:
    events, _ = read_tsv(tmp_path, {**VIEW, "derived_tstamp": "", "os_timezone": "Mars/Olympus"}, timezone="Asia/Tokyo")
    assert (events["time"].item(), events["utc_offset"].item()) == (AT_MS + 750, 540)


def test_other_apps_can_be_left_out(tmp_path: Path) -> None:
    other = {**VIEW, "app_id": "blog"}
    events, notes = read_tsv(tmp_path, VIEW, other, options={"app_ids": ["shop"]})
    assert len(events) == 1
    assert notes.skipped == {OTHER_APP: 1}
    with pytest.raises(SettingsError, match="apps: .*known options: app_ids"):
        read_tsv(tmp_path, VIEW, options={"apps": ["shop"]})


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl"])
def test_a_file_that_ends_in_the_middle_of_a_row_loses_that_row_only(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"log.{form}"
    if form == "tsv":
        text = tsv(VIEW) * 2
    elif form == "csv":
        text = "".join(ATOMIC.read_text().splitlines(keepends=True)[:3])
    else:
        text = (json.dumps(VIEW) + "\n") * 2
    path.write_text(text[:-200])
    events, notes = read(path)
    assert len(events) == 1
    assert notes.skipped == {CUT_OFF: 1}
    assert notes.rows == 2


def test_a_compressed_file_that_ends_early_gives_what_is_there(tmp_path: Path) -> None:
    lines = "".join(tsv({**VIEW, "event_id": f"{number * 7919:x}"}) for number in range(3000)).encode()
    path = tmp_path / "part.gz"
    path.write_bytes(gzip.compress(lines)[:-4000])
    events, notes = read(path)
    assert 0 < len(events) < 3000
    assert notes.skipped[CUT_OFF_STREAM] == 1


@pytest.mark.parametrize("name", ["log.tsv", "log.csv", "log.jsonl"])
def test_an_empty_file_has_no_events(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    events, notes = read(tmp_path / name)
    assert len(events) == 0
    assert notes == Notes()


def test_a_bad_row_in_the_middle_is_named_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text(tsv(VIEW) + "a\tb\n" + tsv(VIEW))
    with pytest.raises(EventError, match=r"log\.tsv, row 1: found 2 cells; expected 131"):
        read(path)
    events, notes = read(path, bad_rows="skip")
    assert len(events) == 2
    assert notes.skipped == {"no enriched event": 1}
    assert notes.rows == 3
    with pytest.raises(EventError, match="row 0: contexts holds no self-describing JSON"):
        read_tsv(tmp_path, {**VIEW, "contexts": "[1"}, VIEW)
    with pytest.raises(EventError, match=r"row 2: time is 'yesterday'; expected a time"):
        read_tsv(
            tmp_path, action("add_to_cart", product("a"), product("b")), VIEW, {**VIEW, "derived_tstamp": "yesterday"}
        )


def test_another_file_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(EventError, match="found 2 cells, the first one 'a'; expected an enriched event"):
        read(tmp_path / "log.csv")


def test_an_unknown_event_can_be_an_error(tmp_path: Path) -> None:
    with pytest.raises(EventError, match=r"unknown event 'wheel' in row 1; .*\[sources\.<name>\.events\]"):
        read_tsv(tmp_path, VIEW, unstruct("com.acme", "wheel", {}), unknown_events="error")

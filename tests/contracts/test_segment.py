"""Segment's clients of browsers and Node: captured calls, what is refused, consent, ids, and the answers."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.pseudonyms import Pseudonymiser
from features.segment import EVENTS, NOT_LINKED, WITHHELD
from features.settings import SettingsError
from features.shop import ShopSettings, SourceSettings
from features.sources import concatenate, open_source, read_chunks
from serving.collect import Collected, Hit
from serving.collect.segment import Segment
from serving.intake import EventIn, FieldError, Intake
from tests.contracts.captured import SHOP, Capture, alone, captures, endpoint, read, told, tracker

BROWSER, NODE = "@segment/analytics-next", "@segment/analytics-node"
START = "https://www.shop.example/?utm_source=news&utm_medium=email&utm_campaign=spring"
SHOES = "https://www.shop.example/category/shoes?page=2"
ENTRY = {"channel": "email", "campaign": "spring", "device": "desktop", "consent": ["measure"]}
LATER = {"page": SHOES, "channel": "organic", "device": "desktop", "consent": ["measure"]}
DIRECT = {"channel": "direct", "device": "desktop", "consent": ["measure"]}
ERR = {"name": "custom", "page": "https://www.shop.example/err", **DIRECT}
SERVER = {"consent": ["measure"]}
NO_IDENTIFY, NO_ALIAS = "identify: no step of a visitor", "alias: no step of a visitor"

EXPECTED: dict[tuple[str, str], list[dict[str, Any] | str]] = {
    (BROWSER, "load_settings"): [],
    (BROWSER, "page_view"): [{"name": "page_view", "page": START, **ENTRY}],
    (BROWSER, "spa_page_change"): [{"name": "page_view", **LATER}],
    (BROWSER, "custom_event"): [{"name": "custom", **LATER}],
    (BROWSER, "product_list_viewed"): [{"name": "view_item_list", "category": "Shoes", **LATER}],
    (BROWSER, "products_searched"): [{"name": "search", **LATER}],
    (BROWSER, "remove_from_cart"): [{"name": "remove_from_cart", "item": "SKU-2", "price": 5.0, **LATER}],
    (BROWSER, "checkout_started"): [{"name": "begin_checkout", "value": 159.8, "currency": "EUR", **LATER}],
    (BROWSER, "identify_login"): [NO_IDENTIFY],
    (BROWSER, "event_after_identify"): [{"name": "custom", **LATER}],
    (BROWSER, "alias"): [NO_ALIAS],
    (BROWSER, "screen"): [{"name": "page_view", **LATER, "page": "Home"}],
    (BROWSER, "track_with_timestamp_and_context"): [{"name": "custom", **LATER, "consent": ["measure", "link"]}],
    (BROWSER, "page_leave_navigate"): [],
    (BROWSER, "batching_page_leave"): [{"name": "custom", "page": "https://www.shop.example/batch", **DIRECT}] * 2,
    (BROWSER, "error_500"): [ERR] * 4,
    (BROWSER, "error_429_retry_after"): [ERR] * 3,
    (BROWSER, "error_429_retry_after_recovered"): [ERR],
    (BROWSER, "error_400_recovered"): [],
    (BROWSER, "error_conn"): [ERR] * 5,
    (BROWSER, "batch_error_500"): [ERR] * 4,
    (BROWSER, "batch_error_500_recovered"): [ERR],
    (BROWSER, "batch_error_429_recovered"): [ERR],
    (BROWSER, "dnt_gpc_default"): [{"name": "page_view", "page": "https://www.shop.example/dnt", **DIRECT}],
    (BROWSER, "settings_404"): [],
    (NODE, "node_mixed_batch"): [
        NO_IDENTIFY,
        NOT_LINKED,
        {"name": "page_view", "page": "https://www.shop.example/", "channel": "direct", **SERVER},
    ],
    (NODE, "node_error_500"): [{"name": "custom", **SERVER}] * 3,
}
CAPTURED: dict[tuple[str, str], list[Capture]] = {}
for one in (*captures("segment_browser"), *captures("segment_node")):
    CAPTURED.setdefault((one.client, one.scenario), []).append(one)
AT_MS = 1_795_480_000_000
SENT = "2026-11-24T00:26:40.000Z"  # the same
CALL = {"type": "track", "event": "Product Added", "anonymousId": "anon-1", "messageId": "m1", "timestamp": SENT}


@pytest.mark.parametrize("key", CAPTURED)
def test_captured_requests_become_events(key: tuple[str, str]) -> None:
    adapter = tracker("segment")
    found: list[dict[str, Any] | str] = []
    for one in CAPTURED[key]:
        collected = read(adapter, one)
        found += collected.dropped
        found += [told(event, "utc_offset") for event in collected.events]
        # browsers tell their zone, here UTC; servers tell none
        assert {event.utc_offset for event in collected.events} <= {0 if key[0] == BROWSER else None}
    assert found == EXPECTED[key]


def test_every_scenario_is_expected() -> None:
    assert set(CAPTURED) == set(EXPECTED)


class Sent(NamedTuple):
    """A call as a client sends it."""

    wire: dict[str, Any]
    sent_at: str
    received_ms: int
    headers: dict[bytes, bytes]


def captured_calls() -> list[Sent]:
    """Every captured call by itself."""
    found = []
    for one in (one for group in CAPTURED.values() for one in group if one.hit.method == "POST"):
        body = json.loads(one.hit.body)
        calls = body.get("batch", [body])
        found += [Sent(wire, body["sentAt"], one.hit.received_ms, dict(one.hit.headers)) for wire in calls]
    return found


def milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def test_live_is_as_history(tmp_path: Path) -> None:
    """The same calls give the same events when they are read from an archive."""
    key, shop = Pseudonymiser(b"0123456789abcdef"), ShopSettings(currency="EUR", timezone="Europe/Berlin")
    order = {"total": "27.50", "currency": "EUR", "products": [{"sku": 7, "price": "19", "quantity": 2}, {"id": "S2"}]}
    own = [call("Order Completed", messageId="o1", properties=order), call("Gewinnspiel", messageId="o2")]
    own.append(preferring({"Analytics": True}, userId="user-42"))
    calls = [*captured_calls(), *(Sent(wire, SENT, AT_MS, {}) for wire in own)]
    adapter, intake = tracker("segment"), Intake(shop, ("measure",), 10**12)
    live, archived = [], []
    for wire, sent_at, received_ms, headers in calls:
        hit = sent({"batch": [wire], "sentAt": sent_at}, "/v1/batch")._replace(received_ms=received_ms, headers=headers)
        live += [
            intake.event(event, received_ms, lambda raw, linked: key.visitor(raw))
            for event in read(adapter, capture(hit)).events
        ]
        # what Segment does with the time before it archives a call
        corrected = received_ms - milliseconds(sent_at) + milliseconds(wire["timestamp"])
        archived.append({**wire, "timestamp": datetime.fromtimestamp(corrected / 1000, UTC).isoformat()})
    (tmp_path / "archive.json").write_text("".join(json.dumps(wire) + "\n" for wire in archived))
    reader, reading = open_source("segment", str(tmp_path / "archive.json"), shop, key)
    history = concatenate(list(read_chunks(reader, reading))).to_dict("records")
    assert len(live) == len(history) == 32 + 4 + 4
    for event, row in zip(live, history, strict=True):
        assert event._asdict() == row


def call(event: str = "Product Added", **more: Any) -> dict[str, Any]:
    return {**CALL, "event": event, **more}


def sent(body: Any, path: str = "/v1/t", **headers: str) -> Hit:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Hit("POST", path, "", named, content, AT_MS, "192.0.2.7")


def capture(hit: Hit) -> Capture:
    return Capture(BROWSER, "", "", hit, 200)


def taken(body: Any, path: str = "/v1/t", adapter: Any = None, **headers: str) -> Collected:
    """What is read of a body; its events keep the contract."""
    return read(adapter or tracker("segment"), capture(sent(body, path, **headers)))


def event_of(body: Any, **headers: str) -> EventIn:
    (event,) = taken(body, **headers).events
    return event


@pytest.mark.parametrize(
    "path",
    [*(f"/v1/{name}" for name in ("t", "track", "p", "page", "s", "screen")), "/v1/track/"],
)
def test_the_path_says_what_a_call_is(path: str) -> None:
    wire = {"anonymousId": "a", "event": "Signed In", "name": "Start", "type": "identify"}
    (event,) = taken(wire, path).events
    assert event.name == ("login" if "/v1/t" in path else "page_view")


@pytest.mark.parametrize("name", ["i", "identify", "g", "group", "a", "alias"])
def test_calls_that_are_no_step_are_taken_and_counted(name: str) -> None:
    found = taken({"anonymousId": "a", "userId": "u", "traits": {"email": "jane@shop.example"}}, f"/v1/{name}")
    (reason,) = found.dropped
    assert not found.events
    assert reason in ("identify: no step of a visitor", "group: no step of a visitor", "alias: no step of a visitor")


@pytest.mark.parametrize(
    "path", ["/v1/events", "/v1/sessions/t", "/v1/projects//settings", "/v1/projects/a/b/settings"]
)
def test_other_paths_are_none_of_its(path: str) -> None:
    assert tracker("segment").endpoint(path) is None


def test_every_name_of_the_vocabulary_is_known_in_any_spelling() -> None:
    for name, ours in EVENTS.items():
        for spelled in (name, name.lower().replace(" ", "_"), name.upper()):
            assert event_of(call(spelled)).name == ours, spelled
    assert event_of(call("Gewinnspiel gestartet")).name == "custom"


def test_an_order_is_an_event_a_product_with_its_value_once() -> None:
    products = [{"product_id": "P1", "price": "19.00", "quantity": 1}, {"sku": 7.0, "price": 3, "category": "Games"}]
    order = call("Order Completed", properties={"total": "27.50", "currency": "EUR", "products": products})
    found = taken(order).events
    assert [(event.name, event.id, event.item, event.price, event.value) for event in found] == [
        ("purchase", "m1", "P1", 19.0, 27.5),
        ("purchase", "m1/1", "7", 3.0, 0.0),
    ]
    # sent again: the same ids
    assert [event.id for event in taken(order).events] == ["m1", "m1/1"]


def test_times_are_corrected_by_the_clients_clock() -> None:
    slow = call(timestamp="2026-11-24T00:20:00.000Z", sentAt="2026-11-24T00:21:00.000Z")
    wire = event_of(slow)
    event = Intake(SHOP, ("measure",), 10**9).event(wire, AT_MS, lambda raw, linked: 1)
    assert event.time == AT_MS - 60_000
    without = {key: value for key, value in CALL.items() if key != "timestamp"}
    event = Intake(SHOP, ("measure",), 10**9).event(
        event_of({**without, "sentAt": SENT}), AT_MS + 7, lambda raw, linked: 1
    )
    assert event.time == AT_MS + 7


def test_one_bad_call_of_a_batch_does_not_lose_the_others() -> None:
    calls = [
        call(messageId="1"),
        7,
        {**call(), "type": "cookie"},
        {**call(), "event": ""},
        {key: value for key, value in CALL.items() if key != "anonymousId"},
        call(properties={"price": "ten"}),
        call(properties={"price": -1}),
        call(properties={"price": "NaN"}),
        call(properties={"quantity": 1e300}),
        call(properties={"product_id": "x" * 600}),
        call(context={"huge": "x" * 33_000}),
        call(anonymousId="y" * 600),
        call(messageId="2", unknown={"field": 1}, context={"page": 7, "consent": [], "campaign": "x"}),
    ]
    found = taken({"batch": calls, "sentAt": SENT, "writeKey": "WK"}, "/v1/batch")
    assert [event.id for event in found.events] == ["1", "2"]
    assert found.dropped == [
        "no JSON object", "unknown type", "no name", "no visitor", "bad price", "bad price", "bad price",
        "bad quantity", "bad item", "a call of more than 32 kB", "bad visitor",
    ]  # fmt: skip


WRITTEN = st.text(max_size=8) | st.sampled_from(["Order Completed", "NaN", SENT, "https://[", "UTC", "1e999", "null"])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | WRITTEN
FIELDS = [
    "type", "event", "anonymousId", "userId", "messageId", "timestamp", "sentAt", "name", "properties", "context",
    "integrations", "page", "url", "referrer", "campaign", "source", "medium", "consent", "categoryPreferences",
    "userAgent", "timezone", "products", "product_id", "price", "quantity", "total", "currency", "category",
]  # fmt: skip
ANYTHING = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6)
)
CALLS = st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=12)


@given(st.lists(CALLS | CALLS.map(lambda fields: {**CALL, **fields}) | ANYTHING, max_size=4), ANYTHING)
def test_whatever_a_client_sends_is_used_or_counted(calls: list[Any], shared: Any) -> None:
    # NaN and infinity are no JSON; as text they are
    body = msgspec.json.encode({"batch": calls, "context": shared, "integrations": shared})
    hit, intake = sent(body, "/v1/batch"), Intake(SHOP, ("measure",), 10**9)
    found = endpoint(tracker("segment"), hit).read(hit)
    assert len(found.whos) == len(found.events)
    for event in found.events:
        for name in ("price", "quantity", "value"):
            assert 0 <= getattr(event, name) < 1e12
        try:
            intake.event(event, AT_MS, lambda raw, linked: 1)
        except FieldError as error:
            assert error.field in ("time", "sent_at", "currency")


def test_bad_times_and_currencies_are_dropped_by_the_intake() -> None:
    intake = Intake(SHOP, ("measure",), 10**9)
    for bad, field in (({"timestamp": "yesterday"}, "time"), ({"properties": {"currency": "XXX"}}, "currency")):
        hit = sent(call(**bad))
        (wire,) = endpoint(tracker("segment"), hit).read(hit).events
        with pytest.raises(FieldError) as caught:
            intake.event(wire, AT_MS, lambda raw, linked: 1)
        assert caught.value.field == field


def test_what_all_calls_of_a_batch_share_stands_beside_them() -> None:
    shared = {"page": {"url": "https://shop.example/p/1"}, "consent": {"categoryPreferences": {"Analytics": True}}}
    calls = [call(), call(context={"page": {"url": "https://shop.example/p/2"}}), call(integrations={"Lotse": True})]
    found = taken({"batch": calls, "context": shared, "integrations": {"All": False}}, "/v1/import")
    assert found.dropped == [WITHHELD] * 2
    (event,) = found.events
    assert (event.page, event.consent) == ("https://shop.example/p/1", ["measure", "link"])


def test_a_batch_is_not_longer_than_segments() -> None:
    """As Segment has it, all of it is refused: a library that hears of an error splits it, or says so."""
    short = {"type": "page", "anonymousId": "a"}
    assert len(taken({"batch": [short] * 2_500}, "/v1/batch").events) == 2_500
    many = call("Order Completed", properties={"products": [{}] * 8_000})
    for body, path in (({"batch": [short] * 2_501}, "/v1/batch"), (many, "/v1/track")):
        found = taken(body, path)
        assert (found.events, found.dropped) == ([], ["too many events"])


@pytest.mark.parametrize(
    ("path", "body", "reason", "message"),
    [
        ("/v1/t", b"{", "no JSON", "malformed JSON"),
        ("/v1/t", b'{"event":"\xff"}', "no JSON", "malformed JSON"),
        ("/v1/t", b"[" * 20_000, "no JSON", "malformed JSON"),
        ("/v1/t", b"[]", "no JSON object", "the body is no object"),
        (
            "/v1/t",
            b'{"event":"' + b"x" * 33_000 + b'"}',
            "a call of more than 32 kB",
            "the request is larger than 32KB",
        ),
        ("/v1/batch", b"{", "no JSON", "malformed JSON"),
        ("/v1/batch", b'{"batch":[,,]}', "no JSON", "malformed JSON"),
        ("/v1/b", b'{"batch":{}}', "no batch", "the body has no array `batch`"),
        ("/v1/import", b'{"type":"track"}', "no batch", "the body has no array `batch`"),
        ("/v1/batch", b" " * 513_000, "a batch of more than 500 kB", "the request is larger than 500KB"),
    ],
)
def test_what_segment_refuses_is_refused_its_way(path: str, body: bytes, reason: str, message: str) -> None:
    hit = sent(body, path)
    with pytest.raises(Exception) as caught:
        endpoint(tracker("segment"), hit).read(hit)
    refused: Any = caught.value
    assert (refused.reason, refused.reply.status) == (reason, 400)
    assert msgspec.json.decode(refused.reply.body) == {
        "success": False, "code": "invalid_request", "message": message,
    }  # fmt: skip


def test_everything_else_is_a_success() -> None:
    for path, body in (("/v1/t", call()), ("/v1/i", {}), ("/v1/t", {}), ("/v1/batch", {"batch": []}), ("/v1/m", b"{")):
        hit = sent(body, path)
        found = endpoint(tracker("segment"), hit)
        reply: Any = found.answer(hit, found.read(hit), [])
        assert (reply.status, reply.content_type, reply.body) == (200, b"application/json", b'{"success":true}')


def preferring(preferences: dict[str, Any], **more: Any) -> dict[str, Any]:
    return call(context={"consent": {"categoryPreferences": preferences}}, **more)


def test_consent_follows_the_preferences_and_the_browser() -> None:
    assert event_of(call()).consent == ["measure"]  # what holds where nothing is said
    assert event_of(preferring({"Analytics": True, "Advertising": False})).consent == ["measure", "link"]
    assert event_of(preferring({"C0002": True, "C0003": True})).consent == ["measure", "link", "personalise"]
    assert event_of(preferring({"Analytics": False, "Functional": False})).consent == []
    assert event_of(preferring({"Sonstiges": True})).consent == []
    assert event_of(preferring({"C0002": True, "C0003": True}), sec_gpc="1").consent == ["measure"]


def test_the_account_is_the_visitor_only_with_consent_to_link() -> None:
    linking = preferring({"Analytics": True}, userId="user-42")
    assert event_of(call(userId="user-42")).visitor == "anon-1"
    assert event_of(linking).visitor == "user-42"
    assert event_of(linking, sec_gpc="1").visitor == "anon-1"
    alone = {key: value for key, value in linking.items() if key != "anonymousId"}
    assert event_of({**alone, "userId": 42}).visitor == "42"
    assert taken(alone, sec_gpc="1").dropped == [NOT_LINKED]


@pytest.mark.parametrize(
    ("integrations", "used"),
    [
        ({"All": False}, False),
        ({"All": False, "Segment.io": True}, True),
        ({"Segment.io": False}, False),
        ({"All": False, "Lotse": {}}, True),
        ({"Lotse": False, "Segment.io": True}, False),
        ({"Salesforce": False}, True),
        ([], True),
    ],
)
def test_integrations_withhold_a_call(integrations: Any, used: bool) -> None:
    found = taken(call(integrations=integrations))
    assert (len(found.events), found.dropped) == ((1, []) if used else (0, [WITHHELD]))


def test_the_shops_own_names_and_categories_hold_as_for_its_history() -> None:
    section = SourceSettings(
        events={"Gewinnspiel": "generate_lead"}, options={"schema": "x", "consent_categories": {"Eigene": ["measure"]}}
    )
    shop = ShopSettings(events={"Katalog": "view_item_list"}, sources={"segment": section})
    adapter = Segment(alone()._replace(shop=shop))
    names = ["gewinnspiel", "katalog", "Product Viewed"]
    wires = [{**preferring({"eigene": True}), "event": name} for name in names]
    found = taken({"batch": wires}, "/v1/batch", adapter).events
    assert [event.name for event in found] == ["generate_lead", "view_item_list", "view_item"]
    assert found[0].consent == ["measure"]


def settings_of(adapter: Any, key: str, host: str) -> Any:
    hit = Hit("GET", f"/v1/projects/{key}/settings", "", {b"host": host.encode()}, b"", AT_MS, "")
    found = endpoint(adapter, hit)
    return found.answer(hit, found.read(hit), [])


def test_settings_send_the_client_back_to_the_host_it_asked() -> None:
    reply = settings_of(tracker("segment"), "WK", "collect.shop.example")
    assert (reply.status, reply.content_type) == (200, b"application/json")
    settings = msgspec.json.decode(reply.body)
    assert settings["integrations"] == {"Segment.io": {"apiKey": "WK", "apiHost": "collect.shop.example/v1"}}
    assert settings["metrics"] == {"sampleRate": 0}
    reply = settings_of(tracker("segment", api_host="events.example/x/v1"), "WK", "collect.shop.example")
    assert msgspec.json.decode(reply.body)["integrations"]["Segment.io"]["apiHost"] == "events.example/x/v1"


def test_write_keys_may_be_listed() -> None:
    adapter = tracker("segment", write_keys=["WK"])
    basic = f"Basic {b64encode(b'WK:').decode()}"
    assert len(taken(call(), adapter=adapter, authorization=basic).events) == 1
    assert len(taken(call(writeKey="WK"), adapter=adapter).events) == 1
    assert len(taken({"batch": [call()] * 2, "writeKey": "WK"}, "/v1/batch", adapter).events) == 2
    for body, path, dropped in ((call(writeKey="other"), "/v1/t", 1), ({"batch": [call()] * 2}, "/v1/b", 2)):
        found = taken(body, path, adapter)
        assert (found.events, found.dropped) == ([], ["unknown write key"] * dropped)
    assert not taken(call(writeKey="WK"), adapter=adapter, authorization="Basic b3RoZXI6").events
    assert settings_of(adapter, "WK", "x").status == 200
    with pytest.raises(Exception, match="unknown write key"):
        settings_of(adapter, "other", "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"write_key": "x"}, "collect.options.segment.write_key: Extra inputs"),
        ({"identify": {}}, "collect.options.segment.identify.write_key: Field required"),
        ({"identify": {"write_key": "x", "endpoint": "ftp://x"}}, "identify.endpoint: String should match"),
        ({"identify": {"write_key": "x", "thresholds": {"exit": [2]}}}, "thresholds.exit holds"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        tracker("segment", **options)

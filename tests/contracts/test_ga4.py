"""Google Analytics 4: a small real client of the web protocol, gtag.js's form of it, and the Measurement Protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
import pandas as pd
import pytest

from features.events import COLUMNS
from features.pseudonyms import Pseudonymiser
from features.shop import SourceSettings
from features.sources import open_source, read_chunks
from features.sources.ga4 import DEFAULTS
from serving.collect import Collected, Hit, Tools
from serving.collect.ga4 import Ga4
from serving.collect.ga4_validation import problems
from serving.collect.visitors import Anonymous
from serving.consent import Consent
from serving.intake import Intake
from serving.settings import PrivacySettings
from tests.contracts.captured import SHOP, Capture, captures, endpoint, read, told, tracker

SMALL, GTAG, PROTOCOL = (
    "@minimal-analytics/ga4", "gtag.js (GA4 web protocol v2, constructed)", "ga4mp (Python, Measurement Protocol)",
)  # fmt: skip
START = "https://www.shop.example/?utm_source=news&utm_medium=email&utm_campaign=spring"
SKU = "https://www.shop.example/p/sku-1"
ENTRY = {"page": START, "channel": "email", "campaign": "spring", "device": "desktop", "consent": ["measure"]}
ALL = ["measure", "link", "personalise"]
LATER = {"page": SKU, "channel": "organic", "device": "desktop", "consent": ALL}
SKU_1 = {"item": "SKU-1", "category": "Shoes", "price": 79.9, "currency": "EUR"}

EXPECTED: dict[tuple[str, str], list[dict[str, Any]]] = {
    (SMALL, "page_view"): [{"name": "page_view", **ENTRY}],
    (SMALL, "custom_event"): [{"name": "custom", **ENTRY}],
    (SMALL, "add_to_cart"): [{"name": "add_to_cart", **SKU_1, "quantity": 2.0, "value": 159.8, **ENTRY}],
    (SMALL, "file_download"): [{"name": "file_download", **ENTRY}],
    (SMALL, "page_leave_navigate"): [{"name": "user_engagement", **ENTRY}],
    (GTAG, "page_view"): [{"name": "page_view", **ENTRY, "consent": ALL}],
    (GTAG, "view_item"): [{"name": "view_item", **SKU_1, "value": 79.9, "interactive": False, **LATER}],
    (GTAG, "add_to_cart"): [{"name": "add_to_cart", **SKU_1, "quantity": 2.0, "value": 159.8, **LATER}],
    (GTAG, "batched_two_events"): [{"name": "video_start", **LATER}, {"name": "video_progress", **LATER}],
    (GTAG, "purchase"): [{"name": "purchase", **SKU_1, "quantity": 2.0, "value": 178.62, **LATER}],
    (GTAG, "user_engagement_leave"): [{"name": "user_engagement", **LATER}],
    (GTAG, "consent_denied_cookieless_ping"): [
        {
            "name": "page_view", "page": "https://www.shop.example/", "channel": "direct", "device": "desktop",
            "consent": ["measure"],
        }
    ],
    (PROTOCOL, "mp_python"): [
        {
            "name": "purchase", "item": "SKU-1", "price": 79.9, "quantity": 2.0, "value": 178.62, "currency": "EUR",
            "consent": ["measure"],
        }
    ],
}  # fmt: skip
CAPTURED: dict[tuple[str, str], list[Capture]] = {}
for file in ("ga4_minimal", "ga4_gtag", "ga4_mp"):
    for one in captures(file):
        CAPTURED.setdefault((one.client, one.scenario), []).append(one)
AGENT = CAPTURED[SMALL, "page_view"][0].hit.header(b"user-agent")
NOW = 1_800_000_000_000


def with_consent(*default: str, **shop: Any) -> Ga4:
    async def nobody(raw: str) -> None:
        del raw

    anonymous = Anonymous(lambda text, now_ms: hash((text, now_ms // 86_400_000)) & (2**63 - 1))
    consent = Consent(PrivacySettings(), default)
    return Ga4(Tools(SHOP.model_copy(update=shop), {}, consent, anonymous, nobody))


def taken(hit: Hit, adapter: Ga4 | None = None) -> Collected:
    return read(adapter or with_consent("measure"), Capture("", "", "", hit, 204))


def web(body: str = "", method: str = "POST", path: str = "/g/collect", headers: Any = (), **fields: str) -> Hit:
    known = {"v": "2", "tid": "G-1", "cid": "1.2", "sid": "9", "_p": "7", "_s": "1", "en": "page_view", **fields}
    sent = {"user-agent": AGENT, **dict(headers)}
    query = urlencode({name: value for name, value in known.items() if value})
    return Hit(method, path, query, {k.encode(): v.encode() for k, v in sent.items()}, body.encode(), NOW, "192.0.2.7")


def protocol(*events: Any, path: str = "/mp/collect", **body: Any) -> Hit:
    sent = json.dumps({"client_id": "1.2", "events": events, **body}).encode()
    return Hit("POST", path, "measurement_id=G-1&api_secret=x", {b"user-agent": b"node"}, sent, NOW, "192.0.2.9")


@pytest.mark.parametrize("key", CAPTURED)
def test_captured_requests_become_events(key: tuple[str, str]) -> None:
    adapter = tracker("ga4")
    found = [read(adapter, one) for one in CAPTURED[key]]
    assert [told(event) for collected in found for event in collected.events] == EXPECTED[key]
    assert not [reason for collected in found for reason in collected.dropped]
    replies: list[Any] = [
        endpoint(adapter, one.hit).answer(one.hit, each, []) for one, each in zip(CAPTURED[key], found, strict=True)
    ]
    assert {(reply.status, reply.body) for reply in replies} == {(204, b"")}


def test_every_scenario_is_expected() -> None:
    assert set(CAPTURED) == set(EXPECTED)


def test_paths_end_as_google_s_do() -> None:
    adapter = with_consent("measure")
    for path, methods in (
        ("/g/collect", ("GET", "POST")), ("/metrics/g/collect", ("GET", "POST")), ("/mp/collect", ("POST",)),
        ("/sgtm/mp/collect", ("POST",)), ("/debug/mp/collect", ("POST",)),
    ):  # fmt: skip
        found = adapter.endpoint(path)
        assert found is not None and found.methods == methods
    assert adapter.endpoint("/sgtm/debug/mp/collect") is adapter.endpoint("/debug/mp/collect")
    assert adapter.endpoint("/collect") is None


# Web hits.


def test_a_hit_is_told_from_others_by_page_number_and_place() -> None:
    two = "en=scroll&epn.percent_scrolled=90\r\nen=click"
    first, again, later = (taken(web(two, en="", _s=number)).events for number in ("3", "3", "4"))
    assert [event.id for event in first] == [event.id for event in again] == ["1.2/9/7/3/0", "1.2/9/7/3/1"]
    assert not {event.id for event in later} & {event.id for event in first}
    (nameless,) = taken(web(_s="")).events
    assert nameless.id == ""  # nothing tells it from the next one


def test_the_session_is_the_client_s() -> None:
    (event,) = taken(web()).events
    assert (event.visitor, event.session, event.time) == ("1.2", "1.2.9", None)


def test_get_and_post_say_the_same() -> None:
    (one,), (other,) = (taken(web(method=method, dl=SKU)).events for method in ("GET", "POST"))
    assert told(one) == told(other)


def test_an_order_is_an_event_a_product_with_the_value_once() -> None:
    order = web(en="purchase", cu="EUR", **{"pr1": "ida~pr20~qt2", "pr2": "idb~caShoes~pr5", "epn.value": "45"})
    events = taken(order).events
    assert [(event.item, event.price, event.quantity, event.value) for event in events] == [
        ("a", 20.0, 2.0, 45.0),
        ("b", 5.0, 1.0, 0.0),
    ]
    assert [event.id for event in events] == ["1.2/9/7/1/0", "1.2/9/7/1/0/1"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"en": "view_search_results"}, {"name": "search", "interactive": False}),
        ({"en": "scroll", "epn.percent_scrolled": "90"}, {"name": "scroll", "value": 0.9}),
        ({"en": "web_vitals", "epn.value": "0.1"}, {"name": "custom"}),  # without a currency no money
        ({"en": "purchase", "epn.value": "12"}, {"name": "purchase", "value": 12.0}),
        ({"en": "order", "ep.value": "12", "cu": "EUR"}, {"name": "purchase", "value": 12.0, "currency": "EUR"}),
        ({"en": "select_item", "pr1": "nmShoe~~x"}, {"name": "select_item", "item": "Shoe"}),
        (
            {"en": "view_item_list", "pr1": "ida~caX", "pr2": "idb~caX"},
            {"name": "view_item_list", "category": "X", "interactive": False},
        ),
        (
            {"cs": "partner", "cm": "cpc", "cn": "sale", "dl": SKU},
            {"name": "page_view", "page": SKU, "channel": "paid", "campaign": "sale"},
        ),
        ({"dl": SKU, "dr": "https://www.shop.example/"}, {"name": "page_view", "page": SKU, "channel": "internal"}),
        ({"dl": "(not set)"}, {"name": "page_view"}),
    ],
)  # fmt: skip
def test_names_amounts_and_origin(fields: dict[str, str], expected: dict[str, Any]) -> None:
    (event,) = taken(web(**fields)).events
    assert told(event, "device", "consent") == expected


@pytest.mark.parametrize(
    ("hit", "reasons", "kept"),
    [
        (web(v="1"), ["no hit of version 2"], 0),
        (web(tid=""), ["no hit of version 2"], 0),
        (web(cid=""), ["no visitor"], 0),
        (web(en=""), ["no event name"], 0),
        (web("en=click\r\nen=\r\n\r\nen=scroll", en=""), ["no event name"], 2),
        (web(en="session_start"), ["no step of a visitor"], 0),
        (
            web("en=add_to_cart&pr1=ida~pr-5\r\nen=click\r\nen=add_to_cart&pr1=ida~qtmany", en=""),
            ["bad price", "bad quantity"],
            1,
        ),
        (protocol({"name": "purchase", "params": {"value": "much"}}, {"name": "click"}), ["bad value"], 1),
        (web(headers={"user-agent": "Googlebot/2.1"}), ["a program"], 0),
        (protocol()._replace(body=b"{"), ["no JSON"], 0),
        (protocol()._replace(body=b"[]"), ["no events"], 0),
        (protocol({"name": "click"}, 7, {"name": "_x"}, {"name": "first_visit"}), ["bad event name"] * 3, 1),
        (protocol({"name": "click"}, client_id=""), ["no visitor"], 0),
        (protocol(*[{"name": "click"}] * 26), ["more than 25 events in a request"], 0),
    ],
)
def test_what_cannot_be_used_is_dropped_and_loses_nothing_else(hit: Hit, reasons: list[str], kept: int) -> None:
    found = taken(hit)
    assert (found.dropped, len(found.events)) == (reasons, kept)
    reply: Any = endpoint(with_consent("measure"), hit).answer(hit, found, [])
    assert reply.status == 204


# Consent.


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ({}, ["measure", "link"]),
        ({"gcs": "G111"}, ["measure", "link"]),
        ({"gcs": "G111", "gcd": "13r3r3r3r5l1", "npa": "0"}, ALL),
        ({"gcs": "G111", "gcd": "13r3r3r3r5l1", "npa": "1"}, ["measure", "link"]),
        ({"gcs": "G101", "gcd": "13p3r3p3p5l1"}, ["measure", "link"]),
        ({"gcs": "G110", "gcd": "13r3p3r3r5l1"}, ["measure", "personalise"]),
        ({"gcs": "G100", "gcd": "13p3p3p3p5l1", "npa": "1"}, ["measure"]),
        ({"gcd": "13l3l3l3l5l1"}, ["measure", "link"]),
        ({"gcs": "G1--", "gcd": "?"}, ["measure", "link"]),
        ({"gcd": "11t1u1t1v5"}, ["measure", "personalise"]),
    ],
)
def test_consent_mode_decides(mode: dict[str, str], expected: list[str]) -> None:
    (event,) = taken(web(**mode), with_consent("measure", "link")).events
    assert event.consent == expected
    (objecting,) = taken(web(**mode, headers={"sec-gpc": "1"}), with_consent("measure", "link")).events
    assert objecting.consent == ["measure"]


def test_without_storage_the_ids_are_of_a_page_and_the_day_tells_the_visitor() -> None:
    denied = {"gcs": "G100", "gcd": "13p3p3p3p5l1", "uid": "jane"}
    (one,), (other,) = (taken(web(cid=cid, sid=cid, **denied)).events for cid in ("1.1", "2.2"))
    assert one.visitor == other.visitor and one.visitor.startswith("day-")
    assert (one.session, other.session) == ("", "") and one.id != other.id


def test_an_account_is_the_visitor_only_with_consent_to_link() -> None:
    for hit in (web(uid="jane"), protocol({"name": "login"}, user_id="jane")):
        (kept,), (linked,) = (taken(hit, with_consent(*names)).events for names in (["measure"], ["measure", "link"]))
        assert (kept.visitor, linked.visitor) == ("1.2", "jane")
    (objecting,) = taken(web(uid="jane", headers={"dnt": "1"}), with_consent("measure", "link")).events
    assert objecting.visitor == "1.2"


# The Measurement Protocol.


def test_a_server_s_request_tells_time_device_and_consent_itself() -> None:
    micros = (NOW - 5_000) * 1000
    (event,) = taken(
        protocol(
            {"name": "add_to_cart", "params": {"session_id": 9, "items": [{"item_id": 7, "price": "3"}, "no"]}},
            timestamp_micros=str(micros), consent={"ad_personalization": "GRANTED"}, device={"category": "mobile"},
        )
    ).events  # fmt: skip
    assert told(event) == {
        "name": "add_to_cart", "item": "7", "price": 3.0, "device": "mobile", "consent": ["measure", "personalise"],
    }  # fmt: skip
    assert (event.time, event.session, event.id) == (NOW - 5_000, "1.2.9", f"1.2/{micros}/0")
    (denied,) = taken(protocol({"name": "click"}, consent={"ad_personalization": "DENIED"}), with_consent(*ALL)).events
    assert (denied.consent, denied.device, denied.time) == (["measure", "link"], "unknown", None)


def test_an_order_sent_again_is_the_same_order() -> None:
    items = [{"item_id": "a"}, {"item_id": "b"}]

    def ids_of(order: str) -> list[str]:
        purchase = {"name": "purchase", "params": {"transaction_id": order, "items": items}}
        return [event.id for event in taken(protocol(purchase)).events]

    ids = [ids_of(order) for order in ("T1", "T1", "T2")]
    assert ids[0] == ids[1] == ["1.2/purchase/T1", "1.2/purchase/T1/1"]
    assert ids[2] == ["1.2/purchase/T2", "1.2/purchase/T2/1"]


def with_params(params: Any) -> dict[str, Any]:
    return {"events": [{"name": "purchase", "params": params}]}


@pytest.mark.parametrize(
    ("body", "path", "code"),
    [
        ({"events": [{"name": "_badEventName"}]}, "events", "NAME_INVALID"),
        ({"events": [{"name": "a b"}]}, "events", "NAME_INVALID"),
        ({"events": [{"name": "a" * 41}]}, "events", "NAME_INVALID"),
        ({"events": [{}]}, "events", "VALUE_REQUIRED"),
        ({"events": [7]}, "events", "VALUE_INVALID"),
        ({"events": [{"name": "session_start"}]}, "events", "NAME_RESERVED"),
        ({"events": [{"name": "ga_own"}]}, "events", "NAME_RESERVED"),
        ({"events": [{"name": "click"}] * 26}, "events", "EXCEEDED_MAX_ENTITIES"),
        ({"events": []}, "events", "VALUE_REQUIRED"),
        ({"client_id": ""}, "client_id", "VALUE_REQUIRED"),
        ({"timestamp_micros": "now"}, "timestamp_micros", "VALUE_INVALID"),
        ({"user_properties": {f"p{n}": {} for n in range(26)}}, "user_properties", "EXCEEDED_MAX_ENTITIES"),
        ({"user_properties": {"plan": {"value": "x" * 37}}}, "user_properties.plan", "VALUE_OUT_OF_BOUNDS"),
        ({"user_properties": {"1": {"value": "x"}}}, "user_properties", "NAME_INVALID"),
        (with_params({f"p{n}": 1 for n in range(26)}), "events.params", "EXCEEDED_MAX_ENTITIES"),
        (with_params({"_x": 1}), "events.params", "NAME_INVALID"),
        (with_params({"firebase_x": 1}), "events.params", "NAME_RESERVED"),
        (with_params({"text": "x" * 101}), "events.params.text", "VALUE_OUT_OF_BOUNDS"),
        (with_params({"value": "much"}), "events.params.value", "VALUE_INVALID"),
        (with_params({"currency": "euro"}), "events.params.currency", "VALUE_INVALID"),
        (with_params({"items": [7]}), "events.params.items", "VALUE_INVALID"),
        (with_params({"items": [{"price": 1}]}), "events.params.items", "VALUE_REQUIRED"),
        (with_params({"items": [{"item_id": 1}] * 201}), "events.params.items", "EXCEEDED_MAX_ENTITIES"),
        (with_params([]), "events.params", "VALUE_INVALID"),
    ],
)
def test_the_validation_server_names_what_is_wrong(body: dict[str, Any], path: str, code: str) -> None:
    (message,) = problems(json.dumps({"client_id": "1.2", "events": [{"name": "click"}], **body}).encode())
    assert set(message) == {"fieldPath", "description", "validationCode"}
    assert (message["fieldPath"], message["validationCode"]) == (path, code)


def test_the_documented_message_is_google_s() -> None:
    hit = protocol({"name": "_badEventName", "params": {}}, path="/debug/mp/collect")
    found = taken(hit)
    assert not found.events and not found.dropped
    reply: Any = endpoint(with_consent("measure"), hit).answer(hit, found, [])
    assert reply.status == 200
    assert msgspec.json.decode(reply.body) == {
        "validationMessages": [
            {
                "fieldPath": "events",
                "description": "Event at index: [0] has invalid name [_badEventName]. "
                "Names must start with an alphabetic character.",
                "validationCode": "NAME_INVALID",
            }
        ]
    }


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_no_payload_cannot_be_parsed(body: bytes) -> None:
    (message,) = problems(body)
    assert message["validationCode"] == "VALUE_INVALID" and "Unable to parse" in message["description"]


def test_a_good_request_has_no_messages_and_does_not_count() -> None:
    ((one,),) = (CAPTURED[PROTOCOL, "mp_python"],)
    hit = one.hit._replace(path="/debug/mp/collect")
    found = taken(hit)
    assert not found.events
    reply: Any = endpoint(with_consent("measure"), hit).answer(hit, found, [])
    assert reply.body == b'{"validationMessages":[]}'
    assert problems(b'{"client_id":"' + b"1" * 130_000 + b'"}')[0]["validationCode"] == "VALUE_OUT_OF_BOUNDS"


# One vocabulary.


def test_the_shop_s_section_for_its_history_holds_live_too() -> None:
    section = SourceSettings(events={"wheel": "search"}, options={"views_interact": True, "skip_events": ["click"]})
    found = taken(web("en=wheel\r\nen=click\r\nen=view_item"), with_consent("measure", sources={"ga4": section}))
    assert [(event.name, event.interactive) for event in found.events] == [("search", None), ("view_item", None)]
    assert found.dropped == ["no step of a visitor"]


def test_history_and_live_agree_on_the_same_events(tmp_path: Path) -> None:
    """gtag's captured hits, as the export would have them, read by the history's reader."""
    key = Pseudonymiser(b"0123456789abcdef")
    intake = Intake(SHOP, ("measure",), 10**12)
    adapter = with_consent("measure", "link")
    rows, live = [], []
    for (client, scenario), (one,) in CAPTURED.items():
        if client == GTAG and scenario != "consent_denied_cookieless_ping":
            rows += _exported(one.hit)
            found = read(adapter, one).events
            live += [intake.event(event, one.hit.received_ms, lambda raw, linked: key.visitor(raw)) for event in found]
    path = tmp_path / "events_20261121.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reader, reading = open_source("ga4", path, SHOP, key)
    table = pd.concat(list(read_chunks(reader, reading)), ignore_index=True)
    assert len(table) == len(live) == 7
    for place, event in enumerate(live):
        history = table.iloc[place]
        for name in COLUMNS:
            if name not in ("id", "time", "consent"):  # the export has ids and times of its own, and no personalising
                assert history[name] == pytest.approx(getattr(event, name)), (place, name)
    assert DEFAULTS.events == {k: v for k, v in adapter._names.items() if k not in SHOP.events}


def _exported(hit: Hit) -> list[dict[str, Any]]:
    """The rows of BigQuery's export for a hit, written from Google's documentation of it."""

    parts = {"id": "item_id", "nm": "item_name", "ca": "item_category", "pr": "price", "qt": "quantity"}
    parts |= {"br": "item_brand", "c2": "item_category2"}
    shared = dict(parse_qsl(hit.query))
    lines = [line for line in hit.body.decode().splitlines() if line]
    rows = []
    for place, line in enumerate(lines or [""]):
        found = {**shared, **dict(parse_qsl(line))}
        params = {"page_location": found["dl"], "page_referrer": found.get("dr"), "ga_session_id": found["sid"]}
        params |= {name.partition(".")[2]: value for name, value in found.items() if name.startswith(("ep.", "epn."))}
        params |= {"currency": found["cu"]} if "cu" in found else {}
        items = [
            {
                parts[part[:2]]: part[2:]
                for part in value.split("~")
            }
            for name, value in found.items() if name.startswith("pr") and name[2:].isdigit()
        ]  # fmt: skip
        rows.append({
            "event_name": found["en"],
            "event_timestamp": str(hit.received_ms * 1000),
            "batch_page_id": found["_p"], "batch_ordering_id": found["_s"], "batch_event_index": str(place),
            "user_pseudo_id": found["cid"],
            "event_params": [{"key": k, "value": {"string_value": v}} for k, v in params.items() if v is not None],
            "privacy_info": {"analytics_storage": "Yes"},
            "device": {"category": "desktop"},
            "items": items,
        })  # fmt: skip
    return rows

"""Whatever comes, an adapter reads it, drops it or refuses it its own way; nothing of it fails the service."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_plus, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.trackers.snowplow import ENTITIES, TOLD
from serving.collect import Hit, Refused
from serving.collect.forms import unescaped
from serving.collect.ga4 import FIELDS
from serving.collect.snowplow import COLUMNS, KINDS
from serving.intake import FieldError, Intake
from tests.contracts.captured import SHOP, endpoint, tracker

SNOWPLOW, GA4 = tracker("snowplow"), tracker("ga4")
TP2 = "/com.snowplowanalytics.snowplow/tp2"
VENDORS = (
    "com_snowplowanalytics_snowplow_ecommerce", "com_google_analytics_enhanced_ecommerce",
    "com_snowplowanalytics_snowplow", "com_snowplowanalytics_mobile", "com_iab_snowplow", "nl_basjes",
)  # fmt: skip
KEYS = st.text() | st.sampled_from([
    "id", "type", "price", "quantity", "currency", "revenue", "formId", "eventType", "userId", "sessionId", "action",
    "step", "item_id", "items", "value", "category", "basisForProcessing",
])  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.sampled_from(["add_to_cart", "1e999", "nan", "EUR", ""])
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)
OBJECTS = st.dictionaries(KEYS, ANYTHING, max_size=6)


def survives(adapter: Any, path: str, body: bytes, query: str = "") -> None:
    agent = {b"user-agent": b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0"}
    hit = Hit("POST", path, query, agent, body, 1_800_000_000_000, "192.0.2.7")
    intake = Intake(SHOP, ("measure",), 10**9)
    with suppress(Refused):
        collected = endpoint(adapter, hit).read(hit)
        for event in collected.events:
            with suppress(FieldError):
                intake.event(event, hit.received_ms, lambda raw, linked: 1)
        endpoint(adapter, hit).answer(hit, collected, [])


def described(schema: str, data: Any) -> dict[str, Any]:
    vendor = next(vendor for vendor in VENDORS if schema.startswith(vendor))
    return {"schema": f"iglu:{vendor}/{schema.removeprefix(vendor + '_')}/jsonschema/1-0-0", "data": data}


def event(fields: dict[str, Any], kind: str, said: Any, contexts: Any) -> dict[str, Any]:
    packed = {"ue_pr": json.dumps({"data": said}), "co": json.dumps({"data": contexts})}
    return {"e": kind, "duid": "d", "p": "web", **packed, **fields}


DESCRIBED = st.builds(described, st.sampled_from(sorted(ENTITIES | TOLD)), OBJECTS)
EVENTS = st.builds(
    event, st.dictionaries(st.sampled_from(sorted(COLUMNS)), ANYTHING, max_size=4), st.sampled_from(sorted(KINDS)),
    DESCRIBED, st.lists(DESCRIBED | ANYTHING, max_size=4),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS | ANYTHING, max_size=4))
def test_snowplow_s_payloads(events: list[Any]) -> None:
    survives(SNOWPLOW, TP2, json.dumps({"data": events}).encode())


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*FIELDS]) | st.text(), st.text(), max_size=12), st.binary(max_size=60))
def test_ga4_s_web_hits(fields: dict[str, str], body: bytes) -> None:
    query = urlencode({"v": "2", "tid": "G-1", "cid": "1.1", "en": "add_to_cart", **fields}, errors="replace")
    survives(GA4, "/g/collect", body, query)


@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("path", ["/mp/collect", "/debug/mp/collect"])
@given(
    st.lists(
        st.fixed_dictionaries({
            "name": st.sampled_from(["purchase", "scroll", "view_item"]) | ANYTHING,
            "params": OBJECTS | st.builds(lambda items: {"items": items}, st.lists(OBJECTS, max_size=3)) | ANYTHING,
        }),
        max_size=4,
    ),
    st.dictionaries(
        st.sampled_from(["client_id", "timestamp_micros", "consent", "device", "user_id", "user_properties"]), ANYTHING
    ),
)  # fmt: skip
def test_ga4_s_measurements(path: str, events: list[Any], body: dict[str, Any]) -> None:
    survives(GA4, path, json.dumps({"client_id": "1.1", "events": events, **body}).encode())


@pytest.mark.parametrize("path", [TP2, "/g/collect", "/mp/collect", "/debug/mp/collect"])
@given(st.binary(max_size=200))
def test_bytes(path: str, body: bytes) -> None:
    survives(SNOWPLOW if path == TP2 else GA4, path, body)


@given(
    st.lists(st.sampled_from(["%", "2", "5", "3A", "%3A", "%2F", "%25", "+", "%2B", "%C3", "%A9", "é", "x"])).map(
        "".join
    )
)
def test_values_of_forms_are_unescaped_as_the_library_does(text: str) -> None:
    assert unescaped(text) == unquote_plus(text)

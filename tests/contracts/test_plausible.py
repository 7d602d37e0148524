"""Plausible's two npm packages."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from serving.collect import Hit
from serving.intake import check_bounds
from tests.contracts.captured import Capture, captures, endpoint, read, told, tracker

SHOES = "https://www.shop.example/category/shoes?page=2"
ENTRY = {"channel": "email", "campaign": "spring", "device": "desktop", "consent": ["measure"]}
LATER = {"channel": "organic", "device": "desktop", "consent": ["measure"]}
DIRECT = {**LATER, "channel": "direct"}
OLD, NEW = "plausible-tracker", "@plausible-analytics/tracker"
START = "https://www.shop.example/?utm_source=news&utm_medium=email&utm_campaign=spring"
V2 = START.replace("/?", "/v2?")

EXPECTED: dict[tuple[str, str], list[dict[str, Any]]] = {
    (OLD, "page_view"): [{"name": "page_view", "page": START, **ENTRY}],
    (OLD, "spa_page_change"): [
        {"name": "page_view", "page": START, **ENTRY},
        {"name": "page_view", "page": SHOES, **LATER},
    ],
    (OLD, "add_to_cart"): [
        {"name": "add_to_cart", "page": SHOES, "item": "SKU-1", "price": 79.9, "quantity": 2.0, **LATER}
    ],
    (OLD, "purchase_props_only"): [{"name": "purchase", "page": SHOES, **LATER}],
    (OLD, "hash_mode"): [
        {"name": "page_view", "page": f"https://www.shop.example/app#/{place}", **DIRECT}
        for place in ("start", "step2", "step2")
    ],
    (OLD, "error_500"): [{"name": "custom", "page": "https://www.shop.example/app#/step2", **DIRECT}],
    (OLD, "dnt_gpc"): [{"name": "page_view", "page": "https://www.shop.example/dnt", **DIRECT}],
    (NEW, "page_view"): [{"name": "page_view", "page": V2, **ENTRY}],
    (NEW, "scroll_then_spa_page_change"): [
        {"name": "user_engagement", "page": V2, "value": 0.77, **ENTRY},
        {"name": "page_view", "page": SHOES, **LATER},
    ],
    (NEW, "add_to_cart"): [
        {"name": "add_to_cart", "page": SHOES, "item": "SKU-1", "price": 79.9, "quantity": 2.0, **LATER}
    ],
    (NEW, "purchase_revenue"): [{"name": "purchase", "page": SHOES, "value": 178.62, "currency": "EUR", **LATER}],
    (NEW, "purchase_revenue_string"): [
        {"name": "purchase", "page": SHOES, "value": 1322.22, "currency": "USD", **LATER}
    ],
    (NEW, "file_download"): [{"name": "file_download", "page": SHOES, **LATER}],
    (NEW, "form_submit"): [{"name": "form_submit", "page": SHOES, **LATER}],
    (NEW, "error_500"): [{"name": "custom", "page": SHOES, **LATER}],
    (NEW, "error_conn"): [{"name": "custom", "page": SHOES, **LATER}] * 2,
    (NEW, "dropped_202"): [{"name": "custom", "page": SHOES, **LATER}],
    (NEW, "dnt_gpc"): [
        {"name": "page_view", "page": "https://www.shop.example/v2p", **DIRECT},
        {"name": "user_engagement", "page": "https://www.shop.example/v2p", "value": 0.15, **DIRECT},
    ],
    (NEW, "preflight_not_needed"): [
        {"name": "page_view", "page": "https://www.shop.example/thanks", **DIRECT},
        {"name": "user_engagement", "page": "https://www.shop.example/thanks", "value": 0.15, **DIRECT},
    ],
}
CAPTURED: dict[tuple[str, str], list[Capture]] = {}
for one in captures("plausible"):
    CAPTURED.setdefault((one.client, one.scenario), []).append(one)


@pytest.mark.parametrize("key", CAPTURED)
def test_captured_requests_become_events(key: tuple[str, str]) -> None:
    adapter = tracker("plausible")
    found = [read(adapter, one) for one in CAPTURED[key]]
    # engagement comes from pages without a referrer, too: what it came from does not matter for it
    events = [told(event) for collected in found for event in collected.events]
    assert [
        {**event, "channel": "-", "campaign": "-"} if event["name"] == "user_engagement" else event for event in events
    ] == [
        {**event, "channel": "-", "campaign": "-"} if event["name"] == "user_engagement" else event
        for event in EXPECTED[key]
    ]
    assert not [reason for collected in found for reason in collected.dropped]


def test_every_scenario_is_expected() -> None:
    assert set(CAPTURED) == set(EXPECTED)


def sent(body: bytes, **headers: str) -> Hit:
    agent = {"user-agent": CAPTURED[NEW, "page_view"][0].hit.header(b"user-agent"), **headers}
    sent_headers = {name.replace("_", "-").encode(): value.encode() for name, value in agent.items()}
    return Hit("POST", "/api/event", "", sent_headers, body, 1_800_000_000_000, "192.0.2.7")


def capture(hit: Hit) -> Capture:
    return Capture(NEW, "", "", hit, 202)


@pytest.mark.parametrize(
    ("body", "reason", "errors"),
    [
        (b"{", "no JSON", {"request": ["is not JSON"]}),
        (b"[]", "no JSON object", {"request": ["is not an object"]}),
        (b'{"n":"pageview","d":"shop.example"}', "no url", {"url": ["can't be blank"]}),
        (b'{"u":"https://x/","d":7}', "no name", {"name": ["can't be blank"], "domain": ["can't be blank"]}),
    ],
)
def test_what_plausible_refuses_is_refused_its_way(body: bytes, reason: str, errors: dict[str, list[str]]) -> None:
    adapter = tracker("plausible")
    hit = sent(body)
    with pytest.raises(Exception) as caught:
        endpoint(adapter, hit).read(hit)
    refused: Any = caught.value
    assert refused.reason == reason
    assert refused.reply.status == 400 and msgspec.json.decode(refused.reply.body) == {"errors": errors}


@pytest.mark.parametrize("bad", ["nan", "-1", "inf", "1e12", "much", "", -1, 1e300, None, [3], {"a": 1}])
def test_a_number_that_is_none_is_left_out_and_its_event_counts(bad: Any) -> None:
    """As at Plausible, whose server takes the event without the revenue."""
    said = {"n": "Purchase", "u": "https://shop.example/", "d": "shop.example"}
    body = msgspec.json.encode({
        **said, "p": {"sku": "A", "price": bad, "quantity": bad}, "$": {"amount": bad, "currency": "EUR"},
    })  # fmt: skip
    (event,) = read(tracker("plausible"), capture(sent(body))).events
    assert (event.price, event.quantity, event.value) == (0.0, 1.0, 0.0)
    check_bounds(event)
    body = msgspec.json.encode({**said, "n": "engagement", "sd": bad})
    (scrolled,) = read(tracker("plausible"), capture(sent(body))).events
    assert scrolled.value == 0


def test_a_visitor_is_one_for_a_day_and_no_longer() -> None:
    adapter = tracker("plausible")
    body = b'{"n":"pageview","u":"https://shop.example/","d":"shop.example"}'

    def visitor(hit: Hit) -> str:
        (event,) = read(adapter, capture(hit)).events
        return event.visitor

    first = sent(body)
    assert visitor(first) == visitor(first)
    others = (
        first._replace(received_ms=first.received_ms + 86_400_000),
        first._replace(address="192.0.2.8"),
        sent(body.replace(b'"d":"shop.example"', b'"d":"blog.example"')),
        sent(body, user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    )
    assert len({visitor(first), *(visitor(each) for each in others)}) == 5


def test_programs_and_strangers_are_dropped_and_told() -> None:
    adapter = tracker("plausible")
    body = b'{"n":"pageview","u":"https://shop.example/","d":"shop.example"}'
    for hit, reason in (
        (sent(body, user_agent="Googlebot/2.1 (+http://www.google.com/bot.html)"), "a program"),
        (sent(body)._replace(address=""), "no visitor"),
    ):
        found = read(adapter, capture(hit))
        assert (found.events, found.dropped) == ([], [reason])
        reply = endpoint(adapter, hit).answer(hit, found, [])
        assert (reply.status, reply.body) == (202, b"ok") and (b"x-plausible-dropped", b"1") in reply.headers  # type: ignore[union-attr]


def test_gpc_takes_back_linking() -> None:
    adapter = tracker("plausible")
    hit = sent(b'{"n":"pageview","u":"https://shop.example/","d":"shop.example"}', sec_gpc="1")
    (event,) = read(adapter, capture(hit)).events
    assert event.consent == ["measure"]

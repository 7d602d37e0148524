"""Tealium's Collect tag, HTTP API and webhooks, and the visitor service that answers with scores."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from features.events import EVENT_NAMES, hash64
from features.pseudonyms import Pseudonymiser
from features.settings import SettingsError
from features.shop import ShopSettings, SourceSettings
from features.sources import read_events
from serving.collect import Collected, Hit, Refused, Tracker
from serving.http.call import Reply
from serving.intake import EventIn
from tests.contracts.captured import SHOP, Capture, captures, endpoint, read, told, tracker
from tests.contracts.mangled import mangled, taken
from tests.serving.in_process import client, engine_of, start

SHOES = "https://www.shop.example/category/shoes?page=2"
START = "https://www.shop.example/?utm_source=news&utm_medium=email&utm_campaign=spring"
VISITOR = "0190f2c4a8b1001e68dd11517bab00075007e06d007e8"
USUAL = {"device": "desktop", "consent": ["measure"], "utc_offset": 0}
ORGANIC = {**USUAL, "channel": "organic", "page": SHOES}
AT_MS = 1_800_000_000_000
# purposes 1 and 7 to 10; none
MEASURED, REFUSED = "CAAAAAAAAAAAAAAAAAAAAAAAAIPAAAAAAAAA", "CAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

EXPECTED: dict[str, list[dict[str, Any]]] = {
    "page_view": [{"name": "page_view", "page": START, "channel": "email", "campaign": "spring", **USUAL}],
    "spa_page_change": [{"name": "view_item_list", "category": "Shoes", **ORGANIC}],
    "add_to_cart": [
        {"name": "add_to_cart", "item": "SKU-1", "price": 79.9, "quantity": 2.0, "currency": "EUR", **ORGANIC}
    ],
    "custom_event": [{"name": "video_start", **ORGANIC}],
    "identify_login": [{"name": "login", **ORGANIC}],
    "event_endpoint_text_body": [{"name": "generate_lead", **ORGANIC}],
    "visitor_service_jsonp": [],
    "http_event_json": [{"name": "login", "consent": ["measure"]}],
    "http_event_get": [{"name": "custom", "consent": ["measure"]}],
    "http_vdata_get": [{"name": "custom", "consent": ["measure"]}],
}
CAPTURED: dict[str, list[Capture]] = {}
for one in captures("tealium"):
    CAPTURED.setdefault(one.scenario, []).append(one)
AGENT = CAPTURED["page_view"][0].hit.header(b"user-agent")


def tealium(shop: ShopSettings = SHOP, **options: Any) -> Tracker:
    return tracker("tealium", shop, **options)


def hit(path: str, body: bytes = b"", query: str = "", method: str = "POST", **headers: str) -> Hit:
    named = {"user-agent": AGENT, **{name.replace("_", "-"): value for name, value in headers.items()}}
    sent = {name.encode(): value.encode() for name, value in named.items()}
    return Hit(method, path, query, sent, body, AT_MS, "192.0.2.7")


def said(event: str = "view", **variables: Any) -> dict[str, Any]:
    """The data layer of an event, as the tag makes it."""
    return {
        "tealium_event": event,
        "tealium_visitor_id": VISITOR,
        "tealium_session_id": "1795486794861",
        "tealium_account": "acme",
        "tealium_profile": "main",
        "tealium_random": "123",
        "tealium_timestamp_epoch": AT_MS // 1000,
        "dom.url": SHOES,
        **variables,
    }


def posted(query: str = "", event: str = "view", post_time: Any = AT_MS, **variables: Any) -> Hit:
    """One event as the tag sends it."""
    body = json.dumps({"data": said(event, **variables), "event": "link", "post_time": post_time})
    part = f'--X\r\nContent-Disposition: form-data; name="data"\r\n\r\n{body}\r\n--X--\r\n'
    return hit("/acme/main/2/i.gif", part.encode(), query)


def collected(adapter: Tracker, sent: Hit) -> Collected:
    return read(adapter, Capture("", "", "", sent, 200))


def events(adapter: Tracker, sent: Hit) -> list[EventIn]:
    found = collected(adapter, sent)
    assert found.dropped == []
    return found.events


@pytest.mark.parametrize("scenario", CAPTURED)
def test_captured_requests_become_events(scenario: str) -> None:
    found = [read(tealium(), each) for each in CAPTURED[scenario]]
    assert [told(event) for collected in found for event in collected.events] == EXPECTED[scenario]
    assert not [reason for collected in found for reason in collected.dropped]


def test_every_scenario_is_expected() -> None:
    assert set(CAPTURED) == set(EXPECTED)


def test_live_events_are_those_of_the_archive(tmp_path: Path) -> None:
    """The same objects through the history's reader and through the adapter."""
    order = {
        "order_total": "178.62", "order_currency_code": "USD", "product_id": ["A", "B"], "product_price": ["79.9", "5"],
        "product_quantity": ["2", ""], "product_category": ["Shoes", "Socks"], "request_uuid": "e1",
    }  # fmt: skip
    objects = [
        said("purchase", **order),
        said("cart_view", cart_total_value="12.5", _corder=""),
        said("product_view", product_id=["A"], product_price=["79.9"], consent_status="notConsented"),
        said("cart_add", product_sku="C", consent_status="consented", consent_categories=["analytics"]),
        said("page_view", do_not_sell="true", consent_status="consented"),
        said("page_view", **{"dom.referrer": "https://www.google.com/", "user_agent": AGENT}),
        said("own thing"),
    ]
    log = tmp_path / "events.jsonl"
    log.write_text("".join(json.dumps(each) + "\n" for each in objects))
    past = read_events("tealium", log, SHOP, Pseudonymiser(b"0123456789abcdef")).to_dict("records")
    live = [event for each in objects for event in events(tealium(), hit("/event", json.dumps(each).encode()))]
    assert len(past) == len(live) == 8
    for then, now in zip(past, live, strict=True):
        assert EVENT_NAMES[then["name"]] == now.name
        assert (then["id"], then["session"]) == (hash64(now.id), hash64(now.session))
        assert (then["item"], then["category"]) == (hash64(now.item), hash64(now.category))
        rate = SHOP.rate(now.currency)
        assert (then["price"], then["value"]) == (now.price * rate, now.value * rate)
        assert (then["quantity"], then["time"]) == (now.quantity, now.time)
        assert then["consent"] == sum({"measure": 1, "link": 2, "personalise": 4}[name] for name in now.consent or ())


def test_names_of_events_and_variables_are_the_shops() -> None:
    section = SourceSettings(
        events={"order done": "purchase"},
        options={"variables": {"name": "ereignis", "item": "artikel", "value": "summe", "visitor": "wer"}},
    )
    variables = {"ereignis": "order done", "artikel": ["A"], "summe": "9.90", "wer": "w-1"}
    (event,) = events(tealium(ShopSettings(sources={"tealium": section})), posted(**variables))
    assert (event.name, event.item, event.value, event.visitor) == ("purchase", "A", 9.9, "w-1")


def test_an_unknown_name_is_refused_if_the_shop_wants_it_so() -> None:
    section = SourceSettings(unknown_events="error")
    (event,) = tealium_events(ShopSettings(sources={"tealium": section}), "own thing")
    assert event.name == "own thing"  # which the intake refuses by the shop's own setting
    (event,) = tealium_events(SHOP, "own thing")
    assert event.name == "custom"


def tealium_events(shop: ShopSettings, name: str) -> list[EventIn]:
    sent = posted(event=name)
    return endpoint(tealium(shop), sent).read(sent).events


def test_an_order_is_one_event_a_product_and_the_same_when_it_is_sent_again() -> None:
    order = {"product_id": ["A", "B"], "product_unit_price": ["10", "20"], "order_total": "31.50"}
    first, again = (events(tealium(), posted(event="purchase", post_time=AT_MS + wait, **order)) for wait in (0, 900))
    assert [(each.item, each.price, each.value) for each in first] == [("A", 10.0, 31.5), ("B", 20.0, 0.0)]
    assert [each.id for each in first] == [each.id for each in again] == ["123-1800000000", "123-1800000000/1"]


def test_the_tags_clock_is_corrected_by_when_it_sent() -> None:
    wrong = {"tealium_timestamp_utc": "2020-01-01T00:00:00.000Z", "post_time": 1_577_836_802_500}
    (event,) = events(tealium(), posted(**wrong))
    assert (event.time, event.sent_at) == (1_577_836_800_000, 1_577_836_802_500)
    (event,) = events(tealium(), posted(post_time="soon"))
    assert (event.time, event.sent_at) == (AT_MS, None)


@pytest.mark.parametrize(
    ("variables", "query", "expected"),
    [
        ({}, "", ["measure"]),
        ({"consent_status": "consented"}, "", ["measure", "link", "personalise"]),
        ({"consent_status": "notConsented"}, "", []),
        ({"consent_categories": "analytics,misc", "policy": "gdpr"}, "", ["measure", "link"]),
        ({"consent_status": "consented", "do_not_sell": True, "policy": "ccpa"}, "", ["measure"]),
        ({"do_not_sell": "true"}, "", ["measure"]),
        ({"do_not_sell": "false"}, "", ["measure"]),
        ({}, f"gdpr=1&gdpr_consent={MEASURED}", ["measure", "link"]),
        ({}, f"gdpr=0&gdpr_consent={REFUSED}", ["measure"]),
        ({"consent_status": "consented"}, f"gdpr=1&gdpr_consent={REFUSED}", []),
        ({"consent_categories": ["analytics"]}, f"gdpr=1&gdpr_consent={MEASURED}", ["measure", "link"]),
        ({}, "gdpr=1&gdpr_consent=nonsense", ["measure"]),
    ],
)
def test_consent(variables: dict[str, Any], query: str, expected: list[str]) -> None:
    (event,) = events(tealium(), posted(query, **variables))
    assert event.consent == expected


def test_gpc_takes_back_linking() -> None:
    sent = posted(consent_status="consented")
    (event,) = events(tealium(), sent._replace(headers={**sent.headers, b"sec-gpc": b"1"}))
    assert event.consent == ["measure"]


@pytest.mark.parametrize(
    "sent",
    [
        posted(),
        hit("/acme/main/2/i.gif", json.dumps({"data": said()}).encode()),
        hit("/acme/main/2/i.gif", b"data=" + quote(json.dumps({"data": said()})).encode()),
        hit("/acme/main/2/i.gif", query="data=" + quote(json.dumps({"data": said()})), method="GET"),
        hit("/event", json.dumps(said()).encode(), content_type="text/plain"),
        hit("/event", query=urlencode(said()), method="GET"),
        hit("/v3/collect/event", json.dumps(said()).encode()),
        hit("/vdata/i.gif", query=urlencode({**said(), "tealium_vid": VISITOR}), method="GET"),
        hit("/bulk-event", json.dumps({"shared": said(), "events": [{}]}).encode()),
        hit("/v3/collect/bulk-event", json.dumps({"events": [said()]}).encode()),
        hit("/tealium/webhook", json.dumps([{**said(), "user_agent": AGENT}]).encode()),
    ],
)
def test_every_way_in_is_the_same_event(sent: Hit) -> None:
    (event,) = events(tealium(), sent)
    assert (event.visitor, event.name, event.page, event.device) == (VISITOR, "page_view", SHOES, "desktop")
    assert (event.id, event.session, event.time) == ("123-1800000000", "1795486794861", AT_MS)


def test_a_webhook_brings_stored_events_whose_agent_is_their_own() -> None:
    stored = {
        "account": "acme", "profile": "main", "visitor_id": VISITOR, "event_id": "e1", "post_time": AT_MS - 60_000,
        "data": {"udo": {"tealium_event": "product_view", "product_id": ["A"]}, "dom": {"url": SHOES}}, "type": "LIVE",
    }  # fmt: skip
    (event,) = events(tealium(), hit("/tealium/webhook", json.dumps(stored).encode()))
    assert (event.name, event.item, event.device) == ("view_item", "A", "unknown")
    assert (event.id, event.time, event.sent_at) == ("e1", AT_MS - 60_000, None)
    found = collected(tealium(), hit("/tealium/webhook", json.dumps({**stored, "type": "BULK_IMPORT"}).encode()))
    assert (found.events, found.dropped) == ([], ["no step of a visitor"])


def test_one_bad_event_does_not_lose_the_others() -> None:
    bad = [
        7,
        {"tealium_event": "cart_add", "product_id": "A", "product_price": "-1"},
        {"tealium_event": "cart_add", "product_id": "A", "product_quantity": "nan"},
        {"tealium_event": "cart_add", "product_id": ["A"] * 201},
        {"tealium_visitor_id": ""},
        {"tealium_profile": ""},
        {"enrichmentOnly": True},
    ]
    body = json.dumps({"shared": said(), "events": [{}, *bad, {"tealium_event": "search"}]}).encode()
    found = collected(tealium(), hit("/bulk-event", body))
    assert [event.name for event in found.events] == ["page_view", "search"]
    assert found.dropped == [
        "no object", "bad price", "bad quantity", "too many products", "no visitor", "no account or profile",
        "no step of a visitor",
    ]  # fmt: skip


def test_what_is_shared_cannot_multiply_without_end() -> None:
    many = said("cart_add", product_id=["A"] * 200)
    for times, events in ((5, 1_000), (6, None), (1_000, None)):
        sent = hit("/bulk-event", json.dumps({"shared": many, "events": [{}] * times}).encode())
        if events is not None:
            assert len(collected(tealium(), sent).events) == events
            continue
        with pytest.raises(Refused) as caught:
            endpoint(tealium(), sent).read(sent)
        assert (caught.value.reason, caught.value.reply.status) == ("too many events", 400)


@pytest.mark.parametrize(
    ("sent", "reason", "error"),
    [
        (hit("/event", b"{}"), "no account or profile", "tealium_account and tealium_profile are required"),
        (hit("/event", query="tealium_account=a", method="GET"), "no account or profile", "tealium_account"),
        (hit("/event", b"["), "no JSON", "JSON"),
        (hit("/event", b"[" * 100_000), "no JSON", "JSON"),
        (hit("/event", b"[]"), "no JSON object", "JSON object"),
        (hit("/acme/main/2/i.gif", b"--X\r\n"), "no JSON", "JSON"),
        (hit("/bulk-event", b'{"events":[]}'), "no events", "events"),
        (hit("/bulk-event", b'{"events":[{}],"shared":7}'), "no events", "events"),
        (hit("/bulk-event", json.dumps({"events": [{}] * 1_001}).encode()), "too many events", "1000"),
        (hit("/event", query="&".join("a=1" for _ in range(2_000)), method="GET"), "too many parameters", "1000"),
    ],
)
def test_what_tealium_refuses_is_refused_its_way(sent: Hit, reason: str, error: str) -> None:
    with pytest.raises(Refused) as caught:
        endpoint(tealium(), sent).read(sent)
    assert (caught.value.reason, caught.value.reply.status) == (reason, 400)
    assert error in dict(caught.value.reply.headers)[b"x-error"].decode()


def test_answers_are_a_pixel_or_nothing_with_the_region() -> None:
    def answer(sent: Hit, **options: Any) -> Reply:
        reply = endpoint(tealium(**options), sent).answer(sent, Collected(), [])
        assert isinstance(reply, Reply) and reply.status == 200
        return reply

    pixel = answer(posted())
    assert (pixel.content_type, pixel.headers) == (b"image/gif", ((b"x-region", b"lotse"),))
    assert isinstance(pixel.body, bytes) and pixel.body.startswith(b"GIF89a")
    assert answer(hit("/event", b"{}")).body == b""
    assert answer(hit("/event", method="GET")).body == pixel.body
    assert answer(posted(), region="").headers == ()


@pytest.mark.parametrize(
    "path", ["/acme/main/2/i.gif", "/acme/main/0190f2c4a8b1001e68dd11517bab0007", f"/acme/main/{VISITOR}", "/event"]
)
def test_paths(path: str) -> None:
    assert tealium().endpoint(path) is not None


@pytest.mark.parametrize(
    "path", ["/api/eval/sdk-abcdef123456", "/any/where/matomo.php", "/ee/v1/interact", "/i.gif", "/a/b/c"]
)
def test_paths_of_others_are_left_to_them(path: str) -> None:
    assert tealium().endpoint(path) is None


def test_the_visitor_service_can_be_switched_off() -> None:
    assert tealium(visitor_service=False).endpoint(f"/acme/main/{VISITOR}") is None
    with pytest.raises(SettingsError, match=r"collect\.options\.tealium\.badges\.exit"):
        tealium(badges={"exit": "often"})


@pytest.mark.parametrize(
    "callback",
    ["alert(1)//", "a;b", "a b", "utag.ut[x]", 'utag.ut["a]', "a()", "<script>", "a" * 129, "1a", "a..b", "a\n"],
)
def test_a_callback_is_a_name_and_nothing_else(callback: str) -> None:
    sent = hit(f"/acme/main/{VISITOR}", query=f"callback={quote(callback)}", method="GET")
    with pytest.raises(Refused) as caught:
        endpoint(tealium(), sent).read(sent)
    assert caught.value.reply.status == 400


@pytest.mark.anyio
async def test_a_session_and_its_scores_through_the_service(tmp_path: Path) -> None:
    app = start(tmp_path, "collect.options={tealium={badges={bounce=0.0, exit=1.0}}}")
    http, metrics = client(app), engine_of(app).metrics
    asked = {"callback": 'utag.ut["writevamain"]', "rnd": "1"}
    nobody = await http.get(f"/acme/main/{VISITOR}", params=asked)
    assert nobody.text == '/**/utag.ut["writevamain"]({})'
    for event in ("view", "view", "cart_add"):
        body = {"shared": said(), "events": [{"tealium_event": event, "request_uuid": event, "product_id": "A"}]}
        answer = await http.post(
            "/bulk-event", content=gzip.compress(json.dumps(body).encode()), headers={"content-encoding": "gzip"}
        )
        assert answer.status_code == 200
    assert metrics.events == {"started": 1, "duplicate": 1, "folded": 1}
    answer = await http.get(f"/acme/main/{VISITOR}", params=asked)
    assert answer.headers["content-type"].startswith("application/javascript")
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    told_ = json.loads(answer.text.removeprefix('/**/utag.ut["writevamain"](').removesuffix(")"))
    assert 0 < told_["metrics"]["lotse_bounce"] < 1
    assert told_["badges"] == {"lotse_bounce": True}
    assert told_ == (await http.get(f"/acme/main/{VISITOR}")).json()
    assert (await http.get(f"/acme/main/{VISITOR[::-1]}")).json() == {}
    assert not metrics.dropped


@pytest.mark.parametrize("path", ["/event", "/bulk-event", "/tealium/webhook", "/acme/main/2/i.gif"])
def test_whatever_a_client_sends_is_read_or_refused(path: str) -> None:
    data = said(
        "purchase", product_id=["A", "B"], product_price=["1", "2"], product_quantity="2", order_total="3",
        consent_categories=["analytics"], consent_status="consented", do_not_sell="0",
        tealium_timestamp_utc="2026-11-24T02:19:54.876Z", tealium_timestamp_local="2026-11-24T02:19:54.876",
    )  # fmt: skip
    whole = {"data": {**data, "udo": data}, "browser": {"timezone_offset": 0}, "post_time": AT_MS}
    body: dict[str, Any] = {"/event": data, "/bulk-event": {"shared": data, "events": [{}, data]}}.get(path, whole)
    adapter = tealium()
    for copy in mangled(body, len(path), 1_000):
        taken(adapter, hit(path, json.dumps(copy).encode(), "gdpr_consent=CO"))

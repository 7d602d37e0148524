"""Snowplow's browser tracker, with base64 and without, and its Node tracker."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.events import COLUMNS
from features.pseudonyms import Pseudonymiser
from features.settings import SettingsError
from features.shop import ShopSettings, SourceSettings
from features.sources import open_source, read_chunks
from features.sources.snowplow import COLUMNS as TSV
from features.trackers.snowplow import EVENTS
from serving.collect import GIF, Collected, Hit, Tools
from serving.collect.snowplow import Snowplow
from serving.collect.visitors import Anonymous
from serving.consent import Consent
from serving.intake import EventIn, Intake
from serving.settings import PrivacySettings
from tests.contracts.captured import SHOP, Capture, captures, endpoint, read, told, tracker

BROWSER, NODE = "@snowplow/browser-tracker", "@snowplow/node-tracker"
TP2 = "/com.snowplowanalytics.snowplow/tp2"
VENDOR = "com.snowplowanalytics.snowplow"
PAGE = "https://www.shop.example"
START, SHOES = f"{PAGE}/?utm_source=news&utm_medium=email&utm_campaign=spring", f"{PAGE}/category/shoes?page=2"
SAID = {"device": "desktop", "consent": ["measure"], "utc_offset": 0}
ENTRY = {**SAID, "page": START, "channel": "email", "campaign": "spring"}
LATER = {**SAID, "page": SHOES, "channel": "internal"}
SKU_1 = {"item": "SKU-1", "category": "Shoes", "price": 79.9, "currency": "EUR"}


def direct(path: str, name: str = "page_view") -> dict[str, Any]:
    return {**SAID, "name": name, "page": PAGE + path, "channel": "direct"}


EXPECTED: dict[tuple[str, str], list[dict[str, Any]]] = {
    (BROWSER, "page_view"): [{"name": "page_view", **ENTRY}],
    (BROWSER, "spa_page_change"): [{"name": "page_view", **LATER}],
    (BROWSER, "custom_event_selfdescribing"): [{"name": "custom", **LATER}],
    (BROWSER, "product_view"): [{"name": "view_item", **SKU_1, **LATER}],
    (BROWSER, "add_to_cart"): [{"name": "add_to_cart", **SKU_1, "quantity": 2.0, **LATER}],
    (BROWSER, "remove_from_cart"): [
        {"name": "remove_from_cart", "item": "SKU-2", "category": "Socks", "price": 5.0, "currency": "EUR", **LATER}
    ],
    (BROWSER, "purchase"): [{"name": "purchase", **SKU_1, "quantity": 2.0, "value": 178.62, **LATER}],
    (BROWSER, "enhanced_ecommerce_purchase_legacy"): [
        {
            "name": "purchase", "item": "SKU-1", "price": 79.9, "quantity": 2.0, "value": 178.62, "currency": "EUR",
            **LATER,
        }
    ],
    (BROWSER, "link_click"): [{"name": "click", **LATER}],
    (BROWSER, "form_change_submit"): [{"name": name, **LATER} for name in ("form_start", "custom", "form_submit")],
    (BROWSER, "get_method"): [direct("/get"), direct("/get", "custom")],
    (BROWSER, "buffered_post_3"): [direct("/buf"), direct("/buf", "custom"), direct("/buf", "custom")],
    (BROWSER, "custom_post_path"): [direct("/pp")],
    (BROWSER, "anonymous_tracking_server"): [direct("/anon")],
    (BROWSER, "dnt_gpc_default"): [direct("/dnt")],
    (BROWSER, "error_500"): [direct("/e", "custom")],
    (BROWSER, "error_429"): [direct("/e", "custom")],
    (BROWSER, "error_429_recovered"): [direct("/e", "custom")] * 2,
    (BROWSER, "error_400_recovered"): [direct("/e", "custom")],
    (BROWSER, "error_conn"): [direct("/e", "custom")],
    (BROWSER, "timeout_8s"): [direct("/e", "custom")],
    (BROWSER, "timeout_8s_recovered"): [direct("/e", "custom")] * 2,
    (BROWSER, "base64_product_view"): [{"name": "view_item", **SKU_1, **direct("/p/sku-1", "view_item")}],
    # a server's account id is no visitor without consent to link, and it sends no other
    (NODE, "node_events"): [],
    (NODE, "node_error_500"): [],
}  # fmt: skip
CAPTURED: dict[tuple[str, str], list[Capture]] = {}
for file in ("snowplow_browser", "snowplow_base64", "snowplow_node"):
    for one in captures(file):
        CAPTURED.setdefault((one.client, one.scenario), []).append(one)
AGENT = CAPTURED[BROWSER, "page_view"][0].hit.header(b"user-agent")
NOW = 1_800_000_000_000


def own_path() -> Snowplow:
    adapter = tracker("snowplow", post_paths=["/collect/tp2"])
    assert isinstance(adapter, Snowplow)
    return adapter


@pytest.mark.parametrize("key", CAPTURED)
def test_captured_requests_become_events(key: tuple[str, str]) -> None:
    adapter = own_path()
    found = [read(adapter, one) for one in CAPTURED[key]]
    assert [told(event) for collected in found for event in collected.events] == EXPECTED[key]
    dropped = {NODE: {"node_events": 2, "node_error_500": 1}}.get(key[0], {}).get(key[1], 0)
    assert [reason for collected in found for reason in collected.dropped] == ["no visitor"] * dropped


def test_every_scenario_is_expected() -> None:
    assert set(CAPTURED) == set(EXPECTED)


def test_a_visitor_a_session_and_the_event_are_told_by_the_tracker_s_ids() -> None:
    (event,) = read(own_path(), CAPTURED[BROWSER, "page_view"][1]).events
    assert event.visitor == "d523a3a8-7201-4652-b81b-43237fa2a96c"
    assert event.session == "6ddb6bbd-9e22-477c-aac3-ad4d0b96c599"
    assert event.id == "753faa3b-a11a-4938-ae49-fe93d566bf7d"


def test_a_retry_has_the_ids_and_the_time_of_the_first_try() -> None:
    for first, later in (("error_429", "error_429_recovered"), ("timeout_8s", "timeout_8s_recovered")):
        ((once,), (again, following)) = (
            [event for one in CAPTURED[BROWSER, name] for event in read(own_path(), one).events]
            for name in (first, later)
        )
        assert (again.id, again.visitor, again.session) == (once.id, once.visitor, once.session)
        assert following.id != once.id
        assert isinstance(again.time, int) and isinstance(once.time, int)
        assert abs(again.time - once.time) < 100  # it waited for seconds, and travelled for milliseconds


# Requests of the test's own.


def hit(*events: Any, path: str = TP2, **headers: str) -> Hit:
    sent = {"user-agent": AGENT, "content-type": "application/json; charset=UTF-8"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    body = json.dumps({"schema": f"iglu:{VENDOR}/payload_data/jsonschema/1-0-4", "data": events}).encode()
    return Hit("POST", path, "", {k.encode(): v.encode() for k, v in sent.items()}, body, NOW, "192.0.2.7")


def taken(request: Hit, adapter: Snowplow | None = None) -> Collected:
    return read(adapter or own_path(), Capture(BROWSER, "", "", request, 200))


def view(**more: Any) -> dict[str, Any]:
    ids = {"e": "pv", "p": "web", "eid": "e1", "duid": "d1", "sid": "s1", "url": f"{PAGE}/", "aid": "shop"}
    return {**ids, "dtm": str(NOW - 10), "stm": str(NOW), **more}


def described(address: str, data: dict[str, Any], *entities: tuple[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    schema = f"iglu:{VENDOR}/%s/jsonschema/1-0-0"
    said = {"schema": schema % "unstruct_event", "data": {"schema": f"iglu:{address}/jsonschema/1-0-0", "data": data}}
    return {**view(**more), "e": "ue", "ue_pr": json.dumps(said), "co": contexts(*entities)}


def contexts(*entities: tuple[str, dict[str, Any]]) -> str:
    found = [{"schema": f"iglu:{name}/jsonschema/1-0-0", "data": data} for name, data in entities]
    return json.dumps({"schema": f"iglu:{VENDOR}/contexts/jsonschema/1-0-0", "data": found})


def with_product(**more: Any) -> dict[str, Any]:
    shop = f"{VENDOR}.ecommerce"
    product = {"id": "a", "price": 5, "currency": "EUR", **more}
    return described(f"{shop}/snowplow_ecommerce_action", {"type": "product_view"}, (f"{shop}/product", product))


def test_an_order_is_an_event_a_product_with_the_value_once() -> None:
    shop = f"{VENDOR}.ecommerce"
    order = described(
        f"{shop}/snowplow_ecommerce_action", {"type": "transaction"},
        (f"{shop}/product", {"id": "a", "category": "x", "price": "20", "quantity": 2, "currency": "EUR"}),
        (f"{shop}/product", {"id": "b", "category": "x", "price": 5, "currency": "EUR"}),
        (f"{shop}/transaction", {"transaction_id": "T", "revenue": 45, "currency": "EUR"}),
    )  # fmt: skip
    events = taken(hit(order)).events
    assert [(event.item, event.price, event.quantity, event.value, event.id) for event in events] == [
        ("a", 20.0, 2.0, 45.0, "e1"),
        ("b", 5.0, 1.0, 0.0, "e1/1"),
    ]
    assert [event.id for event in taken(hit(order)).events] == ["e1", "e1/1"]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"e": "pp", "ds": "800x4000", "vp": "800x600", "pp_may": "1400"}, {"name": "user_engagement", "value": 0.5}),
        ({"e": "pp"}, {"name": "user_engagement"}),
        ({"e": "se", "se_ca": "auth", "se_ac": "login"}, {"name": "login"}),
        ({"e": "se", "se_ca": "shop", "se_ac": "add-to-basket"}, {"name": "add_to_cart"}),
        ({"e": "se", "se_ca": "shop", "se_ac": "order"}, {"name": "purchase"}),  # of configs/shop.toml
        ({"e": "tr", "tr_tt": "19.5", "tr_cu": "EUR"}, {"name": "purchase", "value": 19.5, "currency": "EUR"}),
        (
            {"e": "ti", "ti_sk": "c", "ti_ca": "x", "ti_pr": "6.5", "ti_qu": "3", "ti_cu": "EUR"},
            {"name": "purchase", "item": "c", "category": "x", "price": 6.5, "quantity": 3.0, "currency": "EUR"},
        ),
        (described(f"{VENDOR}/site_search", {"terms": ["red"]}), {"name": "search"}),
        (described(f"{VENDOR}/web_vitals", {"cls": 0.1}), {"name": "custom", "interactive": False}),
        (described("com.acme/sign_up", {}), {"name": "sign_up"}),
        (described(f"{VENDOR}.media/percent_progress_event", {}), {"name": "video_progress"}),
        (described(f"{VENDOR}.ecommerce/snowplow_ecommerce_action", {"type": {"no": "text"}}), {"name": "custom"}),
    ],
)  # fmt: skip
def test_names_and_amounts(event: dict[str, Any], expected: dict[str, Any]) -> None:
    (found,) = taken(hit(view(**event))).events
    assert told(found, "page", "channel", "device", "consent") == expected


def test_each_name_of_the_table_is_one_of_ours() -> None:
    for theirs, ours in EVENTS.items():
        if "/" not in theirs and theirs not in ("checkout_step", "transaction", "form_field"):
            (found,) = taken(hit(described(f"{VENDOR}.own/{theirs}", {}))).events
            assert found.name in (ours, "custom"), theirs


def test_plain_json_and_base64_of_it_say_the_same() -> None:
    event = described(
        f"{VENDOR}/link_click", {"targetUrl": f"{PAGE}/"}, (f"{VENDOR}/gdpr", {"basisForProcessing": "consent"})
    )
    packed = {k: v for k, v in event.items() if k not in ("ue_pr", "co")}
    for plain, short in (("ue_pr", "ue_px"), ("co", "cx")):
        packed[short] = urlsafe_b64encode(event[plain].encode()).decode().rstrip("=")
    (one,), (other,) = taken(hit(event)).events, taken(hit(packed)).events
    assert told(one) == told(other) and one.name == "click"


@pytest.mark.parametrize(
    ("request_", "reasons", "kept"),
    [
        (hit()._replace(body=b"{"), ["no JSON"], 0),
        (hit()._replace(body=b"[" * 100_000), ["no JSON"], 0),
        (hit()._replace(body=b'{"data":{}}'), ["no payload data"], 0),
        (hit(view(), 7, view(eid="e2")), ["no event type"], 2),
        (hit(view(e="ad")), ["no event type"], 0),
        (hit(view(co="{"), view()), ["bad contexts"], 1),
        (hit(view(co='{"data":[{"schema":7}]}')), ["bad contexts"], 0),
        (hit(view(cx="!"), view(cx="ew")), ["bad contexts"] * 2, 0),
        (hit(view(e="ue"), view(e="ue", ue_pr="[]"), view()), ["bad self-describing event"] * 2, 1),
        (hit(view(p="srv", duid="", sid="", uid="u1")), ["no visitor"], 0),
        (hit(with_product(price=-1), with_product(quantity="many"), view()), ["bad price", "bad quantity"], 1),
    ],
)
def test_what_cannot_be_used_is_dropped_and_loses_nothing_else(request_: Hit, reasons: list[str], kept: int) -> None:
    found = taken(request_)
    assert (found.dropped, len(found.events)) == (reasons, kept)
    reply: Any = endpoint(own_path(), request_).answer(request_, found, [])
    # an error would make the tracker keep the events and send them again
    assert (reply.status, reply.body) == (200, b"ok")


def test_a_get_is_answered_with_a_pixel_and_never_kept() -> None:
    (get, _) = CAPTURED[BROWSER, "get_method"]
    reply: Any = endpoint(own_path(), get.hit).answer(get.hit, read(own_path(), get), [])
    assert (reply.status, reply.content_type, reply.body) == (200, b"image/gif", GIF)
    assert (b"cache-control", b"no-cache, no-store, must-revalidate") in reply.headers


def test_paths() -> None:
    adapter = own_path()
    for path in (TP2, f"/sp{TP2}", "/collect/tp2"):
        found = adapter.endpoint(path)
        assert found is not None and found.methods == ("POST",)
    for path in ("/other/tp2", "/ii", "/x/i", TP2 + "/"):
        assert adapter.endpoint(path) is None
    with pytest.raises(SettingsError, match=r"collect\.options\.snowplow\.paths: .*known options: post_paths"):
        tracker("snowplow", paths=[])


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"dtm": NOW - 90_000_000, "stm": NOW - 86_400_000}, NOW - 3_600_000),  # its clock is a day late
        ({"dtm": 5_000, "stm": 65_000}, NOW - 60_000),  # its clock was never set
        ({"dtm": NOW + 9_000, "stm": NOW}, NOW),
        ({"ttm": NOW - 7_000}, NOW - 7_000),
        ({"dtm": "soon", "stm": NOW}, NOW),
    ],
)
def test_the_time_is_arrival_less_what_an_event_waited(times: dict[str, Any], expected: int) -> None:
    (event,) = taken(hit(view(**{name: str(value) for name, value in times.items()}))).events
    assert event.time == expected


def test_the_hour_is_the_visitor_s() -> None:
    (berlin,), (mars,) = (taken(hit(view(tz=zone))).events for zone in ("Europe/Berlin", "Mars/Olympus"))
    assert (berlin.utc_offset, mars.utc_offset) == (60, None)


# Who is who, and what may be done with it.


def with_consent(*default: str, **shop: Any) -> Snowplow:
    async def nobody(raw: str) -> None:
        del raw

    anonymous = Anonymous(lambda text, now_ms: hash((text, now_ms // 86_400_000)) & (2**63 - 1))
    consent = Consent(PrivacySettings(), default)
    return Snowplow(Tools(SHOP.model_copy(update=shop), {}, consent, anonymous, nobody))


GDPR = f"{VENDOR}/gdpr"
CHOICE = f"{VENDOR}/consent_preferences"


def who(adapter: Snowplow, event: dict[str, Any], **headers: str) -> tuple[str, list[str] | None]:
    (found,) = taken(hit(event, **headers), adapter).events
    return found.visitor, found.consent


def test_an_account_is_the_visitor_only_with_consent_to_link() -> None:
    logged_in = view(uid="jane")
    assert who(with_consent("measure"), logged_in) == ("d1", ["measure"])
    assert who(with_consent("measure", "link"), logged_in) == ("jane", ["measure", "link"])
    assert who(with_consent("measure", "link"), logged_in, sec_gpc="1") == ("d1", ["measure"])
    assert who(with_consent("measure", "link"), logged_in, dnt="1") == ("d1", ["measure"])
    server = view(p="srv", uid="jane", duid="", sid="")
    assert who(with_consent("measure", "link"), server) == ("jane", ["measure", "link"])


def test_without_a_first_party_id_nothing_is_linked() -> None:
    adapter = with_consent("measure", "link")
    assert who(adapter, view(duid="", nuid="n1")) == ("n1", ["measure"])
    assert who(adapter, view(duid="", nuid="00000000-0000-0000-0000-000000000000")) == ("s1", ["measure"])
    day, consent = who(adapter, view(duid="", sid=""))
    assert day.startswith("day-") and consent == ["measure"]


def test_anonymous_tracking_takes_the_session_or_the_day_only() -> None:
    adapter = with_consent("measure", "link")
    event = view(uid="jane", nuid="n1")
    assert who(adapter, event, sp_anonymous="*") == ("s1", ["measure"])
    day, _ = who(adapter, {**event, "sid": ""}, sp_anonymous="*")
    assert day.startswith("day-")
    tomorrow = hit({**event, "sid": ""}, sp_anonymous="*")._replace(received_ms=NOW + 86_400_000)
    (found,) = taken(tomorrow, adapter).events
    assert found.visitor != day


def test_an_app_s_user_who_wants_to_be_nobody_is_nobody() -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    app = (f"{VENDOR}/client_session", {"userId": nobody, "sessionId": "s9"})
    event = {**view(p="mob", duid="", sid=""), "co": contexts(app)}
    assert who(with_consent("measure", "link"), event) == ("s9", ["measure"])


@pytest.mark.parametrize(
    ("basis", "expected"),
    [
        ("consent", ["measure", "link", "personalise"]),
        ("legitimate_interests", ["measure"]),
        ("odd", ["measure", "link"]),
    ],
)
def test_the_basis_beside_an_event_is_its_consent(basis: str, expected: list[str]) -> None:
    event = {**view(), "co": contexts((GDPR, {"basisForProcessing": basis}))}
    assert who(with_consent("measure", "link"), event) == ("d1", expected)


def test_a_choice_beside_every_event_holds_and_a_choice_by_itself_only_takes_away() -> None:
    adapter = with_consent("measure")
    beside = {**view(), "co": contexts((CHOICE, {"eventType": "allow_all"}))}
    assert who(adapter, beside) == ("d1", ["measure", "link", "personalise"])
    # a session would be two, if one event of it were linked and the next was not
    assert who(adapter, described(CHOICE, {"eventType": "allow_all"})) == ("d1", ["measure"])
    assert who(with_consent("measure", "link"), described(CHOICE, {"eventType": "deny_all"})) == ("d1", [])


def test_a_server_s_program_is_no_visitor_s_device() -> None:
    adapter = with_consent("measure")
    (server,) = taken(hit(view(p="srv"), user_agent="node"), adapter).events
    (told_,) = taken(hit(view(p="srv", ua=AGENT), user_agent="node"), adapter).events
    (bot,) = taken(hit(view(), user_agent="Googlebot/2.1"), adapter).events
    assert (server.device, told_.device, bot.device) == ("unknown", "desktop", "bot")


def test_a_form_is_begun_once_and_so_is_its_first_event_when_it_comes_again() -> None:
    adapter = with_consent("measure")
    form = {"formId": "f1"}
    first = described(f"{VENDOR}/focus_form", form)
    second = described(f"{VENDOR}/focus_form", form, eid="e2")
    other = described(f"{VENDOR}/focus_form", form, eid="e3", sid="s2")

    def names(*events: dict[str, Any]) -> list[EventIn | str]:
        return [event.name for event in taken(hit(*events), adapter).events]

    assert names(first, second, other) == ["form_start", "custom", "form_start"]
    assert names(first, second) == ["form_start", "custom"]


def test_the_shop_s_section_for_its_history_holds_live_too() -> None:
    section = SourceSettings(events={"wheel": "search"}, options={"app_ids": ["shop"]})
    adapter = with_consent("measure", sources={"snowplow": section})
    found = taken(hit(view(e="se", se_ca="c", se_ac="wheel"), view(aid="blog")), adapter)
    assert ([event.name for event in found.events], found.dropped) == (["search"], ["another app_id"])
    with pytest.raises(SettingsError, match=r"sources\.snowplow\.options\.apps: .*app_ids"):
        with_consent("measure", sources={"snowplow": SourceSettings(options={"apps": []})})


def test_what_identifies_somebody_is_nowhere_in_an_event() -> None:
    event = view(
        uid="jane@example.org", ip="198.51.100.9", fp="4711", page="Jane Doe", url=f"{PAGE}/p?email=jane@example.org",
        co=contexts((f"{VENDOR}.ecommerce/user", {"email": "jane@example.org", "id": "u1"})),
    )  # fmt: skip
    (found,) = taken(hit(event), with_consent("measure")).events
    for name in EventIn.__struct_fields__:
        if name != "page":  # hashed as a template by the intake, as all pages are
            assert "jane" not in str(getattr(found, name)).lower() and "198.51" not in str(getattr(found, name))


def test_history_and_live_have_one_vocabulary() -> None:
    shop = ShopSettings(events={"own": "search"})
    adapter = Snowplow(with_consent("measure")._tools._replace(shop=shop))
    assert adapter._names == {"own": "search", **EVENTS}


def test_history_and_live_agree_on_the_same_events(tmp_path: Path) -> None:
    """The captured events as Enrich would lay them out, read by the history's reader."""
    key = Pseudonymiser(b"0123456789abcdef")
    intake, adapter = Intake(SHOP, ("measure",), 10**13), own_path()
    rows, live = [], []
    for (client, scenario), requests in CAPTURED.items():
        for one in requests:
            if client == BROWSER and one.hit.body and scenario != "anonymous_tracking_server":
                rows += _enriched(one.hit)
                found = read(adapter, one).events
                live += [
                    intake.event(event, one.hit.received_ms, lambda raw, linked: key.visitor(raw)) for event in found
                ]
    path = tmp_path / "enriched.tsv"
    path.write_text("".join("\t".join(row.get(name, "") for name in TSV) + "\n" for row in rows))
    reader, reading = open_source("snowplow", path, SHOP, key)
    table = pd.concat(list(read_chunks(reader, reading)), ignore_index=True)
    assert len(table) == len(live) == 27
    for place, event in enumerate(live):
        for name in COLUMNS:
            assert table[name][place] == pytest.approx(getattr(event, name)), (place, name)


def _enriched(request: Hit) -> list[dict[str, str]]:
    """The atomic columns of a payload's events, written from Snowplow's documentation of them."""
    rows = []
    for event in json.loads(request.body)["data"]:
        kinds = {"pv": "page_view", "pp": "page_ping", "se": "struct", "ue": "unstruct"}
        true = int(event.get("ttm", 0)) or request.received_ms - (int(event["stm"]) - int(event["dtm"]))
        row = {
            "app_id": event["aid"], "platform": event["p"], "event": kinds[event["e"]], "event_id": event["eid"],
            "user_id": event.get("uid", ""), "domain_userid": event["duid"], "domain_sessionid": event["sid"],
            "page_url": event["url"], "page_referrer": event.get("refr", ""), "os_timezone": event["tz"],
            "useragent": request.header(b"user-agent"), "se_category": event.get("se_ca", ""),
            "se_action": event.get("se_ac", ""), "event_name": kinds[event["e"]],
            "derived_tstamp": str(datetime.fromtimestamp(true / 1000, UTC).replace(tzinfo=None)),
            "collector_tstamp": str(datetime.fromtimestamp(request.received_ms / 1000, UTC).replace(tzinfo=None)),
        }  # fmt: skip
        for plain, packed, column in (("co", "cx", "contexts"), ("ue_pr", "ue_px", "unstruct_event")):
            text = event.get(plain) or urlsafe_b64decode(event.get(packed, "") + "==").decode()
            row[column] = text
            if column == "unstruct_event" and text:
                row["event_name"] = json.loads(text)["data"]["schema"].split("/")[1]
        rows.append(row)
    return rows

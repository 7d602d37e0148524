"""Adobe's Web SDK (alloy): its captured requests, its answers, identity, consent and scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from features.settings import SettingsError
from features.shop import ShopSettings, SourceSettings
from serving.collect import Collected, Hit, Refused, Tracker
from serving.http.call import Reply
from serving.intake import EventIn
from serving.requests import Answer
from tests.contracts.captured import SHOP, Capture, captures, endpoint, read, told, tracker
from tests.contracts.mangled import mangled, taken
from tests.serving.in_process import client, engine_of, start

START = "https://www.shop.example/?utm_source=news&utm_medium=email&utm_campaign=spring"
SHOES = "https://www.shop.example/category/shoes?page=2"
USUAL = {"device": "desktop", "consent": ["measure"], "utc_offset": 0}
ORGANIC = {**USUAL, "channel": "organic", "page": SHOES}
CONSENTED = ["measure", "link", "personalise"]
ORGANISATION = "ORG@AdobeOrg"
IDENTITY, CONSENT = "kndctr_ORG_AdobeOrg_identity", "kndctr_ORG_AdobeOrg_consent"
NOBODY = "0" * 38
AT_MS = 1_800_000_000_000


def viewed(page: str, **more: Any) -> dict[str, Any]:
    return {"name": "page_view", "page": f"https://www.shop.example/{page}", "channel": "direct", **USUAL, **more}


EXPECTED: dict[str, list[dict[str, Any]]] = {
    "page_view": [{"name": "page_view", "page": START, "channel": "email", "campaign": "spring", **USUAL}],
    "custom_event": [{"name": "custom", **ORGANIC}],
    "product_view": [{"name": "view_item", "item": "SKU-1", "price": 79.9, "currency": "EUR", **ORGANIC}],
    "add_to_cart": [
        {"name": "add_to_cart", "item": "SKU-1", "price": 79.9, "quantity": 2.0, "currency": "EUR", **ORGANIC}
    ],
    "checkout": [{"name": "begin_checkout", "value": 159.8, **ORGANIC}],
    "identify_login": [{"name": "login", **ORGANIC}],
    "document_unloading": [{"name": "click", **ORGANIC}],
    "download_click": [{"name": "file_download", **ORGANIC}],
    "consent_given_in": [viewed("consent", consent=CONSENTED)],
    "consent_adobe2_and_tcf": [],
    "dnt_gpc_default": [viewed("dnt")],
    "third_party_cookies_default": [viewed("tp")],
    "error_500": [viewed("e_error_500")],
    "error_500_second": [viewed("e_error_500")],
    "error_503_second": [viewed("e_error_503")] * 2,
    "error_429": [viewed("e_error_429")] * 4,
    "error_400": [viewed("e_error_400")],
    "error_400_second": [viewed("e_error_400")],
    "error_conn": [viewed("e_error_conn")],
    "error_conn_second": [viewed("e_error_conn")],
    "empty_200": [viewed("e_empty_200")],
    "empty_200_second": [viewed("e_empty_200")],
    "empty_204": [viewed("e_empty_204")],
    "empty_204_second": [viewed("e_empty_204")],
    "minimal_200_second": [viewed("e_minimal_200")],
    "get_identity_first": [],
    "cross_site_first": [viewed("x")],
    "cross_site_second": [{**viewed("x"), "name": "view_item", "item": "SKU-1"}],
}
CAPTURED: dict[str, list[Capture]] = {}
for one in (*captures("alloy"), *captures("alloy_extra")):
    CAPTURED.setdefault(one.scenario, []).append(one)
AGENT = CAPTURED["page_view"][0].hit.header(b"user-agent")


def adobe(shop: ShopSettings = SHOP, **options: Any) -> Tracker:
    return tracker("adobe", shop, **{"organisation": ORGANISATION, **options})


def sent(
    *events: dict[str, Any], action: str = "interact", request: str = "r-1", cookies: str = "", **more: Any
) -> Hit:
    """What alloy sends of some events; more: of the body, and headers."""
    headers = {b"user-agent": AGENT.encode(), b"cookie": cookies.encode()}
    headers |= {name.encode(): value for name, value in more.pop("headers", {}).items()}
    body = {**({"events": list(events)} if events else {}), **more}
    query = f"configId=ds&requestId={request}"
    return Hit("POST", f"/ee/v1/{action}", query, headers, msgspec.json.encode(body), AT_MS, "192.0.2.7")


def event(type_: str = "web.webpagedetails.pageViews", **xdm: Any) -> dict[str, Any]:
    data, query = xdm.pop("data", {}), xdm.pop("query", {})
    page = {"webPageDetails": {"URL": SHOES}}
    return {"xdm": {"eventType": type_, "web": page, **xdm}, "data": data, "query": query}


def collected(adapter: Tracker, hit: Hit) -> Collected:
    return read(adapter, Capture("", "", "", hit, 200))


def events(adapter: Tracker, hit: Hit) -> list[EventIn]:
    found = collected(adapter, hit)
    assert found.dropped == []
    return found.events


def named(found: list[EventIn]) -> list[str]:
    return [each.name for each in found]


def answered(adapter: Tracker, hit: Hit, *answers: Answer) -> dict[str, Any]:
    """What the client reads."""
    reply = endpoint(adapter, hit).answer(hit, collected(adapter, hit), answers)
    assert isinstance(reply, Reply) and reply.status == 200 and isinstance(reply.body, bytes)
    return json.loads(reply.body)


def handles(answer: dict[str, Any], type_: str) -> list[dict[str, Any]]:
    return [payload for handle in answer["handle"] if handle["type"] == type_ for payload in handle["payload"]]


def stored(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["key"]: entry for entry in handles(answer, "state:store")}


def cookies_of(answer: dict[str, Any]) -> str:
    return "; ".join(f"{key}={entry['value'].replace(';', '%3B')}" for key, entry in stored(answer).items())


def consents(**general: Any) -> dict[str, Any]:
    return {"consent": [{"standard": "Adobe", "version": "1.0", "value": general}]}


@pytest.mark.parametrize("scenario", CAPTURED)
def test_captured_requests_become_events(scenario: str) -> None:
    found = [read(adobe(), each) for each in CAPTURED[scenario]]
    assert [told(event) for collected in found for event in collected.events] == EXPECTED[scenario]
    assert not [reason for collected in found for reason in collected.dropped]


def test_every_scenario_is_expected() -> None:
    assert set(CAPTURED) == set(EXPECTED)


@pytest.mark.parametrize("scenario", ["error_429", "error_503_second"])
def test_a_request_that_is_sent_again_is_the_same_event_of_the_same_visitor(scenario: str) -> None:
    adapter = adobe()
    found = [event for each in CAPTURED[scenario] for event in read(adapter, each).events]
    assert len(found) > 1
    assert len({(event.visitor, event.id) for event in found}) == 1


def test_other_requests_without_an_identity_are_other_visitors() -> None:
    adapter = adobe()
    visitors = {events(adapter, sent(event(), request=f"r-{number}"))[0].visitor for number in range(3)}
    visitors |= {events(adapter, sent(event(), request=""))[0].visitor for _ in range(2)}
    assert len(visitors) == 5
    assert all(len(visitor) == 38 and visitor.isdigit() for visitor in visitors)


def test_time_is_ours_less_what_the_event_waited() -> None:
    (waited,) = events(adobe(), sent(event(timestamp="2020-01-01T00:00:00.000Z"), meta={"queueTimeMillis": 1500}))
    assert waited.time == AT_MS - 1500
    (plain,) = events(adobe(), sent(event(timestamp="2026-11-24T02:14:22.554Z")))
    assert plain.time == "2026-11-24T02:14:22.554Z"


@pytest.mark.parametrize(
    "path", ["/ee/v1/interact", "/ee/irl1/v1/interact", "/own/base/v1/interact", "/ee/v2/interact"]
)
def test_any_base_path_and_region(path: str) -> None:
    assert adobe().endpoint(path) is not None


@pytest.mark.parametrize("path", ["/v1/interact", "//v1/interact", "/ee/v1/other", "/ee/v3/interact", "/v1/events"])
def test_other_paths_are_not_its(path: str) -> None:
    assert adobe().endpoint(path) is None or path == "//v1/interact"


def test_a_new_visitor_is_told_who_they_are_and_is_known_again() -> None:
    adapter = adobe()
    answer = answered(adapter, sent(event()))
    (ecid,) = handles(answer, "identity:result")
    assert ecid["namespace"] == {"code": "ECID"} and len(ecid["id"]) == 38
    entry = stored(answer)[IDENTITY]
    assert entry["attrs"] == {"SameSite": "None"}
    assert entry["value"].startswith("CiY")  # as alloy itself decodes it
    for again in (
        sent(event(), request="r-2", cookies=cookies_of(answer)),
        sent(event(), request="r-2", cookies="x=1; AMCV_ORG%40AdobeOrg=MCMID%7C" + ecid["id"]),
        sent(event(), request="r-2", meta={"state": {"entries": [{"key": IDENTITY, "value": entry["value"]}]}}),
        sent(event(), request="r-2", xdm={"identityMap": {"ECID": [{"id": ecid["id"]}]}}),
    ):
        assert events(adapter, again)[0].visitor == ecid["id"]
    known = answered(adapter, sent(event(), request="r-2", cookies=cookies_of(answer)))
    assert stored(known) == {} and handles(known, "identity:result") == [ecid]


def test_an_identity_is_kept_for_a_day_without_consent_to_link_and_for_longer_with_it() -> None:
    adapter = adobe()
    assert stored(answered(adapter, sent(event())))[IDENTITY]["maxAge"] == 86_400
    linked = sent(event(), cookies=f"{CONSENT}=general=in")
    assert stored(answered(adapter, linked))[IDENTITY]["maxAge"] == 34_128_000
    objected = linked._replace(headers={**linked.headers, b"sec-gpc": b"1"})
    assert stored(answered(adapter, objected))[IDENTITY]["maxAge"] == 86_400


def test_an_identity_that_is_not_ours_to_read_is_one_visitor() -> None:
    (capture,) = CAPTURED["cross_site_second"]
    (first,) = read(adobe(), capture).events
    (second,) = read(adobe(), CAPTURED["product_view"][0]).events
    assert first.visitor == second.visitor  # once in the body, once as a cookie
    assert handles(answered(adobe(), capture.hit), "state:store") == []


def test_the_organisation_is_known_from_a_cookie_too() -> None:
    adapter = tracker("adobe")
    answer = answered(adapter, sent(event()))
    assert stored(answer) == {} and "organisation" in answer["warnings"][0]["title"]
    ecid = handles(answer, "identity:result")[0]["id"]
    answer = answered(adapter, sent(event(), cookies=f"AMCV_ORG%40AdobeOrg=MCMID|{ecid}"))
    assert list(stored(answer)) == [IDENTITY]


def test_an_acquired_identity() -> None:
    (capture,) = CAPTURED["get_identity_first"]
    answer = answered(adobe(), capture.hit)
    assert len(handles(answer, "identity:result")) == 1 and list(stored(answer)) == [IDENTITY]
    assert answer["requestId"] == "2e92ae2f-d583-4fe1-aa35-168fcdb760e8"


@pytest.mark.parametrize(
    ("consent", "told_", "granted"),
    [
        (consents(general="in"), "general=in", CONSENTED),
        (
            {"consent": [{"standard": "Adobe", "version": "2.0", "value": {"collect": {"val": "y"}}}]},
            "general=in;personalise=out",
            ["measure", "link"],
        ),
        (
            {
                "consent": [
                    {
                        "standard": "Adobe",
                        "version": "2.0",
                        "value": {"collect": {"val": "y"}, "personalize": {"content": {"val": "y"}}},
                    }
                ]
            },
            "general=in",
            CONSENTED,
        ),
        (
            # purposes 1 and 7 to 10
            {"consent": [{"standard": "IAB TCF", "version": "2.0", "value": "CAAAAAAAAAAAAAAAAAAAAAAAAIPAAAAAAAAA"}]},
            "general=in;personalise=out",
            ["measure", "link"],
        ),
        (
            {"consent": [{"standard": "IAB TCF", "version": "2.0", "value": "CO", "gdprApplies": False}]},
            "general=in",
            CONSENTED,
        ),
    ],
)
def test_a_consent_is_kept_and_comes_back(consent: dict[str, Any], told_: str, granted: list[str]) -> None:
    adapter = adobe()
    answer = answered(adapter, sent(action="privacy/set-consent", **consent))
    kept = stored(answer)
    assert (kept[CONSENT]["value"], kept[CONSENT]["maxAge"]) == (told_, 15_552_000)
    assert kept[IDENTITY]["maxAge"] == 34_128_000
    (after,) = events(adapter, sent(event(), cookies=cookies_of(answer)))
    assert after.consent == granted
    assert after.visitor == handles(answer, "identity:result")[0]["id"]


def test_the_captured_consents_are_understood() -> None:
    given, _ = CAPTURED["consent_given_in"]
    assert stored(answered(adobe(), given.hit))[CONSENT]["value"] == "general=in"
    (both,) = CAPTURED["consent_adobe2_and_tcf"]
    assert stored(answered(adobe(), both.hit))[CONSENT]["value"].startswith("general=in")


@pytest.mark.parametrize(
    "consent",
    [
        consents(general="out"),
        {"consent": [{"standard": "Adobe", "version": "2.0", "value": {"collect": {"val": "n"}}}]},
        {"consent": [{"standard": "IAB TCF", "version": "2.0", "value": "CAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]},
        {"consent": [*consents(general="in")["consent"], *consents(general="out")["consent"]]},
    ],
)
def test_who_consents_to_nothing_is_nobody(consent: dict[str, Any]) -> None:
    adapter = adobe()
    known = answered(adapter, sent(event()))
    answer = answered(adapter, sent(action="privacy/set-consent", cookies=cookies_of(known), **consent))
    assert stored(answer)[CONSENT]["value"] == "general=out"
    assert handles(answer, "identity:result") == []
    # alloy forgets the consent where there is no identity: everybody who refuses has the same
    other = answered(adapter, sent(action="privacy/set-consent", request="r-9", **consent))
    assert stored(other)[IDENTITY] == stored(answer)[IDENTITY]
    refused = collected(adapter, sent(event(), cookies=cookies_of(answer)))
    assert (refused.events, refused.dropped) == ([], ["no consent"])
    again = answered(adapter, sent(action="privacy/set-consent", cookies=cookies_of(answer), **consents(general="in")))
    (ecid,) = handles(again, "identity:result")
    assert ecid["id"] != NOBODY


def test_the_consent_of_an_event_narrows_the_kept_one() -> None:
    tcf = {"consentStandard": "IAB TCF", "consentStringValue": "CAAAAAAAAAAAAAAAAAAAAAAAAIPAAAAAAAAA"}
    (found,) = events(adobe(), sent(event(consentStrings=[tcf]), cookies=f"{CONSENT}=general=in"))
    assert found.consent == ["measure", "link"]


def test_gpc_takes_back_linking() -> None:
    (found,) = events(adobe(), sent(event(), cookies=f"{CONSENT}=general=in", headers={"sec-gpc": b"1"}))
    assert found.consent == ["measure"]


def test_a_login_counts_with_consent_to_link_only() -> None:
    (login,) = CAPTURED["identify_login"]
    cookie = login.hit.headers[b"cookie"]
    (stranger,) = read(adobe(), login).events
    consented = login.hit._replace(
        headers={**login.hit.headers, b"cookie": cookie + f"; {CONSENT}=general=in".encode()}
    )
    (known,) = events(adobe(), consented)
    assert (stranger.visitor, known.visitor) == ("kndctr CiY4", "CRMId user-42")
    loose = event("userAccount.login", identityMap={"CRMId": [{"id": "user-42", "authenticatedState": "ambiguous"}]})
    assert events(adobe(), sent(loose, cookies=consented.headers[b"cookie"].decode()))[0].visitor == "kndctr CiY4"


ORDER = {
    "commerce": {
        "purchases": {"value": 1},
        "order": {"purchaseID": "ORD-1001", "priceTotal": 178.62, "currencyCode": "USD"},
    },
    "productListItems": [
        {"SKU": "SKU-1", "quantity": 2, "priceTotal": 159.8, "productCategories": [{"categoryID": "shoes"}]},
        {"name": "Sock", "priceTotal": "13.92"},
    ],
}


def test_an_order_is_one_event_a_product_with_its_value_on_the_first() -> None:
    found = events(adobe(), sent(event("commerce.purchases", **ORDER)))
    usual = {"name": "purchase", "page": SHOES, "currency": "USD", "device": "desktop", "channel": "direct"}
    usual["consent"] = ["measure"]  # type: ignore[assignment]
    assert [told(each) for each in found] == [
        {**usual, "item": "SKU-1", "category": "shoes", "price": 79.9, "quantity": 2.0, "value": 178.62},
        {**usual, "item": "Sock", "price": 13.92, "interactive": False},
    ]
    # a confirmation that is loaded again is another request and the same order
    again = events(adobe(), sent(event("commerce.purchases", **ORDER), request="r-2"))
    assert [each.id for each in again] == [each.id for each in found]
    assert len({each.id for each in found}) == 2


def test_ids_come_from_the_request_or_the_event_and_differ_by_product_and_event() -> None:
    adds = event("commerce.productListAdds", productListItems=[{"SKU": "A"}, {"SKU": "B"}])
    assert [each.id for each in events(adobe(), sent(adds, event()))] == ["r-1", "r-1/1", "r-1-1"]
    assert [each.id for each in events(adobe(), sent(event(_id="own"), request="r-2"))] == ["own"]


@pytest.mark.parametrize(
    ("xdm", "expected"),
    [
        ({"commerce": {"productViews": {"value": 1}}, "productListItems": [{"SKU": "A"}]}, ["view_item"]),
        (
            {"commerce": {"productViews": {"value": 1}}, "productListItems": [{"SKU": "A"}, {"SKU": "B"}]},
            ["view_item_list"],
        ),
        ({"commerce": {"productListViews": {"value": 1}}}, ["view_cart"]),
        ({"commerce": {"productListOpens": {"value": 1}, "productListAdds": {"id": "x"}}}, ["add_to_cart"]),
        ({"commerce": {"productListOpens": {"value": 1}}}, ["add_to_cart"]),
        ({"commerce": {"productListRemovals": {"value": "1"}}}, ["remove_from_cart"]),
        ({"commerce": {"checkouts": {"value": 0}, "purchases": {"value": 1}}}, ["purchase"]),
        ({"commerce": {"saveForLaters": {"value": 1}}}, ["add_to_wishlist"]),
        (
            {"web": {"webPageDetails": {"pageViews": {"value": 1}}}, "siteSearch": {"phrase": "red"}},
            ["page_view", "search"],
        ),
        ({"web": {"webInteraction": {"type": "exit", "linkClicks": {"value": 1}}}}, ["click"]),
        (
            {"web": {"webInteraction": {"linkClicks": {"value": 1}}}, "commerce": {"productListAdds": {}}},
            ["add_to_cart"],
        ),
        ({"eventType": "media.sessionStart"}, ["video_start"]),
        ({"eventType": "web.formFilledOut"}, ["form_submit"]),
        ({"eventType": "commerce.checkouts"}, ["begin_checkout"]),
        ({"eventType": "own.signup"}, ["sign_up"]),
        ({"eventType": "own.other"}, ["custom"]),
        (
            {"_experience": {"analytics": {"event1to100": {"event12": {"value": 1}, "event13": {"value": 1}}}}},
            ["search"],
        ),
        ({}, ["custom"]),
    ],
)
def test_what_an_event_is_called(xdm: dict[str, Any], expected: list[str]) -> None:
    section = SourceSettings(events={"event12": "search", "own.signup": "sign_up"})
    found = events(adobe(ShopSettings(sources={"adobe": section})), sent({"xdm": xdm}))
    assert named(found) == expected
    assert [each.interactive for each in found] == [None, False][: len(found)]


@pytest.mark.parametrize(
    ("analytics", "expected"),
    [
        (
            {"pageName": "Home", "events": "scAdd,event5=3", "products": "Shoes;A;2;30,;B;1;5"},
            ["page_view", "add_to_cart", "add_to_cart"],
        ),
        ({"linkType": "o", "linkName": "buy", "events": "purchase:1", "products": ";A;1;5"}, ["purchase"]),
        ({"linkType": "d", "events": ""}, ["file_download"]),
        ({"pageURL": SHOES, "products": ";A", "events": ""}, ["page_view", "view_item"]),
        ({"events": ""}, ["custom"]),
    ],
)
def test_variables_of_adobe_analytics(analytics: dict[str, Any], expected: list[str]) -> None:
    # they replace what XDM says of the same thing, as Adobe has it
    said = {"xdm": {"commerce": {"checkouts": {"value": 1}}}, "data": {"__adobe": {"analytics": analytics}}}
    assert named(events(adobe(), sent(said))) == expected


def test_what_is_no_step_of_a_visitor_is_told_and_dropped() -> None:
    hit = sent(event("decisioning.propositionFetch"), event())
    found = collected(adobe(), hit)
    assert (named(found.events), found.dropped) == (["page_view"], ["no step of a visitor"])
    assert answered(adobe(), hit)["warnings"][0]["title"] == "no step of a visitor"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"xdm": 7}, "no object"),
        (event("commerce.purchases", commerce={"order": {"priceTotal": "nan"}}), "bad value"),
        (event("commerce.productListAdds", productListItems=[{"SKU": "A", "quantity": -1}]), "bad quantity"),
        (event("commerce.productViews", productListItems=[{"SKU": "A", "priceTotal": "1e400"}]), "bad price"),
        (event("commerce.productViews", productListItems=[{"SKU": "A"}] * 201), "too many products"),
        (event(data={"__adobe": {"analytics": {"products": ",".join([";A"] * 500)}}}), "too many products"),
        (event(timestamp={"at": 1}), "bad time"),
    ],
)
def test_one_bad_event_does_not_lose_the_others(bad: dict[str, Any], reason: str) -> None:
    found = collected(adobe(), sent(bad, event("commerce.checkouts")))
    assert (named(found.events), found.dropped) == (["begin_checkout"], [reason])


@pytest.mark.parametrize(
    ("action", "body", "reason"),
    [
        ("interact", b"{", "no JSON"),
        ("interact", b"[" * 100_000, "no JSON"),
        ("interact", b"[]", "no JSON object"),
        ("interact", b"{}", "no events"),
        ("collect", b'{"events":[]}', "no events"),
        ("interact", msgspec.json.encode({"events": [{}] * 101}), "too many events"),
        ("privacy/set-consent", b'{"consent":[{"standard":"Own"}]}', "no consent of a known standard"),
        (
            "privacy/set-consent",
            b'{"consent":[{"standard":"Adobe","value":{"general":[]}}]}',
            "no consent of a known standard",
        ),
        ("identity/acquire", b"", "no JSON"),
    ],
)
def test_what_the_edge_refuses_is_refused_its_way(action: str, body: bytes, reason: str) -> None:
    adapter, hit = adobe(), sent(action=action)._replace(body=body)
    with pytest.raises(Refused) as caught:
        endpoint(adapter, hit).read(hit)
    assert caught.value.reason == reason
    problem = json.loads(caught.value.reply.body)  # type: ignore[arg-type]
    assert (caught.value.reply.status, problem["status"]) == (422, 422)
    assert problem["report"] == {"errors": [reason], "requestId": ""}


def test_a_beacon_is_answered_with_nothing_and_needs_an_identity() -> None:
    (leaving,) = CAPTURED["document_unloading"]
    adapter = adobe()
    reply = endpoint(adapter, leaving.hit).answer(leaving.hit, read(adapter, leaving), [])
    assert isinstance(reply, Reply) and (reply.status, reply.body) == (204, b"")
    assert collected(adapter, sent(event(), action="collect")).dropped == ["no visitor"]


ASKED = {"personalization": {"decisionScopes": ["__view__", "lotse"]}}
SCORED = Answer(session="token", status="folded", events=2, scores={"bounce": 0.25}, models={"bounce": "3"})


def test_scores_ride_back_where_they_are_asked_for() -> None:
    adapter = adobe()
    assert handles(answered(adapter, sent(event()), SCORED), "personalization:decisions") == []
    answer = answered(adapter, sent(event(query=ASKED)), Answer(status="folded", events=1), SCORED)
    (decision,) = handles(answer, "personalization:decisions")
    assert decision["scope"] == "lotse"
    (item,) = decision["items"]
    assert item["schema"] == "https://ns.adobe.com/personalization/json-content-item"
    assert item["data"]["content"] == {
        "session": "token", "scores": {"bounce": 0.25}, "models": {"bounce": "3"}, "decided": [], "reasons": {},
    }  # fmt: skip
    always = answered(adobe(decisions=True), sent(event()), SCORED)
    assert len(handles(always, "personalization:decisions")) == 1


def test_unknown_options_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"collect\.options\.adobe\.organization.*known options: organisation"):
        tracker("adobe", organization="x")


@pytest.mark.anyio
async def test_a_session_and_its_scores_through_the_service(tmp_path: Path) -> None:
    app = start(tmp_path, f'collect.options={{adobe={{organisation="{ORGANISATION}"}}}}')
    http, metrics = client(app), engine_of(app).metrics

    async def send(*events: dict[str, Any], cookies: str = "", request: str) -> dict[str, Any]:
        hit = sent(*events, cookies=cookies, request=request)
        answer = await http.post(f"{hit.path}?{hit.query}", content=hit.body, headers=list(hit.headers.items()))
        assert answer.status_code == 200
        return answer.json()  # type: ignore[no-any-return]

    first = await send(event(query=ASKED), request="r-1")
    assert first == await send(event(query=ASKED), request="r-1") | {"handle": first["handle"]}
    assert metrics.events == {"started": 1, "duplicate": 1}
    kept = cookies_of(first)
    (decision,) = handles(await send(event(query=ASKED), cookies=kept, request="r-2"), "personalization:decisions")
    told_ = decision["items"][0]["data"]["content"]
    assert 0 < told_["scores"]["bounce"] < 1 and told_["session"]
    # without a step: the session as it stands
    fetch = event("decisioning.propositionFetch", query=ASKED)
    (decision,) = handles(await send(fetch, cookies=kept, request="r-3"), "personalization:decisions")
    assert set(decision["items"][0]["data"]["content"]["scores"]) == set(told_["scores"])
    assert metrics.dropped == {("adobe", "no step of a visitor"): 1}


@pytest.mark.parametrize("scenario", CAPTURED)
def test_whatever_a_client_sends_is_read_or_refused(scenario: str) -> None:
    """Mangled bodies, and with variables of Analytics, an order, consent and identities among them."""
    capture = CAPTURED[scenario][-1]
    body = json.loads(capture.hit.body)
    for each in body.get("events", ()):
        each["xdm"] |= {**ORDER, "siteSearch": {"phrase": "x"}, "consentStrings": [{"consentStandard": "IAB TCF"}]}
        each["xdm"] |= {"_id": "x", "identityMap": {"ECID": [{"id": "1"}], "CRM": [{"id": "2", "primary": True}]}}
        each["data"] = {"__adobe": {"analytics": {"products": ";A;1;2", "events": "scAdd", "linkType": "o"}}}
    body["meta"] = {"queueTimeMillis": 1, "state": {"entries": [{"key": CONSENT, "value": "general=in"}]}}
    adapter = adobe(decisions=True)
    for copy in mangled(body, len(scenario), 150):
        hit = capture.hit._replace(body=msgspec.json.encode(copy))
        found = taken(adapter, hit)
        if found is not None:
            endpoint(adapter, hit).answer(hit, found, [SCORED] * max(len(found.events), 1))

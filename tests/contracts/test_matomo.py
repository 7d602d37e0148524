"""matomo.js, and what its bulk importers and other clients send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest

from features.events import COLUMNS, hash64
from features.pseudonyms import Pseudonymiser
from features.shop import SourceSettings
from features.sources import open_source, read_chunks
from serving.collect import GIF, Collected, Hit, Refused
from serving.collect.matomo import KINDS
from serving.http.call import Reply
from serving.pseudonyms import RotatingPseudonyms
from serving.reading import Reader
from serving.requests import Request
from serving.settings import ServingSettings
from tests.contracts.captured import SHOP, Capture, captures, endpoint, read, told, tracker

SITE = "https://www.shop.example"
PRODUCT = f"{SITE}/p/sku-1"
SAYS = {"device": "desktop", "consent": ["measure"]}
ENTRY = {"channel": "email", "campaign": "spring", **SAYS}
INSIDE = {"channel": "internal", **SAYS}
DIRECT = {"channel": "direct", **SAYS}
AGREED = {"consent": ["measure", "link"]}
SEEN = "content impression: seen, not done"
SHOES = {"item": "SKU-1", "category": "Shoes", "price": 79.9}

# Scenario -> the events of its requests, and the reasons of those that gave none.
EXPECTED: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "page_view": (
        [{"name": "page_view", "page": f"{SITE}/?utm_source=news&utm_medium=email&utm_campaign=spring&mtm_kwd=shoes",
          **ENTRY}],
        [],
    ),
    "product_view": ([{"name": "view_item", "page": PRODUCT, **SHOES, **INSIDE}], []),
    "category_view": ([{"name": "view_item_list", "page": PRODUCT, "category": "Shoes", **INSIDE}], []),
    "site_search": ([{"name": "search", **INSIDE}], []),
    "goal": ([{"name": "custom", "page": PRODUCT, "value": 49.5, **INSIDE}], []),
    # the first cart that was captured holds two products, and the next one only the first of them
    "add_second_item": (
        [{"name": "add_to_cart", **SHOES, "quantity": 2.0, **INSIDE},
         {"name": "add_to_cart", "item": "SKU-2", "category": "Socks", "price": 5.0, **INSIDE}],
        [],
    ),
    "remove_from_cart": (
        [{"name": "remove_from_cart", "item_hash": hash64("SKU-2"), "category_hash": hash64("Socks"), "price": 5.0,
          **INSIDE}],
        [],
    ),
    "identify_login": ([{"name": "view_item_list", "page": PRODUCT, "category": "Shoes", **INSIDE}], []),
    "logout_new_visit": ([{"name": "view_item_list", "page": PRODUCT, "category": "Shoes", **INSIDE}], []),
    "outlink_click": ([{"name": "click", **INSIDE}], []),
    "download_click": ([{"name": "file_download", **INSIDE}], []),
    "consent_opt_in_again": (
        [{"name": "view_item_list", "page": PRODUCT, "category": "Shoes", **INSIDE, **AGREED}] * 2
        + [{"name": "select_promotion", "page": PRODUCT, **INSIDE}],
        [SEEN],
    ),
    "heartbeat_timer_5s": ([{"name": "page_view", "page": f"{SITE}/heartbeat", **DIRECT}], []),
    "bulk_queue": (
        [{"name": "page_view", "page": f"{SITE}/bulk", **DIRECT}]
        + [{"name": "custom", "page": f"{SITE}/bulk", **DIRECT}] * 2,
        [],
    ),
    "ecommerce_bulk_impressions": ([], [SEEN] * 2),
    "page_view_post_beacon": ([{"name": "page_view", "page": f"{SITE}/post", **DIRECT}], []),
    "page_view_get_image": ([{"name": "page_view", "page": f"{SITE}/get", **DIRECT}], []),
    "long_url_post": ([{"name": "custom", "page": f"{SITE}/postxhr", **DIRECT}], []),
    "error_500_xhr": ([{"name": "custom", "page": f"{SITE}/postxhr", **DIRECT}], []),
    "error_429": ([{"name": "custom", "page": f"{SITE}/err", **DIRECT}], []),
    "error_conn_reset": ([{"name": "custom", "page": f"{SITE}/err", **DIRECT}] * 2, []),
    "consent_given": ([{"name": "page_view", "page": f"{SITE}/consent", **DIRECT, **AGREED}], []),
    # no session runs here: what pings do to one is asked of a service
    "consent_event_after": (
        [{"name": "custom", "page": f"{SITE}/consent", **DIRECT, **AGREED}], ["a ping without a session"],
    ),
    "cookie_consent_given": (
        [{"name": "custom", "page": f"{SITE}/cookieconsent", **DIRECT}], ["a ping without a session"],
    ),
    "cookieless_pv1": ([{"name": "page_view", "page": f"{SITE}/nocookie", **DIRECT}], []),
    "dnt_gpc_default_config": ([{"name": "page_view", "page": f"{SITE}/gpc", **DIRECT}], []),
}  # fmt: skip
CAPTURED = list(captures("matomo"))
AGENT = CAPTURED[0].hit.header(b"user-agent")
NOW = 1_800_000_000_000  # 2027-01-15T08:00:00Z


def by_scenario() -> dict[str, list[tuple[Capture, Collected]]]:
    """All captures, read in their order by one adapter: a cart follows another one."""
    adapter, found = tracker("matomo"), dict[str, list[tuple[Capture, Collected]]]()
    for one in CAPTURED:
        found.setdefault(one.scenario, []).append((one, read(adapter, one)))
    return found


READ = by_scenario()


@pytest.mark.parametrize("scenario", READ)
def test_captured_requests_become_events(scenario: str) -> None:
    events = [told(event, "utc_offset") for _, collected in READ[scenario] for event in collected.events]
    assert events == EXPECTED[scenario][0]
    assert [reason for _, collected in READ[scenario] for reason in collected.dropped] == EXPECTED[scenario][1]


def test_every_scenario_is_expected() -> None:
    assert set(READ) == set(EXPECTED)


def test_visitors_are_matomo_s_and_cookieless_ones_are_told_apart_for_a_day() -> None:
    def visitors(scenario: str) -> list[str]:
        return [event.visitor for _, collected in READ[scenario] for event in collected.events]

    assert visitors("page_view") == ["79ad93e49e3f3a55"]
    assert visitors("identify_login") == ["79ad93e49e3f3a55"]  # nobody consented to link
    assert all(visitor.startswith("day-") for visitor in visitors("cookieless_pv1"))
    first, second, with_cookie = visitors("consent_opt_in_again")
    assert first == second and first.startswith("day-")
    assert with_cookie == "79ad93e49e3f3a55"


def test_clocks_are_the_visitors_own() -> None:
    assert {event.utc_offset for found in READ.values() for _, one in found for event in one.events} == {0}
    assert first(request(h="15", m="30", s="9")).utc_offset == 450  # at 8:00 UTC
    assert first(request(h="22", m="2")).utc_offset == 840
    assert first(request(h="25a", m="0")).utc_offset is None
    assert first(request()).utc_offset is None


def test_repeated_requests_have_the_same_ids() -> None:
    ids = [event.id for _, collected in READ["error_conn_reset"] for event in collected.events]
    assert len(ids) == 2 and len(set(ids)) == 1
    every = [event.id for found in READ.values() for _, one in found for event in one.events]
    assert all(every) and len(set(every)) == len(every) - 1
    # a client that sends nothing random may say the same thing twice
    assert first(request(r="")).id and not first(request()).id


def test_a_new_visit_names_a_session_of_its_own() -> None:
    (((_, collected)),) = READ["logout_new_visit"]
    assert [bool(event.session) for event in collected.events] == [True]
    others = [
        event for name, found in READ.items() for _, one in found for event in one.events if name != "logout_new_visit"
    ]
    assert not any(event.session for event in others)


def sent(query: str = "", body: bytes = b"", path: str = "/matomo.php", **headers: str) -> Hit:
    all_headers = {"user-agent": AGENT, **headers}
    encoded = {name.replace("_", "-").encode(): value.encode() for name, value in all_headers.items()}
    return Hit("POST" if body else "GET", path, query, encoded, body, NOW, "192.0.2.7")


def request(**parameters: str) -> Hit:
    """A page view, changed."""
    given = {"idsite": "1", "rec": "1", "url": f"{SITE}/", "_id": "79ad93e49e3f3a55", **parameters}
    return sent(urlencode({name: value for name, value in given.items() if value is not None}))


def ask(hit: Hit, **options: Any) -> Collected:
    return read(tracker("matomo", **options), Capture("", "", "", hit, 204))


def first(hit: Hit, **options: Any) -> Any:
    collected = ask(hit, **options)
    assert len(collected.events) == 1, collected.dropped
    return collected.events[0]


def answer(hit: Hit, **options: Any) -> Reply:
    adapter = tracker("matomo", **options)
    try:
        collected = read_whole(adapter, hit)
    except Refused as refused:
        return refused.reply
    reply = endpoint(adapter, hit).answer(hit, collected, [])
    assert isinstance(reply, Reply)
    return reply


def read_whole(adapter: Any, hit: Hit) -> Collected:
    found = endpoint(adapter, hit).read(hit)
    assert isinstance(found, Collected)
    return found


@pytest.mark.parametrize("path", ["/matomo.php", "/piwik.php", "/stats/matomo.php", "/a/b/piwik.php"])
def test_every_prefix_is_the_endpoint(path: str) -> None:
    adapter = tracker("matomo")
    found = adapter.endpoint(path)
    assert found is not None and found.methods == ("GET", "POST")
    assert [adapter.endpoint(other) for other in ("/matomo.phpx", "/xmatomo.php", "/matomo.js", "/", "/v1/events")] == [
        None
    ] * 5


def test_the_content_type_does_not_matter() -> None:
    events = [
        told(event)
        for hit in (
            request(),
            sent(body=request().query.encode(), content_type="text/plain"),
            sent("idsite=1&rec=1", f"url={quote(SITE)}/&_id=79ad93e49e3f3a55".encode()),
            sent(body=json.dumps({"requests": ["?" + request().query]}).encode(), content_type="text/plain"),
            sent(body=json.dumps({"requests": [{"idsite": 1, "rec": 1, "url": f"{SITE}/", "_id": "79ad"}]}).encode()),
        )
        for event in ask(hit).events
    ]
    assert events == [{"name": "page_view", "page": f"{SITE}/", **DIRECT}] * 5


@pytest.mark.parametrize(
    ("query", "silent", "status", "body"),
    [("", False, 200, GIF), ("&send_image=1", False, 200, GIF), ("&send_image=0", True, 204, b"")],
)
def test_one_request_is_answered_with_a_pixel_or_nothing(query: str, silent: bool, status: int, body: bytes) -> None:
    hit = request()
    for each in (hit._replace(query=hit.query + query), hit._replace(query="", body=(hit.query + query).encode())):
        reply = answer(each)
        assert (reply.status, reply.body) == (status, body)
        assert silent or reply.content_type == b"image/gif"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "no parameters"),
        ("rec=1&url=https://x/", "no idsite"),
        ("idsite=1&url=https://x/", "no rec=1"),
        ("idsite=1&rec=1", "nothing to record"),
        ("idsite=1&rec=1&url=https://x/&_id=a&cdt=2027-01-14%2007:59:59", "an old time without a token"),
        ("idsite=1&rec=1&url=https://x/&_id=a&cdt=1799900000&token_auth=guessed", "an old time without a token"),
    ],
)
def test_what_matomo_refuses_is_refused_its_way(query: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        read_whole(tracker("matomo"), sent(query))
    assert (caught.value.reason, caught.value.reply.status, caught.value.reply.body) == (reason, 400, GIF)


@pytest.mark.parametrize(
    "body", [b'{"requests":', b'{"requests":[]}', b'{"requests":{}}', b"{}", b'{"requests":[%s7]}' % (b"7," * 1_000)]
)
def test_broken_bulk_requests_are_refused(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read_whole(tracker("matomo"), sent(body=body))
    assert caught.value.reply.status == 400
    assert msgspec.json.decode(caught.value.reply.body) == {"status": "error", "tracked": 0, "invalid": 0}  # type: ignore[type-var]


def bulk(requests: Sequence[object], **more: object) -> Hit:
    return sent(body=json.dumps({"requests": requests, **more}).encode())


def test_one_bad_request_of_many_does_not_lose_the_others() -> None:
    good, bad = "?" + request().query, "?rec=1&url=https://x/"
    adapter = tracker("matomo")
    hit = bulk([good, bad, 7, good])
    collected = read_whole(adapter, hit)
    assert [event.name for event in collected.events] == ["page_view"] * 2
    assert collected.dropped == ["no idsite"] * 2
    reply = endpoint(adapter, hit).answer(hit, collected, [])
    assert isinstance(reply, Reply)
    assert (reply.status, reply.content_type) == (200, b"application/json")
    assert msgspec.json.decode(reply.body) == {"status": "success", "tracked": 2, "invalid": 2}  # type: ignore[type-var]
    # who imports is told which
    reply = answer(bulk([good, bad, good], token_auth="secret"))
    assert msgspec.json.decode(reply.body)["invalid_indices"] == [1]  # type: ignore[type-var]
    # the browser wants nothing
    reply = answer(bulk([good, bad], send_image=0))
    assert (reply.status, reply.body) == (204, b"")


def test_times_are_believed_for_a_day_and_with_a_token() -> None:
    assert first(request()).time is None
    assert first(request(cdt="2027-01-15 07:00:00")).time == NOW - 3_600_000
    assert first(request(cdt="1799996400")).time == NOW - 3_600_000
    assert first(request(cdt="2027-01-15T07:00:00.500Z")).time == NOW - 3_599_500
    for nonsense in ("yesterday", "99999999999999999999", "2027-01-15 08:00:01", "-5"):
        assert first(request(cdt=nonsense)).time is None
    old = request(cdt="2026-12-01 00:00:00", token_auth="secret")
    assert first(old).time == 1_796_083_200_000
    assert first(bulk(["?" + request(cdt="2026-12-01 00:00:00").query], token_auth="secret")).time == 1_796_083_200_000


def test_accounts_link_devices_only_with_consent() -> None:
    assert first(request(uid="jane@shop.example")).visitor == "79ad93e49e3f3a55"
    linked = first(request(uid="jane@shop.example", consent="1"))
    # as Matomo makes it, so that the history knows the visitor, too
    assert (linked.visitor, linked.consent) == ("0e3ea13f0687a658", ["measure", "link"])
    other_device = first(request(uid="jane@shop.example", consent="1", _id="0000000000000001"))
    assert other_device.visitor == linked.visitor
    objects = request(uid="jane@shop.example", consent="1")
    for header in ("sec-gpc", "dnt"):
        event = first(objects._replace(headers={**objects.headers, header.encode(): b"1"}))
        assert (event.visitor, event.consent) == ("79ad93e49e3f3a55", ["measure"])
    asked_for_more = ["measure", "link", "personalise"]
    assert first(request(consent="1"), consent=asked_for_more).consent == asked_for_more


def test_forced_ids_come_first() -> None:
    assert first(request(cid="0000000000000002")).visitor == "0000000000000002"


def test_visitors_of_a_server_s_requests_are_not_the_server() -> None:
    server = {"user_agent": "", "content_type": "application/json"}
    hit = sent(request(_id="").query, **server)
    assert ask(hit).dropped == ["no visitor"]
    assert ask(request(_id="", ua=AGENT)).dropped == ["no visitor"]
    assert ask(request(_id="", ua=AGENT, cip="192.0.2.9")).dropped == ["no visitor"]  # anybody could say so
    told_by_owner = {"_id": "", "ua": AGENT, "token_auth": "secret"}
    one, same, other = (first(request(**told_by_owner, cip=f"192.0.2.{host}")).visitor for host in (9, 9, 10))
    assert one == same != other
    assert first(request(**told_by_owner, cip="192.0.2.7")).visitor == first(request(_id="")).visitor


def test_programs_are_dropped_unless_somebody_vouches_for_them() -> None:
    bot = "Googlebot/2.1 (+http://www.google.com/bot.html)"
    assert ask(request(ua=bot)).dropped == ["a program"]
    assert first(request(ua=bot, bots="1")).device == "unknown"
    assert first(request(ua="axios/1.7", token_auth="secret")).device == "unknown"


def test_names_are_the_shop_s_where_it_maps_them() -> None:
    assert first(request(e_c="Form", e_a="sign_up")).name == "sign_up"  # GA4's own
    assert first(request(e_c="Video", e_a="Play")).name == "custom"
    assert first(request(search="shoes")).name == "search"
    assert set(KINDS) >= {"action", "product", "category", "search", "outlink", "download", "ping"}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/suche?q=red+shoes", "search"),
        ("/suche?page=2&keyword=x", "search"),
        ("/?q=", "page_view"),
        ("/?quiet=1", "page_view"),
    ],
)
def test_addresses_with_a_search_are_searches_as_in_matomo(url: str, name: str) -> None:
    assert first(request(url=SITE + url)).name == name
    assert first(request(url=SITE + url), search_parameters=[]).name == "page_view"


@pytest.mark.parametrize(
    ("url", "referrer", "channel", "campaign"),
    [
        ("/?mtm_campaign=flyer", "", "paid", "flyer"),
        ("/?pk_campaign=may&pk_medium=newsletter", "", "email", "may"),
        ("/?mtm_campaign=may", "https://www.google.com/", "paid", "may"),
        ("/", "https://www.google.com/", "organic", ""),
        ("/", f"{SITE}/before", "internal", ""),
        ("/", "https://blog.example/", "referral", ""),
    ],
)
def test_channels_are_those_of_the_history(url: str, referrer: str, channel: str, campaign: str) -> None:
    event = first(request(url=SITE + url, urlref=referrer))
    assert (event.channel, event.campaign) == (channel, campaign)


def test_only_the_sites_that_are_wanted() -> None:
    assert ask(request(idsite="2"), sites=["1"]).dropped == ["unknown idsite"]
    assert first(request(idsite="1"), sites=["1"]).name == "page_view"


def visit(*actions: dict[str, Any]) -> dict[str, Any]:
    """As Matomo's API answers."""
    return {
        "idVisit": 7, "visitorId": "79ad93e49e3f3a55", "siteCurrency": "EUR", "referrerType": "search",
        "deviceType": "Desktop", "firstActionTimestamp": NOW // 1000, "visitLocalTime": "09:00:00",
        "actionDetails": [{"timestamp": NOW // 1000, **action} for action in actions],
    }  # fmt: skip


BOUGHT = {"itemSKU": "SKU-1", "itemName": "Red shoe", "categories": ["Shoes", "Sale"], "price": 79.9, "quantity": 2}
# What Matomo's history says of a request, and the request.
SAME = [
    ({"type": "action", "url": PRODUCT}, {"url": PRODUCT}),
    (
        {"type": "action", "url": PRODUCT, "productViewSku": "SKU-1", "productViewCategories": ["Shoes"],
         "productViewPrice": 79.9},
        {"url": PRODUCT, "_pks": "SKU-1", "_pkc": '["Shoes"]', "_pkp": "79.9"},
    ),
    ({"type": "action", "url": PRODUCT, "productViewCategories": ["Shoes"]}, {"url": PRODUCT, "_pkc": "Shoes"}),
    ({"type": "search", "url": None, "siteSearchKeyword": "shoe"}, {"search": "shoe"}),
    ({"type": "outlink", "url": "https://other.example/"}, {"link": "https://other.example/"}),
    ({"type": "download", "url": f"{SITE}/a.pdf"}, {"download": f"{SITE}/a.pdf"}),
    ({"type": "event", "url": PRODUCT, "eventCategory": "Form", "eventAction": "sign_up"},
     {"url": PRODUCT, "e_c": "Form", "e_a": "sign_up"}),
    ({"type": "content", "url": PRODUCT, "contentName": "Ad", "contentInteraction": "click"},
     {"url": PRODUCT, "c_n": "Ad", "c_i": "click"}),
    ({"type": "goal", "url": PRODUCT, "goalId": 3, "revenue": "2.5"},
     {"url": PRODUCT, "idgoal": "3", "revenue": "2.5"}),
    ({"type": "ecommerceAbandonedCart", "itemDetails": [BOUGHT, {"itemSKU": "SKU-2", "price": 5, "quantity": 3}]},
     {"idgoal": "0", "ec_items": '[["SKU-1","Red shoe",["Shoes","Sale"],79.9,2],["SKU-2",null,null,5,3]]'}),
    ({"type": "ecommerceAbandonedCart", "itemDetails": [{**BOUGHT, "quantity": 1}]},
     {"idgoal": "0", "ec_items": '[["SKU-1","Red shoe",["Shoes","Sale"],79.9,1]]'}),
    ({"type": "ecommerceOrder", "orderId": "ORD-1", "revenue": 84.9, "itemDetails": [{**BOUGHT, "quantity": 1}]},
     {"idgoal": "0", "ec_id": "ORD-1", "revenue": "84.9", "ec_items": '[["SKU-1","Red shoe","Shoes",79.9,1]]'}),
]  # fmt: skip


def test_history_and_live_requests_are_the_same_events(tmp_path: Path) -> None:
    file = tmp_path / "visits.json"
    file.write_text(json.dumps([visit(*(action for action, _ in SAME))]))
    shop = SHOP.model_copy(update={"sources": {"matomo": SourceSettings(options={"carts": "events"})}})
    reader, reading = open_source("matomo", file, shop, Pseudonymiser(b"0123456789abcdef"))
    (table,) = read_chunks(reader, reading)
    hits = [
        request(**asked, urlref="https://www.google.com/", h="9", m="0", r=str(number))
        for number, (_, asked) in enumerate(SAME)
    ]
    pseudonym = Pseudonymiser(b"0123456789abcdef").visitor
    found, reader_of = [], Reader(ServingSettings(), shop, RotatingPseudonyms(tmp_path))
    for collected in ask_in_turn(*hits, currency="EUR"):
        asked = Request(b"")
        asked.wires = collected.events
        reader_of.read(asked, NOW)
        found += [event._replace(visitor=pseudonym(raw)) for event, raw in zip(asked.events, asked.raws, strict=True)]
    columns = [column for column in COLUMNS if column not in ("session", "id")]
    live = [{column: getattr(event, column) for column in columns} for event in found]
    assert live == table[columns].to_dict("records")


ORDER = {
    "idgoal": "0", "ec_id": "ORD-1", "revenue": "164.8", "ec_st": "undefined", "r": "1",
    "ec_items": '[["SKU-1","Red shoe",["Shoes","Sale"],79.9,2],["","Sock","",5]]',
}  # fmt: skip


def test_an_order_is_an_event_a_product_and_its_value_stands_once() -> None:
    events = ask(request(**ORDER), currency="EUR").events
    money = {"currency": "EUR"}
    assert [told(event) for event in events] == [
        {"name": "purchase", **SHOES, "quantity": 2.0, "value": 164.8, **money, **DIRECT},
        {"name": "purchase", "item": "Sock", "price": 5.0, **money, **DIRECT},
    ]
    assert len({event.id for event in events}) == 2


def ask_in_turn(*hits: Hit, **options: Any) -> list[Collected]:
    adapter = tracker("matomo", **options)
    return [read(adapter, Capture("", "", "", hit, 204)) for hit in hits]


def test_an_order_counts_once_however_often_its_page_is_loaded() -> None:
    reloaded = request(**{**ORDER, "r": "2", "ec_items": "[]"})
    much_later = request(**{**ORDER, "r": "3"})._replace(received_ms=NOW + 120_000)
    found = ask_in_turn(request(**ORDER), reloaded, much_later, request(**{**ORDER, "ec_id": "ORD-2"}))
    assert [len(one.events) for one in found] == [2, 0, 0, 2]
    assert found[1].dropped == found[2].dropped == ["an order that was counted"]
    # at once it is a request whose answer was lost: the fold knows its ids
    first_time, again = ask_in_turn(request(**ORDER), request(**ORDER))
    assert [event.id for event in first_time.events] == [event.id for event in again.events]


def cart(r: int, *items: Sequence[object]) -> Hit:
    return request(idgoal="0", revenue="0", r=str(r), ec_items=json.dumps(items))


def changes(collected: Collected) -> list[tuple[str, str | int, float]]:
    return [(event.name, event.item or getattr(event, "item_hash", 0), event.quantity) for event in collected.events]


ONE, TWO, SOCKS = ["SKU-1", "Shoe", "", 79.9, 1], ["SKU-1", "Shoe", "", 79.9, 2], ["SKU-2", "Sock", "", 5, 3]


def test_a_cart_is_what_changed_in_it() -> None:
    found = ask_in_turn(cart(1, ONE), cart(2, ONE, SOCKS), cart(3, TWO, SOCKS), cart(4, SOCKS), cart(5))
    assert [changes(one) for one in found] == [
        [("add_to_cart", "SKU-1", 1)],
        [("add_to_cart", "SKU-2", 3)],
        [("add_to_cart", "SKU-1", 1)],
        [("remove_from_cart", hash64("SKU-1"), 2)],
        [("remove_from_cart", hash64("SKU-2"), 3)],
    ]


def test_a_repeated_cart_changes_nothing_twice() -> None:
    found = ask_in_turn(cart(1, ONE), cart(1, ONE), cart(2, ONE, SOCKS), cart(1, ONE), cart(3, ONE, SOCKS))
    assert [event.id for event in found[0].events] == [event.id for event in found[1].events]
    assert [changes(one) for one in found[2:]] == [[("add_to_cart", "SKU-2", 3)], [], []]
    assert [one.dropped for one in found[3:]] == [["a cart that was counted"], ["cart that did not change"]]


def test_the_same_product_twice_is_as_many_of_it() -> None:
    assert changes(ask(cart(1, ONE, ONE))) == [("add_to_cart", "SKU-1", 2)]


def test_an_order_empties_the_cart() -> None:
    found = ask_in_turn(cart(1, TWO), request(**ORDER), cart(2, ONE))
    assert changes(found[2]) == [("add_to_cart", "SKU-1", 1)]


def test_a_cart_of_the_day_before_is_none() -> None:
    later = cart(2, ONE)._replace(received_ms=NOW + 3_600_000)
    assert changes(ask_in_turn(cart(1, ONE), later)[1]) == [("add_to_cart", "SKU-1", 1)]


def test_carts_can_be_left_out_as_the_history_does() -> None:
    assert ask(cart(1, ONE), carts="skip").dropped == ['cart: carts = "skip"']


@pytest.mark.parametrize("items", ["nonsense", "{}", "[7,[]]", '[[null,null,null,"x","y"]]', "[" * 5_000])
def test_nonsense_in_a_cart_breaks_nothing(items: str) -> None:
    collected = ask(request(idgoal="0", ec_items=items))
    assert [event.name for event in collected.events] in ([], ["add_to_cart"])

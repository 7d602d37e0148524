"""The native wire format: what becomes of a good event, and the error of each bad one."""

from __future__ import annotations

import json
import re

import pytest

from features.events import ADD_TO_CART, CHANNELS, CONSENT_LINK, CONSENT_MEASURE, PAGE_VIEW, SCROLL, Event, hash64
from features.shop import load_shop
from serving.intake import FieldError, Intake

NOW = 1_780_000_000_000
DAY_MS = 86_400_000
INTAKE = Intake(load_shop(), ("measure",), DAY_MS)


def take(**fields: object) -> Event:
    body = {"visitor": "jane", "name": "page_view", **fields}
    return INTAKE.event(json.dumps(body).encode(), NOW, lambda raw, linked: 100 * len(raw) + linked)


def test_the_least_event() -> None:
    event = take()
    assert event == Event(visitor=400, time=NOW, name=PAGE_VIEW, utc_offset=120)  # Berlin in May


def test_everything_an_event_can_say() -> None:
    event = take(
        visitor="jo", id="e1", session="s1", name="cart_add", time=NOW - 5000, page="https://shop.example/p/77?q=1",
        item="sku", category="shoes", price=10, quantity=2, value=20, currency="USD", channel="email", device="mobile",
        consent=["measure", "link"], utc_offset=-60, declared=[1, 2.5],
    )  # fmt: skip
    assert event.visitor == 201
    assert event.name == ADD_TO_CART
    assert (event.id, event.session, event.item) == (hash64("e1"), hash64("s1"), hash64("sku"))
    assert event.page == hash64("/p/:id")
    assert (event.price, event.value) == (pytest.approx(9.2), pytest.approx(18.4))
    assert event.consent == CONSENT_MEASURE | CONSENT_LINK
    assert (event.utc_offset, event.declared_0, event.declared_1, event.declared_2) == (-60, 1.0, 2.5, 0.0)


def test_a_referrer_tells_channel_and_campaign_where_the_event_does_not() -> None:
    page = "https://shop.example/p/77?utm_medium=email&utm_campaign=may"
    landed = take(page=page, referrer="")
    assert (CHANNELS[landed.channel], landed.campaign, landed.page) == ("email", hash64("may"), hash64("/p/:id"))
    found = [CHANNELS[take(page="https://shop.example/", referrer=each).channel] for each in ("", "https://t.co/a")]
    assert found == ["direct", "social"]
    said = take(page=page, referrer="https://www.google.com/", channel="paid", campaign="june")
    assert (CHANNELS[said.channel], said.campaign) == ("paid", hash64("june"))
    assert CHANNELS[take(page=page).channel] == "unknown"


def test_passive_events_are_no_interaction_unless_said() -> None:
    assert take(name="scroll").name == SCROLL
    assert take(name="scroll").interactive == 0
    assert take(name="scroll", interactive=True).interactive == 1
    assert take(interactive=False).interactive == 0


@pytest.mark.parametrize(
    ("time", "sent_at", "expected"),
    [
        (NOW - 5_000, None, NOW - 5_000),
        (NOW + 9_000, None, NOW),  # no event from the future
        (NOW - 3 * DAY_MS, None, NOW - DAY_MS),  # nor from before what is believed
        (NOW + 3_600_000 - 5_000, NOW + 3_600_000, NOW - 5_000),  # a clock that is an hour ahead
        (NOW - 7 * DAY_MS, NOW - 7 * DAY_MS + 2_000, NOW - 2_000),  # one that is a week behind
        ("2026-05-28T20:26:35+00:00", None, NOW - 5_000),
    ],
)
def test_time_is_the_clients_corrected_and_clamped(time: object, sent_at: object, expected: int) -> None:
    assert take(time=time, **({} if sent_at is None else {"sent_at": sent_at})).time == expected


@pytest.mark.parametrize(
    ("fields", "field", "expected"),
    [
        ({"visitor": ""}, "visitor", "an id of 1 to"),
        ({"visitor": "x" * 600}, "visitor", "an id of 1 to"),
        ({"visitor": 7}, "visitor", "`str`"),
        ({"name": "buy"}, "name", r"known|one of .*\[events\]"),
        ({"name": "x" * 600}, "name", "at most 512"),
        ({"time": "yesterday"}, "time", "milliseconds since 1970, or text like"),
        ({"time": 1_780_000_000}, "time", "milliseconds since 1970"),
        ({"time": 1.5}, "time", "`int"),
        ({"sent_at": "never"}, "sent_at", "milliseconds since 1970"),
        ({"price": -1}, "price", "a finite number, 0 or more"),
        ({"price": 1e300}, "price", "a finite number, 0 or more"),
        ({"price": "ten"}, "price", "`float`"),
        ({"quantity": -2}, "quantity", "a finite number, 0 or more"),
        ({"value": -0.01}, "value", "a finite number, 0 or more"),
        ({"currency": "JPY"}, "currency", "one of EUR"),
        ({"channel": "pigeon"}, "channel", "one of unknown, direct"),
        ({"device": "watch"}, "device", "one of unknown, desktop"),
        ({"consent": ["everything"]}, "consent", "names out of measure, link"),
        ({"consent": "measure"}, "consent", "`array"),
        ({"referrer": "x" * 5000}, "referrer", "an address of at most"),
        ({"utc_offset": 5000}, "utc_offset", "minutes ahead of UTC"),
        ({"declared": [1, 2, 3, 4, 5]}, "declared", "up to 4 finite numbers"),
        ({"email": "jane@example.org"}, "email", "only the fields visitor, name"),
        ({"id": "x" * 600}, "id", "at most 512"),
        ({"page": "/" + "x" * 5000}, "page", "a path of at most"),
        ({"interactive": "yes"}, "interactive", "`bool"),
    ],
)
def test_a_bad_field_is_named_with_what_is_expected(fields: dict[str, object], field: str, expected: str) -> None:
    with pytest.raises(FieldError) as caught:
        take(**fields)
    assert caught.value.field == field
    assert re.search(expected, caught.value.expected), caught.value.expected
    if field in ("visitor", "session", "id", "page"):
        assert caught.value.found == "(not repeated)" or "type" in caught.value.found
    assert "jane@" not in caught.value.found


def test_a_missing_field_is_named() -> None:
    with pytest.raises(FieldError) as caught:
        INTAKE.event(b'{"visitor": "jane"}', NOW, lambda raw, linked: 1)
    assert caught.value.field == "name"

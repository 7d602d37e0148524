"""Trackers collect events and send them together, again and again until they hear an answer: each counts once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from features.sessions import RECENT_IDS
from serving.app import App
from serving.engine import Engine
from serving.reading import TooManyError
from serving.requests import Request
from serving.sessions import key_of
from serving.tails import BATCH_IDS, TOKENS_BYTES
from tests.serving.every_store import EVERY, settings_of
from tests.serving.in_process import client, engine_of, open_engine, post, start

pytestmark = pytest.mark.anyio
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
SHOP = "https://shop.example"
START = 1_800_000_000_000


def snowplow(numbers: Sequence[int]) -> tuple[str, str]:
    events = [{"e": "pv", "eid": f"event-{number}", "duid": "jane", "url": f"{SHOP}/p/{number}"} for number in numbers]
    return "/com.snowplowanalytics.snowplow/tp2", json.dumps({"data": events})


def segment(numbers: Sequence[int]) -> tuple[str, str]:
    calls = [{"type": "page", "anonymousId": "jane", "messageId": f"call-{number}"} for number in numbers]
    return "/v1/batch", json.dumps({"batch": calls})


def matomo(numbers: Sequence[int]) -> tuple[str, str]:
    requests = [f"?idsite=1&rec=1&_id=jane&url={SHOP}/p/{number}&rand={number}" for number in numbers]
    return "/matomo.php", json.dumps({"requests": requests})


def matomo_carts(numbers: Sequence[int]) -> tuple[str, str]:
    """Each with one more of a product."""
    carts = [f'[["SKU-1","","",5,{number + 1}]]' for number in numbers]
    requests = [
        f"?idsite=1&rec=1&_id=jane&idgoal=0&ec_items={cart}&rand={number}"
        for number, cart in zip(numbers, carts, strict=True)
    ]
    return "/matomo.php", json.dumps({"requests": requests})


def tealium(numbers: Sequence[int]) -> tuple[str, str]:
    shared = {"tealium_account": "a", "tealium_profile": "b", "tealium_visitor_id": "jane"}
    events = [{"tealium_event": "product_view", "event_id": f"event-{number}"} for number in numbers]
    return "/bulk-event", json.dumps({"shared": shared, "events": events})


def ga4_measurements(numbers: Sequence[int]) -> tuple[str, str]:
    at = START * 1_000
    events = [
        {"name": "search", "params": {"transaction_id": f"order-{number}"}, "timestamp_micros": at}
        for number in numbers
    ]
    return "/mp/collect?measurement_id=G-1&api_secret=s", json.dumps({"client_id": "1.1", "events": events})


def ga4_hits(numbers: Sequence[int]) -> tuple[str, str]:
    """What a page that is left sends at once; its place is part of an event's id, so only the same is known again."""
    return "/g/collect?v=2&tid=G-1&cid=1.1&_p=1&_s=1", "\r\n".join(f"en=event_{number}" for number in numbers)


def adobe(numbers: Sequence[int]) -> tuple[str, str]:
    identity = {"identityMap": {"ECID": [{"id": "1" * 38}]}}
    page = {"web": {"webPageDetails": {"URL": f"{SHOP}/", "pageViews": {"value": 1}}}}
    events = [{"xdm": {**identity, **page, "_id": f"event-{number}"}} for number in numbers]
    return "/ee/v1/interact?configId=ds&requestId=15cdf34a-9999-4eb6-b21e-7ca1ec7f07c6", json.dumps({"events": events})


Batch = Callable[[Sequence[int]], tuple[str, str]]
WITH_IDS: list[Batch] = [snowplow, segment, matomo, tealium, adobe]


async def sent(app: App, batch: Batch, numbers: Sequence[int]) -> httpx.Response:
    path, body = batch(numbers)
    return await client(app).post(path, content=body, headers={"user-agent": AGENT, "origin": SHOP})


@pytest.mark.parametrize("batch", [*WITH_IDS, ga4_measurements, ga4_hits, matomo_carts])
async def test_a_batch_that_comes_again_counts_once(tmp_path: Path, batch: Batch) -> None:
    count = 25 if batch is ga4_measurements else 40  # Google takes no more
    app = start(tmp_path)
    metrics = engine_of(app).metrics
    for _ in range(3):
        assert (await sent(app, batch, range(count))).is_success
    assert (metrics.events["started"], metrics.events["folded"]) == (1, count - 1)
    dropped = metrics.dropped["matomo", "a cart that was counted"]  # its changes are known by themselves
    assert metrics.events["duplicate"] + dropped == 2 * count


@pytest.mark.parametrize("kind", EVERY)
async def test_every_store_knows_a_batch(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    of = settings_of(kind, tmp_path, request)
    said = {"url": of.url, "prefix": of.prefix, "durability": of.durability, "size_gib": 0.1, "timeout_seconds": 5}
    app = start(tmp_path, *(f"store.{name}={value}" for name, value in said.items()))
    for numbers in (range(20), [100], range(30), [101, 102], range(45), range(30, 50)):
        assert (await sent(app, snowplow, numbers)).is_success
    metrics = engine_of(app).metrics
    await engine_of(app).close()
    assert metrics.events["started"] + metrics.events["folded"] == 53
    assert not metrics.store_errors


@pytest.mark.parametrize("batch", WITH_IDS)
async def test_a_queue_that_has_grown_and_is_cut_otherwise_counts_once(tmp_path: Path, batch: Batch) -> None:
    """Trackers send what has not been answered again with what has come since, in other portions."""
    app = start(tmp_path)
    for numbers in (range(20), range(30), range(45), range(10), range(10, 60), range(30, 37), range(60)):
        assert (await sent(app, batch, numbers)).is_success
    metrics = engine_of(app).metrics
    assert metrics.events["started"] + metrics.events["folded"] == 60


async def test_events_by_themselves_do_not_push_a_batch_out(tmp_path: Path) -> None:
    app = start(tmp_path)
    await sent(app, snowplow, range(40))
    for number in range(100, 120):
        await sent(app, snowplow, [number])
    await sent(app, snowplow, range(40))
    metrics = engine_of(app).metrics
    assert metrics.events == {"started": 1, "folded": 59, "duplicate": 40}


def event(number: int, visitor: str = "jane") -> dict[str, Any]:
    return {"visitor": visitor, "name": "view_item", "id": f"event-{number}"}


async def test_together_in_one_turn_they_count_once_too(tmp_path: Path) -> None:
    engine = open_engine(None, tmp_path, "store.url=memory:")
    first, again = await post(engine, [[event(number) for number in range(40)]] * 2, START)
    assert [answer.status for answer in first] == ["started", *["folded"] * 39]
    assert {(answer.status, answer.events) for answer in again} == {("duplicate", 40)}


async def test_each_visitor_of_a_batch_is_known_by_itself(tmp_path: Path) -> None:
    engine = open_engine(None, tmp_path, "store.url=memory:")
    batch = [event(number, f"visitor-{number % 3}") for number in range(60)]
    (first,) = await post(engine, [batch], START)
    (again,) = await post(engine, [batch[30:] + batch[:30]], START + 1)
    assert [answer.events for answer in first][-3:] == [20] * 3
    assert {(answer.status, answer.events) for answer in again} == {("duplicate", 20)}


async def test_a_batch_is_known_after_midnight(tmp_path: Path) -> None:
    """Its record goes on under another pseudonym then."""
    midnight = START - START % 86_400_000 + 86_400_000
    engine = open_engine(None, tmp_path, "store.url=memory:")
    batch = [event(number) for number in range(40)]
    await post(engine, [batch], midnight - 1_000)
    (again,) = await post(engine, [batch], midnight + 1_000)
    assert {(answer.status, answer.events) for answer in again} == {("duplicate", 40)}


async def test_a_session_that_was_ended_for_an_event_of_a_batch_is_not_ended_again(tmp_path: Path) -> None:
    """Matomo's `new_visit` ends the visitor's session before its event; the batch comes again."""
    app = start(tmp_path)
    await sent(app, matomo, [1_000])
    path, body = matomo(range(40))
    body = body.replace("rand=0", "new_visit=1&rand=0")
    for _ in range(2):
        assert (await client(app).post(path, content=body, headers={"user-agent": AGENT})).is_success
    assert engine_of(app).metrics.events == {"started": 2, "folded": 39, "duplicate": 40}


async def test_what_is_kept_is_bounded_and_goes_with_the_session(tmp_path: Path) -> None:
    engine = open_engine(None, tmp_path, "store.url=memory:")
    record = len(engine.sessions.empty)
    for begin in range(0, 3_000, 1_000):
        await post(engine, [[event(number) for number in range(begin, begin + 1_000)]], START + begin)
    value = kept(engine)
    assert len(value) == record + TOKENS_BYTES + 8 * BATCH_IDS
    (again,) = await post(engine, [[event(number) for number in range(2_000, 3_000)]], START + 5_000)
    assert {answer.status for answer in again} == {"duplicate"}
    # linked, so the record outlives its session
    engine = open_engine(None, tmp_path / "linked", "store.url=memory:", 'session.consent=["measure","link"]')
    await post(engine, [[event(number) for number in range(40)]], START)
    assert len(kept(engine)) == record + TOKENS_BYTES + 8 * 40
    await engine.upkeep.sweep(START + 86_400_000)
    assert len(kept(engine)) == record + TOKENS_BYTES


async def test_few_events_leave_nothing_behind_their_record(tmp_path: Path) -> None:
    engine = open_engine(None, tmp_path, "store.url=memory:")
    await post(engine, [[event(number) for number in range(RECENT_IDS)]], START)
    await post(engine, [[{"visitor": "jane", "name": "search"}] * 50], START)  # they have no ids
    assert len(kept(engine)) == len(engine.sessions.empty)


def kept(engine: Engine) -> bytes:
    """The value of the only visitor."""
    store: Any = engine.store
    (value,) = store._records.values()
    return bytes(value)


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_batches_counts_each_event_once(tmp_path: Path, seed: int) -> None:
    """Beside all of its ids ever: as long as batches are longer than what a record remembers anyway."""
    draw, engine = Random(seed), open_engine(None, tmp_path, "store.url=memory:")
    known: set[int] = set()
    for turn in range(30):
        requests = []
        for _ in range(draw.choice((1, 1, 2))):
            begin = draw.randrange(200)
            numbers = list(range(begin, begin + draw.randrange(RECENT_IDS + 1, 60)))
            draw.shuffle(numbers)
            requests.append(numbers)
        answers = await post(engine, [[event(number) for number in numbers] for numbers in requests], START + turn)
        for numbers, answered in zip(requests, answers, strict=True):
            for number, answer in zip(numbers, answered, strict=True):
                assert (answer.status == "duplicate") == (number in known)
                known.add(number)
    assert answers[-1][-1].events == len(known)


TOO_MANY = {
    snowplow: (200, "ok"),
    segment: (400, "too many"),
    matomo: (400, '"status":"error"'),
    tealium: (400, ""),
    adobe: (422, "too many events"),
    ga4_measurements: (204, ""),
    ga4_hits: (204, ""),
}


@pytest.mark.parametrize("batch", TOO_MANY)
async def test_more_than_are_taken_at_once_are_refused_the_tracker_s_way(tmp_path: Path, batch: Batch) -> None:
    app = start(tmp_path, "server.batch_limit=20")
    metrics = engine_of(app).metrics
    status, told = TOO_MANY[batch]
    answer = await sent(app, batch, range(21))
    assert (answer.status_code, told in answer.text) == (status, True)
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert not metrics.events, "none of them is taken"
    assert list(metrics.dropped) == [(batch.__name__.partition("_")[0], "too many events")]
    assert metrics.dropped.total() == 21
    assert (await sent(app, batch, range(20))).status_code == (200 if status >= 400 else status)
    assert metrics.events.total() == 20


async def test_an_order_of_too_many_products_is_refused_whole(tmp_path: Path) -> None:
    app = start(tmp_path, "server.batch_limit=20")
    items = json.dumps([[f"SKU-{number}", "", "", 5, 1] for number in range(21)])
    order = {"idsite": "1", "rec": "1", "_id": "jane", "idgoal": "0", "ec_id": "A1", "ec_items": items}
    answer = await client(app).get("/matomo.php", params=order, headers={"user-agent": AGENT})
    assert answer.status_code == 400
    assert not engine_of(app).metrics.events


async def test_no_adapter_is_beyond_the_limit(tmp_path: Path) -> None:
    engine = open_engine(None, tmp_path, "store.url=memory:", "server.batch_limit=20")
    request = Request(b"")
    request.wires = Request(b"").wires = engine.reader.intake.split(json.dumps([event(1)] * 21).encode())[0]  # type: ignore[assignment]
    engine.take([request])
    assert isinstance(request.problem, TooManyError)
    assert key_of(1)

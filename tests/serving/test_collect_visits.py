"""What trackers know about a visitor's session before an event is folded: carts, forced visits, pings; over stores."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from serving.app import App
from serving.collect.carts import Carts, Product, cart_key
from serving.engine import Engine
from serving.keys import KeyFile
from serving.sessions import key_of
from tests.redis_server import redis_server
from tests.serving.in_process import client, engine_of, start
from tests.workspace import Service, wait_until

pytestmark = pytest.mark.anyio
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
SITE = "https://shop.example"
VISITOR = "79ad93e49e3f3a55"
SHOES, SOCKS = Product(1, 10, 79.9, 1), Product(2, 20, 5, 3)
MINUTE = 60_000
Begin = Callable[..., App]


@pytest.fixture(params=["memory", "embedded", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of each store in turn."""
    if request.param == "redis":
        with redis_server() as server:
            yield f"store.url={server.url}"
    else:
        yield f"store.url={request.param}:{tmp_path}/live"


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Callable[..., App]]:
    """Starts applications in the test's folder."""
    apps: list[App] = []

    def started(*overrides: str) -> App:
        apps.append(start(tmp_path, *overrides))
        return apps[-1]

    yield started
    for app in apps:
        await engine_of(app).close()


def carts_of(engine: Engine) -> Carts:
    return Carts(engine.store, engine.outage.ask, engine.keys_of, engine.looks.look_at, 30 * MINUTE)


async def exchange(
    engine: Engine, request: str, *cart: Product, at_ms: int = 0, linked: bool = False, ordered: bool = False
) -> Any:
    """A cart at so many ms from now."""
    now = time.time_ns() // MINUTE // 1_000_000 * MINUTE
    return await carts_of(engine).exchange(
        VISITOR, request, cart, now + at_ms, now + at_ms, linked=linked, ordered=ordered
    )


def quantities(changed: Any) -> dict[int, float]:
    return {product.item: product.quantity for product in changed.products}


async def test_every_worker_knows_the_cart(begin: Begin, store: str) -> None:
    one = engine_of(begin(store))
    # LMDB's file is opened once a process; two processes have their test below
    other = engine_of(begin(store)) if "redis" in store else one
    assert quantities(await exchange(one, "a", SHOES)) == {1: 1}
    assert quantities(await exchange(other, "b", SHOES, SOCKS)) == {2: 3}
    removed = await exchange(one, "c", SOCKS)
    assert removed.products == [SHOES._replace(quantity=-1)]  # with its price and category, though the cart had it not
    assert quantities(await exchange(other, "d", ordered=True)) == {}
    assert quantities(await exchange(one, "e", SOCKS)) == {2: 3}


async def test_carts_at_the_same_time_are_told_apart(begin: Begin, store: str) -> None:
    engine = engine_of(begin(store))
    products = [SOCKS._replace(item=number, quantity=1) for number in range(1, 11)]
    found = await asyncio.gather(*(exchange(engine, f"r{count}", *products[:count]) for count in range(1, 11)))
    total: dict[int, float] = {}
    for changed in found:
        for item, more in quantities(changed).items():
            total[item] = total.get(item, 0) + more
    last = await exchange(engine, "end")
    # whatever their order was: what is in the cart at the end is what was put in less what was taken out
    assert {item: more for item, more in total.items() if more} == {i: -more for i, more in quantities(last).items()}


async def test_a_repeated_request_is_told_its_own_change(begin: Begin) -> None:
    engine = engine_of(begin())
    many = [SOCKS._replace(item=number) for number in range(10, 18)]
    first = await exchange(engine, "a", SHOES, SOCKS)
    again = await exchange(engine, "a", SHOES, SOCKS, at_ms=3)
    assert (again.products, again.repeated) == (first.products, False)
    late = await exchange(engine, "a", SHOES, SOCKS, at_ms=2 * MINUTE)
    assert (late.products, late.repeated) == ([], True)
    changed = await exchange(engine, "b", *many)
    assert len(changed.products) == 10
    assert await exchange(engine, "b", *many) == changed
    assert (await exchange(engine, "a", SHOES)) == ([], True)
    assert len((await exchange(engine, "", SHOES)).products) == 9
    assert (await exchange(engine, "", SHOES)) == ([], False)


async def test_the_cart_lasts_as_long_as_the_session(begin: Begin) -> None:
    app = begin()
    engine = engine_of(app)
    http = client(app)
    await exchange(engine, "a", SHOES)
    # within the timeout nobody asks for the session
    assert quantities(await exchange(engine, "b", SHOES, SOCKS, at_ms=29 * MINUTE)) == {2: 3}
    # no session has gone on so long
    assert quantities(await exchange(engine, "c", SHOES, at_ms=60 * MINUTE)) == {1: 1}
    await carts_of(engine).forget(VISITOR, linked=False)
    assert quantities(await exchange(engine, "d", SHOES, SOCKS)) == {1: 1, 2: 3}
    # one that has: an event before, and one in between
    for minutes in (0, 25, 50):
        event = {"visitor": VISITOR, "name": "page_view", "time": time.time_ns() // 1_000_000 - (60 - minutes) * MINUTE}
        assert (await http.post("/v1/events", json=event)).status_code == 200
    await exchange(engine, "e", SHOES, at_ms=-59 * MINUTE)
    assert quantities(await exchange(engine, "f", SHOES, SOCKS, at_ms=-5 * MINUTE)) == {2: 3}


async def test_consent_to_link_takes_the_cart_along(begin: Begin, store: str) -> None:
    engine = engine_of(begin(store))
    await exchange(engine, "a", SHOES)
    assert quantities(await exchange(engine, "b", SHOES, SOCKS, linked=True)) == {2: 3}
    lies = await asyncio.gather(*(read(engine, linked=linked) for linked in (False, True)))
    assert [bool(value) for value in lies] == [False, True]


async def read(engine: Engine, *, linked: bool) -> bytes | None:
    key = cart_key(engine.keys_of(VISITOR, linked=linked)[0])
    found: bytes | None = await engine.outage.ask(lambda: engine.store.read(key))
    return found


async def test_carts_are_swept_and_handed_on_to_nobody(begin: Begin, store: str) -> None:
    engine = engine_of(begin(store))
    await exchange(engine, "a", SHOES)
    value = await read(engine, linked=False)
    assert value is not None and b"SKU" not in value and VISITOR.encode() not in value
    now = time.time_ns() // 1_000_000
    assert await engine.upkeep.sweep(now + 119 * MINUTE - 2 * MINUTE) == 0
    assert await engine.upkeep.sweep(now + 121 * MINUTE) == 1
    assert await read(engine, linked=False) is None
    claimed = await engine.outage.ask(lambda: engine.store.claim(10, now, 1_000))
    assert claimed is None


def wire(**parameters: object) -> str:
    given = {"idsite": 1, "rec": 1, "url": f"{SITE}/p/1", "_id": VISITOR, "send_image": 0, **parameters}
    return urlencode(given)


async def sent(http: httpx.AsyncClient, **parameters: object) -> None:
    answer = await http.post(f"/matomo.php?{wire(**parameters)}", headers={"user-agent": AGENT, "origin": SITE})
    assert answer.status_code == 204, answer.text


def sessions(app: App) -> dict[str, int]:
    return dict(engine_of(app).metrics.events)


def dropped(app: App) -> dict[tuple[str, str], int]:
    return dict(engine_of(app).metrics.dropped)


async def test_a_new_visit_ends_the_one_before(begin: Begin, store: str) -> None:
    app = begin(store)
    http = client(app)
    await sent(http, r=1)
    await sent(http, r=2, idgoal=0, ec_items=json.dumps([["SKU-1", "", "", 5, 1]]))
    assert sessions(app) == {"started": 1, "folded": 1}
    await sent(http, r=3, new_visit=1)
    assert sessions(app) == {"started": 2, "folded": 1}
    # the browser repeats what it got no answer for
    await sent(http, r=3, new_visit=1)
    assert sessions(app) == {"started": 2, "folded": 1, "duplicate": 1}
    # the cart of the visit before is forgotten
    await sent(http, r=4, idgoal=0, ec_items=json.dumps([["SKU-1", "", "", 5, 1]]))
    assert sessions(app) == {"started": 2, "folded": 2, "duplicate": 1}
    engine = engine_of(app)
    batch = await engine.outage.ask(lambda: engine.store.claim(10, time.time_ns() // 1_000_000, 1_000))
    assert batch is not None and len(batch.sessions) == 1


async def test_pings_go_on_with_a_session_and_begin_none(begin: Begin) -> None:
    app = begin()
    http = client(app)
    await sent(http, r=1, ping=1)
    assert (sessions(app), dropped(app)) == ({}, {("matomo", "a ping without a session"): 1})
    await sent(http, r=2)
    await sent(http, r=3, ping=1)
    assert sessions(app) == {"started": 1, "folded": 1}


async def test_a_session_goes_on_when_cookies_are_allowed(begin: Begin, store: str) -> None:
    app = begin(store)
    http = client(app)
    await sent(http, r=1, _id="")
    await sent(http, r=2, ping=1, consent=1)
    await sent(http, r=3, consent=1)
    assert sessions(app) == {"started": 1, "folded": 2}
    view = await engine_of(app).looks.look_at(VISITOR)
    assert view is not None and view.events == 3
    # who comes after it from the same place is somebody else
    await sent(http, r=4, _id="")
    assert sessions(app) == {"started": 2, "folded": 2}


async def test_a_token_is_a_secret_key_of_the_service(begin: Begin) -> None:
    app = begin()
    engine = engine_of(app)
    file = KeyFile(Path(engine.settings.keys.folder))
    _, secret = file.create("secret", "importer")
    _, public = file.create("public", "shop")
    assert app.gate is not None
    app.gate.keys.follow()
    http = client(app)
    old = wire(cdt="2024-01-01 00:00:00", r=1)
    for token, status in ((public, 400), ("guessed", 400), (secret, 204)):
        answer = await http.post("/matomo.php", content=f"{old}&token_auth={token}", headers={"user-agent": AGENT})
        assert answer.status_code == status
    assert dropped(app) == {("matomo", "an old time without a token"): 2}


async def test_without_a_store_an_order_counts_and_a_cart_does_not(begin: Begin) -> None:
    with redis_server() as server:
        app = begin(f"store.url={server.url}")
        http = client(app)
        await sent(http, r=1)
    # the server is gone
    await sent(http, r=2, idgoal=0, ec_items=json.dumps([["SKU-1", "", "", 5, 1]]))
    assert dropped(app) == {("matomo", "the store does not answer"): 1}
    await sent(http, r=3, idgoal=0, ec_id="ORD-1", revenue=5)
    assert sum(sessions(app).values()) == 2


@pytest.mark.slow
def test_no_change_of_a_cart_is_lost_or_doubled_by_kills(own_service: Callable[..., Service]) -> None:
    """kill -9 of both workers and their supervisor while carts come, each sent again until it is answered."""
    service = own_service("server.workers=2")
    stop = threading.Event()
    visitors = [f"{number:016x}" for number in range(8)]
    sent_carts: dict[str, int] = dict.fromkeys(visitors, 0)

    def shop(visitor: str) -> None:
        # patient: what is sent again while it is still being done may come after more events than a record knows
        patient = {"timeout": 120, "base_url": f"http://127.0.0.1:{service.port}", "headers": {"user-agent": AGENT}}
        with httpx.Client(**patient) as http:
            while not stop.is_set():
                number = sent_carts[visitor] + 1
                items = json.dumps([["SKU-1", "", "", 5, number]])
                query = wire(_id=visitor, r=number, idgoal=0, ec_items=items)
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        if http.post(f"/matomo.php?{query}").status_code == 204:
                            break
                    time.sleep(0.01)
                sent_carts[visitor] = number

    def goes_on() -> None:
        before = sum(sent_carts.values())
        wait_until(lambda: sum(sent_carts.values()) > before + 200, seconds=60)

    threads = [threading.Thread(target=shop, args=(visitor,)) for visitor in visitors]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            goes_on()
            service.kill()
            service.start()
        goes_on()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert added(service) == sorted(float(count) for count in sent_carts.values())


def added(service: Service) -> Sequence[float]:
    """Of each session, how many products were put into the cart."""
    from tests.browser.clients import records  # noqa: PLC0415

    return sorted(found["cart_units"] for found in records(service))


def test_a_cart_lies_beside_its_session() -> None:
    assert cart_key(key_of(7)) != key_of(7) and len(cart_key(key_of(7))) == 8


async def test_who_is_erased_leaves_no_cart(begin: Begin, store: str) -> None:
    app = begin(store)
    engine = engine_of(app)
    async with client(app) as http:
        await http.post("/v1/events", json={"visitor": VISITOR, "name": "page_view"})
        await exchange(engine, "one", SHOES, SOCKS)
        before = await counted(engine)
        assert (await http.post("/v1/visitors/erase", json={"visitor": VISITOR})).json()["records"] == 1
        assert before - await counted(engine) == 2  # the session, and the cart beside it


async def counted(engine: Engine) -> int:
    found: Any = engine.store.count()
    return int(await found if asyncio.iscoroutine(found) else found)

"""Consent to link that is withdrawn after a login, by every tracker that knows accounts, with every store.

Such an event is the device's. What is linked of the account that it names goes all the same, and nobody else's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import pyarrow.parquet as pq
import pytest

from features.events import CONSENT_LINK
from serving.app import App
from serving.collect.carts import Carts, Product, cart_key
from serving.engine import Engine
from serving.replay import replay
from serving.sessions import history_of, visitor_of
from tests.cassandra_server import cassandra_server, make_keyspace
from tests.redis_server import redis_server
from tests.server_process import ServerProcess
from tests.serving.every_store import EVERY, settings_of
from tests.serving.in_process import ask, engine_of, start
from tests.serving.test_lane import Served, chunked, serving
from tests.serving.test_lane import request as packet
from tests.serving.test_withdrawal import done
from tests.workspace import wait_until

MINUTE: Final = 60_000
VENDOR: Final = "iglu:com.snowplowanalytics.snowplow"
PAGE: Final = "https://shop.example/p/1"
AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"


class Sent(NamedTuple):
    """A request of a tracker's client."""

    target: str
    body: bytes = b""
    headers: tuple[str, ...] = ()

    @property
    def packet(self) -> bytes:
        return packet(self.body, f"user-agent: {AGENT}", *self.headers, url=self.target)


# What a visitor has said: yes; no; nothing; nothing, in a browser that objects.
YES, NO, NOTHING, GPC = "yes", "no", "nothing", "gpc"


def segment(account: str, said: str, name: str = "Order Completed") -> Sent:
    call: dict[str, Any] = {"anonymousId": f"device of {account}", "userId": account, "event": name}
    call["properties"] = {"total": 20}
    if said in (YES, NO):
        call["context"] = {"consent": {"categoryPreferences": {"Analytics": said == YES}}}
    return Sent("/v1/t", json.dumps(call).encode(), _gpc(said))


def snowplow(account: str, said: str, name: str = "tr") -> Sent:
    event = {"e": name, "p": "web", "duid": f"device of {account}", "uid": account, "url": PAGE, "tr_id": "1"}
    if said in (YES, NO):
        choice = {"eventType": "allow_all" if said == YES else "deny_all"}
        entity = {"schema": f"{VENDOR}/consent_preferences/jsonschema/1-0-0", "data": choice}
        event["co"] = json.dumps({"schema": f"{VENDOR}/contexts/jsonschema/1-0-0", "data": [entity]})
    return Sent("/com.snowplowanalytics.snowplow/tp2", json.dumps({"data": [event]}).encode(), _gpc(said))


def ga4(account: str, said: str, name: str = "purchase") -> Sent:
    hit = {"v": "2", "tid": "G-1", "cid": f"device of {account}", "uid": account, "en": name, "dl": PAGE}
    if said in (YES, NO):
        hit |= {"gcs": "G111", "gcd": "13r3r3r3r5l1"} if said == YES else {"gcs": "G100", "gcd": "13q3q3q3q5l1"}
    return Sent(f"/g/collect?{urlencode(hit)}", headers=_gpc(said))


def matomo(account: str, said: str, name: str = "") -> Sent:
    hit = {"idsite": "1", "rec": "1", "_id": f"device of {account}", "uid": account, "url": PAGE, "action_name": name}
    if said in (YES, NO):
        hit["consent"] = "1" if said == YES else "0"
    return Sent("/matomo.php", urlencode(hit).encode(), _gpc(said))


def adobe(account: str, said: str, name: str = "commerce.purchases") -> Sent:
    known = [{"id": account, "authenticatedState": "authenticated", "primary": True}]
    xdm = {"eventType": name, "identityMap": {"CRM": known, "ECID": [{"id": device_of("adobe", account)}]}}
    told = {YES: "general=in", NO: "general=in;link=out"}.get(said)
    entries = [{"key": "kndctr_ORG_AdobeOrg_consent", "value": told}] if told else []
    body = {"events": [{"xdm": xdm}], "meta": {"state": {"entries": entries}}}
    # the request's own id names its events
    target = f"/ee/v1/interact?configId=ds&requestId={time.time_ns()}"
    return Sent(target, json.dumps(body).encode(), _gpc(said))


def _gpc(said: str) -> tuple[str, ...]:
    return ("sec-gpc: 1",) if said == GPC else ()


TRACKERS: Final[dict[str, Callable[..., Sent]]] = {
    "adobe": adobe, "ga4": ga4, "matomo": matomo, "segment": segment, "snowplow": snowplow,
}  # fmt: skip


def id_of(tracker: str, account: str) -> str:
    """What the events of an account have as their visitor's id."""
    if tracker == "matomo":
        return hashlib.sha1(account.encode(), usedforsecurity=False).hexdigest()[:16]
    return f"CRM {account}" if tracker == "adobe" else account


def device_of(tracker: str, account: str) -> str:
    """The same of its device."""
    return f"{sum(account.encode()):038}" if tracker == "adobe" else f"device of {account}"


async def send(app: App, sent: Sent) -> None:
    headers = [tuple(part.strip().encode() for part in line.split(":", 1)) for line in sent.headers]
    headers.append((b"user-agent", AGENT.encode()))
    status, answer = await ask(app, "POST", sent.target.encode(), headers, sent.body)  # type: ignore[arg-type]
    assert status in (200, 204), answer


def lasting(engine: Engine, raw: str) -> bytes:
    (key,) = engine.lasting_keys([raw])
    return key


async def put_in_cart(engine: Engine, raw: str) -> None:
    carts = Carts(engine.store, engine.outage.ask, engine.keys_of, engine.looks.look_at, 30 * MINUTE)
    now = time.time_ns() // 1_000_000
    await carts.exchange(raw, "", [Product(1, 2, 5.0, 1.0)], now, now, linked=True, ordered=False)


async def left(engine: Engine, raw: str) -> list[bool]:
    """Whether there are a record and a cart under a visitor's lasting key."""
    key = lasting(engine, raw)
    return [await done(engine.store.read(one)) is not None for one in (key, cart_key(key))]


def rows(engine: Engine) -> list[dict[str, Any]]:
    files = Path(engine.settings.store.closed).rglob("*.parquet")
    return [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]


async def two_customers(app: App, tracker: str) -> None:
    """Jane and John buy after a login with consent, and come again later with something in the cart."""
    engine, wire = engine_of(app), TRACKERS[tracker]
    for account in ("jane", "john"):
        await send(app, wire(account, YES))
    later = time.time_ns() // 1_000_000 + 60 * MINUTE
    await engine.upkeep.sweep(later)
    assert await engine.upkeep.hand_over(later) == 2
    for account in ("jane", "john"):
        raw = id_of(tracker, account)
        await send(app, wire(account, YES))
        await put_in_cart(engine, raw)
        assert await left(engine, raw) == [True, True]


def overrides_of(store: str, folder: Path, request: pytest.FixtureRequest) -> list[str]:
    asked = settings_of(store, folder, request).model_dump(include={"url", "prefix", "timeout_seconds", "durability",
                                                                    "size_gib"})  # fmt: skip
    return [f"store.{key}={value!r}" if isinstance(value, float) else f'store.{key}="{value}"'
            for key, value in asked.items()]  # fmt: skip


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize("store", EVERY)
def test_a_refusal_erases_what_is_linked_of_the_account(
    tmp_path: Path, store: str, tracker: str, request: pytest.FixtureRequest
) -> None:
    overrides = overrides_of(store, tmp_path, request)

    async def test() -> None:
        app = start(tmp_path, *overrides)
        engine, wire = engine_of(app), TRACKERS[tracker]
        jane, john = id_of(tracker, "jane"), id_of(tracker, "john")
        await two_customers(app, tracker)
        counted = engine.metrics.events.total()
        # to say nothing takes nothing back
        await send(app, wire("jane", NOTHING))
        assert await left(engine, jane) == [True, True]
        await send(app, wire("jane", NO))
        assert await left(engine, jane) == [False, False]
        assert await left(engine, john) == [True, True]
        assert engine.metrics.events.total() > counted  # the device's event counts
        # neither does the schedule know it
        now = time.time_ns() // 1_000_000
        scheduled = {entry.key for entry in await done(engine.store.due(now + 400 * 24 * 60 * MINUTE, 1_000))}
        assert lasting(engine, jane) not in scheduled and lasting(engine, john) in scheduled
        await engine.upkeep.hand_over(now)
        whose = {row["visitor"]: row for row in rows(engine)}
        assert visitor_of(lasting(engine, jane)) not in whose and len(whose) == 2
        known = whose.pop(visitor_of(lasting(engine, john)))
        (nobody,) = whose.values()
        assert known["consent"] & CONSENT_LINK and not nobody["consent"] & CONSENT_LINK
        assert not any(nobody[name] is not None for name in history_of(engine.fold))
        # a refusal by somebody who is not known leaves nothing behind
        for _ in range(2):
            await send(app, wire("jane", NO))
        notes = [path.name for path in Path(engine.settings.store.closed).glob(".unlink-*")]
        assert notes == [f".unlink-{visitor_of(lasting(engine, jane)) % 2**64:016x}.done"]
        # with consent that is given again, nothing is known of what was before
        await send(app, wire("jane", YES))
        assert await left(engine, jane) == [True, False]
        await engine.close()

    asyncio.run(test())


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize("said", [NO, GPC])
def test_both_ways_of_requests_erase_it(tmp_path: Path, tracker: str, said: str) -> None:
    """The short way of whole requests, and the usual one."""
    served = Served(tmp_path)
    wire = TRACKERS[tracker]
    with contextmanager(serving)(served):
        engine = engine_of(served.app)
        for account in ("jane", "john"):
            served.ask(wire(account, YES).packet)
        assert all(asyncio.run(left(engine, id_of(tracker, each)))[0] for each in ("jane", "john"))
        for account, way in (("jane", bytes), ("john", chunked)):
            served.ask(way(wire(account, said).packet))
            assert not asyncio.run(left(engine, id_of(tracker, account)))[0]
        wait_until(lambda: served.went == ["Whole", "Whole", "Whole", "RequestResponseCycle"])


def test_denied_by_a_page_before_anybody_was_asked(tmp_path: Path) -> None:
    """Consent Mode tells it from a visitor's choice; without that, what is denied is denied."""

    async def test() -> None:
        app = start(tmp_path)
        engine = engine_of(app)
        await two_customers(app, "ga4")
        for gcd, stays in (("13p3p3p3p5l1", True), ("13u3u3u3u5l1", False), ("", False)):
            await send(app, ga4("jane", YES))
            hit = {"v": "2", "tid": "G-1", "uid": "jane", "en": "page_view", "gcs": "G100", "gcd": gcd}
            await send(app, Sent(f"/g/collect?{urlencode(hit)}"))
            assert (await left(engine, "jane"))[0] == stays
        await engine.close()

    asyncio.run(test())


def test_another_basis_for_an_event_is_no_refusal(tmp_path: Path) -> None:
    async def test() -> None:
        app = start(tmp_path)
        await two_customers(app, "snowplow")
        basis = {"schema": f"{VENDOR}/gdpr/jsonschema/1-0-0", "data": {"basisForProcessing": "contract"}}
        event = {"e": "pv", "p": "srv", "uid": "jane", "url": PAGE}
        event["co"] = json.dumps({"schema": f"{VENDOR}/contexts/jsonschema/1-0-0", "data": [basis]})
        await send(app, Sent("/com.snowplowanalytics.snowplow/tp2", json.dumps({"data": [event]}).encode()))
        assert await left(engine_of(app), "jane") == [True, True]
        await engine_of(app).close()

    asyncio.run(test())


def set_consent(account: str) -> Sent:
    """What alloy sends when the visitor refuses everything: no event, and none after it."""
    known = [{"id": account, "authenticatedState": "authenticated"}]
    identities = {"CRM": known, "ECID": [{"id": device_of("adobe", account)}]}
    consent = [{"standard": "Adobe", "version": "1.0", "value": {"general": "out"}}]
    body = json.dumps({"identityMap": identities, "consent": consent}).encode()
    return Sent("/ee/v1/privacy/set-consent?configId=ds&requestId=r-9", body)


def identify(account: str) -> Sent:
    call = {"userId": account, "context": {"consent": {"categoryPreferences": {"Analytics": False}}}}
    return Sent("/v1/i", json.dumps(call).encode())


@pytest.mark.parametrize("tracker", ["adobe", "segment"])
def test_what_is_no_event_may_tell_it(tmp_path: Path, tracker: str) -> None:
    async def test() -> None:
        app = start(tmp_path)
        engine = engine_of(app)
        await two_customers(app, tracker)
        device = device_of(tracker, "jane")
        # Adobe's device was linked before the login
        ecid = {"ECID": [{"id": device}]}
        entries = [{"key": "kndctr_ORG_AdobeOrg_consent", "value": "general=in"}]
        body = {"events": [{"xdm": {"eventType": "x"}}], "identityMap": ecid, "meta": {"state": {"entries": entries}}}
        if tracker == "adobe":
            await send(app, Sent("/ee/v1/interact?configId=ds&requestId=r-1", json.dumps(body).encode()))
            assert (await left(engine, device))[0]
        await send(app, set_consent("jane") if tracker == "adobe" else identify("jane"))
        assert await left(engine, id_of(tracker, "jane")) == [False, False]
        assert await left(engine, id_of(tracker, "john")) == [True, True]
        assert not (await left(engine, device))[0]
        await engine.close()

    asyncio.run(test())


def test_who_refuses_at_the_same_time_as_consenting_is_not_linked(tmp_path: Path) -> None:
    async def test() -> None:
        app = start(tmp_path)
        calls = [json.loads(segment("jane", said).body) | {"type": "track"} for said in (YES, NO)]
        await send(app, Sent("/v1/b", json.dumps({"batch": calls}).encode()))
        assert not (await left(engine_of(app), "jane"))[0]
        await engine_of(app).close()

    asyncio.run(test())


def test_a_batch_that_names_too_many_accounts_is_taken_as_one_of_too_many_events(tmp_path: Path) -> None:
    async def test() -> None:
        app = start(tmp_path, "server.batch_limit=10")
        await two_customers(app, "segment")
        calls = [
            json.loads(identify(account).body) | {"type": "identify"} for account in ("jane", *map(str, range(10)))
        ]
        status, _ = await ask(app, "POST", b"/v1/b", body=json.dumps({"batch": calls}).encode())
        assert status == 400 and await left(engine_of(app), "jane") == [True, True]
        await engine_of(app).close()

    asyncio.run(test())


@pytest.fixture(params=["redis", "cassandra"])
def pausable(request: pytest.FixtureRequest) -> Iterator[tuple[str, ServerProcess]]:
    """The URL of a store of its own, and its server."""
    if request.param == "redis":
        with redis_server() as redis:
            yield redis.url, redis
    else:
        with cassandra_server(commitlog_sync="batch") as server:
            make_keyspace(server.port)
            yield server.url, server


async def replayed(engine: Engine) -> None:
    async with asyncio.timeout(60):
        while engine.outage.active or list(Path(engine.settings.store.spool).iterdir()):
            await replay(engine)
            await asyncio.sleep(0.05)


def test_it_is_erased_when_the_store_is_back(tmp_path: Path, pausable: tuple[str, ServerProcess]) -> None:
    """Also by the next worker; and meanwhile nothing on the disk tells whose account a device's is."""
    url, server = pausable
    overrides = [
        f"store.url={url}", f"store.prefix=t{time.time_ns()}", "store.deadline_seconds=2", "store.retry_seconds=0.05",
    ]  # fmt: skip

    async def before() -> None:
        app = start(tmp_path, *overrides)
        engine = engine_of(app)
        await two_customers(app, "segment")
        await two_adobe_customers(app)
        server.pause()
        try:
            await send(app, segment("jane", NO))
            await send(app, set_consent("jane"))  # without any event
            assert engine.metrics.buffered_events == 1 and engine.outage.active
            keys: Sequence[bytes] = [lasting(engine, "jane"), lasting(engine, "CRM jane")]
            spooled = b"".join(path.read_bytes() for path in (tmp_path / "spool").rglob("data.mdb"))
            assert spooled and not any(key in spooled for key in keys)
        finally:
            await asyncio.to_thread(server.resume)
            await engine.close()

    async def after() -> None:
        app = start(tmp_path, *overrides)
        engine = engine_of(app)
        assert [await left(engine, raw) for raw in ("jane", "CRM jane")] == [[True, True], [True, False]]
        await replayed(engine)
        assert [await left(engine, raw) for raw in ("jane", "CRM jane")] == [[False, False], [False, False]]
        assert [await left(engine, raw) for raw in ("john", "CRM john")] == [[True, True], [True, False]]
        await engine.upkeep.hand_over(time.time_ns() // 1_000_000)
        assert visitor_of(lasting(engine, "jane")) not in {row["visitor"] for row in rows(engine)}
        await engine.close()

    asyncio.run(before())
    asyncio.run(after())


async def two_adobe_customers(app: App) -> None:
    for account in ("jane", "john"):
        await send(app, adobe(account, YES))


def test_what_is_linked_before_the_refusal_is_replayed_and_erased(tmp_path: Path) -> None:
    async def test() -> None:
        with redis_server() as redis:
            app = start(tmp_path, f"store.url={redis.url}", "store.deadline_seconds=1", "store.retry_seconds=0.05")
            engine = engine_of(app)
            await two_customers(app, "segment")
            redis.pause()
            for said in (YES, NO):
                await send(app, segment("jane", said))
            await asyncio.to_thread(redis.resume)
            await replayed(engine)
            assert await left(engine, "jane") == [False, False]
            await engine.close()

    asyncio.run(test())


def test_a_refusal_whose_day_has_no_key_any_more_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After more than 48 hours nobody can tell whose it is."""

    async def test() -> None:
        with redis_server() as redis:
            overrides = [f"store.url={redis.url}", "store.deadline_seconds=1", "store.retry_seconds=0.05"]
            app = start(tmp_path, *overrides)
            await two_customers(app, "segment")
            redis.pause()
            await send(app, segment("jane", NO))
            await engine_of(app).close()
            await asyncio.to_thread(redis.resume)
            for path in tmp_path.glob("day-*.key"):
                path.unlink()
            engine = engine_of(start(tmp_path, *overrides))
            await replayed(engine)
            assert "1 withdrawals waited for the store" in caplog.text and "jane" not in caplog.text
            assert await left(engine, "jane") == [True, True]
            await engine.close()

    asyncio.run(test())

"""A visitor's rights over HTTP and on the command line: to see, to erase, to object."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from features.events import Event
from serving.app import App
from serving.keys import KeyFile
from serving.memory import EVENT
from serving.sessions import key_of
from serving.spool import SpooledTurn, SpooledVisit, new_spool
from tests.serving.in_process import client, engine_of, start
from tests.serving.test_withdrawal import done
from tests.workspace import lotse, workspace

pytestmark = pytest.mark.anyio
LINKED = ["measure", "link"]
VIEW = {"visitor": "jane", "name": "view_item", "item": "sku-1", "price": 20.0}
ME = "/v1/visitors/me"
NOTHING: dict[str, list[Any]] = {"records": [], "waiting": [], "handed_on": [], "buffered": [], "decisions": [],
                                "undelivered": []}  # fmt: skip


@pytest.fixture(params=["memory", "embedded"])
async def app(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[App]:
    found = start(tmp_path, f"store.url={request.param}:{tmp_path}/live", f'decisions.folder="{tmp_path}/decisions"',
                  "decisions.sample=1")  # fmt: skip
    yield found
    await engine_of(found).close()


async def token_of(http: httpx.AsyncClient, **more: Any) -> str:
    answer = await http.post("/v1/events", json={**VIEW, **more})
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["session"]
    return token


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def shown(http: httpx.AsyncClient, token: str) -> dict[str, Any]:
    answer = await http.get(ME, headers=bearer(token))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    del found["meanings"]
    return found


async def test_a_visitor_sees_what_is_held_in_words(app: App) -> None:
    async with client(app) as http:
        token = await token_of(http, consent=LINKED)
        await engine_of(app).upkeep.log_decisions()
        found = (await http.get(f"{ME}?token={token}")).json()
        (record,) = found["records"]
        assert (record["state"], record["events"], record["consent"]) == ("running", 1, LINKED)
        assert record["automated"] is True
        assert record["session"]["price_viewed_max"] == 20.0 and record["history"]["visitor_visits"] == 1
        assert found["meanings"]["visitor_visits"] == "Linked visits, the running one included."
        assert set(record["session"]) | set(record["history"]) <= set(found["meanings"])
        # the log of decisions knows no lasting pseudonym
        assert found["decisions"] == []
        other = await token_of(http, visitor="john")
        await engine_of(app).upkeep.log_decisions()
        assert len((await shown(http, other))["decisions"]) == 1


async def hand_on(app: App, later_ms: int) -> None:
    engine = engine_of(app)
    await engine.upkeep.sweep(later_ms)
    await engine.upkeep.hand_over(later_ms)


async def test_every_place_is_shown_and_erased(app: App, tmp_path: Path) -> None:
    engine = engine_of(app)
    now = time.time_ns() // 1_000_000
    async with client(app) as http:
        token = await token_of(http, consent=LINKED)
        john = await token_of(http, visitor="john", consent=LINKED)
        await hand_on(app, now + 3_600_000)  # a row each
        token = await token_of(http, consent=LINKED)
        await engine.upkeep.sweep(now + 7_200_000)  # a session each that waits
        token = await token_of(http, consent=LINKED)
        visitor, _ = engine.looks.opened(token)
        spool = new_spool(Path(engine.settings.store.spool), limit_bytes=10**6, sync=False, seal=None)
        for each in (visitor, 7):
            spool.add(SpooledTurn(now, [SpooledVisit(EVENT.pack(*Event(visitor=each, time=now)), [], b"")])).write()
        spool._env.close()  # as another process left it
        spool._lock.close()
        found = await shown(http, token)
        assert {name: len(rows) for name, rows in found.items()} == {
            "records": 1, "waiting": 1, "handed_on": 1, "buffered": 1, "decisions": 0, "undelivered": 0
        }  # fmt: skip
        assert found["buffered"][0]["name"] == "custom"
        assert found["handed_on"][0]["price_viewed_max"] == 20.0
        answer = await http.delete(ME, headers=bearer(token))
        assert answer.json() == {"records": 1, "waiting": 1, "handed_on": 1, "buffered": 1, "undelivered": 0}
        assert await shown(http, token) == NOTHING
        assert (await http.delete(ME, headers=bearer(token))).json() == dict.fromkeys(answer.json(), 0)
        assert (await http.get(f"/v1/sessions/{token}")).status_code == 404
        # neither the schedule nor a file knows the visitor any more; others are as they were
        key = key_of(visitor)
        assert key not in [entry.key for entry in await done(engine.store.due(now * 2, 1_000))]
        rows = [row for path in tmp_path.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
        assert [row["visitor"] for row in rows] == [engine.looks.opened(john)[0]]
        assert len((await shown(http, john))["records"]) == 1
        ((left,),) = [spool.of([7]) for spool in engine.outage.spools()]
        assert left.visitor == 7


async def test_a_batch_that_was_being_written_is_erased_afterwards(app: App, tmp_path: Path) -> None:
    engine, now = engine_of(app), time.time_ns() // 1_000_000
    async with client(app) as http:
        token = await token_of(http, consent=LINKED)
        await engine.upkeep.sweep(now + 3_600_000)
        batch = await done(engine.store.claim(10, now, 60_000))
        assert (await http.delete(ME, headers=bearer(token))).json()["waiting"] == 1
        engine.sink.write(batch)  # by a worker that had claimed it before
        assert len(list(tmp_path.rglob("*.parquet"))) == 1
        await engine.upkeep.hand_over(now)
        assert not list(tmp_path.rglob("*.parquet"))


async def test_only_a_token_opens(app: App, tmp_path: Path) -> None:
    key = KeyFile(tmp_path).create("secret", "server")[1]
    public = KeyFile(tmp_path).create("public", "shop")[1]
    assert app.gate is not None
    app.gate.keys.follow()
    async with client(app) as http:
        answer = await http.post("/v1/events", json={**VIEW, "consent": LINKED}, headers=bearer(key))
        token = answer.json()["session"]
        for headers, query in (({}, ""), (bearer("x" * 43), ""), (bearer(key), ""), ({}, "?token=" + "A" * 43)):
            refused = await http.get(ME + query, headers=headers)
            assert refused.status_code == 401, refused.text
            assert (await http.delete(ME + query, headers=headers)).status_code == 401
        # a visitor's token needs no key of the API beside it, and one does no harm
        assert (await http.get(ME, headers=bearer(token))).status_code == 200
        assert (await http.get(f"{ME}?token={token}&key={public}")).status_code == 200
        body = {"visitor": "jane"}
        for headers, status in (({}, 401), (bearer(token), 401), (bearer(public), 403), (bearer(key), 200)):
            assert (await http.post("/v1/visitors/export", json=body, headers=headers)).status_code == status
            assert (await http.post("/v1/visitors/erase", json=body, headers=headers)).status_code == status


async def test_an_operator_names_a_visitor(app: App) -> None:
    async with client(app) as http:
        await token_of(http)
        await token_of(http, visitor="jane", consent=LINKED)
        await token_of(http, visitor="john")
        found = (await http.post("/v1/visitors/export", json={"visitor": "jane"})).json()
        assert [record["events"] for record in found["records"]] == [2]
        page = {"Origin": "https://evil.example"}
        refused = await http.post("/v1/visitors/erase", json={"visitor": "jane"}, headers=page)
        assert refused.status_code == 403 and "a page of another origin" in refused.json()["detail"]
        assert (await http.post("/v1/visitors/erase", json={"visitor": "jane"})).json()["records"] == 1
        assert (await http.post("/v1/visitors/export", json={"visitor": "jane"})).json()["records"] == []
        assert len((await http.post("/v1/visitors/export", json={"visitor": "john"})).json()["records"]) == 1
        for body in ({}, {"visitor": ""}, {"visitor": "jane", "jane@example.org": 1}, [], "jane@example.org"):
            refused = await http.post("/v1/visitors/export", json=body)
            assert refused.status_code == 422 and "example" not in refused.text


async def test_who_objects_is_answered_with_priors_until_it_is_taken_back(app: App) -> None:
    engine = engine_of(app)
    neutral = {"bounce": "opted_out", "conversion": "opted_out", "exit": "opted_out"}

    async def decide(http: httpx.AsyncClient, token: str, *, automated: bool) -> None:
        answer = await http.post(f"{ME}/decisions", json={"automated": automated}, headers=bearer(token))
        assert (answer.status_code, answer.json()) == (200, {"automated": automated})

    async with client(app) as http:
        for more in ({"consent": LINKED}, {"visitor": "john"}):
            token = await token_of(http, **more)
            answer = (await http.post("/v1/events", json={**VIEW, **more})).json()
            assert answer["reasons"] != neutral
            await decide(http, token, automated=False)
            for _ in range(2):
                answer = (await http.post("/v1/events?explain=true", json={**VIEW, **more})).json()
                assert answer["reasons"] == neutral and "models" not in answer and "explanations" not in answer
                assert answer["scores"] == engine.settings.prior
            seen = (await http.get(f"/v1/sessions/{token}")).json()
            assert (seen["scores"], seen["reasons"]) == (engine.settings.prior, neutral)
            assert (await shown(http, token))["records"][0]["automated"] is False
            # it outlives the session
            await hand_on(app, time.time_ns() // 1_000_000 + 3_600_000)
            answer = (await http.post("/v1/events", json={**VIEW, **more})).json()
            assert (answer["status"], answer["reasons"]) == ("started", neutral)
            token = answer["session"]
            await decide(http, token, automated=True)
            answer = (await http.post("/v1/events", json={**VIEW, **more})).json()
            assert answer["reasons"] != neutral
        # it goes along where consent changes
        token = await token_of(http, visitor="mary")
        await decide(http, token, automated=False)
        for consent in (LINKED, ["measure"], LINKED):
            answer = (await http.post("/v1/events", json={**VIEW, "visitor": "mary", "consent": consent})).json()
            assert (answer["status"], answer["reasons"]) == ("folded", neutral)
        gone = await token_of(http, visitor="gone")
        await http.delete(ME, headers=bearer(gone))
        refused = await http.post(f"{ME}/decisions", json={"automated": False}, headers=bearer(gone))
        assert refused.status_code == 404
        assert (await http.post(f"{ME}/decisions", json={"automated": 0}, headers=bearer(token))).status_code == 422


async def test_the_command_line_does_the_same_beside_a_running_service(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "work")
    data = folder / "lotse-data"
    app = start(data, f"store.url=embedded:{data}/live")
    async with client(app) as http:
        token = await token_of(http, consent=LINKED)
        done_ = lotse(folder, "privacy", "export", "--visitor", "jane")
        assert done_.returncode == 0, done_.stderr
        found = json.loads(done_.stdout)
        assert found["records"] == (await shown(http, token))["records"]
        done_ = lotse(folder, "privacy", "erase", "--visitor", "jane")
        assert done_.stdout == "erased: 1 records, 0 waiting, 0 handed on, 0 buffered, 0 undelivered\n", done_.stderr
        assert await shown(http, token) == NOTHING
    await engine_of(app).close()

"""The Python client with a running service, both ways: what is asked, and what comes back."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import pyarrow as pa
import pytest
from lotse_client import (
    AsyncClient,
    Client,
    Closed,
    Crossing,
    Event,
    Idle,
    LotseError,
    NotModified,
    Refused,
    Unreachable,
)

from tests.clients.conftest import FLAGS
from tests.workspace import Service


@pytest.fixture(scope="module")
def client(keyed: Service, secret: str) -> Iterator[Client]:
    with Client(keyed.url, secret, timeout_seconds=60) as opened:
        yield opened


def view(visitor: str, **more: object) -> Event:
    return Event(visitor=visitor, name="page_view", **more)  # type: ignore[arg-type]


def test_an_event_and_its_session(client: Client) -> None:
    visitor = uuid4().hex
    first = client.event(view(visitor), flags="all")
    assert first.status == "started" and first.scores.keys() == {"bounce", "conversion", "exit"}
    assert first.flags["help_offer"].value == "none" and first.flags["links"].value == {"more": ["a", "b"]}
    second = client.event(view(visitor), flags=["help_offer"], explain=True)
    assert second.session == first.session and second.events == 2
    assert second.flags.keys() == {"help_offer"} and second.flags["help_offer"].value == "chat"
    for explained in second.explanations.values():
        added = sum(one.contribution for one in explained.contributions)
        assert explained.baseline + added + explained.others == pytest.approx(explained.margin)
    now = client.session(first.session)
    assert (now.status, now.events, now.models) == ("read", 2, second.models)


def test_several_events_count_once_however_often_they_are_sent(client: Client) -> None:
    visitor = uuid4().hex
    events = [view(visitor, id=f"{visitor}-{number}") for number in range(20)]
    assert [one.status for one in client.events(events)] == ["started", *["folded"] * 19]
    assert {one.status for one in client.events(events)} == {"duplicate"}
    key = uuid4().hex
    sent = [client.events([view(visitor, id=f"{key}-{number}") for number in range(2)], idempotency_key=key)
            for _ in range(2)]  # fmt: skip
    assert [one.status for one in sent[0]] == ["folded"] * 2 and [one.status for one in sent[1]] == ["duplicate"] * 2
    assert client.event(view(visitor, id="last"), scores=False).events == 23


def test_a_session_is_listened_to_until_it_is_over(keyed: Service, secret: str, client: Client) -> None:
    visitor = uuid4().hex
    token = client.event(view(visitor, session="one")).session
    told = []

    def listen() -> None:
        with Client(keyed.url, secret) as own:
            told.extend(own.stream(token, ["bounce:0.0001"]))

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.5)
    client.event(view(visitor))  # of two pages none is a bounce
    time.sleep(0.5)
    client.event(view(visitor, session="another"))
    listener.join(timeout=20)
    crossings = [(one.head, one.direction) for one in told if isinstance(one, Crossing)]
    assert crossings == [("bounce", "up"), ("bounce", "down")]
    assert isinstance(told[-1], Closed) and told[-1].session == token
    with pytest.raises(Refused, match="404") as refused:
        next(client.stream(token))
    assert refused.value.status == 404


def test_a_silent_visitor_is_told_of(client: Client) -> None:
    token = client.event(view(uuid4().hex)).session
    first = next(client.stream(token))
    assert isinstance(first, Idle) and first.idle_seconds == 5 and first.events == 1


def test_a_flag_that_may_be_another_is_told(client: Client) -> None:
    visitor = uuid4().hex
    token = client.event(view(visitor)).session
    since = client.refetches(token)
    later = threading.Timer(0.5, client.event, [view(visitor)])
    later.start()
    told = next(since)
    later.join()
    assert (told.type, client.flag("help_offer", token).value) == ("refetchEvaluation", "chat")


def test_rows_are_scored_alike_as_json_lines_and_arrow(client: Client) -> None:
    names = client.features().features
    rows = [dict.fromkeys(names, float(number)) for number in range(3)]
    scores = client.score(rows).scores
    assert client.score_lines(rows) == scores
    table = pa.table({name: [row[name] for row in rows] for name in names})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    answered = pa.ipc.open_stream(client.score_arrow(sink.getvalue())).read_all()
    assert answered.column("exit").to_pylist() == pytest.approx([one["exit"] for one in scores])


def test_flags_over_ofrep_and_for_growthbooks_sdks(client: Client) -> None:
    token = client.event(view(uuid4().hex)).session
    flags = client.flags(token, {"country": "DE"})
    values = {one.key: one.value for one in flags.flags}
    assert values == {"help_offer": "none", "price": 1.5, "local_price": 2.5, "links": {"more": ["a", "b"]}}
    with pytest.raises(NotModified):
        client.flags(token, {"country": "DE"}, if_none_match=flags.etag)
    assert client.flag("local_price", token).value == 1.5
    with pytest.raises(Refused) as refused:
        client.flag("other", token)
    assert (refused.value.status, refused.value.code) == (404, "FLAG_NOT_FOUND")
    assert client.evaluate({"id": token, "country": "DE"}).features["local_price"].default_value == 2.5
    features = client.sdk_features()
    assert features.features.keys() == FLAGS["features"].keys()
    with pytest.raises(NotModified):
        client.sdk_features(if_none_match=features.etag)


def test_a_visitors_rights(client: Client) -> None:
    visitor = uuid4().hex
    token = client.event(view(visitor, consent=["measure", "link"])).session
    assert len(client.mine(token).records) == len(client.export(visitor).records) == 1
    assert client.decisions(token, automated=False).automated is False
    assert set(client.session(token).reasons.values()) == {"opted_out"}
    assert client.erase_mine(token).records == 1
    assert client.erase(visitor).records == 0 and client.export(visitor).records == []


def test_the_configuration_is_pushed_and_rolled_back(client: Client) -> None:
    before = client.configuration()
    assert before.configuration == FLAGS and before.etag == f'"{before.version}"'
    would = client.change({"features": {"price": {"defaultValue": 3.5}}}, dry_run=True)
    assert would.dry_run and would.changes["features"].changed == ["price"]
    pushed = client.change({"features": {"price": {"defaultValue": 3.5}}}, if_match=before.version)
    with pytest.raises(Refused) as refused:
        client.replace(before.configuration, if_match=before.version)
    assert refused.value.status == 412
    assert client.version(pushed.version).configuration["features"]["price"]["defaultValue"] == 3.5
    assert client.roll_back().version == before.version
    assert [one.version for one in client.versions().versions][:2] == [before.version, pushed.version]
    assert client.replace(before.configuration, dry_run=True).changes == {}
    assert client.experiments().configuration == before.version


def test_what_operators_look_at(client: Client) -> None:
    assert client.livez() is not None and client.readyz() is not None
    assert "lotse_session_records" in client.metrics()
    assert client.openapi()["info"]["title"] == "Lotse"
    looks = {}
    for look in client.live("exit"):
        looks[look.event] = look.data
        if looks.keys() == {"health", "totals", "rows"}:
            break
    assert looks["rows"] is not None and looks["rows"]["list"] == "exit"
    # it has no registry
    assert client.models().registry is False
    assert client.journeys(begin=["item"], depth=2, since_ms=0)


def test_what_is_refused_is_told_with_its_field(client: Client) -> None:
    with pytest.raises(Refused, match="price") as refused:
        client.events([view("v-1"), view("v-1", price=-1.0)])
    (problem,) = refused.value.problem.errors
    assert (problem.index, problem.field) == (1, "price")
    with pytest.raises(Refused, match="webhooks are not accepted here"):
        client.refresh("secret")


def test_without_a_service_it_says_so_and_names_no_token() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Client(f"http://127.0.0.1:{taken.getsockname()[1]}", tries=2) as alone:
            for ask in (lambda: alone.session("a-token"), lambda: next(alone.stream("a-token"))):
                with pytest.raises(Unreachable) as error:
                    ask()
                assert "a-token" not in str(error.value) and isinstance(error.value, LotseError)


def test_events_are_sent_again_when_a_service_comes_back(keyed: Service, secret: str) -> None:
    visitor = uuid4().hex
    with Client(keyed.url, secret, tries=12) as patient:
        patient.event(view(visitor))
        keyed.kill()
        starter = threading.Thread(target=keyed.start)
        starter.start()
        answered = patient.event(view(visitor))
        starter.join()
        assert answered.events == 2


def test_the_same_asynchronously(keyed: Service, secret: str) -> None:
    async def ask() -> None:
        async with AsyncClient(keyed.url, secret) as client:
            visitors = [uuid4().hex for _ in range(5)]
            answers = await asyncio.gather(
                *(client.event(view(visitor, session="one"), flags="all") for visitor in visitors)
            )
            assert len({one.session for one in answers}) == 5
            token, told = answers[0].session, []
            async for one in client.stream(token, {"bounce": 0.0001}):
                told.append(one)
                assert not isinstance(one, Idle)
                if isinstance(one, Crossing) and one.direction == "up":
                    await client.event(view(visitors[0]))
                if isinstance(one, Crossing) and one.direction == "down":
                    await client.event(view(visitors[0], session="another"))
            assert [type(one) for one in told] == [Crossing, Crossing, Closed]
        async with AsyncClient(keyed.url, "lotse_sec_other") as stranger:
            with pytest.raises(Refused, match="401"):
                await stranger.features()

    asyncio.run(ask())

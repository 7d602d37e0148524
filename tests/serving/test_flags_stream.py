"""OFREP's event stream: told when a flag of the session may be another one, and not otherwise."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx

from serving.app import App
from serving.experiments.attributes import Names
from serving.experiments.configuration import parse
from serving.experiments.learned import Learned, LearnedFile, Published, Stopped
from serving.keys import KeyFile
from tests.serving.in_process import client, engine_of, listen, start

CONTENT: dict[str, Any] = {
    "features": {
        "help": {
            "defaultValue": "none",
            "rules": [{"key": "offer", "condition": {"cart_adds": {"$gte": 2}}, "variations": ["none", "chat"]}],
        },
        "hurry": {
            "defaultValue": False,
            "rules": [{"condition": {"country": "DE", "exit": {"$gt": 0.15}, "$not": {"purchases": 0}}, "force": True}],
        },
        "waiting": {"defaultValue": False, "rules": [{"condition": {"idle_seconds": {"$gte": 1000}}, "force": True}]},
    },
    "experiments": {
        "offer": {"arms": ["control", "chat"], "goals": [{"name": "purchase", "column": "purchases", "primary": True}]}
    },
    "attributes": ["country"],
}
FLAGS = "/ofrep/v1/evaluate/flags"
SLOW = "stream.poll_seconds=1000"


def service(folder: Path, *overrides: str) -> App:
    path = folder / "experiments.json"
    path.write_text(json.dumps(CONTENT))
    return start(folder, f"experiments.file={path}", "stream.heartbeat_seconds=1000", *overrides)


async def event(http: httpx.AsyncClient, name: str, query: str = "", **more: Any) -> str:
    answer = await http.post(f"/v1/events{query}", json={"visitor": "anna", "name": name, **more})
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["session"]
    return token


async def address(http: httpx.AsyncClient, token: str, **headers: str) -> tuple[str, str]:
    """Path and query of the stream of a session's flags."""
    answer = await http.post(FLAGS, json={"context": {"targetingKey": token}}, headers=headers)
    (stream,) = answer.json()["eventStreams"]
    assert stream["type"] == "sse" and stream["inactivityDelaySec"] == 120
    path, _, query = stream["endpoint"]["requestUri"].partition("?")
    return path, query


def told(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_what_is_watched_is_what_conditions_ask_of_us() -> None:
    names = frozenset({"cart_adds", "purchases", "exit"})
    watched = parse(json.dumps(CONTENT).encode(), Names(names, names)).watched
    assert sorted(json.dumps(one) for one in watched._comparisons) == [
        '{"cart_adds": {"$gte": 2}}',
        '{"exit": {"$gt": 0.15}}',
        '{"idle_seconds": {"$gte": 1000}}',
        '{"purchases": 0}',
    ]
    states = {
        watched.state("v1", {"cart_adds": cart_adds, "exit": score, "purchases": 0.0}, ())
        for cart_adds in (0.0, 1.0)
        for score in (0.1, 0.15)
    }
    assert len(states) == 1
    assert len({*states, watched.state("v1", {"cart_adds": 2.0, "exit": 0.1, "purchases": 0.0}, ())}) == 2


def test_a_crossing_is_told_at_once_and_the_answer_to_it_is_another(tmp_path: Path) -> None:
    app = service(tmp_path, SLOW)

    async def run() -> None:
        async with client(app) as http:
            token = await event(http, "page_view")
            path, query = await address(http, token)
            async with listen(app, path, query) as stream:
                await stream.until(lambda: "retry" in stream.text)
                assert stream.status == 200 and stream.headers[b"content-type"] == b"text/event-stream"
                await event(http, "view_item")
                await event(http, "add_to_cart")
                await event(http, "add_to_cart")
                await stream.until(lambda: len(told(stream.text)) == 1)
                (refetch,) = told(stream.text)
                assert refetch["type"] == "refetchEvaluation" and abs(refetch["lastModified"] - time.time()) < 60
                again = f"{FLAGS}?flagConfigEtag={refetch['etag']}&flagConfigLastModified={refetch['lastModified']}"
                answer = await http.post(again, json={"context": {"targetingKey": token}})
                flags = {flag["key"]: flag for flag in answer.json()["flags"]}
                assert flags["help"]["reason"] == "SPLIT"
                # somebody bought: a rule of another feature asks for that, if together with what a caller says
                await event(http, "purchase", value=5)
                await stream.until(lambda: len(told(stream.text)) == 2)

    asyncio.run(run())


def test_what_happens_before_the_stream_is_open_and_between_two_is_told(tmp_path: Path) -> None:
    app = service(tmp_path, SLOW)

    async def run() -> None:
        async with client(app) as http:
            token = await event(http, "page_view")
            path, query = await address(http, token)
            async with listen(app, path, query) as stream:
                await stream.until(lambda: "retry" in stream.text)
            for _ in range(2):
                await event(http, "add_to_cart")
            async with listen(app, path, query) as stream:
                await stream.until(lambda: len(told(stream.text)) == 1)
                state = told(stream.text)[0]["etag"]
                assert f"id: {state}\n" in stream.text
            # who comes back knows it, until something else happens
            async with listen(app, path, query, last_event_id=state) as stream:
                await stream.until(lambda: "retry" in stream.text)
                await event(http, "view_item")
                await event(http, "purchase", value=5)
                await stream.until(lambda: len(told(stream.text)) == 1)
                assert told(stream.text)[0]["etag"] != state

    asyncio.run(run())


def test_time_and_another_configuration_are_told(tmp_path: Path) -> None:
    app = service(tmp_path, "stream.poll_seconds=0.02")

    async def run() -> None:
        async with client(app) as http:
            token = await event(http, "page_view", time=int((time.time() - 999.5) * 1000))
            path, query = await address(http, token)
            async with listen(app, path, query) as stream:
                await stream.until(lambda: len(told(stream.text)) == 1)  # silent for a thousand seconds
                assert not (await http.patch("/v1/experiments", json={"attributes": ["country", "age"]})).is_error
                await stream.until(lambda: len(told(stream.text)) == 2)

    asyncio.run(run())


def test_an_arm_that_a_guardrail_stops_is_told(tmp_path: Path) -> None:
    app = service(tmp_path, "stream.poll_seconds=0.02", f"experiments.learned={tmp_path}")

    async def run() -> None:
        async with client(app) as http:
            for _ in range(2):
                token = await event(http, "add_to_cart")
            context = {"targetingKey": token, "lotse.arms": {"offer": "chat"}}
            first = await http.post(f"{FLAGS}/help", json={"context": context})
            assert first.json()["value"] == "chat"
            path, query = await address(http, token)
            async with listen(app, path, query) as stream:
                await stream.until(lambda: "retry" in stream.text)
                arm = Stopped("chat", "purchase", 0, -0.05, -0.3, -0.1)
                learned = Learned(phase=1, arms=["control", "chat"], stopped=[arm])
                LearnedFile(tmp_path).write(Published(experiments={"offer": learned}))
                await engine_of(app).experiments.follow()
                await stream.until(lambda: len(told(stream.text)) == 1)
            again = await http.post(f"{FLAGS}/help", json={"context": {"targetingKey": token}})
            assert (again.json()["value"], again.json()["variant"]) == ("none", "chat")

    asyncio.run(run())


def test_the_end_of_the_session_is_told_and_flags_are_then_nobodys(tmp_path: Path) -> None:
    app = service(tmp_path, "stream.poll_seconds=0.02")

    async def run() -> None:
        async with client(app) as http:
            token = await event(http, "add_to_cart")
            path, query = await address(http, token)
            async with listen(app, path, query) as stream:
                await stream.until(lambda: "retry" in stream.text)
                await engine_of(app).upkeep.sweep(int(time.time() * 1000) + 3_600_000)
                await stream.until(lambda: stream.ended)
            assert told(stream.text)[-1]["etag"] == "over"
            answer = await http.post(FLAGS, json={"context": {"targetingKey": token}})
            assert "eventStreams" not in answer.json()
            assert (await http.get(path)).status_code == 404
            assert (await http.get("/ofrep/v1/streams/nobody")).status_code == 401

    asyncio.run(run())


def test_the_address_has_a_public_key_and_never_a_secret_one(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path)
    (_, public), (_, secret) = keys.create("public", "page"), keys.create("secret", "server")
    app = service(tmp_path)

    async def run() -> None:
        async with client(app) as http:
            token = await event(http, "page_view", f"?key={public}")
            for headers in ({"authorization": f"Bearer {public}"}, {"x-api-key": public}):
                path, query = await address(http, token, **headers)
                assert query.endswith(f"&key={public}")
                async with listen(app, path, query) as stream:
                    await stream.until(lambda: stream.status == 200)
            async with listen(app, path, "since=x") as stream:
                await stream.until(lambda: stream.status == 401)
            body = {"context": {"targetingKey": token}}
            found = await http.post(FLAGS, json=body, headers={"authorization": f"Bearer {secret}"})
            assert found.status_code == 200 and "eventStreams" not in found.json()

    asyncio.run(run())

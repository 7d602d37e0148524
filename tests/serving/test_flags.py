"""Flags and experiments in the answers to events and over OFREP: who is in, what is assigned, and what stays."""

from __future__ import annotations

import asyncio
import json
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from features.experiments import FORCED, HOLDBACK, UNIT_COLUMNS
from features.settings import SettingsError
from features.units import units_of
from serving.app import App
from serving.experiments.assignments import unpack
from serving.experiments.attributes import Names
from serving.experiments.configuration import parse
from serving.experiments.flags import Evaluator, Subject
from serving.experiments.learned import Published, standings
from serving.requests import Request
from serving.sessions import key_of
from tests.serving.in_process import client, engine_of, start

HELP: dict[str, Any] = {
    "features": {
        "help": {
            "defaultValue": "none",
            "rules": [
                {"condition": {"purchases": {"$gt": 0}}, "force": "thanks"},
                {"key": "offer", "condition": {"cart_adds": {"$gte": 1}}, "variations": ["none", "banner", "chat"]},
            ],
        },
        "price": {"defaultValue": 1.0, "rules": [{"condition": {"country": "DE"}, "force": 2.0}]},
    },
    "experiments": {
        "offer": {
            "arms": ["control", "banner", "chat"],
            "shares": [0.5, 0.3, 0.2],
            "holdback": 0.2,
            "goals": [{"name": "purchase", "column": "purchases", "primary": True}],
        }
    },
    "attributes": ["country"],
}
OFFER = HELP["experiments"]["offer"]


def service(folder: Path, content: dict[str, Any] | None = None, *overrides: str) -> App:
    """One with these flags, and a store in memory."""
    path = folder / "experiments.json"
    path.write_text(json.dumps(HELP if content is None else content))
    return start(folder, f"experiments.file={path}", *overrides)


async def event(http: httpx.AsyncClient, visitor: str, name: str, query: str = "flags=all", **more: Any) -> Any:
    answer = await http.post(f"/v1/events?{query}", json={"visitor": visitor, "name": name, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_condition_is_for_every_arm_and_an_arm_stays(tmp_path: Path) -> None:
    app = service(tmp_path)

    async def run() -> None:
        engine, arms = engine_of(app), Counter[str]()
        async with client(app) as http:
            for number in range(400):
                visitor = f"v{number}"
                first = await event(http, visitor, "page_view")
                assert first["flags"]["help"] == {"value": "none"} and first["flags"]["price"] == {"value": 1.0}
                exposed = (await event(http, visitor, "add_to_cart"))["flags"]["help"]
                assert exposed["reason"] == "SPLIT"
                arms[exposed["variant"]] += 1
                assert exposed["value"] == {"control": "none"}.get(exposed["variant"], exposed["variant"])
                again = await event(http, visitor, "view_item", "flags=help")
                assert again["flags"] == {"help": exposed}
                context = {"context": {"targetingKey": again["session"]}}
                looked = (await http.post("/ofrep/v1/evaluate/flags/help", json=context)).json()
                del looked["metadata"]
                assert looked == {"key": "help", **exposed}
                key = key_of(engine.looks.opened(again["session"])[0])
                (noted,) = unpack(engine.sessions.assigned(engine.store.read(key)))  # type: ignore[arg-type]
                assert noted.arm == ["control", "banner", "chat"].index(exposed["variant"])
                assert noted.propensity == pytest.approx([0.5, 0.3, 0.2][noted.arm])
                assert noted.age_events == 2 and noted.flags in (0, HOLDBACK)
        # four deviations
        assert abs(arms["control"] - 200) < 40 and abs(arms["banner"] - 120) < 37 and abs(arms["chat"] - 80) < 32

    asyncio.run(run())


def test_a_rule_before_the_experiment_goes_first(tmp_path: Path) -> None:
    app = service(tmp_path)

    async def run() -> None:
        async with client(app) as http:
            await event(http, "anna", "add_to_cart")
            bought = await event(http, "anna", "purchase", value=10)
            assert bought["flags"]["help"] == {"value": "thanks", "reason": "TARGETING_MATCH"}

    asyncio.run(run())


def test_several_events_in_a_request(tmp_path: Path) -> None:
    app = service(tmp_path)

    async def run() -> None:
        async with client(app) as http:
            names = ["page_view", "add_to_cart", "view_item"]
            events = [{"visitor": visitor, "name": name} for name in names for visitor in ("anna", "bert")]
            answer = await http.post("/v1/events?flags=help", json=events)
            flags = [one["flags"]["help"] for one in answer.json()["results"]]
            assert flags[0] == flags[1] == {"value": "none"}
            assert flags[2] == flags[4] and flags[3] == flags[5] and flags[2]["reason"] == "SPLIT"
            without = await http.post("/v1/events", json=events)
            assert all("flags" not in one for one in without.json()["results"])

    asyncio.run(run())


@pytest.mark.parametrize("store", ["memory:", "embedded"])
def test_several_visitors_in_a_request_keep_their_arms(tmp_path: Path, store: str) -> None:
    """Whatever the configuration says later: it is what their records say that counts."""
    overrides = () if store == "memory:" else (f"store.url=embedded:{tmp_path}/live", "store.size_gib=0.05")
    app = service(tmp_path, None, *overrides)
    events = [{"visitor": f"v{number}", "name": "add_to_cart"} for number in range(40)]

    async def run() -> None:
        async with client(app) as http:

            async def arms() -> list[str]:
                answer = await http.post("/v1/events?flags=help", json=events)
                return [one["flags"]["help"]["variant"] for one in answer.json()["results"]]

            before = await arms()
            assert set(before) == {"control", "banner", "chat"}
            changed = {**HELP, "experiments": {"offer": {**OFFER, "shares": [0.2, 0.2, 0.6]}}}
            (tmp_path / "experiments.json").write_text(json.dumps(changed))
            await engine_of(app).experiments.follow()
            assert await arms() == before

    asyncio.run(run())


def test_ofrep(tmp_path: Path) -> None:
    app = service(tmp_path)

    async def run() -> None:
        async with client(app) as http:
            token = (await event(http, "anna", "add_to_cart"))["session"]

            async def ask(path: str = "", headers: dict[str, str] | None = None, **context: Any) -> httpx.Response:
                return await http.post(
                    f"/ofrep/v1/evaluate/flags{path}", json={"context": context}, headers=headers or {}
                )

            every = await ask(targetingKey=token, country="DE")
            flags = {flag.pop("key"): flag for flag in every.json()["flags"]}
            assert (
                flags["price"] == {"value": 2.0, "variant": "targeted", "reason": "TARGETING_MATCH"}
                and b'"value":2.0' in every.content
            )
            assert flags["help"]["reason"] == "SPLIT"
            tag = every.headers["etag"]
            same = await ask(headers={"if-none-match": tag}, targetingKey=token, country="DE")
            assert same.status_code == 304 and same.content == b"" and same.headers["etag"] == tag
            other = await ask(headers={"if-none-match": tag}, targetingKey=token, country="FR")
            assert other.status_code == 200 and other.headers["etag"] != tag
            await event(http, "anna", "page_view", "")
            moved = await ask(headers={"if-none-match": tag}, targetingKey=token, country="DE")
            assert moved.status_code == 200
            # the visitor by the tracker's id, as a server knows it; and somebody who is not here
            version = every.json()["metadata"]["configuration"]
            named = await ask("/help", targetingKey="anna")
            assert named.json() == {"key": "help", **flags["help"], "metadata": {"configuration": version}}
            nobody = (await ask("/help", targetingKey="nobody", cart_adds=3)).json()
            del nobody["metadata"]
            assert nobody == {"key": "help", "value": "none", "variant": "default", "reason": "STATIC"}
            for path, body, status, code in (
                ("/other", {"context": {"targetingKey": token}}, 404, "FLAG_NOT_FOUND"),
                ("/help", {"context": {}}, 400, "TARGETING_KEY_MISSING"),
                ("", {}, 400, "TARGETING_KEY_MISSING"),
                ("", {"context": 7}, 400, "INVALID_CONTEXT"),
                ("", [], 400, "PARSE_ERROR"),
            ):
                refused = await http.post(f"/ofrep/v1/evaluate/flags{path}", json=body)
                assert (refused.status_code, refused.json()["errorCode"]) == (status, code)
                assert refused.json()["errorDetails"]

    asyncio.run(run())


def test_an_arm_that_a_person_chose(tmp_path: Path) -> None:
    app = service(tmp_path)

    async def run() -> None:
        engine = engine_of(app)
        async with client(app) as http:
            token = (await event(http, "anna", "add_to_cart", ""))["session"]
            context = {"targetingKey": token, "lotse.arms": {"offer": "chat"}}
            for _ in range(2):
                chosen = (await http.post("/ofrep/v1/evaluate/flags/help", json={"context": context})).json()
                del chosen["metadata"]
                assert chosen == {"key": "help", "value": "chat", "variant": "chat", "reason": "SPLIT"}
                context.pop("lotse.arms", None)
            (noted,) = unpack(engine.sessions.assigned(engine.store.read(key_of(engine.looks.opened(token)[0]))))  # type: ignore[arg-type]
            assert noted.flags == FORCED
            for arms in ({"offer": "other"}, {"other": "chat"}, 7):
                refused = await http.post(
                    "/ofrep/v1/evaluate/flags/help", json={"context": {"targetingKey": token, "lotse.arms": arms}}
                )
                assert refused.status_code == 400 and "lotse.arms" in refused.json()["errorDetails"]

    asyncio.run(run())


def test_killed_stopped_and_drafted(tmp_path: Path) -> None:
    def changed(**changes: Any) -> dict[str, Any]:
        return {**HELP, "experiments": {"offer": {**OFFER, **changes}}}

    async def shown(app: App) -> dict[str, tuple[str, str]]:
        async with client(app) as http:
            found = {}
            for number in range(60):
                flag = (await event(http, f"v{number}", "add_to_cart"))["flags"]["help"]
                found[f"v{number}"] = flag["value"], flag.get("variant", "")
            return found

    (tmp_path / "keys").mkdir()
    keys = f"keys.folder={tmp_path}/keys"
    running = asyncio.run(shown(service(tmp_path, HELP, keys)))
    killed = asyncio.run(shown(service(tmp_path, changed(killed=["chat"]), keys)))
    assert {value for value, _ in running.values()} == {"none", "banner", "chat"}
    # sessions hash by when they began, so only the others' values are compared
    assert {value for value, _ in killed.values()} == {"none", "banner"}
    assert all(value == "none" for value, variant in killed.values() if variant == "chat")
    stopped = asyncio.run(shown(service(tmp_path, changed(status="stopped", winner="banner"), keys)))
    assert set(stopped.values()) == {("banner", "")}
    drafted = asyncio.run(shown(service(tmp_path, changed(status="draft"), keys)))
    assert set(drafted.values()) == {("none", "")}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"feature": {}}, "$.feature: unknown section"),
        ({"features": {"help": {}}}, "$.features.help.defaultValue"),
        (
            {"features": {"help": {"defaultValue": 1, "rules": [{"condition": {"bouncy": 1}, "force": 2}]}}},
            "$.features.help.rules[0]: unknown attribute 'bouncy'",
        ),
        (
            {"features": {"help": {"defaultValue": 1, "rules": [{"key": "offer", "variations": [1, 2]}]}}},
            "one for each arm of the experiment: control, banner, chat",
        ),
        (
            {"features": {"help": {"defaultValue": 1, "rules": [{"variations": [1, 2], "weights": [0.5, 0.6]}]}}},
            "add up to 1.1",
        ),
        ({"features": {"help": {"defaultValue": 1}}}, "no rule of any feature names it"),
        (
            {
                "features": {
                    name: {"defaultValue": 1, "rules": [{"variations": [1, 2], "namespace": ["space", begin, end]}]}
                    for name, begin, end in (("one", 0, 0.6), ("other", 0.5, 1))
                }
            },
            "let other begin at 0.6",
        ),
        (
            {
                "experiments": {
                    "offer": {**HELP["experiments"]["offer"], "holdback": 0, "allocation": {"name": "thompson"}}
                }
            },
            "set one above 0",
        ),
        (
            {"experiments": {"offer": {**OFFER, "goals": [{"name": "purchase", "primary": True}]}}},
            "$.experiments.offer.goals[0].column: 'purchase' is not what a session is handed on with",
        ),
        (
            {"experiments": {"offer": {**OFFER, "goals": [{"name": "price_drift", "primary": True}]}}},
            "'price_drift' is not what a session is handed on with",
        ),
        (
            {"experiments": {"offer": {**OFFER, "shares": [0.5, 0.3, 0.3]}}},
            "add up to 1",
        ),
        (
            {"experiments": {"offer": {**OFFER, "allocation": {"name": "magic"}}}},
            "unknown allocation 'magic'",
        ),
    ],
)
def test_what_cannot_run_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        service(tmp_path, {**HELP, **change})
    assert told in str(refused.value)


def test_the_file_is_followed_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    app = service(tmp_path)
    path, experiments = tmp_path / "experiments.json", engine_of(app).experiments

    async def run() -> None:
        async with client(app) as http:
            token = (await event(http, "anna", "add_to_cart"))["session"]
            assert token
            before = experiments.configuration.version
            path.write_text("{")
            await experiments.follow()
            assert "not valid JSON" in experiments.error and experiments.configuration.version == before
            assert "help" in (await event(http, "anna", "page_view"))["flags"]
            path.write_text(json.dumps({"features": {"new": {"defaultValue": True}}}))
            await experiments.follow()
            assert experiments.error == "" and experiments.configuration.version != before
            assert (await event(http, "anna", "page_view"))["flags"] == {"new": {"value": True}}
            path.unlink()
            await experiments.follow()
            assert "flags" not in await event(http, "anna", "page_view")

    asyncio.run(run())


def test_what_is_asked_wrongly(tmp_path: Path) -> None:
    app = service(tmp_path)

    async def run() -> None:
        async with client(app) as http:
            for query in ("flags=other", "flags=all&scores=none", "flags="):
                refused = await http.post(f"/v1/events?{query}", json={"visitor": "a", "name": "page_view"})
                assert refused.status_code == 422 and "flags" in refused.json()["detail"]

    asyncio.run(run())


def test_units_of_sessions_that_are_over(tmp_path: Path) -> None:
    lasting = {
        **OFFER,
        "unit": "visitor",
        "goals": [
            {"name": "purchase", "column": "purchases", "primary": True},
            {"name": "further", "kind": "numeric", "column": "events"},
        ],
    }
    rule = HELP["features"]["help"]["rules"][1]
    content = {"features": {"help": {"defaultValue": "none", "rules": [rule]}}, "experiments": {"offer": lasting}}
    app = service(tmp_path, content)

    async def run() -> pd.DataFrame:
        engine, now = engine_of(app), 1_770_000_000_000
        linked = {"consent": ["measure", "link"]}

        async def at(minutes: int, visitor: str, *names: str, **more: Any) -> None:
            events = [{"visitor": visitor, "name": name, **more} for name in names]
            request = Request(json.dumps(events).encode(), flags=())
            later = engine.take([request], now + minutes * 60_000)
            if later is not None:
                await later
            assert request.problem is None

        await at(0, "before", "purchase", "add_to_cart", value=5)  # it bought before it was exposed
        await at(1, "after", "add_to_cart", "view_item", "purchase", value=5)
        await at(2, "never", "page_view")
        await at(3, "linked", "add_to_cart", **linked)
        await at(4, "forgotten", "add_to_cart")
        await at(120, "linked", "page_view", "purchase", value=7, **linked)
        await at(121, "forgotten", "page_view", "purchase", value=7)
        await engine.upkeep.sweep(now + 600 * 60_000)
        await engine.upkeep.hand_over(now + 600 * 60_000)
        return units_of(engine.closed._files(), engine.experiments.configuration.definitions)

    units = asyncio.run(run())
    assert list(units["purchases"]) == [0, 1, 1, 0]
    assert list(units["events"]) == [0, 2, 2, 0]
    assert list(units["age_events"]) == [2, 1, 1, 1]
    assert set(units["arm"]) <= {"control", "banner", "chat"} and units["unit"].is_unique
    assert list(units["unit"] == units["visitor"]) == [False, False, True, False]
    assert list(units.columns) == [*UNIT_COLUMNS, "purchases", "events"]


def test_what_visitors_declared_counts_with_their_consent(tmp_path: Path) -> None:
    rule = {"condition": {"preference_1": 3}, "force": "large"}
    app = service(tmp_path, {"features": {"size": {"defaultValue": "any", "rules": [rule]}}})

    async def run() -> None:
        async with client(app) as http:
            for visitor, consent, value in (("a", ["measure", "personalise"], "large"), ("b", ["measure"], "any")):
                answer = await event(http, visitor, "page_view", declared=[0, 3], consent=consent)
                assert answer["flags"]["size"]["value"] == value

    asyncio.run(run())


def test_a_session_whose_arm_is_gone_gets_what_the_control_gets(tmp_path: Path) -> None:
    app = service(tmp_path)

    async def run() -> None:
        async with client(app) as http:
            token = (await event(http, "anna", "add_to_cart", ""))["session"]
            context = {"targetingKey": token, "lotse.arms": {"offer": "chat"}}
            assert (await http.post("/ofrep/v1/evaluate/flags/help", json={"context": context})).json()[
                "value"
            ] == "chat"
            rule = {**HELP["features"]["help"]["rules"][1], "variations": ["none", "banner"]}
            two = {"arms": ["control", "banner"], "goals": OFFER["goals"], "phase": 2}
            content = {"features": {"help": {"defaultValue": "none", "rules": [rule]}}, "experiments": {"offer": two}}
            assert (await http.put("/v1/experiments", json=content)).status_code == 200
            assert (await event(http, "anna", "page_view"))["flags"]["help"]["variant"] == "control"

    asyncio.run(run())


def test_evaluations_leave_nothing_behind() -> None:
    """100,000 sessions with a flag each; `python -m benchmarks.flags` evaluates a million."""
    names = ("cart_adds", "purchases")
    patterned = {"defaultValue": 0, "rules": [{"condition": {"session": {"$regex": "a-[0-9]+$"}}, "force": 1}]}
    content = {**HELP, "features": {**HELP["features"], "patterned": patterned}}
    configuration = parse(json.dumps(content).encode(), Names(frozenset(names), frozenset(names)))
    evaluator = Evaluator(configuration, standings(configuration.trials, Published()), names)
    row = np.array([1.0, 0.0], np.float32)

    def most_bytes(sessions: range) -> int:
        for visitor in sessions:
            subject = Subject(visitor, visitor + 1, 3, 0.0, 5.0, {"bounce": 0.5}, row, 1, ())
            flags, new = evaluator.evaluate(subject, ("help", "patterned"), 0)
            assert len(new) == 1 and flags["help"].reason == "SPLIT"
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before = most_bytes(range(10_000))
    assert most_bytes(range(10_000, 110_000)) - before < 1_000_000


PAGE = "url=https%3A%2F%2Fshop.example%2F"
PAGE_CALL = {"type": "page", "anonymousId": "anon-1", "messageId": "m1", "properties": {"path": "/"}}
SEEN_BY_TRACKERS: dict[str, tuple[str, str, Any, str]] = {
    "matomo": ("POST", f"/matomo.php?idsite=1&rec=1&{PAGE}&_id=79ad93e49e3f3a55", "", "79ad93e49e3f3a55"),
    "ga4": (
        "POST",
        "/g/collect?v=2&tid=G-1&cid=55.66&sid=17&en=page_view&dl=https%3A%2F%2Fa.b%2F",
        "",
        "55.66",
    ),
    "segment": ("POST", "/v1/p", PAGE_CALL, "anon-1"),
    "snowplow": ("GET", f"/i?e=pv&p=web&{PAGE}&duid=6f1a&eid=2b8f0a3e-0000-4000-8000-000000000001", "", "6f1a"),
}


@pytest.mark.parametrize("tracker", SEEN_BY_TRACKERS)
def test_a_server_names_the_visitor_as_its_tracker_does(tmp_path: Path, tracker: str) -> None:
    content = {"features": {"seen": {"defaultValue": 0, "rules": [{"condition": {"events": {"$gte": 1}}, "force": 1}]}}}
    app = service(tmp_path, content, f'collect.trackers=["{tracker}"]')
    method, path, body, visitor = SEEN_BY_TRACKERS[tracker]

    async def run() -> None:
        async with client(app) as http:
            before = await http.post("/ofrep/v1/evaluate/flags/seen", json={"context": {"targetingKey": visitor}})
            assert before.json()["value"] == 0
            headers = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0 Safari/537.36"}
            sent = await http.request(method, path, content=json.dumps(body) if body else b"", headers=headers)
            assert sent.status_code < 300, sent.text
            after = await http.post("/ofrep/v1/evaluate/flags/seen", json={"context": {"targetingKey": visitor}})
            told = after.json()
            del told["metadata"]
            assert told == {"key": "seen", "value": 1, "variant": "targeted", "reason": "TARGETING_MATCH"}
            sdk = await http.post("/api/eval/x", json={"attributes": {"id": visitor}})
            assert sdk.json()["features"] == {"seen": {"defaultValue": 1}}

    asyncio.run(run())

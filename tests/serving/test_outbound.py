"""Segments and arms are told to a webhook: what, once, of whom, and what becomes of it when nobody listens."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standardwebhooks import Webhook
from typer.testing import CliRunner

from features.compiler import compile_fold
from features.settings import SettingsError
from serving.app import App
from serving.outbound import ENTERED, LEFT, targets
from serving.outbound.cli import outbound as cli
from serving.outbound.configuration import SegmentSettings
from serving.outbound.crossings import Segments
from serving.outbound.permission import Permission
from serving.settings import load_serving
from tests.receiver import Receiver, receiving
from tests.serving.in_process import client, engine_of, start
from tests.workspace import ROOT, packed

pytestmark = pytest.mark.anyio
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLwSwMfKQ9r8GKYqr"
YES = ["measure", "personalise"]
ANNA = "anna-canary-79ad93e4"
EVERYBODY = 'outbound.segments.all={head="exit",threshold=0.001}'
Starts = Callable[..., App]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
async def telling(
    receiver: Receiver, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Starts]:
    """Makes applications that tell a webhook; at the end they let go of their connections."""
    monkeypatch.setenv("HOOK", SECRET)
    async with AsyncExitStack() as stack:

        def started(*overrides: str) -> App:
            hook = f'outbound.targets.crm={{kind="webhook",url="{receiver.url}/hook",secret="env:HOOK"}}'
            own = f"outbound.folder={tmp_path}/outbound"
            app = start(tmp_path, *packed(trained), hook, own, *overrides)
            told = engine_of(app).outbound
            assert told is not None
            stack.push_async_callback(told.close, 0)
            return app

        yield started


async def event(app: App, name: str = "page_view", query: str = "", visitor: str = ANNA, **more: Any) -> Any:
    headers = more.pop("headers", {})
    async with client(app) as http:
        wire = {"visitor": visitor, "name": name, "consent": YES, **more}
        answer = await http.post(f"/v1/events{query}", json=wire, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def until(true: Callable[[], bool]) -> None:
    """Wait for what must come; the time is that of a test that has failed."""
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


async def settled(app: App) -> None:
    """Nothing waits and nothing is on its way."""
    await until(lambda: not any(engine_of(app).metrics.outbound_queue.values()))


def dropped(app: App) -> dict[str, int]:
    return {reason: count for (_, reason), count in engine_of(app).metrics.outbound_dropped.items()}


def letters(app: App) -> list[Any]:
    told = engine_of(app).outbound
    assert told is not None
    return told.letters.of("crm")


def test_a_session_is_in_a_segment_until_its_score_is_well_below() -> None:
    rule = SegmentSettings(head="exit", threshold=0.5, hysteresis=0.1, least={"cart_adds": 1})
    fold = compile_fold()
    segments, row = Segments({"leaving": rule}, fold.names, ["exit"], 2), np.zeros(len(fold.names), np.float32)

    def crossed(score: float, session: int = 1) -> list[tuple[str, int]]:
        return [(one.type, one.number) for one in segments.crossed((session, 0), {"exit": score}, row, fold)]

    assert crossed(0.9) == []
    row[fold.names.index("cart_adds")] = 1
    found = [crossed(score) for score in (0.49, 0.5, 0.6, 0.46, 0.44, 0.49, 0.5)]
    assert found == [[], [(ENTERED, 1)], [], [], [(LEFT, 1)], [], [(ENTERED, 2)]]
    assert segments.crossed((1, 0), {}, row, fold) == []
    # the longest unseen session is forgotten
    assert crossed(0.9, 2) == crossed(0.9, 3) == [(ENTERED, 1)]
    assert (crossed(0.9, 2), crossed(0.9, 1)) == ([], [(ENTERED, 1)])


async def test_a_session_enters_and_leaves_once_each_signed(telling: Starts, receiver: Receiver) -> None:
    steps = ("page_view", "view_item", "add_to_cart", "purchase", "page_view")
    probe = telling()
    scores = [(await event(probe, name, visitor="probe"))["scores"]["exit"] for name in steps]
    high = max(range(len(steps) - 1), key=lambda place: scores[place] - scores[place + 1])
    threshold = (scores[high] + scores[high + 1]) / 2
    app = telling(f'outbound.segments.leaving={{head="exit",threshold={threshold},hysteresis=0.0}}')
    answers = [await event(app, name) for name in steps for _ in range(2)]
    await settled(app)
    above, expected = False, []
    for answer in answers:
        if (answer["scores"]["exit"] >= threshold) != above:
            above = not above
            expected.append(("segment.entered" if above else "segment.left", answer))
    assert [kind for kind, _ in expected][:2] == ["segment.entered", "segment.left"]
    by_events = sorted(receiver.received, key=lambda one: one.body["data"]["events"])  # several senders keep no order
    assert len(by_events) == len(expected) == len({one.headers["webhook-id"] for one in by_events})
    for one, (kind, answer) in zip(by_events, expected, strict=True):
        assert one.path == "/hook"
        body = Webhook(SECRET).verify(one.raw, dict(one.headers))
        assert (body["type"], body["data"]["segment"], body["data"]["session"]) == (kind, "leaving", answer["session"])
        assert (body["data"]["events"], body["data"]["number"]) == (answer["events"], 1)
        assert body["data"]["scores"] == {head: round(score, 4) for head, score in answer["scores"].items()}
        assert body["data"]["models"] == answer["models"]
        assert datetime.now(UTC).timestamp() - datetime.fromisoformat(body["timestamp"]).timestamp() < 60
        assert ANNA not in repr(one)


async def test_doubles_have_the_same_id_so_that_a_receiver_can_drop_them(telling: Starts, receiver: Receiver) -> None:
    began = time.time_ns() // 1_000_000 - 5_000
    for app in (telling(EVERYBODY), telling(EVERYBODY)):
        # the second has not seen the session: another worker, or this one after a restart
        await event(app, time=began)
        await event(app)
        await settled(app)
    first, second = receiver.received
    assert first.body["data"]["session"] == second.body["data"]["session"]
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


@pytest.mark.parametrize(
    ("told", "more"),
    [
        (True, {}),
        (False, {"consent": ["measure"]}),
        (False, {"consent": ["measure", "link"]}),
        (False, {"consent": None}),
        (False, {"headers": {"sec-gpc": "1"}}),
        (False, {"headers": {"dnt": "1"}}),
    ],
)
async def test_only_who_consents_is_told_of(
    told: bool, more: dict[str, Any], telling: Starts, receiver: Receiver
) -> None:
    app = telling(EVERYBODY)
    await event(app, **more)
    await settled(app)
    assert (len(receiver.received), dropped(app)) == (int(told), {})


async def test_who_objects_to_automated_decisions_is_not_told_of(telling: Starts, receiver: Receiver) -> None:
    app = telling('outbound.segments.all={head="exit",threshold=0.001,least={events=2}}')
    token = (await event(app))["session"]
    async with client(app) as http:
        await http.post(f"/v1/visitors/me/decisions?token={token}", json={"automated": False})
    await event(app)
    await settled(app)
    assert receiver.received == []


async def test_what_waits_is_not_told_after_a_withdrawal_an_objection_or_an_erasure(
    telling: Starts, receiver: Receiver
) -> None:
    app = telling(EVERYBODY, "outbound.connections=1")
    receiver.answers = [(503, {"retry-after": "2"})]
    await event(app, visitor="withdraws")
    await until(lambda: len(receiver.received) == 1)  # the sender waits; the others wait behind it
    objects, erased = [(await event(app, visitor=visitor))["session"] for visitor in ("objects", "is erased")]
    await event(app, visitor="withdraws", consent=["measure"])
    await event(app, visitor="stays")
    async with client(app) as http:
        await http.post(f"/v1/visitors/me/decisions?token={objects}", json={"automated": False})
        await http.delete(f"/v1/visitors/me?token={erased}")
    await settled(app)
    assert len(receiver.received) == 2
    assert dropped(app) == {"withdrawn": 3} and letters(app) == []


async def test_what_is_not_taken_is_tried_again_as_late_as_the_receiver_asks(
    telling: Starts, receiver: Receiver
) -> None:
    app, loop = telling(EVERYBODY), asyncio.get_running_loop()
    receiver.answers = [(429, {"retry-after": "2"}), None]
    begin = loop.time()
    await event(app)
    await settled(app)
    assert len(receiver.received) == 3 and loop.time() - begin >= 2
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
    for one in receiver.received:
        Webhook(SECRET).verify(one.raw, dict(one.headers))
    metrics = engine_of(app).metrics
    assert dict(metrics.outbound_retries) == {"crm": 2}
    assert dict(metrics.outbound_sent) == {("crm", ENTERED): 1} and dropped(app) == {}


async def test_dead_letters_are_bounded_private_and_sent_again_by_hand(
    telling: Starts, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, small = f"store.url=embedded:{tmp_path}/live", "store.size_gib=0.05"
    app = telling(EVERYBODY, "outbound.deadline_seconds=1", store, small, "outbound.dead_mib=0.002")
    receiver.answers = [(410, {})]
    refused = (await event(app, visitor="refused"))["session"]
    await settled(app)
    receiver.stop()
    _, _, erased = [(await event(app, visitor=one))["session"] for one in (ANNA, "withdraws", "is erased")]
    await until(lambda: len(letters(app)) == 4)
    for number in range(9):
        await event(app, visitor=str(number))
    await until(lambda: len(letters(app)) + dropped(app).get("no room for dead letters", 0) == 13)
    found, (file,) = letters(app), tmp_path.glob("outbound/*.jsonl")
    assert 3 < len(found) < 13 and file.stat().st_size <= 0.002 * 2**20
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (found[0].why, found[0].session) == ("refused", refused)
    assert {letter.why for letter in found[1:]} <= {"unreachable", "expired"}
    async with client(app) as http:
        (shown,) = (await http.get(f"/v1/visitors/me?token={erased}")).json()["undelivered"]
        assert shown["segment"] == "all"
        assert (await http.delete(f"/v1/visitors/me?token={erased}")).json()["undelivered"] == 1
    await event(app, visitor="withdraws", consent=["measure"])
    left = letters(app)
    assert len(left) == len(found) - 1
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or ANNA.encode() not in path.read_bytes(), path
    assert ANNA not in caplog.text and ANNA.encode() not in engine_of(app).metrics.text()
    told = engine_of(app).outbound
    assert told is not None
    await told.close(0)
    await engine_of(app).close()
    sets = [f"--set={one}" for one in (
        EVERYBODY, store, small, f"outbound.folder={tmp_path}/outbound", f"store.closed={tmp_path}/closed",
        f'outbound.targets.crm={{kind="webhook",url="{receiver.url}/hook",secret="env:HOOK"}}',
    )]  # fmt: skip
    config = ["--config", str(ROOT / "configs" / "serving.toml")]
    invoke = partial(asyncio.to_thread, CliRunner().invoke, cli)  # it begins a loop of its own
    done = await invoke(["replay", *config, *sets])
    assert (done.exit_code, done.output) == (1, f"0 sent, 1 dropped, {len(left) - 1} left\n")
    receiver.start()
    receiver.received.clear()
    status = (await invoke(["status", *config, *sets])).output
    assert "crm" in status and str(len(left) - 1) in status and "refused 1" in status
    done = await invoke(["replay", "--target", "crm", *config, *sets])
    assert (done.exit_code, done.output) == (0, f"{len(left) - 1} sent, 0 dropped, 0 left\n")
    ids = [one.headers["webhook-id"] for one in receiver.received]
    assert set(ids) < {letter.id for letter in found} and len(ids) == len(left) - 1
    bodies = [Webhook(SECRET).verify(one.raw, dict(one.headers)) for one in receiver.received]
    assert refused in {body["data"]["session"] for body in bodies}
    assert not list(tmp_path.glob("outbound/*.jsonl"))


async def test_of_sessions_that_are_over_their_rows_are_asked(telling: Starts) -> None:
    app = telling()
    engine, over = engine_of(app), time.time_ns() // 1_000_000 + 3_600_000
    permission = Permission(engine.store, engine.outage.ask)
    tokens = [(await event(app, visitor=visitor))["session"] for visitor in ("stays", "withdraws")]
    await event(app, visitor="withdraws", consent=["measure"])
    stays, withdrew = map(engine.looks.opened, tokens)
    asked = (stays, withdrew, (stays[0], 7), (7, 7))
    assert await permission.of_earlier(asked, engine.closed) == {stays, (stays[0], 7)}  # the visitor's latest word
    await engine.upkeep.sweep(over)
    assert await permission.of(stays[0]) is False  # nothing is held of the visitor but a session that waits
    assert await permission.of_earlier(asked, engine.closed) == {stays}
    await engine.upkeep.hand_over(over)
    assert await permission.of_earlier(asked, engine.closed) == {stays}
    async with client(app) as http:
        await http.delete(f"/v1/visitors/me?token={tokens[0]}")
    assert await permission.of_earlier(asked, engine.closed) == set()


async def test_a_stop_sends_what_waits_and_writes_down_what_is_left(telling: Starts, receiver: Receiver) -> None:
    app = telling(EVERYBODY, "outbound.queue=2", "outbound.connections=1")
    told = engine_of(app).outbound
    assert told is not None
    for visitor in "ab":
        await event(app, visitor=visitor)
    await told.close(60)
    assert len(receiver.received) == 2 and dropped(app) == {}
    app = telling(EVERYBODY, "outbound.queue=2", "outbound.connections=1")
    told = engine_of(app).outbound
    assert told is not None
    receiver.answers = [(503, {})] * 9
    for visitor in "cdef":
        await event(app, visitor=visitor)
    await told.close(0)
    await event(app, visitor="g")
    assert dropped(app) == {"overflow": 2, "stopped": 3}
    assert sorted(letter.why for letter in letters(app)) == ["overflow"] * 2 + ["stopped"] * 2


async def test_an_arm_is_told_when_it_is_assigned_and_never_again(
    telling: Starts, receiver: Receiver, tmp_path: Path
) -> None:
    arms = {"arms": ["control", "chat"], "shares": [1e-9, 1 - 1e-9], "holdback": 0.0,
            "goals": [{"name": "purchase", "column": "purchases", "primary": True}]}  # fmt: skip
    rule = {"key": "offer", "condition": {"cart_adds": {"$gte": 1}}, "variations": ["none", "chat"]}
    content = {"features": {"help": {"defaultValue": "none", "rules": [rule]}}, "experiments": {"offer": arms}}
    (tmp_path / "experiments.json").write_text(json.dumps(content))
    app = telling(f"experiments.file={tmp_path}/experiments.json")
    await event(app, query="?flags=all")
    token = (await event(app, "add_to_cart", query="?flags=all"))["session"]
    await event(app, query="?flags=all")
    await event(app, "add_to_cart", query="?flags=all", visitor="no", consent=["measure", "link"])
    asked = (await event(app, "add_to_cart", visitor="ofrep"))["session"]
    refused = (await event(app, "add_to_cart", visitor="no ofrep", headers={"sec-gpc": "1"}))["session"]
    async with client(app) as http:
        for session in (asked, asked, refused, token):
            answer = await http.post("/ofrep/v1/evaluate/flags", json={"context": {"targetingKey": session}})
            assert answer.status_code == 200 and answer.json()["flags"][0]["variant"] == "chat"
    await settled(app)
    found = {one.body["data"]["session"]: one.body for one in receiver.received}
    assert len(receiver.received) == 2 and set(found) == {token, asked}
    assert {body["type"] for body in found.values()} == {"experiment.assigned"}
    data = {"session": asked, "experiment": "offer", "arm": "chat", "phase": 1, "holdback": False}
    assert found[asked]["data"] == data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('kind="pigeon"', "crm.kind: found 'pigeon'; installed: ga4, matomo, segment, webhook"),
        ('kind="webhook"', "crm.url: Field required"),
        ('kind="webhook",url="crm.example",secret="env:HOOK"', "expected an address such as https://crm.example"),
        ('kind="webhook",url="http://crm",secret="s3cr3t"', 'crm.secret: name where it lies, "env:<variable>"'),
        ('kind="webhook",url="http://crm",secret="env:NOBODY"', "crm.secret: the environment has no NOBODY"),
        ('kind="webhook",url="http://crm",secret="file:/nobody"', "crm.secret: /nobody cannot be read"),
        ('kind="webhook",url="http://crm",secret="env:SHORT"', "no secret of Standard Webhooks"),
        ('kind="webhook",url="http://crm",secret="env:HOOK",segments=["a"]', "unknown segment 'a'; configured: all"),
        ('kind="webhook",url="http://crm",secret="env:HOOK",types=["a"]', "unknown type 'a'; known: segment.entered"),
        ('kind="matomo",url="http://crm",site=1,scores={exit=1,bounce=1}', "number of its own"),
        ('kind="ga4",measurement_id="G-1",api_secret="plain"', "crm.api_secret: name where it lies"),
    ],
)
def test_a_target_that_cannot_be_used_is_refused(options: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    monkeypatch.setenv("SHORT", "whsec_c2hvcnQ=")
    settings = load_serving(ROOT / "configs" / "serving.toml", [EVERYBODY, f"outbound.targets.crm={{{options}}}"])
    with pytest.raises(SettingsError, match=message) as error:
        targets(settings.outbound)
    assert "s3cr3t" not in str(error.value) and "c2hvcnQ" not in str(error.value)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ('{head="hop",threshold=0.5}', "segments.one.head: unknown head 'hop'; models.heads: bounce, conversion, exit"),
        ('{head="exit",threshold=0.5,least={hops=1}}', "segments.one.least: unknown feature 'hops'"),
    ],
)
def test_a_segment_that_cannot_be_used_is_refused(segment: str, message: str) -> None:
    settings = load_serving(ROOT / "configs" / "serving.toml", [f"outbound.segments.one={segment}"])
    with pytest.raises(SettingsError, match=message):
        Segments(settings.outbound.segments, compile_fold().names, settings.models.heads, 1)


async def test_it_is_counted_for_operators(telling: Starts, receiver: Receiver) -> None:
    app = telling(EVERYBODY)
    await event(app)
    await settled(app)
    async with client(app) as http:
        text = (await http.get("/metrics")).text
    assert 'lotse_outbound_messages_total{target="crm",type="segment.entered"} 1.0' in text
    assert 'lotse_outbound_queue{target="crm"} 0.0' in text

"""Segments and arms in the words of Segment, Matomo and Google Analytics, taken by real endpoints of theirs: ours."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

import pytest

from serving.app import App
from serving.outbound import ASSIGNED, ENTERED, Message, targets
from serving.outbound.configuration import SegmentSettings
from serving.outbound.ga4 import Ga4TargetOptions
from serving.outbound.matomo import MatomoTargetOptions
from serving.outbound.segment import SegmentTargetOptions
from serving.outbound.webhook import WebhookOptions
from serving.settings import load_serving
from tests.receiver import Received, Receiver, receiving
from tests.serving.in_process import ask, client, engine_of, start
from tests.workspace import ROOT, Service, lotse, packed, wait_until, workspace

pytestmark = pytest.mark.anyio
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLwSwMfKQ9r8GKYqr"
EVERYBODY = 'outbound.segments.all={head="exit",threshold=0.001}'
AGENT = b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
ANONYMOUS, DEVICE, CLIENT = "8c2f9a4e-canary-segment", "79ad93e49e3f3a55", "1794567.canary"
ALL = ["measure", "link", "personalise"]
GRANTED = {"gcs": "G111", "gcd": "13r3r3r3r5l1"}
ARMS = {"arms": ["control", "chat"], "shares": [1e-9, 1 - 1e-9], "holdback": 0.0,
        "goals": [{"name": "purchase", "column": "purchases", "primary": True}]}  # fmt: skip
RULE = {"key": "offer", "condition": {"events": {"$gte": 1}}, "variations": ["none", "chat"]}
OFFER = {"features": {"help": {"defaultValue": "none", "rules": [RULE]}}, "experiments": {"offer": ARMS}}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Another Lotse, which takes what Segment, Matomo and Google Analytics take."""
    folder = workspace(tmp_path_factory.mktemp("other") / "work")
    running = Service(folder, "models.uri=", f"models.cache={folder}/models").start()
    yield running
    running.stop()


async def until(true: Callable[[], bool]) -> None:
    """Wait for what must come; the time is that of a test that has failed."""
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


class Telling(NamedTuple):
    """An application that tells each tracker's own target, two of each and in order; what one was told can be read."""

    app: App
    receiver: Receiver

    async def done(self) -> None:
        await until(lambda: not any(engine_of(self.app).metrics.outbound_queue.values()))

    def told(self, path: str) -> list[Received]:
        return [one for one in self.receiver.received if one.path.startswith(path)]

    async def assign(self, visitor: str) -> None:
        """Have an experiment assign an arm, as a shop's server asks for a flag by the tracker's id."""
        async with client(self.app) as http:
            body = {"context": {"targetingKey": visitor}}
            answer = await http.post("/ofrep/v1/evaluate/flags/help", json=body)
            assert answer.json()["variant"] == "chat"


@pytest.fixture
async def telling(
    trained: Path, tmp_path: Path, other: Service, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Telling]:
    monkeypatch.setenv("KEY", "WK")
    (tmp_path / "experiments.json").write_text(json.dumps(OFFER))
    there = f"http://127.0.0.1:{other.port}"
    with receiving() as receiver:
        made = {}
        for name, base in (("here", receiver.url), ("there", there)):
            made[f"segment_{name}"] = f'kind="segment",endpoint="{base}/v1/batch",write_key="env:KEY"'
            made[f"matomo_{name}"] = (
                f'kind="matomo",url="{base}/matomo.php",site=3,dimensions={{all=1}},experiments={{offer=2}},scores={{exit=5}}'
            )
            made[f"ga4_{name}"] = f'kind="ga4",endpoint="{base}/mp/collect",measurement_id="G-1",api_secret="env:KEY"'
        app = start(
            tmp_path, *packed(trained), EVERYBODY, "outbound.connections=1", f"outbound.folder={tmp_path}/outbound",
            f"experiments.file={tmp_path}/experiments.json", f"collect.options.matomo.consent={json.dumps(ALL)}",
            *(f"outbound.targets.{name}={{{options}}}" for name, options in made.items()),
        )  # fmt: skip
        yield Telling(app, receiver)
        told = engine_of(app).outbound
        assert told is not None
        await told.close(0)


async def segment(app: App, anonymous: str, *, personalise: bool = True) -> None:
    context = {
        "userAgent": AGENT.decode(),
        "consent": {"categoryPreferences": {"Analytics": True, "Functional": personalise}},
    }
    call = {"anonymousId": anonymous, "event": "Product Viewed", "context": context}
    assert (await ask(app, "POST", b"/v1/t", [], json.dumps(call).encode()))[0] == 200


async def matomo(app: App, device: str, **more: str) -> None:
    query = {"idsite": "3", "rec": "1", "url": "https://shop.example/p/1", "consent": "1", **more}
    query |= {"_id": device} if device else {}
    assert (await ask(app, "GET", f"/matomo.php?{urlencode(query)}".encode(), [(b"user-agent", AGENT)]))[0] == 200


async def google(app: App, client_id: str, **more: str) -> None:
    hit = {"v": "2", "tid": "G-1", "cid": client_id, "sid": "17945", "en": "page_view", **GRANTED, **more}
    assert (await ask(app, "POST", f"/g/collect?{urlencode(hit)}".encode(), [(b"user-agent", AGENT)]))[0] == 204


def events_of(other: Service, visitor: str) -> int:
    """How many events the other service has of a visitor."""
    held = other.http.post("/v1/visitors/export", json={"visitor": visitor}).json()
    return sum(record["events"] for record in held["records"])


async def test_segment_is_told_by_its_own_id(telling: Telling, other: Service, tmp_path: Path) -> None:
    await segment(telling.app, ANONYMOUS)
    await segment(telling.app, "objects", personalise=False)
    await telling.assign(ANONYMOUS)
    for _ in range(2):
        await segment(telling.app, ANONYMOUS)
    await telling.done()
    found = telling.told("/v1/batch")
    for one in found:
        assert base64.b64decode(one.headers["authorization"].removeprefix("Basic ")) == b"WK:"
    entered, seen, arm, viewed = [call for one in found for call in one.body["batch"]]
    assert {call["anonymousId"] for call in (entered, seen, arm, viewed)} == {ANONYMOUS}
    assert entered["traits"]["lotse_segment_all"] is True and 0 < entered["traits"]["lotse_exit"] <= 1
    assert (seen["type"], seen["event"], seen["properties"]["segment"]) == ("track", "Segment Entered", "all")
    assert arm["traits"] == {"lotse_experiment_offer": "chat"}
    assert (viewed["event"], viewed["properties"]["variation_id"]) == ("Experiment Viewed", "chat")
    assert len({call["messageId"] for one in found for call in one.body["batch"]}) == 4
    # the other service has the two track calls; it knows no other tracker's id
    wait_until(lambda: events_of(other, ANONYMOUS) == 2)
    sent = {what for what, count in engine_of(telling.app).metrics.outbound_sent.items() if count == 1}
    assert sent == {(f"segment_{name}", type_) for name in ("here", "there") for type_ in (ENTERED, ASSIGNED)}
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or ANONYMOUS.encode() not in path.read_bytes(), path


async def test_matomo_is_told_in_dimensions_of_the_visit(telling: Telling, other: Service) -> None:
    there = {"idsite": "3", "rec": "1", "url": "https://shop.example/", "cid": DEVICE}
    assert other.http.get("/matomo.php", params=there, headers={"user-agent": AGENT.decode()}).status_code == 200
    assert events_of(other, DEVICE) == 1
    await matomo(telling.app, DEVICE)
    await matomo(telling.app, "")  # whom Matomo tells apart by address and program, nobody can name
    await telling.assign(DEVICE)
    await matomo(telling.app, DEVICE)
    await telling.done()
    entered, arm = [parse_qs(query[1:]) for one in telling.told("/matomo.php") for query in one.body["requests"]]
    exits = entered.pop("dimension5")
    assert 0 < float(exits[0]) <= 1
    common = {"idsite": ["3"], "rec": ["1"], "ping": ["1"], "bots": ["1"], "cid": [DEVICE]}
    assert entered == {**common, "dimension1": ["yes"]}
    assert arm == {**common, "dimension2": ["chat"]}
    # pings of a session that runs there
    wait_until(lambda: events_of(other, DEVICE) == 3)
    assert all(one.path == "/matomo.php" for one in telling.receiver.received)


async def test_google_is_told_within_the_visitors_session(telling: Telling, other: Service) -> None:
    await google(telling.app, CLIENT)
    await google(telling.app, "1.1", gcd="13r3p3r3r5l1", gcs="G110")  # may be personalised, but has no lasting id
    await telling.assign(CLIENT)
    await google(telling.app, CLIENT)
    await telling.done()
    entered, arm = telling.told("/mp/collect")
    for one in (entered, arm):
        assert parse_qs(one.path.partition("?")[2]) == {"measurement_id": ["G-1"], "api_secret": ["WK"]}
        assert one.body["client_id"] == CLIENT and one.body["events"][0]["params"]["session_id"] == "17945"
        answer = other.http.post("/debug/mp/collect", content=one.raw)
        assert answer.json() == {"validationMessages": []}
    (event,) = entered.body["events"]
    assert (event["name"], event["params"]["segment"]) == ("lotse_segment_entered", "all")
    assert 0 < event["params"]["score_exit"] <= 1
    (event,) = arm.body["events"]
    assert (event["name"], event["params"]["arm"]) == ("lotse_experiment_assigned", "chat")
    wait_until(lambda: events_of(other, CLIENT) == 2)


async def test_trackers_that_were_away_leave_no_dead_letter(telling: Telling, tmp_path: Path) -> None:
    telling.receiver.answers = [(400, {})] * 3
    await segment(telling.app, ANONYMOUS)
    await google(telling.app, CLIENT)
    await telling.done()
    dropped = engine_of(telling.app).metrics.outbound_dropped
    assert dropped == {("segment_here", "refused"): 1, ("ga4_here", "refused"): 1}
    assert not (tmp_path / "outbound").exists()


async def test_no_id_outlives_its_message(telling: Telling) -> None:
    """Not even until garbage is collected, which a worker does every few hours."""
    gc.collect()
    gc.disable()
    try:
        telling.receiver.answers = [None, (503, {}), (400, {})]
        for visitor in (CLIENT, "2.2", "3.3"):
            await google(telling.app, visitor)
        await telling.done()
        telling.receiver.stop()
        engine_of(telling.app).metrics.outbound_retries.clear()
        await segment(telling.app, ANONYMOUS)
        await until(lambda: engine_of(telling.app).metrics.outbound_retries["segment_here"] > 0)
        telling.receiver.start()
        await telling.done()
        await asyncio.sleep(0)  # the senders take their leave
        assert [one for one in gc.get_objects() if type(one) is Message] == []  # others may not like to be asked
    finally:
        gc.enable()


def test_the_documents_example_can_be_used_and_names_every_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "outbound.md").read_text()
    for name in ("CRM_SECRET", "SEGMENT_WRITE_KEY", "GA4_API_SECRET"):
        monkeypatch.setenv(name, SECRET)
    (tmp_path / "serving.toml").write_text("\n".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)))
    settings = load_serving(tmp_path / "serving.toml")
    kinds = {point.name for point in entry_points(group="lotse.targets")}
    assert {table["kind"] for table in settings.outbound.targets.values()} == kinds
    assert set(targets(settings.outbound)) == {"crm", "segment", "matomo", "ga4"}
    for model in (SegmentSettings, WebhookOptions, SegmentTargetOptions, MatomoTargetOptions, Ga4TargetOptions):
        assert [name for name in model.model_fields if not re.search(rf"\b{name} =", page)] == []


def test_many_go_in_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "WK")
    settings = load_serving(
        ROOT / "configs" / "serving.toml",
        [EVERYBODY, 'outbound.targets.m={kind="matomo",url="http://m/matomo.php",site=1,dimensions={all=1}}'],
    )
    (target,) = targets(settings.outbound).values()
    data: dict[str, Any] = {"segment": "all", "number": 1, "events": 1, "scores": {}, "models": {}}
    many = [Message(f"m{n}", ENTERED, 0, n, 0, "", data, "matomo", {"id": f"{n:016x}"}) for n in range(100)]
    assert all(target.wants(one) for one in many) and target.together == 100
    assert not target.wants(many[0]._replace(who={"id": "day-1f"}))
    assert len(json.loads(target.parcel(many, 0).body)["requests"]) == 100


def test_workers_of_a_service_tell_under_one_id_and_a_stop_loses_nothing(
    own_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    with receiving() as receiver:
        service = own_service(
            "server.workers=2", "server.stop_seconds=1", EVERYBODY, "store.size_gib=0.05",
            f'outbound.targets.crm={{kind="webhook",url="{receiver.url}",secret="env:HOOK"}}',
        )  # fmt: skip
        wire = {"visitor": "anna", "name": "page_view", "consent": ALL}
        for _ in range(12):  # each connection comes to one of the workers
            with service.client() as http:
                token = http.post("/v1/events", json=wire).json()["session"]
        wait_until(lambda: bool(receiver.received))
        receiver.stop()
        with service.client() as http:
            waits = http.post("/v1/events", json={**wire, "visitor": "bert"}).json()["session"]
        service.stop()
        assert service.process.returncode == 0
        (file,) = service.folder.glob("lotse-data/outbound/*.jsonl")
        letters = [json.loads(line) for line in file.read_text().splitlines()]
        # a worker that came to it late found nobody: it keeps what the other one has told
        assert {one["session"] for one in letters} - {token} == {waits}
        told = [one.headers["webhook-id"] for one in receiver.received]
        told += [one["id"] for one in letters if one["session"] == token]
        assert len(set(told)) == 1 <= len(told) <= 2
        assert {one.body["data"]["session"] for one in receiver.received} == {token}
        receiver.start()
        sets = [argument for override in service.overrides for argument in ("--set", override)]
        done = lotse(service.folder, "outbound", "replay", *sets)
        assert (done.returncode, done.stdout) == (0, f"{len(letters)} sent, 0 dropped, 0 left\n"), done.stderr
        assert waits in {one.body["data"]["session"] for one in receiver.received}
        log = service.log.read_text()
        assert not [word for word in ("anna", "bert", "Traceback", SECRET[6:]) if word in log]

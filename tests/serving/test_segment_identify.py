"""Scores back to Segment, as its HTTP API receives them, and fails to."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serving.collect.segment_identify import Identify
from serving.collect.segment_options import IdentifyOptions
from serving.requests import Answer
from tests.receiver import Receiver, receiving
from tests.workspace import Service, wait_until

pytestmark = pytest.mark.anyio
ANNA, BERT = {"anonymousId": "anna"}, {"anonymousId": "bert"}
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"


@pytest.fixture
def api() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class Told:
    """Scores back by options of the test's, without pauses, and what was counted."""

    def __init__(self, api: Receiver, **options: Any) -> None:
        self.counts: Counter[str] = Counter()
        fast = {"seconds": 0, "pause_seconds": 0.01, "kept_seconds": 20, **options}
        settings = IdentifyOptions(write_key="WK", endpoint=f"{api.url}/v1/batch", **fast)
        self.identify = Identify(settings, lambda outcome: self.counts.update([outcome]))

    def offer(self, who: dict[str, str], **scores: float) -> None:
        answer = Answer(status="folded", events=1, scores=scores, models=dict.fromkeys(scores, "7"))
        self.identify.offer(who, answer)

    async def done(self) -> None:
        """Nothing waits and nothing is on its way."""
        if self.identify._sender is not None:
            async with asyncio.timeout(60):
                await self.identify._sender


def traits(api: Receiver) -> list[dict[str, Any]]:
    return [call["traits"] for one in api.received for call in one.body["batch"]]


async def test_an_identify_call_holds_scores_and_versions(api: Receiver) -> None:
    told = Told(api)
    told.offer(ANNA, bounce=0.123456, conversion=0.3)
    await told.done()
    (request,) = api.received
    assert request.path == "/v1/batch"
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"WK:"
    (call,) = request.body["batch"]
    assert (call["type"], call["anonymousId"]) == ("identify", "anna")
    assert "userId" not in call
    assert call["messageId"].startswith("lotse-") and call["timestamp"].endswith("Z") and request.body["sentAt"]
    assert call["traits"] == {
        "lotse_bounce": 0.1235, "lotse_bounce_version": "7", "lotse_conversion": 0.3, "lotse_conversion_version": "7",
    }  # fmt: skip
    assert told.counts == {"sent": 1}
    # nobody's id is kept beyond that
    assert "anna" not in repr(vars(told.identify))


async def test_only_what_is_news_is_told(api: Receiver) -> None:
    told = Told(api, step=0.2, thresholds={"conversion": [0.5, 0.05]})
    scores = (0.01, 0.06, 0.2, 0.26, 0.49, 0.51, 0.5, 0.45, 0.04, 0.0)
    for score, news in zip(scores, (0, 1, 0, 1, 1, 1, 0, 1, 1, 0), strict=True):
        before = len(api.received)
        told.offer(ANNA, conversion=score)
        await told.done()
        assert len(api.received) - before == news, score


async def test_scores_of_a_prior_or_without_the_store_are_not_told(api: Receiver) -> None:
    told = Told(api)
    scores, models = {"bounce": 0.9, "exit": 0.8}, {"exit": "3"}
    told.identify.offer(
        ANNA, Answer(status="folded", events=1, scores=scores, models=models, reason="store_unreachable")
    )
    told.identify.offer(
        BERT, Answer(status="folded", events=1, scores=scores, models=models, reasons={"bounce": "no_model"})
    )
    await told.done()
    assert traits(api) == [{"lotse_exit": 0.8, "lotse_exit_version": "3"}]


async def test_what_waits_is_told_as_of_then_and_not_more_often_than_configured(api: Receiver) -> None:
    told = Told(api, seconds=0.5)
    loop = asyncio.get_running_loop()
    told.offer(ANNA, exit=0.2)
    await told.done()
    first = loop.time()
    for score in (0.4, 0.9, 0.6):
        told.offer(ANNA, exit=score)
        told.offer(BERT, exit=score)
        await asyncio.sleep(0)
    await told.done()
    assert loop.time() - first >= 0.4
    assert [one["lotse_exit"] for one in traits(api)] == [0.2, 0.6, 0.6]
    assert [call["anonymousId"] for one in api.received for call in one.body["batch"]] == ["anna", "bert", "anna"]


async def test_who_takes_back_consent_is_not_told_any_more(api: Receiver) -> None:
    told = Told(api, pause_seconds=0.1)
    told.offer(ANNA, exit=0.2)
    told.offer(BERT, exit=0.2)
    told.identify.forget(ANNA)
    await told.done()
    assert [call["anonymousId"] for one in api.received for call in one.body["batch"]] == ["bert"]


async def test_an_outage_is_waited_out_and_a_call_keeps_its_id(api: Receiver) -> None:
    told = Told(api)
    api.answers = [(500, {}), None, (429, {"retry-after": "1"}), (503, {})]
    told.offer(ANNA, exit=0.2)
    begin = asyncio.get_running_loop().time()
    await told.done()
    assert len(api.received) == 5
    assert len({call["messageId"] for one in api.received for call in one.body["batch"]}) == 1
    assert asyncio.get_running_loop().time() - begin >= 1  # as it was asked to
    assert told.counts == {"sent": 1}


async def test_newer_scores_replace_those_that_wait_while_nobody_listens(api: Receiver) -> None:
    told = Told(api)
    api.stop()
    told.offer(ANNA, exit=0.2)
    await asyncio.sleep(0.1)  # on its way, in vain
    for score in (0.4, 0.6, 0.9):
        told.offer(ANNA, exit=score)
        told.offer(BERT, exit=score)
    api.start()
    await told.done()
    assert [one["lotse_exit"] for one in traits(api)] == [0.2, 0.9, 0.9]
    assert told.counts == {"sent": 3}


async def test_what_cannot_be_told_is_given_up_logged_without_ids_and_told_when_there_is_news(
    api: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(api, kept_seconds=1)
    api.stop()
    told.offer(ANNA, exit=0.2)
    with caplog.at_level(logging.INFO):
        await told.done()
    assert told.counts == {"refused": 1}
    (record,) = [record for record in caplog.records if record.name == "lotse.segment"]
    assert "the scores of 1 visitors were not taken by Segment" in record.getMessage()
    assert "anna" not in caplog.text
    assert not told.identify._waiting and not told.identify._told
    api.start()
    told.offer(ANNA, exit=0.2)
    await told.done()
    assert told.counts == {"refused": 1, "sent": 1}


async def test_a_refusal_is_not_tried_again(api: Receiver) -> None:
    told = Told(api)
    api.answers = [(400, {})]
    told.offer(ANNA, exit=0.2)
    await told.done()
    assert len(api.received) == 1
    assert told.counts == {"refused": 1}


async def test_as_many_wait_as_are_configured_and_go_in_requests_of_a_hundred(api: Receiver) -> None:
    told = Told(api, waiting=250, pause_seconds=0.05)
    for number in range(260):
        told.offer({"anonymousId": f"v{number}"}, exit=0.5)
    await told.done()
    assert [len(one.body["batch"]) for one in api.received] == [100, 100, 50]
    assert told.counts == {"given up": 10, "sent": 250}
    assert api.received[0].body["batch"][0]["anonymousId"] == "v10"


def test_the_service_tells_segment_of_visitors_who_consent(own_service: Callable[..., Service], api: Receiver) -> None:
    options = {"write_key": '"WK"', "endpoint": f'"{api.url}/v1/batch"', "step": "0.01", "pause_seconds": "0.05"}
    service = own_service(*(f"collect.options.segment.identify.{name}={value}" for name, value in options.items()))
    for visitor, personalise in (("yes-1", True), ("no-1", False)):
        consent = {"consent": {"categoryPreferences": {"Analytics": True, "Functional": personalise}}}
        wire = {"anonymousId": visitor, "event": "Product Viewed", "messageId": f"m-{visitor}"}
        context = {"page": {"url": "https://shop.example/p/1"}, "userAgent": AGENT, **consent}
        answer = service.http.post("/v1/t", content=json.dumps({**wire, "context": context}))
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    wait_until(lambda: bool(api.received))
    calls = [call for one in api.received for call in one.body["batch"]]
    assert [call["anonymousId"] for call in calls] == ["yes-1"]
    # nobody is told of a bounce that cannot be any more, and the other heads have models of the fixture's
    assert {"lotse_conversion", "lotse_conversion_version", "lotse_exit", "lotse_exit_version"} <= set(
        calls[0]["traits"]
    )
    assert all(0 <= calls[0]["traits"][name] <= 1 for name in ("lotse_conversion", "lotse_exit"))
    wait_until(
        lambda: 'lotse_returned_scores_total{outcome="sent",tracker="segment"} 1.0' in service.http.get("/metrics").text
    )
    assert "yes-1" not in service.log.read_text()

"""What a browser says of its user's will, from the header to the consent that stands in the handed-on rows."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from features.events import CONSENT_LINK, CONSENT_MEASURE, CONSENTS
from serving.pseudonyms import DAY_MS
from serving.sessions import key_of
from tests.serving.in_process import ask, engine_of, start
from tests.serving.test_canary import TRACKERS, Sent, captured
from tests.serving.test_lane import Served, chunked, request, serving
from tests.workspace import wait_until

NATIVE = Sent("POST", "/v1/events", "", {}, json.dumps({"visitor": "jane", "name": "page_view"}).encode())
SAYS_ALL = NATIVE._replace(
    body=json.dumps({"visitor": "joe", "name": "page_view", "consent": ["measure", "link", "personalise"]}).encode()
)
ALL = sum(CONSENTS.values())


async def consents(folder: Path, sent: list[Sent], header: str, *overrides: str) -> set[int]:
    """The consent in the rows of sessions that some requests made, each with one more header."""
    # where nothing is said everything is granted, so that there is something to take away
    app = start(folder, 'session.consent=["measure", "link", "personalise"]', *overrides)
    engine = engine_of(app)
    for one in sent:
        headers = {**one.headers, **({header: "1"} if header else {})}
        pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        target = (one.path + (f"?{one.query}" if one.query else "")).encode()
        status, _ = await ask(app, one.method, target, pairs, one.body)
        assert status < 500
    later = time.time_ns() // 1_000_000 + DAY_MS
    await engine.upkeep.sweep(later)
    await engine.upkeep.hand_over(later)
    await engine.close()
    return {
        row["consent"]
        for path in folder.glob("closed/day=*/*.parquet")
        for row in pq.ParquetFile(path).read(["consent"]).to_pylist()
    }


def sent_by(name: str) -> list[Sent]:
    if name == "native":
        return [NATIVE, SAYS_ALL, SAYS_ALL._replace(query="scores=none")]
    return list(captured(name))


@pytest.mark.parametrize("name", ["native", *TRACKERS])
@pytest.mark.parametrize("header", ["sec-gpc", "dnt"])
def test_a_browser_that_objects_is_neither_linked_nor_personalised(tmp_path: Path, name: str, header: str) -> None:
    sent, trackers = sent_by(name), f"collect.trackers={json.dumps([] if name == 'native' else [name])}"
    found = asyncio.run(consents(tmp_path / "objects", sent, header, trackers))
    assert found and all(consent & ALL & ~CONSENT_MEASURE == 0 for consent in found)
    setting = {"sec-gpc": "gpc", "dnt": "dnt"}[header]
    for folder, said, off in (("silent", "", "true"), ("switched off", header, "false")):
        found = asyncio.run(consents(tmp_path / folder, sent, said, trackers, f"privacy.{setting}={off}"))
        assert any(consent & CONSENT_LINK for consent in found), folder


def test_both_ways_of_events_look_at_it(tmp_path: Path) -> None:
    """The short way of whole requests, and the usual one."""
    served = Served(tmp_path)
    with contextmanager(serving)(served):
        for visitor, way in (("jane", bytes), ("joe", chunked)):
            body = json.dumps({"visitor": visitor, "name": "page_view", "consent": ["measure", "link"]}).encode()
            served.ask(way(request(body, "sec-gpc: 1")))
            engine = engine_of(served.app)
            pseudonym = engine.pseudonyms.at(time.time_ns() // 1_000_000)
            assert engine.store.read(key_of(pseudonym(visitor, True))) is None
            assert engine.store.read(key_of(pseudonym(visitor, False))) is not None
        wait_until(lambda: served.went == ["Whole", "RequestResponseCycle"])

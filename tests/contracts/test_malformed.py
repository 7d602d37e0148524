"""Requests that no client sends, at every installed tracker: truncated, mistyped, huge, deep, random.

They are refused or dropped for a reason out of a few of ours; nothing of them is in a metric or a log, none is an error
of the service's, and of a batch the other events are kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.app import App
from serving.collect import Collected, Hit
from serving.intake import EventIn
from tests.contracts.captured import CAPTURES, captures, endpoint, told, tracker
from tests.serving.in_process import ask, engine_of, start
from tests.workspace import ROOT

NAMES = sorted(point.name for point in entry_points(group="lotse.trackers"))
# Planted wherever a request may hold something of its own.
CANARY = "canary7f3a"
DEEP = 50_000
# Where a client's format has a list of events; of others the whole body is one.
BATCHES = ("batch", "data", "events", "requests")
MOST_REASONS = 40

# What reasons are made of: words of our source, and of the contract's fields.
_SOURCE = " ".join(path.read_text() for path in (ROOT / "serving" / "collect").rglob("*.py"))
WORDS = {*re.findall(r"\w+", _SOURCE), *EventIn.__struct_fields__, "bad"}

WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 7, 1e308, 2**70, float("inf"), "", CANARY, CANARY * 3_000, f"%zz{CANARY}%", f"\x00{CANARY}",
    "\ud800", "1e999", "NaN", "undefined", "2026-99-99T99:99:99Z", [], {}, [None], [CANARY], {CANARY: CANARY},
    [[[{"a": [CANARY]}]]],
)  # fmt: skip
TYPES = (b"text/plain", b"application/json", b"application/x-www-form-urlencoded", b"multipart/form-data", b"\xff;=")
AGENTS = (b"", b"\xff\x00", b"x" * 20_000, b"Mozilla/5.0 " + CANARY.encode())


@cache
def hits(name: str) -> tuple[Hit, ...]:
    """All captured requests of the tracker's endpoints."""
    adapter = tracker(name)
    found = [one.hit for file in sorted(CAPTURES.glob("*.jsonl")) for one in captures(file.stem)]
    return tuple(hit for hit in found if hit.method != "OPTIONS" and adapter.endpoint(hit.path) is not None)


class Kept(logging.Handler):
    """Every line that is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Flooded:
    """A service in this process that all trackers send to, and what it says."""

    def __init__(self, app: App, kept: Kept) -> None:
        self.app, self._kept = app, kept
        self._loop = asyncio.new_event_loop()

    def send(self, hit: Hit, *, encoded: bool = False) -> int:
        """The status of the answer to a request; encoded: whether its header says so, whatever the body is."""
        headers = [(name, value) for name, value in hit.headers.items() if name != b"content-encoding"]
        headers += [(b"content-encoding", b"gzip")] if encoded else []
        target = f"{hit.path}?{hit.query}".encode("utf-8", "surrogateescape")
        status, answer = self._loop.run_until_complete(ask(self.app, hit.method, target, headers, hit.body))
        assert status < 500, (status, hit.method, target[:500], hit.body[:500], answer)
        return status

    def check(self, name: str) -> None:
        """What is counted and said of all this."""
        metrics = engine_of(self.app).metrics
        reasons = {reason for whose, reason in metrics.dropped if whose == name}
        assert len(reasons) <= MOST_REASONS, reasons
        for reason in reasons:
            assert len(reason) <= 60 and set(re.findall(r"\w+", reason)) <= WORDS, reason
        assert CANARY not in metrics.text().decode()
        lines = [line for line in self._kept.lines if CANARY in line or line.startswith(("ERROR", "WARNING"))]
        assert not [line for line in lines if " asyncio " not in line], lines[:5]

    def close(self) -> None:
        """Let go of the loop."""
        self._loop.close()


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flooded]:
    kept, root = Kept(), logging.getLogger()
    before = root.level
    root.addHandler(kept)
    root.setLevel(logging.INFO)
    found = Flooded(start(tmp_path_factory.mktemp("flooded"), f"collect.trackers={json.dumps(NAMES)}"), kept)
    yield found
    found.close()
    root.removeHandler(kept)
    root.setLevel(before)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key of a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def mistyped(draw: st.DrawFn, text: bytes) -> bytes:
    """JSON in which a value is another, is missing or is deep; something else is left as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    found = list(places(value))
    if not found:
        return json.dumps(draw(st.sampled_from(WRONG))).encode()
    for container, key in draw(st.lists(st.sampled_from(found), min_size=1, max_size=3)):
        if draw(st.booleans()):
            container[key] = draw(st.sampled_from(WRONG))
        elif isinstance(container, dict):
            container.pop(key, None)
    return json.dumps(value).encode()


def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut, or with something else in the middle."""
    begin = draw(st.integers(0, len(content)))
    end = draw(st.integers(begin, min(len(content), begin + 20)))
    return content[:begin] + draw(st.binary(max_size=20)) + (content[end:] if draw(st.booleans()) else b"")


def misquoted(draw: st.DrawFn, query: str) -> str:
    """Parameters with other values, without one, twice, or with escapes that are none."""
    parts = query.split("&")
    place = draw(st.integers(0, len(parts) - 1))
    name, _, value = parts[place].partition("=")
    odd = (
        "",
        "%",
        "%zz",
        "%ff%fe",
        "%00",
        "[",
        "{}",
        "null",
        "NaN",
        "1e999",
        "-1",
        CANARY,
        CANARY * 500,
        value[: len(value) // 2],
    )
    parts[place] = draw(st.sampled_from([name, *(f"{name}={each}" for each in odd), f"{parts[place]}&{parts[place]}"]))
    return "&".join(parts)


@st.composite
def malformed(draw: st.DrawFn, name: str) -> tuple[Hit, bool]:
    """A captured request with something wrong, and whether it says that it is compressed."""
    hit = draw(st.sampled_from(hits(name)))
    headers, body, query = dict(hit.headers), hit.body, hit.query
    for how in draw(
        st.lists(
            st.sampled_from(("types", "bytes", "query", "form", "headers", "random", "deep")), min_size=1, max_size=2
        )
    ):
        if how == "types":
            body = mistyped(draw, body)
        elif how == "bytes":
            body = damaged(draw, body)
        elif how == "query":
            query = misquoted(draw, query)
        elif how == "form":
            body = misquoted(draw, body.decode("latin-1")).encode("latin-1")
        elif how == "random":
            body = draw(st.binary(max_size=200))
        elif how == "deep":
            body = draw(st.sampled_from((b"[", b'{"a":', b'[{"batch":'))) * DEEP
        else:
            headers[b"content-type"] = draw(st.sampled_from(TYPES))
            headers[b"user-agent"] = draw(st.sampled_from(AGENTS))
            headers[b"cookie"] = draw(st.binary(max_size=50))
    method = draw(st.sampled_from(("GET", "POST")))
    return hit._replace(headers=headers, body=body, query=query, method=method), draw(st.integers(0, 19)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_flood_of_malformed_requests_does_no_harm(name: str, flooded: Flooded) -> None:
    assert hits(name), "there are no captures of this tracker"

    @hypothesis_settings(max_examples=400)
    @given(malformed(name))
    def flood(sent: tuple[Hit, bool]) -> None:
        hit, encoded = sent
        flooded.send(hit, encoded=encoded)

    flood()
    flooded.check(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_capture_cut_anywhere_does_no_harm(name: str, flooded: Flooded) -> None:
    for hit in hits(name):
        for share in (0, 0.2, 0.5, 0.8):
            flooded.send(hit._replace(body=hit.body[: int(share * len(hit.body))]))
            flooded.send(hit._replace(query=hit.query[: int(share * len(hit.query))]))
        flooded.send(hit._replace(body=hit.body[:-1]))
    flooded.check(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_value_of_every_wrong_kind_in_every_place_does_no_harm(name: str, flooded: Flooded) -> None:
    seen = set()
    for hit in hits(name):
        try:
            value = json.loads(hit.body)
        except ValueError:
            continue
        for number, (container, key) in enumerate(places(value)):
            # a place that another request had, too, would be read the same way
            if (hit.path, type(value), str(key), type(container[key])) in seen:
                continue
            seen.add((hit.path, type(value), str(key), type(container[key])))
            for wrong in WRONG:
                other = json.loads(hit.body)
                holder, name_there = next(each for index, each in enumerate(places(other)) if index == number)
                holder[name_there] = wrong
                flooded.send(hit._replace(body=json.dumps(other).encode()))
    flooded.check(name)


def batches() -> Iterator[Any]:
    """Captured requests with a list of events, and where it is."""
    for name in NAMES:
        for number, hit in enumerate(hits(name)):
            try:
                value = json.loads(hit.body)
            except ValueError:
                continue
            keys = [None] if isinstance(value, list) else BATCHES if isinstance(value, dict) else []
            for key in keys:
                if isinstance(value, list) or isinstance(value.get(key), list):
                    yield pytest.param(name, hit, key, id=f"{name}-{number}-{key}")


@pytest.mark.parametrize(("name", "hit", "key"), list(batches()))
def test_one_bad_event_does_not_lose_the_others(name: str, hit: Hit, key: str | None) -> None:
    adapter = tracker(name)

    def read(value: Any) -> Collected:
        sent = hit._replace(body=json.dumps(value).encode())
        return asyncio.run(_awaited(endpoint(adapter, sent).read(sent)))

    expected = [told(event) for event in read(json.loads(hit.body)).events]
    for bad in (None, 7, CANARY, [], [7], {CANARY: CANARY}, True):
        for first in (True, False):
            value = json.loads(hit.body)
            events = value if key is None else value[key]
            events.insert(0 if first else len(events), bad)
            found = [told(event) for event in read(value).events]
            assert _is_within(expected, found), bad


async def _awaited(found: Collected | Awaitable[Collected]) -> Collected:
    return await found if isinstance(found, Awaitable) else found


def _is_within(expected: list[Mapping[str, Any]], found: list[Mapping[str, Any]]) -> bool:
    """Whether all of them are there, in their order, among others perhaps."""
    rest = iter(found)
    return all(any(event == other for other in rest) for event in expected)

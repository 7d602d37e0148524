"""The row that is kept of a running session: one of those that training would make, drawn with the probability that is
said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from features.batch import build_rows
from features.events import CONSENT_LINK, Event
from features.generate import layout_of
from features.sessions import HEADER_CONSENT, HEADER_EVENTS, HEADER_LAST_AT
from serving.drawn import DRAWN
from serving.engine import Engine
from serving.handover import ROW
from serving.sessions import Ending, Erasure, key_of, word_of
from serving.stores import KEY_BYTES, Batch
from serving.turn import Turn
from tests.serving.in_process import open_engine, post
from tests.sessions import START, histories, table

HOUR = 3_600_000


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One without models; each test leaves nothing in it."""
    folder = tmp_path_factory.mktemp("drawn")
    yield open_engine(None, folder, "store.url=memory:")


def fold(engine: Engine, events: Sequence[Event]) -> None:
    """Have the events folded as one request's."""
    turn = Turn(engine.lineup, len(events), events[-1].time, lambda raw, linked, now: ())
    turn.add(events, [""] * len(events))
    engine.store.apply(list(turn.visits.values()), turn.advance, alone=True)
    turn.close()


def over(engine: Engine, at_ms: int) -> list[dict[str, Any]]:
    """The sessions as they would be handed on, now that all are over; nothing is left of them."""
    asyncio.run(engine.upkeep.sweep(at_ms))
    batch = engine.store.claim(100_000, at_ms, 1)
    assert isinstance(batch, Batch)
    engine.store.settle(batch.name)
    engine.store.apply([Erasure(key) for key in {name[:KEY_BYTES] for name, _ in batch.sessions}])
    found: list[dict[str, Any]] = engine.sink.table(batch.sessions).to_pylist()
    return found


def features_of(engine: Engine, row: dict[str, Any]) -> np.ndarray:
    """What the fold reads of the kept row."""
    record = engine.fold.new_record()
    header = record[:128].view(np.int64)
    header[HEADER_CONSENT], header[HEADER_EVENTS] = row[f"{ROW}consent"], row[f"{ROW}events"]
    header[HEADER_LAST_AT] = row[f"{ROW}last_at"]
    for name, (dtype, offset) in layout_of(engine.fold.catalogue.fields.values()).places.items():
        record[offset : offset + np.dtype(dtype).itemsize].view(dtype)[0] = row[f"{ROW}{name}"]
    out = engine.fold.new_row()
    engine.fold.read(record, row[f"{ROW}last_at"] + row[f"{ROW}idle_ms"], out, engine.fold.nothing_learned)
    return out


@settings(max_examples=40)
@given(histories(), st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_it_is_a_row_of_the_sessions(engine: Engine, events: list[Event], sizes: list[int]) -> None:
    if not events:
        return
    begin, number = 0, 0
    while begin < len(events):
        size = sizes[number % len(sizes)]
        fold(engine, events[begin : begin + size])
        begin, number = begin + size, number + 1
    handed_on = over(engine, events[-1].time + HOUR)
    rows = build_rows(table(events), engine.fold)
    session = rows.events["session_index"].to_numpy()[rows.event]
    began = rows.events.groupby("session_index").first()
    assert len(handed_on) == len(began)
    found = {}
    for index, visitor, time in zip(began.index, began["visitor"], began["time"], strict=True):
        found.setdefault((visitor, time), []).append(index)
    for row in handed_on:
        of = [np.flatnonzero(session == index) for index in found[row["visitor"], row["started_at"]]]
        # two sessions of a visitor may begin at the same time: then it is of one of them
        same = [
            (places, place)
            for places in of
            for place in places
            if len(places) == row["row/of"] and rows.prefix[place] == row["row/events"]
            and rows.idle_ms[place] == row["row/idle_ms"]
            and np.array_equal(rows.matrix[place], features_of(engine, row), equal_nan=True)
        ]  # fmt: skip
        assert same
        untils = {rows.now[place + 1] if place < places[-1] else row["ended_at"] + HOUR // 2 for places, place in same}
        # of events at the same time the next one comes when this one does
        assert row["row/until"] in untils


def test_rows_are_drawn_as_often_as_is_said(engine: Engine) -> None:
    sessions = 4_000
    for place, at in enumerate((0, 1_000, 13_000)):
        events = [Event(visitor=visitor, time=START + at, name=place) for visitor in range(1, sessions + 1)]
        fold(engine, events)
    handed_on = over(engine, START + HOUR)
    # after three events, 5 and 10 s after the second, five silences at the end
    assert {row["row/of"] for row in handed_on} == {10}
    places = [(1, 0), (2, 0), (2, 5_000), (2, 10_000), *((3, 1_000 * idle) for idle in (0, 5, 10, 30, 60, 300))]
    kept = [(row["row/events"], row["row/idle_ms"]) for row in handed_on]
    assert {row["row/number"] for row in handed_on} == set(range(1, 11))
    assert all(places[row["row/number"] - 1] == place for row, place in zip(handed_on, kept, strict=True))
    likely = 1 / np.arange(1, 11)
    assert chisquare([kept.count(one) for one in places], sessions * likely / likely.sum()).pvalue > 0.001


def test_withdrawal_unlinks_it(tmp_path: Path) -> None:
    async def run() -> list[dict[str, Any]]:
        engine = open_engine(None, tmp_path, "store.url=memory:")
        linked = {"visitor": "anna", "name": "purchase", "value": 5.0, "consent": ["measure", "link"]}
        refused = {"name": "page_view", "consent": ["measure"]}
        await post(engine, [[linked | {"time": START}]], START)
        await engine.upkeep.sweep(START + HOUR)
        # what was kept of the second visit knows of the first until linking is refused
        await post(engine, [[linked | {"time": START + HOUR}]], START + HOUR)
        await post(engine, [[linked | {"time": START + HOUR + 1_000, **refused}]], START + HOUR + 1_000)
        await engine.upkeep.sweep(START + 3 * HOUR)
        await engine.upkeep.hand_over(START + 3 * HOUR)
        return [row for path in engine.closed._files() for row in pq.ParquetFile(path).read().to_pylist()]

    first, second = sorted(asyncio.run(run()), key=lambda row: row["started_at"])
    for row in (first, second):
        assert not row["row/consent"] & CONSENT_LINK and row["row/of"]
        assert not row["row/visitor_purchases"] and not row["row/visitor_visits"]
    assert first["row/visitor_visits"] is None  # of what was handed on already


def test_sessions_from_before_the_setting_end_and_lose_nothing(tmp_path: Path) -> None:
    event = {"visitor": "anna", "name": "page_view"}

    async def run(rows: int, at: int) -> tuple[str, list[dict[str, Any]]]:
        engine = open_engine(None, tmp_path, f"log.rows={rows}", "store.size_gib=0.05")
        ((answer,),) = await post(engine, [[event | {"time": at}]], at)
        visitor, _ = engine.looks.opened(answer.session)
        value = engine.store.read(key_of(visitor))
        assert isinstance(value, bytes) and bool(word_of(value, HEADER_CONSENT) & DRAWN) == bool(rows)
        assert engine.sessions.fits(value)
        await engine.upkeep.hand_over(at)
        files = engine.closed._files()
        await engine.close()
        return answer.status, [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]

    assert asyncio.run(run(0, START)) == ("started", [])
    status, (before,) = asyncio.run(run(1, START + 1_000))
    assert status == "started" and before["events"] == 1 and before.get("row/of") is None
    status, rows = asyncio.run(run(0, START + 2_000))
    assert status == "started" and sorted(bool(row["row/of"]) for row in rows) == [False, True]


def test_a_session_that_its_tracker_ends_has_one(engine: Engine) -> None:
    fold(engine, [Event(visitor=7, time=START, name=1), Event(visitor=7, time=START + 7_000, name=2)])
    engine.store.apply([Ending([engine.sessions], key_of(7), 0)])
    (row,) = over(engine, START + HOUR)
    assert row["events"] == 2 and row["row/of"] == 8

"""Compiled = naive = one-by-one live steps = batch, on random sessions, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.batch import Rows, build_rows
from features.compiler import compile_fold
from features.definitions import CATALOGUE
from features.events import Event
from features.sessions import STATUS_NAMES
from features.tables import Table, Tables
from tests import naive
from tests.sessions import START, histories, table

FOLD = compile_fold()
# values for keys that the random histories hold, and for products, categories and transitions among them
LEARNED = Tables(
    {
        name: Table(np.array([1, -5, 7919, 2**61, *range(32, 90, 3)]), np.linspace(-2.0, 1.5, 24), 0.125)
        for name in CATALOGUE.tables
    }
)
TABLES = LEARNED.pack(tuple(CATALOGUE.tables))
TIMEOUT_MS = 1_800_000


def vector(features: dict[str, np.float32]) -> np.ndarray:
    return np.array([features[name] for name in FOLD.names], np.float32)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32), err_msg=str(FOLD.names))


@given(histories())
def test_live_steps_equal_naive(events: list[Event]) -> None:
    records: dict[int, np.ndarray] = {}
    sessions: dict[int, naive.Session] = {}
    for event in events:
        record = records.setdefault(event.visitor, FOLD.new_record())
        session = sessions.setdefault(event.visitor, naive.Session(CATALOGUE, LEARNED))
        out = FOLD.new_row()
        status = FOLD.advance(record, out, TIMEOUT_MS, TABLES, *event)
        assert STATUS_NAMES[status] == session.fold(event, TIMEOUT_MS)
        assert_same(out, vector(session.read(session.last_at)))
        FOLD.read(record, session.last_at + 12_345, out, TABLES)
        assert_same(out, vector(session.read(session.last_at + 12_345)))


@given(histories(), st.sampled_from([(), (5,), (5, 10, 30, 60, 300), (3600,)]), st.sampled_from([1, 3]))
def test_batch_equals_naive(events: list[Event], idle_seconds: tuple[float, ...], threads: int) -> None:
    rows = build_rows(table(events), FOLD, idle_seconds=idle_seconds, threads=threads, tables=LEARNED)
    expected = naive.rows(events, CATALOGUE, idle_seconds, tables=LEARNED)
    assert len(rows) == len(expected)
    assert rows.event.tolist() == [row[0] for row in expected]
    assert rows.prefix.tolist() == [row[1] for row in expected]
    assert rows.idle_ms.tolist() == [row[2] for row in expected]
    for index, row in enumerate(expected):
        assert_same(rows.matrix[index], vector(row[3]))


@given(histories(most=25), st.randoms())
def test_batch_does_not_depend_on_the_order_of_visitors(events: list[Event], random: object) -> None:
    """Rows are equal whether the log is sorted by time or by visitor."""
    by_time = build_rows(table(events), FOLD)
    by_visitor = build_rows(table(sorted(events, key=lambda e: (e.visitor, e.time))), FOLD)

    def keyed(rows: Rows) -> list[tuple[object, ...]]:
        visitor = rows.events["visitor"].to_numpy()[rows.event]
        return sorted(
            (int(v), int(now), int(prefix), int(idle), row.tobytes())
            for v, now, prefix, idle, row in zip(visitor, rows.now, rows.prefix, rows.idle_ms, rows.matrix, strict=True)
        )

    assert keyed(by_time) == keyed(by_visitor)


def test_every_visitor_keeps_its_sessions_together() -> None:
    events = [Event(visitor=v, time=START + i * 1000, name=1) for i, v in enumerate([1, 2, 1, 3, 2, 1])]
    rows = build_rows(table(events), FOLD, idle_seconds=())
    assert rows.events["visitor"].tolist() == [1, 1, 1, 2, 2, 3]
    assert rows.events["session_index"].tolist() == [0, 0, 0, 1, 1, 2]


def test_an_empty_history_gives_no_rows() -> None:
    rows = build_rows(table([]), FOLD)
    assert rows.matrix.shape == (0, len(FOLD.names))
    assert len(rows.events) == 0


def test_idle_checkpoints_are_where_the_session_was_silent() -> None:
    """Events at 0, 20 s and 25 s: 5 and 10 s of silence after the first, none after the second, all after the last."""
    events = [Event(visitor=1, time=START + second * 1000, name=1) for second in (0, 20, 25)]
    rows = build_rows(table(events), FOLD)
    assert list(zip(rows.prefix.tolist(), (rows.idle_ms // 1000).tolist(), strict=True)) == [
        (1, 0), (1, 5), (1, 10), (2, 0), (3, 0), (3, 5), (3, 10), (3, 30), (3, 60), (3, 300),
    ]  # fmt: skip
    assert ((rows.now - START) // 1000).tolist() == [0, 5, 10, 20, 25, 30, 35, 55, 85, 325]
    idle = rows.matrix[:, FOLD.names.index("idle_seconds")]
    assert idle.tolist() == (rows.idle_ms / 1000).tolist()

"""What a service has handed on says the same as the events it was made of: rows, labels, weights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.batch import build_rows
from features.events import Event
from features.settings import SettingsError
from features.tables import NOTHING_LEARNED, Windows
from serving.engine import Engine
from serving.sessions import Assigning
from serving.turn import Turn
from simulation.shop import simulate
from tests.serving.in_process import open_engine
from training.config import TrainingSettings
from training.datasets import slices_of
from training.heads import heads_of
from training.labels import Outcomes
from training.pipeline import prepare
from training.session_log import ROW, LoggedOutcomes, is_session_log, logged_rows, read_session_log

SETTINGS = TrainingSettings.model_validate({"split": {"min_days": 0.5}})
HOUR = 3_600_000


def log_of(events: pd.DataFrame, folder: Path, assignings: Callable[[Engine], list[Assigning]] | None = None) -> Path:
    """The folder of what a service hands on of these events, sorted by time, once all sessions are over.

    assignings: made before that, of sessions that run.
    """

    async def run() -> None:
        engine = open_engine(None, folder, "store.url=memory:")
        fold(engine, [Event(*line) for line in events.itertuples(index=False, name=None)])
        if assignings:
            engine.store.apply(assignings(engine))
        await engine.upkeep.sweep(int(events["time"].max()) + HOUR)
        await engine.upkeep.hand_over(int(events["time"].max()) + HOUR)
        await engine.close()

    asyncio.run(run())
    return folder / "closed"


def fold(engine: Engine, events: list[Event], size: int = 500) -> None:
    """Have the events folded in the order of their coming."""
    for begin in range(0, len(events), size):
        part = events[begin : begin + size]
        turn = Turn(engine.lineup, len(part), part[-1].time, lambda raw, linked, now: ())
        turn.add(part, [""] * len(part))
        engine.store.apply(list(turn.visits.values()), turn.advance, alone=True)
        turn.close()


@pytest.fixture(scope="module")
def shop() -> pd.DataFrame:
    """A small history."""
    return simulate(events=12_000, days=3, seed=5).events


@pytest.fixture(scope="module")
def logged(shop: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The same as sessions."""
    return read_session_log(log_of(shop, tmp_path_factory.mktemp("log")), SETTINGS.log)


def test_rows_and_labels_are_those_of_the_events(shop: pd.DataFrame, logged: pd.DataFrame) -> None:
    rows = build_rows(shop)
    outcome = Outcomes(rows.events, SETTINGS.labels, SETTINGS.timeout_ms)
    ours = logged_rows(logged, Windows(np.zeros(0, np.int64), []), SETTINGS)
    theirs = LoggedOutcomes(ours.events, SETTINGS.labels, SETTINGS.timeout_ms)
    # the drawn rows stand for all there are
    assert len(ours.events) == outcome.session[-1] + 1
    assert len(ours) == pytest.approx(len(rows), rel=0.1)
    place = pd.DataFrame(
        {
            "visitor": rows.events["visitor"].to_numpy()[rows.event], "start": outcome.started[rows.event],
            "prefix": rows.prefix, "idle": rows.idle_ms, "row": np.arange(len(rows)),
        }
    )  # fmt: skip
    drawn = pd.DataFrame(
        {
            "visitor": ours.events["visitor"], "start": ours.events["started_at"],
            "prefix": ours.events[f"{ROW}events"], "idle": ours.events[f"{ROW}idle_ms"],
        }
    )  # fmt: skip
    found = drawn.merge(place, how="left", on=["visitor", "start", "prefix", "idle"])
    assert len(found) == len(drawn) and found["row"].notna().all()
    same = found["row"].to_numpy(np.int64)
    first = np.unique(ours.event, return_index=True)[1]
    np.testing.assert_array_equal(ours.matrix[first], rows.matrix[same])
    np.testing.assert_array_equal(theirs.until(ours)[first], outcome.until(rows)[same])
    event = rows.event[same]
    for name, head in heads_of(SETTINGS).items():
        np.testing.assert_array_equal(head.asked(theirs), head.asked(outcome)[event], err_msg=name)
        mine, answers = head.answer(theirs), head.answer(outcome)[event]
        asked = head.asked(theirs)
        np.testing.assert_allclose(mine[asked], answers[asked], rtol=1e-6, err_msg=name)


def test_rates_of_the_drawn_rows_are_those_of_all(shop: pd.DataFrame, logged: pd.DataFrame) -> None:
    assert is_session_log(logged) and not is_session_log(shop)
    for name in ("bounce", "conversion", "exit"):
        head = heads_of(SETTINGS)[name]
        parts = []
        for history in (shop, logged):
            prepared = prepare(history, SETTINGS, border_ms=np.inf, tables=NOTHING_LEARNED)
            assigned = np.zeros(len(prepared.outcome.starts), np.int8)
            parts.append(slices_of(prepared.rows, prepared.outcome, assigned, head, np.inf)["past"])
        all_rows, drawn = parts
        # of rows of one session about as much is told as of one
        error = np.sqrt(all_rows.answer.var() / drawn.sessions * 3)
        assert abs(all_rows.answer.mean() - drawn.answer.mean()) < 4 * error, name


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no session to learn from"):
        read_session_log(tmp_path, SETTINGS.log)

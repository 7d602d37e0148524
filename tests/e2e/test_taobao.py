"""The main job on the real log: held-out users, event by event, through the running service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from features.batch import Rows, build_rows
from features.pseudonyms import Pseudonymiser, load_key
from features.shop import load_shop
from features.sources import concatenate, open_source, read_chunks, read_events
from features.tables import NOTHING_LEARNED, Tables
from tests.shared import TAOBAO
from tests.workspace import Service
from training.config import load_training
from training.datasets import SIDES, assign_sessions, split_border
from training.labels import Outcomes

TIMEOUT_MS = 1_800_000


@pytest.fixture(scope="module")
def held_out(trained: Path) -> pd.DataFrame:
    """Raw rows of users that no slice but the test has seen, in order of time, for 200 sessions and more."""
    key = Pseudonymiser(load_key(trained / "lotse-data" / "pseudonym.key"))
    rows = build_rows(read_events("taobao", TAOBAO, load_shop(), key), idle_seconds=())
    split = load_training().split
    sessions = assign_sessions(rows.events, split, TIMEOUT_MS, split_border(rows.events, split))
    side = sessions[rows.events["session_index"].to_numpy()]
    users = rows.events["visitor"][side == SIDES.index("test")].unique()
    seen = set(rows.events["visitor"][(side >= 0) & (side != SIDES.index("test"))])
    raw = pd.read_parquet(TAOBAO)
    pseudonyms = key.visitors(raw["user_id"])
    chosen, count = [], 0
    for user in users:
        assert user not in seen
        own = raw[pseudonyms == user]
        chosen.append(own)
        count += int((own["timestamp"].sort_values().diff().fillna(1e9) > 1800).sum())
        if count >= 200:
            break
    assert count >= 200
    return pd.concat(chosen).sort_values("timestamp", kind="stable").reset_index(drop=True)


NAMES = {"pv": "view_item", "fav": "add_to_wishlist", "cart": "add_to_cart", "buy": "purchase"}


def wire(row: Any) -> dict[str, Any]:
    return {
        "visitor": str(row.user_id),
        "name": NAMES[row.behavior_type],
        "time": row.timestamp * 1000,
        "item": str(row.item_id),
        "category": str(row.category_id),
        "consent": ["measure", "link"],
        "utc_offset": 480,
    }


@pytest.fixture(scope="module")
def answers(service: Service, held_out: pd.DataFrame) -> list[dict[str, Any]]:
    """Every event sent to the service: the first hundred one by one, the rest in arrays."""
    events = [wire(row) for row in held_out.itertuples()]
    found = [service.http.post("/v1/events", json=event).json() for event in events[:100]]
    for start in range(100, len(events), 500):
        found += service.http.post("/v1/events", json=events[start : start + 500]).json()["results"]
    return found


@pytest.fixture(scope="module")
def log(held_out: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The same events read from a file, each with the row of the file that it stands for."""
    path = tmp_path_factory.mktemp("log") / "held_out.parquet"
    held_out.to_parquet(path)
    key = Pseudonymiser(b"another key than the service's")
    reader, reading = open_source("taobao", path, load_shop(), key, overrides={"start": None, "end": None})
    events = concatenate(list(read_chunks(reader, reading)))
    assert len(events) == len(held_out)
    return events.assign(declared_0=np.arange(len(events), dtype=float))


def folded(log: pd.DataFrame, tables: Tables = NOTHING_LEARNED) -> tuple[Rows, np.ndarray]:
    """The rows in batch, and for each the row of the file."""
    rows = build_rows(log, idle_seconds=(), tables=tables)
    return rows, rows.events["declared_0"].to_numpy().astype(int)[rows.event]


def test_live_scores_are_the_batch_scores(
    trained: Path, answers: list[dict[str, Any]], log: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every prefix of 200 real sessions: what the service answered is what MLflow's model says of the batch row."""
    import mlflow  # noqa: PLC0415

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained}/lotse-data/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{trained}/lotse-data/mlflow.db")
    for head in ("bounce", "conversion", "exit"):
        model = f"models:/lotse-{head}@champion"
        learned = Tables.load(Path(mlflow.artifacts.download_artifacts(f"{model}/artifacts/tables.npz")))
        rows, place = folded(log, learned)
        assert np.isfinite(rows.frame()["item_conversion_rate"]).any()
        live = [answers[position] for position in place]
        assert rows.events["session_index"].nunique() >= 200
        assert [answer["events"] for answer in live] == rows.prefix.tolist()
        expected = mlflow.pyfunc.load_model(model).predict(rows.frame())
        undecided = np.array([head not in answer.get("decided", []) for answer in live])
        found = np.array([answer["scores"][head] for answer in live])
        assert undecided.sum() > 150
        np.testing.assert_allclose(found[undecided], np.asarray(expected)[undecided], rtol=0, atol=1e-14, err_msg=head)


def test_held_out_users_are_scored_better_than_the_base_rate(answers: list[dict[str, Any]], log: pd.DataFrame) -> None:
    """Exit, the head with most outcomes: the live scores part those who left from those who stayed."""
    rows, place = folded(log)
    outcome = Outcomes(rows.events, load_training().labels, TIMEOUT_MS)
    score = np.array([answers[position]["scores"]["exit"] for position in place])
    happened = outcome.last[rows.event]
    assert roc_auc_score(happened, score) > 0.6
    assert log_loss(happened, score) < log_loss(happened, np.full(len(score), happened.mean()))

"""Training on a Dask cluster: real worker processes, all the past, metrics within noise of those at home."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulation.shop import simulate
from training.config import load_training
from training.distributed import boosted_on_all, split_history
from training.evaluation import metrics
from training.heads import heads_of
from training.linear import tree_texts
from training.model import fit_head
from training.pipeline import prepare

SETTINGS = load_training(
    overrides=(
        "lightgbm.num_boost_round=60",
        "lightgbm.learning_rate=0.1",
        "split.inner_folds=2",
        "rows.max_events=25000",
    )
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from distributed import Client, LocalCluster  # noqa: PLC0415

    folder = str(tmp_path_factory.mktemp("workers"))
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", local_directory=folder
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Dask, about sockets that LightGBM's workers leave to the collector
@pytest.mark.parametrize("name", ["exit", "value"])
def test_the_cluster_trains_on_all_the_past_and_scores_as_well(client: Any, tmp_path: Path, name: str) -> None:
    events = simulate(events=80_000, days=28, seed=11).events
    head = heads_of(SETTINGS)[name]
    prepared = prepare(events, SETTINGS)
    slices = prepared.slices(head)
    alone = fit_head(slices["past"], head, SETTINGS)
    if name == "value":  # on so few purchases the inner folds want no trees
        alone = replace(alone, inner=replace(alone.inner, rounds=20))
    assert alone.inner.rounds > 0
    with split_history(client, events, SETTINGS, prepared.windows, prepared.border_ms, tmp_path) as history:
        assert sum(map(len, history.groups)) > 1
        together = boosted_on_all(history, head, alone)
    assert not list(tmp_path.iterdir())
    # more rows than at home: the history was thinned there
    text = together.booster.model_to_string()
    assert text != alone.booster.model_to_string()
    assert alone.linear is not None
    assert together.booster.num_trees() == len(tree_texts(alone.linear)) + alone.inner.rounds
    test = slices["test"]
    if name == "value":
        here, there = (np.abs(model.score(test.matrix) - test.answer).mean() for model in (alone, together))
        assert there < 1.1 * here
        return
    here, there = (metrics(test.answer, model.score(test.matrix), 15) for model in (alone, together))
    assert there["auc"] > here["auc"] - 0.015
    assert there["log_loss"] < here["log_loss"] + 0.01
    # the whole model is one text of LightGBM's that scores by itself
    np.testing.assert_allclose(
        together.margin(test.matrix[:50]), together.booster.predict(test.matrix[:50], raw_score=True)
    )

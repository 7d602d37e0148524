"""The whole of `lotse train` with heads of the user's choice: the same bytes twice, rolling folds, a rival of one's
own, and the models behind the service."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from simulation.shop import simulate
from tests.workspace import KEY, Service, lotse, workspace
from training.config import TrackingSettings
from training.tracking import connect

HEADS = ("add_to_cart", "value", "soon")
OVERRIDES = (
    "lightgbm.num_boost_round=20",
    "split.inner_folds=2",
    "evaluation.resamples=20",
    "linear.inverse_penalties=[0.001]",
    "heads.questions.soon={kind='returns', days=2}",
    "evaluation.estimators.stump={estimator='sklearn.tree.DecisionTreeClassifier', max_depth=1}",
)
pytestmark = pytest.mark.slow


def trained_in(folder: Path, *more: str) -> Path:
    """A folder where the heads were trained from the simulated shop."""
    workspace(folder, KEY)
    simulate(events=40_000, days=28, seed=4).events.to_parquet(folder / "shop.parquet", index=False)
    arguments = [word for head in HEADS for word in ("--head", head)]
    arguments += [word for override in OVERRIDES for word in ("--set", override)]
    done = lotse(folder, "train", "--events", "shop.parquet", *arguments, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [
        trained_in(tmp_path_factory.mktemp("once") / "work", "--folds", "2"),
        trained_in(tmp_path_factory.mktemp("again") / "work"),
    ]


def client_of(folder: Path) -> Any:
    uri, artifacts = f"sqlite:///{folder}/lotse-data/mlflow.db", f"{folder}/lotse-data/artifacts"
    return connect(TrackingSettings(uri=uri, artifacts=artifacts)).MlflowClient()


def test_the_same_data_and_configuration_give_the_same_bytes(folders: list[Path]) -> None:
    once, again = (files(folder) for folder in folders)
    assert len(once) == 3 * len(HEADS)
    assert len(set(once)) == 2 * len(HEADS) + 1  # the heads share their tables
    assert once == again


def files(folder: Path) -> list[bytes]:
    """What the models are made of, in an order of its own."""
    found = (folder / "lotse-data" / "artifacts").rglob("*")
    return sorted(path.read_bytes() for path in found if path.name in {"booster.txt", "head.json", "tables.npz"})


def test_rolling_folds_have_figures_of_their_own(folders: list[Path]) -> None:
    client = client_of(folders[0])
    (experiment,) = client.search_experiments(filter_string="name = 'lotse'")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    metrics = parent.data.metrics
    assert 0.5 < metrics["folds/auc/add_to_cart/mean"] < 1 and metrics["folds/auc/add_to_cart/std"] > 0
    table = client.download_artifacts(parent.info.run_id, "folds.json")
    split = json.loads(Path(table).read_text())
    found = pd.DataFrame(split["data"], columns=split["columns"])
    assert set(found["fold"]) == {1, 2}
    rows = found[(found["head"] == "add_to_cart") & (found["model"] == "lotse") & (found["age"] == "events")]
    assert rows["rows"].nunique() == 2


def test_another_learner_is_reported_beside(folders: list[Path]) -> None:
    client = client_of(folders[0])
    run = client.get_run(client.get_model_version_by_alias("lotse-add_to_cart", "champion").run_id)
    assert 0.5 < run.data.metrics["stump/auc/events"] < run.data.metrics["auc/events"]


def test_the_service_answers_heads_of_every_kind(folders: list[Path]) -> None:
    """A probability, an amount, and a question that only linked visitors can be asked."""
    service = Service(folders[0], f"models.heads={json.dumps(HEADS)}").start()
    try:
        answers = {}
        for consent in (["measure"], ["measure", "link"]):
            event = {"visitor": "jane-" + consent[-1], "name": "view_item", "item": "7", "page": "/product/7",
                     "time": round(time.time() * 1000), "consent": consent}  # fmt: skip
            reply = service.http.post("/v1/events", json=event)
            assert reply.status_code == 200, reply.text
            answers[consent[-1]] = reply.json()
    finally:
        service.stop()
    linked, alone = answers["link"], answers["measure"]
    assert 0 < linked["scores"]["add_to_cart"] < 1 and linked["scores"]["value"] > 0
    assert 0 < linked["scores"]["soon"] < 1
    assert "soon" not in alone["scores"] and alone["scores"]["value"] > 0
    assert "visits_not_linked" in json.dumps(alone)

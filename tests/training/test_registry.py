"""What `lotse train` leaves behind: runs, pictures, datasets, and models that need none of our code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features import carried
from tests.workspace import ROOT, environment, lotse
from training.config import TrackingSettings
from training.tracking import connect

HEADS = ("bounce", "conversion", "exit")
PICTURES = {"reliability", "roc", "precision_recall", "score_by_age", "importance"}

TAGS = (
    "source", "data_from", "data_to", "learned_until", "feature_digest", "config_digest", "split_digest", "git_commit",
    "git_dirty", "lock_digest", "lotse_version",
)  # fmt: skip


@pytest.fixture(scope="module")
def client(trained: Path) -> Iterator[Any]:
    settings = TrackingSettings(
        uri=f"sqlite:///{trained}/lotse-data/mlflow.db", artifacts=f"{trained}/lotse-data/artifacts"
    )
    mlflow = connect(settings)
    yield mlflow.MlflowClient()


def folder_of(client: Any, trained: Path, head: str) -> Path:
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415

    version = client.get_model_version_by_alias(f"lotse-{head}", "champion")
    return Path(download_artifacts(client.get_model_version_download_uri(f"lotse-{head}", version.version)))


@pytest.mark.parametrize("head", HEADS)
def test_a_run_says_everything(client: Any, head: str) -> None:
    version = client.get_model_version_by_alias(f"lotse-{head}", "champion")
    run = client.get_run(version.run_id)
    for metric in ("auc", "pr_auc", "log_loss", "brier", "ece"):
        for model in ("", "logistic/", "base_rate/"):
            assert f"{model}{metric}/events" in run.data.metrics
    assert {f"ece/prefix_{n}" for n in ((1,) if head == "bounce" else (1, 2, 3, 5, 10))} <= set(run.data.metrics)
    assert run.data.params["head"] == head
    assert {(i.dataset.name, len(i.dataset.digest)) for i in run.inputs.dataset_inputs} == {
        (f"{head}-{name}", 16) for name in ("past", "test")
    }
    pictures = {Path(file.path).stem for file in client.list_artifacts(version.run_id, "plots")}
    assert pictures >= PICTURES
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.params["split.test_from"] == "0.7"


@pytest.mark.parametrize("head", HEADS)
def test_a_model_brings_its_features_along(client: Any, trained: Path, head: str) -> None:
    """A service of another release computes them from what lies beside the trees."""
    version = client.get_model_version_by_alias(f"lotse-{head}", "champion")
    artifacts = folder_of(client, trained, head) / "artifacts"
    fold = carried.load((artifacts / carried.FILE).read_text(), version.tags["feature_digest"])
    about = json.loads((artifacts / "head.json").read_text())
    assert (fold.digest, list(fold.names)) == (about["feature_digest"], about["features"])


@pytest.mark.parametrize("head", HEADS)
def test_runs_and_versions_say_where_they_come_from(client: Any, head: str) -> None:
    version = client.get_model_version_by_alias(f"lotse-{head}", "champion")
    run = client.get_run(version.run_id)
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    for tags in (version.tags, run.data.tags, parent.data.tags):
        assert set(TAGS) <= set(tags)
        assert tags["source"] == "taobao"
        assert tags["data_from"] < tags["learned_until"] < tags["data_to"]
        assert tags["lock_digest"].startswith("lock:")
    assert version.tags["promoted_at"]


@pytest.mark.parametrize("head", HEADS)
def test_the_first_version_is_candidate_and_champion(client: Any, head: str) -> None:
    assert {alias: str(one) for alias, one in client.get_registered_model(f"lotse-{head}").aliases.items()} == {
        "champion": "1",
        "challenger": "1",
    }


@pytest.mark.parametrize("head", HEADS)
def test_a_model_holds_no_pickle_and_has_a_signature(client: Any, trained: Path, head: str) -> None:
    folder = folder_of(client, trained, head)
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]
    about = json.loads((folder / "artifacts" / "head.json").read_text())
    text = (folder / "MLmodel").read_text()
    assert "signature:" in text and about["feature_digest"] in text
    assert (folder / "input_example.json").exists()
    assert len(about["golden"]["row"]) == len(about["features"])


def test_a_model_scores_without_our_code(client: Any, trained: Path, tmp_path: Path) -> None:
    """A fresh process that cannot import Lotse loads it by mlflow.pyfunc and calls it with a DataFrame."""
    folder = folder_of(client, trained, "exit")
    about = json.loads((folder / "artifacts" / "head.json").read_text())
    row = [np.nan if value is None else value for value in about["golden"]["row"]]
    pd.DataFrame([row], columns=about["features"], dtype=np.float32).to_parquet(tmp_path / "row.parquet")
    script = f"""
import sys, pandas, mlflow.pyfunc
sys.path = [p for p in sys.path if p not in ("", {str(ROOT)!r})]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f)]
for name in ("features", "training", "serving", "simulation"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit("our code is importable: " + name)
model = mlflow.pyfunc.load_model({str(folder)!r})
print(repr(float(model.predict(pandas.read_parquet("row.parquet"))[0])))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) == about["golden"]["score"]


def test_the_terminal_shows_the_summary(trained: Path) -> None:
    text = (trained / "train.log").read_text()
    for word in ("bounce", "conversion", "exit", "logistic", "base rate", "ECE", "mlflow ui --backend-store-uri"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "lightgbm.leaves=3"), "unknown key 'lightgbm.leaves'; allowed there: learning_rate"),
        (("--set", 'heads.train=["churn"]'), "unknown head 'churn' in train; known: bounce, conversion, exit"),
        (("--set", "labels.goal=buy"), "labels.goal"),
        (("--source", "nowhere"), "unknown source 'nowhere'"),
        (("--events", "none.parquet"), "no file at none.parquet"),
    ],
)
def test_mistakes_end_with_one_line(trained: Path, arguments: tuple[str, ...], message: str) -> None:
    events = () if "--events" in arguments else ("--events", "configs/shop.toml")
    done = lotse(trained, "train", *events, *arguments)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr

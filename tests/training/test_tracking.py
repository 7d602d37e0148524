"""Where runs and models go: databases, artifacts, passwords, and what becomes a metric."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from features.settings import SettingsError
from training.config import TrackingSettings
from training.tracking import connect, metric_values, shown_uri, tracking_uri

SECRET = "postgresql+psycopg://lotse:s3cret%2F@db.example.org/mlflow"


def test_the_environment_wins_and_may_hold_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SECRET)
    assert tracking_uri(TrackingSettings()) == SECRET
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking_uri(TrackingSettings()) == TrackingSettings().uri


def test_a_password_in_the_configuration_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SettingsError, match="holds a password.*MLFLOW_TRACKING_URI") as refusal:
        connect(TrackingSettings(uri=SECRET))
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (SECRET, "postgresql+psycopg://lotse:***@db.example.org/mlflow"),
        ("https://user:pass@host:5000/path", "https://user:***@host:5000/path"),
        ("https://host:5000/path@version", "https://host:5000/path@version"),
        ("postgresql://lotse@db:5432/mlflow", "postgresql://lotse@db:5432/mlflow"),
        ("sqlite:///lotse-data/mlflow.db", "sqlite:///lotse-data/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_its_password(uri: str, shown: str) -> None:
    assert shown_uri(uri) == shown


def test_artifacts_of_a_database_go_into_the_configured_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = TrackingSettings(uri=f"sqlite:///{tmp_path}/new/mlflow.db", artifacts=str(tmp_path / "artifacts"))
    for _ in range(2):  # the second time it is there
        experiment = connect(settings).get_experiment_by_name("lotse")
        assert experiment.artifact_location == (tmp_path / "artifacts").as_uri()


def test_metrics_are_named_by_metric_and_age_and_leave_out_what_is_no_number() -> None:
    lines = [
        {"age": age, "model": model, "rows": 7, "auc": 0.5, "lift_10": 2.0, "auc_low": 0.4, "ece": float("nan")}
        for age in ("all", "device=mobile")
        for model in ("lotse", "logistic")
    ]
    assert metric_values(pd.DataFrame(lines)) == {
        "rows/all": 7.0,
        "auc/all": 0.5,
        "lift_10/all": 2.0,
        "rows/device.mobile": 7.0,
        "auc/device.mobile": 0.5,
        "lift_10/device.mobile": 2.0,
        "logistic/rows/all": 7.0,
        "logistic/auc/all": 0.5,
    }

"""The one place that talks to MLflow's tracking: where runs go, and what a run is made of."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from training.config import TrackingSettings
from training.datasets import Slice

# Nobody's use of Lotse is reported anywhere.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def connect(settings: TrackingSettings) -> Any:
    """MLflow, pointed at the configured store and experiment (MLFLOW_TRACKING_URI wins)."""
    import mlflow  # noqa: PLC0415  (seconds of imports that only training needs)

    # migrations and models announce every step, and say that an environment made by uv holds no pip
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc", "mlflow.utils.environment"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # an integer column cannot hold a missing value: ours are float32, the hint does not apply
    warnings.filterwarnings("ignore", message=".*integer column.*")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.uri
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)
    if mlflow.get_experiment_by_name(settings.experiment) is None:
        local = uri.startswith("sqlite:")
        location = Path(settings.artifacts).resolve().as_uri() if local else None
        mlflow.create_experiment(settings.experiment, artifact_location=location)
    mlflow.set_experiment(settings.experiment)
    return mlflow


def log_dataset(mlflow: Any, part: Slice, head: str, source: str) -> None:
    """Note which rows were used: name, size, digest and where they came from."""
    from mlflow.data.code_dataset_source import CodeDatasetSource  # noqa: PLC0415
    from mlflow.data.meta_dataset import MetaDataset  # noqa: PLC0415

    dataset = MetaDataset(
        CodeDatasetSource(tags={"source": source, "rows": str(len(part.answer)), "sessions": str(part.sessions)}),
        name=f"{head}-{part.name}",
        digest=part.digest(),
    )
    mlflow.log_input(dataset, context=part.name)


def metric_values(table: pd.DataFrame) -> Mapping[str, float]:
    """`age/model/metric` -> value, without what is not a number there (MLflow's charts cannot show it)."""
    values = {}
    for line in table.to_dict("records"):
        for metric in ("rows", "base_rate", "auc", "pr_auc", "log_loss", "brier", "ece"):
            value = float(line[metric])
            if value == value:  # noqa: PLR0124  (NaN is not itself)
                model = "" if line["model"] == "lotse" else f"{line['model']}/"
                values[f"{model}{metric}/{line['age']}"] = value
    return values

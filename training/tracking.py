"""The one place that talks to MLflow's tracking: where runs go, and what a run is made of."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from features.settings import SettingsError
from training.config import TrackingSettings
from training.datasets import Slice

# user:password@ of an address: all up to the last @ before the path
_PASSWORD: Final = re.compile(r"(//[^/:@]*:)[^/]*(@)")

# What baselines are shown with in MLflow's charts.
_COMPARED: Final = ("rows", "base_rate", "auc", "pr_auc", "log_loss", "brier", "ece", "mae", "rmse", "d2", "spearman")

# Nobody's use of Lotse is reported anywhere.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# a bar for each of a model's files would tear ours
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def connect(settings: TrackingSettings) -> Any:
    """MLflow, pointed at the configured store and experiment (MLFLOW_TRACKING_URI wins).

    A database on this machine or another one holds runs and models; their artifacts go into the configured folder. A
    server, `http(s)://`, has a place of its own for them.

    Raises
    ------
    SettingsError
        The configuration holds a password.
    """
    import mlflow  # noqa: PLC0415  (seconds of imports that only training needs)
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    # migrations and models announce every step, and say that an environment made by uv holds no pip
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc", "mlflow.utils.environment"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # an integer column cannot hold a missing value: ours are float32, the hint does not apply
    warnings.filterwarnings("ignore", message=".*integer column.*")
    uri = tracking_uri(settings)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    theirs = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    if theirs is None:
        # MLflow leaves it in the environment, where the next connection would take it for the user's
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    if mlflow.get_experiment_by_name(settings.experiment) is None:
        server = uri.startswith(("http://", "https://"))
        location = None if server else Path(settings.artifacts).resolve().as_uri()
        try:
            mlflow.create_experiment(settings.experiment, artifact_location=location)
        except MlflowException as error:
            # two that start at once: the second finds it made
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    mlflow.set_experiment(settings.experiment)
    return mlflow


def tracking_uri(settings: TrackingSettings) -> str:
    """Where runs and models are: MLFLOW_TRACKING_URI, or what is configured.

    Raises
    ------
    SettingsError
        The configuration holds a password.
    """
    from_environment = os.environ.get("MLFLOW_TRACKING_URI")
    if not from_environment and shown_uri(settings.uri) != settings.uri:
        raise SettingsError(
            f"tracking.uri = {shown_uri(settings.uri)!r} holds a password, which every run would show; "
            "give the address in the environment variable MLFLOW_TRACKING_URI"
        )
    return from_environment or settings.uri


def shown_uri(uri: str) -> str:
    """The address without its password, for terminals and logs.

    >>> shown_uri("postgresql+psycopg://lotse:secret@db/mlflow")
    'postgresql+psycopg://lotse:***@db/mlflow'
    """
    return _PASSWORD.sub(r"\1***\2", uri)


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
    """`metric/age` of the model and `baseline/metric/age` of what stands beside it, without what is not a number there
    (MLflow's charts cannot show it).

    Of the baselines only the main metrics, and none by segment; intervals are in the artifact. A segment such as
    `device=mobile` is called `device.mobile`: MLflow allows no `=`.
    """
    bounds = tuple(f"_{bound}" for bound in ("low", "high"))
    numbers = [name for name in table.columns if name not in ("age", "model") and not name.endswith(bounds)]
    values = {}
    for line in table.to_dict("records"):
        ours = line["model"] == "lotse"
        for metric in numbers:
            value = float(line[metric])
            shown = ours or (metric in _COMPARED and "=" not in line["age"])
            if shown and value == value:  # noqa: PLR0124  (NaN is not itself)
                model = "" if ours else f"{line['model']}/"
                values[f"{model}{metric}/{line['age'].replace('=', '.')}"] = value
    return values

"""Registering a head: the folder that serving reads, as a plain MLflow model, and the aliases that lead to it.

The alias `champion` is what scores; `challenger` is the newest version, until it is promoted (`training.promotion`).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import lightgbm as lgb
import numpy as np
import pandas as pd

from features.tables import Tables
from training import served_model_path
from training.calibration import Calibration
from training.config import TrackingSettings, TrainingSettings
from training.heads import Decided
from training.provenance import iso

FORMAT = 2


class Asked(Protocol):
    """What is told of a head: a `training.heads.Head`, or the uplift."""

    @property
    def name(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def decided(self) -> Decided | None: ...
    @property
    def needs(self) -> tuple[str, ...]: ...


class Fitted(Protocol):
    """What is kept of a model: a `training.model.HeadModel`, or an uplift."""

    @property
    def task(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def booster(self) -> lgb.Booster: ...
    @property
    def calibration(self) -> Calibration: ...
    @property
    def base_rate(self) -> float: ...
    def score(self, matrix: np.ndarray) -> np.ndarray: ...


class Rows(Protocol):
    """Rows that the model has not seen."""

    @property
    def matrix(self) -> np.ndarray: ...


def register(
    mlflow: Any,
    head: Asked,
    model: Fitted,
    *,
    digest: str,
    tables: Tables,
    test: Rows,
    settings: TrainingSettings,
    tags: Mapping[str, str],
    extras: Mapping[str, str],
) -> str:
    """Log the model in the active run and register it; returns the new version.

    The model holds booster.txt (LightGBM's text format), head.json and tables.npz (what was learned), and `extras`,
    further texts by file name; no pickle. The version carries `tags`. It becomes the candidate, and the champion, too,
    where there is none. Aliases move last, so a service that follows them never sees half a model.
    """
    texts = {
        "booster.txt": model.booster.model_to_string(),
        "head.json": json.dumps(_description(head, model, digest, tables, test), indent=1),
        **extras,
    }
    name = registered_name(settings.tracking, head.name)
    with tempfile.TemporaryDirectory() as folder:
        for file, text in texts.items():
            Path(folder, file).write_text(text)
        Path(folder, "tables.npz").write_bytes(tables.dump())
        files = [*texts, "tables.npz"]
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(served_model_path()),
            # "head" leads to head.json: the served script asks for what it reads by these names
            artifacts={Path(file).stem: str(Path(folder, file)) for file in files},
            signature=_signature(model.names),
            input_example=pd.DataFrame(test.matrix[:3], columns=list(model.names)),
            # named, not inferred: inferring starts a process that loads the model
            pip_requirements=[f"{package}=={version(package)}" for package in ("lightgbm", "numpy", "pandas")],
            metadata={"feature_digest": digest, "head": head.name, "format": FORMAT},
            registered_model_name=name,
        )
    number = str(logged.registered_model_version)
    client = mlflow.MlflowClient()
    first = version_by_alias(client, name, settings.tracking.alias) is None
    promoted = {"promoted_at": iso(time.time_ns() // 1_000_000)} if first else {}
    if first and "registered_by" in tags:
        promoted["promoted_by"] = tags["registered_by"]
    for key, value in {**tags, "feature_digest": digest, **promoted}.items():
        client.set_model_version_tag(name, number, key, value)
    client.set_registered_model_alias(name, settings.tracking.candidate_alias, number)
    if first:
        client.set_registered_model_alias(name, settings.tracking.alias, number)
    return number


def golden(model: Fitted, test: Rows) -> dict[str, object]:
    """A real row with its score: proof, wherever the model is loaded, that it scores as it did in training."""
    row = test.matrix[len(test.matrix) // 2]
    score = float(model.score(row[None, :])[0])
    return {"row": [None if np.isnan(value) else float(value) for value in row], "score": score}


def registered_name(settings: TrackingSettings, head: str) -> str:
    """What the head's registered model is called.

    >>> registered_name(TrackingSettings(), "exit")
    'lotse-exit'
    """
    return f"{settings.model_prefix}-{head}"


def version_by_alias(client: Any, name: str, alias: str) -> Any | None:
    """MLflow's version that the alias leads to; None where the model or the alias is not there."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        # of an alias that is not there, MLflow says that the parameter is invalid
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _description(head: Asked, model: Fitted, digest: str, tables: Tables, test: Rows) -> dict[str, object]:
    described = {
        "format": FORMAT,
        "head": head.name,
        "question": head.question,
        "task": model.task,
        "features": list(model.names),
        "feature_digest": digest,
        "tables_digest": tables.digest,
        "calibration": model.calibration.as_json(),
        "base_rate": model.base_rate,
        "golden": golden(model, test),
    }
    if head.decided is not None and head.decided.when:
        described["decided"] = asdict(head.decided)
    if head.needs:
        described["needs"] = list(head.needs)
    return described


def _signature(names: tuple[str, ...]) -> Any:
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    return ModelSignature(
        inputs=Schema([ColSpec("float", name) for name in names]), outputs=Schema([ColSpec("double", "score")])
    )

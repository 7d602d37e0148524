"""Registering a head: the folder that serving reads, as a plain MLflow model, and the alias that makes it live."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.tables import Tables
from training import served_model_path
from training.config import TrainingSettings
from training.datasets import Slice
from training.heads import Head
from training.model import HeadModel

FORMAT = 1


def golden(model: HeadModel, test: Slice) -> dict[str, object]:
    """A real row with its score: proof, wherever the model is loaded, that it scores as it did in training."""
    row = test.matrix[len(test.matrix) // 2]
    score = float(model.score(row[None, :])[0])
    return {"row": [None if np.isnan(value) else float(value) for value in row], "score": score}


def register(
    mlflow: Any,
    head: Head,
    model: HeadModel,
    names: tuple[str, ...],
    digest: str,
    tables: Tables,
    test: Slice,
    settings: TrainingSettings,
) -> str:
    """Log the model in the active run, register it, move the alias; returns the new version.

    The model holds booster.txt (LightGBM's text format), head.json and tables.npz (what was learned); no pickle. The
    alias moves last, so a service that follows it never sees half a model.
    """
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    signature = ModelSignature(
        inputs=Schema([ColSpec("float", name) for name in names]), outputs=Schema([ColSpec("double", "score")])
    )
    example = pd.DataFrame(test.matrix[:3], columns=list(names))
    description = {
        "format": FORMAT,
        "head": head.name,
        "features": list(names),
        "feature_digest": digest,
        "tables_digest": tables.digest,
        "calibration": model.calibration.as_json(),
        "base_rate": model.base_rate,
        "golden": golden(model, test),
    }
    decided = head.decided(settings.labels)
    if decided is not None and decided.when:
        description["decided"] = asdict(decided)
    tracking = settings.tracking
    with tempfile.TemporaryDirectory() as folder:
        booster, about, learned = (Path(folder, name) for name in ("booster.txt", "head.json", "tables.npz"))
        learned.write_bytes(tables.dump())
        booster.write_text(model.booster.model_to_string())
        about.write_text(json.dumps(description, indent=1))
        registered = f"{tracking.model_prefix}-{head.name}"
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(served_model_path()),
            artifacts={"booster": str(booster), "head": str(about), "tables": str(learned)},
            signature=signature,
            input_example=example,
            # named, not inferred: inferring starts a process that loads the model
            pip_requirements=[f"{name}=={version(name)}" for name in ("lightgbm", "numpy", "pandas")],
            metadata={"feature_digest": digest, "head": head.name, "format": FORMAT},
            registered_model_name=registered,
        )
    number = str(logged.registered_model_version)
    client = mlflow.MlflowClient()
    client.set_model_version_tag(registered, number, "feature_digest", digest)
    client.set_registered_model_alias(registered, tracking.alias, number)
    return number

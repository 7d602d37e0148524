"""A registered head back as something that scores in training: for comparing, promoting and watching drift.

In: MLflow's client and one of its model versions. Out: a `Registered`. Serving has a loader of its own, which needs
none of this package.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb

from features.settings import SettingsError
from features.tables import Tables
from training.calibration import Calibration
from training.histogram import Histogram
from training.inner import CrossFit
from training.model import HeadModel
from training.registry import FORMAT


@dataclass(frozen=True)
class Registered:
    """One version of a registered head.

    Attributes
    ----------
    name: of the registered model; version: its number; tags: of the version.
    model: scores; tables: what its rows are read with; about: head.json.
    histogram: what its rows looked like; None where the version carries none.
    """

    name: str
    version: str
    tags: Mapping[str, str]
    model: HeadModel
    tables: Tables
    about: Mapping[str, Any]
    histogram: Histogram | None


def load_version(client: Any, version: Any) -> Registered:
    """What MLflow's `version` (a ModelVersion) holds.

    Raises
    ------
    SettingsError
        Its files cannot be read.
    """
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    which, form = f"{version.name} version {version.version}", None
    with tempfile.TemporaryDirectory() as folder:
        try:
            uri = client.get_model_version_download_uri(version.name, version.version)
            artifacts = Path(download_artifacts(uri, dst_path=folder)) / "artifacts"
            about = json.loads((artifacts / "head.json").read_text())
            form = about["format"]
            counted = artifacts / "histogram.json"
            return Registered(
                name=version.name,
                version=str(version.version),
                tags=dict(version.tags),
                model=_model(about, (artifacts / "booster.txt").read_text()),
                tables=Tables.load(artifacts / "tables.npz"),
                about=about,
                histogram=Histogram.from_json(counted.read_text()) if counted.exists() else None,
            )
        except (MlflowException, lgb.basic.LightGBMError, OSError, KeyError, ValueError) as error:
            hint = "" if form == FORMAT else f" (its format is {form}, this release reads {FORMAT})"
            raise SettingsError(f"{which} cannot be read{hint}: {error}; train again with this release") from None


def _model(about: Mapping[str, Any], booster: str) -> HeadModel:
    nothing = CrossFit(0, float("nan"), float("nan"), 0)
    return HeadModel(
        head=about["head"],
        task=about["task"],
        names=tuple(about["features"]),
        booster=lgb.Booster(model_str=booster),
        calibration=Calibration.from_json(about["calibration"]),
        base_rate=about["base_rate"],
        inner=nothing,  # how it was fitted is not needed to score
    )

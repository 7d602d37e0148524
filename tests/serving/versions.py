"""A registry of a test's own, with more versions of the trained heads: really registered, each scores otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from training.loading import Registered, load_version

HEADS = ("bounce", "conversion", "exit")


class Versions:
    """A copy of the registry in which `trained` registered its heads.

    Attributes
    ----------
    uri: for models.uri; loaded: by head and number, what training makes of a version.
    """

    def __init__(self, trained: Path, folder: Path) -> None:
        from mlflow import MlflowClient  # noqa: PLC0415

        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(trained / "lotse-data" / "mlflow.db", folder / "mlflow.db")
        self.folder, self.uri = folder, f"sqlite:///{folder}/mlflow.db"
        self.client: Any = MlflowClient(self.uri, self.uri)
        self.loaded: dict[tuple[str, str], Registered] = {}
        for head in HEADS:
            self._load(head, "1")
            self.client.delete_registered_model_alias(self.name(head), "challenger")

    @staticmethod
    def name(head: str) -> str:
        """Of the registered model."""
        return f"lotse-{head}"

    def add(self, head: str, trees: int, **changes: object) -> str:
        """Register version 1 with its first trees only, and with changes to head.json; returns the number."""
        one = self.loaded[head, "1"]
        folder = self.folder / f"{head}-{len(self.loaded)}" / "artifacts"
        folder.mkdir(parents=True)
        booster = lgb.Booster(model_str=one.model.booster.model_to_string(num_iteration=trees))
        booster.save_model(str(folder / "booster.txt"))
        (folder / "tables.npz").write_bytes(one.tables.dump())
        row = np.array([np.nan if v is None else v for v in one.about["golden"]["row"]], np.float32)[None, :]
        names = list(one.about["features"])
        ages = (row[:, names.index(name)] for name in ("events", "idle_seconds"))
        score = float(one.model.calibration(booster.predict(row, raw_score=True), *ages)[0])
        golden = {**one.about["golden"], "score": score}
        (folder / "head.json").write_text(json.dumps({**one.about, "golden": golden, **changes}))
        tags = {"feature_digest": str(changes.get("feature_digest", one.about["feature_digest"]))}
        made = self.client.create_model_version(self.name(head), folder.parent.as_uri(), tags=tags)
        self._load(head, str(made.version))
        return str(made.version)

    def point(self, head: str, number: str, alias: str = "champion") -> None:
        """Move an alias."""
        self.client.set_registered_model_alias(self.name(head), alias, number)

    def _load(self, head: str, number: str) -> None:
        self.loaded[head, number] = load_version(self.client, self.client.get_model_version(self.name(head), number))

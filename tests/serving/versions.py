"""A registry of a test's own, with more versions of the trained heads: really registered, each scores otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from features import carried
from features.compiler import Fold
from features.tables import Tables
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
        return self._register(head, folder, str(changes.get("feature_digest", one.about["feature_digest"])))

    def add_for(self, head: str, fold: Fold, rows: np.ndarray) -> str:
        """Register a version of a head that was trained on another fold, which it brings along; returns the number.

        rows: float32 (n, F) of the fold, which the model tells from each other.
        """
        one = self.loaded[head, "1"]
        folder = self.folder / f"{head}-{len(self.loaded)}" / "artifacts"
        folder.mkdir(parents=True)
        # fifty of each row, of which the later rows have more answers
        data, places = np.repeat(rows, 50, axis=0), np.arange(50 * len(rows))
        answer = places % 50 < 5 * (1 + places // 50)
        parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
        lgb.train(parameters, lgb.Dataset(data, answer), 5).save_model(str(folder / "booster.txt"))
        (folder / "tables.npz").write_bytes(Tables({}).dump())
        (folder / "fold.json").write_text(carried.dump(fold))
        about = {**one.about, "features": list(fold.names), "feature_digest": fold.digest, "decided": None}
        about["tables_digest"] = Tables({}).digest
        margin = lgb.Booster(model_file=str(folder / "booster.txt")).predict(rows[:1], raw_score=True)
        ages = (rows[:1, fold.names.index(name)] for name in ("events", "idle_seconds"))
        score = float(one.model.calibration(margin, *ages)[0])
        about["golden"] = {"row": [None if np.isnan(v) else float(v) for v in rows[0]], "score": score}
        (folder / "head.json").write_text(json.dumps(about))
        return self._register(head, folder, fold.digest)

    def _register(self, head: str, folder: Path, digest: str) -> str:
        made = self.client.create_model_version(
            self.name(head), folder.parent.as_uri(), tags={"feature_digest": digest}
        )
        self._load(head, str(made.version))
        return str(made.version)

    def point(self, head: str, number: str, alias: str = "champion") -> None:
        """Move an alias."""
        self.client.set_registered_model_alias(self.name(head), alias, number)

    def _load(self, head: str, number: str) -> None:
        self.loaded[head, number] = load_version(self.client, self.client.get_model_version(self.name(head), number))

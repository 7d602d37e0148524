"""A registered head as a plain MLflow model "from code": this file is copied into the model and needs none of ours.

In: a DataFrame with the features as columns. Out: float64 (n,), calibrated probabilities, amounts or effects. Missing
values may be NaN.
"""

from __future__ import annotations

import json
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class SessionScore(PythonModel):  # type: ignore[misc]
    """Scores feature vectors with a LightGBM text model and a calibration by session age."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read booster.txt and head.json."""
        self.head = json.loads(Path(context.artifacts["head"]).read_text())
        self.booster = lightgbm.Booster(model_file=context.artifacts["booster"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, object] | None = None
    ) -> np.ndarray:
        """Scores, row by row."""
        del context, params
        features = self.head["features"]
        missing = [name for name in features if name not in model_input.columns]
        if missing:
            raise ValueError(f"the input lacks the feature(s) {', '.join(missing)}")
        matrix = model_input[features].to_numpy(np.float32)
        calibration = self.head["calibration"]
        margin = self.booster.predict(matrix, raw_score=True, num_threads=1)
        events = np.searchsorted(calibration["events"][1:], matrix[:, features.index("events")], "right")
        idle = np.searchsorted(calibration["idle_seconds"][1:], matrix[:, features.index("idle_seconds")], "right")
        linear = (
            np.array(calibration["slope"])[events, idle] * margin + np.array(calibration["intercept"])[events, idle]
        )
        if calibration["knots"]:
            linear += np.interp(margin, calibration["knots"], calibration["values"])
        if calibration["kind"] == "identity_by_age":
            return linear
        return np.exp(linear) if calibration["kind"] == "exp_by_age" else 1.0 / (1.0 + np.exp(-linear))


set_model(SessionScore())

"""Where `lotse tune` looks: for each of LightGBM's parameters a range, and what is configured now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from training.config import TrainingSettings, TunedSettings
from training.heads import Head

if TYPE_CHECKING:
    from optuna import Trial

Values = dict[str, float | int]


@dataclass(frozen=True)
class Range:
    """Where a parameter is looked for."""

    low: float
    high: float
    whole: bool = False
    log: bool = True

    def clipped(self, value: float) -> float | int:
        """The nearest value of the range."""
        inside = min(max(value, self.low), self.high)
        return round(inside) if self.whole else inside


# From stumps on small logs to bushy trees on large ones; the number of trees follows from early stopping.
SPACE: Final = {
    "learning_rate": Range(0.01, 0.2),
    "num_leaves": Range(3, 127, whole=True),
    "min_data_in_leaf": Range(10, 5000, whole=True),
    "lambda_l2": Range(0.01, 1000.0),
    "feature_fraction": Range(0.1, 1.0, log=False),
    "bagging_fraction": Range(0.3, 1.0, log=False),
    "max_bin": Range(15, 255, whole=True),
}


def configured(head: Head, settings: TrainingSettings) -> Values:
    """The parameters as the configuration has them for a head."""
    return settings.for_head(head.name).lightgbm.model_dump(include=set(TunedSettings.model_fields))


def suggest(trial: Trial, name: str, space: Range) -> float | int:
    """A value of the range, drawn by Optuna."""
    if space.whole:
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)

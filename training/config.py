"""configs/training.toml as typed, frozen settings; unknown keys fail."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from features.events import EVENT_NAMES
from features.settings import Settings, load_settings


class RowSettings(Settings):
    """Which moments of a session become rows."""

    timeout_minutes: float = Field(30, ge=1, le=24 * 60)
    idle_seconds: tuple[float, ...] = (5, 10, 30, 60, 300)


class LabelSettings(Settings):
    """What counts as a bounce and as a conversion."""

    bounce_seconds: float = Field(10, gt=0)
    goal: str = "purchase"

    @field_validator("goal")
    @classmethod
    def _known(cls, goal: str) -> str:
        if goal not in EVENT_NAMES:
            raise ValueError(f"unknown event; known: {', '.join(EVENT_NAMES)}")
        return goal


class SplitSettings(Settings):
    """Which sessions serve for what; see `training.datasets`."""

    test_from: float = Field(0.7, gt=0, lt=1)
    late_from: float = Field(0.5, ge=0, lt=1)
    fit: float = Field(0.5, gt=0)
    early: float = Field(0.1, gt=0)
    calibration: float = Field(0.1, gt=0)
    test: float = Field(0.3, gt=0)
    min_sessions: int = Field(50, ge=1)
    min_positives: int = Field(5, ge=1)


class TableSettings(Settings):
    """How the learned tables are counted; see `training.tables`."""

    windows: int = Field(8, ge=1)
    prior_sessions: float = Field(20, ge=0)
    min_sessions: int = Field(5, ge=1)


class HeadSettings(Settings):
    """Which heads to train."""

    train: tuple[str, ...] = ("bounce", "conversion", "exit")


class LightgbmSettings(Settings):
    """LightGBM's parameters under its own names."""

    learning_rate: float = Field(0.1, gt=0)
    num_leaves: int = Field(31, ge=2)
    min_data_in_leaf: int = Field(100, ge=1)
    lambda_l2: float = Field(5.0, ge=0)
    feature_fraction: float = Field(0.8, gt=0, le=1)
    bagging_fraction: float = Field(0.8, gt=0, le=1)
    max_bin: int = Field(127, ge=2)
    num_boost_round: int = Field(400, ge=1)
    early_stopping_rounds: int = Field(30, ge=1)
    num_threads: int = Field(2, ge=1)
    seed: int = 7


class CalibrationSettings(Settings):
    """When scores are calibrated."""

    min_positives: int = Field(25, ge=2)


class EvaluationSettings(Settings):
    """At which session ages the heads are measured."""

    prefixes: tuple[int, ...] = (1, 2, 3, 5, 10)
    bins: int = Field(15, ge=2)


class TrackingSettings(Settings):
    """Where MLflow keeps runs and models."""

    uri: str = "sqlite:///lotse-data/mlflow.db"
    artifacts: str = "lotse-data/artifacts"
    experiment: str = "lotse"
    model_prefix: str = "lotse"
    alias: str = "champion"


class TrainingSettings(Settings):
    """The whole of configs/training.toml."""

    rows: RowSettings = RowSettings()
    labels: LabelSettings = LabelSettings()
    split: SplitSettings = SplitSettings()
    tables: TableSettings = TableSettings()
    heads: HeadSettings = HeadSettings()
    lightgbm: LightgbmSettings = LightgbmSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _known_heads(self) -> TrainingSettings:
        from training.heads import HEADS  # noqa: PLC0415  (heads are declared against these settings)

        for name in self.heads.train:
            if name not in HEADS:
                raise ValueError(f"heads.train: unknown head {name!r}; known: {', '.join(HEADS)}")
        return self

    def flat(self) -> dict[str, object]:
        """`section.key` -> value, for MLflow's parameters."""
        tree = self.model_dump()
        return {f"{section}.{key}": value for section, values in tree.items() for key, value in values.items()}


def load_training(path: Path | str = "configs/training.toml", overrides: tuple[str, ...] = ()) -> TrainingSettings:
    """Read the training configuration with `a.b=c` overrides."""
    return load_settings(path, TrainingSettings, overrides)

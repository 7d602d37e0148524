"""configs/training.toml as typed, frozen settings; unknown keys fail."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from features.events import EVENT_NAMES
from features.settings import Settings, load_settings

# Stands for the event of `labels.goal` wherever a question names an event.
GOAL: Final = "goal"


def _known_event(name: str) -> str:
    if name not in EVENT_NAMES:
        raise ValueError(f"unknown event; known: {', '.join(EVENT_NAMES)}")
    return name


class RowSettings(Settings):
    """Which moments of a session become rows, and how many rows are learned from at most."""

    timeout_minutes: float = Field(30, ge=1, le=24 * 60)
    idle_seconds: tuple[float, ...] = (5, 10, 30, 60, 300)
    max_events: int = Field(500_000, ge=1000)


class LabelSettings(Settings):
    """What counts as a bounce and as a conversion."""

    bounce_seconds: float = Field(10, gt=0)
    goal: str = "purchase"

    _goal_is_known = field_validator("goal")(_known_event)


class SessionLogSettings(Settings):
    """Training from handed-on sessions; see `training.session_log` and `training.guard`."""

    folder: str = "lotse-data/closed"
    guard: Literal["propensity", "none"] = "propensity"
    most_weight: float = Field(20, ge=1)
    alike: tuple[str, ...] = ()


class BounceQuestion(Settings):
    """Does the session end without a second interaction?"""

    kind: Literal["bounce"]


class GoalQuestion(Settings):
    """Does `event` happen later in the session? `event = "goal"` is that of [labels]."""

    kind: Literal["goal"]
    event: str

    @field_validator("event")
    @classmethod
    def _known(cls, event: str) -> str:
        return event if event == GOAL else _known_event(event)


class ExitQuestion(Settings):
    """Was this the session's last event?"""

    kind: Literal["exit"]


class ValueQuestion(Settings):
    """How much revenue does the rest of the session bring?"""

    kind: Literal["value"]


class ReturnsQuestion(Settings):
    """Does a linked visitor begin another session within so many days after this one?"""

    kind: Literal["returns"]
    days: float = Field(7, gt=0)


Question = Annotated[
    BounceQuestion | GoalQuestion | ExitQuestion | ValueQuestion | ReturnsQuestion, Field(discriminator="kind")
]
QUESTIONS: Final[dict[str, Any]] = {
    "bounce": BounceQuestion(kind="bounce"),
    "conversion": GoalQuestion(kind="goal", event=GOAL),
    "exit": ExitQuestion(kind="exit"),
    "add_to_cart": GoalQuestion(kind="goal", event="add_to_cart"),
    "value": ValueQuestion(kind="value"),
    "returns": ReturnsQuestion(kind="returns", days=7),
}


class HeadSettings(Settings):
    """Which heads to train, and what each of them is asked."""

    train: tuple[str, ...] = ("bounce", "conversion", "exit")
    questions: dict[str, Question] = QUESTIONS

    @model_validator(mode="after")
    def _known_heads(self) -> HeadSettings:
        for name in self.train:
            if name not in self.questions:
                raise ValueError(f"unknown head {name!r} in train; known: {', '.join(self.questions)}")
        return self


class SplitSettings(Settings):
    """What is learned from and what is tested on; see `training.datasets`."""

    test_from: float = Field(0.7, gt=0, lt=1)
    past: float = Field(0.7, gt=0)
    test: float = Field(0.3, gt=0)
    min_days: float = Field(1, ge=0)
    min_sessions: int = Field(50, ge=1)
    min_positives: int = Field(5, ge=1)
    folds: int = Field(1, ge=1)
    inner_folds: int = Field(3, ge=1)
    inner_from: float = Field(0.7, gt=0, lt=1)
    seed: int = Field(0, ge=0)


class TableSettings(Settings):
    """How the learned tables are counted; see `training.tables`."""

    windows: int = Field(8, ge=2)
    prior_sessions: float = Field(20, ge=0)
    min_sessions: int = Field(5, ge=1)
    step: float = Field(0.25, gt=0)


class TunedSettings(Settings):
    """What `lotse tune` finds for a head, under LightGBM's own names; see `training.tuning`."""

    learning_rate: float = Field(0.05, gt=0)
    num_leaves: int = Field(31, ge=2)
    min_data_in_leaf: int = Field(100, ge=1)
    lambda_l2: float = Field(20.0, ge=0)
    feature_fraction: float = Field(0.3, gt=0, le=1)
    bagging_fraction: float = Field(0.5, gt=0, le=1)
    max_bin: int = Field(63, ge=2)


class LinearSettings(Settings):
    """The linear model that trees may start from, and what is different of them then; see `training.linear`."""

    max_rows: int = Field(200_000, ge=0)
    visitors: int = Field(1_000, ge=0)
    bins: int = Field(32, ge=2, le=250)
    inverse_penalties: tuple[float, ...] = (0.01, 0.001, 0.0001)
    lightgbm: dict[str, float | int] = Field({"learning_rate": 0.1, "min_data_in_leaf": 500, "lambda_l2": 100.0})

    @field_validator("lightgbm")
    @classmethod
    def _tunable(cls, lightgbm: dict[str, float | int]) -> dict[str, float | int]:
        for name in lightgbm:
            if name not in TunedSettings.model_fields:
                raise ValueError(f"unknown key {name!r}; allowed there: {', '.join(TunedSettings.model_fields)}")
        return TunedSettings.model_validate(lightgbm).model_dump(exclude_unset=True)


class LightgbmSettings(TunedSettings):
    """LightGBM's parameters under its own names."""

    num_boost_round: int = Field(1000, ge=1)
    early_stopping_rounds: int = Field(30, ge=1)
    monotone: bool = True
    num_threads: int = Field(2, ge=1)
    seed: int = 7


class CalibrationSettings(Settings):
    """How scores become probabilities at every session age; see `training.calibration`."""

    min_positives: int = Field(25, ge=2)
    max_events: int = Field(1_000_000, ge=0)
    events: tuple[int, ...] = (1, 2, 3, 4, 6, 10, 20)
    idle_seconds: tuple[float, ...] = (0, 5, 10, 30, 60, 300)
    knots: int = Field(6, ge=0)
    priors: tuple[float, ...] = (10, 100, 1000)


class EvaluationSettings(Settings):
    """At which session ages the heads are measured, and how surely."""

    prefixes: tuple[int, ...] = (1, 2, 3, 5, 10)
    seconds: tuple[float, ...] = (5, 10, 30, 60, 120, 300)
    bins: int = Field(15, ge=2)
    lift: tuple[float, ...] = (0.05, 0.1, 0.2)
    resamples: int = Field(200, ge=0)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    segment_rows: int = Field(200, ge=1)
    estimators: dict[str, dict[str, Any]] = Field(default_factory=dict)


class TuningSettings(Settings):
    """How `lotse tune` searches; see `training.tuning`."""

    trials: int = Field(50, ge=1)
    minutes: float = Field(30, gt=0)
    jobs: int = Field(1, ge=1)
    max_events: int = Field(500_000, ge=1000)
    database: str = "lotse-data/tuning.db"
    seed: int = 7


class PromotionSettings(Settings):
    """What a candidate must show before it replaces the champion; see `training.promotion`."""

    min_age_hours: float = Field(24, ge=0)
    min_rows: int = Field(1000, ge=1)
    log_loss_tolerance: float = Field(0.002, ge=0)
    ece_tolerance: float = Field(0.005, ge=0)
    segment_tolerance: float = Field(0.02, ge=0)
    ratio_tolerance: float = Field(0.05, ge=0)


class DriftSettings(Settings):
    """When a later window counts as drifted; see `training.drift`."""

    psi: float = Field(0.2, gt=0)
    ks: float = Field(0.15, gt=0)
    score_psi: float = Field(0.1, gt=0)
    ece: float = Field(0.03, gt=0)
    ratio: float = Field(0.25, gt=0)
    min_rows: int = Field(1000, ge=1)
    ignore: tuple[str, ...] = ("local_hour", "local_weekday", "weekend", "days_since_first_visit")


class WatchSettings(Settings):
    """What `lotse watch` does by itself; see `training.closed_loop`."""

    retrain_hours: float = Field(24, ge=0)
    webhook: str = ""
    lock: str = "lotse-data/watch.lock"


class TrackingSettings(Settings):
    """Where MLflow keeps runs and models."""

    uri: str = "sqlite:///lotse-data/mlflow.db"
    artifacts: str = "lotse-data/artifacts"
    experiment: str = "lotse"
    model_prefix: str = "lotse"
    alias: str = "champion"
    candidate_alias: str = "challenger"


class TrainingSettings(Settings):
    """The whole of configs/training.toml."""

    rows: RowSettings = RowSettings()
    labels: LabelSettings = LabelSettings()
    log: SessionLogSettings = SessionLogSettings()
    heads: HeadSettings = HeadSettings()
    split: SplitSettings = SplitSettings()
    tables: TableSettings = TableSettings()
    linear: LinearSettings = LinearSettings()
    lightgbm: LightgbmSettings = LightgbmSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tuning: TuningSettings = TuningSettings()
    tuned: dict[str, TunedSettings] = Field(default_factory=dict)
    promotion: PromotionSettings = PromotionSettings()
    drift: DriftSettings = DriftSettings()
    watch: WatchSettings = WatchSettings()
    tracking: TrackingSettings = TrackingSettings()

    @property
    def timeout_ms(self) -> int:
        """A session ends after so much silence, ms."""
        return round(self.rows.timeout_minutes * 60_000)

    def for_head(self, name: str) -> TrainingSettings:
        """The same with the keys of [tuned.<name>] in the place of those of [lightgbm].

        >>> settings = TrainingSettings.model_validate({"tuned": {"exit": {"num_leaves": 7}}})
        >>> settings.for_head("exit").lightgbm.num_leaves, settings.for_head("bounce").lightgbm.num_leaves
        (7, 31)
        """
        return self.with_lightgbm(self.tuned[name].model_dump(exclude_unset=True) if name in self.tuned else {})

    def with_lightgbm(self, own: Mapping[str, Any]) -> TrainingSettings:
        """The same with other keys of [lightgbm], for trees on a linear model, too."""
        others = {name: value for name, value in self.linear.lightgbm.items() if name not in own}
        linear = self.linear.model_copy(update={"lightgbm": others})
        return self.model_copy(update={"lightgbm": self.lightgbm.model_copy(update=dict(own)), "linear": linear})

    def on_a_line(self) -> TrainingSettings:
        """The same with the keys of [lightgbm] that trees on a linear model have."""
        return self.model_copy(update={"lightgbm": self.lightgbm.model_copy(update=self.linear.lightgbm)})

    def flat(self) -> dict[str, object]:
        """`section.key` -> value, for MLflow's parameters."""
        tree = self.model_dump()
        return {f"{section}.{key}": value for section, values in tree.items() for key, value in values.items()}


def load_training(path: Path | str = "configs/training.toml", overrides: tuple[str, ...] = ()) -> TrainingSettings:
    """Read the training configuration with `a.b=c` overrides."""
    return load_settings(path, TrainingSettings, overrides)

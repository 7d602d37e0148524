"""`lotse train --head uplift` as a function: the units of an experiment in, a registered, evaluated uplift head out.

In: the table of units (`docs/experiments.md`) as Parquet. What the model may ask is what is known of a unit at its
trigger: the scores, the number of events, and whatever a column `feature.<name>` holds of the feature of that name. A
feature without a column is missing in every unit, so the model does not ask for it. Forced units and those whose
outcome is not known are left out.

The age in seconds is noted at the trigger, too, but is no feature: where a flag was asked for without an event it
counts the silence before it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from features import carried
from features.compiler import compile_fold
from features.experiments import SCORES
from features.settings import SettingsError
from features.tables import NOTHING_LEARNED
from training import registry, tracking
from training.config import TrainingSettings
from training.datasets import is_tested
from training.experiments.qini import UpliftEvaluation, evaluate_uplift
from training.experiments.uplift import Units, UpliftModel, fit_uplift
from training.provenance import provenance

HEAD: Final = "uplift"
PREFIX: Final = "feature."
# What the model calls another head's score of the same moment; the service puts it beside the features.
SCORE: Final = "score."
# Units of each arm to learn from and to test on: fewer say nothing of anybody's effect.
LEAST: Final = 200
_COLUMNS: Final = ("experiment", "arm", "propensity", "forced", "visitor", "exposed_at")


@dataclass(frozen=True)
class Question:
    """Which effect is asked for: of `arm` beside `control`, on the outcome in the column `goal`."""

    experiment: str
    arm: str
    goal: str
    control: str = "control"

    @property
    def text(self) -> str:
        """As people read it."""
        return f"By how much does {self.arm} instead of {self.control} change {self.goal} ({self.experiment})?"


@dataclass(frozen=True)
class UpliftHead:
    """What the registry wants to know of a head."""

    question: str
    name: str = HEAD
    decided: None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainedUplift:
    """The model, its registered version and what it is worth on visitors that it has not seen."""

    model: UpliftModel
    version: str
    evaluation: UpliftEvaluation
    run_id: str


def train_uplift(path: Path, question: Question, settings: TrainingSettings) -> TrainedUplift:
    """Fit, evaluate and register.

    Raises
    ------
    SettingsError
        The table lacks columns or units.
    """
    table = read_units(path, question)
    fold = compile_fold()
    units = units_of(table, question, fold.names)
    tested = is_tested(units.visitor, settings.split)
    past, test = units.take(~tested), units.take(tested)
    for part, name in ((past, "learn from"), (test, "test on")):
        for arm in ("treated", "control"):
            if (found := int(getattr(part, arm).sum())) < LEAST:
                shown = question.arm if arm == "treated" else question.control
                raise SettingsError(f"{found} units of {shown!r} to {name}; an uplift needs {LEAST}: let it run longer")
    model = fit_uplift(past, settings.lightgbm.seed, settings.lightgbm.num_threads)
    evaluation = evaluate_uplift(test, model.score(test.matrix), resamples=settings.evaluation.resamples)
    mlflow = tracking.connect(settings.tracking)
    times = int(table["exposed_at"].min()), int(table["exposed_at"].max())
    tags = provenance(settings, times, fold.digest, question.experiment) | {"registered_by": "lotse train"}
    with mlflow.start_run(run_name=f"train-{HEAD}-{question.experiment}") as run:
        mlflow.set_tags(tags)
        mlflow.log_params(
            {"head": HEAD, **asdict(question), "slope": model.slope, "corrections": model.rounds, "units": len(past)}
        )
        mlflow.log_metrics(_metrics(model, evaluation))
        mlflow.log_text(_fifths(evaluation).to_csv(index=False), "fifths.csv")
        version = registry.register(
            mlflow,
            UpliftHead(question.text),
            model,
            digest=fold.digest,
            tables=NOTHING_LEARNED,
            test=test,
            settings=settings,
            tags=tags,
            extras={carried.FILE: carried.dump(fold)},
        )
    return TrainedUplift(model, version, evaluation, run.info.run_id)


def read_units(path: Path, question: Question) -> pd.DataFrame:
    """The experiment's units whose outcome is known.

    Raises
    ------
    SettingsError
        No such file, columns or experiment.
    """
    if not path.exists():
        raise SettingsError(f"no table of units {path}; it is what the service hands on of an experiment")
    table = pd.read_parquet(path)
    missing = [name for name in (*_COLUMNS, question.goal) if name not in table]
    if missing:
        raise SettingsError(f"{path} lacks the column(s) {', '.join(missing)}; see docs/experiments.md")
    found = table[table["experiment"] == question.experiment]
    for arm in (question.arm, question.control):
        if not (found["arm"] == arm).any():
            known = ", ".join(sorted(f"{e}: {a}" for e, a in set(zip(table["experiment"], table["arm"], strict=True))))
            raise SettingsError(f"no unit of {question.experiment!r} with the arm {arm!r}; there are {known}")
    return found[~found["forced"].astype(bool) & found[question.goal].notna()]


def units_of(table: pd.DataFrame, question: Question, names: tuple[str, ...]) -> Units:
    """The table as rows to learn from: all features of the catalogue, then the scores that are known.

    Raises
    ------
    SettingsError
        Nothing is known of the units at their trigger.
    """
    known = {name: table[PREFIX + name] for name in names if PREFIX + name in table}
    if "age_events" in table:
        known.setdefault("events", table["age_events"])
    scores = {SCORE + name: table[name] for name in SCORES if name in table and table[name].notna().any()}
    if not known and not scores:
        raise SettingsError(
            "nothing is known of the units when they were exposed: the table has neither scores nor age_events nor "
            f"a column such as {PREFIX}{names[0]}"
        )
    whole = (*names, *scores)
    matrix = np.full((len(table), len(whole)), np.nan, np.float32)
    for name, values in {**known, **scores}.items():
        matrix[:, whole.index(name)] = values.to_numpy(np.float32)
    return Units(
        names=whole,
        matrix=matrix,
        treated=(table["arm"] == question.arm).to_numpy(),
        control=(table["arm"] == question.control).to_numpy(),
        propensity=table["propensity"].to_numpy(float),
        outcome=table[question.goal].to_numpy(float),
        visitor=table["visitor"].to_numpy(np.int64),
    )


def _metrics(model: UpliftModel, evaluation: UpliftEvaluation) -> dict[str, float]:
    figures = {"average": evaluation.average, "auuc": evaluation.auuc, "qini": evaluation.qini}
    figures |= {f"uplift_at_{round(100 * share)}": figure for share, figure in evaluation.at.items()}
    found = {"learned/average": model.average, "learned/average_error": model.error}
    for name, figure in figures.items():
        found |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _fifths(evaluation: UpliftEvaluation) -> pd.DataFrame:
    lines = [
        {"units": one.units, "promised": one.promised}
        | {f"observed_{name}": value for name, value in asdict(one.observed).items()}
        for one in evaluation.fifths
    ]
    return pd.DataFrame(lines)

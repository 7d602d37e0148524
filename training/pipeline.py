"""`lotse train` as a function: events in, registered heads out, everything in between in MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.batch import Rows, build_rows
from features.declare import Catalogue
from features.definitions import CATALOGUE
from features.settings import SettingsError
from features.tables import NOTHING_LEARNED, Tables, Windows
from training import plots, registry, tracking
from training.config import TrainingSettings
from training.datasets import Slice, assign_sessions, check_enough, slices_of, test_border
from training.evaluation import evaluate
from training.heads import HEADS, Head
from training.labels import Outcomes, outcomes
from training.model import HeadModel, fit_head, fit_logistic
from training.tables import fit_windows, key_events, key_rows, window_starts

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Trained:
    """One head: its model, its registered version, its evaluation on the test (see `training.evaluation`)."""

    head: str
    model: HeadModel
    version: str
    evaluation: pd.DataFrame
    run_id: str


@dataclass(frozen=True)
class Prepared:
    """A history ready for heads: rows, outcomes, each session's slice (int8), and the tables the test is read with."""

    rows: Rows
    outcome: Outcomes
    assigned: np.ndarray
    tables: Tables


def prepare(events: pd.DataFrame, settings: TrainingSettings, report: Report = lambda *_: None) -> Prepared:
    """Rows, outcomes, slices and learned tables of a history. `report` gets (step, done, in all)."""
    timeout_seconds = settings.rows.timeout_minutes * 60
    timeout_ms = round(timeout_seconds * 1000)
    windows = learn(events, settings)
    rows = build_rows(
        events,
        idle_seconds=settings.rows.idle_seconds,
        timeout_seconds=timeout_seconds,
        progress=lambda done, whole: report("features", done, whole),
        tables=windows,
    )
    outcome = outcomes(rows.events, settings.labels, timeout_ms)
    assigned = assign_sessions(rows.events, settings.split, timeout_ms)
    return Prepared(rows, outcome, assigned, windows.tables[-1])


def learn(events: pd.DataFrame, settings: TrainingSettings, catalogue: Catalogue = CATALOGUE) -> Windows:
    """The learned tables over the expanding window; the last ones are those of the test, and of the model."""
    timeout_seconds = settings.rows.timeout_minutes * 60
    keys = key_rows(events, catalogue, timeout_seconds)
    if not len(keys):
        return Windows(np.zeros(1, np.int64), [NOTHING_LEARNED])
    outcome = outcomes(keys.events, settings.labels, round(timeout_seconds * 1000))
    counted = key_events(keys, catalogue, outcome, timeout_seconds)
    border = int(test_border(keys.events, settings.split))
    starts = keys.events.groupby("session_index")["time"].min().to_numpy()
    return fit_windows(counted, window_starts(starts, border, settings.tables.windows), settings.tables)


def train(
    events: pd.DataFrame, settings: TrainingSettings, source: str, report: Report = lambda *_: None
) -> tuple[list[Trained], dict[str, str]]:
    """Train, evaluate and register every configured head.

    Returns the trained heads, and for each head that could not be trained the reason.

    Raises
    ------
    SettingsError
        No head could be trained.
    """
    prepared = prepare(events, settings, report)
    rows = prepared.rows
    ready: dict[str, dict[str, Slice]] = {}
    refused: dict[str, str] = {}
    for name in settings.heads.train:
        slices = slices_of(rows, prepared.outcome, prepared.assigned, HEADS[name])
        try:
            check_enough(HEADS[name], slices, settings.split)
            ready[name] = slices
        except SettingsError as error:
            refused[name] = str(error)
    if not ready:
        raise SettingsError("; ".join(refused.values()) or "no head to train; name some in [heads] train")
    mlflow = tracking.connect(settings.tracking)
    trained = []
    with mlflow.start_run(run_name=f"train-{source}") as parent:
        mlflow.log_params(settings.flat())
        mlflow.set_tags({"source": source, "feature_digest": rows.digest, "events": len(rows.events)})
        for name, slices in ready.items():
            with mlflow.start_run(run_name=name, nested=True) as run:
                trained.append(_train_head(mlflow, HEADS[name], slices, prepared, settings, source, run, report))
        summary = pd.concat([one.evaluation.assign(head=one.head) for one in trained], ignore_index=True)
        mlflow.log_table(summary, "evaluation.json", run_id=parent.info.run_id)
        for name, reason in refused.items():
            mlflow.set_tag(f"refused.{name}", reason)
    return trained, refused


def _train_head(
    mlflow: Any,
    head: Head,
    slices: dict[str, Slice],
    prepared: Prepared,
    settings: TrainingSettings,
    source: str,
    run: Any,
    report: Report,
) -> Trained:
    rows = prepared.rows
    model = fit_head(
        slices, rows.names, settings.lightgbm, settings.calibration, lambda done, whole: report(head.name, done, whole)
    )
    whole = settings.lightgbm.num_boost_round
    report(head.name, whole, whole)
    test = slices["test"]
    scores = {
        "lotse": model.score(test.matrix),
        "logistic": fit_logistic(slices["fit"]).predict_proba(test.matrix)[:, 1],
        "base_rate": _base_rates(slices["fit"], test),
    }
    table = evaluate(test, scores, settings.evaluation.prefixes, settings.evaluation.bins)
    mlflow.log_params({"head": head.name, "question": head.question, **settings.lightgbm.model_dump()})
    mlflow.log_params({"trees": model.booster.num_trees(), **model.calibration.as_json()})
    mlflow.log_metrics(tracking.metric_values(table))
    for part in slices.values():
        tracking.log_dataset(mlflow, part, head.name, source)
    _log_pictures(mlflow, head.name, model, test, scores, settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "evaluation.csv")
        table.to_csv(path, index=False)
        mlflow.log_artifact(str(path))
    version = registry.register(mlflow, head, model, rows.names, rows.digest, prepared.tables, test, settings)
    mlflow.set_tag("model_version", version)
    report(f"{head.name} registered", 1, 1)
    return Trained(head.name, model, version, table, run.info.run_id)


def _base_rates(fit: Slice, test: Slice) -> np.ndarray:
    """The rate among fitted rows that were idle as long: float64 (n,). One rate for all would be an easy rival, because
    sessions that end at once have more idle rows than their share."""
    rates = pd.Series(fit.answer).groupby(fit.idle_ms).mean()
    return pd.Series(test.idle_ms).map(rates).fillna(fit.answer.mean()).to_numpy()


def _log_pictures(
    mlflow: Any, head: str, model: HeadModel, test: Slice, scores: dict[str, np.ndarray], settings: TrainingSettings
) -> None:
    booster = model.booster
    gains = pd.Series(booster.feature_importance("gain"), index=booster.feature_name())
    prefixes, bins = settings.evaluation.prefixes, settings.evaluation.bins
    pictures = {
        "reliability": plots.reliability(head, test, scores["lotse"], prefixes, bins),
        "roc": plots.roc(head, test, scores),
        "precision_recall": plots.precision_recall(head, test, scores),
        "score_by_age": plots.score_by_age(head, test, scores["lotse"]),
        "importance": plots.importance(head, gains),
    }
    for name, figure in pictures.items():
        mlflow.log_figure(figure, f"plots/{name}.png")

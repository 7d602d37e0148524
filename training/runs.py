"""`lotse train` as a function: events in, registered heads out, everything in between in MLflow."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from features import carried
from features.compiler import compile_fold
from features.settings import SettingsError
from training import registry, tracking
from training.baselines import baseline_scores
from training.boosting import Tick
from training.card import About, model_card
from training.config import TrainingSettings
from training.datasets import Slice, check_enough
from training.distributed import History, boosted_on_all, split_history
from training.evaluation import evaluate
from training.findings import Findings, find
from training.heads import Head, heads_of
from training.histogram import Histogram
from training.model import HeadModel, fit_head
from training.pages import report_page
from training.pipeline import Prepared, Report, prepare, prepare_others
from training.plots import pictures
from training.provenance import provenance
from training.thresholds import FILE as THRESHOLDS
from training.thresholds import what_if

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Trained:
    """One head: its model, its registered version, its evaluation on the test (see `training.evaluation`)."""

    head: str
    task: str
    model: HeadModel
    version: str
    evaluation: pd.DataFrame
    run_id: str


def train(
    events: pd.DataFrame,
    settings: TrainingSettings,
    source: str,
    report: Report = lambda *_: None,
    client: Client | None = None,
    *,
    by: str = "lotse train",
) -> tuple[list[Trained], dict[str, str]]:
    """Train, evaluate and register every configured head; with a Dask client, on all the past (`training.distributed`).

    by: the verb, which versions name as `registered_by`.

    Returns the trained heads, and for each head that could not be trained the reason.

    Raises
    ------
    SettingsError
        No head could be trained.
    """
    prepared = prepare(events, settings, report)
    heads, refused = _ready(prepared, settings)
    if not heads:
        raise SettingsError("; ".join(refused.values()) or "no head to train; name some in [heads] train")
    others = prepare_others(events, prepared, report)
    mlflow = tracking.connect(settings.tracking)
    tags = provenance(settings, events, prepared.digest, source, border_ms=prepared.border_ms) | {"registered_by": by}
    trained = []
    with mlflow.start_run(run_name=f"train-{source}") as parent:
        mlflow.log_params(settings.flat())
        mlflow.set_tags({**tags, "events": len(events)})
        for name, reason in refused.items():
            mlflow.set_tag(f"refused.{name}", reason)
        with _history(client, events, prepared, settings) as history:
            for head in heads:
                with mlflow.start_run(run_name=head.name, nested=True) as run:
                    mlflow.set_tags(tags)
                    trained.append(
                        _train_head(mlflow, head, prepared, others, settings, source, tags, run, report, history)
                    )
        summary = pd.concat([one.evaluation.assign(head=one.head) for one in trained], ignore_index=True)
        mlflow.log_table(summary, "evaluation.json", run_id=parent.info.run_id)
        del prepared, others
        if settings.split.folds > 1:
            rolling = _rolling_folds(events, heads, settings, report)
            mlflow.log_table(rolling, "folds.json", run_id=parent.info.run_id)
            mlflow.log_metrics(_fold_metrics(rolling), run_id=parent.info.run_id)
    return trained, refused


def _history(
    client: Client | None, events: pd.DataFrame, prepared: Prepared, settings: TrainingSettings
) -> AbstractContextManager[History | None]:
    """All the past on the cluster, where there is one."""
    if client is None:
        return nullcontext()
    return split_history(client, events, settings, prepared.windows, prepared.border_ms, Path("lotse-data"))


def _ready(prepared: Prepared, settings: TrainingSettings) -> tuple[list[Head], dict[str, str]]:
    """The heads that can be trained, and for the others why not."""
    # without the features, which are most of the memory and not looked at
    bare = replace(prepared, rows=replace(prepared.rows, matrix=np.empty((len(prepared.rows), 0), np.float32)))
    known = heads_of(settings)
    heads, refused = [], {}
    for name in settings.heads.train:
        try:
            check_enough(known[name], bare.slices(known[name]), bare.rows.events, settings.split)
            heads.append(known[name])
        except SettingsError as error:
            refused[name] = str(error)
    return heads, refused


def _train_head(
    mlflow: Any,
    head: Head,
    prepared: Prepared,
    others: Prepared | None,
    settings: TrainingSettings,
    source: str,
    tags: dict[str, str],
    run: Any,
    report: Report,
    history: History | None,
) -> Trained:
    slices = prepared.slices(head)
    past, test = slices["past"], slices["test"]
    model = _fit(past, others, head, settings, lambda done, whole: report(head.name, done, whole))
    if history is not None:
        model = boosted_on_all(history, head, model)
    scores = {"lotse": model.score(test.matrix)}
    scores |= baseline_scores(past, test, head, settings.evaluation.estimators)
    found = find(head, model, test, scores, settings.evaluation)
    table = found.table
    mlflow.log_params({"head": head.name, "question": head.question, **_learned(model)})
    mlflow.log_metrics(tracking.metric_values(table))
    mlflow.log_metric("inner/log_loss", model.inner.log_loss)
    for part in slices.values():
        tracking.log_dataset(mlflow, part, head.name, source)
    about = About.of(
        registry.registered_name(settings.tracking, head.name), model, past, settings.for_head(head.name), tags
    )
    # of the test: rows that the model has not seen, the nearest to those it will
    histogram = Histogram.of(test, scores["lotse"], head.task)
    extras = {
        "histogram.json": histogram.as_json(),
        "card.md": model_card(about, found),
        carried.FILE: carried.dump(compile_fold()),
    }
    _log_findings(mlflow, found, scores["lotse"], extras["card.md"])
    version = registry.register(
        mlflow,
        head,
        model,
        digest=prepared.digest,
        tables=prepared.tables,
        test=test,
        settings=settings,
        tags=tags,
        extras=extras,
    )
    mlflow.set_tag("model_version", version)
    report(f"{head.name} registered", 1, 1)
    return Trained(head.name, head.task, model, version, table, run.info.run_id)


def _fit(
    past: Slice, others: Prepared | None, head: Head, settings: TrainingSettings, tick: Tick | None = None
) -> HeadModel:
    """With the head's own parameters, calibrated by the past of others where the log was thinned."""
    return fit_head(past, head, settings.for_head(head.name), tick, others.slices(head)["past"] if others else None)


def _log_findings(mlflow: Any, found: Findings, ours: np.ndarray, card: str) -> None:
    """Pictures, an interactive page, tables and the model card, for people; ours: the test's scores."""
    for name, figure in pictures(found).items():
        mlflow.log_figure(figure, f"plots/{name}.png")
    mlflow.log_text(report_page(found), "pages/report.html")
    mlflow.log_text(card, "card.md")
    mlflow.log_text(found.table.to_csv(index=False), "evaluation.csv")
    mlflow.log_text(found.early.to_csv(index=False), "earliness.csv")
    curves = [curve.assign(age=age) for age, curve in found.reliability.items()]
    if curves:
        mlflow.log_text(pd.concat(curves, ignore_index=True).to_csv(index=False), "reliability.csv")
    importance = found.explanation.importance.rename_axis("feature").reset_index(name="contribution")
    mlflow.log_text(importance.to_csv(index=False), "importance.csv")
    mlflow.log_text(what_if(found.part, ours, found.settings, found.task).text(), THRESHOLDS)


def _learned(model: HeadModel) -> dict[str, object]:
    """What was chosen by the inner folds."""
    return {
        "trees": model.booster.num_trees(),
        "rounds": model.inner.rounds,
        "inverse_penalty": model.inner.inverse_penalty,
        "inner_rows": model.inner.rows,
    }


def _rolling_folds(events: pd.DataFrame, heads: list[Head], settings: TrainingSettings, report: Report) -> pd.DataFrame:
    """The evaluation of each window of the test's time, by models learned from everything before it."""
    first, last = float(events["time"].min()), float(events["time"].max())
    count = settings.split.folds
    shares = settings.split.test_from + (1 - settings.split.test_from) * np.arange(count + 1) / count
    borders = first + shares * (last - first)
    tables = []
    for number in range(count):
        until = borders[number + 1] if number + 1 < count else np.inf
        prepared = prepare(events, settings, border_ms=borders[number], until_ms=until)
        others = prepare_others(events, prepared)
        for head in heads:
            slices = prepared.slices(head)
            try:
                check_enough(head, slices, prepared.rows.events, settings.split)
            except SettingsError:
                continue
            tables.append(_of_fold(slices, others, head, settings).assign(head=head.name, fold=number + 1))
            report("rolling folds", number * len(heads) + heads.index(head) + 1, count * len(heads))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _of_fold(slices: dict[str, Slice], others: Prepared | None, head: Head, settings: TrainingSettings) -> pd.DataFrame:
    past, test = slices["past"], slices["test"]
    model = _fit(past, others, head, settings)
    scores = {"lotse": model.score(test.matrix)}
    scores |= baseline_scores(past, test, head, settings.evaluation.estimators)
    return evaluate(test, scores, settings.evaluation, head.task)


def _fold_metrics(rolling: pd.DataFrame) -> dict[str, float]:
    """`folds/metric/head/mean` and `.../std` of Lotse's rows right after events, for MLflow's charts."""
    if rolling.empty:
        return {}
    ours = rolling[(rolling["model"] == "lotse") & (rolling["age"] == "events")]
    found = {}
    for metric in ("auc", "pr_auc", "log_loss", "brier", "ece"):
        for head, values in ours.groupby("head")[metric]:
            if values.notna().any():
                found[f"folds/{metric}/{head}/mean"] = float(values.mean())
                found[f"folds/{metric}/{head}/std"] = float(values.std(ddof=0))
    return found

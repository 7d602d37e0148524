"""A later window of a log beside the models that score it: its rows, their scores, the drift, and the MLflow run of it.

Rows are as the test's, each head's read with the tables its model carries, and with the sessions whose outcome nobody
knows yet.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from features.settings import SettingsError
from training.config import TrainingSettings
from training.datasets import SIDES, Slice, slices_of
from training.drift import Drift, compare
from training.evaluation import evaluate
from training.heads import Head, heads_of
from training.histogram import Histogram
from training.loading import Registered
from training.pipeline import Prepared, Report, prepare
from training.provenance import iso
from training.thresholds import FILE, WhatIf, what_if
from training.tracking import metric_values


@dataclass(frozen=True)
class Watched:
    """A head, the version that was watched, what its rows looked like and what became of that.

    realised: `training.evaluation.evaluate` of the rows whose answer is known, where it was asked for and there are
    enough. thresholds: what acting on scores from a threshold on would have reached, where as many are known.
    """

    head: Head
    version: str
    histogram: Histogram
    drift: Drift
    realised: pd.DataFrame | None = None
    thresholds: WhatIf | None = None


def watch(
    events: pd.DataFrame,
    settings: TrainingSettings,
    versions: Mapping[str, Registered],
    since_ms: float | None = None,
    until_ms: float = np.inf,
    report: Report = lambda *_: None,
    *,
    by_age: bool = False,
) -> tuple[list[Watched], dict[str, str]]:
    """Hold the sessions that began in [since_ms, until_ms), ms UTC, to each version's histogram.

    versions: by head; since_ms: the end of the histogram by default, so that what the model was tested on is left out;
    by_age: whether to measure what became of them at each session age, too.
    Returns what could be told, and for the other heads why nothing can.
    """
    heads = heads_of(settings)
    found: dict[str, Watched] = {}
    refused: dict[str, str] = {}
    readers: dict[str, list[str]] = defaultdict(list)
    for name, version in versions.items():
        if name not in heads:
            refused[name] = f"head {name!r} is not configured; [heads.questions] has {', '.join(heads)}"
        elif version.histogram is None:
            refused[name] = (
                f"{version.name} version {version.version} carries no histogram; train again with this release"
            )
        else:
            readers[version.tables.digest].append(name)
    for names in readers.values():
        prepared = prepare(events, settings, report, border_ms=np.inf, tables=versions[names[0]].tables)
        for name in names:
            head, version = heads[name], versions[name]
            histogram = version.histogram
            assert histogram is not None
            since = since_ms if since_ms is not None else histogram.last + settings.timeout_ms
            try:
                part = window_of(prepared, head, since, until_ms)
                score = version.model.score(part.matrix)
                drift = compare(histogram, part, score, settings.drift)
                known = ~np.isnan(part.answer)
                realised, reached = None, None
                if known.sum() >= settings.drift.min_rows:
                    part, score = part.take(known), score[known]
                    reached = what_if(part, score, settings.evaluation, head.task)
                    if by_age:
                        realised = evaluate(part, {"lotse": score}, settings.evaluation, head.task)
                found[name] = Watched(head, version.version, histogram, drift, realised, reached)
            except SettingsError as error:
                refused[name] = f"head {name!r}, sessions that began from {iso(since)} on: {error}"
    return [found[name] for name in versions if name in found], refused


def window_of(prepared: Prepared, head: Head, since_ms: float, until_ms: float) -> Slice:
    """Rows of the sessions that began in [since_ms, until_ms), ms UTC; the answer is NaN where it is not known yet."""
    rows, outcome = prepared.rows, prepared.outcome
    inside = (outcome.starts >= since_ms) & (outcome.starts < until_ms)
    assigned = np.where(inside, SIDES.index("test"), -1).astype(np.int8)
    # without a horizon every outcome counts as known, and none is left out
    part = slices_of(rows, outcome, assigned, replace(head, horizon_ms=0), np.inf)["test"]
    known_at, last = part.known_at + head.horizon_ms, outcome.end_ms if len(part) else 0
    answer = np.where(known_at <= last, part.answer, np.nan).astype(np.float32)
    part = replace(part, name="window", answer=answer, known_at=known_at)
    # a silence that outlasts the log was not seen
    return part.take(part.now <= last)


def log_drift(mlflow: Any, one: Watched, source: str, page: str) -> None:
    """A run `drift-<head>`: the numbers as metrics, all of it as drift.json, by age as realised.csv, by threshold as
    thresholds.json, and the page."""
    drift = one.drift
    with mlflow.start_run(run_name=f"drift-{one.head.name}"):
        mlflow.set_tags(
            {
                "source": source,
                "head": one.head.name,
                "model_version": one.version,
                "drift": str(drift.drifted).lower(),
                "found": "; ".join(drift.found) or "nothing",
            }
        )
        mlflow.log_params(
            {
                "version": one.version,
                "window_from": iso(drift.first),
                "window_to": iso(drift.last),
                "rows": drift.rows,
                "sessions": drift.sessions,
                "visitors": drift.visitors,
            }
        )
        mlflow.log_metrics(_metrics(drift))
        if one.realised is not None:
            mlflow.log_metrics(metric_values(one.realised))
            mlflow.log_text(one.realised.to_csv(index=False), "realised.csv")
        if one.thresholds is not None:
            mlflow.log_text(one.thresholds.text(), FILE)
        mlflow.log_text(json.dumps(drift.as_json(), indent=1), "drift.json")
        mlflow.log_text(page, "drift.html")


def _metrics(drift: Drift) -> dict[str, float]:
    numbers = {
        "drifted_features": float(sum(one.counts and one.drifted for one in drift.features)),
        "score_psi": drift.score.psi,
        "score_psi_alarm": drift.score.psi_alarm,
        "score_ks": drift.score.ks,
        **{f"psi/{one.name}": one.psi for one in drift.features},
    }
    if drift.realised:
        names = (
            "mean_score", "mean_answer", "change", "ratio", "ratio_error", "ratio_alarm", "calibration",
            "calibration_noise", "calibration_alarm",
        )  # fmt: skip
        numbers |= {name: getattr(drift.realised, name) for name in names}
    # of amounts the calibration has no alarm
    return {name: value for name, value in numbers.items() if np.isfinite(value)}

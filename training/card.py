"""The model card of one version, in Markdown: what it is for, what it was made of, how good it is and where it is not.

In: `Findings`, what was learned from and how. Out: text; no I/O. What is undefined is shown as a dash. After Mitchell
et al., Model Cards for Model Reporting, 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import pandas as pd

from features.definitions import CATALOGUE
from training.config import TrainingSettings
from training.curves import half_lift
from training.datasets import Slice
from training.findings import Findings, age_label, metric_label, model_label
from training.model import HeadModel
from training.pages import BASE_RATE, number, percent, with_interval
from training.segments import LEAST_VISITORS

_PACKAGES: Final = ("lightgbm", "numpy", "pandas")
_AGE_METRICS: Final = {
    "binary": ("auc", "pr_auc", "pr_auc_ratio", "log_loss", "ece", "ece_noise"),
    "value": ("mean", "predicted", "ratio", "d2", "spearman"),
}
_BESIDE: Final = {
    "binary": ("auc", "pr_auc", "log_loss", "brier", "ece", "lift_10"),
    "value": ("ratio", "mae", "rmse", "d2", "spearman", "lift_10"),
}


@dataclass(frozen=True)
class About:
    """What a card tells besides the test.

    Attributes
    ----------
    registered: name of the registered model; tags: of `training.provenance.provenance`.
    settings: those the head was trained with; names: its features; base_rate: mean answer of the past's rows.
    rows, sessions, visitors: of the past, which was learned from.
    trees: of the whole model; rounds: boosted ones among them; inverse_penalty: of the linear model they start from, 0
        where they are alone.
    calibrated: session ages with a calibration of their own; 1 where the scores are as the trees give them.
    packages: versions by name, of what the model needs to score.
    """

    registered: str
    tags: Mapping[str, str]
    settings: TrainingSettings
    names: tuple[str, ...]
    base_rate: float
    rows: int
    sessions: int
    visitors: int
    trees: int
    rounds: int
    inverse_penalty: float
    calibrated: int
    packages: Mapping[str, str]

    @classmethod
    def of(
        cls, registered: str, model: HeadModel, past: Slice, settings: TrainingSettings, tags: Mapping[str, str]
    ) -> About:
        """What is to be told of a fitted model."""
        return cls(
            registered=registered,
            tags=tags,
            settings=model.inner.applied(settings),
            names=model.names,
            base_rate=model.base_rate,
            rows=len(past.answer),
            sessions=past.sessions,
            visitors=len(np.unique(past.visitor)),
            trees=model.booster.num_trees(),
            rounds=model.inner.rounds,
            inverse_penalty=model.inner.inverse_penalty,
            calibrated=model.calibration.slope.size,
            packages={name: version(name) for name in _PACKAGES},
        )


def model_card(about: About, found: Findings) -> str:
    """The whole card."""
    sections = (
        [f"# {about.registered}", f"**{found.question}**", _score(found)],
        ["## Use", *_use(found)],
        ["## Data", *_data(about, found)],
        ["## Model", *_model(about, found)],
        ["## Quality", *_quality(found)],
        ["## Segments", *_segments(found)],
        ["## Consent and drift", *_consent(about, found)],
        ["## Loading", *_loading(about, found)],
        ["## Versions", _table(["what", "which"], sorted({**about.tags, **about.packages}.items()))],
    )
    return "\n\n".join(paragraph for section in sections for paragraph in section) + "\n"


def _score(found: Findings) -> str:
    if found.task == "binary":
        return "The score is the probability of yes for the session as it stands, after every event and during silence."
    return "The score is the expected amount for the session as it stands, after every event and during silence."


def _use(found: Findings) -> list[str]:
    return [
        "For: acting within a running session of the shop it was trained on, experiments that are triggered by the "
        "score, and reports on groups of sessions.",
        "Not for: decisions about persons (it scores sessions, from what happened in them), prices or credit for a "
        f"person, another shop or site, groups of fewer than {LEAST_VISITORS} visitors, or moments at which the "
        "question is settled already.",
        f"Limits: it knows the past of its log. It was measured on {_whole(found)['visitors']:,} other visitors later "
        "in time; a changed shop, campaign or tracker can change what a score means (see drift).",
    ]


def _data(about: About, found: Findings) -> list[str]:
    tags, split, whole = about.tags, about.settings.split, _whole(found)
    lines = [
        ["learned from", f"before {_told(tags, 'learned_until')}", about.rows, about.sessions, about.visitors],
        ["test", "after it and one timeout", whole["rows"], whole["sessions"], whole["visitors"]],
    ]
    counted = [[*line[:2], *(f"{count:,}" for count in line[2:])] for line in lines]
    return [
        f"Source `{_told(tags, 'source')}`, events from {_told(tags, 'data_from')} to {_told(tags, 'data_to')}.",
        _table(["part", "time", "rows", "sessions", "visitors"], counted),
        f"Split by time at {split.test_from:.0%} of the log, with a gap of one session timeout "
        f"({about.settings.rows.timeout_minutes:g} min); no visitor is on both sides. Rows come at their true rate: no "
        f"weights, no resampling. Mean answer of what was learned from: {_amount(about.base_rate, found.task)}.",
        f"{len(about.names)} features, digest `{_told(tags, 'feature_digest')}` (docs/features.md).",
    ]


def _model(about: About, found: Findings) -> list[str]:
    lightgbm = about.settings.lightgbm.model_dump()
    start = (
        f": a linear model written as trees (C = {about.inverse_penalty:g}) and {about.rounds} boosted on top of it"
        if about.inverse_penalty
        else ""
    )
    calibrated = (
        "The scores are as the trees give them: too few positive sessions to calibrate."
        if about.calibrated == 1
        else "Calibrated on scores of visitors that the models which gave them had not seen: at each of "
        f"{about.calibrated} session ages (events so far, silence) a "
        f"{'sigmoid' if found.task == 'binary' else 'power'} of its own, held to the common one."
    )
    return [
        f"LightGBM, {about.trees} trees{start}, as many as {about.settings.split.inner_folds} inner folds of later "
        "data and other visitors said.",
        calibrated,
        _table(["parameter", "value"], ((f"`{name}`", str(value)) for name, value in lightgbm.items())),
    ]


def _quality(found: Findings) -> list[str]:
    ages = found.table[~found.table["age"].str.contains("=")]
    metrics = _AGE_METRICS[found.task]
    ours = [
        [age_label(line["age"]), f"{line['rows']:,}", percent(line["base_rate"]), *_cells(line, metrics)]
        for line in ages[ages["model"] == "lotse"].to_dict("records")
    ]
    beside = [metric for metric in _BESIDE[found.task] if metric in ages]
    rivals = [
        [model_label(line["model"]), *_cells(line, beside)]
        for line in ages[ages["age"] == "events"].to_dict("records")
    ]  # fmt: skip
    noise = " and, beside the expected calibration error, what chance alone would show"
    parts = [
        f"On the test, by session age, with {found.settings.confidence:.0%} intervals of resampled visitors"
        f"{noise if found.task == 'binary' else ''}.",
        _table(["session age", "rows", BASE_RATE[found.task], *map(metric_label, metrics)], ours),
        "Beside the baselines, rows right after an event:",
        _table(["model", *map(metric_label, beside)], rivals),
    ]
    return [*parts, *_early(found.early)]


def _early(early: pd.DataFrame) -> list[str]:
    halves = {by: half_lift(early, by) for by in ("events", "seconds")}
    told = [f"{half:g} {by.removesuffix('s') if half == 1 else by}" for by, half in halves.items() if np.isfinite(half)]
    if not told:
        return []
    final = number(float(early["final"].iloc[0]))
    return [
        f"The tenth of the sessions with the highest scores at their last event has a lift of {final}; half of what "
        f"that gains over chance is there after {' or '.join(told)}."
    ]


def _segments(found: Findings) -> list[str]:
    ours = found.table[(found.table["model"] == "lotse") & found.table["age"].str.contains("=")]
    if not len(ours):
        return ["No segment was large enough to be told of."]
    metrics = _AGE_METRICS[found.task]
    lines = [
        [age_label(line["age"]), f"{line['rows']:,}", percent(line["base_rate"]), *_cells(line, metrics)]
        for line in ours.to_dict("records")
    ]
    return [
        f"Rows right after an event; segments of fewer than {found.settings.segment_rows} rows or {LEAST_VISITORS} "
        "visitors are left out.",
        _table(["segment", "rows", BASE_RATE[found.task], *map(metric_label, metrics)], lines),
        *_worst(ours, found.task),
    ]


def _worst(segments: pd.DataFrame, task: str) -> list[str]:
    """The segments where the scores order rows worst, and where they promise most wrongly."""
    lines, told = segments.to_dict("records"), []
    order, off = ("auc", "ece") if task == "binary" else ("spearman", "ratio")
    ranked = [line for line in lines if np.isfinite(line[order])]
    if ranked:
        line = min(ranked, key=lambda one: one[order])
        told.append(f"ordered worst: {age_label(line['age'])} ({metric_label(order)} {with_interval(line, order)})")
    known = [line for line in lines if np.isfinite(_distance(line, task))]
    if known:
        line = max(known, key=lambda one: _distance(one, task))
        told.append(f"furthest off: {age_label(line['age'])} ({metric_label(off)} {with_interval(line, off)})")
    return [f"The worst: {'; '.join(told)}."] if told else []


def _distance(line: Mapping[Any, Any], task: str) -> float:
    """How far scores and outcomes are apart: the ECE above what chance shows, or the logarithm of the ratio."""
    if task == "binary":
        return float(line["ece"] - line["ece_noise"])
    return float(abs(np.log(line["ratio"]))) if line["ratio"] > 0 else float("nan")


def _consent(about: About, found: Findings) -> list[str]:
    needed: dict[str, int] = {}
    for name in about.names:
        consent = CATALOGUE.features[name].consent_name if name in CATALOGUE.features else ""
        if consent:
            needed[consent] = needed.get(consent, 0) + 1
    asked = [f"{count} need consent to {consent}" for consent, count in needed.items()]
    parts = []
    if asked:
        parts.append(
            f"Of the features, {' and '.join(asked)}; without it they are missing, in training and live alike."
            + _unlinked(found.part)
        )
    parts.append(
        "`histogram.json` beside the model holds how features and scores were distributed on the test; `lotse drift` "
        "holds later traffic against it."
    )
    return parts


def _unlinked(part: Slice) -> str:
    if "visits_before" not in part.names or not len(part.answer):
        return ""
    share = float(np.isnan(part.column("visits_before")).mean())
    return f" On the test, visits could not be linked for {percent(share)} of the rows."


def _loading(about: About, found: Findings) -> list[str]:
    alias = about.settings.tracking.alias
    answer = "probabilities" if found.task == "binary" else "amounts"
    return [
        "A plain MLflow pyfunc model without pickle or code of Lotse:",
        "```python\n"
        "import mlflow\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{about.registered}@{alias}")  # or a version: .../1\n'
        f"model.predict(features)  # a DataFrame with the {len(about.names)} features as float32 columns; {answer}\n"
        "```",
        "A missing value is NaN. `lotse serve` follows the alias; `booster.txt` is LightGBM's own text format.",
    ]


def _whole(found: Findings) -> dict[Any, Any]:
    """The counts of all rows of the test."""
    lines = found.table[(found.table["model"] == "lotse") & (found.table["age"] == "all")].to_dict("records")
    return lines[0]


def _cells(line: Mapping[Any, Any], metrics: Iterable[str]) -> list[str]:
    return [with_interval(line, metric) if f"{metric}_low" in line else number(line[metric]) for metric in metrics]


def _amount(value: float, task: str) -> str:
    return percent(value) if task == "binary" else number(value)


def _told(tags: Mapping[str, str], name: str) -> str:
    return tags.get(name) or "unknown"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell would end it."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows)

"""Pictures for the MLflow page: reliability, ROC, PR, score by session age, importance. One function a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from training.datasets import Slice

mpl.use("agg")

_COLOURS: Final = {"lotse": "#0b6e99", "logistic": "#d9822b", "base_rate": "#8a8f98"}
_LABELS: Final = {"lotse": "Lotse", "logistic": "logistic regression", "base_rate": "base rate"}
_STYLE: Final = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.edgecolor": "#8a8f98",
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "font.size": 10,
    "legend.frameon": False,
    "figure.dpi": 110,
}


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.6), layout="constrained")
        axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.set_axisbelow(True)
    return figure, axes


def reliability(head: str, part: Slice, score: np.ndarray, prefixes: Sequence[int], bins: int) -> Figure:
    """Observed rate against score, in bins of equal size: all rows, and by session age."""
    figure, axes = _figure(f"{head}: do the scores hold?", "mean score of the bin", "observed rate")
    groups = {"all rows": np.ones(len(score), bool)}
    groups |= {f"after event {n}": (part.prefix == n) & (part.idle_ms == 0) for n in prefixes}
    shades = mpl.colormaps["viridis"](np.linspace(0.15, 0.85, max(len(prefixes), 1)))
    top = 0.0
    for place, (label, chosen) in enumerate(groups.items()):
        if chosen.sum() < bins * 10:
            continue
        parts = np.array_split(np.flatnonzero(chosen)[np.argsort(score[chosen], kind="stable")], bins)
        mean = [score[rows].mean() for rows in parts]
        observed = [part.answer[rows].mean() for rows in parts]
        top = max(top, *mean, *observed)
        if place == 0:
            axes.plot(mean, observed, "o-", color=_COLOURS["lotse"], lw=2, label=label, zorder=3)
        else:
            axes.plot(mean, observed, "-", color=shades[place - 1], lw=1, label=label)
    top = min(1.0, top * 1.05 or 1.0)
    axes.plot([0, top], [0, top], ":", color="#444", lw=1, label="perfect")
    axes.set(xlim=(0, top), ylim=(0, top))
    axes.legend()
    return figure


def roc(head: str, part: Slice, scores: Mapping[str, np.ndarray]) -> Figure:
    """True positive rate against false positive rate, on all rows of the test."""
    figure, axes = _figure(f"{head}: ROC", "false positive rate", "true positive rate")
    if 0 < part.answer.sum() < len(part.answer):
        for name in ("lotse", "logistic"):
            score = scores[name]
            false, true, _ = roc_curve(part.answer, score)
            axes.plot(false, true, color=_COLOURS[name], label=_LABELS[name], lw=2 if name == "lotse" else 1.2)
    axes.plot([0, 1], [0, 1], ":", color=_COLOURS["base_rate"], label="chance")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(loc="lower right")
    return figure


def precision_recall(head: str, part: Slice, scores: Mapping[str, np.ndarray]) -> Figure:
    """Precision against recall, on all rows of the test."""
    figure, axes = _figure(f"{head}: precision and recall", "recall", "precision")
    if part.answer.any():
        axes.axhline(part.answer.mean(), color=_COLOURS["base_rate"], ls=":", label="base rate")
        for name in ("lotse", "logistic"):
            score = scores[name]
            precision, recall, _ = precision_recall_curve(part.answer, score)
            axes.plot(recall, precision, color=_COLOURS[name], label=_LABELS[name], lw=2 if name == "lotse" else 1.2)
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(loc="upper right")
    return figure


def score_by_age(head: str, part: Slice, score: np.ndarray, most: int = 20) -> Figure:
    """Mean score by session age, of rows that turned out yes and no: how early the two part."""
    figure, axes = _figure(f"{head}: score by session age", "events so far", "mean score")
    right_after = part.idle_ms == 0
    ages = np.arange(1, most + 1)
    for answer, label, colour in ((1, "answer yes", "#b3261e"), (0, "answer no", _COLOURS["lotse"])):
        groups = [score[right_after & (part.prefix == age) & (part.answer == answer)] for age in ages]
        enough = [len(group) >= 5 for group in groups]
        x = ages[enough]
        kept = [group for group, chosen in zip(groups, enough, strict=True) if chosen]
        if not kept:
            continue
        axes.plot(x, [group.mean() for group in kept], color=colour, lw=2, label=label)
        low, high = zip(*(np.quantile(group, [0.25, 0.75]) for group in kept), strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    if part.answer.size:
        axes.axhline(part.answer[right_after].mean(), color=_COLOURS["base_rate"], ls=":", label="base rate")
    axes.set(ylim=(0, None))
    axes.legend()
    return figure


def importance(head: str, gains: pd.Series, most: int = 20) -> Figure:
    """The features that the trees gained most from, as shares of the whole gain."""
    figure, axes = _figure(f"{head}: what the score is made of", "share of the gain", "")
    top = (gains / max(gains.sum(), 1e-12)).sort_values(ascending=False).head(most)[::-1]
    axes.barh(list(top.index), top.to_numpy(), color=_COLOURS["lotse"])
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(visible=False, axis="y")
    return figure

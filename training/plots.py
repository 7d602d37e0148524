"""Pictures for the MLflow page, one function a picture; `pictures` draws those that make sense for the head's task.

In: what `training.evaluation`, `training.curves` and `training.explain` found. Out: matplotlib figures. A picture of
nothing (one class, too few rows) is drawn empty and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.curves import half_lift
from training.document import BLUE, GREY, RED
from training.explain import Explanation, swarm
from training.findings import Findings, age_label, answer_labels, colours, metric_label, model_label

mpl.use("agg")

_STYLE: Final = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.edgecolor": GREY,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "font.size": 10,
    "figure.dpi": 110,
}


def pictures(found: Findings) -> dict[str, Figure]:
    """Every picture of a head by the name of its file."""
    head = found.head
    drawn = {
        "reliability": reliability(head, found.reliability),
        "reliability_by_age": reliability_by_age(head, found.reliability, found.settings.confidence),
        "lift": lift(head, found.ranking),
        "earliness": earliness(head, found.early),
        "score_by_age": score_by_age(head, found.by_age, found.task),
        "segments": segments(head, found.table, "auc" if found.task == "binary" else "ratio"),
        "importance": importance(head, found.explanation.importance),
        "contributions": contributions(head, found.explanation),
    }
    if found.task == "binary":
        drawn |= {"roc": roc(head, found.ranking), "precision_recall": precision_recall(head, found.ranking)}
    return drawn


def _figure(title: str, x: str, y: str, size: tuple[float, float] = (6.4, 4.6)) -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set(title=title, xlabel=x, ylabel=y)
    axes.set_axisbelow(True)
    return figure, axes


def _nothing(axes: Axes, why: str) -> None:
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY)


def reliability(head: str, curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Observed against mean score, in bins of equal size: all rows, and by events so far.

    curves: see `training.curves.reliability_curves`.
    """
    figure, axes = _figure(f"{head}: do the scores hold?", "mean score of the bin", "observed")
    shown = {age: curve for age, curve in curves.items() if age == "all" or age.startswith("prefix_")}
    shades = mpl.colormaps["viridis"](np.linspace(0.15, 0.85, max(len(shown), 1)))
    for place, (age, curve) in enumerate(shown.items()):
        main = age == "all"
        axes.plot(
            curve["score"], curve["observed"], "o-" if main else "-", color=BLUE if main else shades[place],
            lw=2 if main else 1, label=age_label(age), zorder=3 if main else 2,
        )  # fmt: skip
    _diagonal(axes, [value for curve in shown.values() for value in (*curve["score"], *curve["observed"])])
    if shown:
        axes.legend(frameon=False)
    else:
        _nothing(axes, "too few rows")
    return figure


def reliability_by_age(head: str, curves: Mapping[str, pd.DataFrame], confidence: float) -> Figure:
    """A panel for each session age, in events and in seconds: observed against score, with its band of confidence."""
    width = 4
    height = max(-(-len(curves) // width), 1)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.6 * width, 2.5 * height), layout="constrained")
        grid = figure.subplots(height, width, squeeze=False)
    for axes in grid.flat[len(curves) :]:
        axes.set_axis_off()
    for axes, (age, curve) in zip(grid.flat, curves.items(), strict=False):
        axes.fill_between(curve["score"], curve["low"], curve["high"], color=BLUE, alpha=0.2, lw=0)
        axes.plot(curve["score"], curve["observed"], "o-", color=BLUE, ms=3, lw=1.2)
        _diagonal(axes, [*curve["score"], *curve["observed"], *curve["high"]])
        axes.set_title(f"{age_label(age)} ({int(curve['rows'].sum()):,} rows)", fontsize=9)
        axes.tick_params(labelsize=8)
    if not curves:
        _nothing(grid[0, 0], "too few rows")
    title = f"{head}: observed against score, by session age ({confidence:.0%} bands)"
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def _diagonal(axes: Axes, values: Sequence[float]) -> None:
    top = max([value for value in values if np.isfinite(value)], default=1.0) * 1.05 or 1.0
    axes.plot([0, top], [0, top], ":", color="#444", lw=1, label="perfect")
    axes.set(xlim=(0, top), ylim=(0, top))


def roc(head: str, curves: Mapping[str, pd.DataFrame]) -> Figure:
    """True positive rate against false positive rate, on rows right after an event.

    curves: see `training.curves.ranking_curves`; so for the next two.
    """
    figure, axes = _figure(f"{head}: ROC, rows right after an event", "false positive rate", "true positive rate")
    _lines(axes, curves, "false_positive", "captured")
    axes.plot([0, 1], [0, 1], ":", color=GREY, label="chance")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(loc="lower right", frameon=False)
    return figure


def precision_recall(head: str, curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Precision against recall, on rows right after an event."""
    figure, axes = _figure(f"{head}: precision and recall, rows right after an event", "recall", "precision")
    _lines(axes, curves, "captured", "precision")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    if curves:
        axes.axhline(next(iter(curves.values()))["precision"].iloc[-1], color=GREY, ls=":", label="chance")
        axes.legend(loc="upper right", frameon=False)
    return figure


def lift(head: str, curves: Mapping[str, pd.DataFrame]) -> Figure:
    """How much of all yes, or of the whole amount, the rows with the highest scores hold (gain curve)."""
    title = f"{head}: what acting on the highest scores reaches"
    figure, axes = _figure(title, "share of rows right after an event", "share of the outcome")
    _lines(axes, curves, "share", "captured")
    axes.plot([0, 1], [0, 1], ":", color=GREY, label="chance")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(loc="lower right", frameon=False)
    return figure


def _lines(axes: Axes, curves: Mapping[str, pd.DataFrame], x: str, y: str) -> None:
    """A line for each model, from the origin where nothing is captured without acting."""
    if not curves:
        _nothing(axes, "all answers are the same")
    of = colours(curves)
    for model, curve in curves.items():
        start = [] if y == "precision" else [0.0]
        width = 2.0 if model == "lotse" else 1.2
        axes.plot([*start, *curve[x]], [*start, *curve[y]], color=of[model], label=model_label(model), lw=width)


def earliness(head: str, table: pd.DataFrame) -> Figure:
    """The lift of the top tenth of sessions against what was seen of them, in events and in seconds."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 4.0), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
    figure.suptitle(f"{head}: how early the score tells", x=0.01, ha="left", weight="bold")
    for axes, by in zip(panels, ("events", "seconds"), strict=True):
        line = table[table["by"] == by]
        axes.set_xlabel(f"{by} seen")
        axes.set_axisbelow(True)
        if not len(line):
            _nothing(axes, "the answer changes within sessions,\nor no session has one")
            continue
        axes.fill_between(line["at"], line["lift_low"], line["lift_high"], color=BLUE, alpha=0.2, lw=0)
        axes.plot(line["at"], line["lift"], "o-", ms=3, color=BLUE)
        axes.axhline(line["final"].iloc[0], color=GREY, ls="--", lw=1, label="at the last event")
        axes.axhline(1.0, color="#444", ls=":", lw=1, label="chance")
        half = half_lift(table, by)
        if np.isfinite(half):
            axes.axvline(half, color=RED, lw=1, label=f"half of the gain: {half:g}")
        axes.set_ylim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower right", fontsize=8, frameon=False)
    panels[0].set_ylabel("lift of the top 10 % of sessions")
    return figure


def score_by_age(head: str, table: pd.DataFrame, task: str = "binary") -> Figure:
    """Mean score by session age, of rows with and without a positive answer, with the middle half of each.

    table: see `training.curves.scores_by_age`.
    """
    figure, axes = _figure(f"{head}: score by session age", "events so far", "mean score")
    for answer, name, colour in zip((1, 0), answer_labels(task), (RED, BLUE), strict=True):
        line = table[table["answer"] == answer]
        if len(line):
            axes.plot(line["events"], line["mean"], color=colour, lw=2, label=name)
            axes.fill_between(line["events"], line["low"], line["high"], color=colour, alpha=0.15, lw=0)
    axes.set(ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(table):
        axes.legend(frameon=False)
    else:
        _nothing(axes, "too few rows")
    return figure


def segments(head: str, table: pd.DataFrame, metric: str) -> Figure:
    """A metric of the model by segment, with intervals, beside that of all rows right after an event."""
    lines = table[(table["model"] == "lotse") & (table["age"].str.contains("=") | (table["age"] == "events"))][::-1]
    figure, axes = _figure(
        f"{head}: {metric_label(metric)} by segment", metric_label(metric), "", (6.4, 1.4 + 0.3 * len(lines))
    )
    places = np.arange(len(lines))
    whiskers = [lines[metric] - lines[f"{metric}_low"], lines[f"{metric}_high"] - lines[metric]]
    axes.errorbar(lines[metric], places, xerr=np.maximum(whiskers, 0), fmt="o", color=BLUE, ecolor=GREY, lw=1.2, ms=5)
    overall = lines.loc[lines["age"] == "events", metric]
    if len(overall) and np.isfinite(overall.iloc[0]):
        axes.axvline(overall.iloc[0], color=GREY, ls=":", lw=1)
    names = [f"{age_label(age)} ({rows:,})" for age, rows in zip(lines["age"], lines["rows"], strict=True)]
    axes.set_yticks(places, names, fontsize=8)
    axes.grid(visible=False, axis="y")
    return figure


def importance(head: str, gains: pd.Series, most: int = 20) -> Figure:
    """The features that matter most, as shares of all; gains: mean absolute contribution of each."""
    figure, axes = _figure(f"{head}: what the score is made of", "share of all contributions to the raw score", "")
    top = (gains / max(gains.sum(), 1e-12)).sort_values(ascending=False, kind="stable").head(most)[::-1]
    axes.barh(list(top.index), top.to_numpy(), color=BLUE)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(visible=False, axis="y")
    return figure


def contributions(head: str, explanation: Explanation, most: int = 15) -> Figure:
    """What each feature adds to the raw score, row by row (beeswarm), coloured by its value."""
    figure, axes = _figure(f"{head}: what raises and lowers the score", "contribution to the raw score", "", (7.2, 5.6))
    top = [str(name) for name, mean in explanation.importance.head(most).items() if mean > 0][::-1]
    for place, name in enumerate(top):
        added, height, shade = swarm(explanation, name)
        known = np.isfinite(shade)
        axes.scatter(added[~known], place + height[~known], s=4, color="#c4c7cc", lw=0)
        drawn = axes.scatter(
            added[known], place + height[known], c=shade[known], s=4, cmap="coolwarm", vmin=0, vmax=1, lw=0
        )
    axes.set_yticks(range(len(top)), top, fontsize=8)
    axes.axvline(0, color=GREY, lw=1)
    axes.grid(visible=False, axis="y")
    if top:
        bar = figure.colorbar(drawn, ax=axes, ticks=[0, 1], aspect=40, shrink=0.6)
        bar.ax.set_yticklabels(["low", "high"])
        bar.set_label("value of the feature (grey: unknown)")
        bar.outline.set_visible(False)
    else:
        _nothing(axes, "no feature adds anything")
    return figure

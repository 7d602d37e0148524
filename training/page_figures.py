"""The interactive figures of a head's page, one function a figure or a pair of them.

In: `Findings`. Out: plotly figures; none where there is nothing to draw. Numbers come from `training.curves` and
`training.evaluation`, as those of the pictures do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from training.document import BLUE, GREY, RED
from training.explain import swarm
from training.findings import Findings, age_label, answer_labels, colours, metric_label, model_label

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# The first is shown when the page opens.
_SEGMENT_METRICS: Final = {
    "binary": ("auc", "pr_auc_ratio", "log_loss", "ece", "lift_10"),
    "value": ("ratio", "spearman", "d2", "mae", "lift_10"),
}
_MOST_FEATURES: Final = 15
# Points of each feature's swarm: a browser draws so many of all features without a pause.
_SWARM_POINTS: Final = 300
# Of a lift curve, the first share of the rows that is drawn: of fewer it is noise.
_LEAST_SHARE: Final = 0.01
_BLUE_BAND, _RED_BAND, _UNKNOWN = "rgba(11, 110, 153, 0.18)", "rgba(179, 38, 30, 0.12)", "#c4c7cc"
_DOTTED: Final = {"color": GREY, "dash": "dot", "width": 1}
_DASHED: Final = {"color": GREY, "dash": "dash", "width": 1}


def reliability(found: Findings) -> list[Figure]:
    """Observed against score with its band, one session age at a time, chosen from a list."""
    curves = found.reliability
    if not curves:
        return []
    figure = _figure("mean score of the bin", "observed")
    first = "events" if "events" in curves else next(iter(curves))
    layouts = []
    for age, curve in curves.items():
        visible = age == first
        _band(figure, curve["score"], curve["low"], curve["high"], _BLUE_BAND, visible=visible)
        figure.add_scatter(
            x=_short(curve["score"]), y=_short(curve["observed"]), mode="lines+markers", line_color=BLUE,
            visible=visible, showlegend=False, customdata=curve["rows"],
            hovertemplate="score %{x:.4f}<br>observed %{y:.4f}<br>%{customdata:,} rows<extra></extra>",
        )  # fmt: skip
        top = 1.05 * float(np.nanmax([curve["score"].max(), curve["observed"].max(), curve["high"].max(), 1e-9]))
        figure.add_scatter(
            x=[0, top], y=[0, top], mode="lines", line=_DOTTED, visible=visible, hoverinfo="skip", showlegend=False
        )
        layouts.append({"xaxis.range": [0, top], "yaxis.range": [0, top]})
    _choice(figure, [age_label(age) for age in curves], 3, list(curves).index(first), layouts)
    return [figure]


def calibration_by_age(found: Findings) -> list[Figure]:
    """The calibration error at each session age with its interval, beside what chance alone would show; of amounts the
    ratio of predicted to observed."""
    metric = "ece" if found.task == "binary" else "ratio"
    ours = found.table[(found.table["model"] == "lotse") & ~found.table["age"].str.contains("=")][::-1]
    names = [age_label(age) for age in ours["age"]]
    figure = _figure(metric_label(metric), "")
    figure.add_scatter(
        x=_short(ours[metric]), y=names, mode="markers", name=metric_label(metric), error_x=_whiskers(ours, metric),
        marker={"color": BLUE, "size": 8},
    )  # fmt: skip
    if found.task == "binary":
        figure.add_scatter(
            x=_short(ours["ece_noise"]), y=names, mode="markers", name=metric_label("ece_noise"),
            marker={"color": "#444", "size": 11, "symbol": "line-ns-open"},
        )  # fmt: skip
        figure.update_xaxes(rangemode="tozero")
    else:
        figure.add_vline(x=1, line=_DOTTED)
    return [figure]


def ranking(found: Findings) -> list[Figure]:
    """ROC, and precision against recall, of every model."""
    roc, precision = _figure("false positive rate", "true positive rate"), _figure("recall", "precision")
    for model, style, points in _ranked(found):
        roc.add_scatter(
            x=_short([0.0, *points["false_positive"]]), y=_short([0.0, *points["captured"]]), **style
        )  # fmt: skip
        precision.add_scatter(x=_short(points["captured"]), y=_short(points["precision"]), **style)
        if model == "lotse":
            precision.add_hline(y=float(points["precision"].iloc[-1]), line=_DOTTED)
    roc.add_scatter(x=[0, 1], y=[0, 1], name="chance", mode="lines", line=_DOTTED)
    roc.update_layout(title="ROC")
    precision.update_layout(title="Precision and recall")
    return [roc, precision]


def lift(found: Findings) -> list[Figure]:
    """What the rows with the highest scores hold of the outcome, and how many times that is chance."""
    gain, times = (_figure("share of rows, highest scores first", name) for name in ("share of the outcome", "lift"))
    for _, style, points in _ranked(found):
        gain.add_scatter(x=_short([0.0, *points["share"]]), y=_short([0.0, *points["captured"]]), **style)
        beyond = points[points["share"] >= _LEAST_SHARE]
        times.add_scatter(x=_short(beyond["share"]), y=_short(beyond["lift"]), **style)
    gain.add_scatter(x=[0, 1], y=[0, 1], name="chance", mode="lines", line=_DOTTED)
    times.add_scatter(x=[0, 1], y=[1, 1], name="chance", mode="lines", line=_DOTTED)
    gain.update_layout(title="Reached by acting on the highest scores")
    times.update_layout(title="Lift over acting at random")
    gain.update_xaxes(tickformat=".0%")
    gain.update_yaxes(tickformat=".0%")
    times.update_xaxes(tickformat=".0%")
    times.update_yaxes(rangemode="tozero")
    return [gain, times]


def earliness(found: Findings) -> list[Figure]:
    """The lift of the top tenth of sessions against events and seconds seen."""
    drawn = []
    for by in ("events", "seconds"):
        line = found.early[found.early["by"] == by]
        if not len(line):
            continue
        figure = _figure(f"{by} seen", "lift of the top 10 % of sessions")
        _band(figure, line["at"], line["lift_low"], line["lift_high"], _BLUE_BAND)
        figure.add_scatter(x=line["at"], y=_short(line["lift"]), mode="lines+markers", line_color=BLUE, name="lift")
        ends, final = [line["at"].min(), line["at"].max()], float(line["final"].iloc[0])
        figure.add_scatter(x=ends, y=[final, final], mode="lines", name="at the last event", line=_DASHED)
        figure.add_scatter(x=ends, y=[1, 1], mode="lines", name="chance", line=_DOTTED)
        figure.update_yaxes(rangemode="tozero")
        drawn.append(figure)
    return drawn


def score_by_age(found: Findings) -> list[Figure]:
    """Mean score right after each event, of rows with and without a positive answer."""
    figure = _figure("events so far", "mean score")
    looks = ((1, RED, _RED_BAND), (0, BLUE, _BLUE_BAND))
    for name, (answer, colour, fill) in zip(answer_labels(found.task), looks, strict=True):
        line = found.by_age[found.by_age["answer"] == answer]
        _band(figure, line["events"], line["low"], line["high"], fill)
        figure.add_scatter(
            x=line["events"], y=_short(line["mean"]), mode="lines+markers", line_color=colour, name=name,
            customdata=line["rows"], hovertemplate="%{y:.4f} (%{customdata:,} rows)",
        )  # fmt: skip
    figure.update_yaxes(rangemode="tozero")
    return [figure]


def segments(found: Findings) -> list[Figure]:
    """A metric by segment with its interval, chosen from a list; the dashed line is all rows right after an event."""
    ours = found.table[found.table["model"] == "lotse"]
    lines = ours[ours["age"].str.contains("=")][::-1]
    if not len(lines):
        return []
    overall = ours[ours["age"] == "events"].iloc[0]
    names = [f"{age_label(age)} ({rows:,})" for age, rows in zip(lines["age"], lines["rows"], strict=True)]
    metrics = [metric for metric in _SEGMENT_METRICS[found.task] if metric in lines]
    figure = _figure(metric_label(metrics[0]), "")
    for place, metric in enumerate(metrics):
        figure.add_scatter(
            x=_short(lines[metric]), y=names, mode="markers", visible=place == 0, showlegend=False,
            error_x=_whiskers(lines, metric), marker={"color": BLUE, "size": 9},
            hovertemplate="%{y}: %{x}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=[overall[metric]] * 2, y=[names[0], names[-1]], mode="lines", visible=place == 0, line=_DASHED,
            showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    titles = [{"xaxis.title.text": metric_label(metric)} for metric in metrics]
    _choice(figure, [metric_label(metric) for metric in metrics], 2, 0, titles)
    figure.update_layout(height=210 + 26 * len(lines))
    return [figure]


def contributions(found: Findings) -> list[Figure]:
    """How far each feature moves the raw score: on average, and row by row, coloured by the feature's value."""
    importance = found.explanation.importance
    top = importance[importance > 0].head(_MOST_FEATURES)[::-1]
    names = list(map(str, top.index))
    if not names:
        return []
    bars, swarms = _figure("mean absolute contribution", ""), _figure("contribution to the raw score", "")
    bars.add_bar(x=_short(top), y=names, orientation="h", marker_color=BLUE, showlegend=False)
    for place, name in enumerate(names):
        added, offset, rank = swarm(found.explanation, name, _SWARM_POINTS)
        swarms.add_scatter(
            x=_short(added), y=_short(place + offset), mode="markers", showlegend=False, hoverinfo="x", name=name,
            marker={"size": 4, "color": [_shade(one) for one in rank]},
        )  # fmt: skip
    swarms.update_yaxes(tickvals=list(range(len(names))), ticktext=names, showgrid=False, zeroline=False)
    swarms.add_vline(x=0, line={"color": GREY, "width": 1})
    for figure in (bars, swarms):
        figure.update_layout(height=180 + 24 * len(names))
    return [bars, swarms]


def _ranked(found: Findings) -> Iterable[tuple[str, dict[str, Any], pd.DataFrame]]:
    """Model, how its line looks, and its ranking curve."""
    of = colours(found.ranking)
    for model, points in found.ranking.items():
        line = {"color": of[model], "width": 2.5 if model == "lotse" else 1.5}
        yield model, {"name": model_label(model), "line": line, "mode": "lines"}, points


def _figure(x: str, y: str) -> Figure:
    from plotly.graph_objects import Figure  # noqa: PLC0415  (seconds of imports that only the page needs)

    return Figure(layout={"xaxis_title": x, "yaxis_title": y, "height": 400, "hovermode": "closest"})


def _band(
    figure: Figure, x: pd.Series, low: pd.Series, high: pd.Series, colour: str, *, visible: bool = True
) -> None:  # fmt: skip
    """The area between low and high, where both are defined."""
    known = (low.notna() & high.notna()).to_numpy()
    at, below, above = (line.to_numpy(np.float64)[known] for line in (x, low, high))
    figure.add_scatter(
        x=_short([*at, *at[::-1]]), y=_short([*above, *below[::-1]]), fill="toself", fillcolor=colour,
        line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False, visible=visible,
    )  # fmt: skip


def _whiskers(lines: pd.DataFrame, metric: str) -> dict[str, Any]:
    """The intervals of a metric, as plotly's error bars."""
    above, below = lines[f"{metric}_high"] - lines[metric], lines[metric] - lines[f"{metric}_low"]
    ends = {"array": _short(np.maximum(above, 0)), "arrayminus": _short(np.maximum(below, 0))}
    return {"type": "data", "symmetric": False, **ends, "color": GREY, "thickness": 1.5, "width": 3}


def _choice(figure: Figure, names: Sequence[str], traces: int, active: int, layouts: Sequence[dict[str, Any]]) -> None:
    """A list above the figure that shows one group of so many traces at a time, with its layout."""
    buttons = []
    for place, (name, layout) in enumerate(zip(names, layouts, strict=True)):
        shown = [place == other for other in range(len(names)) for _ in range(traces)]
        buttons.append({"label": name, "method": "update", "args": [{"visible": shown}, layout]})
    menu = {
        "buttons": buttons, "active": active, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom",
        "bgcolor": "#fff", "bordercolor": "#d0d7de",
    }  # fmt: skip
    figure.update_layout(updatemenus=[menu], **{key.replace(".", "_"): one for key, one in layouts[active].items()})


def _shade(rank: float) -> str:
    """From blue over grey to red for ranks in [0, 1]; a light grey for NaN."""
    if np.isnan(rank):
        return _UNKNOWN
    low, middle, high = (11, 110, 153), (205, 205, 205), (179, 38, 30)
    start, end, share = (low, middle, 2 * rank) if rank < 0.5 else (middle, high, 2 * rank - 1)
    return "rgb({},{},{})".format(*(round(a + (b - a) * share) for a, b in zip(start, end, strict=True)))


def _short(values: Any) -> list[float | None]:
    """Five digits that count: what a screen shows, and a fraction of the page's size; None for what is undefined."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in np.asarray(values, np.float64)]

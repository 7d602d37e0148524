"""The page of `lotse drift`: for each head what drifted, the worst features, the scores and what became of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from features.definitions import CATALOGUE
from features.events import CHANNELS, DEVICES, EVENT_NAMES, PAGE_KINDS
from training.document import (
    BLUE,
    GREY,
    ORANGE,
    document,
    figures,
    folded,
    heading,
    sentence,
    table,
    tiles,
)
from training.drift import Change
from training.histogram import Distribution, Histogram
from training.provenance import iso
from training.realised import INTERVAL, Group, Realised
from training.watch import Watched

# Features shown as pictures: the worst.
_SHOWN: Final = 6
_BEFORE, _LATER = "the model's test", "the window"
_CODES: Final = {
    "channel code": CHANNELS,
    "device code": DEVICES,
    "event code": EVENT_NAMES,
    "page kind code": PAGE_KINDS,
}


def page(watched: Iterable[Watched]) -> str:
    """The whole page, for all heads."""
    watched = list(watched)
    drifted = [one.head.name for one in watched if one.drift.drifted]
    verdict = f"drift: {', '.join(drifted)}" if drifted else "no drift"
    top = [
        heading("Drift", 1, verdict=verdict, good=not drifted),
        sentence(
            "Live rows held to the rows a model was tested on: do features and scores still look alike, and does "
            "what the scores promise still happen? Every bound is above what chance alone gives, counted over visitors."
        ),
    ]
    return document("Lotse: drift", [*top, *(part for one in watched for part in _section(one))])


def _section(one: Watched) -> list[str]:
    drift, histogram = one.drift, one.histogram
    drifted = drift.drifted
    counting = [change for change in drift.features if change.counts and change.drifted]
    parts = [
        heading(
            f"{one.head.name}, version {one.version}", verdict="drift" if drifted else "no drift", good=not drifted
        ),
        sentence(one.head.question),
        sentence(
            f"The window: {drift.rows:,} rows of {drift.sessions:,} sessions and {drift.visitors:,} visitors, "
            f"{_day(drift.first)} to {_day(drift.last)}. The model's test: {histogram.rows:,} rows of "
            f"{histogram.sessions:,} sessions and {histogram.visitors:,} visitors, {_day(histogram.first)} to "
            f"{_day(histogram.last)}."
        ),
        tiles(_numbers(one, counting)),
        heading("Scores and what became of them", 3),
        sentence(
            "How often the model gives which score; then what happened to rows of similar score, and to sessions of "
            "each age. On the diagonal, and dot in ring, scores are what happens. Lines are 95 % intervals."
        ),
        figures([_spread("scores", drift.score, ""), *_calibration(histogram, drift.realised)]),
        heading("Features that changed most", 3),
        sentence(
            "Shares of the rows by value, missing values last. PSI and KS beside the bound from which on they count."
        ),
        figures(_spread(change.name, change, _unit(change.name)) for change in drift.features[:_SHOWN]),
        folded(f"All {len(drift.features)} features", _all_features(drift.features)),
    ]
    if drift.realised is None:
        parts.insert(4, sentence("What became of the sessions is known of too few of them to judge the scores yet."))
    return parts


def _numbers(one: Watched, counting: list[Change]) -> list[tuple[str, str]]:
    drift, realised = one.drift, one.drift.realised
    numbers = [
        (f"{len(counting)} of {len(drift.features)}", "features drifted"),
        (f"{drift.score.psi:.3f}", f"PSI of the scores; drift from {drift.score.psi_alarm:.2f}"),
    ]
    if realised:
        number = "{:.2%}" if one.histogram.task == "binary" else "{:.3g}"
        before, now = (number.format(mean) for mean in (one.histogram.mean_answer, realised.mean_answer))
        interval = number.format(INTERVAL * realised.change_error)
        numbers += [
            (f"{before} → {now}", f"what happens; changed by {number.format(realised.change)} ± {interval}"),
            (
                f"{realised.ratio:.2f} ± {INTERVAL * realised.ratio_error:.2f}",
                f"happened over promised; in the test {_ratio(one.histogram):.2f}, "
                f"drift from 1 ± {realised.ratio_alarm:.2f}",
            ),
            (
                f"{realised.calibration:.4f}",
                f"calibration error; by chance {realised.calibration_noise:.4f}"
                + (f", drift from {realised.calibration_alarm:.3f}" if np.isfinite(realised.calibration_alarm) else ""),
            ),
        ]
    return numbers


def _ratio(histogram: Histogram) -> float:
    return histogram.mean_answer / max(histogram.mean_score, 1e-12)


def _spread(title: str, change: Change, unit: str) -> Any:
    """Both distributions, bar by bar."""
    import plotly.graph_objects as go  # noqa: PLC0415  (only pages need plotly)

    names = _bin_names(change.before, _CODES.get(unit, ()))
    before, later = np.array(change.before.shares), np.array(change.later.shares)
    filled = np.flatnonzero(before + later > 0)
    labels = [names[place] for place in filled]
    figure = go.Figure(
        [
            go.Bar(name=_BEFORE, x=labels, y=before[filled], marker_color=GREY),
            go.Bar(name=_LATER, x=labels, y=later[filled], marker_color=ORANGE if change.drifted else BLUE),
        ]
    )
    told = f"PSI {change.psi:.3f} of {change.psi_alarm:.2f}"
    if not np.isnan(change.ks):
        told += f", KS {change.ks:.3f} of {change.ks_alarm:.2f}"
    aside = "" if change.counts else ", not counted"
    figure.update_layout(
        title=f"{title}{f' ({unit})' if unit else ''}<br><sup>{told}{aside}</sup>",
        barmode="group",
        bargap=0.25,
        height=310,
    )
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    figure.update_xaxes(type="category", tickangle=-40)
    return figure


def _bin_names(found: Distribution, codes: tuple[str, ...]) -> list[str]:
    ends = found.edges
    if codes:
        known = [codes[round(end)] if round(end) < len(codes) else str(round(end)) for end in ends[1:]]
        return ["below", *known, "other", "missing"]
    names = [f"≤ {_short(end)}" for end in ends[1:]]
    # the first end is just below the smallest value
    first, last = (f"< {_short(ends[1])}", f"> {_short(ends[-1])}") if len(ends) > 1 else ("", "any")
    return [*([first] if ends else []), *names, last, "missing"]


def _calibration(histogram: Histogram, realised: Realised | None) -> list[Any]:
    import plotly.graph_objects as go  # noqa: PLC0415

    if realised is None:
        return []
    of_test = [one for one in histogram.score_bins if one.rows]
    by_score = go.Figure(
        [
            go.Scatter(
                name=_BEFORE,
                x=[one.mean_score for one in of_test],
                y=[one.mean_answer for one in of_test],
                mode="lines+markers",
                line={"color": GREY, "width": 1},
                marker={"size": 5},
            ),
            _happened(_LATER, [one.mean_score for one in realised.by_score], realised.by_score),
        ]
    )
    top = max(*(one.mean_score for one in of_test), *(one.mean_answer for one in realised.by_score), 1e-9) * 1.05
    by_score.add_shape(type="line", x0=0, y0=0, x1=top, y1=top, line={"color": "#444", "width": 1, "dash": "dot"})
    by_score.update_layout(title="What happened, by score", xaxis_title="mean score", height=310)
    ages = [one.name for one in realised.by_age]
    by_age = go.Figure(
        [
            go.Scatter(
                name="promised",
                x=ages,
                y=[one.mean_score for one in realised.by_age],
                mode="markers",
                marker={"symbol": "circle-open", "size": 13, "color": GREY, "line": {"width": 2}},
            ),
            _happened("happened", ages, realised.by_age, lines=False),
        ]
    )
    by_age.update_layout(title="What happened, by session age", height=310)
    for figure in (by_score, by_age):
        figure.update_yaxes(rangemode="tozero", tickformat=".0%" if histogram.task == "binary" else "")
    return [by_score, by_age]


def _happened(name: str, x: list[Any], groups: tuple[Group, ...], *, lines: bool = True) -> Any:
    import plotly.graph_objects as go  # noqa: PLC0415

    return go.Scatter(
        name=name,
        x=x,
        y=[one.mean_answer for one in groups],
        error_y={"type": "data", "array": [INTERVAL * one.error for one in groups], "width": 0, "thickness": 1.2},
        mode="lines+markers" if lines else "markers",
        line={"color": BLUE, "width": 1.5},
        marker={"size": 6, "color": BLUE},
        text=[f"{one.rows:,} rows" for one in groups],
    )


def _all_features(changes: tuple[Change, ...]) -> str:
    lines = [
        (
            one.name,
            f"{one.psi:.3f}",
            f"{one.psi_noise:.4f}",
            f"{one.psi_alarm:.2f}",
            "" if np.isnan(one.ks) else f"{one.ks:.3f}",
            "" if np.isnan(one.ks) else f"{one.ks_alarm:.2f}",
            f"{one.before.missing:.1%}",
            f"{one.later.missing:.1%}",
            ("drift" if one.counts else "not counted") if one.drifted else "",
        )
        for one in changes
    ]
    head = ("feature", "PSI", "by chance", "drift from", "KS", "drift from", "missing before", "now", "verdict")
    return table(head, lines, [one.drifted and one.counts for one in changes])


def _unit(name: str) -> str:
    return CATALOGUE.features[name].unit if name in CATALOGUE.features else ""


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _day(time_ms: int) -> str:
    return iso(time_ms)[:16].replace("T", " ")

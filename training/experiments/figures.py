"""The figures of a report: lifts with their intervals, the same over time, by risk, and what to believe.

In: an `Analysis`. Out: plotly figures; none where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from scipy.stats import norm

from training.document import BLUE, GREEN, GREY, RED
from training.experiments.analysis import Analysis, Differing, Look
from training.experiments.verdicts import Judged

_COLOURS: Final = {"better": GREEN, "worse": RED, "open": BLUE, "invalid": GREY}


def lifts(found: Analysis) -> Iterator[Any]:
    """Every goal and arm: the lift, its always-valid interval, and that of a single look, thicker."""
    import plotly.graph_objects as go  # noqa: PLC0415  (only pages need plotly)

    lines = [
        (f"{goal}: {arm}", one)
        for goal, of in found.judged.items()
        for arm, one in of.items()
        if one and np.isfinite([one.low, one.high]).all()
    ]
    if not lines:
        return
    figure = go.Figure()
    for name, one in lines:
        colour = _COLOURS[one.verdict]
        for low, high, width in ((one.low, one.high, 2), (one.fixed_low, one.fixed_high, 7)):
            figure.add_trace(
                go.Scatter(x=[low, high], y=[name, name], mode="lines", line={"color": colour, "width": width},
                           opacity=1 if width == 2 else 0.35, hoverinfo="skip")
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(x=[one.effect.lift], y=[name], mode="markers", marker={"color": colour, "size": 9},
                       hovertemplate=f"{one.effect.lift:+.1%} [{one.low:+.1%}, {one.high:+.1%}]<extra></extra>")
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.update_layout(title="Lift over the control", showlegend=False, height=150 + 36 * len(lines))
    ends = [end for _, one in lines for end in (one.low, one.high, 0.0)]
    margin = 0.04 * (max(ends) - min(ends))
    figure.update_xaxes(tickformat="+.0%", range=[min(ends) - margin, max(ends) + margin])
    figure.update_yaxes(autorange="reversed", automargin=True)
    yield figure


def over_time(found: Analysis) -> Iterator[Any]:
    """The lift of each arm and primary goal as units came."""
    import plotly.graph_objects as go  # noqa: PLC0415

    for goal, of in found.looks.items():
        for arm, looks in of.items():
            drawn = [look for look in looks if np.isfinite([look.low, look.high]).all()]
            if len(drawn) < 2:
                continue
            moments = [datetime.fromtimestamp(look.until / 1000, UTC) for look in drawn]
            figure = go.Figure(
                [
                    go.Scatter(x=moments, y=[look.high for look in drawn], mode="lines", line={"width": 0},
                               showlegend=False, hoverinfo="skip"),
                    go.Scatter(x=moments, y=[look.low for look in drawn], mode="lines", line={"width": 0},
                    fill="tonexty",
                               fillcolor="rgba(11, 110, 153, 0.15)", name="always-valid interval", hoverinfo="skip"),
                    go.Scatter(x=moments, y=[look.lift for look in drawn], mode="lines+markers", name="lift",
                               line={"color": BLUE, "width": 2}, text=[_told(look) for look in drawn],
                               hovertemplate="%{text}<extra></extra>"),
                ]
            )  # fmt: skip
            figure.add_hline(y=0, line={"color": GREY, "width": 1})
            figure.update_layout(title=f"{goal}: {arm}", height=330)
            bound = max(abs(drawn[-1].low), abs(drawn[-1].high), 0.02) * 4
            figure.update_yaxes(tickformat="+.0%", range=[-bound, bound])
            yield figure


def by_risk(one: Differing) -> Iterator[Any]:
    """The lift in each group of one score."""
    import plotly.graph_objects as go  # noqa: PLC0415

    groups = [(g, g.judged) for g in one.groups if g.judged and np.isfinite([g.judged.low, g.judged.high]).all()]
    if len(groups) < 2:
        return
    lift = np.array([judged.effect.lift for _, judged in groups])
    figure = go.Figure(
        go.Scatter(
            x=[f"{group.least:.2f} to {group.most:.2f}" for group, _ in groups],
            y=lift,
            mode="markers",
            marker={"size": 9, "color": [_COLOURS[judged.verdict] for _, judged in groups]},
            error_y={
                "type": "data", "symmetric": False, "thickness": 1.5, "width": 0, "color": GREY,
                "array": [judged.high for _, judged in groups] - lift,
                "arrayminus": lift - [judged.low for _, judged in groups],
            },
        )
    )  # fmt: skip
    figure.add_hline(y=0, line={"color": GREY, "width": 1})
    p = f"effects differ: p = {one.p:.3f}" if np.isfinite(one.p) else ""
    figure.update_layout(title=f"{one.goal}: {one.arm}, by {one.score} score<br><sup>{p}</sup>", height=330)
    figure.update_yaxes(tickformat="+.0%")
    figure.update_xaxes(type="category", tickangle=-40)
    yield figure


def belief(goal: str, of: dict[str, Judged | None], alpha: float) -> Iterator[Any]:
    """What to believe of the lift of each arm of a goal."""
    import plotly.graph_objects as go  # noqa: PLC0415

    held = [(arm, one.belief) for arm, one in of.items() if one and one.belief]
    if not held:
        return
    low, high = min(one.low for _, one in held), max(one.high for _, one in held)
    x = np.linspace(max(low - (high - low) / 2, -0.99), high + (high - low) / 2, 201)
    figure = go.Figure()
    for arm, one in held:
        middle, sd = np.log1p(one.lift), np.log1p(one.high) - np.log1p(one.low)
        sd /= 2 * norm.isf(alpha / 2)
        name = f"{arm}: better with {min(one.better, 0.999):.1%}"
        figure.add_trace(
            go.Scatter(x=x, y=norm.pdf(np.log1p(x), middle, sd) / (1 + x), mode="lines", fill="tozeroy", name=name)
        )
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.update_layout(title=goal, height=300, showlegend=True)
    figure.update_xaxes(tickformat="+.0%")
    figure.update_yaxes(visible=False)
    yield figure


def _told(look: Look) -> str:
    return f"{look.units:,} units: {look.lift:+.1%} [{look.low:+.1%}, {look.high:+.1%}]"

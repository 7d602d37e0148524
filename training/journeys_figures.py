"""The figures of the page of journeys: paths with a slider, funnels, what differs between who left and who stayed.

In: parts of `features.journeys.report.journeys`. Out: plotly figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from training.document import BLUE, GREEN, GREY, ORANGE, RED

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Sankey

_COLOURS: Final = {
    "content": "#7a9cc6",
    "list": "#5b8fb0",
    "item": BLUE,
    "search": "#8168a8",
    "cart": ORANGE,
    "cart add": ORANGE,
    "cart remove": "#c98b5a",
    "checkout": "#c0a53a",
    "shipping": "#c0a53a",
    "payment": "#c0a53a",
    "purchase": GREEN,
    "lead": GREEN,
    "end": RED,
}
_RARE_MOVES: Final = "rare moves"
_LEAST_DEPTH: Final = 1


def paths(part: Mapping[str, Any], *, backwards: bool = False) -> Figure:
    """Steps as bars, moves as bands, place by place; the slider says how many moves are shown."""
    import plotly.graph_objects as go  # noqa: PLC0415  (only pages need plotly)

    depth = max((move["place"] for move in part["moves"]), default=0)
    shown = min(4, depth)
    figure = go.Figure([_sankey(part, places, backwards) for places in range(_LEAST_DEPTH, depth + 1)])
    for number, trace in enumerate(figure.data, start=1):
        trace.visible = number == shown
    steps = [
        {"label": str(number), "method": "update", "args": [{"visible": [n == number for n in range(1, depth + 1)]}]}
        for number in range(1, depth + 1)
    ]
    figure.update_layout(
        height=520,
        sliders=[{"active": shown - 1, "currentvalue": {"prefix": "moves: "}, "steps": steps, "pad": {"t": 36}}],
    )
    return figure


def _sankey(part: Mapping[str, Any], places: int, backwards: bool) -> Sankey:
    import plotly.graph_objects as go  # noqa: PLC0415

    number: dict[tuple[int, str], int] = {}
    labels: list[str] = []
    colours: list[str] = []
    x: list[float] = []
    column: list[int] = []

    def node(place: int, step: str) -> int:
        if (place, step) not in number:
            number[place, step] = len(labels)
            labels.append(("begin" if backwards else "end") if step == "end" else step)
            colours.append(GREY if backwards and step == "end" else _COLOURS.get(step, GREY))
            along = (place - 1) / places
            x.append(min(max(1 - along if backwards else along, 0.001), 0.999))
            column.append(place)
        return number[place, step]

    links: dict[str, list[Any]] = {"source": [], "target": [], "value": [], "color": []}
    for move in part["moves"]:
        if move["place"] <= places:
            near, far = ("to", "from") if backwards else ("from", "to")
            here, there = node(move["place"], move[near]), node(move["place"] + 1, move[far] or _RARE_MOVES)
            links["source"].append(there if backwards else here)
            links["target"].append(here if backwards else there)
            links["value"].append(move["sessions"])
            links["color"].append(_pale(colours[there if not backwards else here]))
    y = _heights(column, links)
    return go.Sankey(
        arrangement="snap",
        node={"label": labels, "color": colours, "x": x, "y": y, "pad": 14, "thickness": 14},
        link=links,
        valueformat=",.0f",
        valuesuffix=" sessions",
    )


def _heights(column: Sequence[int], links: Mapping[str, Sequence[int]]) -> list[float]:
    """Where the middle of each bar is: those of a place under each other, the largest on top."""
    size = [0] * len(column)
    for side in ("source", "target"):
        flow = [0] * len(column)
        for node, value in zip(links[side], links["value"], strict=True):
            flow[node] += value
        size = [max(before, now) for before, now in zip(size, flow, strict=True)]
    whole = max((sum(s for s, c in zip(size, column, strict=True) if c == one) for one in set(column)), default=1)
    y = [0.0] * len(column)
    for one in set(column):
        own = sorted((node for node, place in enumerate(column) if place == one), key=lambda node: -size[node])
        above = 0.0
        for node in own:
            height = 0.85 * size[node] / whole
            y[node] = min(max(above + height / 2, 0.001), 0.999)
            above += height + 0.15 / len(own)
    return y


def _pale(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.28)"


def funnel(part: Mapping[str, Any]) -> Figure:
    """How many sessions reached each step."""
    import plotly.graph_objects as go  # noqa: PLC0415

    figure = go.Figure(
        go.Funnel(
            y=[f"{number}. {step}" for number, step in enumerate(part["steps"], start=1)],
            x=part["reached"],
            texttemplate="%{value:,} (%{percentInitial:.1%})",
            marker_color=BLUE,
            connector_fillcolor="#dce9f0",
        )
    )
    title = f"{part['mode']}{', from the entry' if part['entry'] else ''}"
    figure.update_layout(title=title, height=90 + 70 * len(part["steps"]))
    return figure


def ends(part: Mapping[str, Any]) -> Figure:
    """Of the sessions that took a step, how many ended there, with intervals; red above the common rate."""
    import plotly.graph_objects as go  # noqa: PLC0415

    lines = sorted((line for line in part["steps"] if line["share"] is not None), key=lambda line: line["share"])
    share = [line["share"] for line in lines]
    figure = go.Figure(
        go.Bar(
            orientation="h",
            y=[line["step"] for line in lines],
            x=share,
            marker_color=[RED if line["bottleneck"] else BLUE for line in lines],
            error_x=_interval(lines, "share") | {"thickness": 1.2},
        )
    )
    figure.add_vline(x=part["common_share"], line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_layout(title="Ended there, of the sessions that took the step", height=130 + 26 * len(lines))
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    return figure


def differences(traits: Sequence[Mapping[str, Any]]) -> Figure:
    """Effects with their intervals, the largest on top."""
    import plotly.graph_objects as go  # noqa: PLC0415

    lines = list(traits)[::-1]
    effect = [line["effect"] for line in lines]
    figure = go.Figure(
        go.Scatter(
            mode="markers",
            y=[line["name"] for line in lines],
            x=effect,
            marker={"color": [GREEN if line["effect"] > 0 else RED for line in lines], "size": 8},
            error_x=_interval(lines, "effect") | {"thickness": 1.4, "color": GREY},
        )
    )
    figure.add_vline(x=0, line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_layout(
        title="Share of those that stayed, less share of those that left", height=140 + 22 * len(lines)
    )
    figure.update_xaxes(tickformat="+.0%")
    figure.update_yaxes(automargin=True)
    return figure


def _interval(lines: Sequence[Mapping[str, Any]], value: str) -> dict[str, Any]:
    """Bars from `low` to `high` around a value."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [line["high"] - line[value] for line in lines],
        "arrayminus": [line[value] - line["low"] for line in lines],
        "width": 3,
    }

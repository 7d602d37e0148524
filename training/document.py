"""One HTML file that needs nothing else: headings, sentences, tables, interactive figures, plotly's code inlined once.

It reads well at any width, by day and on paper, and loads nothing from anywhere. Texts are escaped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

# The colours of `training.plots`.
BLUE: Final = "#0b6e99"
ORANGE: Final = "#d9822b"
GREY: Final = "#8a8f98"
RED: Final = "#b3261e"
GREEN: Final = "#2e7d4f"

_STYLE: Final = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px 20px 64px; background: #fff; color: #22272e;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 26px; margin: 8px 0 4px; }
h2 { font-size: 19px; margin: 36px 0 4px; }
h3 { font-size: 15px; margin: 22px 0 2px; }
p { margin: 4px 0 12px; max-width: 76ch; color: #4a5159; }
.verdict { display: inline-block; padding: 2px 12px; border-radius: 12px; color: #fff;
  font-weight: 600; font-size: 14px; vertical-align: middle; margin-left: 10px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin: 14px 0 8px; }
.tile { border: 1px solid #e1e4e8; border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 19px; font-weight: 600; } .tile span { color: #6a727b; font-size: 13px; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); gap: 8px 20px; }
.figures > div { min-width: 0; overflow: hidden; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: right; border-bottom: 1px solid #eceef1; white-space: nowrap; }
th { color: #6a727b; font-weight: 600; } th:first-child, td:first-child { text-align: left; }
tr.marked td { color: #b3261e; font-weight: 600; }
summary { cursor: pointer; color: #0b6e99; margin: 10px 0; }
"""


def document(title: str, sections: Iterable[str]) -> str:
    """The whole page, from sections of HTML."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  (only pages need plotly)

    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head>\n<body>{''.join(sections)}</body></html>\n"
    )


def heading(text: str, level: int = 2, *, verdict: str = "", good: bool = True) -> str:
    """A heading, with a verdict beside it."""
    badge = f'<span class="verdict" style="background:{GREEN if good else RED}">{escape(verdict)}</span>'
    return f"<h{level}>{escape(text)}{badge if verdict else ''}</h{level}>"


def sentence(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def tiles(numbers: Iterable[tuple[str, str]]) -> str:
    """Numbers that matter, large: (number, what it is)."""
    cells = (f'<div class="tile"><b>{escape(number)}</b><span>{escape(what)}</span></div>' for number, what in numbers)
    return f'<div class="tiles">{"".join(cells)}</div>'


def table(head: Sequence[str], lines: Iterable[Sequence[str]], marked: Iterable[bool] = ()) -> str:
    """A table, the first column left-aligned; lines may be marked."""
    lines = list(lines)
    marks = [*marked, *([False] * len(lines))][: len(lines)]
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr{' class=marked' if mark else ''}>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>"
        for line, mark in zip(lines, marks, strict=True)
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(title: str, content: str) -> str:
    """Content behind a line that opens it; figures in it take their width then."""
    fit = "for (const one of this.querySelectorAll('.plotly-graph-div')) Plotly.Plots.resize(one)"
    return f'<details ontoggle="{fit}"><summary>{escape(title)}</summary>{content}</details>'


def figures(drawn: Iterable[Any]) -> str:
    """Plotly figures side by side as far as there is room."""
    return f'<div class="figures">{"".join(f"<div>{figure_html(one)}</div>" for one in drawn)}</div>'


def figure_html(figure: Any) -> str:
    """One plotly figure, in the page's style."""
    figure.update_layout(
        template="plotly_white",
        colorway=[BLUE, ORANGE, GREY, GREEN, RED],
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#22272e"},
        margin={"l": 48, "r": 12, "t": 48, "b": 84},
        legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0},
        hoverlabel={"font_size": 12},
        title_x=0.0,
        title_font_size=14,
    )
    config = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config)
    return html

"""What was measured as Markdown, and its place in the page.

The page is prose with places for tables: what stands between `<!-- results: name -->` and `<!-- end -->` is replaced,
all else stays as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from benchmarks.results.logs import TRUTH
from benchmarks.results.measures import Comparison, interval
from benchmarks.results.noise import Spread
from benchmarks.results.online_shoppers import Quality

OURS: Final = "Lotse"
PLAIN: Final = "logistic regression"
# How far Lotse's lift should lie above that of logistic regression, and above that of the best other learner.
AIM_PLAIN: Final = 1.25
AIM_BEST: Final = 1.05
SUMMARY: Final = "summary"
_SUMMARY_HEAD: Final = (
    "log",
    "head",
    "base rate",
    "Lotse: PR-AUC / base rate",
    f"over logistic regression (aim {AIM_PLAIN:.2f})",
    f"over the best other (aim {AIM_BEST:.2f})",
    "best other",
)


def comparison_table(found: Comparison) -> list[str]:
    """A line for each model, below a line about the rows."""
    ages = ", ".join(map(str, found.prefixes)) or "none: too few rows of one answer at each"
    about = (
        f"{found.rows:,} rows right after events, of {found.sessions:,} sessions of {found.visitors:,} visitors; "
        f"base rate {found.base_rate:.1%}; prefixes averaged: {ages}."
    )
    estimates = list(found.models[OURS].estimates)
    lines = [["model", "PR-AUC / base rate", "Lotse over it", "AUC", *estimates]]
    for name, measured in found.models.items():
        ratio = "" if name == OURS else _with_interval(found.ratio(name), 2)
        figures = [_figure(measured.estimates[estimate]) for estimate in estimates]
        # a resample holds some visitors twice, which raises a PR-AUC: its interval is moved back to the estimate
        lift = _with_interval(measured.lift, 2, centred=True)
        lines.append([name, lift, ratio, _with_interval(measured.auc, 3), *figures])
    return [about, "", *markdown(lines)]


def summary_line(log: str, head: str, found: Comparison) -> list[str]:
    """How Lotse stands on one head: cells of the summary."""
    others = [name for name in found.models if name not in (OURS, PLAIN, TRUTH)]
    best = max(others, key=lambda name: float(np.nan_to_num(found.models[name].lift[0])))
    return [
        log,
        head,
        f"{found.base_rate:.1%}",
        _with_interval(found.models[OURS].lift, 2, centred=True),
        _against(found.ratio(PLAIN), AIM_PLAIN),
        _against(found.ratio(best), AIM_BEST),
        best,
    ]


def merge_summary(page: str, lines: Sequence[Sequence[str]]) -> list[str]:
    """The page's summary with the lines of the heads that were measured anew, in the order of the page."""
    known = {(cells[0], cells[1]): cells for cells in _cells(block(page, SUMMARY))[2:]}
    known |= {(cells[0], cells[1]): list(cells) for cells in lines}
    return markdown([list(_SUMMARY_HEAD), *known.values()])


def quality_table(models: Mapping[str, Quality]) -> list[str]:
    """A line for each model of whole sessions."""
    lines = [["model", "auROC", "auPR", "log loss", "ECE"]]
    for name, found in models.items():
        areas = [_with_interval(found.auc, 3), _with_interval(found.pr_auc, 3, centred=True)]
        lines.append([name, *areas, _figure(found.log_loss), _figure(found.ece)])
    return markdown(lines)


def spread_table(found: Spread) -> list[str]:
    """Mean and standard deviation over the splits, and how often Lotse is ahead."""
    lines = [["model", "PR-AUC / base rate", "Lotse over it", "AUC", "splits in which Lotse is ahead"]]
    for name, lift in found.lift.items():
        ratio = found.lift[OURS] / lift
        ahead = "" if name == OURS else f"{int((ratio > 1).sum())} of {len(ratio)}"
        over = "" if name == OURS else _mean(ratio, 2)
        lines.append([name, _mean(lift, 2), over, _mean(found.auc[name], 3), ahead])
    return markdown(lines)


def markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    """A table whose first line is the heading.

    >>> markdown([["a", "b"], ["1", "2"]])
    ['| a | b |', '| --- | --- |', '| 1 | 2 |']
    """
    head, *rest = [f"| {' | '.join(cells)} |" for cells in lines]
    return [head, f"| {' | '.join('---' for _ in lines[0])} |", *rest]


def block(page: str, name: str) -> str:
    """What stands at a place of the page.

    Raises
    ------
    KeyError
        The page has no such place: names it.
    """
    found = _place(name).search(page)
    if not found:
        raise KeyError(f"the page has no place <!-- results: {name} --> ... <!-- end -->")
    return found[2]


def fill(page: str, name: str, lines: Sequence[str]) -> str:
    """The page with other lines at one of its places.

    Raises
    ------
    KeyError
        The page has no such place: names it.
    """
    block(page, name)
    text = "\n".join(lines)
    return _place(name).sub(lambda found: f"{found[1]}\n{text}\n{found[3]}", page)


def _place(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- results: {re.escape(name)} -->)(.*?)(<!-- end -->)", re.DOTALL)


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.strip().splitlines()]


def _with_interval(values: np.ndarray, digits: int, *, centred: bool = False) -> str:
    if np.isnan(values[0]):
        return "–"
    low, high = interval(values, centred=centred)
    return f"{values[0]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _against(ratio: np.ndarray, aim: float) -> str:
    if np.isnan(ratio[0]):
        return "–"
    return f"{_with_interval(ratio, 2)}, {'met' if ratio[0] >= aim else 'missed'}"


def _mean(values: np.ndarray, digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def _figure(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4f}"

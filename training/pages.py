"""The interactive page of one head: everything of its pictures to look into, in one HTML file that loads nothing.

In: `Findings`. Out: HTML. What is undefined is shown as a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from training import page_figures
from training.curves import half_lift
from training.document import document, figure_html, folded, heading, sentence, table, tiles
from training.findings import Findings, age_label, metric_label, model_label

# Columns of the table of ages, which stand with their intervals, and of the one beside the baselines.
_SURE: Final = {
    "binary": ("auc", "pr_auc_ratio", "log_loss", "ece"),
    "value": ("ratio", "d2", "spearman", "mae"),
}
_METRICS: Final = {
    "binary": ("auc", "pr_auc", "pr_auc_ratio", "log_loss", "brier", "ece", "lift_10"),
    "value": ("mean", "predicted", "ratio", "mae", "rmse", "d2", "spearman", "lift_10"),
}
BASE_RATE: Final = {"binary": "base rate", "value": "with an amount"}
# The numbers that stand large at the top.
_HEADLINES: Final = {"binary": ("auc", "pr_auc_ratio", "ece"), "value": ("ratio", "spearman", "d2")}


def report_page(found: Findings) -> str:
    """The whole page."""
    sections = [
        heading(found.head, 1),
        sentence(f"{found.question} Measured on the test: later in time, other visitors than the model learned from."),
        tiles(_headlines(found)),
        *_by_age(found),
        *_reliability(found),
        *(_ranking(found) if found.task == "binary" else []),
        *_lift(found),
        *_earliness(found),
        *_score_by_age(found),
        *_segments(found),
        *_features(found),
        *_reasons(found),
    ]
    return document(f"Lotse: {found.head}", sections)


def _headlines(found: Findings) -> Iterable[tuple[str, str]]:
    (line,) = found.table[(found.table["model"] == "lotse") & (found.table["age"] == "events")].to_dict("records")
    yield (
        f"{line['rows']:,}",
        f"rows right after an event, {line['sessions']:,} sessions, {line['visitors']:,} visitors",
    )
    yield percent(line["base_rate"]), BASE_RATE[found.task]
    for metric in _HEADLINES[found.task]:
        yield number(line[metric]), metric_label(metric)


def _by_age(found: Findings) -> list[str]:
    """Metrics by session age, and beside the baselines."""
    ages = found.table[~found.table["age"].str.contains("=")]
    sure, beside = ([metric for metric in of[found.task] if metric in ages] for of in (_SURE, _METRICS))
    chance = ["ece_noise"] if found.task == "binary" else []
    ours = [
        [
            age_label(line["age"]), f"{line['rows']:,}", percent(line["base_rate"]),
            *(with_interval(line, metric) for metric in sure), *(number(line[metric]) for metric in chance),
        ]
        for line in ages[ages["model"] == "lotse"].to_dict("records")
    ]  # fmt: skip
    rivals = [
        [age_label(line["age"]), model_label(line["model"]), *(number(line[metric]) for metric in beside)]
        for line in ages.to_dict("records")
    ]
    why = (
        f"How good the scores are as a session goes on; in brackets the {found.settings.confidence:.0%} interval of "
        "resampled visitors."
    )
    if chance:
        why += " ECE by chance is what a perfectly calibrated model would show at this size."
    return [
        heading("By session age"),
        sentence(why),
        table(["session age", "rows", BASE_RATE[found.task], *map(metric_label, [*sure, *chance])], ours),
        folded("Beside the baselines", table(["session age", "model", *map(metric_label, beside)], rivals)),
    ]


def _reliability(found: Findings) -> list[str]:
    turned = "how many turned out yes" if found.task == "binary" else "what they brought on average"
    return _section(
        "Do the scores hold?",
        f"Of rows with about the same score, {turned}, at the session age chosen: on the dotted line both agree. "
        "And how far they are apart at each age.",
        [*page_figures.reliability(found), *page_figures.calibration_by_age(found)],
    )


def _ranking(found: Findings) -> list[str]:
    return _section(
        "Telling yes from no",
        "How well the score orders rows right after an event: the further from the dotted line, the better.",
        page_figures.ranking(found),
    )


def _lift(found: Findings) -> list[str]:
    outcome = "all that turned out yes" if found.task == "binary" else "the whole amount"
    return _section(
        "Lift",
        f"How much of {outcome} lies in the rows with the highest scores, and how many times that is chance.",
        page_figures.lift(found),
    )


def _earliness(found: Findings) -> list[str]:
    reached = []
    for by in ("events", "seconds"):
        half = half_lift(found.early, by)
        if np.isfinite(half):
            reached.append(f"{half:g} {by.removesuffix('s') if half == 1 else by}")
    told = f" Half of what it gains over chance is there after {' or '.join(reached)}." if reached else ""
    return _section(
        "How early the score tells",
        "Sessions ordered by their score as of so many events or seconds: how many times more than chance the top "
        f"tenth holds of the outcome.{told}",
        page_figures.earliness(found),
        "The answer changes within sessions, or no session has one: there is no outcome to be early about.",
    )


def _score_by_age(found: Findings) -> list[str]:
    return _section(
        "Score by session age",
        "The mean score right after each event, with the middle half of the scores: where the two part.",
        page_figures.score_by_age(found),
    )


def _segments(found: Findings) -> list[str]:
    return _section(
        "Segments",
        "Rows right after an event by device, channel, earlier visits and consent, with intervals; the dashed line is "
        "all of them. Small groups are left out.",
        page_figures.segments(found),
        "No segment is large enough.",
    )


def _features(found: Findings) -> list[str]:
    return _section(
        "What the score is made of",
        f"Shapley values of {len(found.explanation.values):,} rows: how far each feature moves the raw score on "
        "average, and row by row, from low values of the feature (blue) to high ones (red; light grey: unknown).",
        page_figures.contributions(found),
        "No feature adds anything.",
    )


def _reasons(found: Findings) -> list[str]:
    """Rows in words; no more is told of a session than its age, its score, what became of it and the reasons."""
    parts = []
    for one in found.explanation.examples:
        age = f"after event {one.events}" + (f" and {one.idle_seconds:g} s of silence" if one.idle_seconds else "")
        answer = ("no", "yes")[int(one.answer)] if found.task == "binary" else number(one.answer)
        reasons = ". ".join(why.text for why in one.reasons) or "No feature moves this score"
        parts += [heading(f"{number(one.score)} {age}, turned out: {answer}", 3), sentence(f"{reasons}.")]
    return [
        heading("Reasons"),
        sentence("Rows from the highest to the lowest score, with the features that moved each score most."),
        *parts,
    ]


def _section(title: str, text: str, drawn: list[Any], without: str = "Nothing to draw.") -> list[str]:
    """A heading, what the figures show, and the figures: two side by side where there is room."""
    if not drawn:
        return [heading(title), sentence(without)]
    cells = "".join(f'<div style="min-width: 0">{figure_html(figure)}</div>' for figure in drawn)
    least = 440 if len(drawn) > 1 else 800
    columns = f"grid-template-columns: repeat(auto-fill, minmax(min({least}px, 100%), 1fr))"
    return [heading(title), sentence(text), f'<div style="display: grid; gap: 8px 24px; {columns}">{cells}</div>']


def with_interval(line: Mapping[Any, Any], metric: str) -> str:
    """A metric of one line of `training.evaluation.evaluate`, with its interval."""
    text = number(line[metric])
    if np.isfinite(line[f"{metric}_low"]):
        text += f" [{number(line[f'{metric}_low'])}, {number(line[f'{metric}_high'])}]"
    return text


def percent(share: float) -> str:
    """A share as people read it.

    >>> percent(0.0312), percent(float("nan"))
    ('3.12 %', '–')
    """
    return f"{100 * share:.3g} %" if np.isfinite(share) else "–"


def number(value: float) -> str:
    """Three or four digits, so that numbers of a size stand under each other; a dash for what is undefined.

    >>> number(0.9), number(0.00213), number(3.456), number(1234.5), number(0.0), number(float("nan"))
    ('0.900', '0.0021', '3.46', '1,234', '0', '–')
    """
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3 if abs(value) >= 0.1 else 4
    return f"{value:,.{digits}f}"

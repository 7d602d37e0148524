"""Why a score is what it is: exact Shapley values of the trees, and sentences made of them.

In: a model and rows of its features. Out: what each feature adds to the raw score (log-odds, or the logarithm of an
amount) against the mean over the rows the model learned from (TreeSHAP, Lundberg et al. 2018, by LightGBM itself).
Calibration comes after it, by session age: it never turns a raised score into a lowered one, and what the age itself
adds there is not part of these values. A missing value is "unknown": what being unknown adds is told like any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from features.declare import Feature
from features.definitions import CATALOGUE
from features.events import CHANNELS, DEVICES, EVENT_NAMES, PAGE_KINDS
from training.datasets import Slice
from training.model import HeadModel

# TreeSHAP costs about a millisecond a row; means over so many rows are settled.
MOST_ROWS: Final = 2000
_EXAMPLES: Final = (1.0, 0.99, 0.9, 0.5, 0.1, 0.0)
_CODES: Final = {
    "channel code": CHANNELS,
    "device code": DEVICES,
    "event code": EVENT_NAMES,
    "page kind code": PAGE_KINDS,
    "yes or no": ("no", "yes"),
}
_SHORT: Final = {"s": " s", "d": " d", "h": " h", "s an event": " s an event"}
# Where the docstring says that -1 stands for "not yet".
_NOT_YET: Final = re.compile(r"-1 (before the first|without one|on the first visit)")


@dataclass(frozen=True)
class Reason:
    """One feature's part in one score.

    contribution: what it adds to the raw score; text: a plain sentence of the feature, its value and the direction.
    """

    feature: str
    value: float
    contribution: float
    text: str


@dataclass(frozen=True)
class Example:
    """A row of the test with its reasons; answer: 0, 1 or an amount."""

    events: int
    idle_seconds: float
    score: float
    answer: float
    reasons: list[Reason]


@dataclass(frozen=True)
class Explanation:
    """Shapley values of m rows of the test and F features, and some rows in words.

    matrix: float32 (m, F); values: float64 (m, F); base: the mean raw score that they are added to.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    values: np.ndarray
    base: float
    examples: list[Example]

    @property
    def importance(self) -> pd.Series:
        """Mean absolute contribution by feature, largest first."""
        found = np.abs(self.values).mean(axis=0) if len(self.values) else np.zeros(len(self.names))
        return pd.Series(found, index=list(self.names)).sort_values(ascending=False, kind="stable")


def contributions(model: HeadModel, matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """What each feature adds to each raw score: float64 (n, F), and the base; together they are `model.margin(matrix)`.

    matrix: float32 (n, F).
    """
    if not len(matrix):
        return np.zeros((0, len(model.names))), 0.0
    found = np.asarray(model.booster.predict(matrix, pred_contrib=True))
    return found[:, :-1], float(found[0, -1])


def importance(model: HeadModel, matrix: np.ndarray) -> pd.Series:
    """Mean absolute contribution by feature, largest first, over at most about `MOST_ROWS` of the rows."""
    sampled = matrix[:: max(-(-len(matrix) // MOST_ROWS), 1)]
    values, base = contributions(model, sampled)
    return Explanation(model.names, sampled, values, base, []).importance


def reason_codes(model: HeadModel, matrix: np.ndarray, top: int = 3) -> list[list[Reason]]:
    """Of each row the `top` features that add or take most, largest first; those that add nothing are no reason."""
    return _reasons(model.names, matrix, contributions(model, matrix)[0], top)


def explain(model: HeadModel, part: Slice, score: np.ndarray, most: int = MOST_ROWS) -> Explanation:
    """Contributions of at most `most` rows, drawn uniformly from all, and a few of them in words.

    score: calibrated scores of the rows, float64 (n,). The examples lie from the highest to the lowest score.
    """
    rows = np.arange(len(part.answer))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False))
    matrix = part.matrix[rows]
    values, base = contributions(model, matrix)
    by_score = np.argsort(score[rows], kind="stable")
    places = dict.fromkeys(by_score[round(share * (len(rows) - 1))] for share in _EXAMPLES) if len(rows) else {}
    chosen = np.array(list(places), np.int64)
    reasons = _reasons(part.names, matrix[chosen], values[chosen], 3)
    examples = [
        Example(
            events=int(part.prefix[row]),
            idle_seconds=float(part.idle_ms[row]) / 1000,
            score=float(score[row]),
            answer=float(part.answer[row]),
            reasons=found,
        )
        for row, found in zip(rows[chosen], reasons, strict=True)
    ]
    return Explanation(part.names, matrix, values, base, examples)


def swarm(explanation: Explanation, feature: str, most: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One feature's points: contribution, offset within +-0.4 (the wider the more rows lie there), rank of its value.

    The rank is in [0, 1], NaN where the value is missing; float64 (min(m, most),) each.
    """
    at = explanation.names.index(feature)
    chosen = slice(None, None, max(len(explanation.values) // most, 1))
    added, value = explanation.values[chosen, at], explanation.matrix[chosen, at].astype(np.float64)
    cell = np.zeros(len(added), np.int64)
    if np.ptp(added) > 0:
        cell = ((added - added.min()) / np.ptp(added) * 60).astype(np.int64)
    crowd = pd.Series(cell).groupby(cell)
    place, size = crowd.cumcount().to_numpy(), crowd.transform("size").to_numpy()
    width = 0.4 * size / size.max()
    offset = np.where(size > 1, (2 * place / np.maximum(size - 1, 1) - 1) * width, 0.0)
    return added, offset, pd.Series(value).rank(pct=True).to_numpy()


def _reasons(names: tuple[str, ...], matrix: np.ndarray, values: np.ndarray, top: int) -> list[list[Reason]]:
    found = []
    for row, added in zip(matrix, values, strict=True):
        largest = np.argsort(-np.abs(added), kind="stable")[:top]
        found.append([reason(names[at], float(row[at]), float(added[at])) for at in largest if added[at] != 0])
    return found


def reason(feature: str, value: float, contribution: float) -> Reason:
    """A feature's part as a sentence: what the catalogue says of it, its value with unit, and the direction.

    >>> reason("idle_seconds", 62.0, -0.4).text
    'Since the latest event: 62 s (idle_seconds) lowers the score'
    >>> reason("visits_before", float("nan"), 0.1).text
    'Linked visits before this one: unknown (visits_before) raises the score'
    """
    entry = CATALOGUE.features.get(feature)
    meaning = f"{_meaning(entry.doc)}: " if entry else ""
    unit = entry.unit if entry else ""
    direction = "raises" if contribution > 0 else "lowers"
    text = f"{meaning}{shown(entry, unit, value)} ({feature}) {direction} the score"
    return Reason(feature, value, contribution, text)


def shown(entry: Feature | None, unit: str, value: float) -> str:
    """A value as people read it: codes by name, shares in per cent, numbers with their unit.

    >>> shown(CATALOGUE.features["entry_channel"], "channel code", 3.0), shown(None, "share", 0.25)
    ('paid', '25 %')
    """
    if np.isnan(value):
        return "unknown"
    if entry and value == -1 and _NOT_YET.search(entry.doc):
        return "not yet"
    if unit in _CODES and 0 <= value < len(_CODES[unit]):
        return _CODES[unit][int(value)]
    if unit == "share" and abs(value) <= 1:
        return f"{100 * value:.3g} %"
    return f"{_number(value)}{_SHORT.get(unit, '')}"


def _number(value: float) -> str:
    """Three digits that count, whole numbers in full."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def _meaning(doc: str) -> str:
    """The first statement of a docstring: what the feature is, without why it matters."""
    return re.sub(r" \([^)]*\)", "", re.split(r"[:;.](?:\s|$)", doc, maxsplit=1)[0]).strip()

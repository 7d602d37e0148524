"""The numbers behind the pictures: reliability, ROC, precision and recall, lift, score by age, earliness.

In: rows of the test and scores. Out: small tables that the pictures (`training.plots`) and the page (`training.pages`)
both draw, so that they cannot differ. What is undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from training.bootstrap import Resamples, captured, interval, ranked, resample_visitors, weighted_sums
from training.config import EvaluationSettings
from training.datasets import Slice
from training.evaluation import bin_ends
from training.segments import ages

# A bin of fewer rows shows nothing but noise, and a curve of fewer bins no shape.
_LEAST_BIN_ROWS: Final = 20
_LEAST_BINS: Final = 4
# Most resamples of a curve's band: drawn, not decided by.
_BAND_RESAMPLES: Final = 100
# The share of sessions that earliness looks at, and the numbers of events it asks at.
EARLY_SHARE: Final = 0.1
EARLY_EVENTS: Final = tuple(range(1, 21))


def reliability_curves(part: Slice, score: np.ndarray, settings: EvaluationSettings) -> dict[str, pd.DataFrame]:
    """Observed rate, or mean amount, against mean score in bins of equally many rows, for each age of `segments.ages`.

    Columns: score, observed, low, high (interval of resampled visitors), rows, visitors. Ages of too few rows are left
    out.
    """
    drawn = resample_visitors(part.visitor, min(settings.resamples, _BAND_RESAMPLES))
    order = np.argsort(score, kind="stable")
    found = {}
    for age, chosen in ages(part, settings).items():
        rows = order[chosen[order]]
        bins = min(settings.bins, len(rows) // _LEAST_BIN_ROWS)
        if bins >= _LEAST_BINS:
            found[age] = _reliability(part.answer[rows], score[rows], drawn.take(rows), bins, settings.confidence)
    return found


def _reliability(answer: np.ndarray, score: np.ndarray, drawn: Resamples, bins: int, confidence: float) -> pd.DataFrame:
    """Rows by rising score."""
    lines, begin = [], 0
    for end in bin_ends(score, bins):
        within = slice(begin, end)
        total, rows = weighted_sums([answer[within], np.ones(end - begin)], drawn.take(np.arange(begin, end)))
        with np.errstate(invalid="ignore"):
            low, high = interval(total / rows, confidence)
        visitors = len(np.unique(drawn.number[within]))
        lines.append((score[within].mean(), total[0] / rows[0], low, high, end - begin, visitors))
        begin = end
    return pd.DataFrame(lines, columns=["score", "observed", "low", "high", "rows", "visitors"])


def cutoffs(answer: np.ndarray, score: np.ndarray, points: int = 200) -> pd.DataFrame:
    """What acting on the highest scores gives, from none of the rows to all of them.

    answer: 0 or 1, or amounts; score; both (n,). Columns: share (of rows acted on), captured (of all yes, or of the
    whole amount: recall), false_positive (of all no), precision (mean answer of the rows acted on), lift (captured over
    share). Steps are where the score changes; of more than about 2 * `points` some are left out.

    >>> cutoffs(np.array([1, 0, 0, 0]), np.array([0.9, 0.5, 0.2, 0.1]))["lift"].tolist()[:2]
    [4.0, 2.0]
    """
    ranks = ranked(np.asarray(score, np.float64))
    ends = ranks.starts[1:]
    falling = answer[ranks.order].astype(np.float64)
    total, none = falling.sum(), float((falling == 0).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        taken = np.cumsum(falling)[ends - 1] if len(ends) else np.zeros(0)
        share, hit = ends / max(len(falling), 1), taken / total
        missed = np.cumsum(falling == 0)[ends - 1] / none if len(ends) else np.zeros(0)
        table = pd.DataFrame(
            {
                "share": share,
                "captured": hit,
                "false_positive": missed,
                "precision": taken / ends,
                "lift": hit / share,
            }
        )
    if len(table) <= 2 * points or total == 0:
        return table.iloc[:: max(len(table) // (2 * points), 1)].reset_index(drop=True)
    even = np.linspace(0, 1, points)
    kept = np.concatenate([np.searchsorted(share, even), np.searchsorted(hit, even), [0]])
    return table.iloc[np.unique(np.minimum(kept, len(table) - 1))].reset_index(drop=True)


def ranking_curves(part: Slice, scores: Mapping[str, np.ndarray]) -> dict[str, pd.DataFrame]:
    """`cutoffs` of each model on rows right after an event; none where all answers are the same.

    scores: float64 (n,) by model.
    """
    rows = part.idle_ms == 0
    answer = part.answer[rows]
    if not len(answer) or answer.min() == answer.max():
        return {}
    return {model: cutoffs(answer, score[rows]) for model, score in scores.items()}


def scores_by_age(part: Slice, score: np.ndarray, most: int = 20) -> pd.DataFrame:
    """Scores right after the n-th event, of rows that turned out yes and no: how early the two part.

    Columns: answer (1: yes or an amount; 0: no), events, rows, mean, low and high (the middle half of the scores). Ages
    of fewer than five rows are left out.
    """
    right_after = (part.idle_ms == 0) & (part.prefix <= most)
    table = pd.DataFrame(
        {"answer": (part.answer > 0).astype(int), "events": part.prefix, "score": np.asarray(score, np.float64)}
    )[right_after]
    groups = table.groupby(["answer", "events"])["score"]
    found = groups.agg(rows="size", mean="mean", low=lambda s: s.quantile(0.25), high=lambda s: s.quantile(0.75))
    return found[found["rows"] >= 5].reset_index()


def earliness(part: Slice, score: np.ndarray, settings: EvaluationSettings) -> pd.DataFrame:
    """How soon the score tells what becomes of a session: lift of the top tenth of sessions, by what was seen of them.

    Sessions are the units. A session's answer is that of its first row: what became of it as a whole. At n events it is
    scored by its latest row right after an event with prefix <= n; at s seconds by its latest row up to s seconds after
    its start, rows of silence included. A session that is over, or whose question is settled, keeps its last score. The
    final lift is that of each session's last row right after an event: the silence after it would give the answer away.

    Lines: `by` ("events", "seconds"), `at`, sessions, lift, lift_low, lift_high (intervals of resampled visitors),
    final, of_final (lift / final), gained ((lift - 1) / (final - 1): chance alone has a lift of 1). No lines where the
    answer changes within sessions, as that of an exit does: the question is another one after every event; and none of
    rows that were drawn.
    """
    columns = ["by", "at", "sessions", "lift", "lift_low", "lift_high", "final", "of_final", "gained"]
    order = np.lexsort((part.prefix, part.now, part.session))
    session, answer = part.session[order], part.answer[order].astype(np.float64)
    first = np.flatnonzero(np.append(True, session[1:] != session[:-1])[: len(session)])
    outcome = np.repeat(answer[first], np.diff(np.append(first, len(session))))
    amounts = not np.isin(answer, (0.0, 1.0)).all()
    drawn_rows = not part.every_row  # what a session looked like before and after, nobody knows
    if drawn_rows or not len(order) or not outcome.any() or (not amounts and (answer != outcome).any()):
        return pd.DataFrame(columns=columns)
    prefix, right_after = part.prefix[order], part.idle_ms[order] == 0
    elapsed = part.now[order] - part.started[order]
    drawn = resample_visitors(part.visitor[order], min(settings.resamples, _BAND_RESAMPLES))

    def lift(seen: np.ndarray) -> tuple[np.ndarray, int]:
        """Lanes of the lift when every session is scored by its latest row of `seen`, bool (n,); sessions."""
        rows = np.flatnonzero(seen)
        rows = rows[np.append(session[rows][1:] != session[rows][:-1], True)[: len(rows)]]
        latest, became = drawn.take(rows), outcome[rows]
        ranks = ranked(np.asarray(score, np.float64)[order[rows]])
        (total,) = weighted_sums([became], latest)
        with np.errstate(invalid="ignore", divide="ignore"):
            return captured(became, ranks, latest, (EARLY_SHARE,))[0] / (EARLY_SHARE * total), len(rows)

    final = lift(right_after)[0][0]
    lines = []
    for by, moments in (("events", EARLY_EVENTS), ("seconds", settings.seconds)):
        for at in moments:
            lanes, sessions = lift(right_after & (prefix <= at) if by == "events" else elapsed <= at * 1000)
            gained = (lanes[0] - 1) / (final - 1) if final > 1 else np.nan
            bounds = interval(lanes, settings.confidence)
            lines.append((by, float(at), sessions, lanes[0], *bounds, final, lanes[0] / final, gained))
    return pd.DataFrame(lines, columns=columns)


def half_lift(table: pd.DataFrame, by: str) -> float:
    """The number of events, or seconds, of `earliness` at which half of what the score gains over chance is there.

    NaN where it is not reached, or where the score gains nothing.
    """
    reached = table[(table["by"] == by) & (table["gained"] >= 0.5)]
    return float(reached["at"].iloc[0]) if len(reached) else float("nan")

"""How good the scores are, by session age and segment, beside the baselines on the same rows.

In: the rows of the test, and scores by model name. Out: tables with a line for each age (or segment) and model.
Intervals are of resampled visitors (`training.bootstrap`). What is undefined is NaN, not left out: rows of one class
have no AUC, rows without a yes no PR-AUC and no lift, revenue of nothing no ratio and no D^2.

A yes-or-no question: AUC, PR-AUC (average precision) and its ratio to the base rate, log loss, Brier score, ECE
(expected calibration error over bins of equal size) beside `ece_noise`, what chance alone would show, and lift. An
amount: mean and predicted mean with their ratio, MAE, RMSE, D^2 (Tweedie deviance explained, power 1.5), Spearman's
rank correlation, and lift of the amount.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from training.bootstrap import (
    Ranked,
    Resamples,
    binary_ranking,
    captured,
    interval,
    ranked,
    resample_visitors,
    spearman,
    weighted_sums,
)
from training.config import EvaluationSettings
from training.datasets import Slice, uniform
from training.segments import ages, segments

BINARY: Final = ("auc", "pr_auc", "pr_auc_ratio", "log_loss", "brier", "ece")
VALUE: Final = ("mean", "predicted", "ratio", "mae", "rmse", "d2", "spearman")
_COUNTS: Final = ("rows", "sessions", "visitors", "base_rate")
_COMPARED: Final = {"binary": ("auc", "pr_auc", "log_loss", "brier", "ece"), "value": VALUE[2:]}
# Rows times resamples of one age and model: of more than 150,000 rows fewer than 200 resamples are drawn, down to 50.
# The interval of so many rows is narrow, and its ends are not what decides.
_MOST_WORK: Final = 30_000_000
_LEAST_RESAMPLES: Final = 50
# Draws of labels that `ece_noise` is the mean of, at most, and rows drawn in all.
_MOST_DRAWS, _DRAWN_ROWS = 10, 250_000
# Mixed into the numbers that are drawn for it, as `training.datasets` does for its own purposes.
_CHANCE: Final = 4
_CLIP: Final = 1e-12
_TWEEDIE_POWER: Final = 1.5
# A Tweedie deviance needs scores above zero; a thousandth of a cent is none.
_LEAST_AMOUNT: Final = 1e-5

Lanes = dict[str, np.ndarray]


def expected_calibration_error(target: np.ndarray, score: np.ndarray, bins: int) -> float:
    """Mean distance between score and target over `bins` bins of equally many rows (Naeini et al. 2015, equal mass).

    target: outcomes 0/1 or, where they are known, true probabilities; score: float64; both (n,). Rows of equal score
    stay in one bin, or the order among them would decide.

    >>> expected_calibration_error(np.array([0, 1, 0, 1]), np.array([0.5, 0.5, 0.5, 0.5]), 2)
    0.0
    """
    if not len(score):
        return float("nan")
    order = np.argsort(score, kind="stable")
    return _calibration_error(target[order], score[order], bin_ends(score[order], bins))


def bin_ends(rising: np.ndarray, bins: int) -> np.ndarray:
    """Where bins of equally many rows end, int64 and increasing, the last at n. rising: sorted scores, float64 (n,).

    >>> bin_ends(np.array([0.1, 0.2, 0.2, 0.4]), 2)
    array([3, 4])
    """
    borders = np.quantile(rising, np.linspace(0, 1, bins + 1)[1:-1]) if len(rising) else np.zeros(0)
    return np.unique(np.append(np.searchsorted(rising, borders, "right"), len(rising)))


def chance_calibration_error(score: np.ndarray, bins: int, fate: np.ndarray | None = None) -> float:
    """The expected calibration error that these scores would show if they were the true probabilities.

    The mean over a few draws of outcomes. score: float64 (n,); fate: int64 (n,), rows with the same number are drawn
    together (with one and the same uniform number), because they have one answer; each row on its own by default.

    >>> chance_calibration_error(np.full(100, 0.5), 1) < 0.1
    True
    """
    order = np.argsort(score, kind="stable")
    return _chance(score[order], bins, order if fate is None else fate[order])


def _chance(rising: np.ndarray, bins: int, fate: np.ndarray) -> float:
    if not len(rising):
        return float("nan")
    ends = bin_ends(rising, bins)
    draws = range(min(max(_DRAWN_ROWS // len(rising), 2), _MOST_DRAWS))
    drawn = [_calibration_error(uniform(fate, _CHANCE, draw) < rising, rising, ends) for draw in draws]
    return float(np.mean(drawn))


def _fate(part: Slice, session: np.ndarray) -> np.ndarray:
    """A number for each row, int64 (n,), that it shares with the rows whose answer is the same question's: those of its
    session, or where answers change within sessions, those after the same event."""
    yes, rows = np.bincount(session, part.answer > 0), np.bincount(session)
    if ((yes == 0) | (yes == rows)).all():
        return session.astype(np.int64)
    return session.astype(np.int64) << 24 | part.prefix


def _calibration_error(target: np.ndarray, score: np.ndarray, ends: np.ndarray) -> float:
    gaps = np.add.reduceat(target - score, np.append(0, ends[:-1]))
    return float(np.abs(gaps).sum() / len(score))


def metrics(answer: np.ndarray, score: np.ndarray, bins: int) -> dict[str, float]:
    """The metrics of one set of rows of a yes-or-no question, without intervals.

    answer: 0 or 1; score: float64; both (n,).
    """
    names = ("base_rate", "auc", "pr_auc", "log_loss", "brier", "ece")
    both = 0 < answer.sum() < len(answer)
    if not len(answer):
        return dict.fromkeys(names, float("nan"))
    clipped = np.clip(score, _CLIP, 1 - _CLIP)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is missing is reported as NaN below
        return {
            "base_rate": float(answer.mean()),
            "auc": float(roc_auc_score(answer, score)) if both else float("nan"),
            "pr_auc": float(average_precision_score(answer, score)) if answer.any() else float("nan"),
            "log_loss": float(log_loss(answer, clipped, labels=[0, 1])),
            "brier": float(brier_score_loss(answer, score)),
            "ece": expected_calibration_error(answer, score, bins),
        }


def lift_name(share: float) -> str:
    """The column of the lift among so large a share of rows.

    >>> lift_name(0.05)
    'lift_5'
    """
    return f"lift_{100 * share:g}"


def evaluate(
    part: Slice, scores: Mapping[str, np.ndarray], settings: EvaluationSettings, task: str = "binary"
) -> pd.DataFrame:
    """One line for each age or segment (see `training.segments`) and model.

    scores: float64 (n,) by model; task: "binary" or "value". Columns: age, model, rows, sessions, visitors, base_rate
    (the share of rows with yes, or with an amount), the task's metrics (see BINARY and VALUE; `ece_noise` after the
    ECE), lift at each share, and `<metric>_low` and `<metric>_high` of each. Where rows of equal score lie at the
    border of a share, each of them counts in part, as it would on average.
    """
    names = (*(BINARY if task == "binary" else VALUE), *map(lift_name, settings.lift))
    lines = []
    for age, counts, found in _measured(part, scores, settings, task):
        for model, lanes in found.items():
            line: dict[str, object] = {"age": age, "model": model, **counts}
            for name in (*names, *(("ece_noise",) if task == "binary" else ())):
                line[name] = float(lanes[name][0])
            for name in names:
                low, high = interval(lanes[name], settings.confidence, centred=name == "ece")
                line[f"{name}_low"] = max(low, 0.0) if name == "ece" else low
                line[f"{name}_high"] = high
            lines.append(line)
    shown = [*names]
    if task == "binary":
        shown.insert(BINARY.index("ece") + 1, "ece_noise")
    bounds = [f"{name}_{bound}" for name in names for bound in ("low", "high")]
    return pd.DataFrame(lines, columns=["age", "model", *_COUNTS, *shown, *bounds])


def compare_scores(
    part: Slice, one: np.ndarray, other: np.ndarray, settings: EvaluationSettings, task: str = "binary"
) -> pd.DataFrame:
    """Two models on the same rows: one line for each age or segment.

    one, other: float64 (n,). Columns: age, rows, sessions, visitors, base_rate, and of each metric m (AUC, PR-AUC, log
    loss, Brier score and ECE; of amounts VALUE without the means) `m_one`, `m_other`, `m_difference` (other less one),
    and `m_low` and `m_high` of that difference, over the same resamples of both.
    """
    lines = []
    for age, counts, found in _measured(part, {"one": one, "other": other}, settings, task):
        line: dict[str, object] = {"age": age, **counts}
        for name in _COMPARED[task]:
            difference = found["other"][name] - found["one"][name]
            line[f"{name}_one"] = float(found["one"][name][0])
            line[f"{name}_other"] = float(found["other"][name][0])
            line[f"{name}_difference"] = float(difference[0])
            line[f"{name}_low"], line[f"{name}_high"] = interval(
                difference, settings.confidence, centred=name == "ece"
            )  # fmt: skip
        lines.append(line)
    parts = ("one", "other", "difference", "low", "high")
    columns = [f"{name}_{part}" for name in _COMPARED[task] for part in parts]
    return pd.DataFrame(lines, columns=["age", *_COUNTS, *columns])


def _measured(
    part: Slice, scores: Mapping[str, np.ndarray], settings: EvaluationSettings, task: str
) -> Iterator[tuple[str, dict[str, object], dict[str, Lanes]]]:
    """Of each age and segment: its name, its counts, and by model the lanes of each metric."""
    drawn = resample_visitors(part.visitor, settings.resamples)
    narrowed = {drawn.weights.shape[1] - 1: drawn}
    _, session = np.unique(part.session, return_inverse=True)
    answer, fate = part.answer.astype(np.float64), _fate(part, session)
    measure = _binary_lanes if task == "binary" else _value_lanes
    with ThreadPoolExecutor(2) as pool:  # the compiled passes and the sorting let go of the interpreter
        scored = {model: np.asarray(score, np.float64) for model, score in scores.items()}
        orders = dict(
            zip(scored, pool.map(lambda score: np.argsort(-score, kind="stable"), scored.values()), strict=True)
        )
        for age, chosen in (ages(part, settings) | segments(part, settings)).items():
            rows = int(chosen.sum())
            resamples = min(settings.resamples, max(_MOST_WORK // max(rows, 1), _LEAST_RESAMPLES))
            lanes = narrowed.setdefault(resamples, drawn.narrowed(resamples))

            def of_model(model: str, chosen: np.ndarray = chosen, lanes: Resamples = lanes) -> Lanes:
                order = orders[model]
                order = order[chosen[order]]
                return measure(answer[order], scored[model][order], lanes.take(order), fate[order], settings)

            counts: dict[str, object] = {
                "rows": rows,
                "sessions": np.count_nonzero(np.bincount(session[chosen])),
                "visitors": np.count_nonzero(np.bincount(drawn.number[chosen])),
                "base_rate": float((answer[chosen] > 0).mean()) if rows else float("nan"),
            }
            yield age, counts, dict(zip(scored, pool.map(of_model, scored), strict=True))


def _binary_lanes(
    answer: np.ndarray, score: np.ndarray, drawn: Resamples, fate: np.ndarray, settings: EvaluationSettings
) -> Lanes:
    """All lanes of all metrics; answer, score: float64 (n,), by falling score; fate: see `_fate`."""
    size = len(answer)
    ranks = ranked(score, np.arange(size))
    rising = score[::-1]
    ends = np.append(size - bin_ends(rising, settings.bins)[:-1][::-1], size)
    ranking = binary_ranking(answer, ranks, ends, drawn)
    likely = np.clip(score, _CLIP, 1 - _CLIP)
    loss = -np.where(answer > 0, np.log(likely), np.log1p(-likely))
    rows, positives, losses, squares = weighted_sums([np.ones(size), answer, loss, (score - answer) ** 2], drawn)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "auc": ranking.auc,
            "pr_auc": ranking.pr_auc,
            "pr_auc_ratio": ranking.pr_auc / (positives / rows),
            "log_loss": losses / rows,
            "brier": squares / rows,
            "ece": ranking.ece,
            "ece_noise": np.array([_chance(rising, settings.bins, fate[::-1])]),
            **_lifts(answer, ranks, drawn, settings.lift, positives),
        }


def _value_lanes(
    answer: np.ndarray, score: np.ndarray, drawn: Resamples, fate: np.ndarray, settings: EvaluationSettings
) -> Lanes:
    """As `_binary_lanes`, of amounts."""
    del fate
    ranks = ranked(score, np.arange(len(answer)))
    columns = [np.ones(len(answer)), answer, score, abs(score - answer), (score - answer) ** 2, np.sqrt(answer),
               _deviance(answer, score)]  # fmt: skip
    rows, total, predicted, distance, squares, roots, deviance = weighted_sums(columns, drawn)
    with np.errstate(invalid="ignore", divide="ignore"):
        # the deviance of the mean as score: with power 1.5 its sum is 8 (n sqrt(mean) - sum of sqrt(answer))
        none = 8 * (np.sqrt(total * rows) - roots)
        return {
            "mean": total / rows,
            "predicted": predicted / rows,
            "ratio": np.where(total > 0, predicted / total, np.nan),
            "mae": distance / rows,
            "rmse": np.sqrt(squares / rows),
            "d2": np.where(none > 0, 1 - deviance / none, np.nan),
            "spearman": spearman(answer, ranks, drawn),
            **_lifts(answer, ranks, drawn, settings.lift, total),
        }


def _deviance(answer: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Tweedie deviance of each row, power 1.5: 2 (y^(2-p) / ((1-p)(2-p)) - y m^(1-p) / (1-p) + m^(2-p) / (2-p))."""
    power, mean = _TWEEDIE_POWER, np.maximum(score, _LEAST_AMOUNT)
    of_answer = answer ** (2 - power) / ((1 - power) * (2 - power))
    return 2 * (of_answer - answer * mean ** (1 - power) / (1 - power) + mean ** (2 - power) / (2 - power))


def _lifts(answer: np.ndarray, ranks: Ranked, drawn: Resamples, shares: Sequence[float], total: np.ndarray) -> Lanes:
    found = captured(answer, ranks, drawn, shares)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            lift_name(share): np.where(total > 0, found[k] / (share * total), np.nan) for k, share in enumerate(shares)
        }

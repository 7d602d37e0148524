"""The inner folds: what early stopping, penalties, tuning and calibration rest on, all of it inside the past.

Visitors are cut into folds by a hash. To choose (`cross_fit`), each fold is validated on its own visitors' sessions
that began after `inner_from` of the past's time (and a gap of one timeout), with a model learned from the other
visitors' sessions whose outcome was known before: rows later than all that the model saw, of visitors it never saw. To
calibrate (`out_of_fold`), all of each fold's rows are scored by a model learned from all the past of the other
visitors. A model that knows the first part of the past alone is off by what has changed since, which the final one is
not: calibrated by such, scores of the simulated shop were off by 0.03. A long log needs few folds: no more are made
once enough rows are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import lightgbm as lgb
import numpy as np

from training.boosting import Tick, boost
from training.config import TrainingSettings
from training.datasets import FOLDED, Slice, uniform
from training.heads import Head
from training.linear import LinearModel, fit_linear
from training.losses import score_loss

AfterFold = Callable[[int, float], None]
# A fold with fewer rows on either side tells nothing.
_LEAST_ROWS: Final = 50
# To choose by, and to calibrate by.
_ENOUGH_TO_CHOOSE: Final = 50_000
ENOUGH_TO_CALIBRATE: Final = 300_000


@dataclass(frozen=True)
class InnerFold:
    """Positions in the past, int64: what is learned from and what is scored."""

    train: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class CrossFit:
    """What the inner folds say of a recipe.

    Attributes
    ----------
    rows: how many were validated on, 0 where the past is too short for a fold.
    log_loss: mean loss of these rows (Tweedie deviance for amounts).
    inverse_penalty: the linear model's C of least loss; rounds: trees of least loss, 0 for none.
    """

    rows: int
    log_loss: float
    inverse_penalty: float
    rounds: int


def inner_folds(past: Slice, settings: TrainingSettings, *, later: bool = True) -> list[InnerFold]:
    """The folds of the past, those with too few rows or a single answer on one side left out.

    later: whether models learn only from what was known before the rows that they are validated on, or from all.
    """
    if not len(past):
        return []
    split = settings.split
    first, last = past.started.min(), past.known_at.max()
    border = first + split.inner_from * (last - first)
    known = past.known_at <= border + settings.timeout_ms if later else np.ones(len(past), bool)
    scored = past.started >= border + settings.timeout_ms if later else np.ones(len(past), bool)
    fold = (uniform(past.visitor, FOLDED, split.seed) * max(split.inner_folds, 2)).astype(np.int64)
    found: list[InnerFold] = []
    for number in range(split.inner_folds):
        one = InnerFold(np.flatnonzero(known & (fold != number)), np.flatnonzero(scored & (fold == number)))
        if all(_tells(past.answer[side]) for side in (one.train, one.valid)):
            found.append(one)
        if sum(len(one.valid) for one in found) >= (_ENOUGH_TO_CHOOSE if later else ENOUGH_TO_CALIBRATE):
            break
    return found


def _tells(answer: np.ndarray) -> bool:
    return len(answer) >= _LEAST_ROWS and answer.min() < answer.max()


def cross_fit(
    past: Slice,
    head: Head,
    settings: TrainingSettings,
    tick: Tick | None = None,
    after_fold: AfterFold | None = None,
) -> CrossFit:
    """Fit the recipe on each inner fold and choose by its loss on later rows of visitors it has not seen.

    tick: called with (trees, most trees), over all folds; after_fold: called with (number of the fold, mean loss so
    far) and may raise, to stop a trial that leads nowhere.
    """
    folds = inner_folds(past, settings)
    if not folds:
        return CrossFit(0, float("nan"), min(settings.linear.inverse_penalties), 0)
    linears, inverse_penalty = _best_linear(past, folds, head, settings)
    curves, sizes = [], [len(one.valid) for one in folds]
    most = settings.lightgbm.num_boost_round
    for number, (one, linear) in enumerate(zip(folds, linears, strict=True)):
        part = _of_fold(past, one)
        start = linear.margin(part.matrix)
        train, valid = np.arange(len(one.train)), np.arange(len(one.train), len(part))
        within = _within(tick, number, len(folds))
        _, curve = boost(part, train, start, head, settings, valid=valid, tick=within)
        # what no tree gives comes first; after the last one the fold has stopped
        none = score_loss(part.answer[valid], start[valid], head.task)
        curves.append(np.concatenate([[none], curve, np.full(most - len(curve), curve[-1])]))
        if after_fold:
            after_fold(number, float(np.average(curves, axis=0, weights=sizes[: len(curves)]).min()))
    curve = np.average(curves, axis=0, weights=sizes)
    return CrossFit(sum(sizes), float(curve.min()), inverse_penalty, int(curve.argmin()))


def out_of_fold(
    past: Slice, head: Head, settings: TrainingSettings, chosen: CrossFit, tick: Tick | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores of the past's rows by the chosen recipe, learned from all the past of other visitors.

    Returns positions in the past, int64 (k,), and raw scores, float64 (k,).
    """
    folds = inner_folds(past, settings, later=False)
    margins = []
    for number, one in enumerate(folds):
        linear, booster = fit_recipe(past.take(one.train), head, settings, chosen, _within(tick, number, len(folds)))
        matrix = past.matrix[one.valid]
        trees = booster.predict(matrix, raw_score=True, num_iteration=chosen.rounds) if chosen.rounds else 0.0
        margins.append(linear.margin(matrix) + trees)
    if not folds:
        return np.zeros(0, np.int64), np.zeros(0)
    return np.concatenate([one.valid for one in folds]), np.concatenate(margins)


def fit_recipe(
    part: Slice, head: Head, settings: TrainingSettings, chosen: CrossFit, tick: Tick | None = None
) -> tuple[LinearModel, lgb.Booster]:
    """The linear model and the trees on top of it, as many as were chosen (at least one is made)."""
    (linear,) = fit_linear(part, head, settings.linear, (chosen.inverse_penalty,))
    start = linear.margin(part.matrix)
    booster, _ = boost(part, None, start, head, settings, rounds=max(chosen.rounds, 1), tick=tick)
    return linear, booster


def _best_linear(
    past: Slice, folds: Sequence[InnerFold], head: Head, settings: TrainingSettings
) -> tuple[list[LinearModel], float]:
    """Each fold's linear model with the penalty that is best over all folds."""
    penalties = settings.linear.inverse_penalties
    fitted = [fit_linear(past.take(one.train), head, settings.linear, penalties) for one in folds]
    losses = np.zeros(len(penalties))
    for one, models in zip(folds, fitted, strict=True):
        part = past.take(one.valid)
        losses += [score_loss(part.answer, model.margin(part.matrix), head.task) * len(part) for model in models]
    best = int(losses.argmin())
    return [models[best] for models in fitted], penalties[best]


def _of_fold(past: Slice, one: InnerFold) -> Slice:
    """The fold's rows, those learned from first."""
    return past.take(np.concatenate([one.train, one.valid]))


def _within(tick: Tick | None, number: int, folds: int) -> Tick | None:
    """Progress of one fold as progress of all."""
    if tick is None:
        return None
    return lambda done, most: tick(number * most + done, folds * most)

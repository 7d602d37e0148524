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
from dataclasses import dataclass, field
from typing import Final

import lightgbm as lgb
import numpy as np

from training.boosting import Tick, boost
from training.config import TrainingSettings
from training.datasets import FOLDED, Slice, uniform
from training.heads import Head
from training.linear import LinearModel, constant_model, fit_linear
from training.losses import row_losses, score_loss

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
    inverse_penalty: C of the linear model that the trees start from, 0 where they are alone; rounds: trees of least
        loss, 0 for none.
    """

    rows: int
    log_loss: float
    inverse_penalty: float
    rounds: int

    def applied(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings that the trees are grown with."""
        return settings.on_a_line() if self.inverse_penalty else settings


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

    Trees alone, and for a past of at most `linear.max_rows` rows trees on a linear model. Those on the line are taken
    where there are fewer than `linear.visitors`, the others where there are more, unless the other way is better by
    more than a standard error.

    tick: called with (trees, most trees), over all folds; after_fold: called with (number of the fold, mean loss so
    far) and may raise, to stop a trial that leads nowhere.
    """
    folds = inner_folds(past, settings)
    small = len(past) <= settings.linear.max_rows
    if not folds:
        return CrossFit(0, float("nan"), min(settings.linear.inverse_penalties) if small else 0.0, 0)
    constants = [constant_model(past.answer[one.train], head) for one in folds]
    ways = [_Way(head, settings, 0.0, constants)]
    if small:
        linears, inverse_penalty = _best_linear(past, folds, head, settings)
        ways.append(_Way(head, settings.on_a_line(), inverse_penalty, linears))
    for number, one in enumerate(folds):
        part = _of_fold(past, one)
        for place, way in enumerate(ways):
            way.follow(part, len(one.train), _within(tick, number * len(ways) + place, len(folds) * len(ways)))
        if after_fold:
            after_fold(number, min(float(way.curve.min()) for way in ways))
    best = ways[0]
    if small:
        best, other = reversed(ways) if len(np.unique(past.visitor)) < settings.linear.visitors else ways
        visitor = past.visitor[np.concatenate([one.valid for one in folds])]
        if surely_less(other.losses(past, folds), best.losses(past, folds), visitor):
            best = other
    rows = sum(len(one.valid) for one in folds)
    return CrossFit(rows, float(best.curve.min()), best.inverse_penalty, int(best.curve.argmin()))


@dataclass
class _Way:
    """One start of the trees, followed over the inner folds.

    starts: a linear model a fold; margins, curves, boosters: of the folds so far, what it says of the rows that were
    validated on, their mean loss after each number of trees, none first, and the trees.
    """

    head: Head
    settings: TrainingSettings
    inverse_penalty: float
    starts: Sequence[LinearModel]
    margins: list[np.ndarray] = field(default_factory=list)
    curves: list[np.ndarray] = field(default_factory=list)
    boosters: list[lgb.Booster] = field(default_factory=list)

    def follow(self, part: Slice, learned: int, tick: Tick | None) -> None:
        """Boost on the first `learned` rows of the next fold until the loss of the others rises."""
        start = self.starts[len(self.curves)].margin(part.matrix)
        train, valid = np.arange(learned), np.arange(learned, len(part))
        booster, curve = boost(part, train, start, self.head, self.settings, valid=valid, tick=tick)
        none = score_loss(part.answer[valid], start[valid], self.head.task)
        # after the last tree the fold has stopped
        rest = np.full(self.settings.lightgbm.num_boost_round - len(curve), curve[-1])
        self.curves.append(np.concatenate([[none], curve, rest]))
        self.margins.append(start[valid])
        self.boosters.append(booster)

    @property
    def curve(self) -> np.ndarray:
        """Mean loss over the folds so far after each number of trees, float64 (most trees + 1,)."""
        return np.asarray(np.average(self.curves, axis=0, weights=[len(margin) for margin in self.margins]))

    def losses(self, past: Slice, folds: Sequence[InnerFold]) -> np.ndarray:
        """Loss of every row that was validated on, with as many trees as are best: float64, fold after fold."""
        rounds, found = int(self.curve.argmin()), []
        for one, margin, booster in zip(folds, self.margins, self.boosters, strict=True):
            trees = booster.predict(past.matrix[one.valid], raw_score=True, num_iteration=rounds) if rounds else 0.0
            found.append(row_losses(past.answer[one.valid], margin + trees, self.head.task))
        return np.concatenate(found)


def surely_less(one: np.ndarray, other: np.ndarray, visitor: np.ndarray) -> bool:
    """Whether losses are less than others of the same rows by more than a standard error of the mean.

    visitor: of each row; what is drawn at random are visitors. All arrays (n,).
    """
    _, number = np.unique(visitor, return_inverse=True)
    difference = one - other
    mean = difference.mean()
    by_visitor = np.bincount(number, difference - mean)
    return bool(mean < -np.sqrt((by_visitor**2).sum()) / len(difference))


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
    """What the trees start from and the trees, as many as were chosen (at least one is made)."""
    if chosen.inverse_penalty:
        (linear,) = fit_linear(part, head, settings.linear, (chosen.inverse_penalty,))
    else:
        linear = constant_model(part.answer, head)
    start = linear.margin(part.matrix)
    booster, _ = boost(part, None, start, head, chosen.applied(settings), rounds=max(chosen.rounds, 1), tick=tick)
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

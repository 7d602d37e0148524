"""Turning a model's margin into a probability, or an amount, at every session age.

A sigmoid a session age (Platt 1999), fitted on rows the model has not seen. Ages are cells of events so far and seconds
of silence. The common sigmoid is refined by events, by silence, by both; each step is held to what it refines, the
common one to the identity, by a ridge penalty: an age with few visitors stays with its elders, a small log with the
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from training.config import CalibrationSettings
from training.datasets import Slice
from training.losses import score_loss

# Where the ages stand in a feature vector.
AGE_FEATURES: Final = ("events", "idle_seconds")
_KINDS: Final = {"binary": "sigmoid_by_age", "value": "exp_by_age"}
_NEWTON_STEPS: Final = 25
# Priors are compared over so many folds of visitors, on so many rows at most.
_FOLDS: Final = 5
_MOST_ROWS: Final = 100_000


@dataclass(frozen=True)
class Calibration:
    """score = link(slope[i, j] * margin + intercept[i, j]) at age (i, j): sigmoid, or exp for amounts.

    events: int (E,), idle_seconds: float (I,), the lower ends of the ages, increasing; slope, intercept: float64
    (E, I).

    >>> identity = Calibration.identity("binary")
    >>> identity(np.zeros(1), np.ones(1), np.zeros(1))
    array([0.5])
    """

    task: str
    events: tuple[int, ...]
    idle_seconds: tuple[float, ...]
    slope: np.ndarray
    intercept: np.ndarray

    @classmethod
    def identity(cls, task: str) -> Calibration:
        """Scores as they are, at every age."""
        return cls(task, (1,), (0.0,), np.ones((1, 1)), np.zeros((1, 1)))

    def cell(self, events: np.ndarray, idle_seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The age (i, j) of each row, int64 (n,) both."""
        return _place(self.events, events), _place(self.idle_seconds, idle_seconds)

    def __call__(self, margin: np.ndarray, events: np.ndarray, idle_seconds: np.ndarray) -> np.ndarray:
        """Probabilities, or amounts, of margins; all (n,)."""
        return _link(self.linear(margin, events, idle_seconds), self.task)

    def linear(self, margin: np.ndarray, events: np.ndarray, idle_seconds: np.ndarray) -> np.ndarray:
        """Calibrated margins, all (n,): scores before the link."""
        at = self.cell(events, idle_seconds)
        return self.slope[at] * margin + self.intercept[at]

    def as_json(self) -> dict[str, object]:
        """How the model folder says it."""
        return {
            "kind": _KINDS[self.task],
            "events": list(self.events),
            "idle_seconds": list(self.idle_seconds),
            "slope": self.slope.tolist(),
            "intercept": self.intercept.tolist(),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Calibration:
        """What `as_json` wrote."""
        (task,) = (task for task, kind in _KINDS.items() if kind == found["kind"])
        return cls(
            task,
            tuple(found["events"]),
            tuple(found["idle_seconds"]),
            np.array(found["slope"], np.float64),
            np.array(found["intercept"], np.float64),
        )


def fit_calibration(margin: np.ndarray, part: Slice, task: str, settings: CalibrationSettings) -> Calibration:
    """The calibration of least loss; the identity where fewer than `min_positives` sessions have a yes.

    margin: float64 (n,), of rows that the model has not seen; part: these rows. How strongly ages are held is chosen
    among `priors` by the loss on other visitors' rows.
    """
    if part.positive_sessions < settings.min_positives or (task == "binary" and part.answer.all()):
        return Calibration.identity(task)
    prior = _best_prior(margin, part, task, settings)
    return _fit(margin, part, task, settings, prior)


def _best_prior(margin: np.ndarray, part: Slice, task: str, settings: CalibrationSettings) -> float:
    """The prior of least loss over folds of visitors."""
    chosen = part.thinned_positions(_MOST_ROWS)
    margin, part = margin[chosen], part.take(chosen)
    _, number = np.unique(part.visitor, return_inverse=True)
    losses = np.zeros(len(settings.priors))
    for fold in range(_FOLDS):
        held = number % _FOLDS == fold
        learned, scored = part.take(~held), part.take(held)
        if not len(scored) or not learned.answer.any():
            continue
        ages = [scored.column(name) for name in AGE_FEATURES]
        for place, prior in enumerate(settings.priors):
            found = _fit(margin[~held], learned, task, settings, prior)
            losses[place] += score_loss(scored.answer, found.linear(margin[held], *ages), task) * len(scored)
    return settings.priors[int(losses.argmin())]


def _fit(margin: np.ndarray, part: Slice, task: str, settings: CalibrationSettings, prior: float) -> Calibration:
    """The common sigmoid, held to the identity, then that of each age, held to what it refines."""
    shape = len(settings.events), len(settings.idle_seconds)
    found = Calibration(task, settings.events, settings.idle_seconds, np.ones(shape), np.zeros(shape))
    i, j = found.cell(*(part.column(name) for name in AGE_FEATURES))
    cell = i * shape[1] + j
    scale = float(margin.std()) or 1.0
    slope, intercept = found.slope.reshape(-1), found.intercept.reshape(-1)  # views
    cells = np.arange(shape[0] * shape[1])
    # which group each age is in: all in one, by events, by silence, each alone
    for groups in (np.zeros_like(cells), cells // shape[1], cells % shape[1], cells):
        group = groups[cell]
        linear = found.slope[i, j] * margin + found.intercept[i, j]
        for place in np.unique(group):
            rows = np.flatnonzero(group == place)
            # as much as `prior` visitors would tell: rows of one visitor agree too much to count one by one
            weight = prior * len(rows) / len(np.unique(part.visitor[rows]))
            penalty = weight * _information(linear[rows], part.answer[rows], task)
            more, shift = _newton(margin[rows] / scale, part.answer[rows], linear[rows], task, penalty)
            at = groups == place
            # an age may be flatter or steeper than its elders, never upside down
            slope[at] = np.maximum(slope[at] + more / scale, 0.0)
            intercept[at] += shift
    return found


def _newton(x: np.ndarray, answer: np.ndarray, offset: np.ndarray, task: str, penalty: float) -> tuple[float, float]:
    """Slope and intercept on top of the offset of least loss plus penalty / 2 * (slope^2 + intercept^2)."""
    found = np.zeros(2)
    design = np.column_stack([x, np.ones(len(x))])
    best = _objective(found, design, answer, offset, task, penalty)
    for _ in range(_NEWTON_STEPS):
        score = _link(design @ found + offset, task)
        weight = np.maximum(score * (1 - score), 1e-9) if task == "binary" else np.maximum(score, 1e-9)
        gradient = design.T @ (score - answer) + penalty * found
        hessian = (design * weight[:, None]).T @ design + penalty * np.eye(2) + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        for _ in range(30):  # halve a step that overshoots
            loss = _objective(found - step, design, answer, offset, task, penalty)
            if loss <= best:
                break
            step = step / 2
        else:
            break
        found, done = found - step, best - loss < 1e-10 * max(abs(best), 1.0)
        best = loss
        if done:
            break
    return float(found[0]), float(found[1])


def _objective(
    found: np.ndarray, design: np.ndarray, answer: np.ndarray, offset: np.ndarray, task: str, penalty: float
) -> float:
    linear = design @ found + offset
    loss = np.logaddexp(0.0, linear) if task == "binary" else np.exp(np.minimum(linear, 500.0))
    return float((loss - answer * linear).sum() + penalty / 2 * (found @ found))


def _information(linear: np.ndarray, answer: np.ndarray, task: str) -> float:
    """What a row tells about its score on the link's scale: p (1 - p), or the mean squared deviation over the mean."""
    score = _link(linear, task)
    if task == "binary":
        return float(np.mean(score * (1 - score)))
    return max(float(np.mean((answer - score) ** 2) / max(score.mean(), 1e-12)), 1e-12)


def _link(linear: np.ndarray, task: str) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-linear)) if task == "binary" else np.exp(linear)


def _place(ends: tuple[float, ...], values: np.ndarray) -> np.ndarray:
    return np.maximum(np.searchsorted(ends, values, "right") - 1, 0)

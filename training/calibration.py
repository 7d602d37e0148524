"""Turning a model's margin into a probability, or an amount, at every session age.

A sigmoid a session age (Platt 1999) around a curve that all ages share, fitted on rows the model has not seen. The
curve mends what no sigmoid can: trees held back by a penalty never say "never", not even of robots, and what they spare
there they add elsewhere. It is linear between knots, so it costs the service two comparisons. Ages are cells of events
so far and seconds of silence. The common sigmoid is refined by events, by silence, by both; each step is held to what
it refines, the common one and the curve to the identity, by a ridge penalty: an age with few visitors stays with its
elders, a small log with the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from training.config import CalibrationSettings
from training.datasets import Slice
from training.losses import score_loss

# Where the ages stand in a feature vector.
AGE_FEATURES: Final = ("events", "idle_seconds")
_KINDS: Final = {"binary": "sigmoid_by_age", "value": "exp_by_age", "uplift": "identity_by_age"}
_NEWTON_STEPS: Final = 25
# The curve of a small log would be its noise: so many positive sessions carry a knot.
_POSITIVES_A_KNOT: Final = 300
# Between which quantiles of the margins the knots stand, evenly.
_KNOTS_WITHIN: Final = (0.02, 0.98)
# Priors are compared over so many folds of visitors, on so many rows at most.
_FOLDS: Final = 5
_MOST_ROWS: Final = 100_000


@dataclass(frozen=True)
class Calibration:
    """score = link(slope[i, j] * margin + intercept[i, j] + curve(margin)) at age (i, j): sigmoid, or exp for amounts,
    or none for uplift.

    events: int (E,), idle_seconds: float (I,), the lower ends of the ages, increasing; slope, intercept: float64
    (E, I); knots, values: float64 (K,), of the curve, which is linear between knots and constant beyond; 0 without any.

    >>> identity = Calibration.identity("binary")
    >>> identity(np.zeros(1), np.ones(1), np.zeros(1))
    array([0.5])
    """

    task: str
    events: tuple[int, ...]
    idle_seconds: tuple[float, ...]
    slope: np.ndarray
    intercept: np.ndarray
    knots: np.ndarray = field(default_factory=lambda: np.zeros(0))
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))

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
        curve = np.interp(margin, self.knots, self.values) if len(self.knots) else 0.0
        return self.slope[at] * margin + self.intercept[at] + curve

    def as_json(self) -> dict[str, object]:
        """How the model folder says it."""
        return {
            "kind": _KINDS[self.task],
            "events": list(self.events),
            "idle_seconds": list(self.idle_seconds),
            "slope": self.slope.tolist(),
            "intercept": self.intercept.tolist(),
            "knots": self.knots.tolist(),
            "values": self.values.tolist(),
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
            np.array(found["knots"], np.float64),
            np.array(found["values"], np.float64),
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
    """The common sigmoid and the curve, held to the identity, then the sigmoid of each age, held to what it refines."""
    shape = len(settings.events), len(settings.idle_seconds)
    found = Calibration(task, settings.events, settings.idle_seconds, np.ones(shape), np.zeros(shape))
    i, j = found.cell(*(part.column(name) for name in AGE_FEATURES))
    cell = i * shape[1] + j
    scale = float(margin.std()) or 1.0
    straight = np.column_stack([margin / scale, np.ones(len(margin))])
    number = min(settings.knots, part.positive_sessions // _POSITIVES_A_KNOT)
    knots = np.unique(np.quantile(margin, np.linspace(*_KNOTS_WITHIN, number)))
    knots = knots if len(knots) > 1 else knots[:0]
    curved = np.hstack([straight, _hats(margin, knots)]) if len(knots) else straight
    slope, intercept = found.slope.reshape(-1), found.intercept.reshape(-1)  # views
    values = np.zeros(len(knots))
    cells = np.arange(shape[0] * shape[1])
    linear = margin.copy()
    # which group each age is in: all in one, which also has the curve, by events, by silence, each alone
    rounds = [(np.zeros_like(cells), curved), *((g, straight) for g in (cells // shape[1], cells % shape[1], cells))]
    for groups, columns in rounds:
        group = groups[cell]
        for place in np.unique(group):
            rows = np.flatnonzero(group == place)
            # as much as `prior` visitors would tell: rows of one visitor agree too much to count one by one
            weight = prior * len(rows) / len(np.unique(part.visitor[rows]))
            penalty = weight * _information(linear[rows], part.answer[rows], task)
            design = columns[rows]
            weights = _newton(design, part.answer[rows], linear[rows], task, penalty)
            at = groups == place
            slope[at] += weights[0] / scale
            intercept[at] += weights[1]
            if len(weights) > 2:
                values = weights[2:]
            linear[rows] += design @ weights
    # an age may be flatter or steeper than its elders, never upside down
    steepest_fall = (np.diff(values) / np.diff(knots)).min(initial=0.0) if len(values) else 0.0
    np.maximum(slope, -steepest_fall, out=slope)
    return replace(found, knots=knots, values=values)


def _hats(margin: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """How near each margin is to each of K > 1 knots: float64 (n, K), rows sum to 1."""
    within = np.clip(margin, knots[0], knots[-1])
    left = np.clip(np.searchsorted(knots, within, "right") - 1, 0, len(knots) - 2)
    share = (within - knots[left]) / (knots[left + 1] - knots[left])
    found, rows = np.zeros((len(margin), len(knots))), np.arange(len(margin))
    found[rows, left], found[rows, left + 1] = 1.0 - share, share
    return found


def _newton(design: np.ndarray, answer: np.ndarray, offset: np.ndarray, task: str, penalty: float) -> np.ndarray:
    """Weights of the design's columns, on top of the offset, of least loss plus penalty / 2 * (their squares)."""
    found = np.zeros(design.shape[1])
    ridge = np.eye(len(found))
    best = _objective(found, design, answer, offset, task, penalty)
    for _ in range(_NEWTON_STEPS):
        score = _link(design @ found + offset, task)
        weight = np.maximum(score * (1 - score), 1e-9) if task == "binary" else np.maximum(score, 1e-9)
        gradient = design.T @ (score - answer) + penalty * found
        hessian = (design * weight[:, None]).T @ design + (penalty + 1e-9) * ridge
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
    return found


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
    if task == "uplift":
        return linear
    return 1.0 / (1.0 + np.exp(-linear)) if task == "binary" else np.exp(linear)


def _place(ends: tuple[float, ...], values: np.ndarray) -> np.ndarray:
    return np.maximum(np.searchsorted(ends, values, "right") - 1, 0)

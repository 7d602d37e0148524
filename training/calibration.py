"""Turning a model's margin into a probability: a sigmoid fitted on sessions the model has not seen (Platt 1999)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression


@dataclass(frozen=True)
class Sigmoid:
    """score = 1 / (1 + exp(-(slope * margin + intercept))).

    >>> round(float(Sigmoid(1.0, 0.0)(np.array([0.0]))[0]), 3)
    0.5
    """

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, margin: np.ndarray) -> np.ndarray:
        """Probabilities of margins, both float64 (n,)."""
        return 1.0 / (1.0 + np.exp(-(self.slope * margin + self.intercept)))

    def as_json(self) -> dict[str, object]:
        """How the model folder says it."""
        return {"kind": "sigmoid", **asdict(self)}


def fit_sigmoid(margin: np.ndarray, answer: np.ndarray, *, positive_sessions: int, least: int) -> Sigmoid:
    """The sigmoid of least log loss; the identity where the slice has fewer than `least` positive sessions.

    margin: float64 (n,); answer: u1 (n,). A model that learned nothing must not be turned upside down by noise, so a
    slope below zero becomes the identity too.
    """
    if positive_sessions < least or answer.all() or not answer.any():
        return Sigmoid()
    model = LogisticRegression(C=np.inf, max_iter=200).fit(margin[:, None], answer)
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    return Sigmoid(slope, intercept) if slope > 0 else Sigmoid()

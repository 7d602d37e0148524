"""What is minimised: log loss of answers by yes and no, Tweedie deviance of amounts."""

from __future__ import annotations

from typing import Final

import numpy as np

# Between Poisson (1) and gamma (2): most sessions bring nothing, the others an amount with a long tail.
TWEEDIE_POWER: Final = 1.5


def row_losses(answer: np.ndarray, margin: np.ndarray, task: str) -> np.ndarray:
    """Loss of each raw score: log loss, or the part of the Tweedie deviance that LightGBM reports. All float (n,)."""
    if task == "binary":
        return np.asarray(np.logaddexp(0.0, margin) - answer * margin)
    # -y mu^(1-p) / (1-p) + mu^(2-p) / (2-p), as LightGBM's tweedie metric
    power = TWEEDIE_POWER
    return np.asarray(-answer * np.exp((1 - power) * margin) / (1 - power) + np.exp((2 - power) * margin) / (2 - power))


def score_loss(answer: np.ndarray, margin: np.ndarray, task: str) -> float:
    """The mean of `row_losses`."""
    return float(row_losses(answer, margin, task).mean())

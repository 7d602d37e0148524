"""What is minimised: log loss of answers by yes and no, Tweedie deviance of amounts."""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn.metrics import log_loss

# Between Poisson (1) and gamma (2): most sessions bring nothing, the others an amount with a long tail.
TWEEDIE_POWER: Final = 1.5


def score_loss(answer: np.ndarray, margin: np.ndarray, task: str) -> float:
    """Mean loss of raw scores: log loss, or the part of the Tweedie deviance that LightGBM reports. Both float (n,)."""
    if task == "binary":
        return float(log_loss(answer, 1.0 / (1.0 + np.exp(-margin)), labels=[0, 1]))
    # -y mu^(1-p) / (1-p) + mu^(2-p) / (2-p), as LightGBM's tweedie metric
    power = TWEEDIE_POWER
    return float(
        np.mean(-answer * np.exp((1 - power) * margin) / (1 - power) + np.exp((2 - power) * margin) / (2 - power))
    )

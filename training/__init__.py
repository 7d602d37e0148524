"""From a history of events to honest, calibrated, registered models."""

from __future__ import annotations

from pathlib import Path


def served_model_path() -> Path:
    """The script that a registered model carries as its code."""
    return Path(__file__).with_name("served_model.py")

"""A simulated shop whose visitors' true probabilities are known: input for the demo, truth for the tests."""

from __future__ import annotations

from simulation.shop import Simulated, simulate

__all__ = ["Simulated", "simulate"]

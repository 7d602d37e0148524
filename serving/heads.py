"""A head as it lies in the registry: a folder with the trees, the learned tables and what is to be known about them."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from features.tables import NOTHING_LEARNED, Tables
from serving.forest import UnsupportedTreeError
from serving.panel import AGE, LINKS, Panel
from serving.treeshap import TreeShap

FORMAT: Final = 2
# A feature of this name is another head's score of the same moment; they come after those of the fold.
SCORE: Final = "score."
# Trees are summed in double precision in the same order everywhere; only the link's library may differ.
GOLDEN_TOLERANCE: Final = 1e-9


class ModelError(ValueError):
    """A model folder that cannot score: says what is wrong with it."""


class Calibration(msgspec.Struct):
    """What turns a margin into a score: link(slope * margin + intercept + curve(margin)) of the session's age.

    events (E,), idle_seconds (I,): the lower ends of the ages; slope, intercept: (E, I); knots, values (K,): of the
    curve, linear between its knots and constant beyond.
    """

    kind: str
    events: list[float]
    idle_seconds: list[float]
    slope: list[list[float]]
    intercept: list[list[float]]
    knots: list[float]
    values: list[float]

    def lacks(self) -> str:
        """What is missing in it, nothing where it is whole."""
        shape = [len(self.idle_seconds)] * len(self.events)
        if not shape or any([len(line) for line in grid] != shape for grid in (self.slope, self.intercept)):
            return "a slope and an intercept for each age"
        rising = all(one < other for one, other in pairwise(self.knots))
        return "" if rising and len(self.knots) == len(self.values) else "a value for each knot, rising"

    def pieces(self) -> tuple[list[float], list[float], list[float]]:
        """Of each piece of the curve, before, between, after the knots: its start, its value there, its slope."""
        if not self.knots:
            return [0.0], [0.0], [0.0]
        rises = [
            (at_end - at_start) / (end - start)
            for (start, at_start), (end, at_end) in pairwise(zip(self.knots, self.values, strict=True))
        ]
        return [self.knots[0], *self.knots], [self.values[0], *self.values], [0.0, *rises, 0.0]


class Golden(msgspec.Struct):
    """A row and the score it had in training."""

    row: list[float | None]
    score: float


class Decided(msgspec.Struct):
    """When the answer is known: any of `when` (feature, at least) holds; then it is `value`."""

    when: list[tuple[str, float]]
    value: float


class About(msgspec.Struct):
    """head.json of a model folder."""

    format: int
    head: str
    features: list[str]
    feature_digest: str
    calibration: Calibration
    base_rate: float
    golden: Golden
    tables_digest: str = ""
    decided: Decided | None = None
    needs: list[str] = []


class Head:
    """One loaded model.

    Attributes
    ----------
    features: of the fold, in the order of the model's rows; asks: heads whose scores come after them, in that order.
    """

    def __init__(self, folder: Path, version: str) -> None:
        """Load a model folder.

        Raises
        ------
        ModelError
            It is none, or one that this service cannot score with.
        """
        try:
            self.about = msgspec.json.decode((folder / "head.json").read_bytes(), type=About)
            self.trees = (folder / "booster.txt").read_text()
            self.tables = Tables.load(folder / "tables.npz") if self.about.tables_digest else NOTHING_LEARNED
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise ModelError(f"the model folder cannot be read: {error}") from None
        if self.about.format != FORMAT:
            raise ModelError(f"model format {self.about.format}; this service reads format {FORMAT}: upgrade it")
        if self.about.tables_digest and self.tables.digest != self.about.tables_digest:
            raise ModelError("tables.npz is not what head.json was written with: register the model again")
        calibration = self.about.calibration
        if calibration.kind not in LINKS:
            known = ", ".join(LINKS)
            raise ModelError(f"calibration {calibration.kind!r}; this service knows {known}: upgrade it")
        missing = [name for name in (*AGE, *self.about.needs) if name not in self.about.features]
        what = f"the feature {missing[0]!r}" if missing else calibration.lacks()
        if what:
            raise ModelError(f"head.json lacks {what}, which the calibration needs: register the model again")
        self.name, self.version = self.about.head, version
        names = self.about.features
        self.asks = tuple(name.removeprefix(SCORE) for name in names if name.startswith(SCORE))
        self.features = tuple(names[: len(names) - len(self.asks)])
        try:
            self._alone = Panel([self])
        except (UnsupportedTreeError, KeyError, ValueError) as error:
            raise ModelError(f"booster.txt: {error}; models of `lotse train` have numeric splits only") from None

    @cached_property
    def _shap(self) -> TreeShap:
        return TreeShap(self.trees)

    def scores(self, matrix: np.ndarray) -> np.ndarray:
        """What the model says of many vectors, decided or not, NaN where it cannot be asked.

        matrix: float32 (n, F), F features and the scores that it asks; returns float64 (n,).
        """
        scores: np.ndarray = self._alone.said(matrix)[0]
        return scores

    def contributions(self, row: np.ndarray) -> np.ndarray:
        """What each feature adds to the margin, and at the end the baseline: float32 (F,) -> float64 (F + 1,)."""
        return self._shap.contributions(row)

    def golden_error(self) -> float:
        """How far the golden row's score is from what it was in training."""
        row = np.array([[math.nan if value is None else value for value in self.about.golden.row]], np.float32)
        golden = self.about.golden.score
        return abs(float(self.scores(row)[0]) - golden) / max(1.0, abs(golden))

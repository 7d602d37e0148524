"""Rows of features in, every head's score out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from features.compiler import Fold
from serving.explain import Asked
from serving.heads import GOLDEN_TOLERANCE, Head, ModelError
from serving.panel import DECIDED, MODEL, NOT_ASKED, Panel

# Why a head that needs linked visits has no score.
NOT_LINKED: Final = "visits_not_linked"
# Rows that are scored by one call; a multiple of what goes through the trees at once.
_BLOCK: Final = 64


class Reading(NamedTuple):
    """Where a record is described as models with the same learned tables see it: tables int64 (words,), row float32
    (F,)."""

    tables: np.ndarray
    row: np.ndarray


class Scores(NamedTuple):
    """What is said of one row: scores, heads whose answer was decided already, why heads have no score of a model."""

    scores: dict[str, float]
    decided: list[str]
    reasons: dict[str, str]


_NOTHING: Final[list[str]] = []


class _Block:
    """Places for rows, and for what is said of them, as arrays of each panel."""

    def __init__(self, panels: Sequence[Panel], width: int) -> None:
        self._panels = panels
        self.rows = [np.zeros((_BLOCK, width), np.float32) for _ in panels]
        self._scores = [np.zeros((panel.heads, _BLOCK)) for panel in panels]
        self._states = [np.zeros((panel.heads, _BLOCK), np.uint8) for panel in panels]

    def score(self, count: int) -> tuple[list[list[float]], list[list[int]] | None]:
        """Scores and states of the first rows, a line a row; no states where every score is a model's."""
        lines: list[list[list[float]]] = []
        states: list[list[list[int]]] = []
        special = False
        for panel, rows, score, state in zip(self._panels, self.rows, self._scores, self._states, strict=True):
            panel.score(rows, count, score, state)
            lines.append(score[:, :count].T.tolist())
            special = special or bool(state[:, :count].any())
            states.append(state[:, :count].T.tolist())
        if len(lines) == 1:
            return lines[0], states[0] if special else None
        joined = [[value for part in parts for value in part] for parts in zip(*lines, strict=True)]
        return joined, [[value for part in parts for value in part] for parts in zip(*states, strict=True)]


class Sheet:
    """Places at which records are described and then scored, by all heads of one scorer.

    Attributes
    ----------
    readings: of each place, one for each set of learned tables.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._blocks: list[_Block] = []
        self._lines: list[list[float]] = []
        self._states: list[list[int] | None] = []
        self.readings: list[tuple[Reading, ...]] = []

    def extend(self, places: int) -> None:
        """Have at least so many places."""
        while len(self.readings) < places:
            block = _Block(self._scorer.panels, self._scorer.width)
            self._blocks.append(block)
            rows = block.rows or [np.zeros((_BLOCK, self._scorer.width), np.float32)]
            self.readings += [
                tuple(Reading(tables, each[place]) for tables, each in zip(self._scorer.tables, rows, strict=True))
                for place in range(_BLOCK)
            ]

    def score(self, count: int) -> None:
        """Score the first places."""
        self._lines, self._states = [], []
        for number, block in enumerate(self._blocks):
            left = min(_BLOCK, count - number * _BLOCK)
            if left <= 0:
                break
            lines, states = block.score(left) if self._scorer.panels else ([[]] * left, None)
            self._lines += lines
            self._states += states or [None] * left

    def scores(self, place: int = 0) -> Scores:
        """What was said of a place."""
        scorer, states = self._scorer, self._states[place]
        scores = dict(zip(scorer.names, self._lines[place], strict=True))
        decided, reasons = _NOTHING, scorer.reasons
        if states is not None:
            decided = [name for name, state in zip(scorer.names, states, strict=True) if state == DECIDED]
            for name, state in zip(scorer.names, states, strict=True):
                if state == NOT_ASKED:
                    del scores[name]
                    reasons = {**reasons, name: NOT_LINKED}
        if scorer.priors:
            scores.update(scorer.priors)
        return Scores(scores, decided, reasons)

    def asked(self, place: int = 0) -> list[Asked]:
        """Copies of a place's rows, for the heads whose model was asked about them."""
        scorer, states = self._scorer, self._states[place]
        found, number = [], 0
        for reading, names in zip(self.readings[place], scorer.sharing, strict=False):
            for name in names:
                if states is None or states[number] == MODEL:
                    found.append(Asked(scorer.heads[name], reading.row.copy()))
                number += 1
        return found


class Scorer:
    """All heads of the service. A head without a usable model answers its prior, and the reason is told.

    Heads trained together share their learned tables, so one reading of the record serves them all; heads with tables
    of their own get a reading of their own.

    Raises
    ------
    ModelError
        A head has not as many features as the fold.
    """

    def __init__(
        self, heads: Mapping[str, Head], priors: Mapping[str, float], reasons: Mapping[str, str], fold: Fold
    ) -> None:
        self.heads = dict(heads)
        self.width = len(fold.names)
        for head in heads.values():
            if len(head.about.features) != self.width:
                raise ModelError(f"the model has {len(head.about.features)} features, the running fold {self.width}")
        sharing: dict[str, list[str]] = {}
        for name, head in heads.items():
            sharing.setdefault(head.tables.digest, []).append(name)
        self.sharing = list(sharing.values())
        self.panels = [Panel([heads[name] for name in names]) for names in sharing.values()]
        learned = [heads[names[0]].tables.pack(tuple(fold.catalogue.tables)) for names in sharing.values()]
        self.tables = learned or [fold.nothing_learned]
        self.names = [name for names in sharing.values() for name in names]
        self.versions = {name: head.version for name, head in heads.items()}
        self.reasons = dict(reasons)
        self.priors = {name: prior for name, prior in priors.items() if name in reasons}
        self._free = [Sheet(self)]
        self._free[0].extend(1)

    def sheet(self) -> Sheet:
        """A sheet that nobody else writes on until it is given back."""
        return self._free.pop() if self._free else Sheet(self)

    def give_back(self, sheet: Sheet) -> None:
        """What stands on the sheet is not needed any more."""
        self._free.append(sheet)

    def ready(self) -> list[str]:
        """What keeps the heads from scoring as they did in training; empty if nothing does."""
        return [
            f"{name} version {head.version}: the golden row scores {error:.3g} off"
            for name, head in self.heads.items()
            if not (error := head.golden_error()) <= GOLDEN_TOLERANCE
        ]

    def describe(self) -> dict[str, Any]:
        """What scores here, for people and for `describe`."""
        return {
            name: {"version": head.version, "base_rate": head.about.base_rate, "features": len(head.about.features)}
            for name, head in self.heads.items()
        }

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
# Why a head that asks other heads' scores has none.
SCORES_MISSING: Final = "scores_missing"
# Fewest places of a sheet.
_PLACES: Final = 64


class Scores(NamedTuple):
    """What is said of one row: scores, heads whose answer was decided already, why heads have no score of a model."""

    scores: dict[str, float]
    decided: list[str]
    reasons: dict[str, str]


_NOTHING: Final[list[str]] = []
_new: Final = tuple.__new__  # half of what a NamedTuple's own takes


class Sheet:
    """Places at which records are described and then scored, by all heads of one scorer.

    Attributes
    ----------
    rows: float32 (t, size, F), a row of features for each set of learned tables and place.
    tables, tables_at: the sets, int64, one after the other, and where each begins, int64 (t + 1,).
    """

    def __init__(self, scorer: Scorer, size: int) -> None:
        # not the scorer: it holds its sheets, and a circle would outlive a swap until the garbage collector comes
        self._panels, self._names, self._sharing = scorer.panels, scorer.names, scorer.sharing
        self._asks = scorer.asks
        self._heads, self._priors, self._reasons = scorer.heads, scorer.priors, scorer.reasons
        self.size, self.tables, self.tables_at = size, scorer.tables, scorer.tables_at
        self.rows = np.zeros((len(self.tables_at) - 1, size, scorer.width), np.float32)
        self._scores = [np.zeros((panel.heads, size)) for panel in scorer.panels]
        self._states = [np.zeros((panel.heads, size), np.uint8) for panel in scorer.panels]
        # what each panel read: its rows, and beside them the scores that it asks
        self._read = list(self.rows)
        self._lines: list[list[float]] = []
        self._special: list[list[int]] | None = None

    def read(self, fold: Fold, record: np.ndarray, now_ms: int, place: int = 0) -> None:
        """Describe a record as of now at a place."""
        for number, rows in enumerate(self.rows):
            tables = self.tables[self.tables_at[number] : self.tables_at[number + 1]]
            fold.read(record, now_ms, rows[place], tables)

    def score(self, count: int) -> None:
        """Score what stands at the first places."""
        for number, panel in enumerate(self._panels):
            if self._asks[number]:
                self._read[number] = self._beside(number, count)
            panel.score(self._read[number], count, self._scores[number], self._states[number])
        self._lines = _by_place(self._scores, count)
        special = any(states[:, :count].any() for states in self._states)
        self._special = _by_place(self._states, count) if special else None

    def _beside(self, number: int, count: int) -> np.ndarray:
        """A panel's rows, and the scores that it asks, which panels before it have given: float32 (count, F + S)."""
        asked, width = self._asks[number], self.rows.shape[2]
        found = np.empty((count, width + len(asked)), np.float32)
        found[:, :width] = self.rows[number, :count]
        given = {
            name: scores[line, :count]
            for names, scores in zip(self._sharing[:number], self._scores, strict=False)
            for line, name in enumerate(names)
        }
        for column, name in enumerate(asked, width):
            found[:, column] = given[name] if name in given else self._priors[name]
        return found

    def scores(self, place: int = 0) -> Scores:
        """What was said of a place."""
        # `strict` would take as long as the rest
        scores = dict(zip(self._names, self._lines[place]))  # noqa: B905
        decided, reasons = _NOTHING, self._reasons
        if self._special is not None:
            states = self._special[place]
            if DECIDED in states:
                decided = [name for name, state in zip(self._names, states, strict=True) if state == DECIDED]
            if NOT_ASKED in states:
                left = [name for name, state in zip(self._names, states, strict=True) if state == NOT_ASKED]
                scores = {name: score for name, score in scores.items() if name not in left}
                reasons = {**reasons, **dict.fromkeys(left, NOT_LINKED)}
        if self._priors:
            scores.update(self._priors)
        return _new(Scores, (scores, decided, reasons))

    def asked(self, place: int = 0) -> list[Asked]:
        """Copies of a place's rows, for the heads whose model was asked about them."""
        states = None if self._special is None else dict(zip(self._names, self._special[place], strict=True))
        return [
            Asked(self._heads[name], rows[place].copy())
            for rows, names in zip(self._read, self._sharing, strict=False)
            for name in names
            if states is None or states[name] == MODEL
        ]


def _by_place(lines: Sequence[np.ndarray], count: int) -> list[list[Any]]:
    """The first columns of some (H, size) arrays, each as one list."""
    if len(lines) == 1:
        found: list[list[Any]] = lines[0][:, :count].T.tolist()
        return found
    return np.concatenate([np.zeros((0, count)), *(line[:, :count] for line in lines)]).T.tolist()


def size_for(places: int) -> int:
    """One of few sizes that is large enough.

    >>> size_for(1), size_for(65)
    (64, 128)
    """
    return max(_PLACES, 1 << (places - 1).bit_length())


class Scorer:
    """All heads of the service. A head without a usable model answers its prior, and the reason is told.

    Heads trained together share their learned tables, so one reading of the record serves them all; heads with tables
    of their own get a reading of their own. Those that ask other heads' scores are scored after these.

    Raises
    ------
    ModelError
        A head has not as many features as the fold.
    """

    def __init__(
        self, heads: Mapping[str, Head], priors: Mapping[str, float], reasons: Mapping[str, str], fold: Fold
    ) -> None:
        self.width = len(fold.names)
        for head in heads.values():
            if len(head.features) != self.width:
                raise ModelError(f"the model has {len(head.features)} features, the running fold {self.width}")
        given = {name for name, head in heads.items() if not head.asks}
        given |= {name for name in priors if name in reasons}
        lacking = {name for name, head in heads.items() if not given.issuperset(head.asks)}
        reasons = {**reasons, **dict.fromkeys(lacking, SCORES_MISSING)}
        self.heads = heads = {name: head for name, head in heads.items() if name not in lacking}
        sharing: dict[tuple[tuple[str, ...], str], list[str]] = {}
        for name, head in sorted(heads.items(), key=lambda pair: bool(pair[1].asks)):
            sharing.setdefault((head.asks, head.tables.digest), []).append(name)
        self.asks = [asks for asks, _ in sharing]
        self.sharing = list(sharing.values())
        self.panels = [Panel([heads[name] for name in names]) for names in sharing.values()]
        learned = [heads[names[0]].tables.pack(tuple(fold.catalogue.tables)) for names in sharing.values()]
        learned = learned or [fold.nothing_learned]
        self.tables = np.concatenate(learned)
        self.tables_at = np.cumsum([0, *map(len, learned)])
        self.names = [name for names in sharing.values() for name in names]
        self.versions = {name: head.version for name, head in heads.items()}
        self.reasons = dict(reasons)
        self.priors = {name: prior for name, prior in priors.items() if name in reasons}
        self._free: dict[int, list[Sheet]] = {}

    def sheet(self, places: int = 1) -> Sheet:
        """A sheet of at least so many places that nobody else writes on until it is given back."""
        size = size_for(places)
        free = self._free.get(size)
        return free.pop() if free else self._made(size)

    def _made(self, size: int) -> Sheet:
        return Sheet(self, size)

    def give_back(self, sheet: Sheet) -> None:
        """What stands on the sheet is not needed any more."""
        self._free.setdefault(sheet.size, []).append(sheet)

    def said(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        """What every head says of vectors given, float32 (n, F), as of `Head.scores`: float64 (n,) by name."""
        found: dict[str, np.ndarray] = {}
        for name in self.names:
            head = self.heads[name]
            beside = [found[one] if one in found else np.full(len(matrix), self.priors[one]) for one in head.asks]
            found[name] = head.scores(np.column_stack([matrix, *beside]).astype(np.float32) if beside else matrix)
        return found

    def tally(self) -> dict[str, tuple[list[int], float]]:
        """Scores since this was asked last, by head: how many were up to 0.1, 0.2, ... 1.0 and above, and their sum."""
        counts = [line for panel in self.panels for line in panel.tally.tolist()]
        totals = [total for panel in self.panels for total in panel.total.tolist()]
        for panel in self.panels:
            panel.tally[:], panel.total[:] = 0, 0.0
        return dict(zip(self.names, zip(counts, totals, strict=True), strict=True))

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

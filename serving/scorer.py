"""Feature vectors in, calibrated scores out, a few microseconds a head: probabilities, or expected amounts.

One row goes through LightGBM's single-row C API, many through its batch prediction; both give the same numbers. What
was decided already (a session that has bought converts) is not asked of the model, nor is what cannot be asked (whether
a visitor returns, where visits may not be linked).
"""

from __future__ import annotations

import ctypes
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import lightgbm as lgb
import msgspec
import numpy as np
from lightgbm.basic import _LIB

from features.compiler import Fold
from features.tables import NOTHING_LEARNED, Tables

FORMAT: Final = 2
_RAW_SCORE: Final = 1
_FLOAT32: Final = 0
_LINKS: Final = {"sigmoid_by_age": "sigmoid", "exp_by_age": "exp"}
# Where the age of a session stands in a feature vector.
_AGE: Final = ("events", "idle_seconds")
# Trees are summed in double precision in the same order everywhere; only the link's library may differ.
GOLDEN_TOLERANCE: Final = 1e-9


# Why a head that needs linked visits has no score.
NOT_LINKED: Final = "visits_not_linked"


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
    """One loaded model."""

    def __init__(self, folder: Path, version: str) -> None:
        """Load a model folder."""
        try:
            self.about = msgspec.json.decode((folder / "head.json").read_bytes(), type=About)
            self._booster = lgb.Booster(model_file=str(folder / "booster.txt"))
            self.tables = Tables.load(folder / "tables.npz") if self.about.tables_digest else NOTHING_LEARNED
        except (OSError, ValueError, msgspec.DecodeError, lgb.basic.LightGBMError) as error:
            raise ModelError(f"the model folder cannot be read: {error}") from None
        if self.about.format != FORMAT:
            raise ModelError(f"model format {self.about.format}; this service reads format {FORMAT}: upgrade it")
        if self.about.tables_digest and self.tables.digest != self.about.tables_digest:
            raise ModelError("tables.npz is not what head.json was written with: register the model again")
        calibration = self.about.calibration
        if calibration.kind not in _LINKS:
            known = ", ".join(_LINKS)
            raise ModelError(f"calibration {calibration.kind!r}; this service knows {known}: upgrade it")
        place = {feature: index for index, feature in enumerate(self.about.features)}
        missing = [name for name in (*_AGE, *self.about.needs) if name not in place]
        what = f"the feature {missing[0]!r}" if missing else calibration.lacks()
        if what:
            raise ModelError(f"head.json lacks {what}, which the calibration needs: register the model again")
        self.name, self.version = self.about.head, version
        self._exponential = _LINKS[calibration.kind] == "exp"
        self._events, self._idle = (place[name] for name in _AGE)
        self._older_events, self._older_idle = calibration.events[1:], calibration.idle_seconds[1:]
        self._width = len(calibration.idle_seconds)
        # an age's slope and intercept by one place: found in 0.3 us
        self._slopes = [value for line in calibration.slope for value in line]
        self._intercepts = [value for line in calibration.intercept for value in line]
        self._knots = calibration.knots
        self._starts, self._values, self._rises = calibration.pieces()
        self._needs = [place[name] for name in self.about.needs]
        decided = self.about.decided
        self._when = [(place[name], least) for name, least in decided.when if name in place] if decided else []
        self.value = decided.value if decided else 0.0
        width = len(self.about.features)
        # one configuration handle for the life of the model, input and output buffers reused
        self._handle = ctypes.c_void_p()
        status = _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
            self._booster._handle, ctypes.c_int(_RAW_SCORE), ctypes.c_int(0), ctypes.c_int(-1), ctypes.c_int(_FLOAT32),
            ctypes.c_int32(width), b"num_threads=1", ctypes.byref(self._handle),
        )  # fmt: skip
        if status:
            raise ModelError(f"LightGBM refused the model: {_LIB.LGBM_GetLastError()}")
        self._length, self._output = ctypes.c_int64(), ctypes.c_double()
        self._predict = _LIB.LGBM_BoosterPredictForMatSingleRowFast
        # where a row to be scored is put that lies elsewhere
        self._own = np.zeros(width, np.float32)
        self._own_call = self.call(self._own)

    def call(self, row: np.ndarray) -> Call:
        """What LightGBM is called with for a float32 (F,) whose memory stays where it is; made once for many calls.

        Raises
        ------
        ModelError
            The row has not as many features as the model.
        """
        if len(row) != len(self.about.features):
            raise ModelError(f"the model has {len(self.about.features)} features, the running fold {len(row)}")
        pointer = ctypes.c_void_p(row.ctypes.data)
        return self._handle, pointer, ctypes.byref(self._length), ctypes.byref(self._output)

    def decided(self, row: Sequence[float] | np.ndarray) -> bool:
        """Whether the answer is known from the row alone."""
        for place, least in self._when:  # noqa: SIM110  (a generator would cost a microsecond)
            if row[place] >= least:
                return True
        return False

    def asked(self, row: np.ndarray) -> bool:
        """Whether the question can be asked of the row: what it needs is not missing."""
        for place in self._needs:  # noqa: SIM110  (most heads need nothing; a generator would cost a microsecond)
            if math.isnan(row.item(place)):
                return False
        return True

    def score(self, row: np.ndarray) -> float:
        """What the model says of one vector, decided or not."""
        self._own[:] = row
        return self.score_in_place(self._own, self._own_call)

    def score_in_place(self, row: np.ndarray, call: Call) -> float:
        """The same of a row with its own `call`."""
        if self._predict(*call):
            raise ModelError(f"LightGBM cannot score: {_LIB.LGBM_GetLastError()}")
        older = bisect_right(self._older_events, row.item(self._events))
        age = older * self._width + bisect_right(self._older_idle, row.item(self._idle))
        margin = self._output.value
        piece = bisect_right(self._knots, margin)
        curve = self._rises[piece] * (margin - self._starts[piece]) + self._values[piece]
        linear = self._slopes[age] * margin + self._intercepts[age] + curve
        return math.exp(linear) if self._exponential else 1.0 / (1.0 + math.exp(-linear))

    def scores(self, matrix: np.ndarray) -> np.ndarray:
        """What the model says of many vectors, NaN where it cannot be asked: float32 (n, F) -> float64 (n,)."""
        margin = np.asarray(self._booster.predict(matrix, raw_score=True, num_threads=1))
        older = np.searchsorted(self._older_events, matrix[:, self._events], "right")
        age = older * self._width + np.searchsorted(self._older_idle, matrix[:, self._idle], "right")
        piece = np.searchsorted(self._knots, margin, "right")
        curve = np.array(self._rises)[piece] * (margin - np.array(self._starts)[piece]) + np.array(self._values)[piece]
        linear = np.array(self._slopes)[age] * margin + np.array(self._intercepts)[age] + curve
        found = np.exp(linear) if self._exponential else 1.0 / (1.0 + np.exp(-linear))
        found[np.isnan(matrix[:, self._needs]).any(axis=1)] = np.nan
        return found

    def golden_error(self) -> float:
        """How far the golden row's score is from what it was in training."""
        row = np.array([math.nan if value is None else value for value in self.about.golden.row], np.float32)
        golden = self.about.golden.score
        return abs(self.score(row) - golden) / max(1.0, abs(golden))

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            _LIB.LGBM_FastConfigFree(self._handle)


Call = tuple[Any, ...]


class Reading(NamedTuple):
    """Where a record is described as models with the same learned tables see it: tables int64 (words,), row float32
    (F,)."""

    tables: np.ndarray
    row: np.ndarray


class Sheet:
    """Places at which records are described and then scored, by all heads of one scorer."""

    def __init__(self, scorer: Scorer) -> None:
        # not the scorer: it holds its sheets, and a circle would outlive a swap until the garbage collector comes
        self._heads, self._tables, self._width = scorer.heads, scorer.tables, scorer.width
        self._priors, self._reasons = scorer.priors, scorer.reasons
        self.readings: list[tuple[Reading, ...]] = []
        self._asked: list[list[tuple[str, Head, np.ndarray, Call]]] = []

    def __len__(self) -> int:
        return len(self.readings)

    def extend(self, places: int) -> None:
        """Have at least so many places."""
        while len(self.readings) < places:
            rows = {digest: np.zeros(self._width, np.float32) for digest in self._tables}
            self.readings.append(tuple(Reading(self._tables[digest], row) for digest, row in rows.items()))
            self._asked.append(
                [(name, head, row := rows[head.tables.digest], head.call(row)) for name, head in self._heads.items()]
            )

    def score(self, place: int = 0) -> tuple[dict[str, float], list[str], dict[str, str]]:
        """Every head's score of what stands at the place, the heads whose answer was decided already, and why others
        have no score of a model."""
        scores: dict[str, float] = {}
        decided: list[str] = []
        reasons = self._reasons
        for name, head, row, call in self._asked[place]:
            if head.decided(row):
                scores[name] = head.value
                decided.append(name)
            elif not head.asked(row):
                reasons = {**reasons, name: NOT_LINKED}
            else:
                scores[name] = head.score_in_place(row, call)
        if self._priors:
            scores.update(self._priors)
        return scores, decided, reasons


class Scorer:
    """All heads of the service. A head without a usable model answers its prior, and the reason is told.

    Heads trained together share their learned tables, so one reading of the record serves them all; a head with tables
    of its own gets a reading of its own.
    """

    def __init__(
        self, heads: Mapping[str, Head], priors: Mapping[str, float], reasons: Mapping[str, str], fold: Fold
    ) -> None:
        self.heads = dict(heads)
        self.width = len(fold.names)
        self.tables = {
            head.tables.digest: head.tables.pack(tuple(fold.catalogue.tables)) for head in heads.values()
        } or {"": fold.nothing_learned}
        self.versions = {name: head.version for name, head in heads.items()}
        self.reasons = dict(reasons)
        self.priors = {name: prior for name, prior in priors.items() if name in reasons}
        self._free = [Sheet(self)]
        self._free[0].extend(1)  # a head that does not fit is refused here

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

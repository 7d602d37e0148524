"""UCI Online Shoppers Purchasing Intention: one row a session, 17 aggregates of the whole session, did it buy?

The same code fits the same model as for a running session; only that a row is a whole session. Five folds, stratified
by the answer; identical rows, 125 of them, stay in one fold. The file has no time but the month and no visitor ids, so
the inner folds get a random order. `PageValues` is worked out by Google Analytics from the transactions of the very
sessions, so figures without it are given, too, and figures for later months.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from benchmarks.measure import console
from benchmarks.results import rivals
from benchmarks.results.logs import DATA
from benchmarks.results.rivals import Learner
from training.config import TrainingSettings
from training.datasets import Slice
from training.evaluation import expected_calibration_error
from training.heads import Head

FILE: Final = DATA / "uci_online_shoppers" / "online_shoppers_intention.csv.gz"
CODES: Final = ("Month", "VisitorType", "OperatingSystems", "Browser", "Region", "TrafficType")
# A code that fewer sessions have is no column of its own.
LEAST_SESSIONS: Final = 50
LATE_MONTHS: Final = ("Nov", "Dec")
FOLDS: Final = 5
RESAMPLES: Final = 500
SEED: Final = 0
START_MS: Final = 1_485_907_200_000  # 1 February 2017, any moment would do
ASKED: Final[dict[str, Learner]] = {
    "Lotse": rivals.lotse,
    "logistic regression": rivals.logistic,
    "logistic regression, penalty chosen": rivals.penalised_logistic,
    "CatBoost": rivals.catboost,
    "XGBoost": rivals.xgboost,
}


@dataclass(frozen=True)
class Sessions:
    """The file. matrix: float32 (n, F); answer, late: bool (n,); group: int64 (n,), the same for identical rows."""

    names: tuple[str, ...]
    matrix: np.ndarray
    answer: np.ndarray
    group: np.ndarray
    late: np.ndarray

    def without(self, feature: str) -> Sessions:
        """The same without one feature."""
        kept = [place for place, name in enumerate(self.names) if name != feature]
        return Sessions(
            tuple(self.names[place] for place in kept), self.matrix[:, kept], self.answer, self.group, self.late
        )


def sessions() -> Sessions:
    """Read the file: numbers as they are, codes as a column each."""
    raw = pd.read_csv(FILE)
    features = raw.drop(columns="Revenue")
    columns = {str(name): features[name].to_numpy(np.float32) for name in features if name not in CODES}
    for name in CODES:
        counts = features[name].value_counts()
        for code in sorted(counts.index[counts >= LEAST_SESSIONS], key=str):
            columns[f"{name}_{code}"] = (features[name] == code).to_numpy(np.float32)
    # where a session's age stands: all are over
    columns |= {"events": np.ones(len(raw), np.float32), "idle_seconds": np.zeros(len(raw), np.float32)}
    return Sessions(
        tuple(columns),
        np.column_stack(list(columns.values())),
        raw["Revenue"].to_numpy(bool),
        raw.groupby(list(raw.columns), sort=False).ngroup().to_numpy(np.int64),
        raw["Month"].isin(LATE_MONTHS).to_numpy(),
    )


def slice_of(part: Sessions, rows: np.ndarray, name: str) -> Slice:
    """Some sessions as rows of a head, a minute apart in random order."""
    order = np.random.default_rng(SEED).permutation(len(part.answer))[rows]
    started = START_MS + 60_000 * order.astype(np.int64)
    return Slice(
        name=name,
        names=part.names,
        matrix=part.matrix[rows],
        answer=part.answer[rows].astype(np.float32),
        prefix=np.ones(len(rows), np.int32),
        idle_ms=np.zeros(len(rows), np.int64),
        session=rows.astype(np.int64),
        visitor=part.group[rows],
        started=started,
        now=started,
        until=started,
        known_at=started,
    )


def cross_validated(part: Sessions, head: Head, settings: TrainingSettings) -> dict[str, np.ndarray]:
    """Scores of every session by models that saw none of its fold, float64 (n,) by model."""
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    scores = {name: np.zeros(len(part.answer)) for name in ASKED}
    for number, (train, test) in enumerate(folds.split(part.matrix, part.answer, part.group), start=1):
        past, held_out = slice_of(part, train, "past"), slice_of(part, test, "test")
        for name, learner in ASKED.items():
            scores[name][test] = learner(past, held_out, head, settings)
        console.print(f"  online shoppers: fold {number} of {FOLDS}", style="dim")
    return scores


def later_months(part: Sessions, head: Head, settings: TrainingSettings) -> dict[str, np.ndarray]:
    """Scores of November and December by models of the months before, float64 (late sessions,) by model."""
    past, test = (
        slice_of(part, np.flatnonzero(side), name) for side, name in ((~part.late, "past"), (part.late, "test"))
    )
    return {name: learner(past, test, head, settings) for name, learner in ASKED.items()}


def oversampled_first(part: Sessions) -> tuple[np.ndarray, np.ndarray]:
    """What must not be done: buyers repeated until both answers are as frequent, and only then split 70 : 30.

    Copies of one session are then on both sides. Returns answers and XGBoost's scores of the 30 %.

    Raises
    ------
    ImportError
        XGBoost is not there: names the extra.
    """
    try:
        import xgboost  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("XGBoost is needed: pip install 'lotse[rivals]'") from error
    random = np.random.default_rng(SEED)
    yes = np.flatnonzero(part.answer)
    rows = np.append(np.arange(len(part.answer)), random.choice(yes, len(part.answer) - 2 * len(yes)))
    train, test = train_test_split(rows, test_size=0.3, random_state=SEED, stratify=part.answer[rows])
    model = xgboost.XGBClassifier(n_estimators=300, learning_rate=0.1, n_jobs=rivals.THREADS, random_state=SEED)
    model.fit(part.matrix[train], part.answer[train])
    return part.answer[test], np.asarray(model.predict_proba(part.matrix[test])[:, 1], np.float64)


@dataclass(frozen=True)
class Quality:
    """Figures of one model; auc, pr_auc: float64 (1 + resamples,), the value, then of resampled sessions."""

    auc: np.ndarray
    pr_auc: np.ndarray
    log_loss: float
    ece: float


def quality(answer: np.ndarray, score: np.ndarray, bins: int) -> Quality:
    """Measure scores. answer: bool (n,); score: float64 (n,)."""
    random = np.random.default_rng(SEED)
    draws = [np.arange(len(answer)), *(random.integers(0, len(answer), len(answer)) for _ in range(RESAMPLES))]
    return Quality(
        auc=np.array([roc_auc_score(answer[rows], score[rows]) for rows in draws]),
        pr_auc=np.array([average_precision_score(answer[rows], score[rows]) for rows in draws]),
        log_loss=float(log_loss(answer, np.clip(score, 1e-12, 1 - 1e-12))),
        ece=expected_calibration_error(answer.astype(np.float64), score, bins),
    )

"""Other learners on the rows that Lotse learns from: logistic regression, CatBoost, XGBoost.

In: the past of a head, its inner folds and its test. Out: scores of the test, float64 (rows,): the probability of yes,
or the expected amount. What there is to choose (a penalty, the trees) is chosen on the inner folds' later rows,
as Lotse does it, then the learner is fitted on the whole past. All else is as each library has it. Missing values are
given to trees as they are, to logistic regression imputed and marked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.baselines import fit_logistic, predict
from training.config import TrainingSettings
from training.datasets import Slice
from training.heads import Head
from training.inner import InnerFold, inner_folds
from training.linear import MOST_ROWS
from training.losses import TWEEDIE_POWER, score_loss
from training.model import fit_head

Learner = Callable[[Slice, Slice, Head, TrainingSettings], np.ndarray]

MOST_TREES: Final = 1000
PATIENCE: Final = 50
# Choosing a penalty takes a dozen fits, and the more rows there are, the less it changes.
PENALTY_ROWS: Final = 100_000
THREADS: Final = 2
SEED: Final = 7
_MISSING: Final = "{} needs what Lotse itself does not: pip install 'lotse[rivals]'"


def lotse(past: Slice, test: Slice, head: Head, settings: TrainingSettings) -> np.ndarray:
    """What `lotse train` fits and serves."""
    return fit_head(past, head, settings).score(test.matrix)


def logistic(past: Slice, test: Slice, head: Head, settings: TrainingSettings) -> np.ndarray:
    """Scikit-learn's logistic regression as it comes (a Tweedie regression for amounts)."""
    del settings
    return predict(fit_logistic(past.thinned(MOST_ROWS), head), test.matrix)


def penalised_logistic(past: Slice, test: Slice, head: Head, settings: TrainingSettings) -> np.ndarray:
    """The same with one of Lotse's penalties, that of least log loss on the inner folds."""
    folds = inner_folds(past, settings)
    penalties = settings.linear.inverse_penalties
    losses = np.zeros(len(penalties))
    for one in folds:
        prepare = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
        learned, later = prepare.fit_transform(past.matrix[one.train]), prepare.transform(past.matrix[one.valid])
        for place, inverse_penalty in enumerate(penalties):
            model = LogisticRegression(C=inverse_penalty, max_iter=300).fit(learned, past.answer[one.train])
            losses[place] += score_loss(past.answer[one.valid], model.decision_function(later), head.task) * len(later)
    model = fit_logistic(past, head)
    model.set_params(logisticregression__C=penalties[int(losses.argmin())])
    return predict(model.fit(past.matrix, past.answer), test.matrix)


def catboost(past: Slice, test: Slice, head: Head, settings: TrainingSettings) -> np.ndarray:
    """CatBoost (Prokhorenkova et al. 2018).

    Raises
    ------
    ImportError
        It is not there: names the extra.
    """
    try:
        import catboost as library  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(_MISSING.format("CatBoost")) from error

    def make(trees: int, **more: Any) -> Any:
        common = {"thread_count": THREADS, "random_seed": SEED, "verbose": False, "allow_writing_files": False}
        if head.task == "value":
            loss = f"Tweedie:variance_power={TWEEDIE_POWER}"
            return library.CatBoostRegressor(iterations=trees, loss_function=loss, **common, **more)
        return library.CatBoostClassifier(iterations=trees, **common, **more)

    def stopped(one: InnerFold) -> tuple[int, float]:
        model = make(MOST_TREES, early_stopping_rounds=PATIENCE)
        model.fit(*_side(past, one.train), eval_set=_side(past, one.valid))
        return model.tree_count_, model.get_all_params()["learning_rate"]

    # CatBoost derives its learning rate from the number of rows and trees: that of the folds is kept
    trees, rate = _typical(past, settings, stopped)
    model = make(trees, learning_rate=rate).fit(past.matrix, past.answer)
    if head.task == "value":
        return np.asarray(model.predict(test.matrix, prediction_type="Exponent"), np.float64)
    return np.asarray(model.predict_proba(test.matrix)[:, 1], np.float64)


def xgboost(past: Slice, test: Slice, head: Head, settings: TrainingSettings) -> np.ndarray:
    """XGBoost (Chen & Guestrin 2016), at a third of its default learning rate.

    Raises
    ------
    ImportError
        It is not there: names the extra.
    """
    try:
        import xgboost as library  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(_MISSING.format("XGBoost")) from error

    objective = "reg:tweedie" if head.task == "value" else "binary:logistic"
    metric = f"tweedie-nloglik@{TWEEDIE_POWER}" if head.task == "value" else "logloss"

    def make(trees: int, **more: Any) -> Any:
        kind = library.XGBRegressor if head.task == "value" else library.XGBClassifier
        return kind(
            n_estimators=trees, learning_rate=0.1, objective=objective, eval_metric=metric, n_jobs=THREADS,
            random_state=SEED, **more,
        )  # fmt: skip

    def stopped(one: InnerFold) -> tuple[int, float]:
        model = make(MOST_TREES, early_stopping_rounds=PATIENCE)
        model.fit(*_side(past, one.train), eval_set=[_side(past, one.valid)], verbose=False)
        return model.best_iteration + 1, 0.1

    trees, _ = _typical(past, settings, stopped)
    return predict(make(trees).fit(past.matrix, past.answer), test.matrix)


def base_rate(past: Slice, test: Slice, head: Head, settings: TrainingSettings) -> np.ndarray:
    """The mean answer of the past."""
    del head, settings
    return np.full(len(test), past.answer.mean(), np.float64)


def _side(past: Slice, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return past.matrix[rows], past.answer[rows]


def _typical(
    past: Slice, settings: TrainingSettings, stopped: Callable[[InnerFold], tuple[int, float]]
) -> tuple[int, float]:
    """Mean number of trees and learning rate over the inner folds."""
    found = [stopped(one) for one in inner_folds(past, settings)]
    trees, rates = np.array(found).mean(axis=0) if found else (PATIENCE, 0.1)
    return max(round(float(trees)), 1), float(rates)

"""What a head is measured against: logistic regression, a rule and the base rate, and any scikit-learn estimator.

All learn from the same past and score the same test. Missing values: imputed and marked for logistic regression and for
estimators that refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, TweedieRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from features.settings import SettingsError
from training.datasets import Slice
from training.heads import Head
from training.linear import MOST_ROWS
from training.losses import TWEEDIE_POWER

PAGES: Final = ("page_views", "list_views", "item_views", "cart_views", "searches")
_MOST_PAGES: Final = 20


def baseline_scores(
    past: Slice, test: Slice, head: Head, estimators: Mapping[str, Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """Scores of the test by name: `logistic` (a Tweedie regression for amounts), `pages`, `base_rate`, and those of the
    configured estimators that answer the head's kind of question (classifiers, or for amounts regressors), float64
    (n,) each.

    Raises
    ------
    SettingsError
        An estimator cannot be imported, made or fitted.
    """
    learned = past.thinned(MOST_ROWS)
    scores = {"logistic": predict(fit_logistic(learned, head), test.matrix)}
    scores["pages"] = _rates(past, test, _pages)
    scores["base_rate"] = _rates(past, test, lambda part: part.idle_ms)
    for name, chosen in estimators.items():
        made = _estimator(name, chosen)
        if is_classifier(made) != (head.task == "binary"):
            continue
        model = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), made)
        try:
            scores[name] = predict(model.fit(learned.matrix, learned.answer), test.matrix)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"evaluation.estimators.{name} cannot be fitted: {error}") from None
    return scores


def fit_logistic(part: Slice, head: Head) -> Pipeline:
    """Scikit-learn's logistic regression as it comes: missing values imputed and marked, features standardised."""
    model: BaseEstimator = LogisticRegression(max_iter=300)
    if head.task == "value":
        model = TweedieRegressor(power=TWEEDIE_POWER, link="log", alpha=1e-3, max_iter=300)
    pipeline = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler(), model)
    return pipeline.fit(part.matrix, part.answer)


def predict(model: Any, matrix: np.ndarray) -> np.ndarray:
    """The probability of yes, or the amount: float64 (n,)."""
    if not len(matrix):
        return np.zeros(0)
    scores = model.predict_proba(matrix)[:, 1] if is_classifier(model) else model.predict(matrix)
    return np.asarray(scores, np.float64)


def _pages(part: Slice) -> np.ndarray:
    """Pages seen so far, as far as the tracker tells them; more than twenty count as twenty."""
    seen = np.sum([part.column(name) for name in PAGES], axis=0)
    return np.minimum(seen, _MOST_PAGES)


def _rates(past: Slice, test: Slice, key: Any) -> np.ndarray:
    """The mean answer of the past's rows with the same key. One rate for all would be an easy rival: sessions that end
    at once have more idle rows than their share, so the base rate is that of the same silence."""
    rates = pd.Series(past.answer).groupby(key(past)).mean()
    return pd.Series(key(test)).map(rates).fillna(past.answer.mean()).to_numpy(np.float64)


def _estimator(name: str, chosen: Mapping[str, Any]) -> BaseEstimator:
    where = f"evaluation.estimators.{name}"
    path = chosen.get("estimator")
    if not isinstance(path, str) or "." not in path:
        raise SettingsError(f'{where}.estimator is {path!r}; expected a class such as "sklearn.svm.LinearSVC"')
    module, _, attribute = path.rpartition(".")
    try:
        made = getattr(import_module(module), attribute)(**{k: v for k, v in chosen.items() if k != "estimator"})
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SettingsError(f"{where}: {path} cannot be made: {error}") from None
    if not isinstance(made, BaseEstimator) or not hasattr(made, "predict"):
        raise SettingsError(f"{where}: {path} is no scikit-learn estimator")
    return clone(made)

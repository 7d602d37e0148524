"""Uplift on the e-mail test of Hillstrom 2008 beside scikit-uplift's and EconML's learners, in one run.

`python -m benchmarks.uplift [splits] [folder]` with the extra `rivals`. Reads `hillstrom.csv.gz` in
`../shared/data/hillstrom_email_2008` in place. Customers are split in halves at random, once a seed: every learner
learns from one and is measured on the other, by scikit-uplift's metrics. All rivals have the same LightGBM with the
parameters of our outcome models; figures are means over splits with the standard deviation of a split.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.measure import console, report
from training.experiments.qini import evaluate_uplift, gain_curve
from training.experiments.uplift import Units, fit_uplift

FOLDER: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "hillstrom_email_2008"
CONTROL: Final = "No E-Mail"
QUESTIONS: Final = (("Womens E-Mail", "visit"), ("Mens E-Mail", "visit"), ("Womens E-Mail", "conversion"))


def read(folder: Path) -> pd.DataFrame:
    """The customers."""
    return pd.read_csv(folder / "hillstrom.csv.gz")


def units_of(customers: pd.DataFrame, arm: str, outcome: str) -> Units:
    """Those of one e-mail and of none: covariates as numbers, levels of channel and place one by one."""
    part = customers[customers["segment"].isin((arm, CONTROL))].reset_index(drop=True)
    numbers = part[["recency", "history", "mens", "womens", "newbie"]]
    levels = pd.get_dummies(part[["zip_code", "channel"]])
    matrix = pd.concat([numbers, levels], axis=1)
    treated = (part["segment"] == arm).to_numpy()
    return Units(
        names=tuple(name.replace(" ", "_") for name in matrix.columns),
        matrix=matrix.to_numpy(np.float32),
        treated=treated,
        control=~treated,
        propensity=np.full(len(part), 0.5),
        outcome=part[outcome].to_numpy(float),
        visitor=np.arange(len(part)),
    )


def lightgbm(regression: bool = False) -> Any:
    """A rival's base learner."""
    from lightgbm import LGBMClassifier, LGBMRegressor  # noqa: PLC0415

    model = LGBMRegressor if regression else LGBMClassifier
    return model(
        n_estimators=100, learning_rate=0.05, num_leaves=8, min_child_samples=100, reg_lambda=20.0,
        colsample_bytree=0.5, max_bin=63, random_state=7, n_jobs=1, verbosity=-1,
    )  # fmt: skip


def ours(learned: Units, asked: np.ndarray) -> np.ndarray:
    """Lotse's learner."""
    return fit_uplift(learned).score(asked)


def of_sklift(make: Callable[[], Any]) -> Callable[[Units, np.ndarray], np.ndarray]:
    """A learner of scikit-uplift."""

    def learn(learned: Units, asked: np.ndarray) -> np.ndarray:
        model = make().fit(learned.matrix, learned.outcome.astype(int), learned.treated.astype(int))
        return np.asarray(model.predict(asked))

    return learn


def of_econml(make: Callable[[], Any]) -> Callable[[Units, np.ndarray], np.ndarray]:
    """A learner of EconML."""

    def learn(learned: Units, asked: np.ndarray) -> np.ndarray:
        model = make().fit(learned.outcome, learned.treated.astype(int), X=learned.matrix)
        return np.asarray(model.effect(asked)).reshape(-1)

    return learn


def learners() -> dict[str, Callable[[Units, np.ndarray], np.ndarray]]:
    """All of them by name."""
    from econml.dr import DRLearner  # noqa: PLC0415
    from econml.metalearners import XLearner  # noqa: PLC0415
    from sklearn.dummy import DummyClassifier  # noqa: PLC0415
    from sklift.models import ClassTransformation, SoloModel, TwoModels  # noqa: PLC0415

    fair = DummyClassifier(strategy="prior")
    return {
        "Lotse": ours,
        "scikit-uplift SoloModel (S)": of_sklift(lambda: SoloModel(lightgbm())),
        "scikit-uplift SoloModel, interactions": of_sklift(
            lambda: SoloModel(lightgbm(), method="treatment_interaction")
        ),
        "scikit-uplift TwoModels (T)": of_sklift(lambda: TwoModels(lightgbm(), lightgbm())),
        "scikit-uplift TwoModels, dependent": of_sklift(
            lambda: TwoModels(lightgbm(), lightgbm(), method="ddr_control")
        ),
        "scikit-uplift ClassTransformation": of_sklift(lambda: ClassTransformation(lightgbm())),
        "EconML XLearner": of_econml(lambda: XLearner(models=lightgbm(True), propensity_model=fair)),
        "EconML DRLearner": of_econml(
            lambda: DRLearner(
                model_propensity=fair, model_regression=lightgbm(True), model_final=lightgbm(True), cv=5, random_state=7
            )
        ),
        "by chance": lambda learned, asked: np.random.default_rng(len(learned)).random(len(asked)),
    }  # fmt: skip


def main(splits: int, folder: Path) -> None:
    """Every question, every learner, the same splits."""
    from sklift.metrics import qini_auc_score, uplift_at_k, uplift_curve  # noqa: PLC0415

    warnings.simplefilter("ignore")
    customers = read(folder)
    for arm, outcome in QUESTIONS:
        whole = units_of(customers, arm, outcome)
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in learners()}
        for seed in range(splits):
            learns = np.random.default_rng(seed).random(len(whole)) < 0.5
            learned, tested = whole.take(learns), whole.take(~learns)
            treated = tested.treated.astype(int)
            for name, learn in learners().items():
                begin = time.perf_counter()
                score = learn(learned, tested.matrix)
                took = time.perf_counter() - begin
                at = [uplift_at_k(tested.outcome, score, treated, strategy="overall", k=k) for k in (0.1, 0.3)]
                found[name].append((*at, qini_auc_score(tested.outcome, score, treated), took))
                if seed == 0 and name == "Lotse":
                    mine = evaluate_uplift(tested, score, resamples=200)
                    share, gain = gain_curve(tested, score)
                    number, theirs = uplift_curve(tested.outcome, score, treated)
                    assert np.allclose(np.interp(number / len(tested), share, gain), theirs / len(tested), atol=1e-9)
            console.print(f"{arm}, {outcome}: split {seed}", style="dim")
        lines = []
        best = np.array([row[2] for row in found["Lotse"]])
        for name, rows in found.items():
            values = np.array(rows)
            mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
            gap = best - values[:, 2]
            better = f"{int((gap > 0).sum())} of {splits}" if name != "Lotse" else ""
            lines.append(
                [
                    name,
                    f"{mean[0] * 100:.2f} +- {spread[0] * 100:.2f}",
                    f"{mean[1] * 100:.2f} +- {spread[1] * 100:.2f}",
                    f"{mean[2]:.4f} +- {spread[2]:.4f}",
                    better,
                    f"{mean[3]:.1f} s",
                ]
            )
        effect = whole.outcome[whole.treated].mean() - whole.outcome[whole.control].mean()
        report(
            f"{arm} against none, {outcome}: effect on all {effect * 100:.2f} points, {len(whole):,} customers",
            ["learner", "uplift at 10 %, points", "at 30 %", "Qini", "Lotse's Qini is higher in", "learning"],
            lines,
        )
        console.print("split 0, Lotse, intervals over customers:", mine)


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 10,
        Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER,
    )

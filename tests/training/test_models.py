"""Calibration, metrics, and what a head learns: nothing from shuffled labels, the truth from the simulated shop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from features.batch import Rows, build_rows
from simulation.shop import Simulated, simulate
from training.calibration import Sigmoid, fit_sigmoid
from training.config import TrainingSettings, load_training
from training.datasets import Slice, assign_sessions, slices_of
from training.evaluation import evaluate, expected_calibration_error, metrics
from training.heads import HEADS
from training.labels import outcomes
from training.model import HeadModel, fit_head, fit_logistic

SETTINGS = load_training()


def test_a_sigmoid_is_found_again() -> None:
    random = np.random.default_rng(0)
    margin = random.normal(0, 2, 200_000)
    answer = (random.random(len(margin)) < Sigmoid(0.6, -1.0)(margin)).astype(np.uint8)
    found = fit_sigmoid(margin, answer, positive_sessions=1000, least=25)
    assert found.slope == pytest.approx(0.6, abs=0.02)
    assert found.intercept == pytest.approx(-1.0, abs=0.03)


def test_too_few_positives_and_upside_down_models_stay_as_they_are() -> None:
    margin, answer = np.linspace(-1, 1, 100), np.tile([0, 1], 50).astype(np.uint8)
    assert fit_sigmoid(margin, answer, positive_sessions=10, least=25) == Sigmoid()
    assert fit_sigmoid(-margin, (margin > 0).astype(np.uint8), positive_sessions=50, least=25) == Sigmoid()


def test_ece_of_known_cases() -> None:
    score = np.repeat([0.2, 0.8], 500)
    perfect = np.concatenate([np.arange(500) < 100, np.arange(500) < 400]).astype(float)
    assert expected_calibration_error(perfect, score, 10) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(np.zeros(1000), score, 10) == pytest.approx(0.5)
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0), 10))


def test_one_class_has_no_auc_and_says_so() -> None:
    found = metrics(np.zeros(10, np.uint8), np.full(10, 0.1), 5)
    assert np.isnan(found["auc"]) and np.isnan(found["pr_auc"])
    assert found["brier"] == pytest.approx(0.01)


@dataclasses.dataclass(frozen=True)
class Prepared:
    drawn: Simulated
    rows: Rows
    slices: dict[str, dict[str, Slice]]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    drawn = simulate(events=1_500_000, days=28, seed=21)
    rows = build_rows(drawn.events)
    timeout_ms = round(SETTINGS.rows.timeout_minutes * 60_000)
    outcome = outcomes(rows.events, SETTINGS.labels, timeout_ms)
    assigned = assign_sessions(rows.events, SETTINGS.split, timeout_ms)
    slices = {name: slices_of(rows, outcome, assigned, head) for name, head in HEADS.items()}
    return Prepared(drawn, rows, slices)


def fitted(slices: dict[str, Slice], rows: Rows, settings: TrainingSettings = SETTINGS) -> HeadModel:
    return fit_head(slices, rows.names, settings.lightgbm, settings.calibration)


def small(part: Slice, rows: int) -> Slice:
    chosen = slice(0, rows)
    arrays = {
        f.name: getattr(part, f.name)[chosen] for f in dataclasses.fields(part) if f.name != "name"
    }  # fmt: skip
    return Slice(name=part.name, **arrays)


@pytest.mark.slow
@pytest.mark.parametrize("head", list(HEADS))
def test_scores_are_the_true_probabilities(prepared: Prepared, head: str) -> None:
    """ECE against the truth of the hidden state at most 0.02 at each session age."""
    slices = prepared.slices[head]
    model = fitted(slices, prepared.rows)
    truth = prepared.drawn.truth[head].to_numpy()
    by_moment = dict(
        zip(zip(prepared.drawn.events["visitor"], prepared.drawn.events["time"], strict=True), truth, strict=True)
    )
    test = slices["test"]
    score = model.score(test.matrix)
    ages = [age for age in (1, 2, 3, 5, 10) if head != "bounce" or age == 1]
    for age in ages:
        at = np.flatnonzero((test.prefix == age) & (test.idle_ms == 0))
        known = np.array([by_moment[v, t] for v, t in zip(test.visitor[at], test.now[at], strict=True)])
        error = expected_calibration_error(known, score[at], SETTINGS.evaluation.bins)
        assert error <= 0.02, f"{head} after event {age}: {error:.4f} over {len(at)} rows"
        assert np.corrcoef(known, score[at])[0, 1] > 0.3


@pytest.mark.parametrize("head", list(HEADS))
def test_shuffled_labels_teach_nothing(prepared: Prepared, head: str) -> None:
    random = np.random.default_rng(5)
    slices = {name: small(part, 20_000) for name, part in prepared.slices[head].items()}
    shuffled = {name: dataclasses.replace(p, answer=random.permutation(p.answer)) for name, p in slices.items()}
    score = fitted(shuffled, prepared.rows).score(shuffled["test"].matrix)
    answer = shuffled["test"].answer
    auc = metrics(answer, score, 10)["auc"]
    # standard error of an AUC without signal (Hanley & McNeil 1982)
    yes = int(answer.sum())
    error = np.sqrt((len(answer) + 1) / (12 * yes * (len(answer) - yes)))
    assert abs(auc - 0.5) < 4 * error


def test_real_labels_teach_more_than_the_baselines(prepared: Prepared) -> None:
    slices = {name: small(part, 200_000) for name, part in prepared.slices["exit"].items()}
    model = fitted(slices, prepared.rows)
    test = slices["test"]
    scores = {
        "lotse": model.score(test.matrix),
        "logistic": fit_logistic(slices["fit"]).predict_proba(test.matrix)[:, 1],
        "base_rate": np.full(len(test.answer), slices["fit"].answer.mean()),
    }
    table = evaluate(test, scores, (1, 5), 15).set_index(["age", "model"])
    for metric, sign in (("auc", 1), ("pr_auc", 1), ("log_loss", -1), ("brier", -1)):
        for rival in ("logistic", "base_rate"):
            ours, theirs = table.loc[("events", "lotse"), metric], table.loc[("events", rival), metric]
            assert sign * ours > sign * theirs, (metric, rival)
    rows = table.xs("lotse", level="model")["rows"]
    assert rows["events"] + rows["idle"] == rows["all"] == len(test.answer)


def test_the_same_rows_give_the_same_model(prepared: Prepared) -> None:
    slices = {name: small(part, 30_000) for name, part in prepared.slices["exit"].items()}
    one, two = fitted(slices, prepared.rows), fitted(slices, prepared.rows)
    assert one.booster.model_to_string() == two.booster.model_to_string()
    assert one.calibration == two.calibration

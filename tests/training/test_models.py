"""What a head learns: nothing from shuffled labels or a planted future, the truth from the simulated shop, and on a
small log never less than its baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from features.events import PURCHASE, hash64
from features.pseudonyms import Pseudonymiser
from features.shop import load_shop
from features.sources import read_events
from simulation.shop import Simulated, simulate
from tests.shared import TAOBAO
from training.baselines import baseline_scores
from training.config import TrainingSettings, load_training
from training.datasets import Slice
from training.evaluation import expected_calibration_error
from training.heads import Head, heads_of
from training.model import HeadModel, fit_head
from training.pipeline import Prepared, prepare, prepare_others

SETTINGS = load_training()
# For what does not depend on how much is learned.
QUICK = load_training(overrides=("lightgbm.num_boost_round=30", "split.inner_folds=2"))
# Of a long log: few visitors to learn from, many to calibrate by.
LONG = load_training(overrides=("rows.max_events=200000",))
HEADS = heads_of(SETTINGS)
IN_SESSION = ("bounce", "conversion", "exit")


@pytest.fixture(scope="module")
def small() -> Prepared:
    return prepare(simulate(events=60_000, days=28, seed=21).events, SETTINGS)


@dataclasses.dataclass(frozen=True)
class Shop:
    """A long simulated history: the truth, the rows learned from and those of the visitors left out."""

    drawn: Simulated
    prepared: Prepared
    others: Prepared


@pytest.fixture(scope="module")
def shop() -> Shop:
    drawn = simulate(events=2_500_000, days=28, seed=21)
    prepared = prepare(drawn.events, LONG)
    others = prepare_others(drawn.events, prepared)
    assert others is not None
    return Shop(drawn, prepared, others)


@pytest.mark.slow
@pytest.mark.parametrize("head", IN_SESSION)
def test_scores_are_the_true_probabilities_at_every_age(shop: Shop, head: str) -> None:
    """ECE against the truth of the hidden state at most 0.01 at each session age with 1,000 rows and more.

    Above what chance gives: the truths of a bin's rows, which no score can tell apart, have a mean of their own.
    """
    slices = shop.prepared.slices(HEADS[head])
    model = fit_head(slices["past"], HEADS[head], LONG, others=shop.others.slices(HEADS[head])["past"])
    test = slices["test"]
    known, score = truth(shop.drawn, head, test), model.score(test.matrix)
    ages = [age for age in range(1, 41) if ((test.prefix == age) & (test.idle_ms == 0)).sum() >= 1_000]
    assert len(ages) >= (1 if head == "bounce" else 8)
    for age in ages:
        at = (test.prefix == age) & (test.idle_ms == 0)
        error = expected_calibration_error(known[at], score[at], LONG.evaluation.bins)
        error -= chance(known[at], score[at], LONG.evaluation.bins)
        assert error <= 0.01, f"{head} after event {age}: {error:.4f} over {at.sum()} rows"
        if age <= 10:
            assert np.corrcoef(known[at], score[at])[0, 1] > 0.3


def chance(known: np.ndarray, score: np.ndarray, bins: int) -> float:
    """The ECE to be expected of scores that are each bin's expected truth: the mean of |N(0, sd / sqrt(rows))|."""
    parts = np.array_split(np.argsort(score, kind="stable"), bins)
    return float(np.sqrt(2 / np.pi) * sum(known[one].std() * np.sqrt(len(one)) for one in parts) / len(score))


def truth(drawn: Simulated, head: str, part: Slice) -> np.ndarray:
    """The true probability at each row right after an event, NaN elsewhere."""
    known = drawn.truth[head].to_numpy()
    index = pd.MultiIndex.from_arrays([drawn.events["visitor"], drawn.events["time"]])
    series = pd.Series(known, index=index)
    series = series[~series.index.duplicated(keep="last")]
    found = series.reindex(pd.MultiIndex.from_arrays([part.visitor, part.now])).to_numpy()
    return np.where(part.idle_ms == 0, found, np.nan)


@pytest.mark.parametrize("head", [*IN_SESSION, "add_to_cart"])
def test_shuffled_labels_teach_nothing(small: Prepared, head: str) -> None:
    """Answers are shuffled between sessions, so that the rows of a session still agree."""
    random = np.random.default_rng(5)
    slices = small.slices(HEADS[head])
    past, test = slices["past"], slices["test"]
    first = past.take(np.unique(past.session, return_index=True)[1])
    shuffled = pd.Series(random.permutation(first.answer), index=first.session)
    model = fit_head(dataclasses.replace(past, answer=shuffled[past.session].to_numpy()), HEADS[head], QUICK)
    once = test.take(np.unique(test.session, return_index=True)[1])
    taught, _ = fitted(small, HEADS[head])
    # by AUC alone, any direction that noise happened to take would count as knowledge
    base, noise, knowledge = (
        log_loss(once.answer, score)
        for score in (np.full(len(once), first.answer.mean()), model.score(once.matrix), taught.score(once.matrix))
    )
    assert base - noise < (base - knowledge) / 4


@pytest.fixture(scope="module")
def medium() -> Prepared:
    return prepare(simulate(events=300_000, days=28, seed=21).events, QUICK)


def canary(events: pd.DataFrame, when: Callable[[pd.Series], pd.Series]) -> pd.DataFrame:
    """The log with a product that only converting sessions show, at the events that `when` names."""
    bought = events["name"] == PURCHASE
    session = (events["visitor"] != events["visitor"].shift()) | (events["time"].diff() > 1_800_000)
    converts = bought.groupby(session.cumsum()).transform("any")
    return events.assign(item=events["item"].where(~(converts & when(bought)), hash64("canary")))


def conversion_auc(events: pd.DataFrame) -> float:
    prepared = prepare(events, QUICK)
    slices = prepared.slices(HEADS["conversion"])
    test = slices["test"]
    return float(roc_auc_score(test.answer, fit_head(slices["past"], HEADS["conversion"], QUICK).score(test.matrix)))


def test_a_canary_of_the_future_is_not_heard_and_one_of_the_past_is() -> None:
    """What is planted in the purchase itself tells nothing before it; planted earlier it tells all: the alarm works."""
    events = simulate(events=60_000, days=28, seed=8).events.sort_values(["visitor", "time"], ignore_index=True)
    plain = conversion_auc(events)
    assert abs(conversion_auc(canary(events, lambda bought: bought)) - plain) < 0.02
    assert conversion_auc(canary(events, lambda bought: ~bought)) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("head", IN_SESSION)
def test_a_small_log_never_loses_to_its_baselines(taobao: pd.DataFrame, head: str, seed: int) -> None:
    """413 users: log loss not above logistic regression's, the rule's, nor (but for noise) the base rate's."""
    settings = load_training(overrides=(f"split.seed={seed}",))
    slices = prepare(taobao, settings).slices(HEADS[head])
    past, test = slices["past"], slices["test"]
    model = fit_head(past, HEADS[head], settings)
    right_after = test.idle_ms == 0
    rivals = baseline_scores(past, test, HEADS[head], {})
    ours = log_loss(test.answer[right_after], model.score(test.matrix)[right_after])
    for name, margin in (("logistic", 0.0), ("pages", 0.002), ("base_rate", 0.002)):
        theirs = log_loss(test.answer[right_after], np.clip(rivals[name][right_after], 1e-6, 1 - 1e-6))
        assert ours <= theirs + margin, (name, ours, theirs)


@pytest.fixture(scope="module")
def taobao() -> pd.DataFrame:
    return read_events("taobao", TAOBAO, load_shop(), Pseudonymiser(b"a fixed key of thirty-two bytes!"))


def fitted(prepared: Prepared, head: Head, settings: TrainingSettings = QUICK) -> tuple[HeadModel, Slice]:
    slices = prepared.slices(head)
    return fit_head(slices["past"], head, settings), slices["test"]


def test_more_towards_the_purchase_never_scores_lower(small: Prepared) -> None:
    head = HEADS["conversion"]
    model, test = fitted(small, head)
    random = np.random.default_rng(0)
    rows = test.matrix[random.choice(len(test), 300)]
    for feature, direction in head.monotone.items():
        place = test.names.index(feature)
        values = np.unique(test.matrix[:, place][~np.isnan(test.matrix[:, place])])
        values = values[:: max(len(values) // 20, 1)]
        scores = []
        for value in values:
            changed = rows.copy()
            changed[:, place] = value
            scores.append(model.score(changed))
        assert (np.diff(scores, axis=0) * direction >= -1e-12).all(), feature


def test_the_value_head_expects_what_the_rest_of_the_session_brings(medium: Prepared) -> None:
    model, test = fitted(medium, HEADS["value"])
    score = model.score(test.matrix)
    assert (score >= 0).all()
    assert score.mean() == pytest.approx(test.answer.mean(), rel=0.25)
    bought = test.answer > 0
    assert score[bought].mean() > 1.8 * score[~bought].mean()


def test_the_returns_head_is_asked_of_linked_visitors_alone(medium: Prepared) -> None:
    settings = QUICK.model_copy(
        update={
            "heads": type(QUICK.heads).model_validate(
                {"questions": {"soon": {"kind": "returns", "days": 2}}, "train": []}
            )
        }
    )
    head = heads_of(settings)["soon"]
    slices = dataclasses.replace(medium, settings=settings).slices(head)
    assert not np.isnan(slices["past"].column("visits_before")).any()
    model = fit_head(slices["past"], head, settings)
    test = slices["test"]
    assert roc_auc_score(test.answer, model.score(test.matrix)) > 0.55


def test_the_same_rows_give_the_same_model(small: Prepared) -> None:
    (one, _), (two, _) = (fitted(small, HEADS["exit"]) for _ in range(2))
    assert one.booster.model_to_string() == two.booster.model_to_string()
    assert one.calibration.as_json() == two.calibration.as_json()

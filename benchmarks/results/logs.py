"""The logs that models are compared on, and the comparison: the same split and the same rows for everybody."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from benchmarks.measure import console
from benchmarks.results import markov, rivals, sequence
from benchmarks.results.measures import Comparison, compare
from benchmarks.results.rivals import Learner
from features.pseudonyms import Pseudonymiser
from features.settings import SettingsError
from features.shop import load_shop
from features.sources import read_events
from simulation.shop import simulate
from training.config import TrainingSettings, load_training
from training.datasets import Slice, check_enough
from training.heads import Head, heads_of
from training.pipeline import Prepared, prepare

ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = ROOT.parent / "shared" / "data"
# Who is tested follows from the pseudonyms: with a fixed key every run tests the same.
KEY: Final = Pseudonymiser(b"a fixed key of the benchmarks")
SIMULATED_EVENTS: Final = 300_000
TRUTH: Final = "the truth"


@dataclass(frozen=True)
class History:
    """A log in memory; truth: of each event, where it is known, the probability of each head's answer by its name."""

    events: pd.DataFrame
    truth: pd.DataFrame | None = None


@dataclass(frozen=True)
class Log:
    """A log and what is asked of it; overrides: of the training's configuration."""

    name: str
    read: Callable[[], History]
    heads: tuple[str, ...]
    overrides: tuple[str, ...] = ()

    def settings(self, *more: str) -> TrainingSettings:
        """The configuration of `lotse train`, with this log's overrides and more."""
        return load_training(ROOT / "configs" / "training.toml", (*self.overrides, *more))


@dataclass(frozen=True)
class LogResult:
    """What came of a log: a comparison for each head, and why a head could not be asked."""

    compared: dict[str, Comparison] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def _source(name: str, location: str) -> History:
    return History(read_events(name, DATA / location, load_shop(ROOT / "configs" / "shop.toml"), KEY))


def _simulated() -> History:
    drawn = simulate(events=SIMULATED_EVENTS, days=28, seed=1)
    return History(drawn.events, drawn.truth.assign(visitor=drawn.events["visitor"], time=drawn.events["time"]))


LOGS: Final = {
    log.name: log
    for log in (
        Log(
            "taobao",
            partial(_source, "taobao", "taobao/UserBehavior.parquet"),
            ("bounce", "conversion", "exit", "add_to_cart", "returns"),
            # nine days in all: a week's absence cannot be seen
            ("heads.questions.returns.days=1",),
        ),
        Log("trivago", partial(_source, "trivago", "trivago/sessions.parquet"), ("exit",)),
        Log("yoochoose", partial(_source, "yoochoose", "yoochoose_clicks_100k"), ("exit",)),
        Log(
            "simulated",
            _simulated,
            ("bounce", "conversion", "exit", "value"),
            # half and half: five times the test, at the cost of a log half as long
            ("split.test_from=0.5", "split.past=0.5", "split.test=0.5"),
        ),
    )
}


def compare_log(log: Log) -> LogResult:
    """Fit and measure every learner on every head of a log."""
    settings = log.settings()
    history = log.read()
    prepared = prepare(history.events, settings)
    found = LogResult()
    for name in log.heads:
        head = heads_of(settings)[name]
        slices = prepared.slices(head)
        try:
            check_enough(head, slices, prepared.rows.events, settings.split)
        except SettingsError as error:
            found.refused[name] = str(error)
            continue
        scores = scores_of(learners(prepared, head, slices["past"]), slices, head, settings, log.name)
        if history.truth is not None and name in history.truth:
            scores[TRUTH] = true_scores(slices["test"], history.truth, name)
        evaluation = settings.evaluation
        found.compared[name] = compare(slices["test"], scores, evaluation.prefixes, evaluation.bins, head.task)
    return found


def learners(prepared: Prepared, head: Head, past: Slice) -> dict[str, Learner]:
    """Everybody who is asked, by name."""
    events = prepared.rows.events
    found: dict[str, Learner] = {"Lotse": rivals.lotse, "logistic regression": rivals.logistic}
    if head.task == "binary" and len(past) <= rivals.PENALTY_ROWS:
        found["logistic regression, penalty chosen"] = rivals.penalised_logistic
    found |= {"CatBoost": rivals.catboost, "XGBoost": rivals.xgboost}
    found["GRU"] = partial(sequence.gru, histories=sequence.histories_of(events))
    if head.name == "exit":
        states = markov.states_of(events)
        found["Markov chain"] = partial(_of_states, markov.markov_chain, states)
        found["hidden Markov model"] = partial(_of_states, markov.hidden_markov_model, states)
    return found


def scores_of(
    asked: dict[str, Learner], slices: dict[str, Slice], head: Head, settings: TrainingSettings, where: str
) -> dict[str, np.ndarray]:
    """Each learner's scores of the test, float64 (rows,)."""
    scores = {}
    for name, learner in asked.items():
        begin = time.perf_counter()
        scores[name] = learner(slices["past"], slices["test"], head, settings)
        console.print(f"  {where} {head.name}: {name} {time.perf_counter() - begin:.0f} s", style="dim")
    return scores


def true_scores(test: Slice, truth: pd.DataFrame, head: str) -> np.ndarray:
    """The true probability right after each event, NaN at the idle checkpoints: float64 (rows,)."""
    known = truth.drop_duplicates(["visitor", "time"]).set_index(["visitor", "time"])[head]
    found = known.reindex(pd.MultiIndex.from_arrays([test.visitor, test.now])).to_numpy(np.float64)
    return np.where(test.idle_ms == 0, found, np.nan)


def _of_states(
    model: Callable[[Slice, Slice, markov.States], np.ndarray],
    states: markov.States,
    past: Slice,
    test: Slice,
    head: Head,
    settings: TrainingSettings,
) -> np.ndarray:
    del head, settings
    return model(past, test, states)

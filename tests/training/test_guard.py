"""Models that learn from sessions they have acted on: what the guard prevents, on the simulated shop, whose truth is
known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from features.batch import build_rows
from features.events import PAGE_VIEW, VIEW_ITEM_LIST, hash64
from features.experiments import FORCED, HOLDBACK
from features.tables import NOTHING_LEARNED, Tables
from serving.engine import Engine
from serving.experiments.assignments import Assignment
from serving.sessions import Assigning, key_of
from simulation.shop import simulate
from tests.training.test_session_log import log_of
from training.config import TrainingSettings
from training.guard import weights_of
from training.heads import heads_of
from training.model import HeadModel, fit_head
from training.pipeline import prepare
from training.session_log import read_session_log

SETTINGS = TrainingSettings.model_validate(
    {
        "split": {"inner_folds": 2},
        "linear": {"max_rows": 0},
        "lightgbm": {"num_boost_round": 60, "learning_rate": 0.1, "min_data_in_leaf": 30, "lambda_l2": 5},
        "calibration": {"knots": 0, "priors": [100]},
    }
)
HEAD = heads_of(SETTINGS)["exit"]
# Of those who would leave after their first event, so many stay for two more if they are helped.
HELD = 0.7


@dataclass(frozen=True)
class Visits:
    """First visits of the simulated shop. events, leave: canonical, and the true probability of an exit, by visitor and
    time; first: places of the first events."""

    events: pd.DataFrame
    leave: np.ndarray
    first: np.ndarray

    @classmethod
    def draw(cls, visitors: int, seed: int) -> Visits:
        drawn = simulate(visitors=visitors, seed=seed)
        chosen = drawn.events[(drawn.truth["session_number"] == 1) & (drawn.truth["kind"] != 4)]
        chosen = chosen.sort_values(["visitor", "time"], kind="stable")
        leave = drawn.truth["exit"].to_numpy()[chosen.index]
        events = chosen.reset_index(drop=True)
        return cls(events, leave, np.flatnonzero(~events["visitor"].duplicated()))

    def scores(self, model: HeadModel, tables: Tables) -> np.ndarray:
        """What a model says after the first event."""
        return model.score(build_rows(self.events, idle_seconds=(), tables=tables).matrix[self.first])

    def helped(self, place: np.ndarray, seed: int) -> pd.DataFrame:
        """The events, by time, as they are when visitors are helped after their first event; place: which, in `first`.

        Some of those who would have left see two pages more.
        """
        random = np.random.default_rng(seed)
        last = np.append(self.first[1:], len(self.events)) - 1
        left = place[last[place] == self.first[place]]
        stay = self.events.iloc[self.first[left[random.random(len(left)) < HELD]]]
        more = [
            stay.assign(time=stay["time"] + 12_000 * step, name=name, id=stay["id"] + step, interactive=1)
            for step, name in ((1, VIEW_ITEM_LIST), (2, PAGE_VIEW))
        ]
        whole = pd.concat([self.events, *more])[list(self.events.columns)].astype(self.events.dtypes)
        return whole.sort_values("time", kind="stable", ignore_index=True)


def test_the_guard_keeps_scores_true_and_the_rule_in_reach(tmp_path: Path) -> None:
    # a model of untouched visitors, and the rule that acts on its scores: help whoever is about to leave
    before = Visits.draw(3_000, seed=10)
    prepared = prepare(before.events, SETTINGS, border_ms=float(before.events["time"].max()), tables=NOTHING_LEARNED)
    model = fit_head(prepared.slices(HEAD)["past"], HEAD, SETTINGS)
    border = float(np.quantile(before.scores(model, NOTHING_LEARNED), 0.6))

    # every other one of them is helped, by an experiment that notes it
    visits = Visits.draw(5_000, seed=11)
    triggered = np.flatnonzero(visits.scores(model, NOTHING_LEARNED) > border)
    helped = triggered[np.random.default_rng(1).random(len(triggered)) < 0.5]
    first = visits.events.iloc[visits.first]

    def assignings(engine: Engine) -> list[Assigning]:
        arms = np.isin(np.arange(len(first)), helped).astype(int)
        one = Assignment(hash64("help"), 0, 0.5, 0.0, 0.0, 0.0, 0.0, 1, 0, 1)
        return [
            Assigning(
                [engine.sessions],
                key_of(int(first["visitor"].iloc[place])),
                int(first["time"].iloc[place]),
                [one._replace(arm=int(arms[place]))],
            )
            for place in triggered
        ]

    folder = log_of(visits.helped(helped, seed=2), tmp_path, assignings)

    # visitors who come later, whom nobody has helped, and of whom the truth is known
    later = Visits.draw(4_000, seed=12)
    asked = later.scores(model, NOTHING_LEARNED) > border
    truth = later.leave[later.first][asked].mean()
    promised, reached = {}, {}
    for guard in ("propensity", "none"):
        log = read_session_log(folder, SETTINGS.log.model_copy(update={"guard": guard}))
        assert log.attrs["left_out"]["treated"] == (len(helped) if guard == "propensity" else 0)
        learned = prepare(log, SETTINGS, border_ms=float(log["time"].max()), tables=NOTHING_LEARNED)
        again = fit_head(learned.slices(HEAD)["past"], HEAD, SETTINGS)
        score = later.scores(again, NOTHING_LEARNED)[asked]
        promised[guard], reached[guard] = float(score.mean()), float((score > border).mean())
    # the guarded model still knows what those visitors do if they are left alone
    assert promised["propensity"] == pytest.approx(truth, abs=0.06)
    # the other takes the help's success for theirs: it promises too little, and the rule finds them no more
    assert promised["none"] < truth - 0.12
    assert reached["none"] < reached["propensity"] - 0.3


def test_sessions_of_the_control_count_for_those_left_out() -> None:
    def one(arm: int, propensity: float, flags: int = 0, experiment: str = "help") -> dict[str, float]:
        return {"experiment": hash64(experiment), "arm": arm, "propensity": propensity, "flags": flags}

    kind = pa.list_(
        pa.struct(
            [("experiment", pa.int64()), ("arm", pa.int32()), ("propensity", pa.float32()), ("flags", pa.int32())]
        )
    )
    sessions = pa.array(
        [[], [one(0, 0.5)], [one(1, 0.5)], [one(0, 0.5), one(0, 0.25, HOLDBACK)], [one(0, 0.5), one(2, 0.1)],
         [one(0, 1.0, FORCED)], [one(0, 0.01)], None],
        kind,
    )  # fmt: skip
    assert weights_of(sessions, "propensity", 20).tolist() == pytest.approx([1, 2, 0, 8, 0, 0, 20, 1])
    assert weights_of(sessions, "none", 20).tolist() == [1] * 8
    colours = pa.array([[one(1, 0.5, experiment="colour")], [one(1, 0.5, experiment="colour"), one(0, 0.5)]], kind)
    assert weights_of(colours, "propensity", 20, ["colour"]).tolist() == [1, 2]
    assert weights_of(pa.chunked_array([sessions.slice(2)]), "propensity", 20).tolist()[0] == 0

"""Tuning: inside the past alone, never worse than it began, and going on where it was stopped or killed."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.events import ADD_TO_CART, PAGE_VIEW, PURCHASE
from features.settings import SettingsError
from simulation.shop import simulate
from tests.workspace import LOTSE, environment, lotse, workspace
from training.config import TrackingSettings, TrainingSettings, TunedSettings, load_training
from training.datasets import Slice
from training.heads import heads_of
from training.pipeline import prepare
from training.search_space import SPACE
from training.tracking import connect
from training.trial_database import database
from training.tuned_toml import write_tuned
from training.tuning import Attempt, Tuned, open_study, search, study_name
from training.tuning_runs import page

SMALL = (
    "lightgbm.num_boost_round=6",
    "lightgbm.num_threads=1",
    "linear.inverse_penalties=[0.001]",
    "split.inner_folds=2",
)


def settings_of(*overrides: str) -> TrainingSettings:
    return load_training(overrides=(*SMALL, *overrides))


SETTINGS = settings_of("tuning.trials=4")
EXIT = heads_of(SETTINGS)["exit"]


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return simulate(events=6_000, seed=41).events


@pytest.fixture(scope="module")
def past(log: pd.DataFrame) -> Slice:
    return prepare(log, SETTINGS).slices(EXIT)["past"]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Any]:
    with database(tmp_path / "tuning.db") as opened:
        yield opened


def tried(past: Slice, storage: Any, settings: TrainingSettings, **options: Any) -> tuple[Tuned, list[Attempt]]:
    attempts: list[Attempt] = []
    resume = options.pop("resume", True)
    study = open_study(past, EXIT, settings, storage, resume=resume)
    return search(study, past, EXIT, settings, observe=attempts.append, **options), attempts


def test_everything_that_is_searched_can_be_configured() -> None:
    assert set(SPACE) == set(TunedSettings.model_fields)
    for name, space in SPACE.items():
        for value in (space.low, space.high):
            TunedSettings.model_validate({name: space.clipped(value)})


def test_the_first_trial_is_the_configuration_so_the_search_never_loses(past: Slice, storage: Any) -> None:
    found, attempts = tried(past, storage, SETTINGS)
    first = attempts[0]
    assert first.configured and first.values == found.configured == SETTINGS.lightgbm.model_dump(include=set(SPACE))
    assert first.loss == found.before >= found.after == min(one.loss for one in attempts)
    assert found.values in [one.values for one in attempts]
    assert (found.complete, found.pruned) == (4, 0)
    for one in attempts[1:]:
        assert all(SPACE[name].low <= value <= SPACE[name].high for name, value in one.values.items())
    assert len({one.loss for one in attempts}) > 1


def test_a_configuration_outside_the_space_is_tried_as_it_is(past: Slice, storage: Any) -> None:
    odd = settings_of("tuning.trials=1", "lightgbm.lambda_l2=0", "lightgbm.max_bin=500")
    _, (first,) = tried(past, storage, odd)
    assert (first.values["lambda_l2"], first.values["max_bin"]) == (0, 500)


def test_what_was_tuned_before_is_the_configuration(past: Slice, storage: Any) -> None:
    tuned = settings_of("tuning.trials=1", "tuned.exit={num_leaves=5}")
    found, _ = tried(past, storage, tuned)
    assert (found.configured["num_leaves"], found.configured["max_bin"]) == (5, tuned.lightgbm.max_bin)


def test_the_same_seed_gives_the_same_trials(past: Slice, tmp_path: Path) -> None:
    both = []
    for number in range(2):
        with database(tmp_path / f"{number}.db") as storage:
            both.append([(one.values, one.loss) for one in tried(past, storage, SETTINGS)[1]])
    assert both[0] == both[1]


def test_what_happens_in_the_test_changes_no_trial(log: pd.DataFrame, past: Slice, storage: Any) -> None:
    """Every session of the test now ends in a purchase that was not there, or lacks the one that was."""
    border = prepare(log, SETTINGS).border_ms
    later = (log["time"] >= border + SETTINGS.timeout_ms).to_numpy()
    name = log["name"].to_numpy()
    other = np.where(later & (name == PURCHASE), PAGE_VIEW, np.where(later & (name == PAGE_VIEW), PURCHASE, name))
    other = np.where(later & (np.arange(len(log)) % 3 == 0), ADD_TO_CART, other).astype(name.dtype)
    changed = prepare(log.assign(name=other), SETTINGS).slices(EXIT)
    original = prepare(log, SETTINGS).slices(EXIT)
    assert changed["test"].digest() != original["test"].digest()
    assert study_name(changed["past"], EXIT, SETTINGS) == study_name(past, EXIT, SETTINGS)
    few = settings_of("tuning.trials=2")
    _, before = tried(past, storage, few)
    _, after = tried(changed["past"], storage, few, resume=False)
    assert [one.loss for one in before] == [one.loss for one in after]


def test_a_search_goes_on_where_it_ended(past: Slice, storage: Any) -> None:
    _, first = tried(past, storage, settings_of("tuning.trials=2"))
    found, more = tried(past, storage, SETTINGS)
    assert [one.number for one in first + more] == [0, 1, 2, 3]
    assert len({tuple(one.values.values()) for one in first + more}) == 4  # nothing is tried twice
    assert found.complete == 4 and found.before == first[0].loss
    assert tried(past, storage, SETTINGS)[1] == []
    _, anew = tried(past, storage, settings_of("tuning.trials=1"), resume=False)
    assert [(one.number, one.loss) for one in anew] == [(0, first[0].loss)]


def test_another_question_is_another_search(past: Slice) -> None:
    name = study_name(past, EXIT, SETTINGS)
    assert study_name(past, EXIT, settings_of("lightgbm.num_threads=2", "tuning.trials=9", "drift.psi=0.3")) == name
    others = {
        study_name(past, heads_of(SETTINGS)["bounce"], SETTINGS),
        study_name(past.take(np.arange(len(past) - 1)), EXIT, SETTINGS),
        study_name(past, EXIT, settings_of("split.inner_folds=3")),
        study_name(past, EXIT, settings_of("lightgbm.num_leaves=5")),
        study_name(past, EXIT, settings_of("tuned.exit={num_leaves=6}")),
    }
    assert len(others | {name}) == 6


def test_time_ends_a_search_and_the_trial_it_cut_off_is_begun_anew(past: Slice, storage: Any) -> None:
    found, attempts = tried(past, storage, SETTINGS, seconds=0.0)
    assert attempts == [] and np.isnan(found.after) and not found.improved
    trees = iter(range(100))
    settings = settings_of("tuning.trials=3")
    # the first trial has 24 trees (alone and on a line, two folds): the second is stopped among its own
    _, before = tried(past, storage, settings, stopped=lambda: next(trees, 100) > 28)
    assert [one.number for one in before] == [0]
    study = open_study(past, EXIT, settings, storage)
    cut_off = study.trials[1].user_attrs["values"]
    assert study.trials[1].state.name == "FAIL"
    _, after = tried(past, storage, settings)
    assert after[0].values == cut_off
    assert len(after) == 2


def test_trials_that_gain_less_than_most_are_given_up(past: Slice, storage: Any) -> None:
    found, attempts = tried(past, storage, settings_of("tuning.trials=14"))
    given_up = [one for one in attempts if one.pruned]
    assert found.pruned == len(given_up) > 0
    assert found.complete == 14 - len(given_up) >= 5
    base = attempts[0].losses
    for one in given_up:
        assert len(one.losses) == 1 and one.rounds == 0
        earlier = [a.losses[0] - base[0] for a in attempts if a.number < one.number and not (a.configured or a.pruned)]
        assert one.losses[0] - base[0] > np.median(earlier)
    html = page(found, open_study(past, EXIT, settings_of("tuning.trials=14"), storage))
    assert html.count("<script>/**\n* plotly.js v") == 1
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", html)
    for name in SPACE:
        assert name in html


def test_trials_can_be_made_two_at_a_time(past: Slice, storage: Any) -> None:
    found, attempts = tried(past, storage, settings_of("tuning.trials=5", "tuning.jobs=2"))
    assert sorted(one.number for one in attempts) == [0, 1, 2, 3, 4]
    assert found.after == min(one.loss for one in attempts if not one.pruned)


def test_one_search_at_a_time(storage: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match="another lotse tune is at work on .*tuning.db"),
        database(tmp_path / "tuning.db"),
    ):
        pass


def test_a_past_without_inner_folds_is_refused(past: Slice, storage: Any) -> None:
    with pytest.raises(SettingsError, match="head 'exit': the past is too small for an inner fold"):
        open_study(past.take(np.arange(40)), EXIT, SETTINGS, storage)


def tuned(head: str, leaves: int) -> Tuned:
    values: dict[str, float | int] = {"learning_rate": 0.05, "num_leaves": leaves}
    return Tuned(head, f"{head}-0", 0.5, 0.4, {"learning_rate": 0.03, "num_leaves": 31}, values, 9, 3)


def test_what_was_found_goes_into_the_configuration_and_replaces_what_was_found_before(tmp_path: Path) -> None:
    path = workspace(tmp_path / "work") / "configs" / "training.toml"
    original = path.read_text()
    write_tuned(path, [tuned("exit", 7), tuned("bounce", 8)])
    write_tuned(path, [tuned("exit", 9)])
    assert path.read_text().startswith(original)
    assert path.read_text().count("[tuned.exit]") == path.read_text().count("[tuned.bounce]") == 1
    settings = load_training(path)
    leaves = {name: settings.for_head(name).lightgbm.num_leaves for name in ("exit", "bounce", "conversion")}
    assert leaves == {"exit": 9, "bounce": 8, "conversion": 31}
    assert settings.for_head("exit").lightgbm.max_bin == 63  # what is not tuned is as it was
    # and the same by hand: the fragment is appended
    write_tuned(tmp_path / "tuned.toml", [tuned("exit", 9)])
    path.write_text(original + (tmp_path / "tuned.toml").read_text())
    assert load_training(path).for_head("exit").lightgbm.num_leaves == 9


def test_a_configuration_that_says_it_otherwise_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "training.toml"
    path.write_text("[tuned]\nexit = { num_leaves = 3 }\n")
    with pytest.raises(SettingsError, match=r"what it says of \[tuned\] cannot be replaced"):
        write_tuned(path, [tuned("exit", 7)])
    assert path.read_text() == "[tuned]\nexit = { num_leaves = 3 }\n"


# Fast trials, but long enough to be killed among them.
VERB = ("tune", "--events", "log.parquet", "--head", "exit", *(f"--set={override}" for override in SMALL))


@pytest.mark.slow
def test_a_killed_search_goes_on_and_everything_is_in_mlflow(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "work")
    simulate(events=6_000, seed=41).events.to_parquet(folder / "log.parquet")
    long = [*LOTSE, *VERB, "--trials", "40"]
    process = subprocess.Popen(
        long, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    trials = folder / "lotse-data" / "tuning.db"
    deadline = time.monotonic() + 120
    while states(trials).count("COMPLETE") < 2 or "RUNNING" not in states(trials):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = sum(state in ("COMPLETE", "PRUNED") for state in states(trials))
    assert "RUNNING" in states(trials)

    done = lotse(folder, *VERB, "--trials", str(ended + 3), "--write")
    assert done.returncode == 0, done.stdout + done.stderr
    after = states(trials)
    assert sum(state in ("COMPLETE", "PRUNED") for state in after) == ended + 3
    assert after.count("FAIL") == 1 and "RUNNING" not in after
    assert "as configured" in done.stdout

    mlflow = connect(TrackingSettings(uri=f"sqlite:///{folder}/lotse-data/mlflow.db"))
    runs = mlflow.search_runs(experiment_names=["lotse"], output_format="list")
    (parent,) = (run for run in runs if run.info.run_name == "tune-exit")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    # of a trial that had ended when the process was killed, the run may be missing
    assert ended + 2 <= len(children) <= ended + 3
    for run in children:
        assert run.data.tags["state"] in ("complete", "pruned")
        assert set(SPACE) <= set(run.data.params) and run.data.metrics["log_loss"] > 0
    assert parent.data.metrics["log_loss/best"] <= parent.data.metrics["log_loss/configured"]
    assert parent.info.status == "FINISHED"
    files = {file.path for file in mlflow.MlflowClient().list_artifacts(parent.info.run_id)}
    assert {"tuning.html", "tuned.toml"} <= files
    if parent.data.metrics["log_loss/best"] < parent.data.metrics["log_loss/configured"]:
        leaves = int(parent.data.tags["best.num_leaves"])
        assert load_training(folder / "configs" / "training.toml").for_head("exit").lightgbm.num_leaves == leaves


def states(database: Path) -> list[str]:
    """Of all trials, read beside whoever writes them."""
    if not database.exists():
        return []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10) as reader:
        try:
            return [state for (state,) in reader.execute("SELECT state FROM trials ORDER BY number")]
        except sqlite3.OperationalError:  # not made yet
            return []
        finally:
            reader.commit()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--head", "churn"), "unknown head 'churn'; known: bounce, conversion, exit"),
        (("--trials", "0"), "tuning.trials"),
    ],
)
def test_the_verb_says_what_it_cannot_tune(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    folder = workspace(tmp_path / "work")
    simulate(events=2_000, seed=1).events.to_parquet(folder / "log.parquet")
    done = lotse(folder, "tune", "--events", "log.parquet", *arguments)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr

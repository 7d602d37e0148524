"""Drift: silent where the shop is what it was, loud where it is not, and never because of chance alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp
from typer.testing import CliRunner

from features.cli import build_app
from features.events import CHANNELS, PURCHASE
from features.settings import SettingsError
from simulation.chain import KINDS
from simulation.shop import START_MS, simulate
from tests.shared import TAOBAO
from tests.training.test_histogram import rows_of
from tests.workspace import lotse, workspace
from training.config import DriftSettings, load_training
from training.drift import Drift, compare, population_stability
from training.drift_page import page
from training.heads import heads_of
from training.histogram import Histogram
from training.loading import Registered
from training.model import fit_head
from training.pipeline import prepare
from training.provenance import iso
from training.watch import Watched, watch, window_of

DAY_MS = 86_400_000
SETTINGS = DriftSettings(ignore=())
SMALL = load_training(
    overrides=("lightgbm.num_boost_round=30", "lightgbm.num_threads=1", "linear.inverse_penalties=[0.001]")
)


def test_the_index_of_known_shares() -> None:
    before, later, many = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.3, 0.3]), (10**9, 10**9)
    by_hand = -0.1 * np.log(0.4 / 0.5) + 0.1 * np.log(0.3 / 0.2)
    assert population_stability(before, later, many) == pytest.approx(by_hand)
    assert population_stability(later, before, many) == pytest.approx(by_hand)
    assert population_stability(before, before, many) == 0
    # a bin that nobody was in before: finite, and louder the more sessions say so
    empty = [population_stability(np.array([1.0, 0.0]), np.array([0.9, 0.1]), (n, n)) for n in (100, 10_000)]
    assert 0 < empty[0] < empty[1] < 2


def bounds(**changed: float) -> DriftSettings:
    return SETTINGS.model_copy(update={"min_rows": 10, **changed})


def window(random: np.random.Generator, visitors: int, **shift: float) -> tuple[Any, np.ndarray]:
    """Rows of visitors who each come several times with values of their own, and scores that hold."""
    visitor = np.repeat(np.arange(visitors), random.integers(1, 6, visitors))
    own = random.normal(0, 1, visitors)[visitor]
    part = rows_of(
        visitor,
        cart_value=own + shift.get("cart_value", 0.0),
        entry_channel=random.integers(1, 6, visitors)[visitor],
        events=random.poisson(3, len(visitor)),
    )
    score = 1 / (1 + np.exp(2 - own))
    answer = (random.random(len(visitor)) < score).astype(np.float32)
    return replace(part, answer=answer), score


def test_without_drift_the_index_is_the_noise_and_alarms_are_rare() -> None:
    random = np.random.default_rng(7)
    loud = bounds(psi=1e-9, ks=1e-9)  # so that what chance allows decides alone
    found: list[Drift] = []
    for _ in range(150):
        part, score = window(random, 400)
        later, later_score = window(random, 300)
        found.append(compare(Histogram.of(part, score), later, later_score, loud))
    for name in ("cart_value", "entry_channel", "events"):
        changes = [one for drift in found for one in drift.features if one.name == name]
        psi, noise = np.mean([one.psi for one in changes]), np.mean([one.psi_noise for one in changes])
        assert psi == pytest.approx(noise, rel=0.25), name
    assert np.mean([any(one.drifted for one in drift.features) for drift in found]) <= 0.06
    assert np.mean([drift.score.drifted for drift in found]) <= 0.06
    # what is a visitor's own makes of three rows little more than one
    of_rows = 9 * (1 / 1_200 + 1 / 900)
    own = [one.psi_noise for drift in found for one in drift.features if one.name == "cart_value"]
    assert np.mean(own) > 2 * of_rows


def test_the_distance_is_exact_where_every_value_has_a_bin_and_a_lower_bound_elsewhere() -> None:
    random = np.random.default_rng(8)
    before, later = random.poisson(1, 3_000), random.poisson(1.4, 2_000)
    wide, wider = random.normal(0, 1, 3_000), random.normal(0.3, 1.5, 2_000)
    one = rows_of(np.arange(3_000), events=before, cart_value=wide)
    other = rows_of(np.arange(2_000), events=later, cart_value=wider)
    drift = compare(Histogram.of(one, np.full(3_000, 0.1)), other, np.full(2_000, 0.1), bounds())
    found = {change.name: change for change in drift.features}
    assert found["events"].ks == pytest.approx(ks_2samp(before, later).statistic)
    true = ks_2samp(wide, wider).statistic
    assert 0.8 * true < found["cart_value"].ks <= true + 1e-9


def test_codes_have_no_distance_and_missing_values_count() -> None:
    random = np.random.default_rng(9)
    part, score = window(random, 1_000)
    gone = replace(part, matrix=np.where(random.random(part.matrix.shape) < [0.0, 0.0, 0.4], np.nan, part.matrix))
    drift = compare(Histogram.of(part, score), gone, score, bounds())
    assert [one.name for one in drift.features if one.drifted] == ["events"]
    worst = drift.features[0]
    assert (worst.before.missing, round(worst.later.missing, 1)) == (0.0, 0.4)
    told = {line["name"]: line for line in drift.as_json()["features"]}
    assert told["entry_channel"]["ks"] is None and told["events"]["ks"] > 0


def test_what_is_ignored_is_shown_last_and_raises_no_alarm() -> None:
    random = np.random.default_rng(10)
    (part, score), (later, later_score) = window(random, 1_000), window(random, 1_000, cart_value=2.0)
    histogram = Histogram.of(part, score)
    assert compare(histogram, later, later_score, bounds()).found[0].startswith("feature cart_value: PSI ")
    quiet = bounds().model_copy(update={"ignore": ("cart_value",)})
    drift = compare(histogram, later, later_score, quiet)
    assert not drift.drifted
    assert drift.features[-1].name == "cart_value" and drift.features[-1].drifted
    with pytest.raises(SettingsError, match=r"\[drift\] ignore names moon; no such feature"):
        compare(histogram, later, later_score, quiet.model_copy(update={"ignore": ("moon",)}))


def test_scores_that_hold_are_calibrated_and_scores_that_do_not_are_an_alarm() -> None:
    random = np.random.default_rng(11)
    part, score = window(random, 4_000)
    later, later_score = window(random, 4_000)
    histogram = Histogram.of(part, score)
    good = compare(histogram, later, later_score, bounds()).realised
    assert good is not None and not good.off
    assert good.calibration < 2 * good.calibration_noise
    assert abs(good.ratio - 1) < 4 * good.ratio_error
    assert abs(good.change) < 4 * good.change_error
    half = replace(later, answer=later.answer * (random.random(len(later)) < 0.5))
    drift = compare(histogram, half, later_score, bounds())
    assert drift.realised is not None and drift.realised.off
    assert drift.found == [f"calibration: {drift.realised.ratio:.2f} of what the scores promise happens"]
    assert not [one for one in drift.features if one.drifted]


def test_what_is_not_known_yet_leaves_the_calibration_alone() -> None:
    random = np.random.default_rng(12)
    part, score = window(random, 2_000)
    histogram, unknown = Histogram.of(part, score), np.arange(len(part)) % 4 > 0
    later = replace(part, answer=np.where(unknown, np.nan, part.answer).astype(np.float32))
    realised = compare(histogram, later, score, bounds()).realised
    assert realised is not None and realised.rows == (~unknown).sum()
    assert realised.mean_answer == part.answer[~unknown].mean(dtype=np.float64)
    assert compare(histogram, later, score, bounds(min_rows=len(part) // 2)).realised is None


def test_amounts_are_held_to_their_total() -> None:
    random = np.random.default_rng(13)
    part, score = window(random, 3_000)
    amount = np.where(part.answer > 0, random.lognormal(3, 0.5, len(part)), 0).astype(np.float32)
    promised = score * np.exp(3 + 0.125)
    histogram = Histogram.of(replace(part, answer=amount), promised, "value")
    same = compare(histogram, replace(part, answer=amount), promised, bounds())
    assert same.realised is not None and not same.drifted
    assert same.realised.ratio == pytest.approx(1, abs=0.1)
    assert compare(histogram, replace(part, answer=2 * amount), promised, bounds()).drifted


def test_too_few_rows_and_other_features_are_refused() -> None:
    part, score = window(np.random.default_rng(14), 50)
    histogram = Histogram.of(part, score)
    with pytest.raises(SettingsError, match=r"the window has \d+ rows, at least 1,000 are needed"):
        compare(histogram, part, score, SETTINGS)
    with pytest.raises(SettingsError, match="other features than the model's histogram"):
        compare(histogram, rows_of(part.visitor, events=part.column("events")), score, bounds())


@dataclass(frozen=True)
class Shop:
    """Six weeks of a simulated shop; a model of the first four."""

    events: pd.DataFrame
    truth: pd.DataFrame
    model: Registered
    border: int

    def change(self, later: pd.DataFrame) -> Watched:
        """The first four weeks as they were, and what the rest has become."""
        before = self.events[self.events["time"] < self.border]
        (found,), refused = watch(pd.concat([before, later]), SMALL, {"conversion": self.model}, self.border)
        assert not refused
        return found

    @property
    def later(self) -> pd.DataFrame:
        return self.events[self.events["time"] >= self.border]


@pytest.fixture(scope="module")
def shop() -> Shop:
    drawn = simulate(events=120_000, days=42, seed=31)
    border = START_MS + 28 * DAY_MS
    events = drawn.events.reset_index(drop=True)
    prepared = prepare(events[events["time"] < border], SMALL)
    head = heads_of(SMALL)["conversion"]
    slices = prepared.slices(head)
    model, test = fit_head(slices["past"], head, SMALL), slices["test"]
    registered = Registered(
        name="lotse-conversion",
        version="1",
        tags={},
        model=model,
        tables=prepared.tables,
        about={},
        histogram=Histogram.of(test, model.score(test.matrix)),
    )
    return Shop(events, drawn.truth.reset_index(drop=True), registered, border)


def drifted(one: Watched) -> set[str]:
    return {change.name for change in one.drift.features if change.counts and change.drifted}


def test_the_same_shop_two_weeks_later_has_not_drifted(shop: Shop) -> None:
    same = shop.change(shop.later)
    assert same.drift.found == []
    assert same.drift.first >= shop.border
    assert same.drift.realised is not None
    # the last sessions of the log may go on
    assert 0 < same.drift.realised.sessions < same.drift.sessions


def test_a_channel_that_dries_up_is_seen(shop: Shop) -> None:
    found = shop.change(shop.later[shop.later["channel"] != CHANNELS.index("organic")])
    assert "entry_channel" in drifted(found)


def test_prices_that_double_are_seen(shop: Shop) -> None:
    dear = shop.later.assign(price=shop.later["price"] * 2, value=shop.later["value"] * 2)
    assert {"price_viewed_last", "price_viewed_mean"} <= drifted(shop.change(dear))


def test_other_visitors_are_seen_in_the_scores(shop: Shop) -> None:
    kind = shop.truth.loc[shop.later.index, "kind"]
    keen = shop.later[kind == KINDS.index("buyer")]
    found = shop.change(keen)
    assert found.drift.score.drifted
    assert found.drift.found[0].startswith(("scores", "calibration"))


def test_purchases_that_are_no_longer_tracked_are_an_alarm_of_the_calibration(shop: Shop) -> None:
    lost = (shop.later["name"] == PURCHASE) & (np.random.default_rng(1).random(len(shop.later)) < 0.7)
    found = shop.change(shop.later[~lost])
    assert found.drift.found[0].startswith("calibration: 0.")
    assert found.drift.realised is not None and found.drift.realised.ratio < 0.6
    assert not found.drift.score.drifted


def test_the_window_is_of_sessions_that_began_in_it(shop: Shop) -> None:
    prepared = prepare(shop.events, SMALL, border_ms=np.inf, tables=shop.model.tables)
    since, until = shop.border + DAY_MS, shop.border + 2 * DAY_MS
    part = window_of(prepared, heads_of(SMALL)["conversion"], since, until)
    assert since <= part.started.min() and part.started.max() < until
    assert not np.isnan(part.answer).any()
    end = window_of(prepared, heads_of(SMALL)["conversion"], shop.border, np.inf)
    late = end.known_at > shop.events["time"].max()
    np.testing.assert_array_equal(np.isnan(end.answer), late)
    assert late.any() and end.now.max() <= shop.events["time"].max()
    assert not len(window_of(prepare(shop.events.iloc[:0], SMALL), heads_of(SMALL)["exit"], -np.inf, np.inf))


def test_a_head_without_histogram_or_configuration_cannot_be_told(shop: Shop) -> None:
    bare = replace(shop.model, histogram=None)
    found, refused = watch(shop.later, SMALL, {"conversion": bare, "churn": shop.model})
    assert not found
    assert "carries no histogram; train again" in refused["conversion"]
    assert "head 'churn' is not configured" in refused["churn"]
    _, refused = watch(shop.later, SMALL, {"conversion": shop.model}, float(shop.events["time"].max()))
    assert re.search(r"sessions that began from 2026-\S+ on: the window has \d+ rows", refused["conversion"])


def test_the_page_needs_nothing_but_itself(shop: Shop, tmp_path: Path) -> None:
    found = shop.change(shop.later[shop.later["channel"] != CHANNELS.index("organic")])
    html = page([found, replace(found, version="2")])
    assert html.count("<script>/**\n* plotly.js v") == 1
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", html)
    for words in (
        "drift: conversion",
        "conversion, version 1",
        "entry_channel (channel code)",
        "What happened, by score",
    ):
        assert words in html, words
    assert "organic" in html  # codes are told by name
    json.dumps(found.drift.as_json(), allow_nan=False)


# The last two days of the marketplace's log: users whom the model was tested on, and others.
LATE = ("--source", "taobao", "--head", "exit", "--since", "2017-12-01T16:00", "--until", "2017-12-03")


def test_the_verb_ends_with_0_where_nothing_drifted(trained: Path, tmp_path: Path) -> None:
    done = lotse(trained, "drift", *LATE, "--events", str(TAOBAO), "--out", str(tmp_path / "pages" / "drift.html"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit: no drift" in done.stdout
    assert "happened over promised" in done.stdout
    assert "plotly.js v" in (tmp_path / "pages" / "drift.html").read_text()


def test_the_verb_ends_with_1_where_something_drifted_and_leaves_a_run(trained: Path, tmp_path: Path) -> None:
    from training.config import TrackingSettings  # noqa: PLC0415
    from training.tracking import connect  # noqa: PLC0415

    log = pd.read_parquet(TAOBAO)
    later = log["timestamp"] >= pd.Timestamp("2017-12-01T16:00", tz="UTC").timestamp()
    viewed = later & (log["behavior_type"] == "pv") & (np.random.default_rng(1).random(len(log)) < 0.5)
    log.assign(behavior_type=log["behavior_type"].where(~viewed, "cart")).to_parquet(tmp_path / "log.parquet")
    done = lotse(trained, "drift", *LATE, "--events", str(tmp_path / "log.parquet"), "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["refused"] == {}
    drift = found["heads"]["exit"]
    assert iso(drift["first"]) >= "2017-12-01T16:00" and iso(drift["last"]) < "2017-12-03T02:00"
    assert drift["drifted"] and any(line.startswith("feature cart_adds: PSI") for line in drift["found"])

    database = f"sqlite:///{trained}/lotse-data/mlflow.db"
    mlflow = connect(TrackingSettings(uri=database, artifacts=f"{trained}/lotse-data/artifacts"))
    runs = mlflow.search_runs(filter_string="run_name = 'drift-exit'", output_format="list")
    run = next(one for one in runs if one.data.tags["drift"] == "true")
    assert run.data.metrics["psi/cart_adds"] > 0.2
    assert run.data.params["version"] == drift["version"]
    names = {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert {"drift.json", "drift.html", "thresholds.json"} <= names
    assert run.data.metrics["score_psi_alarm"] >= 0.1 and run.data.metrics["ratio_error"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (LATE[:4], "the window has 0 rows, at least 1,000 are needed"),  # nothing is later than the model's test
        ((*LATE, "--alias", "nobody"), "the registry has no lotse-exit with the alias 'nobody'; run lotse train"),
        ((*LATE, "--set", "tracking.uri=sqlite:///configs/shop.toml"), "not a database"),
    ],
)
def test_the_verb_ends_with_2_where_it_cannot_be_told(trained: Path, arguments: tuple[str, ...], message: str) -> None:
    done = lotse(trained, "drift", *arguments, "--events", str(TAOBAO))
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in " ".join((done.stdout + done.stderr).split())


def test_a_window_is_given_in_iso(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace(tmp_path / "work"))
    done = CliRunner().invoke(build_app(), ["drift", "--since", "yesterday"])
    assert isinstance(done.exception, SettingsError)
    assert "'yesterday' is no moment; write it as 2026-06-01" in str(done.exception)

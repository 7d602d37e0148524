"""Uplift: units of a finished experiment in, the effect on each out; and the same as a head in the registry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.uplift import FOLDER, read, units_of
from features.compiler import compile_fold
from serving.heads import GOLDEN_TOLERANCE, Head
from tests.workspace import Service, lotse, workspace
from training.experiments.qini import evaluate_uplift, gain_curve
from training.experiments.uplift import Units, fit_uplift, pseudo_outcomes


def simulated(units: int, seed: int, *, adaptive: bool = False, arms: int = 2) -> tuple[Units, np.ndarray]:
    """Units and the true effect on each: 0.2 where the first feature is high, none elsewhere."""
    random = np.random.default_rng(seed)
    matrix = random.random((units, 5)).astype(np.float32)
    matrix[random.random(units) < 0.1, 3] = np.nan
    effect, second = np.where(matrix[:, 0] > 0.6, 0.2, 0.0), matrix[:, 1].astype(np.float64)
    share = np.column_stack([0.8 - 0.6 * second, 0.2 + 0.6 * second]) if adaptive else np.full((units, 2), 0.5)
    if arms == 3:
        share = np.column_stack([share * 0.7, np.full(units, 0.3)])
    arm = (random.random(units)[:, None] > share.cumsum(axis=1)).sum(axis=1)
    # the base rate goes with the feature that assignment goes by: a naive comparison is confounded
    rate = 0.1 + 0.5 * second + np.where(arm == 1, effect, np.where(arm == 2, 0.3, 0.0))
    outcome = (random.random(units) < rate).astype(float)
    treated, control = arm == 1, arm == 0
    propensity = share[np.arange(units), np.minimum(arm, arms - 1)]
    visitor = np.arange(units) // 2
    return Units(tuple("abcde"), matrix, treated, control, propensity, outcome, visitor), effect


def naive_gain(units: Units, score: np.ndarray, k: int) -> float:
    """The k first, by loops."""
    first = sorted(range(len(units)), key=lambda i: -score[i])[:k]
    treated = [i for i in first if units.treated[i]]
    control = [i for i in first if units.control[i]]
    if not treated or not control:
        means = [np.mean(units.outcome[rows]) if rows else 0.0 for rows in (treated, control)]
    else:
        means = [
            sum(units.outcome[i] / units.propensity[i] for i in rows) / sum(1 / units.propensity[i] for i in rows)
            for rows in (treated, control)
        ]
    return k / len(units) * float(means[0] - means[1])


@pytest.mark.parametrize(("adaptive", "arms"), [(False, 2), (True, 2), (True, 3)])
def test_pseudo_outcomes_have_the_effect_as_their_mean(adaptive: bool, arms: int) -> None:
    units, effect = simulated(30_000, 1, adaptive=adaptive, arms=arms)
    target = pseudo_outcomes(units)
    for group in (effect > 0, effect == 0):
        error = target[group].std() / np.sqrt(group.sum())
        assert abs(target[group].mean() - effect[group].mean()) < 3.5 * error
    if adaptive:
        naive = units.outcome[units.treated].mean() - units.outcome[units.control].mean()
        assert abs(naive - effect.mean()) > 0.1


def test_who_is_persuadable_is_found() -> None:
    units, effect = simulated(30_000, 2, adaptive=True)
    learned, tested = units.take(np.arange(20_000)), units.take(np.arange(20_000, 30_000))
    model = fit_uplift(learned)
    score, truth = model.score(tested.matrix), effect[20_000:]
    assert np.corrcoef(score, truth)[0, 1] > 0.85
    assert score[truth > 0].mean() == pytest.approx(0.2, abs=0.04)
    assert score[truth == 0].mean() == pytest.approx(0.0, abs=0.03)
    assert model.average == pytest.approx(effect.mean(), abs=3 * model.error)
    found = evaluate_uplift(tested, score)
    assert found.qini.low > 0
    assert found.at[0.1].low < 0.2 < found.at[0.1].high
    assert found.average.low < truth.mean() < found.average.high
    assert [one.units for one in found.fifths] == [2000] * 5
    assert found.fifths[-1].observed.low > found.fifths[0].observed.high


def test_where_nobody_differs_everybody_has_the_average() -> None:
    units, _ = simulated(8000, 3)
    random = np.random.default_rng(3)
    rate = 0.3 + 0.1 * units.treated
    flat = Units(**{**vars(units), "outcome": (random.random(len(units)) < rate).astype(float)})
    model = fit_uplift(flat)
    score = model.score(flat.matrix)
    assert score.std() < 0.02
    assert score.mean() == pytest.approx(model.average, abs=0.01)
    assert model.average == pytest.approx(0.1, abs=3 * model.error)


def test_the_gain_curve_is_what_loops_make_of_it() -> None:
    units, _ = simulated(300, 4, adaptive=True)
    score = np.random.default_rng(4).random(300)
    share, gain = gain_curve(units, score)
    for k in (1, 7, 50, 150, 299, 300):
        assert share[k] == pytest.approx(k / 300)
        assert gain[k] == pytest.approx(naive_gain(units, score, k))


def test_units_of_equal_score_come_together() -> None:
    units, _ = simulated(300, 5)
    share, gain = gain_curve(units, np.zeros(300))
    assert share.tolist() == [0.0, 1.0]
    assert evaluate_uplift(units, np.zeros(300), resamples=20).qini.value == pytest.approx(0)
    assert gain[-1] == pytest.approx(naive_gain(units, np.zeros(300), 300))


def test_few_units_are_not_evaluated() -> None:
    units, _ = simulated(400, 6)
    found = evaluate_uplift(units, np.arange(400.0), resamples=20)
    assert set(found.at) == {0.3}
    assert found.fifths == ()
    units, _ = simulated(90, 6)
    with pytest.raises(ValueError, match="units are .*; an evaluation needs 50 of each"):
        evaluate_uplift(units, np.zeros(90))


def test_uplift_on_hillstroms_e_mails() -> None:
    """The women's e-mail: those ranked first are won by it, and more of them than of all."""
    whole = units_of(read(FOLDER), "Womens E-Mail", "visit")
    half = np.random.default_rng(0).random(len(whole)) < 0.5
    tested = whole.take(~half)
    found = evaluate_uplift(tested, fit_uplift(whole.take(half)).score(tested.matrix))
    assert found.average.low < 0.045 < found.average.high
    assert found.qini.low > 0
    assert found.at[0.3].value > 1.3 * found.average.value


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of units with three features of the catalogue."""
    units, _ = simulated(12_000, 7)
    names = ("cart_units", "page_views", "searches")
    frame = pd.DataFrame({f"feature.{name}": units.matrix[:, place] for place, name in enumerate(names)})
    frame = frame.assign(
        experiment="sale", arm=np.where(units.treated, "banner", "control"), propensity=units.propensity,
        forced=False, visitor=units.visitor, exposed_at=1_767_225_600_000 + np.arange(len(units)),
        purchases=units.outcome,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("units") / "units.parquet"
    frame.to_parquet(path)
    return path


def test_train_makes_a_head_that_the_service_scores_with(table: Path, tmp_path: Path) -> None:
    asked = ("--experiment", "sale", "--arm", "banner", "--goal", "purchases")
    done = lotse(workspace(tmp_path), "train", "--head", "uplift", "--units", str(table), *asked)
    assert done.returncode == 0, done.stderr
    assert "uplift v1: banner instead of control, on purchases" in done.stdout
    assert "not shown" not in done.stdout
    (described,) = (tmp_path / "lotse-data").rglob("head.json")
    head = Head(described.parent, "1")
    about = json.loads(described.read_text())
    assert about["task"] == "uplift"
    assert about["feature_digest"] == compile_fold().digest
    assert head.golden_error() <= GOLDEN_TOLERANCE
    matrix = np.full((2, len(about["features"])), np.nan, np.float32)
    matrix[:, [about["features"].index(name) for name in ("events", "idle_seconds")]] = 1
    matrix[:, about["features"].index("cart_units")] = (0.1, 0.9)
    low, high = head.scores(matrix)
    assert abs(low) < 0.06
    assert 0.1 < high < 0.25
    for name, value in (("cart_units", 0), ("page_views", 1), ("searches", 0)):
        matrix[:, about["features"].index(name)] = value
    of_one_view = head.scores(matrix)[0]
    service = Service(tmp_path, 'models.heads=["uplift"]').start()
    try:
        answer = service.http.post("/v1/events", json={"visitor": "me", "name": "page_view", "page": "/"}).json()
        assert answer["models"] == {"uplift": "1"}
        assert answer["scores"]["uplift"] == pytest.approx(of_one_view, abs=1e-6)
        assert not answer.get("reasons")
    finally:
        service.stop()


def test_an_uplift_of_noted_scores_is_asked_live(trained: Path, tmp_path: Path) -> None:
    """Units of the service have no features of the trigger, but scores and events: the model asks the live ones."""
    folder = workspace(tmp_path / "work")
    (folder / "lotse-data").mkdir()
    shutil.copyfile(trained / "lotse-data" / "mlflow.db", folder / "lotse-data" / "mlflow.db")
    random = np.random.default_rng(8)
    size = 12_000
    exits, banner = random.random(size), random.random(size) < 0.5
    bought = random.random(size) < 0.1 + 0.3 * (banner & (exits > 0.3))
    frame = pd.DataFrame(
        {
            "experiment": "sale", "phase": 1, "arm": np.where(banner, "banner", "control"), "propensity": 0.5,
            "forced": False, "visitor": np.arange(size), "exposed_at": 1_767_225_600_000, "exit": exits,
            "bounce": random.random(size), "conversion": 0.1, "age_events": random.integers(1, 9, size),
            "purchases": bought.astype(float),
        }
    )  # fmt: skip
    frame.to_parquet(folder / "units.parquet")
    asked = ("--experiment", "sale", "--arm", "banner", "--goal", "purchases")
    done = lotse(
        folder, "train", "--head", "uplift", "--units", "units.parquet", *asked, "--set", "tracking.experiment=sale"
    )
    assert done.returncode == 0, done.stderr
    flags = {"help": {"defaultValue": "none", "rules": [{"condition": {"uplift": {"$gt": 0.15}}, "force": "banner"}]}}
    (folder / "configs" / "experiments.json").write_text(json.dumps({"features": flags}))
    service = Service(folder, 'models.heads=["bounce", "conversion", "exit", "uplift"]', "session.max_age_hours=200000")
    service.start()
    try:
        (described,) = (folder / "lotse-data" / "models").rglob("lotse-uplift*/**/head.json")
        head = Head(described.parent, "1")
        assert set(head.asks) == {"bounce", "conversion", "exit"}
        seen = set()
        for visitor in range(40):
            for number in range(1, 4):
                told = service.http.post(
                    "/v1/events?flags=help", json={"visitor": f"v{visitor}", "name": "view_item", "item": str(visitor)}
                ).json()
                scores = told["scores"]
                row = np.full((1, len(head.about.features)), np.nan, np.float32)
                row[0, head.about.features.index("events")] = number
                row[0, -3:] = [scores[name] for name in head.asks]
                assert scores["uplift"] == pytest.approx(float(head.scores(row)[0]), abs=1e-6)
                persuadable = scores["exit"] > 0.3
                assert told["flags"]["help"]["value"] == ("banner" if scores["uplift"] > 0.15 else "none")
                if abs(scores["exit"] - 0.3) > 0.05:
                    assert (scores["uplift"] > 0.15) == persuadable, scores
                    seen.add(persuadable)
        assert seen  # the crowd of one page is alike; which side it is on is the models' business
        vector = dict.fromkeys(compile_fold().names) | {"events": 2.0}
        (of_vector,) = service.http.post("/v1/score", json={"rows": [vector]}).json()["scores"]
        row = np.full((1, len(head.about.features)), np.nan, np.float32)
        row[0, head.about.features.index("events")] = 2
        row[0, -3:] = [of_vector[name] for name in head.asks]
        assert of_vector["uplift"] == pytest.approx(float(head.scores(row)[0]), abs=1e-6)
    finally:
        service.stop()
    done = lotse(folder, "promote", "--head", "uplift")
    assert done.returncode == 2 and "lotse rollback --head uplift --to VERSION" in " ".join(done.stderr.split())
    done = lotse(folder, "drift", "--head", "uplift")
    assert done.returncode == 2 and "judged by the units of an experiment" in " ".join(done.stderr.split())


def test_what_an_uplift_cannot_be_learned_from_is_told(table: Path, tmp_path: Path) -> None:
    workspace(tmp_path)
    whole = {"--units": str(table), "--experiment": "sale", "--arm": "banner", "--goal": "purchases"}
    for changed, said in (
        ({"--arm": "chat"}, "no unit of 'sale' with the arm 'chat'; there are sale: banner, sale: control"),
        ({"--goal": "revenue"}, "lacks the column(s) revenue"),
        ({"--units": "nowhere.parquet"}, "no table of units nowhere.parquet"),
        ({"--arm": ""}, "--head uplift --units units.parquet --experiment KEY"),
    ):
        options = [part for pair in {**whole, **changed}.items() for part in pair]
        done = lotse(tmp_path, "train", "--head", "uplift", *options)
        assert done.returncode != 0
        assert said in " ".join((done.stdout + done.stderr).split()), done.stderr

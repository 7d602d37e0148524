"""Real models in a registry: registered, compared on one holdout, judged, promoted and rolled back; on SQLite and on
PostgreSQL."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner, Result

from features.settings import SettingsError
from features.tables import Tables
from simulation.shop import simulate
from tests.postgres import postgres
from tests.workspace import workspace
from training.calibration import Calibration
from training.compare import Comparison, compare
from training.config import PromotionSettings, TrainingSettings, load_training
from training.contest import Contest, contests
from training.evaluation import compare_scores
from training.gate import judge
from training.heads import Head, heads_of
from training.model import HeadModel, fit_head
from training.pipeline import Prepared, prepare
from training.provenance import from_iso, iso, provenance
from training.registry import register, registered_name, version_by_alias
from training.registry_cli import compare as compare_verb
from training.registry_cli import promote as promote_verb
from training.registry_cli import rollback as rollback_verb
from training.tracking import connect

# of MLflow, where it looks at the example of a model's input
pytestmark = pytest.mark.filterwarnings("ignore:Operation with range is deprecated", "ignore:.*integer column")

SMALL = (
    "lightgbm.num_boost_round=10",
    "lightgbm.num_leaves=7",
    "lightgbm.min_data_in_leaf=50",
    "linear.inverse_penalties=[0.001]",
    "split.inner_folds=2",
    "evaluation.resamples=40",
    "evaluation.segment_rows=1000",
    "promotion.min_age_hours=0",
    'heads.train=["exit"]',
)


@dataclasses.dataclass(frozen=True)
class Shop:
    """A log, its rows as two sets of learned tables read them, and models: a good one, and one of too few rows."""

    events: pd.DataFrame
    settings: TrainingSettings
    head: Head
    prepared: Prepared
    other_tables: Tables
    good: HeadModel
    poor: HeadModel


@pytest.fixture(scope="module")
def shop() -> Shop:
    settings = load_training("configs/training.toml", SMALL)
    events = simulate(events=40_000, seed=3).events
    prepared = prepare(events, settings)
    head = heads_of(settings)["exit"]
    past = prepared.slices(head)["past"]
    few = past.take(np.flatnonzero(past.visitor % 20 == 0))
    shrunk = {
        name: dataclasses.replace(table, values=table.values * 0.5)
        for name, table in prepared.tables.tables.items()
    }  # fmt: skip
    return Shop(
        events, settings, head, prepared, Tables(shrunk), fit_head(past, head, settings), fit_head(few, head, settings)
    )


@dataclasses.dataclass(frozen=True)
class Registry:
    """MLflow with the working directory of its user: configs, and the log as a file."""

    mlflow: Any
    client: Any
    folder: Path
    shop: Shop
    settings: TrainingSettings

    @property
    def name(self) -> str:
        """Of the registered model."""
        return registered_name(self.settings.tracking, "exit")

    def called(self, prefix: str) -> Registry:
        """The same database with other models."""
        tracking = self.settings.tracking.model_copy(update={"model_prefix": prefix})
        return dataclasses.replace(self, settings=self.settings.model_copy(update={"tracking": tracking}))

    def add(self, model: HeadModel, tables: Tables | None = None, **tags: str) -> str:
        """Register a version of the exit head."""
        shop = self.shop
        about = provenance(shop.settings, shop.events, shop.prepared.digest, "shop")
        with self.mlflow.start_run():
            return register(
                self.mlflow,
                shop.head,
                model,
                digest=shop.prepared.digest,
                tables=tables or shop.prepared.tables,
                test=shop.prepared.slices(shop.head)["test"],
                settings=self.settings,
                tags={**about, **tags},
                extras={"card.md": "# A model"},
            )

    def run(self, verb: Any, *arguments: str) -> Result:
        """A verb of the command line."""
        app = typer.Typer()
        app.command()(verb)
        # not the relative path of the configuration: MLflow keeps a database open by its address
        tracking = self.settings.tracking
        overrides = (*SMALL, f"tracking.uri={tracking.uri}", f"tracking.model_prefix={tracking.model_prefix}")
        given = [one for override in overrides for one in ("--set", override)]
        log = () if verb is rollback_verb else ("--events", "log.parquet")
        return CliRunner().invoke(app, [*log, *given, *arguments])

    def aliases(self) -> dict[str, str]:
        """Version by alias."""
        return {alias: str(one) for alias, one in self.client.get_registered_model(self.name).aliases.items()}

    def tags(self, version: str) -> dict[str, str]:
        """Of a version."""
        return dict(self.client.get_model_version(self.name, version).tags)

    def contest(self) -> Contest:
        """Candidate and champion as they are now."""
        found, without = contests(self.client, self.settings, ["exit"], self.shop.prepared.digest)
        assert not without
        return found["exit"]

    def compared(self, **changed: str) -> tuple[Comparison | None, str]:
        """Candidate and champion on the log, or why not; `changed` are tags of the champion."""
        contest = self.contest()
        assert contest.champion is not None and contest.champion.loaded is not None
        loaded = dataclasses.replace(contest.champion.loaded, tags={**contest.champion.loaded.tags, **changed})
        contest = dataclasses.replace(contest, champion=dataclasses.replace(contest.champion, loaded=loaded))
        found, without = compare(self.shop.events, self.shop.settings, {"exit": contest})
        return found.get("exit"), without.get("exit", "")


@pytest.fixture(scope="module")
def database(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The embedded database; the working directory is its folder."""
    with pytest.MonkeyPatch.context() as patch:
        yield from in_database("sqlite", shop, tmp_path_factory.mktemp("sqlite"), patch)


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(
    request: pytest.FixtureRequest, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Registry]:
    yield from in_database(request.param, shop, tmp_path, monkeypatch)


@pytest.fixture
def embedded(database: Registry) -> Iterator[Registry]:
    """Without any model."""
    yield database.called("empty")
    for model in database.client.search_registered_models("name LIKE 'empty%'"):
        database.client.delete_registered_model(model.name)


@pytest.fixture(scope="module")
def pair(database: Registry) -> Registry:
    """A poor champion and a good candidate, which reads the sessions with tables of its own."""
    found = database.called("pair")
    found.add(found.shop.poor)
    found.add(found.shop.good, found.shop.other_tables)
    return found


def in_database(database: str, shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.chdir(workspace(folder / "work"))
    shop.events.to_parquet("log.parquet")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = shop.settings.tracking.model_copy(update={"uri": f"sqlite:///{folder}/work/mlflow.db"})
    settings = shop.settings.model_copy(update={"tracking": tracking})
    with postgres() if database == "postgresql" else nullcontext() as url:
        if url:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        mlflow = connect(tracking)
        yield Registry(mlflow, mlflow.MlflowClient(), folder / "work", shop, settings)


@pytest.mark.slow
def test_from_the_first_version_to_promotion_and_back(registry: Registry) -> None:
    """A poor model is the first champion; a good one replaces it, a poor one does not replace that; and back again."""
    assert registry.add(registry.shop.poor) == "1"
    assert registry.aliases() == {"champion": "1", "challenger": "1"}
    done = registry.run(promote_verb)
    assert isinstance(done.exception, SettingsError)
    assert "version 1 is the champion already" in str(done.exception)

    assert registry.add(registry.shop.good, registry.shop.other_tables) == "2"
    assert registry.aliases() == {"champion": "1", "challenger": "2"}
    done = registry.run(compare_verb, "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["comparisons"]
    assert (found["champion"], found["candidate"], found["notes"]) == ("1", "2", [])
    everything = next(line for line in found["table"] if line["age"] == "all")
    assert everything["log_loss_high"] < 0 and everything["auc_low"] > 0
    assert registry.aliases() == {"champion": "1", "challenger": "2"}  # comparing changes nothing

    done = registry.run(promote_verb)
    assert done.exit_code == 0, done.output
    assert "version 2 is the champion" in done.output
    assert registry.aliases() == {"champion": "2"}
    tags = registry.tags("2")
    assert (tags["promoted_from"], tags["promoted_by"], tags["gate"]) == ("1", "lotse promote", "passed")
    assert float(tags["gate_log_loss"]) < float(tags["gate_log_loss_champion"])
    assert float(tags["gate_log_loss"]) == pytest.approx(everything["log_loss_other"], abs=1e-5)

    assert registry.add(registry.shop.poor) == "3"
    done = registry.run(promote_verb, "--set", "promotion.min_age_hours=24", "--set", "promotion.min_rows=1000000")
    assert done.exit_code == 1, done.output
    for reason in ("registered 0.0 hours ago, at least 24", "rows, at least 1,000,000", "log loss: version 3 has 0."):
        assert reason in done.output
    assert "log loss of device=" in done.output and "at most 0." in done.output
    assert registry.aliases() == {"champion": "2", "challenger": "3"}
    tags = registry.tags("3")
    assert tags["refused_by"] == "lotse promote" and tags["refused_at"] > registry.tags("2")["promoted_at"]
    assert "registered 0.0 hours ago" in tags["refused_because"] and "log loss: version 3" in tags["refused_because"]

    done = registry.run(rollback_verb)
    assert done.exit_code == 0, done.output
    assert registry.aliases() == {"champion": "1", "challenger": "3"}
    done = registry.run(rollback_verb)
    assert done.exit_code == 1
    assert "version 1 was promoted instead of no other" in done.output
    assert {model.name for model in registry.client.search_registered_models()} == {registry.name}

    experiment = registry.client.get_experiment_by_name("lotse").experiment_id
    runs = registry.client.search_runs([experiment], "tags.mlflow.runName = 'compare-exit'", order_by=["start_time"])
    assert [run.data.tags.get("promoted") for run in runs] == [None, "true", "false"]
    assert "registered 0.0 hours ago" in runs[-1].data.tags["refused.1"]
    assert runs[0].data.metrics["log_loss_difference"] == pytest.approx(everything["log_loss_difference"])
    assert [file.path for file in registry.client.list_artifacts(runs[0].info.run_id)] == ["comparison.csv"]


def test_both_score_the_test_slice_each_with_its_own_tables(pair: Registry) -> None:
    shop = pair.shop
    found, _ = pair.compared()
    assert found is not None
    test = shop.prepared.slices(shop.head)["test"]
    other = prepare(shop.events, shop.settings, tables=shop.other_tables).slices(shop.head)["test"]
    assert not np.array_equal(test.matrix, other.matrix, equal_nan=True)
    assert (found.rows, found.sessions) == (len(test), test.sessions)
    assert (found.since, found.until) == (iso(test.started.min()), iso(test.started.max()))
    expected = compare_scores(
        test, shop.poor.score(test.matrix), shop.good.score(other.matrix), shop.settings.evaluation, "binary"
    )
    pd.testing.assert_frame_equal(found.table, expected)
    assert {"all", "events", "prefix_1"} <= set(found.table["age"])
    assert found.table["age"].str.startswith("device=").any()


def test_the_holdout_is_later_than_what_either_learned_from(pair: Registry) -> None:
    """A champion of a later log has learned from a part of the test slice: that part is left out."""
    test = pair.shop.prepared.slices(pair.shop.head)["test"]
    later = int(np.median(test.started))
    found, _ = pair.compared(learned_until=iso(later))
    assert found is not None
    assert found.rows == (test.started >= later + pair.shop.settings.timeout_ms).sum() < len(test)
    assert from_iso(found.since) >= later + pair.shop.settings.timeout_ms
    found, reason = pair.compared(learned_until=iso(int(test.started.max())))
    assert found is None
    assert "no session later than what versions 1 and 2 learned from" in reason


def test_what_may_be_known_to_a_version_is_noted(pair: Registry) -> None:
    found, _ = pair.compared()
    assert found is not None and found.notes == ()
    found, _ = pair.compared(split_digest="another")
    assert found is not None
    assert [note[:45] for note in found.notes] == ["version 1 was trained on another log or split"]


def test_a_version_that_does_not_say_what_it_learned_from_is_not_compared(pair: Registry) -> None:
    found, reason = pair.compared(learned_until="")
    assert found is None
    assert "version 1 does not say what it learned from" in reason


def test_the_table_in_the_terminal_shows_both_and_the_difference(
    pair: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = pair.run(compare_verb)
    assert done.exit_code == 0, done.output
    assert "exit: champion (version 1) → candidate (version 2)" in done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("│ all ")]
    assert line.count("→") == 4 and "[-" in line and "+" in line


def model_folder(registry: Registry, version: str) -> Path:
    """Where the artifacts of a version are, on the disk."""
    model = registry.client.get_model_version(registry.name, version).source.removeprefix("models:/")
    (found,) = [path for path in registry.folder.rglob("head.json") if model in str(path)]
    return found.parent


@contextmanager
def rewritten(registry: Registry, version: str, changed: Mapping[str, Any]) -> Iterator[None]:
    """With something else in a version's head.json."""
    path = model_folder(registry, version) / "head.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), **changed}))
    yield
    path.write_text(before)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"feature_digest": "0123"}, "was trained on the features 0123, this release computes"),
        ({"tables_digest": "0123"}, "tables.npz is not what head.json was written with"),
        ({"base_rate": 0.5, "calibration": Calibration.identity("binary").as_json()}, "scores its golden row 0."),
        ({"format": 1}, "has the model format 1, this release reads 2"),
        ({"calibration": {"kind": "unknown"}}, "cannot be read"),
    ],
)
def test_a_candidate_that_the_service_would_refuse_is_refused(
    pair: Registry, changed: dict[str, Any], reason: str
) -> None:
    with rewritten(pair, "2", changed):
        done = pair.run(promote_verb)
        assert done.exit_code == 1, done.output
        assert reason in done.output
        done = pair.run(rollback_verb, "--head", "exit", "--to", "2")
        assert done.exit_code == 1 and reason in done.output
    assert pair.aliases() == {"champion": "1", "challenger": "2"}


def test_a_champion_that_no_service_of_this_release_uses_is_replaced_without_comparison(embedded: Registry) -> None:
    embedded.add(embedded.shop.good)
    embedded.add(embedded.shop.poor)
    with rewritten(embedded, "1", {"feature_digest": "0123"}):
        done = embedded.run(promote_verb, "--set", "promotion.min_age_hours=24")
    assert done.exit_code == 0, done.output
    assert embedded.aliases() == {"champion": "2"}
    assert embedded.tags("2")["gate"].startswith("not compared: empty-exit version 1 was trained on the features 0123")


def test_without_a_champion_a_sound_candidate_is_promoted_at_once(embedded: Registry) -> None:
    embedded.add(embedded.shop.good)
    embedded.client.delete_registered_model_alias(embedded.name, "champion")
    done = embedded.run(promote_verb, "--events", "no such log", "--set", "promotion.min_age_hours=24")
    assert done.exit_code == 0, done.output
    assert embedded.aliases() == {"champion": "1"}


def test_mistakes_are_told(embedded: Registry) -> None:
    for verb in (compare_verb, promote_verb, rollback_verb):
        done = embedded.run(verb, "--head", "churn")
        assert isinstance(done.exception, SettingsError)
        assert str(done.exception).startswith("unknown head 'churn'; configured: bounce, conversion, exit")
    done = embedded.run(compare_verb)
    assert isinstance(done.exception, SettingsError)
    assert "empty-exit has no version with the alias 'challenger'; lotse train registers one" in str(done.exception)
    done = embedded.run(rollback_verb, "--head", "exit", "--head", "bounce", "--to", "1")
    assert isinstance(done.exception, SettingsError)
    assert "--to 1 names a version of one head" in str(done.exception)
    done = embedded.run(rollback_verb)
    assert done.exit_code == 1
    assert "no version with the alias 'champion'" in done.output


def test_the_model_holds_what_it_was_registered_with(embedded: Registry) -> None:
    embedded.add(embedded.shop.good, note="kept")
    folder = model_folder(embedded, "1")
    assert {path.name for path in folder.iterdir()} == {"booster.txt", "head.json", "tables.npz", "card.md"}
    about = json.loads((folder / "head.json").read_text())
    assert (about["format"], about["head"], about["task"]) == (2, "exit", "binary")
    assert about["question"] == embedded.shop.head.question
    version = version_by_alias(embedded.client, embedded.name, "champion")
    assert version is not None and version.tags["note"] == "kept"
    assert {"git_commit", "lock_digest", "data_from", "data_to", "config_digest", "promoted_at"} <= set(version.tags)


def verdict(comparison: Comparison, **settings: float) -> tuple[str, ...]:
    """The gate's reasons, of a candidate a day old."""
    version = SimpleNamespace(name="lotse-exit", version="2", defects=(), registered_ms=0)
    contest = Contest(heads_of(TrainingSettings())["exit"], version, version)  # type: ignore[arg-type]
    allowed = PromotionSettings().model_copy(update=settings)
    return judge(contest, comparison, "", allowed, now_ms=86_400_000).reasons


def measured(task: str = "binary", rows: int = 5000, **columns: list[float]) -> Comparison:
    """A comparison over all rows, and of two segments."""
    table = pd.DataFrame({"age": ["all", "device=mobile", "channel=paid"], **columns})
    return Comparison("exit", task, "1", "2", rows, 100, 100, iso(0), iso(1), (), table)


EQUAL = {f"{name}_{side}": [0.4, 0.4, 0.4] for name in ("log_loss", "ece") for side in ("one", "other")}


def test_the_gate_lets_through_what_is_as_good() -> None:
    assert verdict(measured(**EQUAL)) == ()
    assert verdict(measured(**EQUAL | {"log_loss_other": [0.4019, 0.407, 0.3]})) == ()


@pytest.mark.parametrize(
    ("worse", "reason"),
    [
        ({"log_loss_other": [0.4021, 0.4, 0.4]}, "log loss: version 2 has 0.4021, the champion 0.4000; at most 0.4020"),
        ({"ece_other": [0.4051, 0.4, 0.4]}, "ECE: version 2 has 0.4051, the champion 0.4000; at most 0.4050"),
        ({"log_loss_other": [0.4, 0.4, 0.41]}, "log loss of channel=paid: version 2 has 0.4100"),
        ({"log_loss_other": [float("nan"), 0.4, 0.4]}, "log loss: version 2 has nan"),
    ],
)
def test_the_gate_tells_each_number_that_is_too_high(worse: dict[str, list[float]], reason: str) -> None:
    (told,) = verdict(measured(**EQUAL | worse))
    assert told.startswith(reason)


def test_the_gate_tells_all_reasons_at_once() -> None:
    told = verdict(measured(**EQUAL | {"log_loss_other": [0.5, 0.5, 0.5]}, rows=10), min_age_hours=48)
    assert [reason.split(":")[0] for reason in told] == [
        "lotse-exit version 2 was registered 24.0 hours ago, at least 48 are needed (promotion.min_age_hours)",
        "the holdout has 10 rows, at least 1,000 are needed (promotion.min_rows)",
        "log loss",
        "log loss of device=mobile",
        "log loss of channel=paid",
    ]


def test_amounts_are_judged_by_deviance_and_by_what_they_promise() -> None:
    columns = {"d2_one": [0.2, 0.2, np.nan], "d2_other": [0.2, 0.2, np.nan], "ratio_one": [1.0] * 3}
    assert verdict(measured("value", ratio_other=[1.04] * 3, **columns)) == ()
    (told,) = verdict(measured("value", ratio_other=[0.9] * 3, **columns))
    assert told.startswith("ratio less 1: version 2 has 0.1000, the champion 0.0000; at most 0.0500")
    worse = columns | {"d2_other": [0.19, 0.15, np.nan]}
    assert [one.split(":")[0] for one in verdict(measured("value", ratio_other=[1.0] * 3, **worse))] == [
        "unexplained deviance",
        "unexplained deviance of device=mobile",
    ]

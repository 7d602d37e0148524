"""GET /v1/insight/models: what it says is what MLflow holds, nothing of few visitors, and what is missing is named."""

from __future__ import annotations

import asyncio
import csv
import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from features.definitions import CATALOGUE
from serving.insight_models import PATH
from serving.keys import KeyFile
from serving.model_health.asked import Asked
from serving.model_health.document import document
from serving.model_health.measured import ages, groups, hidden, thresholds
from serving.model_health.store import Store, opened
from tests.serving.in_process import client, engine_of, start
from tests.watched import HEADS
from tests.workspace import Service, wait_until, workspace

# the models are trained and watched first
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uri(watched: Path) -> str:
    return f"sqlite:///{watched}/lotse-data/mlflow.db"


@pytest.fixture(scope="module")
def mlflow(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def asked(uri: str, watched: Path, least: int = 50) -> Asked:
    heads = ("bounce", *HEADS)
    return Asked(uri, "lotse", "champion", "challenger", heads, str(watched / "lotse-data" / "closed"), least)


def now_of(watched: Path) -> int:
    """Soon after the last look."""
    return round((watched / "done").stat().st_mtime * 1000)


@pytest.fixture(scope="module")
def found(uri: str, watched: Path) -> dict[str, Any]:
    return document(asked(uri, watched), opened(uri), now_of(watched))


def artifact(mlflow: MlflowClient, run_id: str, path: str) -> str:
    return Path(mlflow.download_artifacts(run_id, path)).read_text()


def latest(mlflow: MlflowClient, name: str) -> Any:
    experiments = [one.experiment_id for one in mlflow.search_experiments()]
    return mlflow.search_runs(experiments, f"attributes.run_name = '{name}'", order_by=["attributes.start_time DESC"])


def lines_of(mlflow: MlflowClient, run_id: str, path: str) -> dict[str, dict[str, str]]:
    """Lines of a table about the model itself, by age."""
    lines = csv.DictReader(artifact(mlflow, run_id, path).splitlines())
    return {line["age"]: line for line in lines if line.get("model", "lotse") == "lotse"}


def number(text: str) -> float | None:
    return float(text) if text and math.isfinite(float(text)) else None


@pytest.mark.parametrize("head", HEADS)
def test_versions_and_their_tests_are_the_registrys(found: dict[str, Any], mlflow: MlflowClient, head: str) -> None:
    told = found["heads"][head]
    registered = {str(one.version): one for one in mlflow.search_model_versions(f"name = 'lotse-{head}'")}
    aliases = {alias: str(number) for alias, number in mlflow.get_registered_model(f"lotse-{head}").aliases.items()}
    assert {one["version"] for one in told["versions"]} == set(registered) and len(registered) == 2
    assert told["champion"] == aliases["champion"]
    assert told["challenger"] == (aliases.get("challenger") if aliases.get("challenger") != told["champion"] else None)
    for one in told["versions"]:
        version = registered[one["version"]]
        run = mlflow.get_run(version.run_id)
        assert one["registered_ms"] == version.creation_timestamp
        assert one["registered_by"] == ("lotse train" if one["version"] == "1" else "lotse watch")
        assert one["source"] == ("lotse" if one["version"] == "1" else "log")
        assert one["test"]["auc"] == run.data.metrics["auc/events"]
    champion = registered[told["champion"]]
    lines = lines_of(mlflow, champion.run_id or "", "evaluation.csv")
    shown = [line for line in told["test"]["ages"] if not line["hidden"]]
    assert {"all", "events", "prefix_1"} <= {line["age"] for line in shown}
    for line in shown:
        theirs = lines[line["age"]]
        assert line["visitors"] == int(theirs["visitors"]) >= 50
        for metric in ("auc", "log_loss", "ece", "lift_10"):
            assert line["metrics"][metric]["value"] == number(theirs[metric])
            assert line["metrics"][metric]["low"] == number(theirs[f"{metric}_low"])
            assert line["metrics"][metric]["high"] == number(theirs[f"{metric}_high"])
    curves = list(csv.DictReader(artifact(mlflow, champion.run_id, "reliability.csv").splitlines()))
    (bins,) = (curve["bins"] for curve in told["test"]["reliability"] if curve["age"] == "all")
    theirs_of_all = [line for line in curves if line["age"] == "all"]
    assert len(bins) == len(theirs_of_all) > 4
    for mine, theirs in zip(bins, theirs_of_all, strict=True):
        assert mine["score"] == float(theirs["score"])
        assert mine["hidden"] == (int(theirs["visitors"]) < 50)


@pytest.mark.parametrize("head", HEADS)
def test_drift_and_outcomes_are_those_of_the_last_look(
    found: dict[str, Any], mlflow: MlflowClient, head: str
) -> None:  # fmt: skip
    told = found["heads"][head]
    runs = [run for run in latest(mlflow, f"drift-{head}") if run.data.params["version"] == told["champion"]]
    drift = json.loads(artifact(mlflow, runs[0].info.run_id, "drift.json"))
    assert told["drift"]["at_ms"] == runs[0].info.start_time
    assert [one["name"] for one in told["drift"]["features"]] == [one["name"] for one in drift["features"]]
    assert set(CATALOGUE.features) == {one["name"] for one in told["drift"]["features"]}
    for mine, theirs in zip(told["drift"]["features"], drift["features"], strict=True):
        assert mine["psi"] == theirs["psi"] == runs[0].data.metrics[f"psi/{mine['name']}"]
    assert told["drift"]["score"]["psi"] == runs[0].data.metrics["score_psi"]
    assert told["state"] == ("alarm" if runs[0].data.tags["drift"] == "true" else "well")
    realised = told["realised"]
    for name in ("ratio", "ratio_error", "ratio_alarm", "calibration", "calibration_alarm"):
        assert realised[name] == drift["realised"][name] == runs[0].data.metrics[name]
    for mine, theirs in zip(realised["by_score"], drift["realised"]["by_score"], strict=True):
        if mine["hidden"]:
            assert theirs["visitors"] < 50
        else:
            assert mine["mean_answer"] == theirs["mean_answer"]
            assert mine["high"] - mine["mean_answer"] == pytest.approx(1.96 * theirs["error"])
    lines = lines_of(mlflow, runs[0].info.run_id, "realised.csv")
    for line in realised["ages"]:
        if not line["hidden"]:
            assert line["metrics"]["lift_10"]["value"] == number(lines[line["age"]]["lift_10"])
    # over time: every look, the first one first
    looks = told["over_time"]["looks"]
    everything = latest(mlflow, f"drift-{head}")
    assert [look["at_ms"] for look in looks] == sorted(run.info.start_time for run in everything)
    assert len(looks) == 3 and [look["sessions"] for look in looks] == sorted(look["sessions"] for look in looks)
    for look, run in zip(looks, reversed(everything), strict=True):
        assert (look["ratio"], look["score_psi"]) == (run.data.metrics["ratio"], run.data.metrics["score_psi"])
        for feature in told["over_time"]["features"]:
            assert look["psi"][feature] == run.data.metrics[f"psi/{feature}"]


@pytest.mark.parametrize("head", HEADS)
def test_the_comparison_and_the_gate_are_those_of_the_last_decision(
    found: dict[str, Any], mlflow: MlflowClient, head: str
) -> None:
    told = found["heads"][head]
    run = latest(mlflow, f"compare-{head}")[0]
    comparison = told["comparison"]
    assert (comparison["champion"], comparison["candidate"]) == ("1", "2")
    lines = lines_of(mlflow, run.info.run_id, "comparison.csv")
    for line in comparison["ages"]:
        if not line["hidden"]:
            mine, theirs = line["metrics"]["log_loss"], lines[line["age"]]
            assert mine["champion"] == number(theirs["log_loss_one"])
            assert mine["candidate"] == number(theirs["log_loss_other"])
            for name in ("difference", "low", "high"):
                assert mine[name] == number(theirs[f"log_loss_{name}"])
    assert comparison["promoted"] is (run.data.tags["promoted"] == "true")
    refusals = [text for name, text in sorted(run.data.tags.items()) if name.startswith("refused.")]
    assert comparison["reasons"] == refusals and bool(refusals) != comparison["promoted"]
    second = mlflow.get_model_version(f"lotse-{head}", "2")
    life = [(one["version"], one["what"], one["by"]) for one in told["life"]]
    assert life[:2] == [("1", "registered", "lotse train"), ("1", "promoted", "lotse train")]
    assert ("2", "registered", "lotse watch") in life
    decided = "promoted" if comparison["promoted"] else "refused"
    assert ("2", decided, "lotse watch") in life
    at = next(one["at_ms"] for one in told["life"] if (one["version"], one["what"]) == ("2", decided))
    assert at == round(datetime.fromisoformat(second.tags[f"{decided}_at"]).timestamp() * 1000)
    if not comparison["promoted"]:
        assert second.tags["refused_because"] == "; ".join(refusals)
        assert next(one for one in told["versions"] if one["version"] == "2")["refused_because"] == "; ".join(refusals)


@pytest.mark.parametrize("head", HEADS)
def test_reasons_and_thresholds_are_what_the_runs_have_left(
    found: dict[str, Any], mlflow: MlflowClient, head: str
) -> None:  # fmt: skip
    told = found["heads"][head]
    run_id = mlflow.get_model_version(f"lotse-{head}", told["champion"]).run_id
    lines = list(csv.DictReader(artifact(mlflow, run_id, "importance.csv").splitlines()))
    assert [one["feature"] for one in told["reasons"]] == [line["feature"] for line in lines][: len(told["reasons"])]
    assert [one["contribution"] for one in told["reasons"]] == sorted(
        (one["contribution"] for one in told["reasons"]), reverse=True
    )
    first = told["reasons"][0]
    assert first["contribution"] == float(lines[0]["contribution"])
    assert first["meaning"] == " ".join(CATALOGUE.features[first["feature"]].doc.split())
    assert told["what_if"]["test"] == json.loads(artifact(mlflow, run_id, "thresholds.json"))
    look = next(run for run in latest(mlflow, f"drift-{head}") if run.data.params["version"] == told["champion"])
    assert told["what_if"]["realised"] == json.loads(artifact(mlflow, look.info.run_id, "thresholds.json"))
    (moment, *_) = told["what_if"]["realised"]["moments"]
    assert moment["moment"] == "prefix_1" and len(moment["threshold"]) > 2  # of drawn rows: no session has all of its


def test_sessions_a_day_are_those_of_the_full_days(found: dict[str, Any], watched: Path) -> None:
    files = sorted((watched / "lotse-data" / "closed").glob("day=*/*.parquet"))
    today = datetime.fromtimestamp(now_of(watched) / 1000, UTC).date()
    counts: dict[str, int] = {}
    for file in files:
        counts[file.parent.name] = counts.get(file.parent.name, 0) + pq.ParquetFile(file).metadata.num_rows
    last = [count for day, count in sorted(counts.items()) if day != f"day={today}"][-7:]
    assert found["sessions_per_day"]["sessions"] == pytest.approx(sum(last) / len(last))
    assert found["sessions_per_day"]["days"] == len(last) == 6


def test_a_head_without_a_model_says_so(found: dict[str, Any]) -> None:
    bounce = found["heads"]["bounce"]
    assert (bounce["state"], bounce["why"], bounce["champion"]) == ("unknown", "no_champion", None)
    assert bounce["versions"] == bounce["life"] == []
    assert bounce["test"] is bounce["drift"] is bounce["realised"] is bounce["comparison"] is None


def test_a_look_of_long_ago_tells_nothing_of_today(uri: str, watched: Path) -> None:
    later = document(asked(uri, watched), opened(uri), now_of(watched) + 8 * 86_400_000)
    for head in HEADS:
        one = later["heads"][head]
        assert one["state"] == "alarm" or (one["state"], one["why"]) == ("unknown", "old")


class Without:
    """A client whose runs have left fewer files, as those of an earlier release."""

    def __init__(self, mlflow: MlflowClient, *gone: str) -> None:
        self._mlflow, self._gone = mlflow, gone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mlflow, name)

    def list_artifacts(self, run_id: str) -> list[Any]:
        """All but those."""
        return [one for one in self._mlflow.list_artifacts(run_id) if one.path not in self._gone]


def test_runs_of_an_earlier_release_are_told_as_far_as_they_go(uri: str, watched: Path, mlflow: MlflowClient) -> None:
    old = Store(Without(mlflow, "reliability.csv", "importance.csv", "thresholds.json"))
    told = document(asked(uri, watched), old, now_of(watched))["heads"]["exit"]
    assert told["test"]["reliability"] is None and told["reasons"] == []
    assert told["what_if"] == {"test": None, "realised": None}
    assert told["test"]["ages"] and told["drift"] and told["realised"]


def test_nothing_is_told_of_fewer_than_is_allowed(uri: str, watched: Path) -> None:
    told = document(asked(uri, watched, 10_000), opened(uri), now_of(watched))
    for head in HEADS:
        one = told["heads"][head]
        assert one["what_if"] == {"test": None, "realised": None}
        for line in (*one["test"]["ages"], *one["realised"]["by_score"], *one["realised"]["by_age"]):
            assert line["hidden"] and not {"rows", "visitors", "mean_answer", "metrics"} & set(line)
    assert hidden({"name": "a", "rows": 60}, "name", 50) == {"name": "a", "hidden": True}  # nobody counted them
    assert thresholds({"least_visitors": 20, "moments": []}, 50) is None
    lines = [{"age": "all", "model": "lotse", "rows": "9", "sessions": "9", "visitors": "9", "base_rate": ""}]
    assert ages(lines, 10) == [{"age": "all", "hidden": True}]
    assert groups([{"name": "a", "rows": 9, "visitors": 9, "mean_score": 0.1, "mean_answer": None, "error": None}], 10)


@pytest.fixture(scope="module")
def site(watched: Path, uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, asyncio.Runner]]:
    """A service in this process."""
    folder = tmp_path_factory.mktemp("models")
    with asyncio.Runner() as runner:
        app = start(
            folder, f"keys.folder={folder}/keys", f"models.uri={uri}", f"store.closed={watched}/lotse-data/closed",
            "insight.cache_seconds=0.2",
        )  # fmt: skip
        yield app, runner
        runner.run(app.models.close())
        runner.run(engine_of(app).close())


def ask(site: tuple[Any, asyncio.Runner], query: str = "", **headers: str) -> httpx.Response:
    app, runner = site

    async def asking() -> httpx.Response:
        async with client(app) as there:
            # as a browser on this machine asks
            return await there.get(f"http://localhost{PATH}{query}", headers=headers, timeout=60)

    return runner.run(asking())


def test_a_process_beside_the_worker_answers(site: tuple[Any, asyncio.Runner], found: dict[str, Any]) -> None:
    answer = ask(site)
    assert answer.status_code == 200, answer.text
    assert answer.json()["heads"]["exit"] == found["heads"]["exit"]
    counter = site[0].models._counter
    assert os.getpriority(os.PRIO_PROCESS, counter._process.pid) >= 10
    os.kill(counter._process.pid, signal.SIGKILL)
    site[1].run(counter._process.wait())
    wait_until(lambda: not site[0].models._fresh(engine_of(site[0]).settings))
    broken = ask(site)
    assert (broken.status_code, broken.headers["retry-after"]) == (503, "5")
    assert ask(site).json()["heads"]["exit"] == found["heads"]["exit"]


def test_it_takes_a_secret_key_and_no_parameter(site: tuple[Any, asyncio.Runner]) -> None:
    assert ask(site, "?head=exit").status_code == 422
    app = site[0]
    keys = KeyFile(Path(engine_of(app).settings.keys.folder))
    public, secret = keys.create("public", "shop")[1], keys.create("secret", "server")[1]
    assert app.gate is not None and app.gate.keys.follow()
    assert ask(site).status_code == 401
    assert ask(site, authorization=f"Bearer {public}").status_code == 403
    assert ask(site, authorization=f"Bearer {secret}").status_code == 200


def test_a_registry_that_is_not_there_is_told_and_none_is_made(watched: Path, tmp_path: Path) -> None:
    for uri in ("", f"sqlite:///{tmp_path}/none.db"):
        told = document(asked(uri, watched), opened(uri), now_of(watched))
        assert (told["registry"], told["heads"]) == (False, {}) and told["sessions_per_day"]
    assert not (tmp_path / "none.db").exists()


def test_a_registry_that_is_broken_is_told_without_its_address(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"no database" * 100)
    with asyncio.Runner() as runner:
        app = start(tmp_path / "work", f"keys.folder={tmp_path}", f"models.uri=sqlite:///{tmp_path}/broken.db")
        answer = ask((app, runner))
        runner.run(app.models.close())
        runner.run(engine_of(app).close())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), answer.text
    assert "the model registry does not answer" in answer.text and str(tmp_path) not in answer.text


def test_a_running_service_tells_of_its_models(watched: Path, uri: str, tmp_path: Path) -> None:
    work = workspace(tmp_path / "work")
    shutil.copytree(watched / "lotse-data" / "closed", work / "lotse-data" / "closed")
    running = Service(work, f"models.uri={uri}").start()
    try:
        told = running.http.get(PATH, timeout=60).json()["heads"]
        event = {"visitor": "somebody", "name": "page_view", "page": "/"}

        def answers() -> dict[str, str]:
            return dict(running.http.post("/v1/events", json=event).json().get("models", {}))

        wait_until(lambda: set(answers()) == set(HEADS))
        assert answers() == {head: told[head]["champion"] for head in HEADS}
    finally:
        running.stop()

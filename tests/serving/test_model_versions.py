"""A head's versions from their tags: what happened when and by which verb, also where nobody has noted it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from serving.model_health import store
from serving.model_health.store import Run, Store, Version
from serving.model_health.timeline import champion_since, life, version_of

MINUTE = 60_000
START = 1_767_225_600_000  # 2026-01-01


def at(minutes: int) -> str:
    return f"2026-01-01T00:{minutes:02d}:00.000Z"


def version(number: str, minutes: int, **tags: str) -> Version:
    return Version(number, f"run-{number}", START + minutes * MINUTE, tags)


def test_promoted_replaced_and_rolled_back() -> None:
    first = version(
        "1", 0, registered_by="lotse train", promoted_at=at(0), promoted_by="lotse train", replaced_at=at(9),
        replaced_by="2", restored_at=at(20),
    )  # fmt: skip
    second = version(
        "2", 5, registered_by="lotse watch", refused_at=at(7), refused_by="lotse watch", refused_because="too young",
        promoted_at=at(9), promoted_by="lotse promote", promoted_from="1", rolled_back_at=at(20), rolled_back_to="1",
        gate="passed", gate_ece="0.01",
    )  # fmt: skip
    assert [(one["version"], one["what"], one["by"], one["other"]) for one in life([second, first])] == [
        ("1", "registered", "lotse train", None),
        ("1", "promoted", "lotse train", None),
        ("2", "registered", "lotse watch", None),
        ("2", "refused", "lotse watch", None),
        ("1", "replaced", None, "2"),
        ("2", "promoted", "lotse promote", "1"),
        ("1", "restored", "lotse rollback", None),
        ("2", "rolled_back", "lotse rollback", "1"),
    ]
    assert champion_since(first.tags) == (START + 20 * MINUTE, "lotse rollback")
    assert champion_since(second.tags) == (START + 9 * MINUTE, "lotse promote")
    run = Run("run-2", "0", START, {"auc/events": 0.8, "auc/all": 0.7, "ece/events": float("nan")}, {}, {})
    told = version_of(second, run, ["champion"])
    assert (told["test"], told["gate"]) == ({"auc": 0.8, "ece": None}, {"gate": "passed", "gate_ece": "0.01"})
    assert told["refused_because"] == "too young" and told["aliases"] == ["champion"]


def test_what_nobody_has_noted_is_not_known() -> None:
    """Versions of an earlier release, or whose alias was moved by hand, and tags that somebody has broken."""
    assert champion_since({}) == (None, None)
    assert champion_since({"promoted_at": "yesterday"}) == (None, None)
    (only,) = life([version("1", 3, promoted_at="soon")])
    assert (only["what"], only["by"]) == ("registered", None)
    assert version_of(version("1", 3), None, [])["test"] == {}


class Counting:
    """A client that counts how often runs are searched for."""

    def __init__(self, client: MlflowClient) -> None:
        self._client, self.searches = client, 0

    def search_runs(self, *asked: object, **more: object) -> object:
        """As the client does."""
        self.searches += 1
        return self._client.search_runs(*asked, **more)  # type: ignore[arg-type]


def test_runs_that_are_known_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE", 2)
    monkeypatch.setattr(store, "MOST_RUNS", 5)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("lotse", artifact_location=(tmp_path / "artifacts").as_uri())

    def look(minutes: int, *, over: bool = True) -> str:
        run: str = client.create_run(experiment, START + minutes * MINUTE, run_name="drift-exit").info.run_id
        client.log_metric(run, "ratio", minutes)
        if over:
            client.set_terminated(run)
        return run

    counting = Counting(client)
    known = Store(counting)

    def ratios() -> list[float]:
        return [run.metrics["ratio"] for run in known.runs([experiment], "drift-exit")]

    for minutes in range(4):
        look(minutes)
    running = look(4, over=False)
    assert ratios() == [3, 2, 1, 0]
    before = counting.searches
    assert ratios() == [3, 2, 1, 0] and counting.searches == before + 1
    look(5)
    client.set_terminated(running)
    look(6)
    # the latest five, one of which has ended after a later one
    assert ratios() == [6, 5, 4, 3, 2] and counting.searches == before + 3
    assert known.runs([], "drift-exit") == [] and known.runs([experiment], "compare-exit") == []

"""Following aliases: what is used, what is refused, and what goes on when the registry does not."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

from features.compiler import compile_fold
from serving.follow import Follower, Orders
from serving.model_cache import ModelCache
from serving.models import Models
from serving.settings import ModelSettings, ServingSettings
from serving.shadow import Comparison
from tests.serving.versions import HEADS, Versions


@pytest.fixture
def versions(trained: Path, tmp_path: Path) -> Versions:
    return Versions(trained, tmp_path / "registry")


class Followed:
    """A follower and a worker's models, without the processes between them."""

    def __init__(self, uri: str, cache: Path, **settings: object) -> None:
        cache.mkdir(exist_ok=True)
        self.settings = ServingSettings(models=ModelSettings(uri=uri, cache=str(cache), **settings))  # type: ignore[arg-type]
        self.cache, self.fold = ModelCache(cache), compile_fold()
        self.models = Models(self.settings, self.cache, self.fold, Comparison())
        self.follower = Follower(self.orders())

    def orders(self, run: str = "one") -> Orders:
        models = self.settings.models
        return Orders(
            run, models.cache, models.uri, "lotse", "champion", "challenger", list(HEADS), 1.0, models.kept,
        )  # fmt: skip

    def poll(self) -> dict[str, str]:
        """The versions that score after another poll."""
        self.follower.poll()
        self.lineup = self.models.lineup(self.cache.state())
        return self.lineup.champions.versions


def test_an_alias_that_moves_is_followed_and_going_back_needs_no_registry(versions: Versions, tmp_path: Path) -> None:
    followed = Followed(versions.uri, tmp_path / "cache")
    assert followed.poll() == dict.fromkeys(HEADS, "1")
    first = followed.lineup.champions.heads["exit"]
    second = versions.add("exit", 5)
    versions.point("exit", second)
    assert followed.poll() == {**dict.fromkeys(HEADS, "1"), "exit": second}
    row = versions.loaded["exit", second].model
    assert followed.lineup.champions.heads["exit"].about.golden.score != first.about.golden.score
    assert row.booster.num_trees() == 5
    told = versions.client.get_model_version("lotse-exit", second).creation_timestamp
    assert followed.lineup.registered["exit", second] == told / 1000 > 1e9
    with sqlite3.connect(versions.folder / "mlflow.db") as database:
        database.execute("update model_versions set storage_location = 'file:///gone', source = source")
    versions.point("exit", "1")
    assert followed.poll() == dict.fromkeys(HEADS, "1")
    assert followed.lineup.champions.heads["exit"] is first


def test_a_version_that_cannot_be_used_never_replaces_one_that_can(
    versions: Versions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    followed = Followed(versions.uri, tmp_path / "cache")
    followed.poll()
    golden = {**versions.loaded["exit", "1"].about["golden"], "score": 0.123}
    for changes, reason in (
        ({"golden": golden}, "model_unusable"),
        ({"feature_digest": "another"}, "feature_digest_mismatch"),
        ({"features": list(followed.fold.names[1:])}, "model_unusable"),
        ({"format": 99}, "model_unusable"),
    ):
        bad = versions.add("exit", 5, **changes)
        versions.point("exit", bad)
        for _ in range(3):
            assert followed.poll() == dict.fromkeys(HEADS, "1")
        assert followed.lineup.champions.reasons == {}
        refused = followed.cache.state().heads["exit"].refused["champion"]
        assert (refused.number, refused.reason) == (bad, reason)
        assert caplog.text.count(refused.detail) == 1
    versions.client.delete_registered_model_alias("lotse-exit", "champion")
    assert followed.poll() == dict.fromkeys(HEADS, "1")
    assert followed.cache.state().heads["exit"].refused["champion"].reason == "no_model"


def test_without_a_usable_version_a_head_answers_its_prior_and_why(
    versions: Versions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    followed = Followed(versions.uri, tmp_path / "cache")
    versions.point("exit", versions.add("exit", 5, format=99))
    versions.client.delete_registered_model_alias("lotse-bounce", "champion")
    assert followed.poll() == {"conversion": "1"}
    assert followed.lineup.champions.reasons == {"bounce": "no_model", "exit": "model_unusable"}
    # what the registry says of a version and what its files say must be the same
    versions.client.set_model_version_tag("lotse-conversion", "1", "feature_digest", "another")
    elsewhere = Followed(versions.uri, tmp_path / "elsewhere")
    assert elsewhere.poll() == {}
    assert elsewhere.lineup.champions.reasons["conversion"] == "feature_digest_mismatch"
    assert "train again with this release" in caplog.text
    nowhere = Followed("sqlite:////proc/nowhere/mlflow.db", tmp_path / "other")
    assert nowhere.poll() == {}
    assert nowhere.lineup.champions.reasons == dict.fromkeys(HEADS, "registry_unreachable")


def test_what_was_good_last_scores_when_the_registry_is_gone(versions: Versions, tmp_path: Path) -> None:
    before = Followed(versions.uri, tmp_path / "cache")
    versions.point("exit", second := versions.add("exit", 5))
    expected = before.poll()
    # a port that nobody listens on, a registry without what was in it
    shutil.copyfile(versions.folder / "mlflow.db", tmp_path / "lost.db")
    with sqlite3.connect(tmp_path / "lost.db") as database:
        database.execute("delete from registered_model_aliases")
    for uri in (f"http://127.0.0.1:{_free_port()}", f"sqlite:///{tmp_path}/lost.db"):
        after = Followed(uri, tmp_path / "cache")
        assert after.poll() == expected == {**dict.fromkeys(HEADS, "1"), "exit": second}
        assert after.lineup.champions.reasons == {}
        assert bool(after.cache.state().unreachable_since_ms) == uri.startswith("http")


def test_a_version_of_another_registry_with_the_same_number_is_another_one(
    versions: Versions, trained: Path, tmp_path: Path
) -> None:
    other = Versions(trained, tmp_path / "other")
    versions.point("exit", versions.add("exit", 5))
    other.point("exit", other.add("exit", 9))
    golden = []
    for registry in (versions, other):
        followed = Followed(registry.uri, tmp_path / "cache")
        assert followed.poll()["exit"] == "2"
        golden.append(followed.lineup.champions.heads["exit"].about.golden.score)
    assert golden == [one.loaded["exit", "2"].about["golden"]["score"] for one in (versions, other)]
    assert golden[0] != golden[1]


def test_a_cache_that_was_damaged_is_not_believed(versions: Versions, tmp_path: Path) -> None:
    followed = Followed(versions.uri, tmp_path / "cache")
    followed.poll()
    champion = followed.cache.state().heads["exit"].champion
    assert champion is not None
    head = followed.cache.path(champion) / "head.json"
    about = json.loads(head.read_text())
    head.write_text(json.dumps({**about, "golden": {**about["golden"], "score": 0.5}}))
    alone = Followed(f"http://127.0.0.1:{_free_port()}", tmp_path / "cache")
    assert set(alone.poll()) == {"bounce", "conversion"}
    assert alone.lineup.champions.reasons == {"exit": "registry_unreachable"}


def test_the_cache_keeps_what_can_be_gone_back_to_and_no_more(versions: Versions, tmp_path: Path) -> None:
    followed = Followed(versions.uri, tmp_path / "cache", kept=3)
    followed.poll()
    for trees in range(5, 10):
        versions.point("exit", versions.add("exit", trees))
        followed.poll()
    assert sorted(path.name[:2] for path in (tmp_path / "cache" / "lotse-exit").iterdir()) == ["4-", "5-", "6-"]
    assert [one.number for one in followed.cache.state().heads["exit"].previous] == ["5", "4"]


def test_one_follower_at_a_time(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    held = cache.lock("one")
    assert held is not None and ModelCache(tmp_path).lock("two") is None
    assert cache.run() == "one"


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])

"""What is tagged on runs and versions: where code, installation, log and settings were when a model was made."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from features.events import PAGE_VIEW, Event
from tests.sessions import START, table
from tests.workspace import ROOT
from training.config import TrainingSettings
from training.provenance import config_digest, from_iso, git_state, iso, lock_digest, provenance, split_digest

SETTINGS = TrainingSettings()
DAY_MS = 86_400_000


def log(visitors: tuple[int, ...] = (1, 2, 3)) -> pd.DataFrame:
    times = (START + place * DAY_MS for place in range(len(visitors)))
    return table([Event(visitor=one, time=time, name=PAGE_VIEW) for one, time in zip(visitors, times, strict=True)])


def changed(section: str, **values: object) -> TrainingSettings:
    part = getattr(SETTINGS, section).model_copy(update=values)
    return SETTINGS.model_copy(update={section: part})


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    return tmp_path


def test_every_tag_is_text_and_none_is_empty() -> None:
    tags = provenance(SETTINGS, log(), "abc", "shop")
    assert all(isinstance(value, str) and value for value in tags.values())
    assert (tags["source"], tags["feature_digest"]) == ("shop", "abc")
    assert {"git_commit", "git_dirty", "lock_digest", "config_digest", "lotse_version"} <= set(tags)


def test_the_window_is_that_of_the_log_and_the_border_lies_in_it() -> None:
    tags = provenance(SETTINGS, log(), "abc", "shop")
    assert (tags["data_from"], tags["data_to"]) == (iso(START), iso(START + 2 * DAY_MS))
    assert from_iso(tags["learned_until"]) == START + round(SETTINGS.split.test_from * 2 * DAY_MS)
    assert provenance(SETTINGS, (START, START + 2 * DAY_MS), "abc", "shop")["data_to"] == tags["data_to"]
    assert provenance(SETTINGS, log(), "abc", "shop", border_ms=START + 5)["learned_until"] == iso(START + 5)


def test_the_commit_is_that_of_the_first_folder_in_a_repository(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert git_state([repository]) == (commit, "false")
    inside = repository / "configs"
    inside.mkdir()
    assert git_state([Path("/"), inside]) == (commit, "false")


def test_changes_to_tracked_files_are_dirty_and_new_files_are_not(repository: Path) -> None:
    (repository / "models.db").write_text("new")
    assert git_state([repository])[1] == "false"
    (repository / "file").write_text("two")
    assert git_state([repository])[1] == "true"


def test_without_a_repository_or_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state([tmp_path, tmp_path / "missing"]) == ("unknown", "unknown")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state([ROOT]) == ("unknown", "unknown")


def test_the_lock_is_told_by_its_bytes_or_by_what_is_installed(tmp_path: Path) -> None:
    installed = lock_digest(tmp_path)
    assert installed.startswith("installed:") and installed == lock_digest(tmp_path)
    lock = tmp_path / "requirements.lock"
    lock.write_text("numpy==2.0\n")
    assert lock_digest(tmp_path) == f"lock:{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"


def test_the_settings_digest_moves_with_what_shapes_a_model_alone() -> None:
    before = config_digest(SETTINGS)
    assert config_digest(TrainingSettings()) == before
    assert config_digest(changed("lightgbm", num_leaves=5)) != before
    assert config_digest(changed("labels", bounce_seconds=11.0)) != before
    assert config_digest(changed("tracking", uri="sqlite:///elsewhere.db")) == before
    assert config_digest(changed("promotion", min_rows=5)) == before


def test_the_split_digest_moves_with_who_is_held_out() -> None:
    before = split_digest(SETTINGS, log())
    assert split_digest(SETTINGS, log().sample(frac=1, random_state=1)) == before
    assert split_digest(changed("lightgbm", num_leaves=5), log()) == before
    assert split_digest(changed("split", seed=1), log()) != before
    assert split_digest(SETTINGS, log((1, 2, 4))) != before
    assert split_digest(SETTINGS, log((1, 2, 3, 3))) != before

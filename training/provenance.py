"""Where a model comes from: the tags of every run and registered version, from code, installation, log and settings.

What cannot be found out (no git, no repository) is the word `unknown`, never missing.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Final

import pandas as pd

from training.config import TrainingSettings

UNKNOWN: Final = "unknown"
# Long enough for a large repository on a slow disk; training does not wait for more.
_GIT_SECONDS: Final = 10.0
_DIGITS: Final = 16
# Where models are kept and how they are watched does not change what they are.
_NOT_OF_THE_MODEL: Final = {"tracking", "promotion", "drift", "tuning", "watch"}


def provenance(
    settings: TrainingSettings,
    log: pd.DataFrame | tuple[int, int],
    feature_digest: str,
    source: str,
    *,
    border_ms: float | None = None,
) -> dict[str, str]:
    """The tags that say where a model comes from.

    log: the events, or the times of the first and the last, ms UTC; border_ms: where the test begins, by
    `split.test_from` by default. The tags: `source`; `data_from` and `data_to`, the first and last event;
    `learned_until`, the border: nothing later was learned from; `feature_digest`; `config_digest`; `split_digest`:
    equal where the same visitors were held out; `git_commit` and `git_dirty`; `lock_digest`; `lotse_version`.
    """
    first, last = (int(log["time"].min()), int(log["time"].max())) if isinstance(log, pd.DataFrame) else log
    border = first + settings.split.test_from * (last - first) if border_ms is None else border_ms
    commit, dirty = git_state((Path.cwd(), package_folder()))
    return {
        "source": source,
        "data_from": iso(first),
        "data_to": iso(last),
        "learned_until": iso(border),
        "feature_digest": feature_digest,
        "config_digest": config_digest(settings),
        "split_digest": split_digest(settings, log),
        "git_commit": commit,
        "git_dirty": dirty,
        "lock_digest": lock_digest(package_folder()),
        "lotse_version": package_version(),
    }


def iso(time_ms: float) -> str:
    """A moment, ms UTC, as text.

    >>> iso(1767225600250)
    '2026-01-01T00:00:00.250Z'
    """
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_iso(text: str) -> int:
    """The moment, ms UTC, that `iso` wrote.

    >>> from_iso("2026-01-01T00:00:00.250Z")
    1767225600250
    """
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def config_digest(settings: TrainingSettings) -> str:
    """16 hex digits over every setting that shapes a model."""
    return _digest(json.dumps(settings.model_dump(mode="json", exclude=_NOT_OF_THE_MODEL), sort_keys=True))


def split_digest(settings: TrainingSettings, log: pd.DataFrame | tuple[int, int]) -> str:
    """16 hex digits over what decides who is held out: the split's settings, and the log's span and visitors."""
    split = settings.split.model_dump(mode="json")
    decides = [split[name] for name in ("test_from", "past", "test", "seed")]
    decides += [settings.timeout_ms, settings.rows.max_events]
    if isinstance(log, pd.DataFrame):
        # wraps around; the order of the log does not matter
        visitors = int(log["visitor"].to_numpy().view("u8").sum())
        decides += [int(log["time"].min()), int(log["time"].max()), len(log), visitors]
    else:
        decides += list(log)
    return _digest(json.dumps(decides))


def lock_digest(folder: Path) -> str:
    """`lock:` and 16 hex digits over requirements.lock in `folder`; without one `installed:` and those over the names
    and versions of what is installed."""
    lock = folder / "requirements.lock"
    if lock.is_file():
        return f"lock:{_digest(lock.read_bytes())}"
    installed = sorted({f"{one.name.lower()}=={one.version}" for one in distributions()})
    return f"installed:{_digest(chr(10).join(installed))}"


def git_state(folders: Iterable[Path]) -> tuple[str, str]:
    """Commit of the first folder that is in a git repository, and whether tracked files differ from it.

    ("unknown", "unknown") where there is none, or no git.
    """
    for folder in folders:
        commit = _git(folder, "rev-parse", "HEAD")
        if commit:
            changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
            return commit, UNKNOWN if changes is None else str(bool(changes)).lower()
    return UNKNOWN, UNKNOWN


def package_folder() -> Path:
    """The folder that holds the packages: the project's, or `site-packages`."""
    return Path(__file__).resolve().parents[1]


def package_version() -> str:
    """Lotse's version as installed."""
    try:
        return version("lotse")
    except PackageNotFoundError:
        return UNKNOWN


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it cannot say."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=_GIT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:_DIGITS]

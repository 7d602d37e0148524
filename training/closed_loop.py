"""One round of the closed loop: what the service has handed on is held to the champions, candidates are judged by it,
and new ones are trained from it.

In: a log of sessions (`training.session_log`) and the registry. Out: a `Round`, all of which is in MLflow, too.

1. Each head's champion: drift, and what became of the sessions beside what it promised, by session age.
2. Each head's candidate, once it is old enough: the gate, and the promotion where it passes.
3. Heads whose newest version is older than `watch.retrain_hours`, or that have none: training. A first version is the
   champion at once.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from features.compiler import compile_fold
from features.settings import SettingsError
from training.compare import compare, obstacles
from training.config import TrainingSettings
from training.contest import contests, versions_with
from training.decision import Decision, decide
from training.drift_page import page
from training.pipeline import Report
from training.provenance import iso
from training.registry import registered_name, version_by_alias
from training.runs import train
from training.session_log import SOURCE, told
from training.watch import Watched, log_drift, watch

# What versions are registered and promoted by.
VERB: Final = "lotse watch"
_HOUR_MS: Final = 3_600_000
# What is told of a session age, where there is so much.
_TOLD: Final = ("rows", "base_rate", "auc", "log_loss", "ece", "ece_noise", "lift_10")


@dataclass(frozen=True)
class Round:
    """What a round found and did.

    Attributes
    ----------
    sessions, left_out: of the log; watched: the champions that could be looked at; decisions: about candidates.
    trained: version by head; without: by head what could not be done, and why.
    """

    at: str
    sessions: int
    left_out: tuple[str, ...]
    watched: tuple[Watched, ...] = ()
    decisions: tuple[Decision, ...] = ()
    trained: dict[str, str] = field(default_factory=dict)
    without: dict[str, list[str]] = field(default_factory=dict)

    @property
    def alarms(self) -> list[str]:
        """What somebody should look at: scores that do not hold any more, features that are others."""
        return [f"{one.head.name} version {one.version}: {found}" for one in self.watched for found in one.drift.found]

    @property
    def promoted(self) -> list[Decision]:
        """The candidates that are champions now."""
        return [one for one in self.decisions if one.promoted]

    def as_json(self) -> dict[str, Any]:
        """All of it, in plain numbers and texts."""
        heads: dict[str, dict[str, Any]] = {}
        for one in self.watched:
            heads[one.head.name] = {"version": one.version, **one.drift.as_json(), "by_age": by_age(one)}
        decisions = [
            {"head": one.head, "candidate": one.candidate, "champion": one.champion, "promoted": one.promoted,
             "reasons": list(one.reasons)}
            for one in self.decisions
        ]  # fmt: skip
        return {
            "at": self.at, "sessions": self.sessions, "left_out": list(self.left_out), "alarms": self.alarms,
            "watched": heads, "decisions": decisions, "trained": self.trained, "without": self.without,
        }  # fmt: skip


def by_age(one: Watched) -> list[dict[str, Any]]:
    """What became of the window's rows at each session age: calibration and lift; what is not a number is None."""
    if one.realised is None:
        return []
    lines = one.realised[["age", *(name for name in _TOLD if name in one.realised)]].to_dict("records")
    return [{str(name): _plain(value) for name, value in line.items()} for line in lines if line["rows"]]


def _plain(value: Any) -> Any:
    return None if value != value else value.item() if hasattr(value, "item") else value  # noqa: PLR0124


def one_round(
    mlflow: Any, log: pd.DataFrame, settings: TrainingSettings, heads: Sequence[str], report: Report = lambda *_: None
) -> Round:
    """Watch, judge, train."""
    client, tracking, digest = mlflow.MlflowClient(), settings.tracking, compile_fold().digest
    without: dict[str, list[str]] = {head: [] for head in heads}

    def note(reasons: dict[str, str]) -> None:
        for head, reason in reasons.items():
            without[head].append(reason)

    champions, reasons = versions_with(client, tracking, heads, tracking.alias, digest)
    note(reasons)
    watched: list[Watched] = []
    if champions:
        watched, reasons = watch(log, settings, champions, report=report, by_age=True)
        note(reasons)
        for one in watched:
            log_drift(mlflow, one, SOURCE, page([one]))

    decisions: list[Decision] = []
    found, _ = contests(client, settings, heads, digest)
    if found:
        why = {name: "; ".join(obstacles(contest)) for name, contest in found.items()}
        compared, reasons = compare(log, settings, found, report)
        decisions += decide(mlflow, settings, found, compared, why | reasons, SOURCE, VERB)

    trained: dict[str, str] = {}
    now_ms = time.time_ns() // 1_000_000
    due = [
        head for head in heads if newest_ms(client, settings, head) <= now_ms - settings.watch.retrain_hours * _HOUR_MS
    ]
    if due:
        chosen = settings.model_copy(update={"heads": settings.heads.model_copy(update={"train": tuple(due)})})
        try:
            models, reasons = train(log, chosen, SOURCE, report, by=VERB)
            trained = {one.head: one.version for one in models}
        except SettingsError as error:
            reasons = dict.fromkeys(due, str(error))
        note(reasons)
    return Round(
        at=iso(now_ms),
        sessions=len(log),
        left_out=tuple(told(log)),
        watched=tuple(watched),
        decisions=tuple(decisions),
        trained=trained,
        without={head: found for head, found in without.items() if found and head not in trained},
    )


def newest_ms(client: Any, settings: TrainingSettings, head: str) -> float:
    """When the newest version of a head was registered, ms UTC; long ago where there is none."""
    tracking = settings.tracking
    name = registered_name(tracking, head)
    aliases = (tracking.alias, tracking.candidate_alias)
    found = [version for alias in aliases if (version := version_by_alias(client, name, alias)) is not None]
    return max((float(one.creation_timestamp) for one in found), default=float("-inf"))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else goes round.

    Raises
    ------
    SettingsError
        Somebody does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"another lotse watch is at work ({path}); one at a time is enough") from None
        yield

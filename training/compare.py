"""Champion and candidate on the same holdout: the same sessions, rows and answers, and how surely one is better.

In: a log and the registry. Out: for each head a table by session age and segment with both models' metrics and the
difference (candidate less champion) with its interval from resampled visitors. The holdout is the test slice of the
log under the given configuration, as far as it is later than all that either model learned from (tag `learned_until`).
So no session in it was learned from. But only where log and split are those that a model was trained with (tag
`split_digest`) are all the visitors in it held out from it, too; the champion of an older log may have learned from
earlier sessions of some of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from training.config import TrainingSettings
from training.contest import Contest
from training.datasets import Slice
from training.evaluation import compare_scores
from training.heads import Head
from training.loading import Registered
from training.pipeline import Report, prepare
from training.provenance import from_iso, iso, split_digest


@dataclass(frozen=True)
class Comparison:
    """What the holdout says of a head's champion and candidate.

    Attributes
    ----------
    champion, candidate: versions; rows, sessions, visitors: of the holdout; since, until: ISO, its first and last
        session's start.
    notes: what to keep in mind when reading it.
    table: see `training.evaluation.compare_scores`; `one` is the champion, `other` the candidate.
    """

    head: str
    task: str
    champion: str
    candidate: str
    rows: int
    sessions: int
    visitors: int
    since: str
    until: str
    notes: tuple[str, ...]
    table: pd.DataFrame

    def as_json(self) -> dict[str, Any]:
        """All of it; what is not a number is null."""
        lines = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {**vars(self), "notes": list(self.notes), "table": lines}


def compare(
    events: pd.DataFrame,
    settings: TrainingSettings,
    contests: Mapping[str, Contest],
    report: Report = lambda *_: None,
) -> tuple[dict[str, Comparison], dict[str, str]]:
    """Compare champion and candidate of each head; and of the heads where that cannot be done the reason.

    Rows are made once for each set of learned tables, because every version reads the sessions with its own.
    """
    pairs: dict[str, tuple[Registered, Registered]] = {}
    without: dict[str, str] = {}
    for name, contest in contests.items():
        reason, pair = "; ".join(obstacles(contest)), contest.pair
        if reason or not pair:
            without[name] = reason
        else:
            pairs[name] = pair
    readers: dict[str, list[tuple[str, Registered]]] = defaultdict(list)
    for name, pair in pairs.items():
        for version in pair:
            readers[version.tables.digest].append((name, version))
    parts: dict[str, Slice] = {}
    scores: dict[tuple[str, str], np.ndarray] = {}
    for together in readers.values():
        prepared = prepare(events, settings, report, tables=together[0][1].tables)
        for name, version in together:
            parts[name] = _later(prepared.slices(contests[name].head)["test"], pairs[name], settings)
            scores[name, version.version] = version.model.score(parts[name].matrix)
        del prepared
    digest = split_digest(settings, events)
    found = {}
    for name, pair in pairs.items():
        if len(parts[name]):
            one, other = (scores[name, version.version] for version in pair)
            found[name] = _comparison(contests[name].head, pair, parts[name], one, other, settings, digest)
        else:
            without[name] = (
                f"head {name!r}: the test slice of this log has no session later than what versions {pair[0].version} "
                f"and {pair[1].version} learned from (until {_learned_until(pair)}); give a log that goes on after it"
            )
    return found, without


def _comparison(
    head: Head,
    pair: tuple[Registered, Registered],
    part: Slice,
    one: np.ndarray,
    other: np.ndarray,
    settings: TrainingSettings,
    digest: str,
) -> Comparison:
    champion, candidate = pair
    return Comparison(
        head=head.name,
        task=head.task,
        champion=champion.version,
        candidate=candidate.version,
        rows=len(part),
        sessions=part.sessions,
        visitors=len(np.unique(part.visitor)),
        since=iso(int(part.started.min())),
        until=iso(int(part.started.max())),
        notes=tuple(_notes(head, pair, digest)),
        table=compare_scores(part, one, other, settings.evaluation, head.task),
    )


def obstacles(contest: Contest) -> Iterator[str]:
    """Why champion and candidate cannot be compared."""
    if contest.champion is None:
        yield f"{contest.candidate.name} has no champion to compare version {contest.candidate.version} with"
        return
    for one in (contest.champion, contest.candidate):
        yield from one.defects
        if one.loaded and not one.loaded.tags.get("learned_until"):
            yield f"{one.name} version {one.version} does not say what it learned from (tag learned_until): train again"


def _notes(head: Head, pair: tuple[Registered, Registered], digest: str) -> Iterator[str]:
    for version in pair:
        if version.tags.get("split_digest") != digest:
            yield (
                f"version {version.version} was trained on another log or split: it may have learned from earlier "
                "sessions of some of these visitors"
            )
        asked = version.about.get("question", head.question)
        if asked != head.question:
            yield f"version {version.version} was asked another question in training: {asked}"


def _later(test: Slice, pair: tuple[Registered, Registered], settings: TrainingSettings) -> Slice:
    """The rows of sessions that began after all that the pair learned from, and the gap of one timeout."""
    return test.take(test.started >= from_iso(_learned_until(pair)) + settings.timeout_ms)


def _learned_until(pair: tuple[Registered, Registered]) -> str:
    return max(version.tags["learned_until"] for version in pair)


def log_comparison(mlflow: Any, found: Comparison, source: str, tags: Mapping[str, str]) -> None:
    """A run `compare-<head>` with the table as an artifact and the differences over all rows as metrics."""
    about = ("head", "champion", "candidate", "rows", "sessions", "visitors", "since", "until")
    (line,) = found.table[found.table["age"] == "all"].to_dict("records")
    numbers = {name: float(value) for name, value in line.items() if name != "age"}
    with mlflow.start_run(run_name=f"compare-{found.head}"):
        mlflow.set_tags({"source": source, **tags})
        mlflow.log_params({name: getattr(found, name) for name in about})
        mlflow.log_metrics({name: value for name, value in numbers.items() if value == value})  # noqa: PLR0124
        mlflow.log_text(found.table.to_csv(index=False), "comparison.csv")

"""MLflow as the document reads it: versions, runs and the small files that runs have left.

Only runs that are over are read, and these do not change: what was read last is kept.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from serving.registry import ABSENT, client_of, told

# Runs of a kind that are looked at, the latest.
MOST_RUNS: Final = 200
# How many are asked for at once: MLflow reads all metrics of each, and those of a look are hundreds.
PAGE: Final = 25
_SQLITE: Final = "sqlite:///"
_OVER: Final = ("FINISHED", "FAILED", "KILLED")
_FORMAT: Final = 1

# Files that are remembered.
_KEPT: Final = 256

Line = Mapping[str, str]


class Run(NamedTuple):
    """A run. at_ms: when it began, ms UTC; experiment: the id of MLflow's, in which its like are found, too."""

    id: str
    experiment: str
    at_ms: int
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]


class Version(NamedTuple):
    """A registered version. run: the id of the run that trained it; registered_ms: ms UTC."""

    number: str
    run: str
    registered_ms: int
    tags: Mapping[str, str]


class Store:
    """Reads; every method may raise `RegistryError`, where MLflow does not answer."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._runs: dict[str, Run] = {}
        self._latest: dict[tuple[str, ...], list[Run]] = {}
        self._texts: OrderedDict[tuple[str, str], str | None] = OrderedDict()

    def versions(self, name: str) -> list[Version]:
        """All of a registered model, the newest first."""
        with told():
            found = self._all(lambda token: self._client.search_model_versions(f"name = '{name}'", page_token=token))
        versions = [
            Version(str(v.version), v.run_id or "", int(v.creation_timestamp or 0), dict(v.tags)) for v in found
        ]
        return sorted(versions, key=lambda one: -int(one.number))

    def aliases(self, name: str) -> Mapping[str, str]:
        """Version by alias; none where there is no such model."""
        with told():
            from mlflow.exceptions import MlflowException  # noqa: PLC0415

            try:
                model = self._client.get_registered_model(name)
            except MlflowException as error:
                if error.error_code in ABSENT:
                    return {}
                raise
            return {alias: str(number) for alias, number in model.aliases.items()}

    def run(self, run_id: str) -> Run | None:
        """The run of this id; None where it was deleted, or is not over."""
        if run_id not in self._runs:
            found: Any
            with told():
                from mlflow.exceptions import MlflowException  # noqa: PLC0415

                try:
                    found = self._client.get_run(run_id)
                except MlflowException as error:
                    if error.error_code in ABSENT:
                        return None
                    raise
            if found.info.status not in _OVER:
                return None
            self._runs[run_id] = _run(found)
        return self._runs[run_id]

    def runs(self, experiments: Sequence[str], name: str) -> list[Run]:
        """Those that are over and have this name, the latest first, at most `MOST_RUNS` of them."""
        if not experiments:
            return []
        asked = f"attributes.run_name = '{name}' and attributes.status = 'FINISHED'"
        order = ["attributes.start_time DESC"]
        known = self._latest.get((*experiments, name), [])
        ids, token = {run.id for run in known}, None
        found: list[Run] = []
        while len(found) < MOST_RUNS:
            with told():
                part = self._client.search_runs(
                    list(experiments), asked, max_results=PAGE, order_by=order, page_token=token
                )
            fresh = [_run(one) for one in part if one.info.run_id not in ids]
            found += fresh
            token = part.token
            if len(fresh) < len(part) or not token:
                break
        latest = sorted(found + known, key=lambda run: -run.at_ms)[:MOST_RUNS]
        self._latest[*experiments, name] = latest
        return latest

    def table(self, run_id: str, path: str) -> list[Line] | None:
        """The lines of a CSV file that a run has left; None where it has not."""
        text = self._text(run_id, path)
        return None if text is None else list(csv.DictReader(io.StringIO(text)))

    def tree(self, run_id: str, path: str, *, formatted: bool = False) -> Mapping[str, Any] | None:
        """The content of a JSON file; None where there is none, or one of a format that is not known."""
        text = self._text(run_id, path)
        try:
            found = json.loads(text) if text else None
        except ValueError:
            return None
        known = isinstance(found, dict) and (not formatted or found.get("format") == _FORMAT)
        return found if known else None

    def _text(self, run_id: str, path: str) -> str | None:
        key = run_id, path
        if key in self._texts:
            self._texts.move_to_end(key)
            return self._texts[key]
        with told():
            text = None
            if path in {one.path for one in self._client.list_artifacts(run_id)}:
                with tempfile.TemporaryDirectory() as folder:
                    text = Path(self._client.download_artifacts(run_id, path, folder)).read_text()
        self._texts[key] = text
        while len(self._texts) > _KEPT:
            self._texts.popitem(last=False)
        return text

    def _all(self, page: Callable[[str | None], Any]) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            part = page(token)
            found += part
            token = part.token
            if not token:
                return found


def opened(uri: str) -> Store | None:
    """The store at `uri`, or at MLFLOW_TRACKING_URI, which wins; None where there is none, or none yet.

    Raises
    ------
    RegistryError
        It does not answer.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
    # to look is no reason to make one
    missing = uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists()
    return None if not uri or missing else Store(client_of(uri))


def _run(found: Any) -> Run:
    return Run(
        id=found.info.run_id,
        experiment=found.info.experiment_id,
        at_ms=int(found.info.start_time or 0),
        metrics=dict(found.data.metrics),
        params=dict(found.data.params),
        tags=dict(found.data.tags),
    )

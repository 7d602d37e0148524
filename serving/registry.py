"""The MLflow registry, as the follower asks it. Importing MLflow takes seconds and 200 MB: no worker does."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

# A registry that hangs is given up after seconds, not after MLflow's default of minutes; the next poll asks again.
_ENVIRONMENT: Final = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
# What MLflow says of an alias or a model that is not there.
ABSENT: Final = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class RegistryError(Exception):
    """The registry does not answer, or not with what was asked for."""


class Registered(NamedTuple):
    """A version that an alias leads to; source: where the registry keeps it, unlike that of every other version.

    registered_ms: ms UTC, 0 where the registry does not tell.
    """

    number: str
    source: str
    registered_ms: int
    tags: Mapping[str, str]


class Registry:
    """The registry at `uri`; the environment variable MLFLOW_TRACKING_URI wins. Its own MLFLOW_* settings are kept."""

    def __init__(self, uri: str) -> None:
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
        self._client = client_of(self._uri)

    def version(self, name: str, alias: str) -> Registered | None:
        """What the alias of a registered model leads to; None for nowhere.

        Raises
        ------
        RegistryError
            The registry does not answer.
        """
        with told():
            from mlflow.exceptions import MlflowException  # noqa: PLC0415

            try:
                found = self._client.get_model_version_by_alias(name, alias)
            except MlflowException as error:
                if error.error_code in ABSENT:
                    return None
                raise
            return Registered(
                str(found.version), f"{found.source} {found.run_id}", found.creation_timestamp or 0, dict(found.tags)
            )

    def download(self, name: str, number: str, into: Path) -> Path:
        """The files of a version, in the returned folder below `into`.

        Raises
        ------
        RegistryError
            They cannot be had.
        """
        with told():
            from mlflow.artifacts import download_artifacts  # noqa: PLC0415

            uri = self._client.get_model_version_download_uri(name, number)
            # named, or it is downloaded by way of the environment's registry
            found = download_artifacts(uri, dst_path=str(into), tracking_uri=self._uri, registry_uri=self._uri)
            return Path(found) / "artifacts"


def client_of(uri: str) -> Any:
    """MLflow's client of the store at `uri`.

    Raises
    ------
    RegistryError
        There is none.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with told():
        from mlflow import MlflowClient  # noqa: PLC0415

        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def told() -> Iterator[None]:
    """Whatever a database, a server or a disk has to complain about, as one error without addresses or passwords."""
    try:
        yield
    except RegistryError:
        raise
    except Exception as error:
        raise RegistryError(_words(error)) from None


def _words(error: Exception) -> str:
    code = getattr(error, "error_code", "")
    return f"{type(error).__name__} {code}".strip()

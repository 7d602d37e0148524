"""The champions of the MLflow registry, as heads that score; what cannot be used is left out with its reason."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from features.compiler import Fold, compile_fold
from features.settings import SettingsError
from serving.heads import GOLDEN_TOLERANCE, Head, ModelError
from serving.scorer import Scorer
from serving.settings import ServingSettings

logger = logging.getLogger("lotse.models")

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

NO_MODEL = "no_model"
FEATURE_DIGEST_MISMATCH = "feature_digest_mismatch"
MODEL_UNUSABLE = "model_unusable"
REGISTRY_UNREACHABLE = "registry_unreachable"


def load_scorer(settings: ServingSettings, fold: Fold) -> Scorer:
    """A scorer with every head whose champion can be used; the others answer their prior, with a reason."""
    heads: dict[str, Head] = {}
    reasons: dict[str, str] = {}
    if settings.models.folder:
        return _packed(settings, fold)
    try:
        client = _client(settings)
    except Exception as error:
        logger.error("the registry cannot be reached (%s); every head answers its prior", type(error).__name__)
        reasons = dict.fromkeys(settings.models.heads, REGISTRY_UNREACHABLE)
        return Scorer({}, settings.prior, reasons, fold)
    for name in settings.models.heads:
        try:
            heads[name] = _load(client, settings, name, fold)
        except _Unusable as unusable:
            logger.warning("%s: %s; the head answers its prior %s", name, unusable, settings.prior.get(name))
            reasons[name] = unusable.reason
    return Scorer(heads, settings.prior, reasons, fold)


def pack(settings: ServingSettings, folder: Path) -> dict[str, str]:
    """Copy the champions to a folder that `models.folder` can name; returns the version of each head.

    Raises
    ------
    SettingsError
        A head has no champion, or one that cannot be used here.
    """
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415

    client, fold = _client(settings), compile_fold()
    versions: dict[str, str] = {}
    for name in settings.models.heads:
        try:
            head = _load(client, settings, name, fold)
        except _Unusable as unusable:
            raise SettingsError(f"{name}: {unusable}") from None
        uri = client.get_model_version_download_uri(f"{settings.models.prefix}-{name}", head.version)
        place = folder / name / head.version
        place.mkdir(parents=True)
        for file in ("head.json", "booster.txt", "tables.npz"):
            source = Path(download_artifacts(uri)) / "artifacts" / file
            if source.exists():
                shutil.copy(source, place / file)
        versions[name] = head.version
    return versions


def _packed(settings: ServingSettings, fold: Fold) -> Scorer:
    """The heads in `models.folder`."""
    heads: dict[str, Head] = {}
    reasons: dict[str, str] = {}
    for name in settings.models.heads:
        found = sorted((Path(settings.models.folder) / name).glob("*/head.json"))
        try:
            if not found:
                raise _Unusable(NO_MODEL, f"{settings.models.folder} holds no model; build it with lotse build")
            heads[name] = _checked(name, Head(found[-1].parent, found[-1].parent.name), fold)
        except ModelError as error:
            logger.warning("%s: %s; the head answers its prior %s", name, error, settings.prior.get(name))
            reasons[name] = MODEL_UNUSABLE
        except _Unusable as unusable:
            logger.warning("%s: %s; the head answers its prior %s", name, unusable, settings.prior.get(name))
            reasons[name] = unusable.reason
    return Scorer(heads, settings.prior, reasons, fold)


class _Unusable(Exception):  # noqa: N818
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _client(settings: ServingSettings) -> Any:
    from mlflow import MlflowClient  # noqa: PLC0415  (seconds of imports)

    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.models.uri
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _load(client: Any, settings: ServingSettings, name: str, fold: Fold) -> Head:
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    registered = f"{settings.models.prefix}-{name}"
    try:
        version = client.get_model_version_by_alias(registered, settings.models.alias)
    except MlflowException:
        raise _Unusable(
            NO_MODEL, f"the registry has no {registered} with the alias {settings.models.alias!r}; run lotse train"
        ) from None
    digest = version.tags.get("feature_digest", "")
    if digest and digest != fold.digest:
        raise _Unusable(
            FEATURE_DIGEST_MISMATCH,
            f"{registered} version {version.version} was trained on the features {digest}, this service computes "
            f"{fold.digest}; train again with this release, or serve with the release it was trained with",
        )
    try:
        folder = Path(download_artifacts(client.get_model_version_download_uri(registered, version.version)))
        head = Head(folder / "artifacts", str(version.version))
    except (MlflowException, OSError, ModelError) as error:
        raise _Unusable(MODEL_UNUSABLE, f"{registered} version {version.version}: {error}") from None
    return _checked(registered, head, fold)


def _checked(registered: str, head: Head, fold: Fold) -> Head:
    if head.about.feature_digest != fold.digest or tuple(head.about.features) != fold.names:
        raise _Unusable(
            FEATURE_DIGEST_MISMATCH,
            f"{registered} version {head.version} names the features {head.about.feature_digest}, not {fold.digest}",
        )
    off = head.golden_error()
    if not off <= GOLDEN_TOLERANCE:
        raise _Unusable(MODEL_UNUSABLE, f"{registered} version {head.version}: the golden row is {off:.3g} off")
    logger.info("%s version %s scores", registered, head.version)
    return head

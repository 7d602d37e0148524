"""Who stands against whom: the champion and the candidate of a head, and whether this release can use them at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from features.settings import SettingsError
from training.config import TrackingSettings, TrainingSettings
from training.heads import Head, heads_of
from training.loading import Registered, load_version
from training.registry import FORMAT, registered_name, version_by_alias

# Trees are summed in the same order everywhere; only the exponential may differ from library to library.
GOLDEN_TOLERANCE: Final = 1e-9


@dataclass(frozen=True)
class Entrant:
    """A registered version.

    Attributes
    ----------
    name: of the registered model; version: its number; registered_ms: ms UTC.
    loaded: what it holds; None where it cannot be read. defects: why this release's service would refuse it.
    """

    name: str
    version: str
    registered_ms: int
    loaded: Registered | None
    defects: tuple[str, ...]


@dataclass(frozen=True)
class Contest:
    """A head's candidate and the champion it would replace; no champion where nothing has the alias."""

    head: Head
    candidate: Entrant
    champion: Entrant | None

    @property
    def pair(self) -> tuple[Registered, Registered] | None:
        """Champion and candidate, where both can score rows of this release."""
        if self.champion is None or self.champion.defects or self.candidate.defects:
            return None
        champion, candidate = self.champion.loaded, self.candidate.loaded
        return (champion, candidate) if champion and candidate else None


def contests(
    client: Any, settings: TrainingSettings, heads: Sequence[str], feature_digest: str
) -> tuple[dict[str, Contest], dict[str, str]]:
    """The contest of each head, and for the heads without a candidate the reason."""
    known, tracking = heads_of(settings), settings.tracking
    found, without = {}, {}
    for head in heads:
        name = registered_name(tracking, head)
        candidate = version_by_alias(client, name, tracking.candidate_alias)
        champion = version_by_alias(client, name, tracking.alias)
        if candidate is None:
            without[head] = (
                f"{name} has no version with the alias {tracking.candidate_alias!r}; lotse train registers one"
            )
        elif champion is not None and str(champion.version) == str(candidate.version):
            without[head] = f"{name} version {candidate.version} is the champion already; lotse train registers another"
        else:
            found[head] = Contest(
                known[head],
                enter(client, candidate, feature_digest),
                None if champion is None else enter(client, champion, feature_digest),
            )
    return found, without


def enter(client: Any, version: Any, feature_digest: str) -> Entrant:
    """MLflow's `version` (a ModelVersion), loaded and looked over."""
    loaded, defects = None, []
    try:
        loaded = load_version(client, version)
        defects = list(_defects(loaded, feature_digest))
    except SettingsError as error:
        defects = [str(error)]
    return Entrant(
        name=version.name,
        version=str(version.version),
        registered_ms=int(version.creation_timestamp),
        loaded=loaded,
        defects=tuple(defects),
    )


def _defects(version: Registered, feature_digest: str) -> list[str]:
    about, name = version.about, f"{version.name} version {version.version}"
    found = []
    if about["format"] != FORMAT:
        found.append(f"{name} has the model format {about['format']}, this release reads {FORMAT}: train again")
    if about["feature_digest"] != feature_digest:
        found.append(
            f"{name} was trained on the features {about['feature_digest']}, this release computes {feature_digest}: "
            "train again with this release"
        )
    if version.tables.digest != about["tables_digest"]:
        found.append(f"{name}: tables.npz is not what head.json was written with: train again")
    golden = about["golden"]
    row = np.array([[np.nan if value is None else value for value in golden["row"]]], np.float32)
    score = float(version.model.score(row)[0])
    if not abs(score - golden["score"]) <= GOLDEN_TOLERANCE * max(1.0, abs(golden["score"])):
        found.append(
            f"{name} scores its golden row {score:.6g}, in training it was {golden['score']:.6g}: the model was "
            "changed, or LightGBM computes otherwise: train again"
        )
    return found


def versions_with(
    client: Any, settings: TrackingSettings, heads: Sequence[str], alias: str, feature_digest: str
) -> tuple[dict[str, Registered], dict[str, str]]:
    """The version of each head that has an alias, and for the heads without a usable one the reason."""
    found, without = {}, {}
    for head in heads:
        name = registered_name(settings, head)
        version = version_by_alias(client, name, alias)
        entrant = None if version is None else enter(client, version, feature_digest)
        if entrant is None:
            without[head] = f"the registry has no {name} with the alias {alias!r}; run lotse train"
        elif entrant.loaded is None or entrant.defects:
            without[head] = "; ".join(entrant.defects)
        else:
            found[head] = entrant.loaded
    return found, without

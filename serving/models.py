"""From versions in the cache to heads that score, and to the lineup of the service."""

from __future__ import annotations

import logging
from typing import Final

from features.compiler import Fold
from serving.lineup import Lineup
from serving.model_cache import Followed, ModelCache, State, Version
from serving.scorer import GOLDEN_TOLERANCE, Head, ModelError, Scorer
from serving.settings import ServingSettings
from serving.shadow import Comparison

logger = logging.getLogger("lotse.models")

NO_MODEL: Final = "no_model"
FEATURE_DIGEST_MISMATCH: Final = "feature_digest_mismatch"
MODEL_UNUSABLE: Final = "model_unusable"
REGISTRY_UNREACHABLE: Final = "registry_unreachable"


class UnusableError(Exception):
    """A version that cannot score here; reason: as an answer tells it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def load(cache: ModelCache, name: str, version: Version, digest: str, features: tuple[str, ...]) -> Head:
    """A version of the cache as a head that was seen to score as in training.

    digest, features: of the fold that its rows come from; name: of the registered model, for messages.

    Raises
    ------
    UnusableError
        Its files cannot be read, it was trained on other features, or its golden row is off.
    """
    which = f"{name} version {version.number}"
    try:
        head = Head(cache.path(version), version.number)
    except ModelError as error:
        raise UnusableError(MODEL_UNUSABLE, f"{which}: {error}") from None
    if head.about.feature_digest != digest or tuple(head.about.features) != features:
        raise UnusableError(FEATURE_DIGEST_MISMATCH, other_features(which, head.about.feature_digest, digest))
    off = head.golden_error()
    if not off <= GOLDEN_TOLERANCE:
        raise UnusableError(MODEL_UNUSABLE, f"{which}: the golden row is {off:.3g} off")
    return head


def other_features(which: str, its: str, digest: str) -> str:
    """What is said of a version that was trained on other features than this service computes."""
    return (
        f"{which} was trained on the features {its}, this service computes {digest}; train again with this release, "
        "or serve with the release it was trained with"
    )


class Models:
    """The heads that a worker has in memory. Not for several threads at once."""

    def __init__(self, settings: ServingSettings, cache: ModelCache, fold: Fold, comparison: Comparison) -> None:
        self._settings, self._cache, self._fold = settings, cache, fold
        self._comparison = comparison
        # of each head its loaded versions by folder, the one that scored last at the end
        self._loaded: dict[str, dict[str, Head]] = {name: {} for name in settings.models.heads}
        self._champions: dict[str, Head] = {}
        self._told: set[str] = set()

    def lineup(self, state: State) -> Lineup:
        """What scores as the state says; blocks while versions are loaded.

        A head whose version cannot be loaded keeps the one it has; without any it answers its prior, with the reason.
        """
        reasons: dict[str, str] = {}
        challengers: dict[str, Head] = {}
        for name in self._settings.models.heads:
            followed = state.heads.get(name, Followed())
            champion = self._head(name, followed.champion)
            if champion is not None:
                self._champions[name] = champion
            elif name not in self._champions:
                reasons[name] = self._reason(followed, state)
            challenger = self._head(name, followed.challenger)
            if challenger is not None and name in self._champions:
                challengers[name] = challenger
            self._forget(name, followed)
        settings = self._settings.models
        return Lineup(
            Scorer(self._champions, self._settings.prior, reasons, self._fold),
            challengers,
            self._fold,
            self._settings.prior,
            self._comparison,
            shadow_share=settings.shadow_share,
            canary_share=settings.canary_share,
        )

    def _head(self, name: str, version: Version | None) -> Head | None:
        if version is None:
            return None
        loaded = self._loaded[name]
        head = loaded.pop(version.folder, None)
        if head is None:
            registered = f"{self._settings.models.prefix}-{name}"
            try:
                head = load(self._cache, registered, version, self._fold.digest, self._fold.names)
            except UnusableError as error:
                if version.folder not in self._told:
                    self._told.add(version.folder)
                    logger.error("%s; what scored before goes on", error)
                return None
        loaded[version.folder] = head
        return head

    def _forget(self, name: str, followed: Followed) -> None:
        """Let go of all but those that score and `models.kept` others, the latest."""
        loaded = self._loaded[name]
        used = {version.folder for version in (followed.champion, followed.challenger) if version is not None}
        others = [folder for folder in loaded if folder not in used]
        for folder in others[: max(0, len(others) - self._settings.models.kept + 1)]:
            del loaded[folder]

    @staticmethod
    def _reason(followed: Followed, state: State) -> str:
        refused = next(iter(followed.refused.values()), None)
        if refused is not None:
            return refused.reason
        # without a word of the follower, it is the registry that keeps it waiting
        return REGISTRY_UNREACHABLE if state.unreachable_since_ms or not state.run else NO_MODEL

"""From versions in the cache to heads that score, and to the lineup of the service."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from features import carried
from features.compiler import Fold
from features.declare import CatalogueError
from serving.group import warm_up
from serving.heads import GOLDEN_TOLERANCE, Head, ModelError
from serving.lineup import Generation, Lineup
from serving.model_cache import Followed, ModelCache, State, Version
from serving.pseudonyms import DAY_MS
from serving.scorer import Scorer
from serving.sessions import Sessions
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


class Folds:
    """Compiled folds by feature digest: this release's own, and those that models brought along."""

    def __init__(self, own: Fold) -> None:
        self.own = own
        self._folds = {own.digest: own}

    def find(self, digest: str, folder: Path) -> Fold:
        """The fold of this digest; a model's folder may hold it.

        Raises
        ------
        CatalogueError
            It is not ours, and the model has none that can be used.
        """
        if digest not in self._folds:
            path = folder / carried.FILE
            if not path.exists():
                raise CatalogueError(
                    f"this service computes {self.own.digest}, and the model does not bring its own along; "
                    "train again with this release"
                )
            self._folds[digest] = carried.load(path.read_text(), digest)
        return self._folds[digest]

    def known(self, digest: str) -> Fold:
        """A fold that was found before."""
        return self._folds[digest]

    def forget(self, kept: Iterable[str]) -> None:
        """Let go of folds with other digests."""
        digests = {self.own.digest, *kept}
        self._folds = {digest: fold for digest, fold in self._folds.items() if digest in digests}


def load(cache: ModelCache, name: str, version: Version, folds: Folds, tagged: str | None = None) -> Head:
    """A version of the cache as a head that was seen to score as in training.

    name: of the registered model, for messages; tagged: the feature digest that the registry has for it, None where
    that was compared before.

    Raises
    ------
    UnusableError
        Its files cannot be read, its features cannot be computed, or its golden row is off.
    """
    which, folder = f"{name} version {version.number}", cache.path(version)
    try:
        head = Head(folder, version.number)
    except ModelError as error:
        raise UnusableError(MODEL_UNUSABLE, f"{which}: {error}") from None
    digest = head.about.feature_digest
    if tagged is not None and digest != (tagged or folds.own.digest):
        message = (
            f"{which} is tagged with the features {tagged or 'none'}, its files are of {digest}; "
            "train again with this release"
        )
        raise UnusableError(FEATURE_DIGEST_MISMATCH, message)
    try:
        fold = folds.find(digest, folder)
    except CatalogueError as error:
        message = f"{which} was trained on the features {digest}: {error}"
        raise UnusableError(FEATURE_DIGEST_MISMATCH, message) from None
    if head.features != fold.names:
        raise UnusableError(MODEL_UNUSABLE, f"{which}: head.json names other features than those of {digest}")
    off = head.golden_error()
    if not off <= GOLDEN_TOLERANCE:
        raise UnusableError(MODEL_UNUSABLE, f"{which}: the golden row is {off:.3g} off")
    return head


class Models:
    """The heads and folds that a worker has in memory. Not for several threads at once."""

    def __init__(self, settings: ServingSettings, cache: ModelCache, own: Fold, comparison: Comparison) -> None:
        self._settings, self._cache, self._comparison = settings, cache, comparison
        self._folds = Folds(own)
        self._loaded: dict[str, Head] = {}  # by folder
        self._told: set[str] = set()
        # by feature digest: what scores there, by name, as long as sessions may run in it; the newest is the last
        self._heads: dict[str, dict[str, Head]] = {}
        self._sessions: dict[str, Sessions] = {}
        self._used_at: dict[str, float] = {}
        self._lineup: Lineup | None = None

    def lineup(self, state: State) -> Lineup:
        """What serves as the state says; blocks while versions are loaded and folds are compiled.

        A head whose version cannot be loaded keeps the one it has; without any it answers its prior, with the reason.
        New sessions start with another fold as soon as there is a champion for it of every head that is scored now.
        """
        names = self._settings.models.heads
        champions: dict[str, Head] = {}
        found: dict[str, dict[str, Head]] = {}
        loaded: dict[str, Head] = {}
        challengers: dict[str, Head] = {}
        registered: dict[tuple[str, str], float] = {}
        for name in names:
            followed = state.heads.get(name, Followed())
            for version in followed.versions():
                head = self._head(name, version)
                if head is None:
                    continue
                loaded[version.folder] = head
                if version.registered_ms:
                    registered[name, version.number] = version.registered_ms / 1000
                if version == followed.challenger:
                    challengers[name] = head
                    continue
                if version == followed.champion:
                    champions[name] = head
                found.setdefault(head.about.feature_digest, {}).setdefault(name, head)
        self._loaded = loaded
        newest = self._newest(champions, found)
        self._tell_waiting(champions, newest)
        for digest, heads in found.items():
            # at the start all that may have running sessions; later those that had
            if digest in self._heads or digest == newest or not self._lineup:
                self._heads[digest] = {**self._heads.get(digest, {}), **heads}
        self._heads[newest] = self._heads.pop(newest, {})
        self._let_go(newest)
        reasons = {name: self._reason(name, state, champions) for name in names if name not in self._heads[newest]}
        ours = {name: head for name, head in challengers.items() if head.about.feature_digest == newest}
        self._lineup = Lineup(
            [
                self._generation(digest, reasons, ours if digest == newest else {})
                for digest in reversed(self._heads)
            ],
            registered,
        )  # fmt: skip
        return self._lineup

    def outlived(self) -> bool:
        """Whether a generation is still there in which no session can run any more."""
        self._note_use()
        return any(self._is_over(digest) for digest in list(self._heads)[:-1])

    def _newest(self, champions: Mapping[str, Head], found: Mapping[str, Mapping[str, Head]]) -> str:
        """The digest of the fold in which new sessions start."""
        now = next(reversed(self._heads), None)
        served = set(self._heads[now]) if now else set(champions)
        digests = {head.about.feature_digest for head in champions.values()}
        for digest in digests:
            whole = {name for name, head in champions.items() if head.about.feature_digest == digest}
            if whole and served <= whole:
                return digest
        if now:
            return now
        # a start in the middle of a change: the fold that most heads have a version for, ours where it is as good
        own = self._folds.own.digest
        return max(found, key=lambda digest: (len(found[digest]), digest == own), default=own)

    def _tell_waiting(self, champions: Mapping[str, Head], newest: str) -> None:
        for name, head in champions.items():
            digest = head.about.feature_digest
            if digest != newest and (what := f"{name} version {head.version} of {digest}") not in self._told:
                self._told.add(what)
                logger.warning("%s scores once every head has a champion for these features", what)

    def _generation(self, digest: str, reasons: Mapping[str, str], challengers: Mapping[str, Head]) -> Generation:
        fold = self._folds.known(digest)
        if digest not in self._sessions:
            timeout_ms = round(self._settings.session.timeout_minutes * 60_000)
            linked_ms = round(self._settings.store.linked_days * DAY_MS)
            silences = self._settings.log.silences_ms if self._settings.log.rows else None
            self._sessions[digest] = Sessions(fold, timeout_ms, linked_ms, silences)
        settings, prior = self._settings.models, self._settings.prior
        scorer = Scorer(self._heads[digest], prior, reasons, fold)
        generation = Generation(
            self._sessions[digest],
            scorer,
            challengers,
            prior,
            self._comparison,
            shadow_share=settings.shadow_share,
            canary_share=settings.canary_share,
        )
        warm_up(generation.sessions, generation.memories, scorer)
        return generation

    def _note_use(self) -> None:
        if self._lineup is None:
            return
        now = time.monotonic()
        for one in self._lineup.generations:
            if one.used or one is self._lineup.newest:
                self._used_at[one.fold.digest], one.used = now, False

    def _is_over(self, digest: str) -> bool:
        """Another worker may have had the session's latest event, and told of it half a timeout later."""
        return time.monotonic() - self._used_at[digest] > 2 * self._settings.session.timeout_minutes * 60

    def _let_go(self, newest: str) -> None:
        self._note_use()
        for digest in list(self._heads):
            self._used_at.setdefault(digest, time.monotonic())
            if digest != newest and self._is_over(digest):
                logger.info("no session runs with the features %s any more", digest)
                for kept in (self._heads, self._sessions, self._used_at):
                    kept.pop(digest, None)
        self._folds.forget(self._heads)

    def _head(self, name: str, version: Version) -> Head | None:
        head = self._loaded.get(version.folder)
        if head is None:
            try:
                head = load(self._cache, f"{self._settings.models.prefix}-{name}", version, self._folds)
            except UnusableError as error:
                if version.folder not in self._told:
                    self._told.add(version.folder)
                    logger.error("%s; what scored before goes on", error)
        return head

    @staticmethod
    def _reason(name: str, state: State, champions: Mapping[str, Head]) -> str:
        followed = state.heads.get(name, Followed())
        if name in champions:
            return FEATURE_DIGEST_MISMATCH
        refused = next(iter(followed.refused.values()), None)
        if refused is not None:
            return refused.reason
        if followed.champion is not None:
            return MODEL_UNUSABLE
        # without a word of the follower, it is the registry that keeps it waiting
        return REGISTRY_UNREACHABLE if state.unreachable_since_ms or not state.run else NO_MODEL

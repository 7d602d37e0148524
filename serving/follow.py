"""The follower: one process a service that asks the registry and fills the cache, so that no worker waits for MLflow.

Started by a worker (`serving.watcher`), with what it needs as one line of JSON on its standard input; when that input
ends, because the worker did, so does the follower, and another worker starts the next one. It holds the cache's lock.

A version is downloaded once and checked here before any worker hears of it: its files, its features, its golden row.
What cannot be used is told once, and what was there stays: a head that was scored by a model is never given back to
its prior, whatever happens to aliases or the registry.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import msgspec

from features.compiler import compile_fold
from features.settings import SettingsError
from serving.model_cache import Followed, ModelCache, Refused, State, Version
from serving.models import MODEL_UNUSABLE, NO_MODEL, Folds, UnusableError, load
from serving.registry import Registered, Registry, RegistryError
from serving.settings import ServingSettings

logger = logging.getLogger("lotse.models")

# How soon it hears of a request to ask now, and how often at most it asks.
LOOK_SECONDS: Final = 0.05


class Orders(msgspec.Struct):
    """What a follower is told when it starts."""

    run: str
    cache: str
    uri: str
    prefix: str
    champion: str
    challenger: str
    heads: list[str]
    poll_seconds: float
    kept: int


class Follower:
    """What the registry's aliases lead to, poll by poll."""

    def __init__(self, orders: Orders) -> None:
        self._orders, self._folds = orders, Folds(compile_fold())
        self._cache = ModelCache(Path(orders.cache))
        self._registry: Registry | None = None
        self._unusable: dict[str, Refused] = {}  # by folder: what was found wrong with a version
        self._told: set[tuple[str, str]] = set()
        before = self._cache.state()
        self.state = State(orders.run, before.unreachable_since_ms)
        for head in orders.heads:
            self.state.heads[head] = self._still_usable(head, before.heads.get(head, Followed()))

    def poll(self) -> None:
        """Ask once, and write down what is new."""
        before = msgspec.json.encode(self.state)
        try:
            if self._registry is None:
                self._registry = Registry(self._orders.uri)
            for head in self._orders.heads:
                self._follow(self._registry, head, self.state.heads[head])
        except RegistryError as error:
            if not self.state.unreachable_since_ms or ("", "registry") not in self._told:
                logger.error("the registry cannot be reached (%s); the last good models go on scoring", error)
                self._told.add(("", "registry"))
            self.state.unreachable_since_ms = self.state.unreachable_since_ms or time.time_ns() // 1_000_000
        else:
            if self.state.unreachable_since_ms:
                logger.warning("the registry answers again")
            self.state.unreachable_since_ms = 0
        if msgspec.json.encode(self.state) != before or self._cache.state().run != self.state.run:
            self._cache.write(self.state)
            for head, followed in self.state.heads.items():
                self._cache.prune([self._name(head)], followed.versions())
        self._cache.note_poll()

    def _still_usable(self, head: str, followed: Followed) -> Followed:
        """Of what an earlier follower left, what this release can use."""
        return Followed(
            champion=followed.champion if self._fits(head, followed.champion) else None,
            challenger=followed.challenger if self._fits(head, followed.challenger) else None,
            previous=[version for version in followed.previous if self._fits(head, version)],
        )

    def _fits(self, head: str, version: Version | None) -> bool:
        if version is None:
            return False
        try:
            self._load(head, version)
        except UnusableError as error:
            logger.warning("of the cache, %s", error)
            return False
        return True

    def _load(self, head: str, version: Version, tagged: str | None = None) -> None:
        # a fold that a model brings along is compiled here first: workers then load machine code from the disk
        load(self._cache, self._name(head), version, self._folds, tagged)

    def _follow(self, registry: Registry, head: str, followed: Followed) -> None:
        orders, name = self._orders, self._name(head)
        found = {alias: registry.version(name, alias) for alias in (orders.champion, orders.challenger)}
        champion, challenger = found[orders.champion], found[orders.challenger]
        refused: dict[str, Refused] = {}
        if champion is None:
            detail = f"the registry has no {name} with the alias {orders.champion!r}; run lotse train"
            refused[orders.champion] = self._refuse(Refused("", NO_MODEL, detail), name)
        else:
            version = self._usable(registry, head, champion)
            if isinstance(version, Refused):
                refused[orders.champion] = version
            elif version != followed.champion:
                past = [one for one in (followed.champion, *followed.previous) if one not in (None, version)]
                followed.previous = [one for one in past if one is not None][: orders.kept - 1]
                followed.champion = version
        if challenger is None or (champion is not None and challenger.source == champion.source):
            followed.challenger = None
        else:
            rival = self._usable(registry, head, challenger)
            followed.challenger = None if isinstance(rival, Refused) else rival
            if isinstance(rival, Refused):
                refused[orders.challenger] = rival
        followed.refused = refused

    def _usable(self, registry: Registry, head: str, found: Registered) -> Version | Refused:
        """The version, in the cache, or why it is not."""
        name = self._name(head)
        version = self._cache.version(name, found.number, found.source, found.registered_ms)
        if version in self.state.heads[head].versions() and self._cache.has(version):
            return version
        if version.folder in self._unusable:
            return self._unusable[version.folder]
        try:
            if not self._cache.has(version):
                with self._cache.beside() as folder:
                    self._cache.keep(version, registry.download(name, found.number, Path(folder, "download")))
            self._load(head, version, found.tags.get("feature_digest", ""))
        except UnusableError as error:
            return self._never(version, Refused(found.number, error.reason, str(error)), name)
        except (RegistryError, OSError) as error:
            # it may be there the next time
            detail = f"{name} version {found.number} cannot be downloaded: {error}"
            return self._refuse(Refused(found.number, MODEL_UNUSABLE, detail), name)
        return version

    def _never(self, version: Version, refused: Refused, name: str) -> Refused:
        self._unusable[version.folder] = self._refuse(refused, name)
        return refused

    def _refuse(self, refused: Refused, name: str) -> Refused:
        """Tell it, once."""
        if (name, refused.detail) not in self._told:
            self._told.add((name, refused.detail))
            logger.warning("%s", refused.detail)
        return refused

    def _name(self, head: str) -> str:
        return f"{self._orders.prefix}-{head}"


def follow(orders: Orders) -> None:
    """Poll for ever."""
    cache = ModelCache(Path(orders.cache))
    cache.tidy()
    follower = Follower(orders)
    while True:
        asked = cache.asked()
        begin = time.monotonic()
        follower.poll()
        while cache.asked() == asked and time.monotonic() - begin < orders.poll_seconds:
            time.sleep(LOOK_SECONDS)


def pack(settings: ServingSettings, folder: Path) -> dict[str, str]:
    """Fill a folder that `models.cache` can name with the champions; returns the version of each head.

    Raises
    ------
    SettingsError
        A head has no champion, or one that cannot be used here.
    """
    models = settings.models
    folder.mkdir(parents=True, exist_ok=True)
    orders = Orders(
        "packed", str(folder), models.uri, models.prefix, models.alias, models.challenger, list(models.heads), 1, 1
    )
    follower = Follower(orders)
    follower.poll()
    versions: dict[str, str] = {}
    for head, followed in follower.state.heads.items():
        if followed.champion is None:
            refused = followed.refused.get(models.alias)
            raise SettingsError(f"{head}: {refused.detail if refused else 'the registry cannot be reached'}")
        versions[head] = followed.champion.number
    return versions


def main() -> None:
    """What the process does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Ctrl-C in a terminal reaches it, too; it ends with its worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines: SimpleQueue[bytes] = SimpleQueue()

    def listen_to_the_worker() -> None:
        """Read from the first moment on: the worker may end while MLflow is imported, or before it gives an order."""
        while line := sys.stdin.buffer.readline():
            lines.put(line)
        os._exit(0)

    threading.Thread(target=listen_to_the_worker, daemon=True).start()
    with contextlib.suppress(Exception):  # told when the registry is asked
        import mlflow  # noqa: F401, PLC0415  (the orders come when the worker has compiled its fold)
    follow(msgspec.json.decode(lines.get(), type=Orders))


if __name__ == "__main__":
    main()

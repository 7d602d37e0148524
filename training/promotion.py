"""Moving the alias of the champion, one promotion at a time, and the way back (`training.gate` says who may).

MLflow has no compare-and-set. What it has is a unique name for each registered model, a primary key in its database:
of two that make the same one, one fails. So an empty registered model, `<name>--promoting`, is the lock of a head. It
is held for the moment it takes to look whether the champion is still the one compared with, and to move the alias.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from uuid import uuid4

from features.settings import SettingsError
from training.config import TrackingSettings
from training.provenance import iso
from training.registry import registered_name, version_by_alias

logger = logging.getLogger("lotse.promotion")

# A lock is held for seconds: whoever holds one for longer was killed.
STALE_LOCK_MS: Final = 3_600_000
_TAKEN: Final = ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST")


class PromotionError(SettingsError):
    """An alias that is not moved: says why, and what to do."""


def promote(
    client: Any, settings: TrackingSettings, head: str, version: str, *, instead_of: str | None, tags: Mapping[str, str]
) -> None:
    """Make `version` the champion of the head.

    instead_of: the champion's version that it was compared with, None for no champion; tags: what the gate found, put
    on the version together with `promoted_at` and `promoted_from`. The version before is tagged with `replaced_at`
    and `replaced_by`; the candidate's alias goes, unless it has moved on to a newer version.

    Raises
    ------
    PromotionError
        Another promotion of the head is under way, or the champion is not `instead_of` any more.
    """
    name = registered_name(settings, head)
    with one_at_a_time(client, name) as still_held:
        champion = version_by_alias(client, name, settings.alias)
        found = None if champion is None else str(champion.version)
        if found != instead_of:
            raise PromotionError(
                f"{name}: the champion was {_named(instead_of)} when version {version} was compared with it and is "
                f"{_named(found)} now; compare again: lotse promote --head {head}"
            )
        now = iso(time.time_ns() // 1_000_000)
        # before the alias: a champion always knows where it came from
        for key, value in {**tags, "promoted_at": now, "promoted_from": instead_of or ""}.items():
            client.set_model_version_tag(name, version, key, value)
        still_held()
        client.set_registered_model_alias(name, settings.alias, version)
        if instead_of:
            client.set_model_version_tag(name, instead_of, "replaced_at", now)
            client.set_model_version_tag(name, instead_of, "replaced_by", version)
        candidate = version_by_alias(client, name, settings.candidate_alias)
        if candidate is not None and str(candidate.version) == version:
            client.delete_registered_model_alias(name, settings.candidate_alias)


def rollback(
    client: Any, settings: TrackingSettings, head: str, to: str | None, usable: Callable[[Any], None]
) -> tuple[str, str]:
    """Make the version before the champion, or version `to`, the champion again; returns (version left, version now).

    The version before is the one that the champion was promoted instead of; so going back twice goes back two versions.
    usable: called with MLflow's version; raises what is wrong with it.

    Raises
    ------
    PromotionError
        There is no champion, none before it, no version `to`, or another promotion is under way.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    name = registered_name(settings, head)
    with one_at_a_time(client, name) as still_held:
        champion = version_by_alias(client, name, settings.alias)
        if champion is None:
            raise PromotionError(f"{name} has no version with the alias {settings.alias!r}: nothing to go back from")
        left = str(champion.version)
        version = to or champion.tags.get("promoted_from")
        if not version:
            raise PromotionError(
                f"{name} version {left} was promoted instead of no other: nothing to go back to; name a version: "
                f"lotse rollback --head {head} --to VERSION ({_versions(client, name)})"
            )
        if version == left:
            raise PromotionError(f"{name} version {left} is the champion already")
        try:
            target = client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise PromotionError(
                f"{name} has no version {version}; name another: lotse rollback --head {head} --to VERSION "
                f"({_versions(client, name)})"
            ) from None
        usable(target)
        now = iso(time.time_ns() // 1_000_000)
        # never a champion yet: the way back from there is to the one left
        if to and not {"promoted_at", "replaced_at"} & set(target.tags):
            client.set_model_version_tag(name, version, "promoted_at", now)
            client.set_model_version_tag(name, version, "promoted_from", left)
            client.set_model_version_tag(name, version, "promoted_by", "lotse rollback")
        still_held()
        client.set_registered_model_alias(name, settings.alias, version)
        client.set_model_version_tag(name, version, "restored_at", now)
        client.set_model_version_tag(name, left, "rolled_back_at", now)
        client.set_model_version_tag(name, left, "rolled_back_to", version)
    return left, version


@contextmanager
def one_at_a_time(client: Any, name: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of a registered model; yields a call that raises where it is not held any more.

    A lock older than an hour was left by somebody who was killed, and is taken over: renamed to `<lock>-<its holder>`,
    which works once only, even where the next lock has the old name already. The renamed lock stays for that.

    Raises
    ------
    PromotionError
        Somebody else holds it: says who, and since when.
    """
    lock, holder = f"{name}--promoting", uuid4().hex
    _acquire(client, lock, holder)

    def still_held() -> None:
        if _tags(client, lock).get("holder") != holder:
            raise PromotionError(f"{lock} was taken over, because this promotion took over an hour; try again")

    try:
        yield still_held
    finally:
        _release(client, lock, holder)


def _acquire(client: Any, lock: str, holder: str) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    # made; or stale, moved away and made; or given back between two looks and made
    for _ in range(3):
        now = time.time_ns() // 1_000_000
        tags = {"holder": holder, "since": str(now), "by": f"{socket.gethostname()}, process {os.getpid()}"}
        try:
            client.create_registered_model(lock, tags, "A promotion is under way, or was killed.")
            return
        except MlflowException as error:
            if error.error_code not in _TAKEN:
                raise
        found = _tags(client, lock)
        if not found:
            continue
        since = int(found.get("since", 0))
        if now - since < STALE_LOCK_MS:
            raise PromotionError(
                f"another promotion is under way by {found.get('by')} since {iso(since)} ({lock}); wait for it, or, if "
                "it was killed, an hour"
            )
        try:
            client.rename_registered_model(lock, f"{lock}-{found.get('holder')}")
        except MlflowException:
            raise PromotionError(f"another promotion has taken over the stale lock {lock}; try again") from None
    raise PromotionError(f"{lock} changes hands all the time; try again")


def _release(client: Any, lock: str, holder: str) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        if _tags(client, lock).get("holder") == holder:
            client.delete_registered_model(lock)
    except MlflowException as error:  # the alias is moved or not: that is not undone by this
        logger.warning("the lock %s could not be given back (%s); it lapses in an hour", lock, error)


def _tags(client: Any, lock: str) -> dict[str, str]:
    """The tags of the lock; none where nobody holds it."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        return dict(client.get_registered_model(lock).tags)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _named(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"


def _versions(client: Any, name: str) -> str:
    numbers = sorted(int(one.version) for one in client.search_model_versions(f"name = '{name}'"))
    return f"there are: {', '.join(map(str, numbers))}"
